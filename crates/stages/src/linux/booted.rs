//! What the exact kernel of one tree makes of a machine whose CPUID was seen, and which of it is sure.
//!
//! [`super::boot`] decides everything, and lists what it had to assume; an answer about one capability has to say
//! whether it hangs on an assumption. Here both are looked up by the capability's id.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Rule};
use cpusieve_model::{CpuidTable, Effect, Evidence, Snapshot, Stage, State, Step};

use super::boot::{self, Input, Output};

/// Bits that CPUID shows only in the mode that 64-bit Linux runs in, with the feature that says that the CPU has them: a
/// dump that was taken under another system lacks them. Sources: Intel SDM volume 2A, CPUID, 80000001H:EDX\[11\] (set in
/// 64-bit mode alone) and 07H:ECX\[4\] (mirrors CR4.PKE).
const MODE_BOUND: [(&str, &str); 2] = [("syscall", "lm"), ("ospke", "pku")];

/// A kernel of one tree, booted on what a snapshot shows.
#[derive(Clone, Debug)]
pub struct Booted {
    /// What it prints, the steps, the assumptions.
    pub output: Output,
    tree: usize,
    /// Positions in `output.steps`, by capability.
    steps: HashMap<Cow<'static, str>, usize, foldhash::fast::RandomState>,
    /// Capabilities that would have come out otherwise, or might have, if something that nobody saw were otherwise.
    open: HashSet<Cow<'static, str>, foldhash::fast::RandomState>,
}

/// What an exact kernel did about one capability.
#[derive(Clone, Debug)]
pub struct Exact {
    /// Whether the kernel has it in the end: present or absent.
    pub state: State,
    /// The step that led there; `None` if nothing announced the capability and nothing set it.
    pub step: Option<Step>,
    /// Whether it hangs on an assumption, which the flags line then bears out.
    pub assumed: bool,
}

impl Exact {
    /// The rule of the step.
    #[must_use]
    pub fn rule(&self) -> Option<&'static Rule> {
        rules::rule(self.step.as_ref()?.rule.0)
    }

    /// The feature together with which the kernel cleared this one, if that is what it did.
    #[must_use]
    pub fn cleared_with(&self) -> Option<Cow<'static, str>> {
        let step = self.step.as_ref().filter(|_| self.rule().is_some_and(|rule| rule.when == Some("dependency")))?;
        step.because.iter().find_map(|evidence| match evidence {
            Evidence::Flag { name, printed: false, .. } => Some(name.clone()),
            _ => None,
        })
    }
}

impl Booted {
    /// Boots a kernel of this tree; `None` if no CPUID was seen.
    #[must_use]
    pub fn new(snapshot: &Snapshot, tree: usize) -> Option<Self> {
        // Whose kernel it is, and at which stage, is said when a step is asked for.
        let input = Input::of_snapshot("", Stage::Host, snapshot)?;
        let output = boot::boot(&input, tree);
        let steps = output.steps.iter().enumerate();
        let steps: HashMap<_, _, _> = steps.map(|(index, step)| (step.feature.clone(), index)).collect();
        let undecided = output.steps.iter().filter(|step| step.effect == Effect::Unknown);
        let hanging = output.assumed.iter().flat_map(|assumed| &assumed.hangs);
        let other_mode = MODE_BOUND.into_iter().filter(|(name, feature)| {
            snapshot.linux.is_none() && output.flags.contains(feature) && !output.flags.contains(name)
        });
        let open = undecided
            .map(|step| step.feature.clone())
            .chain(hanging.map(|id| Cow::Borrowed(*id)))
            .chain(other_mode.map(|(name, _)| Cow::Borrowed(name)))
            .collect();
        Some(Self { output, tree, steps, open })
    }

    /// Whether something that nobody saw decides this capability; `cpuid` is what was seen.
    #[must_use]
    pub fn is_open(&self, id: &str, cpuid: &CpuidTable) -> bool {
        // A leaf that the dump lacks was not seen, though a kernel that reads it would find zero or something else.
        let unseen = || {
            let row = linux::feature_by_id(self.tree, id)?;
            Some(cpuid.state(linux::place(self.tree, row)?.cpuid()?) == State::Unknown)
        };
        self.open.contains(id) || unseen() == Some(true)
    }

    /// Whether the kernel has a capability in the end: present, absent, or unknown.
    ///
    /// `line` is what the machine's flags line says of it. A line that contradicts the kernel stands, and then there is
    /// no answer here; nor where something that nobody saw decides, unless the line bears the assumption out.
    #[must_use]
    pub fn capability(&self, id: &str, line: State, cpuid: &CpuidTable) -> State {
        let has = match self.step(id).map(|step| step.effect) {
            Some(Effect::Unknown) => return State::Unknown,
            Some(Effect::Kept | Effect::Added | Effect::Forced) => true,
            Some(Effect::Dropped) => false,
            None if linux::feature_by_id(self.tree, id).is_some() => false,
            None => return State::Unknown,
        };
        let stands = line.known().map_or_else(|| !self.is_open(id, cpuid), |seen| seen == has);
        if stands { State::from_bit(has) } else { State::Unknown }
    }

