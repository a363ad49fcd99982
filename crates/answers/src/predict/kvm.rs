//! What KVM offers on the machine that an input shows: supported and emulated CPUID, feature MSRs, and why.
//!
//! ```
//! use cpusieve_answers::predict::{Kernel, kvm};
//! use cpusieve_model::{Cpu, Registers, Snapshot, Stage};
//!
//! // AuthenticAMD, family 19H, with FPU and CMOV, ACPI (which no AMD CPU has), and SVM.
//! let mut cpu = Cpu::default();
//! cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
//! cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, edx: 0x0040_8001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
//! let machine = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
//!
//! let kernel = Kernel { release: Some("6.12"), ..Kernel::new(Stage::Host) };
//! let found = kvm::predict(&machine, &kvm::Question::new(kernel)).unwrap();
//! let table = found.view.supported_table().unwrap();
//! assert_eq!(table.get(1, 0).unwrap().edx, 0x8001, "ACPI is in no list of KVM's");
//! ```

mod own;
mod params;

use std::collections::BTreeMap;

use cpusieve_model::{CpuidTable, KvmView, Snapshot, Step};
use cpusieve_stages::kvm::answer::{self, Finding};
use cpusieve_stages::kvm::msrs::{FeatureMsrs, feature_msrs};
use cpusieve_stages::linux::boot::{self, Output};
use cpusieve_stages::linux::kinds;

use super::{Assumption, Kernel, NoPrediction, Prediction, booted, choose, in_long_mode};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The host's kernel.
    pub kernel: Kernel<'a>,
    /// Module parameters that replace those of the input, as they were given: `nested` or `kvm_amd.nested`, and the value.
    pub params: &'a [(String, String)],
    /// Whether KVM is predicted even where the input holds its answer.
    pub predicted: bool,
    /// The dynamic user state components (bits of XCR0) for which the VMM asked permission: 0, or bit 18 for AMX.
    pub permitted: u64,
}

impl<'a> Question<'a> {
    /// What the input's own KVM offers, with the parameters that the input shows.
    #[must_use]
    pub const fn new(kernel: Kernel<'a>) -> Self {
        Self { kernel, params: &[], predicted: false, permitted: 0 }
    }

    /// Whether this asks for another kernel, or other parameters, than the input shows.
    fn supposes(&self, snapshot: &Snapshot) -> bool {
        let linux = snapshot.linux.as_ref();
        let other = |asked: Option<&str>, own: Option<&str>| asked.is_some() && asked != own;
        !self.params.is_empty()
            || self.permitted != 0
            || other(self.kernel.release, linux.and_then(|linux| linux.release.as_deref()))
            || other(self.kernel.cmdline, linux.and_then(|linux| linux.cmdline.as_deref()))
    }
}

/// What KVM offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmPrediction {
    /// The host's kernel.
    pub host: Prediction,
    /// KVM's answers: those of the input where they are used as they are, else the predicted ones.
    pub view: KvmView,
    /// The feature MSRs in KVM's order; `None` for a value that hangs on a register that nobody read.
    pub msr_features: Vec<(u32, Option<u64>)>,
    /// Whether `KVM_GET_MSR_INDEX_LIST` has an MSR: of those on which a later stage hangs.
    pub msr_index: BTreeMap<u32, bool>,
    /// Which answers are the input's own.
    pub seen: Seen,
    /// The calls of `do_host_cpuid` that one `KVM_GET_SUPPORTED_CPUID` makes, in their order.
    pub calls: Vec<answer::Call>,
    /// What KVM did to each feature, by which rule.
    pub steps: Vec<Step>,
    /// What was assumed, of the kernel, of KVM, of the rest.
    pub assumed: Vec<Assumption>,
    /// What is odd about this host.
    pub findings: Vec<Finding>,
}

/// Which of KVM's answers stood in the input and were used as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the answers of the same name")]
pub struct Seen {
    pub supported: bool,
    pub emulated: bool,
    pub msr_features: bool,
}

