//! Native, trapped, or in between: told by the cost, held against what each can cost at least and at most.
//!
//! An exit is a change into the hypervisor and back. On current CPUs the hardware alone needs some 500 to 1,000 cycles
//! for it and KVM's handling brings it to 1,000 to 2,000 (`x86/vmexit.c` of kvm-unit-tests prints it); under a second
//! hypervisor CPUID needs 6,850 to 28,850 (the message of Linux commit 1201f22). Natively RDTSC needs some 20 and CPUID
//! 100 to 400 cycles, but leaf 0DH up to 1,360 (the same message): so CPUID is judged by its cheapest leaf, for either all
//! leaves exit or none (Intel SDM volume 3C, 26.1.2; AMD APM volume 2, 15.9). The time stamp counter counts at the base
//! frequency, so that a tick is one to two cycles.

/// What an operation's cost says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The CPU does it alone; or, of a clock, the vDSO does.
    Native,
    /// Dearer than natively, cheaper than an exit; of a clock: a system call.
    Between,
    /// Somebody below this kernel is asked: an exit.
    Trapped,
}

impl Label {
    /// The word of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Between => "between",
            Self::Trapped => "trapped",
        }
    }
}

/// What kind of work an operation is, and so what it costs at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// CPUID, RDTSC, RDTSCP, RDPMC. The cost of CPUID is that of its cheapest leaf.
    Instruction,
    /// RDRAND, RDSEED: the generator itself is slow, and slower with the microcode against SRBDS.
    Random,
    /// `clock_gettime` of a clock that tells the time.
    Clock,
    /// `clock_gettime` of a clock that tells how long a thread has run: never in the vDSO, and the scheduler is asked.
    CpuTime,
    /// A system call that does nothing.
    Call,
    /// The first touch of a page.
    Fault,
}

/// An instruction up to this many ticks is the CPU's own work.
const NATIVE_AT_MOST: f64 = 600.0;
/// An instruction from this many ticks has left the guest.
const EXIT_AT_LEAST: f64 = 1000.0;
/// An exit and back under one hypervisor, in ticks: the upper end of the usual.
const EXIT_AT_MOST: f64 = 4000.0;
/// Random numbers: natively 200 to 5,000 ticks by model and microcode.
const RANDOM: (f64, f64) = (5000.0, 20_000.0);
/// A null system call: 100 to 3,000 ticks by model and mitigations; from there on somebody watches system calls.
const CALL: (f64, f64) = (3000.0, 6000.0);
/// A page fault in null system calls: 2 to 12 for the exception, the handling and a page to be cleared.
const FAULT: (f64, f64) = (12.0, 24.0);
/// A thread's time in null system calls: natively 2 to 5.
const CPU_TIME: f64 = 6.0;
/// A clock in null system calls: the vDSO needs less than half of one, a call one and more.
const VDSO_AT_MOST: f64 = 0.6;

/// The label of a cost in ticks beside that of a null system call, and why.
pub(super) fn judge(kind: Kind, ticks: f64, call: f64, guest: bool) -> (Label, String) {
    let calls = if call > 0.0 { ticks / call } else { 0.0 };
    match kind {
        Kind::Instruction => instruction(ticks, guest),
        Kind::Random => within(ticks, RANDOM, "ticks", "the generator alone needs 200 to 5,000"),
        Kind::Call => {
            within(ticks, CALL, "ticks", "a call that does nothing needs 100 to 3,000, by model and mitigations")
        }
        Kind::Fault => within(calls, FAULT, "null system calls", "a fault and a page to be cleared need 2 to 12"),
        Kind::Clock if calls <= VDSO_AT_MOST => (Label::Native, format!("vDSO: {calls:.2} of a null system call")),
        Kind::Clock if ticks < call + EXIT_AT_LEAST => {
            (Label::Between, format!("system call: {calls:.1} times a null one"))
        }
        Kind::CpuTime if calls < CPU_TIME => {
            (Label::Between, format!("system call: {calls:.1} times a null one, for the scheduler's account"))
        }
        Kind::Clock | Kind::CpuTime => {
            let ticks = thousands(ticks);
            (Label::Trapped, format!("{ticks} ticks, {calls:.1} null system calls: reading the clock source exits"))
        }
    }
}

