//! Real boots of real kernels, replayed: from the CPUID that the kernel saw to the lines that it printed.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::PathBuf;

use cpusieve_formats::lab;
use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::rule;
use cpusieve_model::{CpuidTable, Effect, FlagList, MsrTable, Registers, Snapshot, Stage};
use cpusieve_stages::Machine;
use cpusieve_stages::linux::boot::{Input, Output, Unlisted, boot};

/// One captured boot.
struct Capture {
    name: String,
    text: String,
    snapshot: Snapshot,
}

/// The boots of a folder that came up; panics that were captured too are left out.
fn captures(folder: &str) -> Vec<Capture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    paths.sort();
    let read = paths.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_end(&mut bytes).unwrap();
        let mut snapshot = lab::capture(&name, &bytes).parsed.snapshot;
        if let Some(linux) = &mut snapshot.linux {
            linux.config = linux.release.as_deref().map(config);
        }
        Capture { snapshot, name, text: String::from_utf8(bytes).unwrap() }
    });
    read.filter(|capture| capture.snapshot.flags().is_some()).collect()
}

/// What is kept of the configuration of a captured kernel.
fn config(release: &str) -> BTreeMap<String, String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-tcg/configs");
    let text = std::fs::read_to_string(folder.join(format!("{release}.config"))).unwrap();
    let options = text.lines().filter_map(|line| line.split_once('='));
    options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect()
}

/// The tree of a capture.
fn tree(snapshot: &Snapshot) -> usize {
    let release = snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref()).unwrap();
    Machine::new("guest", snapshot).kernel.standing_for(release)
}

/// What the capture says of its CPU and kernel.
fn input(snapshot: &Snapshot) -> Input<'_> {
    // The captures list MSRs that are not zero, and both emulators answer zero for MSRs that they do not know.
    Input { unlisted: Unlisted::Zero, ..Input::of_snapshot("guest", Stage::Guest, snapshot).unwrap() }
}

/// Words that only one of two lists has; none if they are the same words in the same order.
fn difference(line: &str, seen: Option<&FlagList>, predicted: &[&str]) -> Option<String> {
    let seen: Vec<&str> = seen.into_iter().flat_map(FlagList::iter).collect();
    if seen == predicted {
        return None;
    }
    let only = |these: &[&str], those: &[&str]| {
        these.iter().filter(|word| !those.contains(word)).map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    Some(format!("{line}: kernel alone [{}] predicted alone [{}]", only(&seen, predicted), only(predicted, &seen)))
}

/// Counts exact lines of all boots of a folder; prints every difference.
fn replay(folder: &str) -> (usize, [usize; 3]) {
    let captures = captures(folder);
    let mut exact = [0; 3];
    for capture in &captures {
        let tree = tree(&capture.snapshot);
        let output = boot(&input(&capture.snapshot), tree);
        let cpuinfo = capture.snapshot.cpus[0].cpuinfo.as_ref().unwrap();
        let lines = [
            ("flags", cpuinfo.flags.as_ref(), &output.flags),
            ("bugs", cpuinfo.bugs.as_ref(), &output.bugs),
            ("vmx flags", cpuinfo.vmx_flags.as_ref(), &output.vmx_flags),
        ];
        for (count, (line, seen, predicted)) in exact.iter_mut().zip(lines) {
            match difference(line, seen, predicted) {
                None => *count += 1,
                Some(difference) => eprintln!("{} ({}): {difference}", capture.name, linux::TREES[tree].label),
            }
        }
    }
    eprintln!(
        "{folder}: {} boots; exact flags {}, bugs {}, vmx flags {}",
        captures.len(),
        exact[0],
        exact[1],
        exact[2]
    );
    (captures.len(), exact)
}

#[test]
fn emulated_virtual_machines_print_what_is_predicted() {
    let (boots, exact) = replay("guests-tcg");
    assert_eq!(exact, [boots; 3]);
}

#[test]
fn emulated_bare_metal_prints_what_is_predicted() {
    let (boots, exact) = replay("guests-bochs");
    assert_eq!(exact, [boots; 3]);
}

/// The same boots with nothing known but CPUID: what comes out otherwise is a flag that hangs on a listed assumption.
#[test]
fn what_was_not_seen_is_assumed_and_listed() {
    let (mut boots, mut exact, mut wrong) = (0, 0, Vec::new());
    for capture in captures("guests-tcg").into_iter().chain(captures("guests-bochs")) {
        let nothing = MsrTable::default();
        let full = input(&capture.snapshot);
        let bare =
            Input { msrs: &nothing, unlisted: Unlisted::NotSeen, microcode: None, cmdline: None, config: None, ..full };
        let output = boot(&bare, tree(&capture.snapshot));
        let hangs: Vec<&str> = output.assumed.iter().flat_map(|assumption| assumption.hangs.iter().copied()).collect();
        let seen = capture.snapshot.flags().unwrap();
        let differs = |name: &&str| seen.contains(name) != output.flags.contains(name);
        let both = seen.iter().chain(output.flags.iter().copied());
        let differing: Vec<&str> = both.filter(differs).collect();
        boots += 1;
        exact += usize::from(differing.is_empty());
        // Parameters that clear or force any feature whatever are no assumption about this feature.
        let cmdline = full.cmdline.unwrap_or_default();
        if cmdline.contains("clearcpuid=") || cmdline.contains("setcpuid=") {
            continue;
        }
        let unlisted: Vec<&str> = differing.into_iter().filter(|name| !hangs.contains(name)).collect();
        if !unlisted.is_empty() {
            wrong.push(format!("{}: {unlisted:?}", capture.name));
        }
    }
    eprintln!("from CPUID alone: {exact} of {boots} flags lines exact");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a file of `/sys/devices/system/cpu/vulnerabilities` said.
fn vulnerability<'a>(capture: &'a Capture, file: &str) -> &'a str {
    let files = capture.text.split_once("\"vulnerabilities\"").map_or("", |(_, rest)| rest);
    let files = files.split_once('}').map_or("", |(files, _)| files);
    let value = files.split_once(&format!("\"{file}\": \"")).map_or("", |(_, rest)| rest);
    value.split_once('"').map_or("", |(value, _)| value)
}

