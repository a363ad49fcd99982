//! The feature MSRs of KVM: which there are, their values, and why each bit is as it is.
//!
//! What `KVM_GET_MSR_FEATURE_INDEX_LIST` lists and `KVM_GET_MSRS` on `/dev/kvm` tells does not come from CPUID: these
//! registers say which attacks the CPU withstands (10AH), what a nested hypervisor may use of VMX (480H to 491H), and how
//! far the virtual PMU goes (345H). Everything but the conditions stands in `knowledge/kvm/feature_bits.tsv`.
//!
//! A register that KVM derives from one of the hardware's that nobody read has no value here: it is in the list, and what
//! was missing is among the assumptions.

mod conditions;
mod plan;
mod steps;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use cpusieve_knowledge::kvm::msrs::{FeatureBits, MsrEffect};
use cpusieve_model::{MsrBit, State, Step, msr_name};

use conditions::VmxSwitch;
use plan::Plan;

use super::answer::{Backend, Module};
use crate::linux::boot::{Assumption, Unlisted};

/// `IA32_UCODE_REV`
const MICROCODE: u32 = 0x8b;

/// Registers that say what a CPU can do, with the capability that says that it has them. Only the CPU itself can tell.
const TELLING: [(u32, &str); 2] = [(0x10a, "ARCH_CAPABILITIES"), (0x345, "PDCM")];

/// `IA32_VMX_BASIC` to `IA32_VMX_VMFUNC`: what a CPU's VMX can do.
const VMX_CAPABILITIES: std::ops::RangeInclusive<u32> = 0x480..=0x491;

/// About so many steps the feature MSRs of an Intel CPU need.
const STEPS: usize = 128;

/// The feature MSRs, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureMsrs {
    /// Index and value, in KVM's order; `None` if the value hangs on a register that nobody read.
    pub values: Vec<(u32, Option<u64>)>,
    /// Whether `KVM_GET_MSR_INDEX_LIST` has an MSR: of those on which a later stage hangs.
    pub indexed: BTreeMap<u32, bool>,
    /// One step for each bit with a name that is set in the hardware or in the answer.
    pub steps: Vec<Step>,
    /// What was not seen and had to be assumed, or left a value unknown.
    pub assumed: Vec<Assumption>,
}

impl FeatureMsrs {
    /// The values that are known.
    #[must_use]
    pub fn known(&self) -> BTreeMap<u32, u64> {
        self.values.iter().filter_map(|&(index, value)| Some((index, value?))).collect()
    }
}

/// The feature MSRs of a loaded module (`kvm_init_msr_lists`, `kvm_get_feature_msr`).
///
/// `microcode` is the revision as Linux shows it, for hosts whose MSR 8BH was not read.
#[must_use]
pub fn feature_msrs(module: &Module<'_>, microcode: Option<u64>) -> FeatureMsrs {
    let plan = Plan::of(module.tree);
    let mut making = Making {
        plan,
        module,
        microcode,
        so_far: Vec::new(),
        unknown: Vec::new(),
        asked: Vec::new(),
        vmx_switches: Vec::new(),
        missing: Vec::new(),
    };
    let steps = Vec::with_capacity(STEPS);
    let mut made = FeatureMsrs { values: Vec::with_capacity(plan.listed.len()), steps, ..FeatureMsrs::default() };
    let rules = steps::Rules::new();
    for msr in &plan.listed {
        if making.all(&msr.needs) != Some(true) {
            continue;
        }
        let value = making.value(msr.index);
        steps::of_msr(&making, &rules, (msr, value), &mut made.steps);
        made.values.push((msr.index, value));
    }
    for (index, alternatives) in &plan.indexed {
        if let Some(listed) = making.any(alternatives) {
            made.indexed.insert(*index, listed);
        }
    }
    made.assumed = making.missing;
    made
}

