//! The lines of `/proc/cpuinfo`, word by word.

use std::collections::BTreeMap;

use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{Cpuinfo, FlagList, Snapshot};
use cpusieve_stages::linux::boot::Output;

use super::Mismatch;
use crate::predict::{Assumption, Kernel, predict};

/// The lines that are compared.
pub(super) const LINES: [&str; 3] = ["flags", "bugs", "vmx flags"];

/// One word of one line that one side alone has; an empty word stands for the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Odd {
    pub line: &'static str,
    pub word: String,
    /// Whether the kernel prints it, and the prediction does not.
    pub real: bool,
}

/// What a kernel printed, line by line; a line that is not there has no words.
fn printed<'a>(cpuinfo: &'a Cpuinfo, line: &str) -> Vec<&'a str> {
    let line = match line {
        "flags" => &cpuinfo.flags,
        "bugs" => &cpuinfo.bugs,
        _ => &cpuinfo.vmx_flags,
    };
    line.iter().flat_map(FlagList::iter).collect()
}

/// What a prediction prints.
fn made<'a>(output: &'a Output, line: &str) -> &'a [&'static str] {
    match line {
        "flags" => &output.flags,
        "bugs" => &output.bugs,
        _ => &output.vmx_flags,
    }
}

/// How many words there are to compare.
pub(super) fn count(cpuinfo: &Cpuinfo) -> usize {
    LINES.iter().map(|line| printed(cpuinfo, line).len()).sum()
}

/// The words that differ.
pub(super) fn odd(output: &Output, cpuinfo: &Cpuinfo) -> Vec<Odd> {
    let mut odd = Vec::new();
    for line in LINES {
        let (made, seen) = (made(output, line), printed(cpuinfo, line));
        if made == seen {
            continue;
        }
        let before = odd.len();
        let only_seen = seen.iter().filter(|word| !made.contains(word)).map(|word| (*word, true));
        let only_made = made.iter().filter(|word| !seen.contains(word)).map(|word| (*word, false));
        odd.extend(only_seen.chain(only_made).map(|(word, real)| Odd { line, word: word.to_owned(), real }));
        if odd.len() == before {
            odd.push(Odd { line, word: String::new(), real: true });
        }
    }
    odd
}

/// One mismatch for each odd word, with the CPUs on which it is odd behind it, if these are not all.
pub(super) fn mismatches(odd: &BTreeMap<Odd, Vec<u32>>, cpus: usize, cause: impl Fn(&Odd) -> String) -> Vec<Mismatch> {
    let mismatch = |(odd, on): (&Odd, &Vec<u32>)| {
        let printed = |is: bool| is.then(|| "printed".to_owned());
        let numbers: Vec<String> = on.iter().take(8).map(u32::to_string).collect();
        let on = if on.len() == cpus { String::new() } else { format!(" on CPU {}", numbers.join(",")) };
        let cause = cause(odd);
        if odd.word.is_empty() {
            let what = format!("{}: the same words in another order{on}", odd.line);
            return Mismatch { what, predicted: None, real: None, features: Vec::new(), cause };
        }
        let what = format!("{}: {}{on}", odd.line, odd.word);
        Mismatch {
            what,
            predicted: printed(!odd.real),
            real: printed(odd.real),
            features: vec![odd.word.clone()],
            cause,
        }
    };
    odd.iter().map(mismatch).collect()
}

/// The kernels that could have printed a line: what each prints on the same CPU.
pub(super) struct Others(Vec<(&'static str, Output)>);

impl Others {
    /// All trees but `tree`, on the first CPU of a snapshot.
    pub(super) fn of(snapshot: &Snapshot, kernel: &Kernel<'_>, tree: usize) -> Self {
        let others = TREES.iter().enumerate().filter(|(other, _)| *other != tree);
        let boots = others.filter_map(|(_, other)| {
            let kernel = Kernel { release: Some(other.label), ..*kernel };
            Some((other.label, predict(snapshot, &kernel).ok()?.boot))
        });
        Self(boots.collect())
    }

    /// The likely cause of an odd word.
    pub(super) fn cause(&self, odd: &Odd, assumed: &[Assumption]) -> String {
        let word = odd.word.as_str();
        let hangs = assumed.iter().find(|assumed| assumed.hangs.contains(&word));
        if let Some(assumed) = hangs {
            return format!(
                "it hangs on {}, which was assumed to be {}: {}",
                assumed.what, assumed.value, assumed.because
            );
        }
        let agrees = |output: &Output| !word.is_empty() && made(output, odd.line).contains(&word) == odd.real;
        match self.0.iter().find(|(_, output)| agrees(output)) {
            Some((label, _)) => format!("Linux {label} would print it so: this kernel may carry patches of it"),
            None => "no known kernel prints it so: this one is patched, or our knowledge of it is wrong".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_side_and_another_order_are_told() {
        let mut output = Output::default();
        (output.flags, output.bugs) = (vec!["fpu", "vme", "de"], vec!["spectre_v1"]);
        let lines = |flags: &str, bugs: &str| Cpuinfo {
            flags: Some(FlagList::from_line(flags)),
            bugs: Some(FlagList::from_line(bugs)),
            ..Cpuinfo::default()
        };
        assert_eq!(odd(&output, &lines("fpu vme de", "spectre_v1")), []);
        let differ = odd(&output, &lines("fpu de avx", "spectre_v1"));
        let words: Vec<_> = differ.iter().map(|odd| (odd.word.as_str(), odd.real)).collect();
        assert_eq!(words, [("avx", true), ("vme", false)]);
        let order = odd(&output, &lines("vme fpu de", "spectre_v1"));
        assert_eq!((order.len(), order[0].word.as_str()), (1, ""));
        let found = mismatches(&BTreeMap::from([(differ[0].clone(), vec![1])]), 2, |_| String::new());
        assert_eq!((found[0].what.as_str(), found[0].real.as_deref()), ("flags: avx on CPU 1", Some("printed")));
    }
}
