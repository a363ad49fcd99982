//! The conditions of rules, decided on what is known of one machine. Three answers: holds, does not hold, not known.

use cpusieve_knowledge::rules::{Condition, Field, Need, Signature};
use cpusieve_knowledge::x86::Generation;
use cpusieve_model::{CpuidBit, CpuidTable, Evidence, Grounds, MsrBit, Stage, State, Vendor};

use super::booted::Exact;
use crate::Machine;

/// What was seen of one thing, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// What it was.
    pub state: State,
    /// Where it was seen; `None` if it was concluded.
    pub evidence: Option<Evidence>,
}

impl From<State> for Sight {
    fn from(state: State) -> Self {
        Self { state, evidence: None }
    }
}

/// What a kernel's set-up code looks at: a machine that was observed, or one that is being predicted.
pub trait Inputs {
    /// A CPUID bit.
    fn bit(&self, bit: CpuidBit) -> Sight;
    /// A capability of the kernel, by id.
    fn capability(&self, id: &str) -> Sight;
    /// What the exact kernel did about a capability, by id; `None` where no CPUID was seen, or something that nobody saw
    /// decides.
    fn exact(&self, _id: &str) -> Option<Exact> {
        None
    }
    /// The machine that was observed, for all that no prediction changes: MSRs, command line, configuration.
    fn observed(&self) -> Option<&Machine<'_>>;
    /// 1.ECX\[31\].
    fn is_vm(&self) -> State;
    /// The vendor.
    fn vendor(&self) -> Option<Vendor>;
    /// Display family and model.
    fn family_model(&self) -> Option<(u32, u32)>;
    /// The CPU's generation, as its flags betray it.
    fn generation(&self) -> Option<&'static Generation> {
        self.observed().and_then(Machine::generation)
    }
    /// The stepping.
    fn stepping(&self) -> Option<u32> {
        self.observed().and_then(Machine::stepping)
    }
    /// The microcode revision.
    fn microcode(&self) -> Option<u64> {
        let cpus = self.observed().map(|machine| machine.snapshot.cpus.as_slice()).unwrap_or_default();
        cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.identity.microcode)
    }
    /// Whether the hypervisor's signature is this one.
    fn hypervisor(&self, name: &str) -> State;
}

/// A machine that was observed, its kernel taken to be of this tree.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// The tree.
    pub tree: usize,
}

impl Inputs for Observed<'_> {
    fn bit(&self, bit: CpuidBit) -> Sight {
        let (state, evidence) = self.machine.bit(self.tree, bit);
        Sight { state, evidence }
    }

    fn capability(&self, id: &str) -> Sight {
        let seen = self.machine.capability(self.tree, id);
        if seen.state != State::Unknown {
            return seen;
        }
        self.machine.exactly(self.tree, id, true).into()
    }

    fn exact(&self, id: &str) -> Option<Exact> {
        self.machine.exact(self.tree, id, Stage::Host, true)
    }

    fn observed(&self) -> Option<&Machine<'_>> {
        Some(self.machine)
    }

    fn is_vm(&self) -> State {
        self.machine.is_vm()
    }

    fn vendor(&self) -> Option<Vendor> {
        self.machine.vendor()
    }

    fn family_model(&self) -> Option<(u32, u32)> {
        self.machine.family_model()
    }

    fn hypervisor(&self, name: &str) -> State {
        hypervisor(self.machine, name)
    }
}

/// How a list of conditions came out, and the one that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// [`State::Present`] if all hold, [`State::Absent`] if one surely does not, [`State::Unknown`] otherwise.
    pub state: State,
    /// The condition that fails, or the first that is not known.
    pub deciding: Option<&'static Need>,
    /// What was seen of the conditions that decided.
    pub because: Grounds,
}

/// Decides a list of conditions.
#[must_use]
pub fn all(inputs: &dyn Inputs, needs: &'static [Need]) -> Verdict {
    let mut verdict = Verdict { state: State::Present, deciding: None, because: Grounds::NONE };
    for need in needs {
        let sight = holds(inputs, need);
        match sight.state {
            State::Present => verdict.because.extend(sight.evidence),
            State::Absent | State::Reserved => {
                return Verdict {
                    state: State::Absent,
                    deciding: Some(need),
                    because: sight.evidence.into_iter().collect(),
                };
            }
            State::Unreadable | State::Unknown => {
                verdict.state = State::Unknown;
                verdict.deciding = verdict.deciding.or(Some(need));
            }
        }
    }
    verdict
}