/// Capabilities that mitigations make are never printed; what the kernel says of its mitigations betrays them.
#[test]
fn hidden_capabilities_agree_with_what_the_kernel_says_of_its_mitigations() {
    // The file, words in it, the capability that is there if and only if the words are.
    const TELLTALES: [(&str, &str, &str); 11] = [
        ("spectre_v2", "Mitigation: Retpolines", "retpoline"),
        ("spectre_v2", "Mitigation: IBRS", "kernel_ibrs"),
        ("spectre_v2", "RSB filling", "rsb_ctxsw"),
        ("spectre_v2", "PBRSB-eIBRS: SW sequence", "rsb_vmexit_lite"),
        ("spectre_v2", "IBRS_FW", "use_ibrs_fw"),
        ("spectre_v2", "BHI: SW loop", "clear_bhb_loop"),
        ("spec_rstack_overflow", "afe RET", "srso"),
        ("mds", "Clear CPU buffers", "clear_cpu_buf"),
        ("retbleed", "untrained return thunk", "unret"),
        ("indirect_target_selection", "Aligned branch/return thunks", "rethunk"),
        ("l1tf", "PTE Inversion", "l1tf_pteinv"),
    ];
    let (mut agree, mut wrong) = (0, Vec::new());
    for capture in captures("guests-tcg").into_iter().chain(captures("guests-bochs")) {
        let output = boot(&input(&capture.snapshot), tree(&capture.snapshot));
        let open = |id: &str| output.steps.iter().any(|step| step.feature == id && step.effect == Effect::Unknown);
        for (file, words, id) in TELLTALES {
            let says = vulnerability(&capture, file);
            let affected = !says.is_empty() && says != "Not affected" && !open(id);
            // Another weakness may have brought the same capability.
            let has = output.hidden.contains(&id) || id == "srso" && output.hidden.contains(&"srso_alias");
            match (affected, says.contains(words) == has) {
                (false, _) => {}
                (true, true) => agree += 1,
                (true, false) => wrong.push(format!("{}: {id} {has}, but {file} says {says}", capture.name)),
            }
        }
    }
    eprintln!("{agree} hidden capabilities agree");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Laws of the steps, on every boot: a printed flag has a step, a step has a rule and a cite, and says what happened.
#[test]
fn every_flag_has_a_cause_and_every_cause_a_cite() {
    for capture in captures("guests-tcg").into_iter().chain(captures("guests-bochs")) {
        let output = boot(&input(&capture.snapshot), tree(&capture.snapshot));
        laws(&capture.name, &output);
    }
}

fn laws(name: &str, output: &Output) {
    let present = |effect: Effect| matches!(effect, Effect::Kept | Effect::Added | Effect::Forced);
    let has: BTreeSet<&str> =
        output.steps.iter().filter(|step| present(step.effect)).map(|step| step.feature.as_ref()).collect();
    for flag in &output.flags {
        let known = linux::by_shown(flag).any(|feature| has.contains(feature.id()));
        assert!(known, "{name}: no step explains {flag}");
    }
    for step in &output.steps {
        assert!(!step.cite.function().is_empty(), "{name}: {} has no cite", step.feature);
        assert!(rule(step.rule.0).is_some(), "{name}: {} has no rule", step.rule);
    }
    let shown: BTreeSet<&str> = output.flags.iter().copied().collect();
    assert_eq!(shown.len(), output.flags.len(), "{name}: a flag is printed twice");
}

/// Contradictory and random CPUID: no panic, and the laws hold.
#[test]
fn garbage_is_booted_without_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32
    };
    let vendors = [
        (0x756e_6547, 0x6c65_746e, 0x4965_6e69),
        (0x6874_7541, 0x444d_4163, 0x6974_6e65),
        (0x6f67_7948, 0x656e_6975, 0x6e65_476e),
        (0x746e_6543, 0x736c_7561, 0x4872_7561),
        (0x6853_2020, 0x2020_6961, 0x6867_6e61),
        (0, 0, 0),
    ];
    for round in 0..400_usize {
        let mut table = CpuidTable::default();
        for leaf in
            (0..0x25).chain(0x4000_0000..0x4000_0003).chain(0x8000_0000..0x8000_0027).chain(0xc000_0000..0xc000_0002)
        {
            for subleaf in 0..2 {
                if !random().is_multiple_of(8) {
                    table.insert(
                        leaf,
                        subleaf,
                        Registers { eax: random(), ebx: random(), ecx: random(), edx: random() },
                    );
                }
            }
        }
        let (ebx, ecx, edx) = vendors[round % vendors.len()];
        if !random().is_multiple_of(16) {
            table.insert(0, 0, Registers { eax: random() % 0x30, ebx, ecx, edx });
            table.insert(0x8000_0000, 0, Registers { eax: 0x8000_0000 | (random() % 0x30), ..Registers::default() });
        }
        let msrs = MsrTable::default();
        let cmdline =
            ["clearcpuid=avx2,514,99999,\u{e9}\u{e9},,x", "pti=on setcpuid=cpu_meltdown,77 tsx=on", ""][round % 3];
        let input = Input {
            of: "host",
            at: Stage::Host,
            cpuid: &table,
            msrs: &msrs,
            unlisted: Unlisted::NotSeen,
            microcode: None,
            cmdline: Some(cmdline),
            config: None,
        };
        for tree in 0..linux::TREES.len() {
            laws("garbage", &boot(&input, tree));
        }
    }
}

