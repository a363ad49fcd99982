//! Checks of what guests get: counters, matrix tiles, a QEMU that knows them.

use cpusieve_knowledge::qemu::{self, Fit};
use cpusieve_model::{Cite, CpuidBit, Register, State};

use super::{Check, Host, Verdict};

/// 7.0.EDX\[24\].
const AMX_TILE: CpuidBit = CpuidBit::new(7, 0, Register::Edx, 24);
/// XCR0's components of AMX: the tiles' configuration and data.
const XTILE: u64 = 3 << 17;

pub(super) fn examine(host: &Host<'_>, checks: &mut Vec<Check>) {
    checks.extend(amx(host));
    checks.push(qemu(host));
}

/// Whether guests may have AMX: a process must ask for its state first, and KVM must know it.
fn amx(host: &Host<'_>) -> Option<Check> {
    if host.cpuid(AMX_TILE) != State::Present {
        return None;
    }
    let cite = Some(Cite("arch/x86/kvm/x86.c:__kvm_x86_dev_get_attr"));
    let seen = host.snapshot.kvm.as_ref().and_then(|kvm| kvm.xcomp_guest_supp);
    let (verdict, reason, remedy) = match seen {
        Some(components) if components & XTILE == XTILE => {
            let reason =
                format!("KVM_X86_XCOMP_GUEST_SUPP is {components:#x}: a VMM that asks for it gives guests AMX");
            (Verdict::Good, reason, None)
        }
        Some(components) => (
            Verdict::Less,
            format!("KVM_X86_XCOMP_GUEST_SUPP is {components:#x}: guests get no AMX although the CPU has it"),
            Some("look for clearcpuid= and noxsave on the host's command line; a hypervisor below may keep the state"),
        ),
        None => (
            Verdict::Unknown,
            "KVM_X86_XCOMP_GUEST_SUPP was not answered".to_owned(),
            Some("host kernel 5.17 or newer, and record on the host itself"),
        ),
    };
    Some(Check { id: "amx", what: "AMX for guests", verdict, reason, remedy, cite })
}

/// Whether there is a QEMU, and whether its release is known.
fn qemu(host: &Host<'_>) -> Check {
    let described = |binary: &cpusieve_model::QemuBinary| {
        let nearest = qemu::nearest(&binary.version);
        let label = qemu::RELEASES.get(nearest.release).map_or("", |release| release.label);
        let place = if binary.path.is_empty() { String::new() } else { format!(" ({})", binary.path) };
        match nearest.fit {
            Fit::Same => format!("{}{place}", binary.version),
            _ => format!("{}{place}, answered as {label}", binary.version),
        }
    };
    let binaries: Vec<String> = host.snapshot.qemu.iter().map(described).collect();
    let looked = host.live.is_some();
    let (verdict, reason, remedy) = match (binaries.as_slice(), looked) {
        ([], true) => {
            (Verdict::Less, "no qemu-system-x86_64 was found".to_owned(), Some("install QEMU, if it is wanted"))
        }
        ([], false) => (Verdict::Unknown, "no QEMU is in the record".to_owned(), None),
        (found, _) => (Verdict::Good, found.join(", "), None),
    };
    Check { id: "qemu", what: "QEMU", verdict, reason, remedy, cite: None }
}
