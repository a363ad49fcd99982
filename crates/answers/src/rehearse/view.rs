//! One guest on one stack, as the stages predict it.

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_knowledge::qemu::{self, Machine, RELEASES, Word};
use cpusieve_model::{CpuidBit, CpuidTable, Place, Register, Snapshot, State, Step};
use cpusieve_stages::vcpu::{Running, guest, running};
use cpusieve_stages::vmm::Options;

use crate::predict::kvm::KvmPrediction;
use crate::predict::pass_through;
use crate::predict::way::{self, Accel, NoWay, VcpuPrediction};
use crate::predict::{Assumption, Prediction};
use crate::want::Settings;

/// 1.ECX\[27\] and 7.0.ECX\[4\]: the guest's kernel decides.
const MIRRORS: [CpuidBit; 2] = [CpuidBit::new(1, 0, Register::Ecx, 27), CpuidBit::new(7, 0, Register::Ecx, 4)];

/// The MSRs of VMX controls, which tell in their upper half what may be chosen and in their lower half what must be; QEMU's
/// words begin with what may be chosen.
const VMX_CONTROLS: [u32; 5] = [0x48b, 0x48d, 0x48e, 0x48f, 0x490];

/// What comes out for a guest.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What the VMM gave, as a vCPU after reset returns it.
    pub table: CpuidTable,
    /// Feature MSRs of the vCPU.
    pub msrs: BTreeMap<u32, u64>,
    /// The release of QEMU or another VMM, by its label.
    pub vmm: String,
    /// The QEMU release, a position in [`RELEASES`]; `None` with another VMM.
    pub release: Option<usize>,
    /// The machine type; `None` with another VMM.
    pub machine: Option<&'static Machine>,
    /// The host kernel's tree; `None` under TCG.
    pub tree: Option<usize>,
    /// What the host's kernel prints; empty under TCG.
    pub host_flags: Vec<&'static str>,
    /// What KVM offers; `None` under TCG.
    pub offered: Option<CpuidTable>,
    /// The feature MSRs that KVM offers.
    pub offered_msrs: BTreeMap<u32, u64>,
    /// What KVM and the VMM did to each bit.
    pub steps: Vec<Step>,
    /// What QEMU says of its properties (`qom-get`), which is what libvirt looks at.
    pub properties: BTreeMap<&'static str, bool>,
    /// What was asked for and taken out.
    pub filtered: Vec<Place>,
    /// What the VMM prints.
    pub warnings: Vec<String>,
    /// With which words the VMM ends instead of starting the guest.
    pub error: Option<String>,
    /// What the guest's kernel prints.
    pub guest: Option<Prediction>,
    /// What was assumed.
    pub assumed: Vec<Assumption>,
}

impl View {
    /// With QEMU.
    pub(super) fn of_qemu(snapshot: &Snapshot, settings: &Settings) -> Result<Self, NoWay> {
        let route = settings.route();
        let vcpu = way::until_vcpu(snapshot, &route)?;
        let mut view = Self::default();
        view.host(vcpu.kvm.as_ref());
        view.take_qemu(&vcpu, settings.accel);
        if vcpu.qemu.error.is_none() {
            let found = way::guest_of(snapshot, &route, vcpu)?;
            view.assumed.clone_from(&found.guest.assumed);
            view.guest = Some(found.guest);
        }
        Ok(view)
    }

    fn take_qemu(&mut self, vcpu: &VcpuPrediction, accel: Accel) {
        let qemu = &vcpu.qemu;
        self.vmm = RELEASES.get(vcpu.release).map_or("", |release| release.label).to_owned();
        (self.release, self.machine) = (Some(vcpu.release), Some(vcpu.machine));
        self.table = self.after_reset(&guest::table(&qemu.cpuid));
        // The words of VMX are not the registers: those tell what may be chosen in two halves.
        for (word, value) in qemu.words().into_iter().flat_map(|words| qemu::WORD_ORDER.into_iter().zip(words)) {
            if let (Word::Msr { index }, 1..) = (word, *value) {
                self.msrs.insert(index, *value);
            }
        }
        self.steps.extend(qemu.steps());
        self.properties = qemu.properties();
        // Under TCG nobody looks whether the host has it, for there is none.
        self.filtered = if accel == Accel::Kvm { qemu.filtered().collect() } else { Vec::new() };
        self.warnings.clone_from(&qemu.warnings);
        self.error = qemu.error.as_ref().map(|error| error.message.clone());
        self.assumed.clone_from(&vcpu.assumed);
    }