/// The registers while they are being made.
struct Making<'m, 'a> {
    plan: &'static Plan,
    module: &'m Module<'a>,
    microcode: Option<u64>,
    /// Each register as far as its rows were applied.
    so_far: Vec<(u32, u64)>,
    /// Registers whose value is not known.
    unknown: Vec<u32>,
    /// Registers of the hardware that were asked for, with what they gave.
    asked: Vec<(u32, Option<u64>)>,
    /// Parameters that hang on what VMX has and were asked for.
    vmx_switches: Vec<(&'static VmxSwitch, Option<bool>)>,
    missing: Vec<Assumption>,
}

impl Making<'_, '_> {
    /// Whether one of several lists of conditions holds; `None` if that hangs on what nobody tried.
    fn any(&mut self, alternatives: &[Range<usize>]) -> Option<bool> {
        let mut any = Some(false);
        for needs in alternatives {
            match self.all(needs) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => any = None,
            }
        }
        any
    }

    /// Applies the rows of one register; `None` if one of them hangs on what nobody read.
    fn value(&mut self, index: u32) -> Option<u64> {
        let mut known = true;
        self.store(index, 0);
        let plan = self.plan;
        for row in plan.rows(index) {
            let value = match self.all(&row.needs) {
                Some(false) => continue,
                Some(true) => self.applied(row.bits),
                None => None,
            };
            match value {
                Some(value) => self.store(index, value),
                None => known = false,
            }
        }
        if !known {
            self.unknown.push(index);
        }
        known.then(|| self.made(index))
    }

    /// The register after this row.
    fn applied(&mut self, row: &FeatureBits) -> Option<u64> {
        let before = self.made(row.index);
        Some(match row.effect {
            MsrEffect::Keep(from) => before | self.hardware(from)? & row.mask,
            MsrEffect::Copy(from) => before | self.copied(from)? & row.mask,
            MsrEffect::Set => before | row.mask,
            MsrEffect::Clear => before & !row.mask,
        })
    }

    fn made(&self, index: u32) -> u64 {
        self.so_far.iter().find(|(other, _)| *other == index).map_or(0, |(_, value)| *value)
    }

    fn store(&mut self, index: u32, value: u64) {
        match self.so_far.iter_mut().find(|(other, _)| *other == index) {
            Some((_, stored)) => *stored = value,
            None => self.so_far.push((index, value)),
        }
    }

    /// The register that this one copies: made before, or made now, where the list has it later.
    fn copied(&mut self, from: u32) -> Option<u64> {
        if self.unknown.contains(&from) {
            return None;
        }
        let made = self.so_far.iter().find(|(other, _)| *other == from).map(|(_, value)| *value);
        made.or_else(|| self.value(from))
    }

    /// A register of the hardware: 0 if reading it faults, as `rdmsr_safe` leaves it; `None` if nobody tried and nothing
    /// else tells.
    fn hardware(&mut self, index: u32) -> Option<u64> {
        if let Some((_, value)) = self.asked.iter().find(|(other, _)| *other == index) {
            return *value;
        }
        let value = self.ask(index);
        self.asked.push((index, value));
        value
    }

    fn ask(&mut self, index: u32) -> Option<u64> {
        let state = self.module.input.msrs.state(MsrBit { index, bit: 0 });
        let seen = state != State::Unknown || self.module.input.unlisted == Unlisted::Zero;
        if !seen && index == MICROCODE {
            return self.microcode();
        }
        let tells = TELLING.iter().any(|&(telling, name)| telling == index && self.module.boot_cpu_has(name));
        if !seen && (tells || VMX_CAPABILITIES.contains(&index)) {
            self.not_seen(index);
            return None;
        }
        Some(self.module.msr(index).unwrap_or(0))
    }

    /// `IA32_UCODE_REV` by the revision that Linux shows: Intel keeps it in the high half (SDM volume 4, 8BH), AMD in the
    /// low one (`arch/x86/kernel/cpu/microcode/{intel,amd}.c`).
    fn microcode(&mut self) -> Option<u64> {
        let Some(revision) = self.microcode else {
            self.not_seen(MICROCODE);
            return None;
        };
        Some(if self.module.backend == Backend::Intel { revision << 32 } else { revision })
    }

    fn not_seen(&mut self, index: u32) {
        let what = Cow::Owned(msr_name(index));
        if self.missing.iter().all(|missing| missing.what != what) {
            self.missing.push(Assumption {
                what,
                value: Cow::Borrowed("unknown"),
                because: "it was not read, and what KVM offers of it hangs on the CPU",
                hangs: Vec::new(),
            });
        }
    }
}
