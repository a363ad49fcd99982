//! Checks of the silicon, its firmware and the host's kernel.

use cpusieve_knowledge::linux;
use cpusieve_model::{Cite, CpuidBit, Register, State, Vendor};

use super::{Check, Host, Verdict};

/// 1.ECX\[5\], 8000_0001H.ECX\[2\], 8000_0007H.EDX\[8\].
const VMX: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 5);
const SVM: CpuidBit = CpuidBit::new(0x8000_0001, 0, Register::Ecx, 2);
const INVARIANT_TSC: CpuidBit = CpuidBit::new(0x8000_0007, 0, Register::Edx, 8);

/// `IA32_FEATURE_CONTROL`: bit 0 locks it, bit 2 allows VMXON outside SMX (Intel SDM volume 4, table 2-2).
const FEATURE_CONTROL: u32 = 0x3a;
/// `VM_CR`: bit 4 (`SVMDIS`) forbids SVM, bit 3 locks it (AMD APM volume 2, 15.30.1).
const VM_CR: u32 = 0xc001_0114;

pub(super) fn examine(host: &Host<'_>, checks: &mut Vec<Check>) {
    checks.push(virtualization(host));
    checks.extend(firmware_lock(host));
    checks.extend(alike(host));
    checks.push(microcode(host));
    checks.push(invariant_tsc(host));
    checks.extend(clocksource(host));
}

/// Whether the CPU shows VMX or SVM, whichever its vendor has.
pub(super) fn has_virtualization(host: &Host<'_>) -> State {
    let (bit, flag) = if host.is_amd() { (SVM, "svm") } else { (VMX, "vmx") };
    match host.cpuid(bit) {
        State::Unknown => host.flag(flag),
        seen => seen,
    }
}

/// Whether the CPU can run guests at all.
fn virtualization(host: &Host<'_>) -> Check {
    let (bit, name) = if host.is_amd() { (SVM, "SVM") } else { (VMX, "VMX") };
    let place = format!("{bit:#}");
    let (verdict, reason, remedy) = match has_virtualization(host) {
        _ if host.vendor.is_none() => (Verdict::Unknown, "the CPU's vendor was not seen".to_owned(), Some(RECORD)),
        State::Unknown => (Verdict::Unknown, format!("{name} ({place}) was not seen"), Some(RECORD)),
        State::Present => (Verdict::Good, format!("the CPU has {name} ({place})"), None),
        _ if host.is_nested() => (
            Verdict::Bad,
            format!("this machine is a guest, and its host gives it no {name} ({place})"),
            Some(
                "in its host: load kvm_intel or kvm_amd with nested=1, and start this machine with -cpu host or with \
                 +vmx or +svm; many clouds offer it on some machine types alone",
            ),
        ),
        _ => (
            Verdict::Bad,
            format!("the CPU shows no {name} ({place})"),
            Some("switch virtualization (VT-x, SVM) on in the firmware, if the CPU has it"),
        ),
    };
    let cite =
        Some(Cite(if host.is_amd() { "arch/x86/kvm/svm/svm.c:svm_init" } else { "arch/x86/kvm/vmx/vmx.c:vmx_init" }));
    Check { id: "virtualization", what: "virtualization", verdict, reason, remedy, cite }
}

/// What helps where a record shows too little.
const RECORD: &str = "record on the host itself, as root, with the msr module loaded";

/// Whether the firmware forbids what the CPU has.
fn firmware_lock(host: &Host<'_>) -> Option<Check> {
    let firmware =
        "switch virtualization (VT-x, SVM) on in the firmware; a locked register keeps its value until reset";
    let (verdict, reason, remedy, cite) = if host.is_intel() {
        let cite = Some(Cite("arch/x86/kernel/cpu/feat_ctl.c:init_ia32_feat_ctl"));
        match host.msr(FEATURE_CONTROL) {
            None => (Verdict::Unknown, "MSR 3AH (IA32_FEATURE_CONTROL) was not read".to_owned(), Some(RECORD), cite),
            Some(value) if value & 1 == 0 => {
                let reason = format!("MSR 3AH is {value:#x}: not locked, the kernel allows VMX itself");
                (Verdict::Good, reason, None, cite)
            }
            Some(value) if value & 4 == 0 => {
                (Verdict::Bad, format!("MSR 3AH is {value:#x}: locked without VMX"), Some(firmware), cite)
            }
            Some(value) => (Verdict::Good, format!("MSR 3AH is {value:#x}: VMX is allowed"), None, cite),
        }
    } else if host.is_amd() {
        let cite = svm_disabled(host);
        match host.msr(VM_CR) {
            None => (Verdict::Unknown, "MSR C0010114H (VM_CR) was not read".to_owned(), Some(RECORD), cite),
            Some(value) if value & 0x10 != 0 => {
                (Verdict::Bad, format!("MSR C0010114H is {value:#x}: SVM is switched off"), Some(firmware), cite)
            }
            Some(value) => (Verdict::Good, format!("MSR C0010114H is {value:#x}: SVM is allowed"), None, cite),
        }
    } else {
        return None;
    };
    Some(Check { id: "firmware-lock", what: "firmware's lock", verdict, reason, remedy, cite })
}

/// Who looks at `VM_CR`: KVM itself up to 6.1, the kernel's identification from 6.12 on; between these it was not read.
fn svm_disabled(host: &Host<'_>) -> Option<Cite> {
    let release = linux::TREES.get(host.tree())?.release;
    let by_kvm = (release <= (6, 1)).then_some(Cite("arch/x86/kvm/svm/svm.c:is_disabled"));
    let by_linux = Cite(if host.vendor == Some(Vendor::Hygon) {
        "arch/x86/kernel/cpu/hygon.c:init_hygon"
    } else {
        "arch/x86/kernel/cpu/amd.c:init_amd"
    });
    by_kvm.or_else(|| (release >= (6, 12)).then_some(by_linux))
}

