//! The QEMU stage against real binaries of 5.2, 7.2, 10.0 and 11.1: warnings, errors and MSRs of every row.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests read files and say what they saw"
)]

mod oracle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cpusieve_knowledge::{qemu, rules};
use cpusieve_model::{Effect, Place};
use cpusieve_stages::qemu::{
    Accelerator, Expansion, Irqchip, Output, PropertyValue, Protected, Question, Refusal, Smp, expansion, realize,
};
use oracle::{hosts, rows};

/// What QEMU prints: warnings, then why it ends.
fn printed(output: &Output) -> Vec<String> {
    let error = output.error.iter().map(ToString::to_string);
    output.warnings.iter().cloned().chain(error).collect()
}

/// Compares every row of a set, and says how the first few differ.
fn messages(set: &str) {
    let mut hosts = hosts();
    hosts.insert("hv-icx".to_owned(), oracle::hyperv_host());
    let (mut all, mut wrong) = (0, 0);
    for row in rows(set) {
        let output = realize(row.question(&hosts));
        all += 1;
        if printed(&output) == row.stderr && output.error.is_some() == row.failed {
            continue;
        }
        wrong += 1;
        if wrong <= 5 {
            eprintln!("{}\n  QEMU: {:#?}\n  here: {:#?}", row.name(), row.stderr, printed(&output));
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} rows of {set} differ");
    eprintln!("{set}: {all} rows");
}

#[test]
fn every_model_says_what_qemu_says() {
    messages("models");
}

#[test]
fn every_option_says_what_qemu_says() {
    messages("opts");
}

#[test]
fn every_machine_type_says_what_qemu_says() {
    messages("mach");
}

#[test]
fn every_topology_says_what_qemu_says() {
    messages("smp");
}

#[test]
fn every_enlightenment_says_what_qemu_says() {
    messages("hv");
}

#[test]
fn every_model_under_tcg_says_what_qemu_says() {
    messages("tcgrom");
}

/// The rows of host `vmx-icx`: `icx-6.1` whose KVM nests.
#[test]
fn every_vmx_msr_is_what_qemu_writes() {
    let mut hosts = hosts();
    let mut host = hosts.remove("icx-6.1").unwrap();
    for entry in host.kvm.supported.iter_mut().flatten().filter(|entry| entry.leaf == 1) {
        entry.registers.ecx |= 1 << 5;
    }
    hosts.insert("vmx-icx".to_owned(), host);
    let (mut all, mut wrong) = (0, 0);
    for row in rows("vmx") {
        let output = realize(row.question(&hosts));
        let written = row.value["msrs"].as_array().unwrap().iter();
        let expected: Vec<(u32, u64)> =
            written.map(|pair| (pair[0].as_u64().unwrap() as u32, pair[1].as_u64().unwrap())).collect();
        let msrs: Vec<(u32, u64)> = output.msrs.clone().into_iter().collect();
        all += 1;
        if printed(&output) != row.stderr || msrs != expected {
            wrong += 1;
            eprintln!(
                "{}\n  QEMU: {:#?} {expected:x?}\n  here: {:#?} {msrs:x?}",
                row.name(),
                row.stderr,
                printed(&output)
            );
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} rows differ");
}

/// The folder of facts that are no part of this repository; `None`, with the reason said, where it is missing.
fn facts() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("CPUSIEVE_SHARED").map_or_else(beside, PathBuf::from);
    let facts = shared.join("facts");
    if facts.is_dir() {
        return Some(facts);
    }
    eprintln!("skipped: no {} (set CPUSIEVE_SHARED)", facts.display());
    None
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&oracle::unpack(path)).unwrap()
}

fn shown(value: &PropertyValue) -> serde_json::Value {
    match value {
        PropertyValue::Bool(on) => (*on).into(),
        PropertyValue::Number(number) => match i64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) => u64::try_from(*number).unwrap().into(),
        },
        PropertyValue::Text(text) => text.as_str().into(),
    }
}

/// Paths of other objects, which say nothing of the CPU.
const NO_FACTS: [&str; 1] = ["memory"];

