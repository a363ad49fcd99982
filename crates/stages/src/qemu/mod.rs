//! What QEMU makes of what an accelerator offers.
//!
//! [`realize`] runs QEMU's own functions, by their names and in their order, from the text of `-cpu` to the table of
//! `KVM_SET_CPUID2`, the MSRs and the messages; it needs KVM's whole answer. `instance.rs` makes the CPU object,
//! `expand.rs` and `components.rs` say what is asked for, `filter.rs` takes out what the accelerator lacks, `board.rs` is
//! what the machine checks, `realize.rs` holds the order of events, `leaves/` is `cpu_x86_cpuid`. [`Output::steps`] reads off the words after each function
//! which of them decided a bit. [`expansion`] is QMP's `query-cpu-model-expansion`.
//!
//! [`give`] answers for one bit where little more than a flags line is known: fix-ups, feature words, policy of
//! migration.

mod assign;
mod assume;
mod board;
mod components;
mod cpu;
mod definition;
mod expand;
mod expansion;
mod featurestr;
mod fields;
mod filter;
mod history;
mod home;
mod host;
mod hyperv;
mod instance;
mod leaves;
mod msrs;
mod output;
mod program;
mod properties;
mod realize;
mod realized;
mod refusal;
mod release;
mod start;
mod steps;
mod supported;
mod trace;
mod value;
mod words;

pub use cpu::{Accelerator, Irqchip, Question, Smp};
pub use definition::{Definition, definition};
pub use expansion::{Expansion, PropertyValue, expansion};
pub use leaves::{EpcSection, Instruction, Protected, Running, Sev, SmpError};
pub use output::Output;
pub use realize::realize;
pub use realized::{Command, Realized};
pub use refusal::Refusal;
pub use supported::{offered, supported};

use std::cmp::Reverse;

use cpusieve_knowledge::qemu::{self, Condition, FixupEffect};
use cpusieve_knowledge::rules::{self, Rule, Software};
use cpusieve_model::{Cite, CpuidBit, Effect, Grounds, Place, RuleId, Stage, State, Step, Vendor};

use crate::Machine;
use crate::kvm::Decision;
use crate::linux::conditions::{self, Observed, all};
use crate::machine::{HYPERVISOR, known_name};

/// What was asked of QEMU with `-cpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuArgument {
    /// `-cpu host`, with its default `migratable=on` or without.
    Host {
        /// Whether only migratable bits are passed.
        migratable: bool,
    },
    /// Anything else: a named model, or `host` with features taken out. What it lacks shows only in the guest.
    Other,
}

/// One QEMU: its release and what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The release, an index into [`qemu::RELEASES`].
    pub release: usize,
    /// What was asked.
    pub cpu: CpuArgument,
}

/// What QEMU gives of a bit to the vCPU. `feature` is the kernel's id.
#[must_use]
pub fn give(qemu: Qemu, host: &Machine<'_>, feature: &str, bit: CpuidBit, offered: State) -> Decision {
    let (state, rule) = outcome(qemu, host, feature, bit, offered);
    let effect = match (offered.known(), state.known()) {
        (_, None) => Effect::Unknown,
        (Some(false), Some(true)) => Effect::Added,
        (_, Some(true)) => Effect::Kept,
        (_, Some(false)) => Effect::Dropped,
    };
    let step = Step {
        feature: known_name(feature),
        place: Some(Place::Cpuid(bit)),
        at: Stage::Qemu,
        effect,
        rule: rule.map_or(RuleId(""), |rule| rule.id),
        cite: rule.map_or(Cite(""), |rule| home::home(rule.cite, qemu.release)),
        because: Grounds::NONE,
    };
    Decision { state, open: state == State::Unknown, step }
}

fn generic(when: &str) -> Option<&'static Rule> {
    rules::generic(Software::Qemu, when)
}

/// The rule that speaks of this feature by name in a situation: of several, the one whose conditions hold, or may, and of
/// those the one of which most is seen to hold.
fn named(host: &Machine<'_>, feature: &str, release: usize, when: &str) -> Option<&'static Rule> {
    let observed = Observed { machine: host, tree: host.trees().last().unwrap_or_default() };
    let those = rules::of_feature(Software::Qemu, feature)
        .filter(|rule| rule.trees.contains(release) && rule.when == Some(when));
    let rank = |rule: &'static Rule| {
        let fails = all(&observed, rule.needs).state.known().map_or(1, |holds| 2 * u8::from(!holds));
        let seen = rule.needs.iter().filter(|need| conditions::holds(&observed, need).state == State::Present).count();
        (fails, Reverse(seen))
    };
    those.min_by_key(|rule| rank(rule))
}

