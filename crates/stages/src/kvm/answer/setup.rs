//! `hardware_setup` of the vendor modules: which parameters survive on this hardware.

use std::borrow::Cow;

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::own;

use super::finding::Finding;
use super::module::{Backend, Module};
use super::pmu;
use super::xstate;
use crate::linux::boot::Assumption;

/// A variable of KVM that a module parameter shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the variants are the parameters of SWITCHES")]
pub(crate) enum Switch {
    Nested,
    Npt,
    Ept,
    Nrips,
    TscScaling,
    Vls,
    Lbrv,
    Vgif,
    Vnmi,
    Gmet,
    Sev,
    SevEs,
    SevSnp,
    Avic,
    EnablePmu,
    MediatedPmu,
    Sgx,
    Cet,
    UnrestrictedGuest,
    SmallerAddresses,
    PtMode,
}

/// A parameter: the variable in C's conditions, its full names with `kvm_intel` and `kvm_amd` (`""` for a module without
/// it), and from which release on it is on by default.
struct Known {
    switch: Switch,
    variable: &'static str,
    intel: &'static str,
    amd: &'static str,
    on_from: (u16, u16),
}

const NEVER: (u16, u16) = (u16::MAX, 0);

const fn known(
    switch: Switch,
    variable: &'static str,
    intel: &'static str,
    amd: &'static str,
    on_from: (u16, u16),
) -> Known {
    Known { switch, variable, intel, amd, on_from }
}

impl Known {
    /// The full name with this vendor module; `""` if it has no such parameter.
    const fn name(&self, backend: Backend) -> &'static str {
        match backend {
            Backend::Intel => self.intel,
            Backend::Amd => self.amd,
        }
    }
}

/// The parameters with their defaults: `arch/x86/kvm/{x86,pmu}.c`, `svm/{svm,sev,avic}.c`, `vmx/{vmx,sgx}.c`.
const SWITCHES: [Known; 21] = [
    known(Switch::Nested, "nested", "kvm_intel.nested", "kvm_amd.nested", (0, 0)),
    known(Switch::Npt, "npt_enabled", "", "kvm_amd.npt", (0, 0)),
    known(Switch::Ept, "enable_ept", "kvm_intel.ept", "", (0, 0)),
    known(Switch::Nrips, "nrips", "", "kvm_amd.nrips", (0, 0)),
    known(Switch::TscScaling, "tsc_scaling", "", "kvm_amd.tsc_scaling", (0, 0)),
    known(Switch::Vls, "vls", "", "kvm_amd.vls", (0, 0)),
    known(Switch::Lbrv, "lbrv", "", "kvm_amd.lbrv", (0, 0)),
    known(Switch::Vgif, "vgif", "", "kvm_amd.vgif", (0, 0)),
    known(Switch::Vnmi, "vnmi", "", "kvm_amd.vnmi", (6, 4)),
    known(Switch::Gmet, "gmet_enabled", "", "kvm_amd.gmet", (7, 2)),
    known(Switch::Sev, "sev_enabled", "", "kvm_amd.sev", (5, 13)),
    known(Switch::SevEs, "sev_es_enabled", "", "kvm_amd.sev_es", (5, 13)),
    known(Switch::SevSnp, "sev_snp_enabled", "", "kvm_amd.sev_snp", (6, 11)),
    known(Switch::Avic, "avic", "", "kvm_amd.avic", NEVER),
    known(Switch::EnablePmu, "enable_pmu", "kvm.enable_pmu", "kvm.enable_pmu", (0, 0)),
    known(
        Switch::MediatedPmu,
        "enable_mediated_pmu",
        "kvm_intel.enable_mediated_pmu",
        "kvm_amd.enable_mediated_pmu",
        NEVER,
    ),
    known(Switch::Sgx, "enable_sgx", "kvm_intel.sgx", "", (5, 13)),
    known(Switch::Cet, "enable_cet", "kvm_intel.cet", "", (0, 0)),
    known(Switch::UnrestrictedGuest, "enable_unrestricted_guest", "kvm_intel.unrestricted_guest", "", (0, 0)),
    known(Switch::SmallerAddresses, "allow_smaller_maxphyaddr", "kvm_intel.allow_smaller_maxphyaddr", "", NEVER),
    known(Switch::PtMode, "pt_mode", "kvm_intel.pt_mode", "", NEVER),
];

