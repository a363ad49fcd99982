//! Hyper-V's leaves 40000000H to 4000000AH and 40000080H to 40000082H (`target/i386/kvm/kvm.c:hyperv_fill_cpuids`; 5.2:
//! `target/i386/kvm.c:hyperv_handle_properties`).
//!
//! By the time they are filled, every enlightenment that is on was found to be supported, or QEMU had stopped
//! (`kvm_hyperv_expand_features`). `hv-passthrough` takes what KVM offers, names and numbers included.

use cpusieve_knowledge::qemu::{HypervProperty, hyperv_properties};
use cpusieve_model::{Place, Register, Registers};

use super::View;
use super::hypervisor::{put, signature};
use super::table::{Slots, TableFull};
use crate::qemu::fields::{Field, field};
use crate::qemu::properties::OnOffAuto;
use crate::qemu::release::V7_2;

/// `KVM_CAP_HYPERV`.
const CAP_HYPERV: u32 = 44;
/// `HYPERV_SPINLOCK_NEVER_NOTIFY`.
const NEVER_NOTIFY: u32 = u32::MAX;

const VENDOR_AND_MAX_FUNCTIONS: u32 = 0x4000_0000;
const INTERFACE: u32 = 0x4000_0001;
const VERSION: u32 = 0x4000_0002;
const FEATURES: u32 = 0x4000_0003;
const ENLIGHTENMENT_INFO: u32 = 0x4000_0004;
const IMPLEMENT_LIMITS: u32 = 0x4000_0005;
const NESTED_FEATURES: u32 = 0x4000_000a;
const SYNDBG_VENDOR_AND_MAX_FUNCTIONS: u32 = 0x4000_0080;
const SYNDBG_INTERFACE: u32 = 0x4000_0081;
const SYNDBG_PLATFORM_CAPABILITIES: u32 = 0x4000_0082;

/// 40000003.EAX: the hypercall page, which any enlightenment needs.
const HYPERCALL_AVAILABLE: u32 = 1 << 5;
/// 40000003.EBX: messages and signals, which the synthetic interrupt controller needs.
const POST_MESSAGES_SIGNAL_EVENTS: u32 = 1 << 4 | 1 << 5;
/// 40000003.EDX: CPUs come and go, which Windows needs for hotplug and KVM does not tell.
const CPU_DYNAMIC_PARTITIONING: u32 = 1 << 3;
/// 40000004.EAX: use the MSRs of the virtual APIC.
const APIC_ACCESS_RECOMMENDED: u32 = 1 << 3;
/// 40000004.EAX: no two vCPUs share a core unless the guest's topology says so.
const NO_NONARCH_CORESHARING: u32 = 1 << 18;
/// 4000000A.EAX: version 1 of the enlightened VMCS, lowest and highest.
const EVMCS_VERSION: u32 = 1 << 8 | 1;
/// 40000082.EAX: the guest may start a kernel debugger.
const ALLOW_KERNEL_DEBUGGING: u32 = 1 << 1;
/// 40000005.EBX: logical CPUs that Hyper-V supports.
const MAX_LOGICAL_CPUS: u32 = 64;

/// Whether the guest sees Hyper-V (`hyperv_enabled`).
pub(super) fn is_enabled(view: &View<'_>) -> bool {
    let hyperv = &view.cpu.properties.hyperv;
    let asked = hyperv.spinlock_attempts != NEVER_NOTIFY || hyperv.features != 0 || hyperv.passthrough;
    asked && view.is_kvm() && view.host.capability(CAP_HYPERV) != Some(0)
}

/// What KVM offers of Hyper-V (`hv_cpuid_get_host`); zeros where it has no such entry or was not asked.
fn offered(view: &View<'_>, leaf: u32) -> Registers {
    let entries = view.host.kvm().and_then(|kvm| kvm.hyperv.as_deref()).unwrap_or_default();
    entries.iter().find(|entry| entry.leaf == leaf).map_or_else(Registers::default, |entry| entry.registers)
}

/// The enlightenments that are on.
struct Enlightenments {
    on: Vec<&'static HypervProperty>,
}

impl Enlightenments {
    /// Those that were asked for; with `hv-passthrough` those that KVM has.
    fn of(view: &View<'_>) -> Self {
        let features = view.cpu.properties.hyperv.features;
        let is_on = |row: &&HypervProperty| match field(row.property) {
            Some(Field::Hyperv(bit)) => features >> bit & 1 == 1,
            _ => false,
        };
        Self { on: hyperv_properties(view.cpu.question.release).filter(is_on).collect() }
    }

    fn has(&self, property: &str) -> bool {
        self.on.iter().any(|row| row.property == property)
    }

    /// The bits that they put in a register (`hv_build_cpuid_leaf`).
    fn bits(&self, leaf: u32, register: Register) -> u32 {
        let places = self.on.iter().flat_map(|row| row.bits);
        places.fold(0, |bits, place| match place {
            Place::Cpuid(bit) if (bit.leaf, bit.register) == (leaf, register) => bits | 1 << bit.bit,
            _ => bits,
        })
    }
}

/// Puts the leaves in the table.
pub(super) fn fill(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    if view.cpu.properties.hyperv.passthrough && !view.since(V7_2) {
        return fill_as_offered(view, slots);
    }
    let on = Enlightenments::of(view);
    let nested = nested_features(&on);
    identity(view, slots, &on, nested)?;
    put(slots, FEATURES, features(view, &on))?;
    put(slots, ENLIGHTENMENT_INFO, recommendations(view, &on))?;
    put(slots, IMPLEMENT_LIMITS, limits(view))?;
    if let Some(eax) = nested {
        for leaf in IMPLEMENT_LIMITS + 1..NESTED_FEATURES {
            put(slots, leaf, Registers::default())?;
        }
        put(slots, NESTED_FEATURES, Registers { eax, ..Registers::default() })?;
    }
    if on.has("hv-syndbg") { debugger(slots) } else { Ok(()) }
}

