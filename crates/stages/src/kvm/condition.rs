//! The C conditions of KVM's adjustments and the gates of its leaves, decided on what is known of the host.

use cpusieve_knowledge::kvm::{self, Bound, Gate};
use cpusieve_knowledge::{linux, rules};
use cpusieve_model::{CpuidBit, MsrBit, Place, Register, State, Vendor};

use crate::Machine;
use crate::linux::conditions::Observed;
use crate::linux::setup;

/// IA32_VMX_PROCBASED_CTLS2; the high half says which controls may be on (Intel SDM volume 3, appendix A.3.3).
const SECONDARY_CONTROLS: u32 = 0x48b;

/// From this maximum of the extended leaves on KVM may raise it (`arch/x86/kvm/cpuid.c:__do_cpuid_func`).
const RAISED_FROM: u32 = 0x8000_001d;

/// The functions that ask whether a secondary VMX control may be on, and the bit of the control.
const VMX_CONTROLS: [(&str, u8); 5] = [
    ("vmx_umip_emulated", 2),
    ("cpu_has_vmx_rdtscp", 3),
    ("cpu_has_vmx_invpcid", 12),
    ("cpu_has_vmx_xsaves", 20),
    ("cpu_has_vmx_waitpkg", 26),
];

/// A variable of KVM that a module parameter shows, and the capability without which the module clears it (`""` if that is
/// not known): `arch/x86/kvm/svm/svm.c:svm_hardware_setup`, `arch/x86/kvm/svm/sev.c:sev_hardware_setup`.
const VARIABLES: [(&str, &str, &str); 18] = [
    ("nested", "nested", ""),
    ("nrips", "nrips", "NRIPS"),
    ("tsc_scaling", "tsc_scaling", "TSCRATEMSR"),
    ("vls", "vls", "V_VMSAVE_VMLOAD"),
    ("lbrv", "lbrv", "LBRV"),
    ("vgif", "vgif", "VGIF"),
    ("vnmi", "vnmi", "VNMI"),
    ("npt_enabled", "npt", "NPT"),
    ("gmet_enabled", "gmet", "GMET"),
    ("sev_enabled", "sev", "SEV"),
    ("sev_es_enabled", "sev_es", "SEV_ES"),
    ("sev_snp_enabled", "sev_snp", "SEV_SNP"),
    ("enable_pmu", "enable_pmu", ""),
    ("enable_sgx", "sgx", ""),
    ("enable_cet", "cet", ""),
    ("enable_unrestricted_guest", "unrestricted_guest", ""),
    ("allow_smaller_maxphyaddr", "allow_smaller_maxphyaddr", ""),
    ("avic", "avic", ""),
];

/// Whether a condition holds on this host. What cannot be read off it is unknown.
pub(super) fn holds(host: &Machine<'_>, tree: usize, condition: &str) -> State {
    match condition {
        // Five-level paging is asked of the CPU, whatever mode the host's kernel runs in.
        "cpuid_ecx(7) & F(LA57)" => {
            let la57 = CpuidBit::new(7, 0, Register::Ecx, 16);
            host.cpuid().map_or(State::Unknown, |table| table.state(la57))
        }
        // Every CPU with RDTSCP or RDPID has IA32_TSC_AUX (Intel SDM volume 4); only an outer hypervisor may lack it.
        _ if condition.starts_with("WARN_ON(") => match host.is_guest().known() {
            Some(false) => State::Absent,
            _ => State::Unknown,
        },
        // Comparisons in parentheses are of numbers that no record shows.
        _ if condition.starts_with(['(']) || condition.starts_with("!(") => State::Unknown,
        _ => {
            let part = |part: &str| all(part.split(" && ").map(|atom| atom_holds(host, tree, atom)));
            negated(all(condition.split(" || ").map(|alternative| negated(part(alternative)))))
        }
    }
}

/// All hold: one that fails decides, one that is unknown leaves it open.
pub(super) fn all(states: impl Iterator<Item = State>) -> State {
    states.fold(State::Present, |so_far, state| match (so_far.known(), state.known()) {
        (Some(false), _) | (_, Some(false)) => State::Absent,
        (Some(true), Some(true)) => State::Present,
        _ => State::Unknown,
    })
}

fn negated(state: State) -> State {
    state.known().map_or(State::Unknown, |known| State::from_bit(!known))
}

fn atom_holds(host: &Machine<'_>, tree: usize, atom: &str) -> State {
    if let Some(inner) = atom.strip_prefix('!') {
        return negated(atom_holds(host, tree, inner));
    }
    let Some((function, argument)) = atom.strip_suffix(')').and_then(|call| call.split_once('(')) else {
        return variable(host, tree, atom);
    };
    match function {
        "boot_cpu_has" | "static_cpu_has" | "cpu_feature_enabled" => {
            argument.strip_prefix("X86_FEATURE_").map_or(State::Unknown, |name| capability(host, tree, name))
        }
        "boot_cpu_has_bug" | "static_cpu_has_bug" => bug(host, tree, argument),
        // A 64-bit kernel sets EFER.NXE wherever CPUID has the bit (`arch/x86/kernel/head_64.S:secondary_startup_64`).
        "is_efer_nx" => capability(host, tree, "NX"),
        // PT_MODE_HOST_GUEST is 1, PT_MODE_SYSTEM is 0 (`arch/x86/kvm/vmx/capabilities.h`).
        "vmx_pt_mode_is_host_guest" | "kvm_x86_ops->pt_supported" => {
            let never = rules::kvm_condition(atom, tree).is_some_and(|c| c.never && c.trees.contains(tree));
            if never { State::Absent } else { parameter(host, "pt_mode") }
        }
        "IS_ENABLED" if argument == "CONFIG_X86_64" => State::Present,
        _ => match VMX_CONTROLS.iter().find(|(name, _)| *name == function) {
            Some(&(_, bit)) => host.msr(MsrBit { index: SECONDARY_CONTROLS, bit: 32 + bit }),
            None => State::Unknown,
        },
    }
}