/// The values of the parameters, one bit each, and the assumptions on which each value hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Switches {
    values: u32,
    hangs: [u64; SWITCHES.len()],
}

impl Switches {
    pub(super) const fn on(self, switch: Switch) -> bool {
        self.values >> switch as u8 & 1 == 1
    }

    const fn put(&mut self, switch: Switch, on: bool) {
        let bit = 1 << switch as u8;
        self.values = if on { self.values | bit } else { self.values & !bit };
    }

    /// The assumptions on which a value hangs.
    pub(super) const fn hangs(self, switch: Switch) -> u64 {
        self.hangs[switch as usize]
    }

    const fn hang(&mut self, switch: Switch, on: u64) {
        self.hangs[switch as usize] |= on;
    }

    /// By the parameter's name without its module.
    pub(super) fn get(self, parameter: &str) -> bool {
        Switch::of_parameter(parameter).is_some_and(|switch| self.on(switch))
    }
}

impl Switch {
    /// The variable of KVM's source.
    pub(super) fn of_variable(variable: &str) -> Option<Self> {
        // `tdp_enabled` is set from the parameter of whichever module is loaded; only one of the two is ever on.
        let variable = if variable == "tdp_enabled" { "npt_enabled" } else { variable };
        SWITCHES.iter().find(|known| known.variable == variable).map(|known| known.switch)
    }

    /// The parameter's name without its module.
    pub(crate) fn of_parameter(parameter: &str) -> Option<Self> {
        let is = |name: &str| name.strip_suffix(parameter).is_some_and(|module| module.ends_with('.'));
        SWITCHES.iter().find(|known| is(known.intel) || is(known.amd)).map(|known| known.switch)
    }

    /// The parameter's full name.
    fn name(self, backend: Backend) -> &'static str {
        SWITCHES.iter().find(|known| known.switch == self).map_or("", |known| known.name(backend))
    }
}

/// What a parameter needs to stay on.
enum Need {
    /// A capability of the host's kernel.
    Kernel(&'static str),
    /// Another parameter.
    Switch(Switch),
    /// Something else, with words for it.
    Is(&'static str, fn(&Module<'_>) -> bool),
}

/// `svm_hardware_setup` and `sev_hardware_setup`, in their order.
const SVM_NEEDS: [(Switch, Need); 17] = [
    (Switch::TscScaling, Need::Kernel("TSCRATEMSR")),
    (Switch::Npt, Need::Kernel("NPT")),
    (Switch::Gmet, Need::Switch(Switch::Npt)),
    (Switch::Gmet, Need::Kernel("GMET")),
    (Switch::Nrips, Need::Kernel("NRIPS")),
    (Switch::Lbrv, Need::Kernel("LBRV")),
    (Switch::Sev, Need::Switch(Switch::Npt)),
    (Switch::Sev, Need::Kernel("SEV")),
    (Switch::Sev, Need::Is("address space identifiers for it", |module| module.cpuid(0x8000_001f, 0).ecx != 0)),
    (Switch::SevEs, Need::Switch(Switch::Sev)),
    (Switch::SevEs, Need::Kernel("SEV_ES")),
    (Switch::SevEs, Need::Is("identifiers set aside for it", |module| module.cpuid(0x8000_001f, 0).edx != 1)),
    (Switch::SevSnp, Need::Switch(Switch::SevEs)),
    (Switch::SevSnp, Need::Kernel("SEV_SNP")),
    (Switch::Vls, Need::Switch(Switch::Npt)),
    (Switch::Vls, Need::Kernel("V_VMSAVE_VMLOAD")),
    (Switch::Vgif, Need::Kernel("VGIF")),
];

/// The same, for what hangs on those.
const SVM_LATE_NEEDS: [(Switch, Need); 2] =
    [(Switch::Vnmi, Need::Switch(Switch::Vgif)), (Switch::Vnmi, Need::Kernel("VNMI"))];

