//! What the running kernel says of itself: release, command line, `/proc/cpuinfo`, configuration.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use cpusieve_model::{LinuxView, MissingPart};

use crate::Refusal;
use crate::files::{Root, bounded};

/// The longest `/proc/cpuinfo` that is read, in bytes: 8192 CPUs with 4 KiB each.
const CPUINFO_LIMIT: u64 = 32 << 20;

/// The longest configuration that is read, in bytes after decompression. Distributions' are about 300 KiB.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Reads all that the kernel says. What cannot be read is named in `missing`.
pub fn view(missing: &mut Vec<MissingPart>) -> LinuxView {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    view_below(&Root::machine(), release, missing)
}

pub(crate) fn view_below(root: &Root, release: String, missing: &mut Vec<MissingPart>) -> LinuxView {
    let mut seen = |what: &str, remedy: Option<&str>, text: Result<String, Refusal>| {
        text.map_err(|refusal| missing.push(refusal.missing(what, remedy))).ok()
    };
    let cmdline = seen("kernel command line", None, root.value("proc/cmdline"));
    let cpuinfo = seen("/proc/cpuinfo", None, root.text("proc/cpuinfo", CPUINFO_LIMIT));
    let remedy = "install the kernel's configuration as /boot/config-RELEASE, or load the module configs";
    let config = seen("kernel configuration", Some(remedy), config_text(root, &release)).as_deref().map(about_cpus);
    LinuxView { release: Some(release), cmdline, cpuinfo, config }
}

/// The kernel's configuration: from the kernel itself, or from where distributions put it.
fn config_text(root: &Root, release: &str) -> Result<String, Refusal> {
    let packed = root.path("proc/config.gz");
    let own = File::open(&packed).map_err(|source| Refusal::file(&packed, source)).and_then(|file| {
        let bytes = bounded(flate2::read::GzDecoder::new(file), &packed, CONFIG_LIMIT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    // A release with a slash or a dot-dot would lead elsewhere.
    if own.is_ok() || release.is_empty() || release.contains(['/', '\0']) {
        return own;
    }
    let places = [format!("boot/config-{release}"), format!("lib/modules/{release}/config")];
    let mut refusal = None;
    for place in places {
        match root.text(&place, CONFIG_LIMIT) {
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == Some(io::ErrorKind::NotFound) => {}
            Err(error) => refusal = Some(error),
        }
    }
    refusal.map_or(own, Err)
}

/// The options of a configuration that decide over CPU features, KVM and mitigations. An option that the
/// configuration lists as not set is `n`.
pub fn about_cpus(config: &str) -> BTreeMap<String, String> {
    let option = |line: &str| {
        let (name, value) = match line.strip_prefix("# ") {
            Some(comment) => (comment.strip_suffix(" is not set")?, "n"),
            None => line.split_once('=')?,
        };
        decides(name.strip_prefix("CONFIG_")?).then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    };
    config.lines().filter_map(|line| option(line.trim())).collect()
}

/// Whether an option, without `CONFIG_`, is about CPU features, KVM or mitigations.
fn decides(option: &str) -> bool {
    const BEGINNINGS: [&str; 14] = [
        "X86_",
        "KVM",
        "CPU_",
        "MITIGATION_",
        "PARAVIRT",
        "HYPERV",
        "XEN",
        "INTEL_TDX",
        "INTEL_IOMMU_SVM",
        "AMD_MEM_",
        "MICROCODE",
        "IA32_",
        "PERF_EVENTS_",
        "SPECULATION_",
    ];
    const PARTS: [&str; 6] = ["MITIGATION", "RETPOLINE", "RETHUNK", "SHADOW_STACK", "_GUEST", "CALL_DEPTH"];
    const WHOLE: [&str; 16] = [
        "64BIT",
        "SMP",
        "NUMA",
        "SCHED_INFO",
        "PAGE_TABLE_ISOLATION",
        "SLS",
        "MATH_EMULATION",
        "MTRR",
        "ACPI",
        "PCI",
        "BROKEN",
        "ADDRESS_MASKING",
        "EFI",
        "PERF_EVENTS",
        "TSC_DEADLINE",
        "MK8",
    ];
    BEGINNINGS.iter().any(|beginning| option.starts_with(beginning))
        || PARTS.iter().any(|part| option.contains(part))
        || WHOLE.contains(&option)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::Folder;

    const CONFIG: &str = "#\n# Automatically generated\n#\nCONFIG_X86_5LEVEL=y\n# CONFIG_X86_SGX is not set\n\
        CONFIG_KVM_AMD=m\nCONFIG_USB=y\nCONFIG_PAGE_TABLE_ISOLATION=y\nCONFIG_GDS_FORCE_MITIGATION=y\n\
        CONFIG_DEFAULT_HOSTNAME=\"(none)\"\nCONFIG_X86_\n= \n";

    fn options(config: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        config.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn options_about_cpus_are_kept_and_no_others() {
        let expected = [
            ("CONFIG_GDS_FORCE_MITIGATION", "y"),
            ("CONFIG_KVM_AMD", "m"),
            ("CONFIG_PAGE_TABLE_ISOLATION", "y"),
            ("CONFIG_X86_5LEVEL", "y"),
            ("CONFIG_X86_SGX", "n"),
        ];
        assert_eq!(options(&about_cpus(CONFIG)), expected);
    }

    #[test]
    fn the_configuration_is_found_packed_or_in_boot() {
        let folder = Folder::new("linux");
        let mut missing = Vec::new();
        let bare = view_below(&folder.root(), "6.1.0-x".into(), &mut missing);
        assert_eq!(bare.config, None);
        assert_eq!(missing.len(), 3, "{missing:?}");

        folder.write("boot/config-6.1.0-x", b"CONFIG_SMP=y\n");
        folder.write("proc/cmdline", b"quiet nosmt\n");
        folder.write("proc/cpuinfo", b"processor\t: 0\n");
        let mut missing = Vec::new();
        let view = view_below(&folder.root(), "6.1.0-x".into(), &mut missing);
        assert_eq!(view.cmdline.as_deref(), Some("quiet nosmt"));
        assert_eq!(view.cpuinfo.as_deref(), Some("processor\t: 0\n"));
        assert_eq!(options(&view.config.unwrap()), [("CONFIG_SMP", "y")]);
        assert!(missing.is_empty());

        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_SMP=y\nCONFIG_NUMA=y\n").unwrap();
        folder.write("proc/config.gz", &packed.finish().unwrap());
        let view = view_below(&folder.root(), "6.1.0-x".into(), &mut missing);
        assert_eq!(view.config.unwrap().len(), 2);
    }

    #[test]
    fn a_packed_configuration_that_swells_is_refused() {
        let folder = Folder::new("linux-bomb");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&vec![b'\n'; CONFIG_LIMIT as usize + 2]).unwrap();
        folder.write("proc/config.gz", &packed.finish().unwrap());
        let mut missing = Vec::new();
        let view = view_below(&folder.root(), "../../etc/passwd".into(), &mut missing);
        assert_eq!(view.config, None);
        assert!(missing.iter().any(|part| part.why.contains("longer than")), "{missing:?}");
    }
}