/// Decides one condition.
#[must_use]
pub fn holds(inputs: &dyn Inputs, need: &Need) -> Sight {
    let sight = match need.condition {
        Condition::Cpuid(bit) => inputs.bit(bit),
        Condition::Flag(id) => inputs.capability(id),
        Condition::Msr(bit) => msr(inputs, bit),
        Condition::Vendor(vendors) => {
            inputs.vendor().map_or(State::Unknown, |vendor| State::from_bit(vendors.contains(&vendor))).into()
        }
        Condition::Vm => inputs.is_vm().into(),
        Condition::Hypervisor(name) => inputs.hypervisor(name).into(),
        Condition::Family(first, last) => {
            let family = inputs.family_model().map(|(family, _)| family);
            family.map_or(State::Unknown, |family| State::from_bit((first..=last).contains(&family))).into()
        }
        Condition::Param(words) => parameter(inputs, words),
        Condition::Config(option) => config(inputs, option),
        Condition::Signature(signatures) => signature(inputs, signatures).into(),
        Condition::Field(field) => field_compares(inputs, field),
        Condition::MsrReadable(index) => match msr_reading(inputs, MsrBit { index, bit: 0 }) {
            State::Unknown => State::Unknown.into(),
            state => State::from_bit(state != State::Unreadable).into(),
        },
        Condition::MicrocodeBelow(revision) => {
            inputs.microcode().map_or(State::Unknown, |seen| State::from_bit(seen < revision)).into()
        }
        Condition::Bug(name) => bug(inputs, name),
        Condition::Model(_) | Condition::Other(_) => State::Unknown.into(),
    };
    let state = match (sight.state.known(), need.condition) {
        (Some(known), _) => State::from_bit(known != need.negated),
        // A command line that nobody saw is taken to be a plain one, where the rule wants a parameter to be missing.
        (None, Condition::Param(_)) if need.negated => State::Present,
        (None, Condition::Config(option)) => stock(option, need.negated),
        (None, _) => State::Unknown,
    };
    Sight { state, evidence: sight.evidence }
}

/// An option of a kernel whose configuration nobody saw, as distributions build it; unknown where they differ.
fn stock(option: &str, negated: bool) -> State {
    const ON: [&str; 7] = [
        "KVM_INTEL",
        "MITIGATION_PAGE_TABLE_ISOLATION",
        "PAGE_TABLE_ISOLATION",
        "SMP",
        "X86_SMAP",
        "X86_X2APIC",
        "X86_INTEL_MEMORY_PROTECTION_KEYS",
    ];
    match option {
        "X86_32" => State::from_bit(negated),
        _ if ON.contains(&option) => State::from_bit(!negated),
        _ => State::Unknown,
    }
}

/// An MSR bit. A register that faults has no bit set: code that tests it with `rdmsrl_safe` sees none.
fn msr(inputs: &dyn Inputs, bit: MsrBit) -> Sight {
    match msr_reading(inputs, bit) {
        State::Unreadable => State::Absent.into(),
        state => state.into(),
    }
}

fn msr_reading(inputs: &dyn Inputs, bit: MsrBit) -> State {
    inputs.observed().map_or(State::Unknown, |machine| machine.msr(bit))
}

/// Family, model and stepping are one of these; unknown if one of them is not known and decides.
fn signature(inputs: &dyn Inputs, signatures: &[Signature]) -> State {
    let Some((family, model)) = inputs.family_model() else {
        return inputs.generation().map_or(State::Unknown, |generation| of_generation(generation, signatures));
    };
    let stepping = inputs.stepping();
    let found = signatures.iter().map(|signature| signature.matches(family, model, stepping));
    found.fold(State::Absent, |so_far, matches| match (so_far, matches) {
        (State::Present, _) | (_, Some(true)) => State::Present,
        (State::Unknown, _) | (_, None) => State::Unknown,
        (_, Some(false)) => so_far,
    })
}

