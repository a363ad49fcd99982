//! What a boot left behind, in the form that `cpusieve-formats` reads, and whether the prediction equals it.

use std::collections::BTreeMap;
use std::error::Error;

use cpusieve_formats::lab::{self, Setup};
use cpusieve_knowledge::linux;
use cpusieve_model::{FlagList, Snapshot, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::{Input, Unlisted, boot};
use serde_json::{Value, json};

use super::guest::Boot;

/// A boot as JSON.
pub(super) fn json(id: &str, qemu: &str, kernel: &str, cpu: &str, boot: &Boot) -> Value {
    let setup = Setup {
        id: id.to_owned(),
        accel: "tcg".to_owned(),
        emulator: qemu.to_owned(),
        machine: "pc".to_owned(),
        smp: "1".to_owned(),
        cpu: cpu.to_owned(),
        kernel: kernel.to_owned(),
        cmdline: boot.cmdline.clone(),
        warnings: boot.warnings.clone(),
        status: boot.status.clone(),
        ..Setup::default()
    };
    let mut capture = lab::value(&setup, boot.whole.then_some(&boot.sections));
    if let Some(fields) = capture.as_object_mut().filter(|_| !boot.whole) {
        fields.insert("console_tail".to_owned(), json!(boot.console_tail));
    }
    capture
}

/// A prediction beside what the kernel printed.
pub(super) struct Comparison {
    /// The kernel tree that was predicted with.
    pub(super) tree: &'static str,
    /// How many flags the kernel printed.
    pub(super) flags: usize,
    /// One line for each of `flags`, `bugs` and `vmx flags` that differs.
    pub(super) differences: Vec<String>,
}

/// Predicts the guest's lines from a capture's CPUID and MSRs and compares them with those that it holds.
pub(super) fn compare(
    name: &str,
    capture: &[u8],
    config: &BTreeMap<String, String>,
) -> Result<Comparison, Box<dyn Error>> {
    let mut snapshot = lab::capture(name, capture).parsed.snapshot;
    let told = snapshot.linux.as_mut().ok_or("the capture says nothing of its kernel")?;
    told.config = Some(config.clone());
    // An emulator answers zero for MSRs that it does not know, and the kernel may read others than were captured.
    compare_lines(&snapshot, Unlisted::Zero)
}

/// The kernel tree of a snapshot.
pub(super) fn tree(snapshot: &Snapshot) -> Result<usize, Box<dyn Error>> {
    let release = snapshot.linux.as_ref().and_then(|told| told.release.as_deref());
    let named = linux::nearest(release.ok_or("the capture names no kernel")?).tree;
    // A flags line that contradicts the tree that the release names decides: then it is the next one that can print it.
    let candidates = Machine::new("guest", snapshot).trees();
    let possible = (0..linux::TREES.len()).filter(|&tree| candidates.contains(tree));
    Ok(possible.min_by_key(|tree| tree.abs_diff(named)).unwrap_or(named))
}

/// As [`compare`], for a snapshot that has its kernel's configuration.
pub(super) fn compare_lines(snapshot: &Snapshot, unlisted: Unlisted) -> Result<Comparison, Box<dyn Error>> {
    let tree = tree(snapshot)?;
    let input = Input::of_snapshot("guest", Stage::Guest, snapshot).ok_or("the capture holds no CPUID")?;
    let output = boot(&Input { unlisted, ..input }, tree);
    let seen = snapshot.cpus.first().and_then(|cpu| cpu.cpuinfo.as_ref()).ok_or("the capture holds no cpuinfo")?;
    let lines = [
        ("flags", &seen.flags, &output.flags),
        ("bugs", &seen.bugs, &output.bugs),
        ("vmx flags", &seen.vmx_flags, &output.vmx_flags),
    ];
    Ok(Comparison {
        tree: linux::TREES.get(tree).map_or("", |tree| tree.label),
        flags: seen.flags.as_ref().map_or(0, |flags| flags.iter().count()),
        differences: lines
            .iter()
            .filter_map(|(line, seen, predicted)| difference(line, seen.as_ref(), predicted))
            .collect(),
    })
}

/// What differs between a line that was printed and one that was predicted; none if the words and their order agree.
fn difference(line: &str, seen: Option<&FlagList>, predicted: &[&str]) -> Option<String> {
    let seen: Vec<&str> = seen.into_iter().flat_map(FlagList::iter).collect();
    if seen == predicted {
        return None;
    }
    let only = |these: &[&str], those: &[&str]| {
        these.iter().filter(|word| !those.contains(word)).map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let (kernel, prediction) = (only(&seen, predicted), only(predicted, &seen));
    Some(match (kernel.is_empty(), prediction.is_empty()) {
        (true, true) => format!("{line}: the same words in another order"),
        _ => format!("{line}: kernel alone [{kernel}], prediction alone [{prediction}]"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guest(report: &str) -> Vec<u8> {
        let section = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let boot = Boot {
            cmdline: "quiet".to_owned(),
            warnings: Vec::new(),
            status: "ok".to_owned(),
            sections: BTreeMap::from([
                section("release", "6.1.0-56-cloud-amd64\n"),
                section("cmdline", "quiet\n"),
                section("cpuinfo", report),
                section("cpuid", "0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n"),
                section("msrs", "0x0000001b 0x00000000fee00900\n"),
                section("msrs_failed", "0x00000033\n"),
            ]),
            whole: true,
            console_tail: Vec::new(),
            took: Duration::ZERO,
        };
        json("sample", "7.2", "6.1.0-56-cloud-amd64", "max", &boot).to_string().into_bytes()
    }

    #[test]
    fn what_is_written_is_read_without_complaint() {
        let capture = lab::capture("sample", &guest("processor\t: 0\nflags\t\t: fpu\n"));
        assert_eq!(capture.parsed.diagnostics, []);
        assert_eq!(capture.setup.cpu, "max");
        let cpu = &capture.parsed.snapshot.cpus[0];
        assert_eq!((cpu.cpuid.len(), cpu.msrs.len()), (1, 2));
    }

    #[test]
    fn a_difference_names_the_words_of_each_side() {
        let comparison = compare("sample", &guest("processor\t: 0\nflags\t\t: nonsense\n"), &BTreeMap::new()).unwrap();
        assert_eq!(comparison.flags, 1);
        assert!(comparison.differences[0].starts_with("flags: kernel alone [nonsense], prediction alone ["));
    }
}