/// Other people's dumps of real silicon, booted as hosts: nobody knows what their kernels printed, but the laws hold.
#[test]
fn dumps_of_real_silicon_keep_the_laws() {
    let root = std::env::var("CPUSIEVE_SHARED")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join("corpus/instlatx64");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is missing (CPUSIEVE_SHARED names another place)", folder.display());
        return;
    };
    let trees = ["4.14", "5.10", "6.1", "6.12", "7.3"].map(|label| linux::nearest(label).tree);
    let mut dumps = 0;
    let vendors = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = vendors.flat_map(|vendor| std::fs::read_dir(vendor).unwrap().map(|entry| entry.unwrap().path()));
    for path in files.filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let snapshot = cpusieve_formats::read(&name, &std::fs::read(&path).unwrap()).snapshot;
        let Some(input) = Input::of_snapshot("host", Stage::Host, &snapshot) else { continue };
        dumps += 1;
        for tree in trees {
            let output = boot(&input, tree);
            laws(&name, &output);
            let virtual_cpu = input.cpuid.get(1, 0).is_some_and(|leaf| leaf.ecx >> 31 == 1);
            assert_eq!(output.flags.contains(&"hypervisor"), virtual_cpu, "{name}");
        }
    }
    eprintln!("{dumps} dumps, {} kernels each", trees.len());
}
