//! One machine as the stages read it: whatever one input says, and never more.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use cpusieve_knowledge::x86::{Generation, Guess};
use cpusieve_knowledge::{TreeSet, linux};
use cpusieve_model::{
    CpuidBit, CpuidTable, Evidence, FlagList, MsrBit, Place, Register, Snapshot, Stage, State, Step, Vendor,
};

use crate::generation;
use crate::kvm::answered::Answered;
use crate::linux::booted::{Booted, Exact};
use crate::linux::conditions::Sight;
use crate::linux::kernel as linux_kernel;
use crate::names::Printed;
use crate::qemu::Realized;

/// 1.ECX\[31\]: set by hypervisors, never by silicon.
pub(crate) const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);

/// What a signature in leaf 40000000H says of who runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// KVM, or an interface that QEMU can make KVM show: Hyper-V's, Xen's.
    MaybeKvm,
    /// An emulator or another hypervisor, never KVM.
    Other,
}

/// Signatures of leaf 40000000H: EBX, ECX, EDX. Sources: systemd `src/basic/virt.c:detect_vm_cpuid`; QEMU
/// `target/i386/kvm/kvm.c:kvm_arch_init_vcpu` and `target/i386/cpu.c:cpu_x86_cpuid`; Linux
/// `arch/x86/kernel/cpu/{vmware,acrn}.c`, `arch/x86/kernel/jailhouse.c`.
const HYPERVISORS: [(&[u8; 12], Hypervisor); 12] = [
    (b"KVMKVMKVM\0\0\0", Hypervisor::MaybeKvm),
    (b"Linux KVM Hv", Hypervisor::MaybeKvm),
    (b"Microsoft Hv", Hypervisor::MaybeKvm),
    (b"XenVMMXenVMM", Hypervisor::MaybeKvm),
    (b"VMwareVMware", Hypervisor::Other),
    (b"TCGTCGTCGTCG", Hypervisor::Other),
    (b"bhyve bhyve ", Hypervisor::Other),
    (b"ACRNACRNACRN", Hypervisor::Other),
    (b"QNXQVMBSQG\0\0", Hypervisor::Other),
    (b"SRESRESRESRE", Hypervisor::Other),
    (b"VBoxVBoxVBox", Hypervisor::Other),
    (b"Jailhouse\0\0\0", Hypervisor::Other),
];

/// One end of a question: a host or a guest, seen through one input.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// What the answers call it: `host`, `guest`, `A`.
    pub role: &'static str,
    /// The input.
    pub snapshot: &'a Snapshot,
    /// The kernel trees that may have printed its flags line, and why.
    pub kernel: linux_kernel::Candidates,
    generations: OnceCell<Vec<Guess>>,
    /// The kernel tree for which the flags were concluded from CPUID; `None` if there is a line, or nothing at all.
    pub concluded_for: Option<usize>,
    flags: Option<FlagList>,
    names: Printed,
    /// The kernels of all trees on this CPU, each booted when it is first asked for; none before it is known which
    /// trees may run here, nor without CPUID.
    boots: Vec<OnceCell<Option<Box<Booted>>>>,
    /// KVM of all trees on this machine, each run when it is first asked for; none without CPUID.
    answers: Vec<OnceCell<Option<Box<Answered>>>>,
    /// The QEMUs that were run on this machine.
    pub(crate) realized: RefCell<Vec<Rc<Realized>>>,
    partly: bool,
    cpuid: Option<&'a CpuidTable>,
    supported: Option<CpuidTable>,
    vendor: Option<Vendor>,
}

impl<'a> Machine<'a> {
    /// Reads one input.
    #[must_use]
    pub fn new(role: &'static str, snapshot: &'a Snapshot) -> Self {
        let cpuid = snapshot.first_cpuid().map(|cpu| &cpu.cpuid);
        let mut machine = Self {
            role,
            snapshot,
            kernel: linux_kernel::Candidates::any(),
            generations: OnceCell::new(),
            concluded_for: None,
            flags: None,
            names: Printed::default(),
            boots: Vec::new(),
            answers: Vec::new(),
            realized: RefCell::default(),
            partly: false,
            cpuid,
            supported: snapshot.kvm.as_ref().and_then(cpusieve_model::KvmView::supported_table),
            vendor: snapshot.vendor(),
        };
        machine.take_flags(snapshot.flags().cloned());
        machine.vendor = machine.vendor.or_else(|| machine.vendor_from_flags());
        machine.kernel = linux_kernel::candidates(&machine);
        let trees =
            if cpuid.is_some() { linux::TREES.len().max(machine.kernel.trees.last().unwrap_or(0) + 1) } else { 0 };
        machine.boots = vec![OnceCell::new(); trees];
        machine.answers = vec![OnceCell::new(); trees];
        if machine.flags.is_none() && machine.cpuid.is_some() {
            machine.conclude(machine.kernel.trees.last().unwrap_or(linux::TREES.len() - 1));
        }
        machine
    }

