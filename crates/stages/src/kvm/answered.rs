//! What the whole KVM of one tree answers on a machine whose CPUID was seen, and which of it is sure.
//!
//! [`super::answer`] decides everything, and lists what it had to assume; a decision about one bit has to say
//! whether it hangs on an assumption. Here both are looked up by the bit, as `linux::booted` does for a kernel.

use std::collections::{BTreeMap, HashMap, HashSet};

use cpusieve_knowledge::linux;
use cpusieve_model::{CpuidBit, CpuidTable, KvmView, MsrBit, Place, State, Step};

use super::answer::{self, Input};
use super::msrs::{FeatureMsrs, feature_msrs};
use crate::Machine;
use crate::linux::boot::{self, Capabilities, Output, Unlisted};
use crate::linux::booted::Booted;
use crate::linux::kinds;

/// KVM of one tree on one machine.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What KVM answers: its own answers where they were captured, the predicted ones elsewhere.
    pub view: KvmView,
    /// The predicted answer to `KVM_GET_SUPPORTED_CPUID`.
    pub predicted: CpuidTable,
    steps: Vec<Step>,
    /// Positions in `steps`.
    by_bit: HashMap<CpuidBit, usize, foldhash::fast::RandomState>,
    /// Bits that hang on something that nobody saw.
    open: HashSet<CpuidBit, foldhash::fast::RandomState>,
    msrs: FeatureMsrs,
}

impl Answered {
    /// Runs KVM of a tree on a host; `None` if there is no CPUID or no prediction.
    #[must_use]
    pub fn new(host: &Machine<'_>, tree: usize) -> Option<Self> {
        let (booted, cpuid) = host.booted(tree)?;
        let cpu = host.snapshot.first_cpuid()?;
        let seen = boot::Input::of_snapshot(host.role, cpusieve_model::Stage::Host, host.snapshot)?;
        let (none, captured) = (BTreeMap::new(), host.snapshot.kvm.as_ref());
        let kernels = kernels(host, booted, seen, tree);
        let input = Input {
            of: host.role,
            cpuid,
            msrs: &cpu.msrs,
            unlisted: Unlisted::NotSeen,
            kernels: &kernels,
            cmdline: seen.cmdline,
            config: seen.config,
            params: captured.map_or(&none, |kvm| &kvm.params),
            permitted: 0,
        };
        let module = answer::load(&input, tree).ok()?;
        let made = answer::answers(&module);
        let predicted = made.view.supported_table()?;
        let msrs = feature_msrs(&module, seen.microcode);
        let hanging: HashSet<&str, foldhash::fast::RandomState> =
            made.assumed.iter().flat_map(|assumed| assumed.hangs.iter().copied()).collect();
        let bit_of = |step: &Step| step.place.and_then(Place::cpuid);
        let is_open = |step: &Step| {
            hanging.contains(&*step.feature)
                || host.line_of(tree, &step.feature) == State::Unknown && booted.is_open(&step.feature, cpuid)
        };
        let open = made.steps.iter().filter(|step| is_open(step)).filter_map(bit_of).collect();
        let places = made.steps.iter().enumerate();
        let by_bit = places.filter_map(|(index, step)| Some((bit_of(step)?, index))).collect();
        Some(Self { view: joined(made.view, &msrs, captured), predicted, steps: made.steps, by_bit, open, msrs })
    }

    /// What this KVM does to a bit; `None` if neither the CPU nor the kernel nor the answer has it.
    #[must_use]
    pub fn step(&self, bit: CpuidBit) -> Option<&Step> {
        self.by_bit.get(&bit).and_then(|&index| self.steps.get(index))
    }

    /// Whether a bit of the answer hangs on something that nobody saw.
    #[must_use]
    pub fn is_open(&self, bit: CpuidBit) -> bool {
        self.open.contains(&bit)
    }

    /// A bit of the predicted answer.
    #[must_use]
    pub fn state(&self, bit: CpuidBit) -> State {
        State::from_bit(self.predicted.state(bit) == State::Present)
    }

    /// A bit of a feature MSR, counted as in the register: as KVM itself answered, else as predicted. Unknown if that
    /// hangs on a register that nobody read, or if KVM has no such feature MSR.
    #[must_use]
    pub fn msr(&self, bit: MsrBit) -> State {
        let values = self.view.msr_features.as_ref();
        match values.and_then(|values| values.get(&bit.index)) {
            Some(value) => State::from_bit(value >> bit.bit & 1 == 1),
            None => State::Unknown,
        }
    }

    /// Whether the value of a feature MSR hangs on what nobody read.
    #[must_use]
    pub fn assumes_msrs(&self) -> bool {
        !self.msrs.assumed.is_empty()
    }
}

/// The host's kernel on each kind of CPU, as its flags line bears it out.
fn kernels(host: &Machine<'_>, booted: &Booted, seen: boot::Input<'_>, tree: usize) -> Vec<Output> {
    let others = kinds::others(host.snapshot).into_iter().map(|cpu| {
        let microcode = cpu.cpuinfo.as_ref().and_then(|cpuinfo| cpuinfo.identity.microcode).or(seen.microcode);
        *boot::boot(&boot::Input { cpuid: &cpu.cpuid, msrs: &cpu.msrs, microcode, ..seen }, tree).capabilities()
    });
    let all = std::iter::once(*booted.output.capabilities()).chain(others);
    all.map(|capabilities| Output::of(borne_out(host, tree, capabilities))).collect()
}

/// A captured flags line stands where it contradicts the predicted kernel.
fn borne_out(host: &Machine<'_>, tree: usize, mut capabilities: Capabilities) -> Capabilities {
    for feature in linux::features(tree).filter(|feature| feature.shown.is_some()) {
        if let Some(has) = host.line_of(tree, feature.id()).known() {
            capabilities.put(feature.number() as u16, has);
        }
    }
    capabilities
}

/// KVM's own answers over the predicted ones.
fn joined(predicted: KvmView, msrs: &FeatureMsrs, captured: Option<&KvmView>) -> KvmView {
    let known = || (!msrs.values.is_empty()).then(|| msrs.known());
    match captured {
        None => KvmView { msr_features: known(), ..predicted },
        Some(own) => KvmView {
            supported: own.supported.clone().or(predicted.supported),
            emulated: own.emulated.clone().or(predicted.emulated),
            msr_features: own.msr_features.clone().or_else(known),
            xcomp_guest_supp: own.xcomp_guest_supp.or(predicted.xcomp_guest_supp),
            ..own.clone()
        },
    }
}
