//! Hyper-V enlightenments: whether KVM has what was asked for (`target/i386/kvm/kvm.c:kvm_hyperv_expand_features`,
//! in 5.2 `hyperv_handle_properties`).

use cpusieve_knowledge::qemu::{self, HypervProperty};
use cpusieve_model::Place;

use super::fields::{Field, field};
use super::instance::Instance;
use super::refusal::Refusal;
use super::release::{V7_2, V10_0};

const CAP_HYPERV: u32 = 44;
const CAP_HYPERV_VP_INDEX: u32 = 149;
const CAP_SYS_HYPERV_CPUID: u32 = 191;
/// How QEMU ends when a vCPU cannot be made.
const NO_VCPU: &str = "kvm_init_vcpu: kvm_arch_init_vcpu failed (0): Function not implemented";

impl Instance<'_> {
    /// `x86_cpu_hyperv_realize`: the vendor's length, twelve bytes. 5.2 looks at it later.
    pub(super) fn x86_cpu_hyperv_realize(&mut self) {
        let hyperv = &mut self.cpu.properties.hyperv;
        let Some(vendor) = hyperv.vendor else { return };
        if vendor.len() > 12 {
            let mut end = 12;
            while !vendor.is_char_boundary(end) {
                end -= 1;
            }
            hyperv.vendor = vendor.get(..end);
            if self.release() >= V7_2 {
                self.say("warning: hv-vendor-id truncated to 12 characters", true);
            }
        }
    }

    /// `x86_cpu_pre_plug` refuses `hv-vpindex` where KVM cannot set the index, whether or not Hyper-V is on at all.
    pub(super) fn vp_index_settable(&self) -> Result<(), Refusal> {
        // Before 8.0 or so other accelerators are asked too.
        let asked = (self.is_kvm() || self.release() < V10_0) && self.has_enlightenment("hv-vpindex");
        if asked && (!self.is_kvm() || self.offer.host.capability(CAP_HYPERV_VP_INDEX) == Some(0)) {
            return Err(Refusal::plain("kernel doesn't allow setting HyperV VP_INDEX"));
        }
        Ok(())
    }

    /// `kvm_hyperv_expand_features` as expansion calls it: only where KVM answers before a vCPU exists.
    pub(super) fn kvm_hyperv_expand_features(&mut self) -> Result<(), Refusal> {
        if !self.hyperv_enabled() || self.offer.host.capability(CAP_SYS_HYPERV_CPUID) == Some(0) {
            return Ok(());
        }
        self.enlightenments()
    }

    /// What a new vCPU checks: all of it in 5.2, and on kernels that answer only then.
    pub(super) fn hyperv_of_vcpu(&mut self) -> Result<(), Refusal> {
        if !self.hyperv_enabled() {
            return Ok(());
        }
        if self.release() < V7_2 {
            return self.hyperv_handle_properties();
        }
        if self.offer.host.capability(CAP_SYS_HYPERV_CPUID) != Some(0) {
            return Ok(());
        }
        self.enlightenments().map_err(|refusal| {
            self.say(refusal.message, false);
            Refusal::plain(NO_VCPU)
        })
    }

    /// `hyperv_enabled`
    fn hyperv_enabled(&self) -> bool {
        let hyperv = &self.cpu.properties.hyperv;
        let asked = hyperv.spinlock_attempts != u32::MAX || hyperv.features != 0 || hyperv.passthrough;
        asked && self.is_kvm() && self.offer.host.capability(CAP_HYPERV) != Some(0)
    }

    fn has_enlightenment(&self, name: &str) -> bool {
        bit_of(name).is_some_and(|bit| self.cpu.properties.hyperv.features >> bit & 1 == 1)
    }

    fn enlightenments(&mut self) -> Result<(), Refusal> {
        for property in qemu::hyperv_properties(self.release()) {
            let supported = self.hyperv_feature_supported(property);
            if self.cpu.properties.hyperv.passthrough {
                if supported && property.passthrough {
                    self.turn_on(property);
                }
            } else if self.has_enlightenment(property.property) {
                if !supported {
                    return Err(Refusal::plain(not_supported(property)));
                }
                self.hv_feature_check_deps(property)?;
            }
        }
        self.synic_needs_vpindex()
    }

    /// 5.2: every complaint is printed, then QEMU ends.
    fn hyperv_handle_properties(&mut self) -> Result<(), Refusal> {
        let passthrough = self.cpu.properties.hyperv.passthrough;
        let mut complaints = Vec::new();
        for property in qemu::hyperv_properties(self.release()) {
            let asked = self.has_enlightenment(property.property);
            if !asked && !passthrough {
                continue;
            }
            if let Err(refusal) = self.hv_feature_check_deps(property) {
                complaints.push(refusal.message);
            } else if self.hyperv_feature_supported(property) {
                self.turn_on(property);
            } else if asked {
                complaints.push(not_supported(property));
            }
        }
        complaints.extend(self.synic_needs_vpindex().err().map(|refusal| refusal.message));
        if complaints.is_empty() {
            return Ok(());
        }
        for complaint in complaints {
            self.say(complaint, false);
        }
        Err(Refusal::plain(NO_VCPU))
    }

    fn turn_on(&mut self, property: &HypervProperty) {
        if let Some(bit) = bit_of(property.property) {
            self.cpu.properties.hyperv.features |= 1 << bit;
        }
    }

    /// Whether KVM's Hyper-V leaves have all bits of an enlightenment; taken for granted where they were not seen.
    fn hyperv_feature_supported(&self, property: &HypervProperty) -> bool {
        let Some(leaves) = self.offer.host.kvm().and_then(|kvm| kvm.hyperv.as_ref()) else { return true };
        property.bits.iter().all(|place| match place {
            Place::Cpuid(bit) => leaves
                .iter()
                .find(|entry| entry.leaf == bit.leaf)
                .is_some_and(|entry| entry.registers.get(bit.register) >> bit.bit & 1 == 1),
            _ => false,
        })
    }

    fn hv_feature_check_deps(&self, property: &HypervProperty) -> Result<(), Refusal> {
        let missing = property.needs.iter().filter(|need| !self.has_enlightenment(need));
        match missing.min_by_key(|need| bit_of(need)) {
            Some(need) => Err(self.requires(property.description, need)),
            None => Ok(()),
        }
    }

    /// The dependency that `x-hv-synic-kvm-only` lifts.
    fn synic_needs_vpindex(&self) -> Result<(), Refusal> {
        let lifted = self.cpu.properties.hyperv.synic_kvm_only;
        if !self.has_enlightenment("hv-synic") || lifted || self.has_enlightenment("hv-vpindex") {
            return Ok(());
        }
        Err(self.requires(self.description("hv-synic"), "hv-vpindex"))
    }

    fn requires(&self, what: &str, need: &str) -> Refusal {
        Refusal::plain(format!("Hyper-V {what} requires Hyper-V {}", self.description(need)))
    }

    fn description(&self, name: &str) -> &'static str {
        let mut properties = qemu::hyperv_properties(self.release());
        properties.find(|property| property.property == name).map_or("", |property| property.description)
    }
}

fn not_supported(property: &HypervProperty) -> String {
    format!("Hyper-V {} is not supported by kernel", property.description)
}

/// `HYPERV_FEAT_*` of a property.
fn bit_of(name: &str) -> Option<u8> {
    match field(name) {
        Some(Field::Hyperv(bit)) => Some(bit),
        _ => None,
    }
}