    /// What the kernel did about a capability, in a machine that is called `of` and whose kernel stands at a stage; none
    /// where [`Booted::capability`] has no answer.
    #[must_use]
    pub fn exact(&self, id: &str, line: State, cpuid: &CpuidTable, of: &'static str, at: Stage) -> Option<Exact> {
        let state = self.capability(id, line, cpuid);
        let exact = || Exact {
            state,
            step: self.step(id).map(|step| labelled(step, of, at)),
            assumed: self.is_open(id, cpuid),
        };
        state.known().map(|_| exact())
    }

    fn step(&self, id: &str) -> Option<&Step> {
        self.steps.get(id).and_then(|&index| self.output.steps.get(index))
    }

    /// The step that the kernel takes if what nobody saw is as on most machines, as an unknown one; `None` if all that
    /// decides was seen, or there is no step.
    #[must_use]
    pub fn supposed(&self, id: &str, cpuid: &CpuidTable, of: &'static str, at: Stage) -> Option<Step> {
        self.step(id)
            .filter(|_| self.is_open(id, cpuid))
            .map(|step| Step { effect: Effect::Unknown, ..labelled(step, of, at) })
    }
}

/// A step of this machine's kernel.
fn labelled(step: &Step, of: &'static str, at: Stage) -> Step {
    let mut step = Step { at, ..step.clone() };
    for evidence in &mut step.because {
        if let Evidence::Flag { of: whose, .. } | Evidence::Register { of: whose, .. } = evidence {
            *whose = of;
        }
    }
    step
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot do this has failed")]
mod tests {
    use cpusieve_model::{Cpu, LinuxView, Registers};

    use super::*;

    /// An Intel CPU with FXSR, SSE2, SSSE3, XSAVE, AVX and, in leaf 7, AVX2 and SMEP; no MSR was read.
    fn machine(cmdline: Option<&str>) -> Snapshot {
        let mut cpu = Cpu::default();
        cpu.cpuid.insert(0, 0, Registers { eax: 0xd, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 });
        cpu.cpuid.insert(1, 0, Registers { eax: 0x306a9, ebx: 0, ecx: 0x1c00_0201, edx: 0x0780_2231 });
        cpu.cpuid.insert(7, 0, Registers { eax: 0, ebx: 1 << 5 | 1 << 7, ecx: 0, edx: 0 });
        cpu.cpuid.insert(0xd, 0, Registers { eax: 7, ebx: 0x340, ecx: 0x340, edx: 0 });
        let linux = LinuxView { cmdline: cmdline.map(str::to_owned), ..LinuxView::default() };
        Snapshot { cpus: vec![cpu], linux: Some(linux), ..Snapshot::default() }
    }

    fn exact(cmdline: Option<&str>, id: &str, line: State) -> Option<Exact> {
        let snapshot = machine(cmdline);
        let booted = Booted::new(&snapshot, linux::nearest("5.10").tree).unwrap();
        booted.exact(id, line, &snapshot.cpus[0].cpuid, "guest", Stage::Guest)
    }

    #[test]
    fn a_cleared_parent_is_named() {
        // Word 4, bit 28: AVX.
        let avx2 = exact(Some("clearcpuid=156"), "avx2", State::Unknown).unwrap();
        assert_eq!((avx2.state, avx2.assumed), (State::Absent, false));
        assert_eq!(avx2.cleared_with().as_deref(), Some("avx"));
        let step = avx2.step.unwrap();
        assert_eq!(step.at, Stage::Guest);
        assert!(step.because.iter().all(|evidence| evidence.source().starts_with("guest")), "{:?}", step.because);
    }

    #[test]
    fn a_line_that_contradicts_stands() {
        assert!(exact(Some(""), "ssse3", State::Absent).is_none());
        assert_eq!(exact(Some(""), "ssse3", State::Present).map(|exact| exact.state), Some(State::Present));
        assert_eq!(exact(Some(""), "avx512f", State::Unknown).map(|exact| exact.state), Some(State::Absent));
    }

    #[test]
    fn what_was_assumed_stays_open_unless_the_line_bears_it_out() {
        // `nosmep` may stand on a command line that nobody saw.
        assert!(exact(None, "smep", State::Unknown).is_none());
        let borne_out = exact(None, "smep", State::Present).unwrap();
        assert_eq!((borne_out.state, borne_out.assumed), (State::Present, true));
        let seen = exact(Some("nosmep"), "smep", State::Unknown).unwrap();
        assert_eq!((seen.state, seen.assumed), (State::Absent, false));
    }

    #[test]
    fn a_leaf_that_a_dump_lacks_decides_nothing() {
        assert!(exact(Some(""), "constant_tsc", State::Unknown).is_some());
        assert!(exact(Some(""), "lm", State::Unknown).is_none());
    }
}