/// What KVM offers on the first CPU of which the input shows CPUID, where it would run the ioctl.
///
/// An answer that the input holds is used as it is, unless another kernel or other parameters were asked for.
///
/// # Errors
/// If the input shows no CPUID, or a release or a parameter was asked for that does not exist.
pub fn predict(snapshot: &Snapshot, question: &Question<'_>) -> Result<KvmPrediction, NoPrediction> {
    let (seen, chosen) = choose(snapshot, &question.kernel)?;
    let config = chosen.config;
    let in_long_mode = in_long_mode(snapshot, seen.cpuid);
    let mut host = booted(seen, in_long_mode.as_ref(), chosen);
    let tree = host.tree;
    let others = other_kernels(snapshot, boot::Input { config, ..seen }, tree);
    // The host's own is lent for as long as KVM asks it.
    let kernels: Vec<Output> = std::iter::once(std::mem::take(&mut host.boot)).chain(others).collect();
    let cpuid = in_long_mode.as_ref().unwrap_or(seen.cpuid);
    let params = params::merged(snapshot, question.params, tree)?;
    let input = answer::Input {
        of: seen.of,
        cpuid,
        msrs: seen.msrs,
        unlisted: seen.unlisted,
        kernels: &kernels,
        cmdline: seen.cmdline,
        config,
        params: &params,
        permitted: question.permitted,
    };
    let (made, msrs) = match answer::load(&input, tree) {
        Ok(module) => (answer::answers(&module), feature_msrs(&module, seen.microcode)),
        Err(finding) => (finding.into(), FeatureMsrs::default()),
    };
    let given = snapshot.kvm.as_ref().filter(|_| !question.predicted && !question.supposes(snapshot));
    host.boot = kernels.into_iter().next().unwrap_or_default();
    Ok(joined(host, made, msrs, (given, cpuid), params))
}

/// Puts the input's own answers over the predicted ones.
fn joined(
    host: Prediction,
    made: answer::Output,
    msrs: FeatureMsrs,
    (given, cpuid): (Option<&KvmView>, &CpuidTable),
    params: BTreeMap<String, String>,
) -> KvmPrediction {
    let answer::Output { mut view, calls, steps, assumed, findings } = made;
    let mut seen = Seen::default();
    let FeatureMsrs { values: mut msr_features, indexed: mut msr_index, steps: of_msrs, assumed: assumed_of_msrs } =
        msrs;
    let mut all_steps = steps;
    all_steps.extend(of_msrs);
    view.msr_features =
        (!msr_features.is_empty()).then(|| msr_features.iter().filter_map(|&(i, v)| Some((i, v?))).collect());
    view.params = params;
    if let Some(given) = given {
        if let Some(list) = &given.msr_index {
            msr_index.iter_mut().for_each(|(index, listed)| *listed = list.contains(index));
        }
        if let Some(table) = given.supported_table() {
            all_steps = own::steps(all_steps, cpuid, view.supported_table().as_ref(), &table);
        }
        seen.supported = own::replace(&mut view.supported, given.supported.as_ref());
        seen.emulated = own::replace(&mut view.emulated, given.emulated.as_ref());
        seen.msr_features = own::replace(&mut view.msr_features, given.msr_features.as_ref());
        if seen.msr_features {
            msr_features = own::in_order(&msr_features, given);
        }
        view = KvmView {
            msr_index: given.msr_index.clone(),
            caps: given.caps.clone(),
            xcomp_guest_supp: given.xcomp_guest_supp.or(view.xcomp_guest_supp),
            tsc_khz: given.tsc_khz,
            ..view
        };
    }
    let mut assumptions = host.assumed.clone();
    // What was not seen of an answer that was seen itself does not matter.
    let of_kvm = assumed.iter().filter(|_| !(seen.supported && seen.emulated));
    let of_msrs = assumed_of_msrs.iter().filter(|_| !seen.msr_features);
    for assumed in of_kvm.chain(of_msrs).map(Assumption::from) {
        if assumptions.iter().all(|other| other.what != assumed.what) {
            assumptions.push(assumed);
        }
    }
    let steps = all_steps;
    KvmPrediction { host, view, msr_features, msr_index, seen, calls, steps, assumed: assumptions, findings }
}

/// What the kernel makes of the CPUs that differ from the first in what is not their place in the machine.
fn other_kernels(snapshot: &Snapshot, seen: boot::Input<'_>, tree: usize) -> Vec<Output> {
    let boots = kinds::others(snapshot).into_iter().map(|cpu| {
        let fixed = in_long_mode(snapshot, &cpu.cpuid);
        let microcode = cpu.cpuinfo.as_ref().and_then(|cpuinfo| cpuinfo.identity.microcode).or(seen.microcode);
        let cpuid = fixed.as_ref().unwrap_or(&cpu.cpuid);
        boot::boot(&boot::Input { cpuid, msrs: &cpu.msrs, microcode, ..seen }, tree)
    });
    boots.collect()
}
