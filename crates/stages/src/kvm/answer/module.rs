//! The modules as they are once loaded: what they concluded of the host, before any ioctl.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{CpuidTable, MsrBit, Registers, State, Vendor, hexadecimal, msr_name};

use super::finding::Finding;
use super::plan::{Plan, Slot};
use super::pmu::PmuCapability;
use super::setup::{Switch, Switches};
use super::steps::Why;
use super::{Input, caps};
use crate::linux::boot::{Assumption, Capabilities, Unlisted};

/// The vendor module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `kvm_intel`: VMX.
    Intel,
    /// `kvm_amd`: SVM.
    Amd,
}

impl Backend {
    /// The module's name.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Intel => "kvm_intel",
            Self::Amd => "kvm_amd",
        }
    }
}

/// `kvm` and its vendor module after loading.
#[derive(Clone, Debug)]
pub struct Module<'a> {
    /// What was found.
    pub input: Input<'a>,
    /// The kernel tree.
    pub tree: usize,
    /// The vendor module.
    pub backend: Backend,
    /// What all CPUs have, as the host's kernel says (`boot_cpu_data`).
    pub kernel: Capabilities,
    /// `kvm_caps.supported_xcr0`: user state components that a guest may have, whatever the process was permitted.
    pub supported_xcr0: u64,
    /// `kvm_caps.supported_xss`: supervisor state components.
    pub supported_xss: u64,
    /// `kvm_pmu_cap`: the virtual PMU; all zero if it is off.
    pub pmu: PmuCapability,
    /// Whether the CPU has SYSCALL though CPUID was captured in a mode that does not show it.
    mode_bound: bool,
    /// The assumptions on which precise sampling in guests hangs.
    pub(super) pebs_hangs: u64,
    pub(super) plan: &'static Plan,
    pub(super) switches: Switches,
    /// `kvm_cpu_caps`, by register of the plan.
    pub(super) caps: Vec<u32>,
    /// What decided a bit, by row of the plan, where a condition did.
    pub(super) marks: Vec<Option<Why>>,
    pub(super) assumed: RefCell<Vec<Assumption>>,
    /// The assumptions that were asked since this was last cleared, one bit each.
    pub(super) touched: Cell<u64>,
    pub(super) findings: Vec<Finding>,
}

/// Loads KVM of a tree (a position in [`TREES`]) on a host.
///
/// # Errors
///
/// A [`Finding`] if no module would load, or if what would cannot be predicted.
pub fn load<'a>(input: &Input<'a>, tree: usize) -> Result<Module<'a>, Finding> {
    let mut kernel = Capabilities::of_all(input.kernels).ok_or(Finding::NoKernel)?;
    let backend = backend(input, tree, &kernel)?;
    let plan = Plan::of(tree).ok_or(Finding::UnknownTree)?;
    let mode_bound = !is_guest(input.cpuid) && has_long_mode(input.cpuid);
    if mode_bound {
        kernel.set(tree, "SYSCALL");
    }
    let mut module = Module {
        mode_bound,
        input: *input,
        tree,
        backend,
        kernel,
        supported_xcr0: 0,
        supported_xss: 0,
        pmu: PmuCapability::default(),
        pebs_hangs: 0,
        plan,
        switches: Switches::default(),
        caps: Vec::new(),
        marks: Vec::new(),
        assumed: RefCell::default(),
        touched: Cell::new(0),
        findings: Vec::new(),
    };
    module.setup_state_components();
    module.hardware_setup();
    caps::set_cpu_caps(&mut module);
    Ok(module)
}

/// Which module loads (`vmx.c:cpu_has_kvm_support`, `svm.c:has_svm`).
fn backend(input: &Input<'_>, tree: usize, kernel: &Capabilities) -> Result<Backend, Finding> {
    let other = input.params.keys().filter_map(|name| name.split_once('.')).map(|(module, _)| module);
    if let Some(module) = other.into_iter().find(|module| !matches!(*module, "kvm" | "kvm_intel" | "kvm_amd")) {
        return Err(Finding::OtherBackend(module.to_owned()));
    }
    let (vmx, svm) = (kernel.has(tree, "VMX"), kernel.has(tree, "SVM"));
    // IA32_FEATURE_CONTROL: locked, without VMX outside SMX. VM_CR: SVMDIS. Only what was seen counts.
    let locked = vmx && input.msrs.get(0x3a).is_some_and(|control| control & 0b101 == 1);
    let disabled = svm && input.msrs.get(0xc001_0114).is_some_and(|control| control >> 4 & 1 == 1);
    if vmx != svm && (locked || disabled) {
        return Err(Finding::DisabledByFirmware);
    }
    match (vmx, svm, input.cpuid.vendor()) {
        (true, true, _) => Err(Finding::BothVendors),
        (false, false, _) => Err(Finding::NoBackend),
        (true, false, _) => Ok(Backend::Intel),
        (false, true, Some(Vendor::Amd | Vendor::Hygon)) => Ok(Backend::Amd),
        (false, true, _) => Err(Finding::NoVendor(input.cpuid.vendor_string().unwrap_or_default())),
    }
}