    /// Takes the flags for a part of the line: what is not among them is not known, rather than absent.
    #[must_use]
    pub fn partly_known(mut self) -> Self {
        self.partly = true;
        self
    }

    /// Concludes the flags anew, for a kernel of this tree; only where there is no line and nothing tells the release.
    pub fn conclude_for(&mut self, tree: usize) {
        if self.concluded_for.is_some_and(|before| before != tree) && self.trees().contains(tree) {
            self.conclude(tree);
        }
    }

    /// The flags that a kernel of this tree would print.
    fn conclude(&mut self, tree: usize) {
        let Some((booted, cpuid)) = self.booted(tree) else { return };
        let flags = booted.output.flags.iter().copied().filter(|name| !booted.is_open(name, cpuid)).collect();
        self.take_flags(Some(flags));
        self.concluded_for = Some(tree);
    }

    /// A kernel of this tree on this CPU, with that CPU's CPUID; `None` if none was seen.
    pub(crate) fn booted(&self, tree: usize) -> Option<(&Booted, &'a CpuidTable)> {
        let boot = || Booted::new(self.snapshot, tree).map(Box::new);
        self.boots.get(tree)?.get_or_init(boot).as_deref().zip(self.cpuid)
    }

    /// The same, if the tree is one of [`Machine::kernels`].
    fn boot_of_kernels(&self, tree: usize) -> Option<(&Booted, &'a CpuidTable)> {
        if self.kernels().contains(tree) { self.booted(tree) } else { None }
    }

    /// The kernels whose flags these are: those that may have printed the line, or the one it was concluded for.
    #[must_use]
    pub fn kernels(&self) -> TreeSet {
        self.concluded_for.map_or(self.trees(), |tree| TreeSet(1 << tree))
    }

    /// What the exact kernel of a tree did about a capability, where CPUID was seen and the tree is one of
    /// [`Machine::kernels`]; see [`Booted::exact`]. With `believe`, the flags line bears out what was assumed, and
    /// stands where it contradicts.
    #[must_use]
    pub fn exact(&self, tree: usize, id: &str, at: Stage, believe: bool) -> Option<Exact> {
        let (booted, cpuid) = self.boot_of_kernels(tree)?;
        booted.exact(id, self.line(tree, id, believe), cpuid, self.role, at)
    }

    /// Whether the exact kernel of a tree has a capability; unknown where [`Machine::exact`] has no answer.
    #[must_use]
    pub fn exactly(&self, tree: usize, id: &str, believe: bool) -> State {
        let booted = self.boot_of_kernels(tree);
        booted.map_or(State::Unknown, |(booted, cpuid)| booted.capability(id, self.line(tree, id, believe), cpuid))
    }

    /// What the kernel of a tree would do about a capability if what nobody saw is as on most machines; `None` unless
    /// that, and no flags line, decides. The step says that it is unknown.
    #[must_use]
    pub fn supposed(&self, tree: usize, id: &str, at: Stage) -> Option<Step> {
        let (booted, cpuid) = self.boot_of_kernels(tree).filter(|_| self.line(tree, id, true) == State::Unknown)?;
        booted.supposed(id, cpuid, self.role, at)
    }

    /// KVM of this tree on this machine; `None` if no CPUID was seen, or if KVM does not run here or cannot be predicted.
    #[must_use]
    pub fn answered(&self, tree: usize) -> Option<&Answered> {
        let answered = || Answered::new(self, tree).map(Box::new);
        self.answers.get(tree)?.get_or_init(answered).as_deref()
    }

    /// What a captured flags line says of a capability; unknown where there is none.
    pub(crate) fn line_of(&self, tree: usize, id: &str) -> State {
        self.line(tree, id, true)
    }

    /// What a captured flags line says of a capability, if it is to be believed.
    fn line(&self, tree: usize, id: &str, believe: bool) -> State {
        if self.concluded_for.is_some() || !believe { State::Unknown } else { self.capability(tree, id).state }
    }

    fn take_flags(&mut self, flags: Option<FlagList>) {
        self.names = flags.as_ref().map(Printed::new).unwrap_or_default();
        self.flags = flags;
    }

    /// The `flags` line, in its order; or what was concluded from CPUID.
    #[must_use]
    pub fn flags(&self) -> Option<&FlagList> {
        self.flags.as_ref()
    }

