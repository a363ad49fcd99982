//! One host: from what was seen of it to what it offers.

use std::collections::BTreeMap;

use cpusieve_answers::predict::kvm::{self, KvmPrediction};
use cpusieve_answers::predict::{Assumption, Kernel, NoPrediction};
use cpusieve_knowledge::qemu::Machine;
use cpusieve_model::{CpuidBit, CpuidTable, KvmView, Register, Snapshot, Stage, State, Vendor};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::qemu::{Accelerator, Irqchip, Protected, Question, Smp, offered, realize, supported};

use crate::offer::{Offer, VMX, and, bit};

/// The bit that hypervisors set: 1.ECX\[31\].
const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);

/// The software that all hosts of a fleet are to run guests with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The QEMU release, a position in [`cpusieve_knowledge::qemu::RELEASES`].
    pub release: usize,
    /// The machine type.
    pub machine: &'static Machine,
    /// The kernel of every host; `None` for each host's own.
    pub kernel: Option<&'a str>,
    /// Module parameters of every host's KVM that replace the seen ones.
    pub params: &'a [(String, String)],
    /// Whether machines under a hypervisor count as hosts although their KVM was not seen.
    pub nested: bool,
}

/// What is behind the offer of a host: enough to ask QEMU there.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The host's CPUID.
    pub cpuid: CpuidTable,
    /// What its KVM answers.
    pub view: KvmView,
    /// The vendor.
    pub vendor: Vendor,
}

impl Ground {
    /// The question about one `-cpu` to the QEMU of `setting` on this host.
    #[must_use]
    pub fn question<'q>(&'q self, setting: &Setting<'_>, cpu: &'q str) -> Question<'q> {
        Question {
            release: setting.release,
            machine: setting.machine,
            accelerator: Accelerator::Kvm { host: &self.cpuid, kvm: &self.view },
            cpu,
            smp: Smp::default(),
            cpu_pm: false,
            irqchip: Irqchip::of(setting.machine),
            protected: Protected::default(),
        }
    }
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// What the user calls it: a file, a host name.
    pub name: String,
    /// What it offers.
    pub offer: Offer,
    /// What that rests on.
    pub ground: Ground,
    /// `KVM_GET_TSC_KHZ`, in kHz, if it was seen.
    pub tsc_khz: Option<u64>,
    /// Whether it is itself a guest.
    pub nested: bool,
    /// What was assumed of it.
    pub assumed: Vec<Assumption>,
    /// What was seen of its software.
    pub software: Software,
}

/// What an input shows of the software under a host's KVM; what it does not show is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Software {
    /// `uname -r`
    pub kernel: Option<String>,
    /// `/proc/cmdline`
    pub cmdline: Option<String>,
    /// The microcode's revision as Linux shows it.
    pub microcode: Option<u64>,
    /// Parameters of KVM's modules.
    pub params: BTreeMap<String, String>,
}

impl Software {
    fn of(seen: &Snapshot) -> Self {
        let linux = seen.linux.as_ref();
        let microcode = |cpu: &cpusieve_model::Cpu| cpu.cpuinfo.as_ref()?.identity.microcode;
        Self {
            kernel: linux.and_then(|linux| linux.release.clone()),
            cmdline: linux.and_then(|linux| linux.cmdline.as_deref().map(|text| text.trim().to_owned())),
            microcode: seen.cpus.iter().find_map(microcode),
            params: seen.kvm.as_ref().map(|kvm| kvm.params.clone()).unwrap_or_default(),
        }
    }
}

/// Why an input is no host of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// Nothing can be predicted of it.
    #[error(transparent)]
    NoPrediction(#[from] NoPrediction),
    /// It is a guest's dump.
    #[error("a guest's dump, not a host's: the hypervisor bit is set, and no KVM was seen in it")]
    Guest,
    /// Its KVM runs no guests.
    #[error("KVM offers nothing on this host{}", if why.is_empty() { String::new() } else { format!(": {why}") })]
    NoKvm {
        /// Why, as far as it is known.
        why: String,
    },
}

impl Host {
    /// The host that an input shows; `unlisted` says what is to be thought of an MSR that it does not list.
    ///
    /// # Errors
    /// If it shows no CPUID, is a guest's, or its KVM runs nothing.
    pub fn of(name: &str, seen: &Snapshot, unlisted: Unlisted, setting: &Setting<'_>) -> Result<Self, NotAHost> {
        let first = seen.first_cpuid().ok_or(NoPrediction::NoCpuid)?;
        let nested = first.cpuid.state(HYPERVISOR) == State::Present;
        let answered = seen.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some());
        if nested && !answered && !setting.nested {
            return Err(NotAHost::Guest);
        }
        let kernel = Kernel { release: setting.kernel, unlisted, ..Kernel::new(Stage::Host) };
        let question = kvm::Question { params: setting.params, ..kvm::Question::new(kernel) };
        let KvmPrediction { view, mut assumed, findings, .. } = kvm::predict(seen, &question)?;
        if view.supported.is_none() {
            let why = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(NotAHost::NoKvm { why });
        }
        let vendor = first.cpuid.vendor().unwrap_or(Vendor::Other);
        let tsc_khz = view.tsc_khz;
        let ground = Ground { cpuid: first.cpuid.clone(), view, vendor };
        let question = ground.question(setting, "");
        let words = supported(question);
        let host = realize(ground.question(setting, "host,migratable=off"));
        let own = host.words().map_or(words, |own| and(own, &words));
        let mut offer = Offer { words, own, kvm: offered(question), phys_bits: phys_bits(&ground.cpuid) };
        assumed.extend(without_vmx(&mut offer, &ground.view));
        let software = Software::of(seen);
        Ok(Self { name: name.to_owned(), offer, ground, tsc_khz, nested, assumed, software })
    }
}

/// IA32_VMX_PINBASED_CTLS, and its true form, of which KVM lists one with every VMX.
const PINBASED: [u32; 2] = [0x481, 0x48d];

/// Takes VMX out where nobody read the MSRs that say which VMX it is: a guest with another one cannot be moved.
fn without_vmx(offer: &mut Offer, view: &KvmView) -> Option<Assumption> {
    let (at, mask) = bit(VMX)?;
    let known = view.msr_features.as_ref().is_some_and(|msrs| PINBASED.iter().any(|index| msrs.contains_key(index)));
    if offer.words[at] & mask == 0 || known {
        return None;
    }
    offer.words[at] &= !mask;
    offer.own[at] &= !mask;
    Some(Assumption {
        what: "nested VMX".to_owned(),
        value: "none".to_owned(),
        because: "its MSRs were not read, so that it is not known which of its features guests may have".to_owned(),
        hangs: vec!["vmx"],
    })
}

/// `target/i386/host-cpu.c:host_cpu_phys_bits`
fn phys_bits(cpuid: &CpuidTable) -> u8 {
    cpuid.get(0x8000_0008, 0).map_or(36, |leaf| leaf.eax as u8)
}
