//! Whether a machine has what is asked of it: for monitoring, one line and one status.

use cpusieve_knowledge::x86;
use cpusieve_stages::Machine;

use crate::key;
use crate::models::Level;

/// What a machine must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Features, in any system's spelling.
    pub features: Vec<String>,
    /// A level of x86-64.
    pub level: Option<Level>,
    /// Features that it should have; where they are missing, a warning is enough.
    pub preferred: Vec<String>,
}

/// How a check ended, by the words of monitoring plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Everything is there.
    Ok,
    /// Something is missing that was only preferred.
    Warning,
    /// Something is missing that was wanted.
    Critical,
    /// It could not be checked.
    Unknown,
}

impl Status {
    /// The word at the beginning of the line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// Wanted features that are missing, as they were spelled; a level counts as one.
    pub missing: Vec<String>,
    /// Preferred features that are missing.
    pub less: Vec<String>,
    /// How many were asked for, levels included.
    pub asked: usize,
    /// The highest level of x86-64 here.
    pub level: Option<Level>,
}

/// Names that no system uses: nothing can be said then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no system calls a feature {}", .0.join(" or "))]
pub struct Unheard(pub Vec<String>);

/// Checks a machine.
///
/// A feature counts as there if the kernel shows it, or if CPUID has it and no kernel prints it.
///
/// # Errors
///
/// Names that no system uses.
pub fn check(machine: &Machine<'_>, wanted: &Wanted) -> Result<Answer, Unheard> {
    let names = || wanted.features.iter().chain(&wanted.preferred);
    let unheard: Vec<String> = names().filter(|name| x86::resolve(name).is_empty()).cloned().collect();
    if !unheard.is_empty() {
        return Err(Unheard(unheard));
    }
    let lacks = |name: &&String| !x86::resolve(name).iter().any(|feature| key::has(machine, feature));
    let mut missing: Vec<String> = wanted.features.iter().filter(lacks).cloned().collect();
    let less: Vec<String> = wanted.preferred.iter().filter(lacks).cloned().collect();
    let level = key::level(machine);
    missing.extend(wanted.level.filter(|&wanted| level < Some(wanted)).map(|level| level.name().to_owned()));
    let status = match () {
        () if !missing.is_empty() => Status::Critical,
        () if !less.is_empty() => Status::Warning,
        () => Status::Ok,
    };
    Ok(Answer { status, missing, less, asked: names().count() + usize::from(wanted.level.is_some()), level })
}

#[cfg(test)]
mod tests {
    use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot};

    use super::*;

    fn line(flags: &str) -> Snapshot {
        let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
        Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() }
    }

    fn ask(wanted: &Wanted) -> Result<Answer, Unheard> {
        let snapshot = line("fpu tsc msr cx8 cmov mmx fxsr sse sse2 syscall lm cpuid pni aes");
        check(&Machine::new("host", &snapshot), wanted)
    }

    fn wanted(features: &[&str], preferred: &[&str], level: Option<Level>) -> Wanted {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Wanted { features: owned(features), preferred: owned(preferred), level }
    }

    #[test]
    fn what_is_missing_decides_the_status() {
        let ok = ask(&wanted(&["aes", "SSE3"], &[], Some(Level::V1))).unwrap();
        assert_eq!((ok.status, ok.asked), (Status::Ok, 3));
        let bad = ask(&wanted(&["aes", "avx2"], &["sha-ni"], Some(Level::V2))).unwrap();
        assert_eq!(bad.status, Status::Critical);
        assert_eq!(
            (bad.missing, bad.less),
            (vec!["avx2".to_owned(), "x86-64-v2".to_owned()], vec!["sha-ni".to_owned()])
        );
        assert_eq!(ask(&wanted(&[], &["avx2"], None)).unwrap().status, Status::Warning);
    }

    #[test]
    fn unheard_names_are_named() {
        assert_eq!(ask(&wanted(&["aes", "nonsense"], &[], None)), Err(Unheard(vec!["nonsense".to_owned()])));
    }
}