/// The rule that speaks of this feature by name, else the generic one.
fn ruled(host: &Machine<'_>, feature: &str, release: usize, when: &str) -> Option<&'static Rule> {
    named(host, feature, release, when).or_else(|| generic(when))
}

fn outcome(
    qemu: Qemu,
    host: &Machine<'_>,
    feature: &str,
    bit: CpuidBit,
    offered: State,
) -> (State, Option<&'static Rule>) {
    let Qemu { release, cpu } = qemu;
    let place = Place::Cpuid(bit);
    let (supported, when) = fixed_up(release, host, bit, offered);
    // Several threads in a package make the bit, whatever KVM says.
    if let Some(rule) = topology_adds(host, feature, qemu) {
        let by_itself = qemu::no_autoenable(release, place);
        match supported.known() {
            Some(true) if by_itself => return (State::Unknown, ruled(host, feature, release, "no-autoenable")),
            Some(true) => {}
            _ => return (State::Unknown, Some(rule)),
        }
    }
    if supported.known() == Some(false) {
        return (
            State::Absent,
            if when == "fixup-removes" { ruled(host, feature, release, when) } else { generic("not-offered") },
        );
    }
    if !qemu::word_exists(release, place) {
        return (State::Absent, generic("word-unknown"));
    }
    if let CpuArgument::Host { migratable: true } = cpu {
        if qemu::unmigratable(release, place) {
            return (State::Absent, ruled(host, feature, release, "unmigratable"));
        }
        if qemu::name(release, place).is_none() {
            return (State::Absent, generic("unnamed"));
        }
    }
    if qemu::no_autoenable(release, place) {
        let state = if cpu == CpuArgument::Other { State::Unknown } else { State::Absent };
        return (state, ruled(host, feature, release, "no-autoenable"));
    }
    match cpu {
        // Every named model has the hypervisor bit (`x86_cpu_load_model`), but `base` and `-hypervisor` do not.
        CpuArgument::Other if bit == HYPERVISOR => (State::Unknown, ruled(host, feature, release, when)),
        CpuArgument::Other if offered.known() != Some(true) && when == "fixup-adds" => {
            (State::Unknown, ruled(host, feature, release, when))
        }
        CpuArgument::Other => (State::Unknown, generic("model")),
        CpuArgument::Host { .. } => (supported, ruled(host, feature, release, when)),
    }
}

/// The rule by which several threads in a package make the bit. With `-cpu host` the guest's vendor is the host's.
fn topology_adds(host: &Machine<'_>, feature: &str, qemu: Qemu) -> Option<&'static Rule> {
    let rule = named(host, feature, qemu.release, "topology-adds")?;
    let observed = Observed { machine: host, tree: host.trees().last().unwrap_or_default() };
    let fails = qemu.cpu != CpuArgument::Other && all(&observed, rule.needs).state == State::Absent;
    (!fails).then_some(rule)
}

/// `kvm_arch_get_supported_cpuid`: what QEMU adds to KVM's answer and takes from it, and the name of what happened.
fn fixed_up(release: usize, host: &Machine<'_>, bit: CpuidBit, offered: State) -> (State, &'static str) {
    qemu::fixups(release, Place::Cpuid(bit)).fold((offered, "passed"), |(state, when), fixup| {
        let holds = fixup.conditions.iter().map(|condition| holds(condition, host, bit)).fold(State::Present, both);
        match (fixup.effect, holds.known()) {
            (FixupEffect::Adds, Some(true)) if state != State::Present => (State::Present, "fixup-adds"),
            (FixupEffect::Adds, None) if state.known() == Some(false) => (State::Unknown, "fixup-adds"),
            (FixupEffect::Removes, Some(true)) if state != State::Absent => (State::Absent, "fixup-removes"),
            (FixupEffect::Removes, None) if state == State::Present => (State::Unknown, "fixup-removes"),
            _ => (state, when),
        }
    })
}

/// Both conditions: one that fails decides, one that is unknown leaves it open.
fn both(one: State, other: State) -> State {
    match (one.known(), other.known()) {
        (Some(false), _) | (_, Some(false)) => State::Absent,
        (Some(true), Some(true)) => State::Present,
        _ => State::Unknown,
    }
}

/// A condition of a fix-up, on what is known of the host, with the defaults of a PC machine: interrupt controller in the
/// kernel, no `-overcommit cpu-pm=on`.
fn holds(condition: &Condition, host: &Machine<'_>, bit: CpuidBit) -> State {
    let kvm = host.snapshot.kvm.as_ref();
    let tree = host.trees().last().unwrap_or_default();
    match *condition {
        Condition::HostHasBit => host.bit(tree, bit).0,
        Condition::Supported(place) => match (place, host.kvm_supported()) {
            (Place::Cpuid(other), Some(table)) => table.state(other),
            _ => State::Unknown,
        },
        Condition::IrqchipInKernel(kernel) => State::from_bit(kernel),
        Condition::IrqchipSplit => State::Absent,
        Condition::CpuPm(given) => State::from_bit(!given),
        Condition::HostModel => State::Present,
        Condition::NotPcMachine => State::Absent,
        Condition::Capability(number) => match kvm.and_then(|kvm| kvm.caps.get(&number)) {
            Some(&value) => State::from_bit(value > 0),
            // The capabilities that fix-ups ask for are as old as the oldest kernel tree that is known.
            None => State::Present,
        },
        Condition::NotInMsrIndex(index) => match kvm.and_then(|kvm| kvm.msr_index.as_ref()) {
            Some(list) => State::from_bit(!list.contains(&index)),
            None => State::Absent,
        },
        Condition::VendorAmd(amd) => {
            host.vendor().map_or(State::Unknown, |vendor| State::from_bit((vendor == Vendor::Amd) == amd))
        }
        Condition::HaswellTsx => haswell_without_tsx(host),
        Condition::ImmuneToStaleData | Condition::PropertyOff(_) => State::Unknown,
    }
}

/// `host_tsx_broken`: family 6, model 60, 69 or 70, or model 63 before stepping 4.
fn haswell_without_tsx(host: &Machine<'_>) -> State {
    if host.vendor().is_some_and(|vendor| vendor != Vendor::Intel) {
        return State::Absent;
    }
    let stepping = host.cpuid().and_then(cpusieve_model::CpuidTable::signature).map(|(.., stepping)| stepping);
    match (host.family_model(), stepping) {
        (Some((6, 60 | 69 | 70)), _) => State::Present,
        (Some((6, 63)), Some(stepping)) => State::from_bit(stepping < 4),
        (Some((6, 63)), None) => State::Unknown,
        (Some(_), _) => State::Absent,
        (None, _) => State::Unknown,
    }
}
