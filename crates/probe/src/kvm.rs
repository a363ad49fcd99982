//! What the host's KVM answers on `/dev/kvm`, and how its modules are configured.
//!
//! Each question is asked for itself; one that is refused leaves its field empty and is named with the errno, and the
//! others go on. The permission for dynamic XSAVE components (AMX) is not requested: QEMU reads the table of supported
//! leaves without it too, and takes the components from `KVM_X86_XCOMP_GUEST_SUPP`
//! (QEMU `target/i386/kvm/kvm.c:kvm_arch_get_supported_cpuid`).

mod ioctl;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use cpusieve_model::{KvmCpuidEntry, KvmView, MissingPart, Registers};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MAX_MSR_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::Kvm;

use crate::Refusal;
use crate::files::Root;

/// The one version of KVM's API that exists since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// `KVM_CHECK_EXTENSION` is asked for every number below this one; the highest to which a Linux 7.3 says yes is 244.
const CAPS_BELOW: u32 = 256;

/// Capabilities whose absence decides something, so that their zero is kept too (`include/uapi/linux/kvm.h`).
const DECIDING_CAPS: [(u32, &str); 32] = [
    (0, "IRQCHIP"),
    (7, "EXT_CPUID"),
    (31, "MCE"),
    (44, "HYPERV"),
    (55, "XSAVE"),
    (56, "XCRS"),
    (59, "ASYNC_PF"),
    (60, "TSC_CONTROL"),
    (61, "GET_TSC_KHZ"),
    (66, "MAX_VCPUS"),
    (72, "TSC_DEADLINE_TIMER"),
    (95, "EXT_EMUL_CPUID"),
    (96, "HYPERV_TIME"),
    (117, "X86_SMM"),
    (121, "SPLIT_IRQCHIP"),
    (123, "HYPERV_SYNIC"),
    (129, "X2APIC_API"),
    (143, "X86_DISABLE_EXITS"),
    (148, "HYPERV_SYNIC2"),
    (149, "HYPERV_VP_INDEX"),
    (153, "GET_MSR_FEATURES"),
    (155, "HYPERV_TLBFLUSH"),
    (157, "NESTED_STATE"),
    (161, "HYPERV_SEND_IPI"),
    (163, "HYPERV_ENLIGHTENED_VMCS"),
    (167, "HYPERV_CPUID"),
    (183, "ASYNC_PF_INT"),
    (190, "ENFORCE_PV_FEATURE_CPUID"),
    (196, "SGX_ATTRIBUTE"),
    (208, "XSAVE2"),
    (209, "SYS_ATTRIBUTES"),
    (212, "PMU_CAPABILITY"),
];

/// `KVM_CAP_SYS_HYPERV_CPUID`: `/dev/kvm` tells Hyper-V's leaves.
const CAP_SYS_HYPERV_CPUID: u32 = 191;

/// `KVM_CAP_SYS_ATTRIBUTES`: `/dev/kvm` has attributes.
const CAP_SYS_ATTRIBUTES: u32 = 209;

/// `KVM_CAP_GET_TSC_KHZ`: a vCPU tells its TSC's frequency.
const CAP_GET_TSC_KHZ: u32 = 61;

/// Asks KVM all that later stages need. `None`, with the reason in `missing`, if there is no KVM or no access to it.
///
/// To learn the TSC's frequency a virtual machine with one vCPU is made and taken down again at once; it never runs.
pub fn view(missing: &mut Vec<MissingPart>) -> Option<KvmView> {
    view_below(&Root::machine(), missing)
}

pub(crate) fn view_below(root: &Root, missing: &mut Vec<MissingPart>) -> Option<KvmView> {
    let params = parameters(root, missing);
    match open(root) {
        Ok(kvm) => Some(KvmView { params, ..answers(&kvm, missing) }),
        Err(refusal) => {
            missing.push(refusal.missing("kvm", remedy(&refusal)));
            (!params.is_empty()).then(|| KvmView { params, ..KvmView::default() })
        }
    }
}

/// Opens `/dev/kvm` and makes sure that it is KVM.
pub(crate) fn open(root: &Root) -> Result<Kvm, Refusal> {
    let path = root.path("dev/kvm");
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Refusal::file(&path, io::Error::from(io::ErrorKind::InvalidInput)))?;
    let kvm = Kvm::new_with_path(&name).map_err(|error| Refusal::file(&path, error.into()))?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        -1 => Err(Refusal::Kvm { request: "KVM_GET_API_VERSION", source: io::Error::last_os_error() }),
        other => Err(Refusal::content(&path, "KVM API version 12", &other.to_string())),
    }
}

/// What helps where KVM does not answer.
pub(crate) fn remedy(refusal: &Refusal) -> Option<&'static str> {
    const ABSENT: &str = "as root: modprobe kvm_intel or kvm_amd; if that fails, switch virtualisation (VT-x, SVM) on in \
                          the firmware, or, where this machine is a guest, nested virtualisation in its host";
    match refusal {
        Refusal::File { source, .. } => match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Some(ABSENT),
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                Some("run as root, or as a user in the group that owns /dev/kvm")
            }
            _ => None,
        },
        _ => None,
    }
}