/// What the host's kernel says of a capability, by its macro: as its flags show it, else as its set-up code concludes it
/// from CPUID.
pub(super) fn capability(host: &Machine<'_>, tree: usize, macro_name: &str) -> State {
    let Some(row) = linux::feature(tree, macro_name) else { return State::Unknown };
    let seen = host.capability(tree, row.id()).state;
    if seen.known().is_some() || host.cpuid().is_none() {
        return seen;
    }
    let observed = Observed { machine: host, tree };
    match linux::place(tree, row) {
        Some(Place::Cpuid(bit)) => match host.bit(tree, bit).0 {
            raw if raw.known().is_some() => setup::announced(&observed, tree, row.id(), raw).state,
            _ => State::Unknown,
        },
        Some(_) => setup::invented(&observed, None, tree, row.id()).state,
        None => State::Unknown,
    }
}

/// A bug, by the line `bugs`.
fn bug(host: &Machine<'_>, tree: usize, argument: &str) -> State {
    let name = argument.strip_prefix("X86_BUG_");
    let shown = linux::bugs(tree).find(|bug| Some(bug.macro_name) == name).and_then(|bug| bug.shown);
    let line = host.snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.bugs.as_ref());
    line.zip(shown).map_or(State::Unknown, |(bugs, name)| State::from_bit(bugs.contains(name)))
}

/// A variable of KVM, as its module parameter shows it.
fn variable(host: &Machine<'_>, tree: usize, name: &str) -> State {
    if name == "tdp_enabled" {
        // The switches of the two modules, of which one is loaded.
        let known = ["ept", "npt"].map(|name| parameter(host, name)).into_iter().find(|state| state.known().is_some());
        return known.unwrap_or_default();
    }
    let Some(&(_, shown, needed)) = VARIABLES.iter().find(|(variable, ..)| *variable == name) else {
        return State::Unknown;
    };
    if !needed.is_empty() && capability(host, tree, needed).known() == Some(false) {
        return State::Absent;
    }
    parameter(host, shown)
}

/// A module parameter of `kvm`, `kvm_intel` or `kvm_amd` that is a yes or no.
fn parameter(host: &Machine<'_>, name: &str) -> State {
    let params = host.snapshot.kvm.as_ref().map(|kvm| &kvm.params);
    let mut values = params.into_iter().flatten().filter(|(key, _)| key.rsplit('.').next() == Some(name));
    match values.next().map(|(_, value)| value.as_str()) {
        Some("Y" | "1") => State::Present,
        Some("N" | "0") => State::Absent,
        _ => State::Unknown,
    }
}

/// What must hold so that a register is answered at all; `cap` says what KVM offers of a capability.
pub(super) fn gates(host: &Machine<'_>, tree: usize, bit: CpuidBit, cap: impl Fn(&str) -> State) -> State {
    let Some(answer) = kvm::answer(tree, bit.leaf, bit.subleaf, bit.register) else { return State::Present };
    all(answer.gates.iter().map(|gate| match *gate {
        Gate::Cap(name) => cap(name),
        Gate::HostFlag(name) => capability(host, tree, name),
        Gate::Pmu => variable(host, tree, "enable_pmu"),
        Gate::AmdModule => host
            .vendor()
            .map_or(State::Unknown, |vendor| State::from_bit(matches!(vendor, Vendor::Amd | Vendor::Hygon))),
        Gate::Otherwise => State::Unknown,
    }))
}

/// Whether a leaf or subleaf surely lies above what KVM announces: the host's maximum, limited by KVM's own.
pub(super) fn above_limit(host: &Machine<'_>, tree: usize, bit: CpuidBit) -> bool {
    let Some(table) = host.cpuid() else { return false };
    let limited = |leaf: u32, raw: u32| kvm::at_most(tree, leaf).map_or(raw, |limit| raw.min(limit));
    let subleaves = table.get(7, 0).map(|registers| limited(7, registers.eax));
    if bit.leaf == 7 && subleaves.is_some_and(|maximum| bit.subleaf > maximum) {
        return true;
    }
    let head = bit.leaf & 0xffff_0000;
    let Some(raw) = table.maximum(bit.leaf).filter(|_| matches!(head, 0 | 0x8000_0000)) else { return false };
    // Whether the maximum is raised hangs on more than this; that it may be is enough here.
    let raised = kvm::leaf_caps(tree)
        .find(|limit| limit.leaf == head && limit.bound == Bound::AtLeast && raw >= RAISED_FROM)
        .map_or(0, |limit| limit.value);
    bit.leaf > limited(head, raw).max(raised)
}
