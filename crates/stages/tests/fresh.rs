//! What `cargo xtask lab` booted, replayed: vendors of no CPU, limits of leaves, bare metal, features taken away by
//! `-cpu` and by the command line, which nobody had captured when the rules were written.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_formats::lab;
use cpusieve_model::{FlagList, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::{Input, Unlisted, boot};

/// Words that a kernel prints and that the tree which stands for it cannot know: capture, line, words, why.
const KNOWN: [(&str, &str, &[&str], &str); 1] = [(
    "q7.2-k6.17-Skylake-Client_hypervisor=off",
    "bugs",
    &["vmscape"],
    "6.17.13 has VMSCAPE; its nearest tree is 6.16.1, which does not",
)];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-lab")
}

/// Every capture, as the laboratory wrote it.
fn captures() -> Vec<lab::Capture> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    paths.sort();
    paths.iter().map(|path| capture(path)).collect()
}

fn capture(path: &Path) -> lab::Capture {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let mut capture = lab::capture(&path.file_name().unwrap().to_string_lossy(), &bytes);
    assert_eq!(capture.parsed.diagnostics, [], "{}", path.display());
    let linux = capture.parsed.snapshot.linux.as_mut().unwrap();
    linux.config = linux.release.as_deref().map(config);
    capture
}

/// What a captured kernel was built with.
fn config(release: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join(format!("configs/{release}.config"))).unwrap();
    let options = text.lines().filter_map(|line| line.split_once('='));
    options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect()
}

/// The lines that differ between the kernel's words and ours.
fn differences(capture: &lab::Capture) -> Vec<String> {
    let snapshot = &capture.parsed.snapshot;
    let release = snapshot.linux.as_ref().unwrap().release.as_deref().unwrap();
    let tree = Machine::new("guest", snapshot).kernel.standing_for(release);
    let input = Input { unlisted: Unlisted::Zero, ..Input::of_snapshot("guest", Stage::Guest, snapshot).unwrap() };
    let output = boot(&input, tree);
    let cpuinfo = snapshot.cpus[0].cpuinfo.as_ref().unwrap();
    let lines = [
        ("flags", &cpuinfo.flags, &output.flags),
        ("bugs", &cpuinfo.bugs, &output.bugs),
        ("vmx flags", &cpuinfo.vmx_flags, &output.vmx_flags),
    ];
    let differing = lines.into_iter().filter_map(|(line, seen, predicted)| {
        let mut seen: Vec<&str> = seen.iter().flat_map(FlagList::iter).collect();
        let known = KNOWN.iter().find(|known| (known.0, known.1) == (capture.setup.id.as_str(), line));
        if let Some((.., words, why)) = known {
            eprintln!("{}: known: {line}: {words:?}: {why}", capture.setup.id);
            // The day that a tree knows them, the row has to go.
            assert!(words.iter().all(|word| seen.contains(word) && !predicted.contains(word)), "{words:?} are known");
            seen.retain(|word| !words.contains(word));
        }
        (seen != *predicted).then(|| format!("{}: {line}: {seen:?}, predicted {predicted:?}", capture.setup.id))
    });
    differing.collect()
}

#[test]
fn fresh_boots_print_what_is_predicted() {
    let captures = captures();
    let wrong: Vec<String> = captures.iter().flat_map(differences).collect();
    let kernels: BTreeSet<&str> = captures.iter().map(|capture| capture.setup.kernel.as_str()).collect();
    let known = KNOWN.len();
    eprintln!(
        "{} boots of {} kernels; {known} lines differ as known, {} otherwise",
        captures.len(),
        kernels.len(),
        wrong.len()
    );
    assert!(captures.len() >= 30 && kernels.len() >= 3);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