fn answers(kvm: &Kvm, missing: &mut Vec<MissingPart>) -> KvmView {
    let caps = capabilities(kvm);
    let has = |cap| caps.get(&cap).is_some_and(|&value| value > 0);
    let (can_attributes, can_tsc) = (has(CAP_SYS_ATTRIBUTES), has(CAP_GET_TSC_KHZ));
    let can_hyperv = has(CAP_SYS_HYPERV_CPUID);
    let mut seen = Asker { missing };
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let emulated = kvm.get_emulated_cpuid(KVM_MAX_CPUID_ENTRIES);
    KvmView {
        supported: seen.keep("KVM_GET_SUPPORTED_CPUID", supported.map(|answer| entries(answer.as_slice()))),
        emulated: seen.keep("KVM_GET_EMULATED_CPUID", emulated.map(|answer| entries(answer.as_slice()))),
        // Before Linux 5.11 the question could be put to vCPUs alone.
        hyperv: can_hyperv
            .then(|| seen.keep("KVM_GET_SUPPORTED_HV_CPUID", ioctl::supported_hv_cpuid(kvm)))
            .flatten()
            .map(|answer| entries(&answer)),
        msr_features: seen.keep("KVM_GET_MSR_FEATURE_INDEX_LIST", ioctl::msr_feature_index_list(kvm)).map(|indices| {
            let (values, refused) = feature_values(kvm, &indices);
            seen.refused_msrs(&refused);
            values
        }),
        msr_index: seen.keep("KVM_GET_MSR_INDEX_LIST", ioctl::msr_index_list(kvm)),
        // Before Linux 5.17 there is neither the attribute nor a component that it would add.
        xcomp_guest_supp: can_attributes
            .then(|| seen.keep("KVM_GET_DEVICE_ATTR(KVM_X86_XCOMP_GUEST_SUPP)", ioctl::xcomp_guest_supp(kvm)))
            .flatten(),
        tsc_khz: can_tsc.then(|| seen.keep("KVM_GET_TSC_KHZ of a new vCPU", tsc_khz(kvm))).flatten(),
        caps,
        params: BTreeMap::new(),
    }
}

/// Puts what was refused into the list of missing parts.
struct Asker<'a> {
    missing: &'a mut Vec<MissingPart>,
}

impl Asker<'_> {
    fn keep<T, E: Into<io::Error>>(&mut self, request: &'static str, answer: Result<T, E>) -> Option<T> {
        let refused = |error: E| Refusal::Kvm { request, source: error.into() };
        answer.map_err(|error| self.missing.push(refused(error).missing("kvm", None))).ok()
    }

    fn refused_msrs(&mut self, indices: &[u32]) {
        if indices.is_empty() {
            return;
        }
        let listed: Vec<_> = indices.iter().map(|index| format!("{index:X}H")).collect();
        let why = format!("KVM_GET_MSRS refused these feature MSRs, which it lists: {}", listed.join(", "));
        self.missing.push(MissingPart { what: "kvm".to_owned(), why, remedy: None });
    }
}

fn entries(answer: &[kvm_bindings::kvm_cpuid_entry2]) -> Vec<KvmCpuidEntry> {
    let entry = |entry: &kvm_bindings::kvm_cpuid_entry2| KvmCpuidEntry {
        leaf: entry.function,
        subleaf: entry.index,
        flags: entry.flags,
        registers: Registers { eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx },
    };
    answer.iter().map(entry).collect()
}

/// Every capability that is not zero, and those whose zero decides something. A number that fails is left out.
fn capabilities(kvm: &Kvm) -> BTreeMap<u32, i64> {
    let decides = |cap: u32| DECIDING_CAPS.iter().any(|(number, _)| *number == cap);
    (0..CAPS_BELOW)
        .map(|cap| (cap, i64::from(kvm.check_extension_raw(cap.into()))))
        .filter(|&(cap, value)| value > 0 || (value == 0 && decides(cap)))
        .collect()
}

