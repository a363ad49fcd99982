//! The QEMUs that this machine has, asked live under TCG, which needs no hardware: what every model expands to, and the
//! feature words of a paused vCPU. `CPUSIEVE_QEMU` names more binaries, separated as in `PATH`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cpusieve_answers::models::differences;
use cpusieve_formats::qmp::FeatureWord;
use cpusieve_knowledge::qemu::{self, Fit, RELEASES};
use cpusieve_model::{Place, Register};
use cpusieve_probe::qmp::{Start, survey, vcpu};
use cpusieve_stages::qemu::{Accelerator, Expansion, Irqchip, Protected, Question, Smp, realize};

/// The binaries whose very version the tables were read from, with their release.
fn binaries() -> Vec<(PathBuf, usize)> {
    let mut missing = Vec::new();
    let found = cpusieve_probe::qemu::find(&mut missing).into_iter().map(|qemu| PathBuf::from(qemu.path));
    let named = std::env::var_os("CPUSIEVE_QEMU").unwrap_or_default();
    let named: Vec<PathBuf> = std::env::split_paths(&named).filter(|path| path.is_file()).collect();
    let mut known = Vec::new();
    for path in found.chain(named) {
        let version = match cpusieve_probe::qemu::ask(&path) {
            Ok(version) => version,
            Err(refusal) => {
                eprintln!("skipped: {refusal}");
                continue;
            }
        };
        let nearest = qemu::nearest(&version);
        if nearest.fit == Fit::Same && RELEASES[nearest.release].version == version {
            known.push((path, nearest.release));
        } else {
            eprintln!("skipped: {} is {version}, of which there are no tables", path.display());
        }
    }
    if known.is_empty() {
        eprintln!(
            "skipped: no qemu-system-x86_64 (package qemu-system-x86) that the tables were read from: {missing:?}"
        );
    }
    known
}

#[test]
fn every_model_expands_to_what_is_expected() {
    for (binary, release) in binaries() {
        let told = survey(&Start::new(&binary, "tcg"), None).unwrap_or_else(|error| panic!("{error}"));
        let mut compared = 0;
        for (kind, models) in [(Expansion::Full, &told.full), (Expansion::Static, &told.static_)] {
            for (name, model) in models.iter().filter_map(|(name, model)| Some((name, model.as_ref().ok()?))) {
                let found = differences(release, Accelerator::Tcg, name, kind, model);
                assert!(found.is_empty(), "{}: {}", binary.display(), found.join("\n"));
                compared += 1;
            }
        }
        assert!(told.full.contains_key("max") && compared > 200);
        eprintln!("proved: {} {}: {compared} expansions are what is expected", binary.display(), told.version);
    }
}

/// The registers that are not zero; QEMU tells no subleaf where the leaf does not look at it.
type Words = BTreeMap<(u32, u32, Register), u32>;

fn told(words: &[FeatureWord]) -> Words {
    let words = words.iter().map(|word| ((word.leaf, word.subleaf.unwrap_or(0), word.register), word.bits));
    words.filter(|(_, bits)| *bits != 0).collect()
}

fn expected(places: impl Iterator<Item = Place>) -> Words {
    let mut words = Words::new();
    for bit in places.filter_map(Place::cpuid) {
        *words.entry((bit.leaf, bit.subleaf, bit.register)).or_default() |= 1 << bit.bit;
    }
    words
}

#[test]
fn a_paused_vcpu_has_the_expected_feature_words() {
    const QUESTIONS: [(&str, &str); 6] = [
        ("q35", "max"),
        ("q35", "qemu64"),
        ("pc", "Haswell"),
        ("q35", "EPYC-Rome,-avx2,+x2apic"),
        ("microvm", "SandyBridge"),
        ("q35", "max,migratable=off,-xsave"),
    ];
    for (binary, release) in binaries() {
        for (name, cpu) in QUESTIONS {
            let view =
                vcpu(&Start::new(&binary, "tcg").machine(name).cpu(cpu)).unwrap_or_else(|error| panic!("{error}"));
            let machine = qemu::machine(release, name).unwrap();
            let output = realize(Question {
                release,
                machine,
                accelerator: Accelerator::Tcg,
                cpu,
                smp: Smp::default(),
                cpu_pm: false,
                irqchip: Irqchip::of(machine),
                protected: Protected::default(),
            });
            let what = format!("{} -machine {name} -cpu {cpu}", binary.display());
            assert_eq!(told(&view.features), expected(output.features()), "{what}");
            assert_eq!(told(&view.filtered), expected(output.filtered()), "{what}");
        }
        eprintln!("proved: {} makes {} vCPUs with the expected words", binary.display(), QUESTIONS.len());
    }
}