/// Where only the generation is known: absent if none of its members has one of these signatures, else unknown.
fn of_generation(generation: &Generation, signatures: &[Signature]) -> State {
    let overlaps =
        |signature: &Signature, models: &(u32, u32)| models.0 <= signature.models.1 && signature.models.0 <= models.1;
    let may_be = generation.members.iter().any(|member| {
        let of_family = signatures.iter().filter(|signature| signature.family == member.family);
        of_family.into_iter().any(|signature| member.models.iter().any(|models| overlaps(signature, models)))
    });
    if may_be { State::Unknown } else { State::Absent }
}

/// A field of CPUID, where CPUID was seen.
fn field_compares(inputs: &dyn Inputs, field: Field) -> Sight {
    let table = inputs.observed().and_then(Machine::cpuid);
    let Some(table) = table.filter(|table| !table.is_empty()) else { return State::Unknown.into() };
    let state = compares(table, field);
    let is_read = table.get(field.low.leaf, field.low.subleaf).is_some();
    let evidence = inputs.observed().map(|machine| machine.register_evidence("CPUID", table, field.low));
    Sight { state, evidence: evidence.filter(|_| is_read) }
}

/// Whether a field compares as it should; unknown if the table lacks its leaf.
pub(crate) fn compares(table: &CpuidTable, field: Field) -> State {
    if table.maximum(field.low.leaf).is_some_and(|maximum| field.low.leaf > maximum) {
        return State::Absent;
    }
    let Some(registers) = table.get(field.low.leaf, field.low.subleaf) else { return State::Unknown };
    let mask = u32::MAX.checked_shr(32 - u32::from(field.width)).unwrap_or(0);
    let value = registers.get(field.low.register) >> field.low.bit & mask;
    State::from_bit(if field.exactly { value == field.number } else { value >= field.number })
}

/// A bug of the `bugs` line.
fn bug(inputs: &dyn Inputs, name: &str) -> Sight {
    let cpus = inputs.observed().map(|machine| machine.snapshot.cpus.as_slice()).unwrap_or_default();
    let line = cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.bugs.as_ref());
    line.map_or(State::Unknown, |bugs| State::from_bit(bugs.contains(name))).into()
}

/// The hypervisor, by its signature in leaf 40000000H.
fn hypervisor(machine: &Machine<'_>, name: &str) -> State {
    const SIGNATURES: [(&str, &str); 5] = [
        ("kvm", "KVMKVMKVM"),
        ("hyperv", "Microsoft Hv"),
        ("vmware", "VMwareVMware"),
        ("xen", "XenVMMXenVMM"),
        ("jailhouse", "Jailhouse"),
    ];
    if machine.is_vm() == State::Absent {
        return State::Absent;
    }
    let Some(seen) = machine.cpuid().and_then(CpuidTable::hypervisor_signature) else { return State::Unknown };
    State::from_bit(SIGNATURES.iter().any(|&(known, signature)| known == name && seen.starts_with(signature)))
}

/// A parameter on the captured command line. Rules put some in words that are no parameter; these stay unknown.
fn parameter(inputs: &dyn Inputs, words: &str) -> Sight {
    let linux = inputs.observed().and_then(|machine| machine.snapshot.linux.as_ref());
    let Some(cmdline) = linux.and_then(|linux| linux.cmdline.as_deref()) else { return State::Unknown.into() };
    if words.contains([' ', '|', '/']) {
        return State::Unknown.into();
    }
    let given = cmdline.split_ascii_whitespace().any(|given| given == words);
    let evidence = given.then(|| Evidence::Setting { source: "kernel command line", text: words.to_owned() });
    Sight { state: State::from_bit(given), evidence }
}

fn config(inputs: &dyn Inputs, option: &str) -> Sight {
    let linux = inputs.observed().and_then(|machine| machine.snapshot.linux.as_ref());
    let Some(config) = linux.and_then(|linux| linux.config.as_ref()) else { return State::Unknown.into() };
    let name = format!("CONFIG_{option}");
    let value = config.get(&name).map_or("n", String::as_str);
    let evidence = Evidence::Setting { source: "kernel configuration", text: format!("{name}={value}") };
    Sight { state: State::from_bit(matches!(value, "y" | "m")), evidence: Some(evidence) }
}