impl Module<'_> {
    /// `kvm_cpu_cap_has`: whether KVM offers a feature, by its macro without `X86_FEATURE_`.
    #[must_use]
    pub fn has(&self, macro_name: &str) -> bool {
        self.plan.slot_of(macro_name).is_some_and(|slot| slot.is_set(&self.caps))
    }

    /// The same, by the place in the capability words of the tree.
    pub(crate) fn offers(&self, slot: Slot) -> bool {
        slot.is_set(&self.caps)
    }

    /// Whether a parameter of the loaded module is on.
    pub(crate) const fn is_on(&self, switch: Switch) -> bool {
        self.switches.on(switch)
    }

    /// `boot_cpu_has`: whether the host's kernel has a capability, by its macro.
    #[must_use]
    pub fn boot_cpu_has(&self, macro_name: &str) -> bool {
        self.kernel.has(self.tree, macro_name)
    }

    /// `boot_cpu_has_bug`, by the macro without `X86_BUG_`.
    #[must_use]
    pub fn boot_cpu_has_bug(&self, macro_name: &str) -> bool {
        self.kernel.has_bug(self.tree, macro_name)
    }

    /// The host's vendor.
    #[must_use]
    pub fn vendor(&self) -> Vendor {
        self.input.cpuid.vendor().unwrap_or(Vendor::Other)
    }

    /// The tree's release.
    #[must_use]
    pub fn release(&self) -> (u16, u16) {
        TREES.get(self.tree).map_or((0, 0), |tree| tree.release)
    }

    /// A module parameter as the loaded module shows it: `nested`, `npt`, `ept`, `enable_pmu`, `sgx`, ...; false for one
    /// that this tree or vendor module does not have.
    #[must_use]
    pub fn parameter(&self, name: &str) -> bool {
        self.switches.get(name)
    }

    /// CPUID of the CPU that executes the ioctl; zeros for what it was not seen to return.
    #[must_use]
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        let mut registers = host_cpuid(self.input.cpuid, leaf, subleaf);
        if leaf == 0x8000_0001 && self.mode_bound {
            registers.edx |= SYSCALL;
        }
        registers
    }

    /// An MSR of the host; `None` if reading it faults. One that was not seen is assumed, and the assumption is noted.
    #[must_use]
    pub fn msr(&self, index: u32) -> Option<u64> {
        match self.input.msrs.state(MsrBit { index, bit: 0 }) {
            State::Unreadable => return None,
            State::Unknown => {}
            _ => return self.input.msrs.get(index),
        }
        if self.input.unlisted == Unlisted::Zero {
            return Some(0);
        }
        let (value, because) = super::setup::guess(self, index);
        self.assume(Assumption {
            what: Cow::Owned(msr_name(index)),
            value: value.map_or(Cow::Borrowed("not readable"), |value| Cow::Owned(hexadecimal(value))),
            because,
            hangs: Vec::new(),
        });
        value
    }

    /// Notes something that was not seen and had to be assumed; once.
    pub fn assume(&self, assumption: Assumption) {
        let mut assumed = self.assumed.borrow_mut();
        let known = assumed.iter().position(|other| other.what == assumption.what);
        let index = known.unwrap_or_else(|| {
            assumed.push(assumption);
            assumed.len() - 1
        });
        // All beyond the 63rd share the last bit.
        self.touch(1 << index.min(63));
    }

    /// What is being decided hangs on these assumptions.
    pub(super) fn touch(&self, on: u64) {
        self.touched.set(self.touched.get() | on);
    }

    /// Notes that a feature hangs on these assumptions.
    pub(super) fn hang(&self, feature: &'static str, on: u64) {
        for (index, assumption) in self.assumed.borrow_mut().iter_mut().enumerate() {
            if on >> index.min(63) & 1 == 1 && !assumption.hangs.contains(&feature) {
                assumption.hangs.push(feature);
            }
        }
    }

    /// An option of the host kernel's configuration, without `CONFIG_`; one that is not said to be off is assumed to be on,
    /// because captures keep few options.
    #[must_use]
    pub fn config(&self, option: &'static str) -> bool {
        let seen = self.input.config.and_then(|config| config.get(&["CONFIG_", option].concat()));
        if let Some(value) = seen {
            return matches!(value.as_str(), "y" | "m");
        }
        self.assume(Assumption {
            what: Cow::Owned(["CONFIG_", option].concat()),
            value: Cow::Borrowed("y"),
            because: "distribution kernels have it",
            hangs: Vec::new(),
        });
        true
    }
}

/// 80000001H:EDX: SYSCALL and long mode. CPUID of an Intel CPU shows SYSCALL in 64-bit mode alone (Intel SDM volume 2A, CPUID):
/// a dump that was taken in another lacks it, the kernel that runs KVM does not.
const SYSCALL: u32 = 1 << 11;
const LONG_MODE: u32 = 1 << 29;

fn has_long_mode(table: &CpuidTable) -> bool {
    host_cpuid(table, 0x8000_0001, 0).edx & LONG_MODE != 0
}

fn is_guest(table: &CpuidTable) -> bool {
    host_cpuid(table, 1, 0).ecx >> 31 == 1
}

/// What CPUID returns for a leaf of the host; zeros for what was not captured.
pub(super) fn host_cpuid(table: &CpuidTable, leaf: u32, subleaf: u32) -> Registers {
    let subleaf = if cpusieve_model::has_subleaves(leaf) { subleaf } else { 0 };
    table.get(leaf, subleaf).unwrap_or_default()
}
