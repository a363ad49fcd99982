//! Checks of KVM: who serves it, and how its modules are configured.

use cpusieve_model::{Cite, State};

use super::{Check, Host, Verdict, machine, switched};

/// A parameter that should be on.
struct Param {
    id: &'static str,
    what: &'static str,
    module: &'static str,
    name: &'static str,
    /// What guests have with it.
    on: &'static str,
    /// What they lack without it.
    off: &'static str,
    remedy: &'static str,
    cite: &'static str,
}

/// Parameters whose `N` costs guests something.
const PARAMS: [Param; 8] = [
    Param {
        id: "nested",
        what: "nested guests",
        module: "kvm_intel",
        name: "nested",
        on: "guests can have vmx",
        off: "no guest can have vmx",
        remedy: "modprobe -r kvm_intel; modprobe kvm_intel nested=1",
        cite: "arch/x86/kvm/vmx/vmx.c:vmx_set_cpu_caps",
    },
    Param {
        id: "nested",
        what: "nested guests",
        module: "kvm_amd",
        name: "nested",
        on: "guests can have svm",
        off: "no guest can have svm",
        remedy: "modprobe -r kvm_amd; modprobe kvm_amd nested=1",
        cite: "arch/x86/kvm/svm/svm.c:svm_set_cpu_caps",
    },
    Param {
        id: "two-stage-paging",
        what: "two-stage paging",
        module: "kvm_intel",
        name: "ept",
        on: "guests have page tables of their own (EPT)",
        off: "KVM shadows guests' page tables: slow, and without unrestricted guest",
        remedy: "load kvm_intel with ept=1; if it stays N, the CPU or the hypervisor below has no EPT",
        cite: "arch/x86/kvm/vmx/vmx.c:vmx_hardware_setup",
    },
    Param {
        id: "two-stage-paging",
        what: "two-stage paging",
        module: "kvm_amd",
        name: "npt",
        on: "guests have page tables of their own (NPT)",
        off: "KVM shadows guests' page tables: slow",
        remedy: "load kvm_amd with npt=1; if it stays N, the CPU or the hypervisor below has no NPT",
        cite: "arch/x86/kvm/svm/svm.c:svm_hardware_setup",
    },
    Param {
        id: "unrestricted-guest",
        what: "unrestricted guest",
        module: "kvm_intel",
        name: "unrestricted_guest",
        on: "real mode runs on the CPU",
        off: "real mode is emulated",
        remedy: "load kvm_intel with ept=1 and unrestricted_guest=1; CPUs before Westmere have none",
        cite: "arch/x86/kvm/vmx/vmx.c:vmx_hardware_setup",
    },
    Param {
        id: "virtual-apic",
        what: "virtual APIC",
        module: "kvm_intel",
        name: "enable_apicv",
        on: "interrupts reach guests without an exit (APICv)",
        off: "each interrupt and each end of one may cost an exit (APICv is off)",
        remedy: "load kvm_intel with enable_apicv=1; if it stays N, the CPU or the hypervisor below lacks APICv",
        cite: "arch/x86/kvm/vmx/vmx.c:vmx_hardware_setup",
    },
    Param {
        id: "virtual-apic",
        what: "virtual APIC",
        module: "kvm_amd",
        name: "avic",
        on: "interrupts reach guests without an exit (AVIC)",
        off: "each interrupt and each end of one may cost an exit (AVIC is off)",
        remedy: "load kvm_amd with avic=1; off by default before 6.18, and later on before Zen 4",
        cite: "arch/x86/kvm/svm/avic.c:avic_hardware_setup",
    },
    Param {
        id: "vpmu",
        what: "guests' counters",
        module: "kvm",
        name: "enable_pmu",
        on: "KVM gives guests performance counters, where the CPU's can be shared",
        off: "no guest can have performance counters",
        remedy: "load kvm with enable_pmu=1; hybrid CPUs have no counters for guests",
        cite: "arch/x86/kvm/pmu.c:kvm_init_pmu_capability",
    },
];

pub(super) fn examine(host: &Host<'_>, checks: &mut Vec<Check>) {
    checks.push(device(host));
    checks.extend(backend(host));
    // A CPU that cannot run guests has no such module loaded, and another backend has parameters of its own.
    let serves = machine::has_virtualization(host) != State::Absent;
    let ours = |param: &&Param| match param.module {
        "kvm_intel" => serves && host.is_intel(),
        "kvm_amd" => serves && host.is_amd(),
        _ => host.vendor.is_some(),
    };
    let known = |param: &&Param| host.has_param(param.module, param.name);
    checks.extend(PARAMS.iter().filter(ours).filter(known).map(|param| parameter(host, param)));
    checks.extend(ignore_msrs(host));
    checks.extend(l1d_flush(host));
}