/// 5.2 with `hv-passthrough`: KVM's entries as they are, but for the number of spins if that was given.
fn fill_as_offered(view: &View<'_>, slots: &mut Slots) -> Result<(), TableFull> {
    let spins = view.cpu.properties.hyperv.spinlock_attempts;
    for entry in view.host.kvm().and_then(|kvm| kvm.hyperv.as_deref()).unwrap_or_default() {
        let slot = slots.take(entry.leaf, entry.subleaf)?;
        *slot = *entry;
        if entry.leaf == ENLIGHTENMENT_INFO && spins != NEVER_NOTIFY {
            slot.registers.ebx = spins;
        }
    }
    Ok(())
}

/// EAX of leaf 4000000AH, if there is one: nested features, and the version of the enlightened VMCS, of which KVM has
/// the first.
fn nested_features(on: &Enlightenments) -> Option<u32> {
    let evmcs = if on.has("hv-evmcs") { EVMCS_VERSION } else { 0 };
    Some(on.bits(NESTED_FEATURES, Register::Eax) | evmcs).filter(|&eax| eax != 0)
}

/// Leaves 40000000H to 40000002H: names and version.
fn identity(view: &View<'_>, slots: &mut Slots, on: &Enlightenments, nested: Option<u32>) -> Result<(), TableFull> {
    let hyperv = &view.cpu.properties.hyperv;
    let last = if nested.is_some() { NESTED_FEATURES } else { IMPLEMENT_LIMITS };
    let last = if on.has("hv-syndbg") { last.max(SYNDBG_PLATFORM_CAPABILITIES) } else { last };
    if hyperv.passthrough {
        put(slots, VENDOR_AND_MAX_FUNCTIONS, Registers { eax: last, ..offered(view, VENDOR_AND_MAX_FUNCTIONS) })?;
        put(slots, INTERFACE, offered(view, INTERFACE))?;
        return put(slots, VERSION, offered(view, VERSION));
    }
    let mut letters = [0; 12];
    for (slot, letter) in letters.iter_mut().zip(hyperv.vendor.unwrap_or("Microsoft Hv").bytes()) {
        *slot = letter;
    }
    put(slots, VENDOR_AND_MAX_FUNCTIONS, signature(last, letters))?;
    put(slots, INTERFACE, Registers { eax: u32::from_le_bytes(*b"Hv#1"), ..Registers::default() })?;
    put(
        slots,
        VERSION,
        Registers {
            eax: hyperv.version_build,
            ebx: u32::from(hyperv.version_major) << 16 | u32::from(hyperv.version_minor),
            ecx: hyperv.version_service_pack,
            edx: u32::from(hyperv.version_service_branch) << 24 | hyperv.version_service_number & 0x00ff_ffff,
        },
    )
}

/// Leaf 40000003H: what the guest may use.
fn features(view: &View<'_>, on: &Enlightenments) -> Registers {
    let bits = |register| on.bits(FEATURES, register);
    let mut leaf = Registers {
        eax: bits(Register::Eax),
        ebx: bits(Register::Ebx),
        ecx: 0,
        edx: bits(Register::Edx) | CPU_DYNAMIC_PARTITIONING,
    };
    if view.since(V7_2) {
        leaf.eax |= HYPERCALL_AVAILABLE;
        if on.has("hv-synic") && !view.cpu.properties.hyperv.synic_kvm_only {
            leaf.ebx |= POST_MESSAGES_SIGNAL_EVENTS;
        }
    }
    leaf
}

/// Leaf 40000004H: what the guest should use.
fn recommendations(view: &View<'_>, on: &Enlightenments) -> Registers {
    let hyperv = &view.cpu.properties.hyperv;
    let offered = offered(view, ENLIGHTENMENT_INFO);
    let mut eax = on.bits(ENLIGHTENMENT_INFO, Register::Eax);
    if view.since(V7_2) && on.has("hv-vapic") && !on.has("hv-avic") {
        eax |= APIC_ACCESS_RECOMMENDED;
    }
    eax |= match hyperv.no_nonarch_coresharing {
        OnOffAuto::On => NO_NONARCH_CORESHARING,
        OnOffAuto::Auto => offered.eax & NO_NONARCH_CORESHARING,
        OnOffAuto::Off => 0,
    };
    let ebx = if hyperv.passthrough { offered.ebx } else { hyperv.spinlock_attempts };
    Registers { eax, ebx, ecx: 0, edx: 0 }
}

/// Leaf 40000005H: CPUs that Hyper-V supports.
fn limits(view: &View<'_>) -> Registers {
    let hyperv = &view.cpu.properties.hyperv;
    if hyperv.passthrough {
        return offered(view, IMPLEMENT_LIMITS);
    }
    Registers { eax: hyperv.max_vps.cast_unsigned(), ebx: MAX_LOGICAL_CPUS, ecx: 0, edx: 0 }
}

/// Leaves 40000080H to 40000082H: the synthetic debugger.
fn debugger(slots: &mut Slots) -> Result<(), TableFull> {
    put(slots, SYNDBG_VENDOR_AND_MAX_FUNCTIONS, signature(0, *b"Microsoft VS"))?;
    put(slots, SYNDBG_INTERFACE, Registers { eax: u32::from_le_bytes(*b"VS#1"), ..Registers::default() })?;
    put(slots, SYNDBG_PLATFORM_CAPABILITIES, Registers { eax: ALLOW_KERNEL_DEBUGGING, ..Registers::default() })
}