/// `vmx_hardware_setup`, in its order.
const VMX_NEEDS: [(Switch, Need); 12] = [
    (Switch::Ept, Need::Is("the VMX control for EPT", |module| module.vmx_secondary(1))),
    (Switch::Ept, Need::Is("EPT with four levels", |module| module.vmx_ept(6))),
    (Switch::Ept, Need::Is("EPT with write-back memory", |module| module.vmx_ept(14))),
    (Switch::Ept, Need::Is("INVEPT of all contexts", |module| module.vmx_ept(26))),
    (Switch::Cet, Need::Is("the VMX controls for CET", |module| module.vmx_load_cet())),
    (Switch::UnrestrictedGuest, Need::Is("the VMX control for it", |module| module.vmx_secondary(7))),
    (Switch::UnrestrictedGuest, Need::Switch(Switch::Ept)),
    (Switch::Sgx, Need::Is("the VMX control for ENCLS exits", |module| module.vmx_secondary(15))),
    (Switch::PtMode, Need::Is("a kernel built with it (CONFIG_BROKEN)", has_pt_mode)),
    (Switch::PtMode, Need::Switch(Switch::Ept)),
    (Switch::PtMode, Need::Is("VMX support for processor trace", |module| module.vmx_intel_pt())),
    (
        Switch::PtMode,
        Need::Is("the virtual PMU", |module| module.switch(Switch::EnablePmu) || module.release() < (5, 18)),
    ),
];

/// Mainline left the parameter out from 6.13 on, and so did stable trees.
fn has_pt_mode(module: &Module<'_>) -> bool {
    const WITHOUT: [&str; 3] = ["5.10.262", "6.1", "6.1.192"];
    let stable = TREES.get(own::compiled(module.tree)).is_some_and(|tree| WITHOUT.contains(&tree.label));
    module.release() < (6, 12) && !stable
}

/// What an MSR that nobody read is taken to be, and why; `None` if reading it would fault.
pub(super) fn guess(module: &Module<'_>, index: u32) -> (Option<u64>, &'static str) {
    match (index, module.backend) {
        (0x480..=0x492, Backend::Intel) => (Some(u64::MAX), "current CPUs have these VMX controls"),
        (0xc001_0010, Backend::Amd) if module.boot_cpu_has("SEV") => {
            (Some(1 << 23), "the host's kernel left SEV on, so firmware allows encryption")
        }
        _ => (Some(0), "no bit of it is set on most machines"),
    }
}