/// Whether KVM answers.
fn device(host: &Host<'_>) -> Check {
    let refusal = host.live.and_then(|live| live.refusal.as_deref());
    let missing = host.snapshot.missing.iter().find(|part| part.what == "kvm").map(|part| part.why.as_str());
    let (verdict, reason, remedy) = match refusal.or(missing) {
        _ if host.kvm_answers() => {
            let entries = host.snapshot.kvm.as_ref().and_then(|kvm| kvm.supported.as_ref()).map_or(0, Vec::len);
            (Verdict::Good, format!("KVM offers {entries} entries of CPUID"), None)
        }
        Some(why) => {
            let remedy = "load kvm_intel or kvm_amd; be root, or in the group that owns /dev/kvm";
            (Verdict::Bad, why.to_owned(), Some(remedy))
        }
        None => (Verdict::Unknown, "KVM's answer is not in the record".to_owned(), Some("record on the host itself")),
    };
    Check { id: "kvm", what: "/dev/kvm", verdict, reason, remedy, cite: None }
}

/// Whether one of the two modules of the kernel serves it, which alone are known.
fn backend(host: &Host<'_>) -> Option<Check> {
    let module = host.backend()?;
    let usual = matches!(module, "kvm_intel" | "kvm_amd");
    let (verdict, reason) = if usual {
        (Verdict::Good, format!("{module} serves it"))
    } else {
        (
            Verdict::Less,
            format!("{module} serves it, which is neither kvm_intel nor kvm_amd: its reasons are not known"),
        )
    };
    let remedy = (!usual).then_some("cpusieve verify --vcpu says what guests really read under it");
    Some(Check { id: "backend", what: "KVM's backend", verdict, reason, remedy, cite: None })
}

fn parameter(host: &Host<'_>, param: &Param) -> Check {
    let name = format!("{}.{}", param.module, param.name);
    let (verdict, reason, remedy) = match host.param(&name) {
        None => (Verdict::Unknown, format!("{name} was not seen"), Some("load the module, then record")),
        Some(value) => match switched(value) {
            Some(true) => (Verdict::Good, format!("{name}={value}: {}", param.on), None),
            Some(false) => (Verdict::Less, format!("{name}={value}: {}", param.off), Some(param.remedy)),
            None => (Verdict::Unknown, format!("{name}={value} is neither on nor off"), None),
        },
    };
    Check { id: param.id, what: param.what, verdict, reason, remedy, cite: Some(Cite(param.cite)) }
}

/// `ignore_msrs=Y` hides what a guest does wrong, and what QEMU's tables promise wrongly.
fn ignore_msrs(host: &Host<'_>) -> Option<Check> {
    let value = host.param("kvm.ignore_msrs")?;
    let on = switched(value)?;
    let (verdict, reason, remedy) = if on {
        let reason =
            format!("kvm.ignore_msrs={value}: unknown MSRs read as 0, so guests may take for real what is not");
        (Verdict::Less, reason, Some("echo 0 > /sys/module/kvm/parameters/ignore_msrs, unless a guest needs it"))
    } else {
        (Verdict::Good, format!("kvm.ignore_msrs={value}: unknown MSRs fault, as on a CPU"), None)
    };
    let cite = Some(Cite("arch/x86/kvm/x86.c:kvm_do_msr_access"));
    Some(Check { id: "ignore-msrs", what: "unknown MSRs", verdict, reason, remedy, cite })
}

/// What a CPU with L1TF pays at each entry of a guest.
fn l1d_flush(host: &Host<'_>) -> Option<Check> {
    if !host.is_intel() || !host.bug("l1tf") {
        return None;
    }
    let value = host.param("kvm_intel.vmentry_l1d_flush")?;
    let (verdict, reason) = match value {
        "never" => (Verdict::Bad, "the CPU has L1TF and nothing flushes the cache: guests may read the host's data"),
        "always" => (Verdict::Less, "the level-1 cache is flushed at every entry of a guest"),
        _ => (Verdict::Good, "the level-1 cache is flushed at entries of a guest that need it"),
    };
    let reason = format!("kvm_intel.vmentry_l1d_flush={value}: {reason}");
    let remedy = (verdict == Verdict::Bad).then_some("echo cond > /sys/module/kvm_intel/parameters/vmentry_l1d_flush");
    let cite = Some(Cite("arch/x86/kvm/vmx/vmx.c:vmx_l1d_flush"));
    Some(Check { id: "l1d-flush", what: "L1TF", verdict, reason, remedy, cite })
}