fn instruction(ticks: f64, guest: bool) -> (Label, String) {
    let label = between(ticks, (NATIVE_AT_MOST, EXIT_AT_LEAST));
    let dear = ticks > EXIT_AT_MOST;
    let ticks = thousands(ticks);
    let why = match label {
        Label::Native => format!("{ticks} ticks: no exit is that cheap"),
        Label::Between => format!("{ticks} ticks: dear for the CPU alone, cheap for an exit (1,000 to 4,000)"),
        Label::Trapped if !guest => format!("{ticks} ticks: costs like an exit, but CPUID shows no hypervisor"),
        Label::Trapped if dear => {
            format!("{ticks} ticks: dearer than one exit (1,000 to 4,000), as where a hypervisor runs under another")
        }
        Label::Trapped => format!("{ticks} ticks: an exit and back needs 1,000 to 4,000"),
    };
    (label, why)
}

/// `12,688`
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn between(cost: f64, (native, trapped): (f64, f64)) -> Label {
    match cost {
        cost if cost <= native => Label::Native,
        cost if cost < trapped => Label::Between,
        _ => Label::Trapped,
    }
}

fn within(cost: f64, bounds: (f64, f64), unit: &str, usual: &str) -> (Label, String) {
    let digits = usize::from(cost < 100.0);
    (between(cost, bounds), format!("{cost:.digits$} {unit}: {usual}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(kind: Kind, ticks: f64) -> Label {
        judge(kind, ticks, 500.0, true).0
    }

    #[test]
    fn costs_that_were_seen_get_the_right_label() {
        // CPUID on bare metal, under one KVM, under two.
        assert_eq!(label(Kind::Instruction, 110.0), Label::Native);
        assert_eq!(label(Kind::Instruction, 1250.0), Label::Trapped);
        assert_eq!(label(Kind::Instruction, 17_000.0), Label::Trapped);
        assert_eq!(label(Kind::Instruction, 800.0), Label::Between);
        // The clock by the vDSO, as a system call, and from the ACPI timer.
        assert_eq!(label(Kind::Clock, 75.0), Label::Native);
        assert_eq!(label(Kind::Clock, 560.0), Label::Between);
        assert_eq!(label(Kind::Clock, 4000.0), Label::Trapped);
        assert_eq!(label(Kind::CpuTime, 1700.0), Label::Between);
        assert_eq!(label(Kind::Fault, 2000.0), Label::Native);
        assert_eq!(label(Kind::Random, 2400.0), Label::Native);
    }

    #[test]
    fn a_dearer_operation_is_never_labelled_cheaper() {
        let order = |label| [Label::Native, Label::Between, Label::Trapped].iter().position(|&known| known == label);
        for kind in [Kind::Instruction, Kind::Random, Kind::Clock, Kind::CpuTime, Kind::Call, Kind::Fault] {
            let labels: Vec<_> = (0..4000).map(|step| order(label(kind, f64::from(step) * 10.0))).collect();
            assert!(labels.is_sorted(), "{kind:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(judge(Kind::Instruction, 2000.0, 500.0, false).1.contains("no hypervisor"));
        assert!(judge(Kind::Instruction, 17_000.0, 500.0, true).1.contains("under another"));
        assert_eq!(thousands(12_688.4), "12,688");
        assert_eq!((thousands(999.0), thousands(1_000_000.0)), ("999".to_owned(), "1,000,000".to_owned()));
        assert_eq!(judge(Kind::Clock, 75.0, 0.0, true).0, Label::Native);
    }
}