/// Whether all CPUs have the same features: a vCPU wanders between them, and KVM asks the one it happens to be on.
fn alike(host: &Host<'_>) -> Option<Check> {
    /// Leaves of features, which do not tell a CPU's place.
    const LEAVES: [(u32, u32); 5] = [(7, 0), (7, 1), (7, 2), (0x8000_0008, 0), (0x8000_0021, 0)];
    let cpus = &host.snapshot.cpus;
    let seen: Vec<_> = cpus.iter().filter(|cpu| !cpu.cpuid.is_empty()).collect();
    let lines: Vec<_> = cpus.iter().filter_map(|cpu| cpu.cpuinfo.as_ref()?.flags.as_ref()).collect();
    let features = |cpu: &cpusieve_model::Cpu| {
        let first = cpu.cpuid.get(1, 0).map(|leaf| (leaf.ecx & !(1 << 27), leaf.edx));
        let extended = cpu.cpuid.get(0x8000_0001, 0).map(|leaf| (leaf.ecx, leaf.edx));
        (first, extended, LEAVES.map(|(leaf, subleaf)| cpu.cpuid.get(leaf, subleaf).map(|leaf| (leaf.ebx, leaf.edx))))
    };
    let odd = seen.first().and_then(|first| seen.iter().find(|cpu| features(cpu) != features(first)));
    let different = lines.first().is_some_and(|first| lines.iter().any(|line| line != first));
    let (verdict, reason) = match odd {
        Some(cpu) => (Verdict::Less, format!("CPU {} has other feature bits than CPU {}", cpu.id, seen[0].id)),
        None if different => (Verdict::Less, "the flags lines of the CPUs differ".to_owned()),
        None if seen.len() > 1 || lines.len() > 1 => {
            (Verdict::Good, format!("all {} CPUs show the same", seen.len().max(lines.len())))
        }
        // One CPU, or none: there is nothing to compare.
        None => return None,
    };
    let remedy = match verdict {
        Verdict::Less => Some("pin guests to CPUs of one kind; update the microcode of all of them"),
        _ => None,
    };
    Some(Check { id: "cpus-alike", what: "all CPUs alike", verdict, reason, remedy, cite: None })
}

/// Whether all CPUs run the same microcode.
fn microcode(host: &Host<'_>) -> Check {
    let revisions = host.snapshot.cpus.iter().filter_map(|cpu| cpu.cpuinfo.as_ref()?.identity.microcode);
    let mut revisions: Vec<u64> = revisions.collect();
    revisions.sort_unstable();
    revisions.dedup();
    let (verdict, reason, remedy) = match revisions.as_slice() {
        [] => (Verdict::Unknown, "no revision was seen".to_owned(), Some(RECORD)),
        // Hypervisors show what they like: Firecracker and QEMU 1, others nothing.
        [revision] if host.is_nested() => {
            (Verdict::Unknown, format!("revision {revision:#x} is what the hypervisor shows"), None)
        }
        [revision] => (Verdict::Good, format!("revision {revision:#x} on all CPUs"), None),
        several => {
            let several: Vec<String> = several.iter().map(|revision| format!("{revision:#x}")).collect();
            let remedy = "load it early, from the initramfs: what is loaded late leaves feature bits as they were";
            (Verdict::Less, format!("the CPUs run {}", several.join(" and ")), Some(remedy))
        }
    };
    Check { id: "microcode", what: "microcode", verdict, reason, remedy, cite: None }
}

/// Whether guests can have a clock that does not leave them.
fn invariant_tsc(host: &Host<'_>) -> Check {
    let seen = match host.cpuid(INVARIANT_TSC) {
        State::Unknown => host.flag("nonstop_tsc"),
        seen => seen,
    };
    let (verdict, reason, remedy) = match seen {
        State::Unknown => (Verdict::Unknown, "8000_0007H.EDX[8] was not seen".to_owned(), Some(RECORD)),
        State::Present => {
            let reason = "the TSC is invariant; guests see it with -cpu host,migratable=off or +invtsc".to_owned();
            (Verdict::Good, reason, None)
        }
        _ if host.is_nested() => {
            let remedy = "start this machine with +invtsc, or with -cpu host,migratable=off";
            (Verdict::Less, "the hypervisor does not show an invariant TSC".to_owned(), Some(remedy))
        }
        _ => (Verdict::Less, "the TSC may stop or change its rate".to_owned(), None),
    };
    Check { id: "invariant-tsc", what: "invariant TSC", verdict, reason, remedy, cite: None }
}

/// Whether the host's own clock is the TSC: only then KVM's clock is read in the guest without an exit.
fn clocksource(host: &Host<'_>) -> Option<Check> {
    let source = host.live?.clocksource.as_deref();
    let (verdict, reason, remedy) = match source {
        None => (Verdict::Unknown, "the clock source was not seen".to_owned(), None),
        Some("tsc") => (Verdict::Good, "the host's clock is the TSC".to_owned(), None),
        Some(other) => (
            Verdict::Less,
            format!("the host's clock is {other}: guests cannot read kvm-clock without a system call"),
            Some("see the kernel log for why the TSC was called unstable; tsc=reliable on the host only if it is"),
        ),
    };
    let cite = Some(Cite("arch/x86/kvm/x86.c:gtod_is_based_on_tsc"));
    Some(Check { id: "clocksource", what: "clock", verdict, reason, remedy, cite })
}
