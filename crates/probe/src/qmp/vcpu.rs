//! A vCPU of a paused machine, as QEMU has made it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cpusieve_formats::qmp::{FeatureWord, Notice, Version};

use super::{QmpError, Start};

/// The first vCPU of a machine that is paused before its first instruction: what `-cpu` and `-machine` have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuView {
    /// The QEMU's version.
    pub version: Version,
    /// The registers of CPUID that the vCPU has.
    pub features: Vec<FeatureWord>,
    /// The bits that were asked for and taken away, because the accelerator does not offer them.
    pub filtered: Vec<FeatureWord>,
    /// All properties that have a value, as JSON texts: `aes` to `true`.
    pub properties: BTreeMap<String, String>,
    /// What QEMU said on stderr while it made the machine: the warnings of every vCPU, one after the other.
    pub notices: Vec<Notice>,
    /// How many vCPUs there are.
    pub vcpus: usize,
    /// All that was said ([`super::Session::transcript`]).
    pub transcript: Vec<String>,
    /// How long it took, from before the program was started until after it had ended.
    pub took: Duration,
}

/// Starts a machine and looks at its first vCPU. Nothing of the guest runs.
///
/// # Errors
///
/// If QEMU cannot be run or stops answering; with [`QmpError::Ended`] QEMU's own words say why there is no such machine.
/// A machine without a CPU is [`QmpError::Wrong`].
pub fn vcpu(start: &Start) -> Result<VcpuView, QmpError> {
    let clock = Instant::now();
    let mut session = start.open()?;
    let vcpus = session.vcpus()?;
    let Some(first) = vcpus.iter().min_by_key(|vcpu| vcpu.index) else {
        return Err(session.wrong("query-cpus-fast", "the machine has no vCPU".to_owned()));
    };
    let features = session.feature_words(&first.path, "feature-words")?;
    let filtered = session.feature_words(&first.path, "filtered-features")?;
    let mut properties = BTreeMap::new();
    for property in session.list(&first.path)?.into_iter().filter(|property| has_value(&property.kind)) {
        match session.get(&first.path, &property.name) {
            Ok(value) => _ = properties.insert(property.name, value),
            // Some can only be set, or have a value in a crashed guest alone.
            Err(QmpError::Refused { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    let notices = session.notices();
    let transcript = session.transcript();
    let version = session.version().clone();
    session.close()?;
    let took = clock.elapsed();
    Ok(VcpuView { version, features, filtered, properties, notices, vcpus: vcpus.len(), transcript, took })
}

/// Whether a property of this type is a value, and not another object or a list of its own kind that was asked before.
fn has_value(kind: &str) -> bool {
    let structured = kind.starts_with("child<") || kind.starts_with("link<") || kind == "X86CPUFeatureWordInfo";
    !structured
}