/// The values of feature MSRs, and the indices that were refused. KVM stops at the first MSR that it refuses
/// (`arch/x86/kvm/x86.c:__msr_io`), so the rest is asked again behind it.
fn feature_values(kvm: &Kvm, indices: &[u32]) -> (BTreeMap<u32, u64>, Vec<u32>) {
    let mut values = BTreeMap::new();
    let mut refused = Vec::new();
    let mut rest = indices;
    while !rest.is_empty() {
        let batch: Vec<_> = rest
            .iter()
            .take(KVM_MAX_MSR_ENTRIES)
            .map(|&index| kvm_msr_entry { index, ..kvm_msr_entry::default() })
            .collect();
        let Ok(mut msrs) = Msrs::from_entries(&batch) else { break };
        let read = kvm.get_msrs(&mut msrs).unwrap_or(0).min(batch.len());
        values.extend(msrs.as_slice().iter().take(read).map(|entry| (entry.index, entry.data)));
        let step = if read < batch.len() {
            refused.extend(rest.get(read));
            read + 1
        } else {
            read
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    (values, refused)
}

/// The frequency that KVM gives to the TSC of a new vCPU, in kHz, as QEMU asks for it.
fn tsc_khz(kvm: &Kvm) -> Result<u64, kvm_ioctls::Error> {
    let vm = kvm.create_vm()?;
    let khz = vm.create_vcpu(0)?.get_tsc_khz()?;
    Ok(u64::from(khz))
}

/// The loaded or built-in modules of KVM: `kvm` and its backends (`kvm_intel`, `kvm_amd`, others).
pub(crate) fn modules(root: &Root) -> Result<Vec<String>, Refusal> {
    let mut names = root.names("sys/module")?;
    names.retain(|name| name == "kvm" || name.starts_with("kvm_"));
    Ok(names)
}

/// The parameters of KVM's modules: `kvm_amd.nested` to `1`.
fn parameters(root: &Root, missing: &mut Vec<MissingPart>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut refused = Vec::new();
    for module in modules(root).unwrap_or_default() {
        let folder = format!("sys/module/{module}/parameters");
        // A module without parameters has no such folder.
        for parameter in root.names(&folder).unwrap_or_default() {
            match root.value(&format!("{folder}/{parameter}")) {
                Ok(value) => {
                    values.insert(format!("{module}.{parameter}"), value);
                }
                Err(refusal) => refused.push(refusal),
            }
        }
    }
    // One part for all of them: they are refused for the same reason.
    if let Some(refusal) = refused.first() {
        let remedy = (refusal.kind() == Some(io::ErrorKind::PermissionDenied)).then_some("run as root");
        let mut part = refusal.missing("kvm parameters", remedy);
        if refused.len() > 1 {
            part.why = format!("{} (and {} more)", part.why, refused.len() - 1);
        }
        missing.push(part);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn no_device_is_a_finding_with_a_remedy() {
        let folder = Folder::new("kvm-none");
        let mut missing = Vec::new();
        assert_eq!(view_below(&folder.root(), &mut missing), None);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].why.contains("os error 2"), "{}", missing[0].why);
        assert!(missing[0].remedy.as_deref().unwrap().contains("modprobe"));
    }

    #[test]
    fn a_file_that_is_not_kvm_is_refused_with_its_errno() {
        let folder = Folder::new("kvm-file");
        folder.write("dev/kvm", b"");
        let refusal = open(&folder.root()).unwrap_err();
        assert_eq!(refusal.to_string(), "KVM_GET_API_VERSION: Inappropriate ioctl for device (os error 25)");
    }

    #[test]
    fn a_bad_descriptor_leaves_every_answer_empty_and_names_each_question() {
        // A device that opens for reading and writing and knows none of KVM's requests.
        let kvm = Kvm::new_with_path(c"/dev/null").unwrap();
        let mut missing = Vec::new();
        let view = answers(&kvm, &mut missing);
        assert_eq!(view, KvmView::default());
        let reasons: Vec<_> = missing.iter().map(|part| part.why.as_str()).collect();
        let errno = "Inappropriate ioctl for device (os error 25)";
        let expected = ["KVM_GET_SUPPORTED_CPUID", "KVM_GET_EMULATED_CPUID", "KVM_GET_MSR_FEATURE_INDEX_LIST"];
        for (reason, request) in reasons.iter().zip(expected) {
            assert_eq!(*reason, format!("{request}: {errno}"));
        }
        assert_eq!(reasons.len(), 4);
        assert!(ioctl::xcomp_guest_supp(&kvm).is_err());
        assert!(tsc_khz(&kvm).is_err());
        assert_eq!(feature_values(&kvm, &[0x10a, 0x480]), (BTreeMap::new(), vec![0x10a, 0x480]));
    }

    #[test]
    fn parameters_of_all_backends_are_read_even_without_a_device() {
        let folder = Folder::new("kvm-parameters");
        folder.write("sys/module/kvm/parameters/enable_pmu", b"Y\n");
        folder.write("sys/module/kvm_other/parameters/force", b"N\n");
        folder.write("sys/module/kvmgt/parameters/x", b"1\n");
        folder.write("sys/module/kvm_other/parameters/folder/x", b"1\n");
        let mut missing = Vec::new();
        let view = view_below(&folder.root(), &mut missing).unwrap();
        let expected = [("kvm.enable_pmu", "Y"), ("kvm_other.force", "N")];
        let params: Vec<_> = view.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(params, expected);
        assert_eq!(missing.iter().map(|part| part.what.as_str()).collect::<Vec<_>>(), ["kvm parameters", "kvm"]);
    }

    #[test]
    fn deciding_capabilities_are_listed_once() {
        assert!(DECIDING_CAPS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(DECIDING_CAPS.iter().all(|(cap, _)| *cap < CAPS_BELOW));
    }
}