#[test]
fn every_expansion_is_what_qmp_says() {
    let Some(facts) = facts() else { return };
    let hosts = hosts();
    let host = &hosts["self-pvm"];
    let (mut all, mut wrong) = (0, 0);
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let kvm = Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm };
        for (name, accelerator) in [("tcg", Accelerator::Tcg), ("kvm", kvm)] {
            for (file, kind) in [("full", Expansion::Full), ("static", Expansion::Static)] {
                let folder = facts.join(format!("qemu-{}-{name}", known.label));
                for (model, answer) in json(&folder.join(format!("expansion-{file}.json.gz"))).as_object().unwrap() {
                    let expected = answer["props"].as_object().unwrap();
                    let ours = expansion(release, accelerator, model, kind).unwrap();
                    let mut differ: Vec<String> = Vec::new();
                    for (key, value) in expected.iter().filter(|(key, _)| !NO_FACTS.contains(&key.as_str())) {
                        let own = ours.get(key.as_str()).map(shown);
                        if own.as_ref() != Some(value) {
                            differ.push(format!("{key}: QMP {value}, here {own:?}"));
                        }
                    }
                    differ.extend(
                        ours.keys().filter(|key| !expected.contains_key(**key)).map(|key| format!("{key}: not in QMP")),
                    );
                    all += 1;
                    if !differ.is_empty() {
                        wrong += 1;
                        if wrong <= 12 {
                            eprintln!("{} {name} {model} {file}: {differ:#?}", known.label);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(wrong, 0, "{wrong} of {all} expansions differ");
    eprintln!("{all} expansions");
}

fn question<'a>(host: &'a oracle::Host, label: &str, machine: &str, cpu: &'a str) -> Question<'a> {
    let release = qemu::nearest(label).release;
    let machine = qemu::machine(release, machine).unwrap();
    let accelerator = Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm };
    let (smp, irqchip, protected) = (Smp::default(), Irqchip::of(machine), Protected::default());
    Question { release, machine, accelerator, cpu, smp, cpu_pm: false, irqchip, protected }
}

#[test]
fn steps_say_what_the_table_shows() {
    let hosts = hosts();
    let rules: BTreeMap<_, _> = rules::RULES.iter().map(|rule| (rule.id, rule)).collect();
    for row in ["models", "opts", "mach", "smp"].into_iter().flat_map(rows).filter(|row| !row.failed) {
        let question = row.question(&hosts);
        let output = realize(question);
        for step in output.steps() {
            let Some(Place::Cpuid(bit)) = step.place else { continue };
            let told = output.cpuid.iter().find(|entry| (entry.leaf, entry.subleaf) == (bit.leaf, bit.subleaf));
            let told = told.is_some_and(|entry| entry.registers.get(bit.register) >> bit.bit & 1 == 1);
            assert_eq!(step.effect != Effect::Dropped, told, "{} {step:?}", row.name());
            let rule = rules[&step.rule];
            assert!(rule.trees.contains(row.release), "{} {step:?}", row.name());
        }
    }
}

#[test]
fn steps_name_the_function_that_decided() {
    let hosts = hosts();
    let host = &hosts["spr-6.18"];
    let cases = [
        ("10.0", "q35", "host,+ht", "ht", Effect::Added, "QMU0007"),
        ("10.0", "q35", "Skylake-Server", "avx512_vnni", Effect::Dropped, "QMU0006"),
        ("10.0", "q35", "Skylake-Server,+avx512vnni", "avx512_vnni", Effect::Kept, "QMU0007"),
        ("10.0", "q35", "Skylake-Server,+sse4a", "sse4a", Effect::Dropped, "QMU0005"),
        ("10.0", "q35", "Skylake-Server,+sse4a,x-force-features=on", "sse4a", Effect::Forced, "QMU0017"),
        ("10.0", "q35", "host,-avx2", "avx2", Effect::Dropped, "QMU0008"),
        ("10.0", "q35", "host", "arat", Effect::Kept, "QMU0009"),
        ("10.0", "pc-q35-3.0", "Skylake-Server,check=off", "pku", Effect::Dropped, "QMU0702"),
        ("11.1", "q35", "SapphireRapids-v1", "tsc_adjust", Effect::Dropped, "QMU0016"),
        ("11.1", "q35", "host,kvm=off", "kvmclock", Effect::Dropped, "QMU0019"),
    ];
    for (label, machine, cpu, feature, effect, rule) in cases {
        let steps = realize(question(host, label, machine, cpu)).steps();
        let found = steps.iter().find(|step| step.feature == feature).map(|step| (step.effect, step.rule.0));
        assert_eq!(found, Some((effect, rule)), "{label} {machine} {cpu} {feature}");
    }
}

#[test]
fn refusals_say_where_and_who_knows_better() {
    let hosts = hosts();
    let host = &hosts["spr-6.18"];
    let refusal = |label, cpu| realize(question(host, label, "q35", cpu)).error.unwrap();
    let known = |refusal: &Refusal| {
        let labels = qemu::RELEASES.iter().enumerate().filter(|(release, _)| refusal.known_in.contains(*release));
        labels.map(|(_, release)| release.label).collect::<Vec<_>>()
    };

    let model = refusal("7.2", "SapphireRapids,+avx");
    assert_eq!(model.to_string(), "unable to find CPU model 'SapphireRapids'");
    assert_eq!((model.offset, known(&model)), (Some(0), vec!["10.0", "11.1"]));

    let feature = refusal("5.2", "host,-aes,+avx10");
    assert_eq!(feature.to_string(), "Property 'host-x86_64-cpu.avx10' not found");
    assert_eq!((feature.offset, known(&feature)), (Some(10), vec!["10.0", "11.1"]));

    let typo = refusal("10.0", "host,avx_2=on");
    assert_eq!(
        typo.to_string(),
        "can't apply global host-x86_64-cpu.avx-2=on: Property 'host-x86_64-cpu.avx-2' not found"
    );
    assert_eq!((typo.offset, known(&typo)), (Some(5), vec![]));

    let value = refusal("10.0", "host,pmu=maybe");
    assert_eq!(
        value.to_string(),
        "can't apply global host-x86_64-cpu.pmu=maybe: Parameter 'pmu' expects 'on' or 'off'"
    );
    assert_eq!((value.offset, known(&value)), (Some(5), vec![]));
}

#[test]
fn defaults_are_those_of_the_property_tables() {
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let values = expansion(release, Accelerator::Tcg, "base", Expansion::Full).unwrap();
        for property in qemu::properties(release) {
            let (Some(default), Some(value)) = (property.default, values.get(property.name)) else { continue };
            // Expansion settles the levels.
            if property.name.contains("level") {
                continue;
            }
            let value = match value {
                PropertyValue::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
                PropertyValue::Number(number) => number.to_string(),
                PropertyValue::Text(text) => text.clone(),
            };
            assert_eq!(value, default, "{} {}", known.label, property.name);
        }
    }
}

/// Pieces of `-cpu` that are right, nearly right, and wrong.
const PIECES: [&str; 24] = [
    "host",
    "max",
    "base",
    "EPYC-v4",
    "qemu64",
    "+",
    "-",
    "=",
    ",",
    "_",
    "avx2",
    "vendor",
    "level=0xffffffff",
    "xlevel=-1",
    "phys-bits=99",
    "model-id=\u{e9}\u{e9}",
    "hv-passthrough",
    "hv-vendor-id=\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
    "tsc-freq=9E",
    "avx10-version=255",
    "family=270",
    "lbr-fmt=0x3f",
    "x-force-features=on",
    "\u{0}",
];

#[test]
fn no_text_panics() {
    let hosts = hosts();
    let host = &hosts["spr-6.18"];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % bound as u64) as usize
    };
    let wild = Smp { cpus: u32::MAX, sockets: u32::MAX, dies: 7, modules: 3, cores: u32::MAX, threads: 2 };
    for _ in 0..1000 {
        let mut text: String = PIECES[next(5)].to_owned();
        for _ in 0..next(8) {
            text.push_str(if next(3) == 0 { "" } else { "," });
            text.push_str(PIECES[next(PIECES.len())]);
        }
        for release in 0..qemu::RELEASES.len() {
            let machines: Vec<_> = qemu::machines(release).collect();
            let machine = machines[next(machines.len())];
            let kvm = Accelerator::Kvm { host: &host.cpuid, kvm: &host.kvm };
            let accelerator = if next(2) == 0 { kvm } else { Accelerator::Tcg };
            let irqchip = [Irqchip::Kernel, Irqchip::Split, Irqchip::Off][next(3)];
            let smp = if next(50) == 0 { wild } else { Smp::default() };
            let cpu_pm = next(2) == 0;
            let protected = Protected::default();
            let output =
                realize(Question { release, machine, accelerator, cpu: &text, smp, cpu_pm, irqchip, protected });
            if let Some(offset) = output.error.as_ref().and_then(|error| error.offset) {
                assert!(text.is_char_boundary(offset), "{text}");
            }
            assert!(output.steps().len() < 4096);
        }
    }
}