    /// With a VMM that hands on what KVM offers.
    pub(super) fn of_pass_through(
        snapshot: &Snapshot,
        settings: &Settings,
        options: Options<'_>,
    ) -> Result<Self, NoWay> {
        let route = settings.route();
        let cpus = settings.smp.as_deref().and_then(|text| text.parse().ok()).unwrap_or(1);
        let version = settings.qemu.as_deref();
        let route = pass_through::Route { kvm: route.kvm, options, version, cpus, guest: route.guest };
        let vcpu = pass_through::until_vcpu(snapshot, &route)?;
        let mut view = Self::default();
        view.host(Some(&vcpu.kvm));
        view.vmm = vcpu.label().to_owned();
        view.table = view.after_reset(&guest::table(vcpu.cpuid()));
        view.steps.extend(vcpu.output.steps.iter().cloned());
        view.warnings.clone_from(&vcpu.output.warnings);
        view.error = vcpu.output.error.as_ref().map(ToString::to_string);
        view.assumed.clone_from(&vcpu.assumed);
        if view.error.is_none() {
            let (_, guest) = pass_through::guest_of(snapshot, &route, &vcpu)?;
            view.assumed.clone_from(&guest.assumed);
            view.guest = Some(guest);
        }
        Ok(view)
    }

    fn host(&mut self, kvm: Option<&KvmPrediction>) {
        let Some(kvm) = kvm else { return };
        self.tree = Some(kvm.host.tree);
        self.host_flags.clone_from(&kvm.host.boot.flags);
        self.offered = kvm.view.supported_table();
        self.offered_msrs = kvm.view.msr_features.clone().unwrap_or_default();
        self.steps.clone_from(&kvm.steps);
    }

    fn after_reset(&self, table: &CpuidTable) -> CpuidTable {
        let Some(tree) = self.tree else { return table.clone() };
        running(table, &Running::default(), tree)
    }

    /// Whether the vCPU has a bit, of CPUID or of a feature MSR.
    #[must_use]
    pub fn has(&self, place: Place) -> bool {
        match place {
            Place::Cpuid(bit) => self.table.state(bit) == State::Present,
            Place::Msr(bit) => self.msrs.get(&bit.index).is_some_and(|value| value >> bit.bit & 1 == 1),
            Place::Linux(_) => false,
        }
    }

    /// Whether KVM offers a bit.
    #[must_use]
    pub fn offers(&self, place: Place) -> bool {
        match place {
            Place::Cpuid(bit) => self.offered.as_ref().is_some_and(|table| table.state(bit) == State::Present),
            Place::Msr(bit) => self.offered_msrs.get(&bit.index).is_some_and(|&value| {
                let may = if VMX_CONTROLS.contains(&bit.index) { value.rotate_left(32) } else { value };
                may >> bit.bit & 1 == 1
            }),
            Place::Linux(_) => false,
        }
    }

    /// What KVM or the VMM did to a bit.
    pub(super) fn step(&self, at: cpusieve_model::Stage, place: Place) -> Option<&Step> {
        self.steps.iter().find(|step| step.at == at && step.place == Some(place))
    }

    /// Whether a guest finds the same on both. A leaf that is not there reads as zeros.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.error.is_none() && other.error.is_none() && self.differing(other).is_empty()
    }

    /// The bits that one of two has, or a register's other values, in the order of their places.
    pub(super) fn differing(&self, other: &Self) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        let keys =
            |table: &CpuidTable| table.entries().iter().map(|entry| (entry.leaf, entry.subleaf)).collect::<Vec<_>>();
        for (leaf, subleaf) in keys(&self.table).into_iter().chain(keys(&other.table)).collect::<BTreeSet<_>>() {
            let of = |table: &CpuidTable| table.get(leaf, subleaf).unwrap_or_default();
            let (one, two) = (of(&self.table), of(&other.table));
            for register in Register::ALL {
                let changed = one.get(register) ^ two.get(register);
                let bits = (0..32).filter(|bit| changed >> bit & 1 == 1);
                let bits = bits.map(|bit| CpuidBit::new(leaf, subleaf, register, bit));
                places.extend(bits.filter(|bit| !MIRRORS.contains(bit)).map(Place::Cpuid));
            }
        }
        for &index in self.msrs.keys().chain(other.msrs.keys()) {
            let of = |view: &Self| view.msrs.get(&index).copied().unwrap_or(0);
            let changed = of(self) ^ of(other);
            let bits = (0..64).filter(|bit| changed >> bit & 1 == 1);
            places.extend(bits.map(|bit| Place::Msr(cpusieve_model::MsrBit { index, bit })));
        }
        places
    }
}