impl Module<'_> {
    /// A parameter's variable; `tdp_enabled` is [`Module::tdp`].
    pub(super) fn switch(&self, switch: Switch) -> bool {
        self.touch(self.switches.hangs(switch));
        match switch {
            Switch::Npt | Switch::Ept => {
                self.touch(self.switches.hangs(Switch::Ept));
                self.tdp()
            }
            _ => self.switches.on(switch),
        }
    }

    /// `tdp_enabled`: EPT or NPT is in use.
    #[must_use]
    pub const fn tdp(&self) -> bool {
        self.switches.on(Switch::Npt) || self.switches.on(Switch::Ept)
    }

    /// Takes the parameters, asks the hardware, and notes what was asked for in vain.
    pub(super) fn hardware_setup(&mut self) {
        self.take_parameters();
        self.init_pmu_capability();
        match self.backend {
            Backend::Amd => {
                self.supported_xcr0 &= !xstate::BOUNDS;
                self.require(&SVM_NEEDS);
                self.require(&SVM_LATE_NEEDS);
                self.switches.put(Switch::SmallerAddresses, !self.tdp());
            }
            Backend::Intel => {
                if self.supported_xcr0 & xstate::BOUNDS != 0 && !self.vmx_mpx() {
                    self.supported_xcr0 &= !xstate::BOUNDS;
                }
                self.require(&VMX_NEEDS);
                if !self.tdp() {
                    self.switches.put(Switch::SmallerAddresses, true);
                }
            }
        }
    }

    fn take_parameters(&mut self) {
        let release = self.release();
        let module = self.backend.module();
        let seen = self.input.params.keys().any(|name| name.split_once('.').is_some_and(|(of, _)| of == module));
        self.touched.set(0);
        if !seen {
            self.assume(Assumption {
                what: Cow::Borrowed(match self.backend {
                    Backend::Intel => "parameters of kvm_intel",
                    Backend::Amd => "parameters of kvm_amd",
                }),
                value: Cow::Borrowed("their defaults, as far as the CPU allows"),
                because: "nobody said otherwise",
                hangs: Vec::new(),
            });
        }
        let on = self.touched.get();
        for known in &SWITCHES {
            let default = match known.switch {
                // kvm_intel's was off up to 4.19; kvm_amd's was always on.
                Switch::Nested => self.backend == Backend::Amd || release >= (4, 20),
                _ => release >= known.on_from,
            };
            let name = known.name(self.backend);
            if known.switch == Switch::EnablePmu && release < (5, 17) {
                // Nobody could switch it off yet.
                self.switches.put(known.switch, true);
                continue;
            }
            self.switches.put(known.switch, !name.is_empty() && self.asked(name).unwrap_or(default));
            if !name.is_empty() && self.asked(name).is_none() {
                self.switches.hang(known.switch, on);
            }
        }
        for name in self.input.params.keys() {
            let foreign = match self.backend {
                Backend::Intel => name.starts_with("kvm_amd."),
                Backend::Amd => name.starts_with("kvm_intel."),
            };
            if foreign {
                self.findings.push(Finding::ForeignParameter(name.clone()));
            }
        }
    }

    /// What was seen of, or asked of, a parameter, by its full name.
    pub(super) fn asked(&self, name: &str) -> Option<bool> {
        let value = self.input.params.get(name)?;
        Some(!matches!(value.as_str(), "N" | "n" | "0" | "" | "off"))
    }

    fn require(&mut self, needs: &'static [(Switch, Need)]) {
        for (switch, need) in needs {
            if !self.switches.on(*switch) {
                continue;
            }
            self.touched.set(0);
            let (met, words) = match need {
                Need::Kernel(name) => (self.boot_cpu_has(name), *name),
                Need::Switch(other) => (self.switch(*other), other.name(self.backend)),
                Need::Is(words, holds) => (holds(self), *words),
            };
            self.switches.hang(*switch, self.touched.get());
            if !met {
                self.clear_switch(*switch, words);
            }
        }
    }

    /// Clears a parameter; a finding if it was asked for.
    pub(super) fn clear_switch(&mut self, switch: Switch, needs: &'static str) {
        self.switches.put(switch, false);
        let name = switch.name(self.backend);
        if self.asked(name) == Some(true) {
            self.findings.push(Finding::ParameterCleared { name: name.to_owned(), needs });
        }
    }

    /// `kvm_init_pmu_capability`.
    fn init_pmu_capability(&mut self) {
        self.touched.set(0);
        let pmu = pmu::kvm_init_pmu_capability(self);
        self.pebs_hangs = self.touched.get();
        if pmu.counters == 0 && self.switches.on(Switch::EnablePmu) {
            self.clear_switch(Switch::EnablePmu, "a PMU that perf can share");
        }
        self.pmu = pmu;
    }

    /// A secondary VMX control may be on (IA32_VMX_PROCBASED_CTLS2, high half; Intel SDM volume 3, appendix A.3.3).
    pub(super) fn vmx_secondary(&self, bit: u8) -> bool {
        self.vmx_control(0x482, 31) && self.vmx_control(0x48b, bit)
    }

    fn vmx_control(&self, index: u32, bit: u8) -> bool {
        self.msr(index).is_some_and(|value| value >> (32 + bit) & 1 == 1)
    }

    /// A bit of IA32_VMX_EPT_VPID_CAP.
    pub(super) fn vmx_ept(&self, bit: u8) -> bool {
        self.vmx_secondary(1) && self.msr(0x48c).is_some_and(|value| value >> bit & 1 == 1)
    }

    /// A bit of IA32_VMX_BASIC.
    pub(super) fn vmx_basic(&self, bit: u8) -> bool {
        self.msr(0x480).is_some_and(|value| value >> bit & 1 == 1)
    }

    /// `cpu_has_vmx_mpx`: BNDCFGS is cleared on exits and loaded on entries.
    fn vmx_mpx(&self) -> bool {
        self.boot_cpu_has("MPX") && self.vmx_control(0x483, 23) && self.vmx_control(0x484, 16)
    }

    /// `cpu_has_load_cet_ctrl`: CET's state is loaded on exits and entries.
    pub(super) fn vmx_load_cet(&self) -> bool {
        self.vmx_control(0x483, 28) && self.vmx_control(0x484, 20)
    }

    /// `cpu_has_vmx_intel_pt`.
    fn vmx_intel_pt(&self) -> bool {
        let misc = self.msr(0x485).is_some_and(|value| value >> 14 & 1 == 1);
        misc && self.vmx_secondary(24) && self.vmx_control(0x483, 25) && self.vmx_control(0x484, 18)
    }
}