    /// Whether the `flags` line prints this name; `None` if there is no line.
    ///
    /// Where the flags were concluded from CPUID, also `None` for a name that hangs on something CPUID does not tell, and
    /// for one that another kernel would print which may just as well run here.
    #[must_use]
    pub fn prints(&self, name: &str) -> Option<bool> {
        if self.names.contains(self.flags.as_ref()?, name) {
            return Some(true);
        }
        if self.partly {
            return None;
        }
        let Some(tree) = self.concluded_for else { return Some(false) };
        let elsewhere = || self.trees().iter().any(|tree| linux_kernel::prints(tree, name));
        let open = || self.booted(tree).is_some_and(|(booted, cpuid)| booted.is_open(name, cpuid));
        let untold = open() || !linux_kernel::prints(tree, name) && elsewhere();
        (!untold).then_some(false)
    }

    /// CPUID of the first CPU on which it was seen.
    #[must_use]
    pub fn cpuid(&self) -> Option<&'a CpuidTable> {
        self.cpuid
    }

    /// `KVM_GET_SUPPORTED_CPUID`, if it was seen.
    #[must_use]
    pub fn kvm_supported(&self) -> Option<&CpuidTable> {
        self.supported.as_ref()
    }

    /// A backend of `/dev/kvm` that is neither VMX nor SVM: its own answers are all that is known of it.
    #[must_use]
    pub fn other_kvm_backend(&self) -> Option<&'a str> {
        let params = &self.snapshot.kvm.as_ref()?.params;
        let modules = params.keys().filter_map(|name| name.split_once('.')).map(|(module, _)| module);
        modules.into_iter().find(|module| !matches!(*module, "kvm" | "kvm_intel" | "kvm_amd"))
    }

    /// The vendor: as CPUID or `/proc/cpuinfo` say it, or as the flags betray it.
    #[must_use]
    pub fn vendor(&self) -> Option<Vendor> {
        self.vendor
    }

    /// Family and model, if the input says them.
    #[must_use]
    pub fn family_model(&self) -> Option<(u32, u32)> {
        let told = self.snapshot.cpus.iter().find_map(|cpu| {
            let identity = &cpu.cpuinfo.as_ref()?.identity;
            Some((identity.family?, identity.model?))
        });
        told.or_else(|| self.cpuid?.signature().map(|(family, model, _)| (family, model)))
    }

    /// The CPU generations that its flags may come from, the likeliest first.
    #[must_use]
    pub fn generations(&self) -> &[Guess] {
        self.generations.get_or_init(|| generation::guess(self))
    }

    /// The CPU's generation, if one is likelier than all others together.
    #[must_use]
    pub fn generation(&self) -> Option<&'static Generation> {
        self.generations().first().filter(|guess| guess.score > 0.5).map(|guess| guess.generation)
    }

    /// The stepping, if the input says it.
    #[must_use]
    pub fn stepping(&self) -> Option<u32> {
        let told = self.snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.identity.stepping);
        told.or_else(|| self.cpuid?.signature().map(|(.., stepping)| stepping))
    }

    /// Whether CPUID says that this machine is a guest.
    #[must_use]
    pub fn is_vm(&self) -> State {
        match self.prints("hypervisor") {
            Some(printed) => State::from_bit(printed),
            None => self.cpuid.map_or(State::Unknown, |table| table.state(HYPERVISOR)),
        }
    }

    /// Whether this machine is a guest: by 1.ECX\[31\], or, where that bit is hidden (`hypervisor=off`), by a
    /// hypervisor's signature in leaf 40000000H. Its kernel believes the bit alone: [`Machine::is_vm`].
    #[must_use]
    pub fn is_guest(&self) -> State {
        if self.hypervisor().is_some() { State::Present } else { self.is_vm() }
    }

    /// The known hypervisor whose signature stands in leaf 40000000H, whatever 1.ECX\[31\] says.
    #[must_use]
    pub fn hypervisor(&self) -> Option<Hypervisor> {
        let leaf = self.cpuid?.get(0x4000_0000, 0)?;
        let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
        HYPERVISORS.into_iter().find(|(signature, _)| bytes == **signature).map(|(_, hypervisor)| hypervisor)
    }

    /// What this machine's kernel, if it is of this tree, says of a capability: present if the line prints it, absent if
    /// the tree would print it and the line does not, unknown if the tree hides it or does not know it.
    #[must_use]
    pub fn capability(&self, tree: usize, id: &str) -> Sight {
        match self.prints(id) {
            Some(printed) => {
                let row = linux::feature_by_id(tree, id);
                let says = printed || row.is_some_and(|row| row.shown.is_some());
                let name = || row.map_or_else(|| known_name(id), |row| Cow::Borrowed(row.id()));
                let evidence = says.then(|| self.flag_evidence(name(), printed));
                Sight { state: if says { State::from_bit(printed) } else { State::Unknown }, evidence }
            }
            None => Sight::default(),
        }
    }

    /// What is known of a bit of this machine's CPUID: the register if it was seen, else the flag that the bit makes
    /// in this tree. The evidence says which.
    #[must_use]
    pub fn bit(&self, tree: usize, bit: CpuidBit) -> (State, Option<Evidence>) {
        if let Some(table) = self.cpuid {
            let state = table.state(bit);
            if state != State::Unknown {
                return (state, Some(self.register_evidence("CPUID", table, bit)));
            }
        }
        let Some(name) = linux::at(tree, Place::Cpuid(bit)).and_then(|feature| feature.shown) else {
            return (State::Unknown, None);
        };
        match self.prints(name) {
            None => (State::Unknown, None),
            Some(printed) => (State::from_bit(printed), Some(self.flag_evidence(name, printed))),
        }
    }

    /// What is known of an MSR bit.
    #[must_use]
    pub fn msr(&self, bit: MsrBit) -> State {
        let states = self.snapshot.cpus.iter().map(|cpu| cpu.msrs.state(bit));
        states.into_iter().find(|&state| state != State::Unknown).unwrap_or_default()
    }

    /// A register of a table, as evidence; `answer` says who answered.
    #[must_use]
    pub fn register_evidence(&self, answer: &'static str, table: &CpuidTable, bit: CpuidBit) -> Evidence {
        let value = table.get(bit.leaf, bit.subleaf).map(|registers| registers.get(bit.register));
        Evidence::Register { of: self.role, answer, bit, value }
    }

    /// A printed or missing flag, as evidence.
    #[must_use]
    pub fn flag_evidence(&self, name: impl Into<Cow<'static, str>>, printed: bool) -> Evidence {
        Evidence::Flag { of: self.role, name: name.into(), printed }
    }

    /// Kernel trees that may run here.
    #[must_use]
    pub fn trees(&self) -> TreeSet {
        self.kernel.trees
    }

    /// Flags that only one vendor's CPUs, or only one vendor's set-up code, can bring about.
    fn vendor_from_flags(&self) -> Option<Vendor> {
        const TELLTALE: [(Vendor, &[&str]); 4] = [
            (
                Vendor::Amd,
                &["vmmcall", "svm", "sse4a", "cr8_legacy", "misalignsse", "fxsr_opt", "extd_apicid", "3dnow"],
            ),
            (Vendor::Zhaoxin, &["sm2", "sm2_en", "ccs", "ccs_en"]),
            (Vendor::Centaur, &["rng", "rng_en", "ace", "ace_en", "phe", "phe_en"]),
            (
                Vendor::Intel,
                &[
                    "vmx",
                    "pebs",
                    "bts",
                    "ds_cpl",
                    "dtes64",
                    "pdcm",
                    "tsx_ctrl",
                    "tpr_shadow",
                    "flexpriority",
                    "intel_pt",
                    "mpx",
                    "hle",
                    "rtm",
                    "avx512_4vnniw",
                    "waitpkg",
                    "serialize",
                    "cpuid_fault",
                    "arch_perfmon",
                    "dtherm",
                    "md_clear",
                    "ss",
                    "tsx_async_abort",
                    "amx_tile",
                ],
            ),
        ];
        self.flags.as_ref()?;
        TELLTALE
            .into_iter()
            .find(|(_, names)| names.iter().any(|name| self.prints(name) == Some(true)))
            .map(|(vendor, _)| vendor)
    }

    /// Whether the CPU has cores of different kinds. 7.0.EDX\[15\] says it; a flags line betrays it by features that Intel gave to hybrid parts alone.
    #[must_use]
    pub fn hybrid(&self) -> State {
        const HYBRID: CpuidBit = CpuidBit::new(7, 0, Register::Edx, 15);
        if let Some(table) = self.cpuid {
            let seen = table.state(HYBRID);
            let masked = seen == State::Absent && self.is_vm() == State::Present;
            if seen != State::Unknown && !masked {
                return seen;
            }
        }
        generation::is_hybrid(self.generations())
    }
}

/// A feature's id, borrowed from the tables where they have it.
pub(crate) fn known_name(id: &str) -> Cow<'static, str> {
    linux::by_id(id).next().map_or_else(|| Cow::Owned(id.to_owned()), |row| Cow::Borrowed(row.id()))
}
