//! Every model of every version, rebuilt from the tables, equals what the binaries answered; and laws of the tables.
#![allow(clippy::disallowed_methods, reason = "tests read files")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panics and print what they measured")]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use cpusieve_knowledge::qemu::{self, Accelerator, DefaultCpuVersion, MachineKind, MaxMoment, PropertyKind, Word};
use cpusieve_model::{CpuidBit, Place, Register};
use serde_json::{Map, Value};

fn read(folder: &Path, label: &str, accelerator: &str, name: &str) -> Value {
    let file = File::open(folder.join(format!("qemu-{label}-{accelerator}/{name}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A CPU object: feature words, and the other properties by name.
struct Cpu {
    release: usize,
    words: BTreeMap<Word, u64>,
    others: Map<String, Value>,
}

const AVX10: Word = Word::Cpuid { leaf: 7, subleaf: 1, register: Register::Edx };
const AVX10_LENGTHS: Word = Word::Cpuid { leaf: 0x24, subleaf: 0, register: Register::Ebx };
const AVX10_SECOND: Word = Word::Cpuid { leaf: 0x24, subleaf: 1, register: Register::Ecx };
const HYPERVISOR: Place = Place::Cpuid(CpuidBit::new(1, 0, Register::Ecx, 31));

impl Cpu {
    fn new(release: usize) -> Self {
        let mut cpu = Self { release, words: BTreeMap::new(), others: Map::new() };
        for property in qemu::properties(release).filter(|property| !property.max_only) {
            if let Some(default) = property.default {
                cpu.set(property.name, default);
            }
        }
        cpu
    }

    fn or(&mut self, word: Word, bits: u64) {
        *self.words.entry(word).or_default() |= bits;
    }

    fn set(&mut self, name: &str, value: &str) {
        let property = qemu::property(self.release, name).unwrap_or_else(|| panic!("no property {name}"));
        let number = || match value.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).unwrap(),
            None => value.parse().unwrap(),
        };
        let on = || match value {
            "on" | "true" => true,
            "off" | "false" => false,
            _ => panic!("{name}={value}"),
        };
        let value = match property.kind {
            PropertyKind::Feature => {
                for place in qemu::places(self.release, name) {
                    let word = Word::of(place).unwrap();
                    let bit = (0..64).find(|&bit| word.bit(bit) == place).unwrap();
                    let bits = self.words.entry(word).or_default();
                    *bits = if on() { *bits | 1 << bit } else { *bits & !(1 << bit) };
                }
                return;
            }
            PropertyKind::Bool => on().into(),
            PropertyKind::Uint { .. } | PropertyKind::Int { .. } => number().into(),
            PropertyKind::Str | PropertyKind::OnOffAuto => value.into(),
            PropertyKind::Link | PropertyKind::ReadOnly => panic!("{name} cannot be set"),
        };
        if property.name == "avx10-version" {
            self.avx10(u8::try_from(number()).unwrap());
        }
        self.others.insert(property.name.to_owned(), value);
    }

    /// From 11 on, a version brings its features (`x86_cpu_apply_avx10_features`).
    fn avx10(&mut self, version: u8) {
        if qemu::word_exists(self.release, AVX10_SECOND.bit(0)) && version >= 1 {
            self.or(AVX10, 1 << 19);
            self.or(AVX10_LENGTHS, 0x7_0000);
            if version >= 2 {
                self.or(AVX10_SECOND, 1 << 2);
            }
        }
    }

    /// What `x86_cpu_load_model` does for a name under `-M none`, and the accelerator after it.
    fn load(&mut self, name: &str, accelerator: Accelerator) {
        let resolved = qemu::resolve(self.release, name).unwrap();
        let model = resolved.model;
        for (property, number) in [("family", model.family), ("model", model.model), ("stepping", model.stepping)] {
            self.set(property, &number.to_string());
        }
        self.set("model-id", model.model_id);
        self.set("vendor", model.vendor);
        for &(word, bits) in model.words {
            self.or(word, bits);
        }
        self.or(Word::of(HYPERVISOR).unwrap(), 1 << 31);
        if model.avx10_version > 0 {
            self.set("avx10-version", &model.avx10_version.to_string());
        }
        if model.force_cpuid_0x1f {
            self.set("x-force-cpuid-0x1f", "on");
        }
        let machine = qemu::machine(self.release, "none").unwrap();
        let number = resolved.version_on(self.release, machine.default_cpu_version).unwrap();
        let versions = || model.versions(self.release).filter(|version| version.number <= number);
        let mut caches = model.caches.is_some();
        for version in versions() {
            version.properties.iter().for_each(|(property, value)| self.set(property, value));
            caches |= version.caches.is_some();
        }
        self.set("legacy-cache", if caches { "off" } else { "on" });
        for default in qemu::default_properties(self.release, accelerator, machine) {
            // Asked under `-M none`, where the interrupt controller is in the kernel and not split.
            if default.conditions.is_empty() {
                self.set(default.property, default.value);
            }
        }
    }

    fn clear_dependents(&mut self) {
        for row in qemu::dependencies(self.release) {
            let value = |(word, bits)| self.words.get(&word).copied().unwrap_or(0) & bits;
            if value(row.from) == 0 {
                *self.words.entry(row.to.0).or_default() &= !row.to.1;
            }
        }
    }

    fn feature(&self, name: &str) -> bool {
        let mut places = qemu::places(self.release, name);
        places.all(|place| {
            let word = Word::of(place).unwrap();
            (0..64).any(|bit| word.bit(bit) == place && self.words.get(&word).is_some_and(|bits| bits >> bit & 1 == 1))
        })
    }

    /// What differs from QEMU's answer. Levels are left out: expansion raises them by what features need.
    fn differences(&self, answer: &Map<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in answer {
            let Some(property) = qemu::property(self.release, name) else {
                found.push(format!("{name} is unknown"));
                continue;
            };
            let ours = match property.kind {
                PropertyKind::Feature => Some(Value::from(self.feature(name))),
                _ if name.contains("level") => None,
                _ => self.others.get(property.name).cloned(),
            };
            if let Some(ours) = ours.filter(|ours| ours != value) {
                found.push(format!("{name}: {ours} instead of {value}"));
            }
        }
        found
    }
}

#[test]
fn models_equal_the_expansions_of_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (accelerator, kind) in [("tcg", Accelerator::Tcg), ("kvm", Accelerator::Kvm)] {
        for (release, known) in qemu::RELEASES.iter().enumerate() {
            let answers = read(&folder, known.label, accelerator, "expansion-full");
            let answers = answers.as_object().unwrap();
            let special = ["base", "host", "max"];
            let names: BTreeSet<&str> =
                answers.keys().map(String::as_str).filter(|name| !special.contains(name)).collect();
            let ours: Vec<&str> = qemu::cpu_names(release).collect();
            assert_eq!(names.iter().copied().collect::<Vec<_>>(), ours, "{}: names of models", known.label);
            for name in ours {
                let answer = answers[name]["props"].as_object().unwrap();
                let mut cpu = Cpu::new(release);
                cpu.load(name, kind);
                if kind == Accelerator::Kvm {
                    // KVM replaces the vendor with that of the host on which QEMU was asked.
                    cpu.others.remove("vendor");
                }
                cpu.clear_dependents();
                assert_eq!(cpu.differences(answer), Vec::<String>::new(), "{} {accelerator} {name}", known.label);
            }
            println!("{} {accelerator}: {} models, versions and aliases equal", known.label, names.len());
        }
    }
}

#[test]
fn max_equals_the_expansions_of_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (accelerator, kind) in [("tcg", Accelerator::Tcg), ("kvm", Accelerator::Kvm)] {
        for (release, known) in qemu::RELEASES.iter().enumerate() {
            let answers = read(&folder, known.label, accelerator, "expansion-full");
            let answer = answers["max"]["props"].as_object().unwrap();
            let mut cpu = Cpu::new(release);
            let properties = qemu::max_properties(release, kind);
            properties.filter(|row| row.moment == MaxMoment::Init).for_each(|row| cpu.set(row.property, row.value));
            for (name, ours) in &cpu.others {
                // Levels are raised by features; of machine checks KVM decides.
                if !name.contains("level") && name != "lmce" {
                    assert_eq!(Some(ours), answer.get(name), "{} {accelerator} {name}", known.label);
                }
            }
        }
    }
}

#[test]
fn aliases_and_deprecations_equal_the_definitions_of_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        for definition in read(&folder, known.label, "tcg", "cpu-definitions").as_array().unwrap() {
            let name = definition["name"].as_str().unwrap();
            let Some(resolved) = qemu::resolve(release, name) else {
                assert!(["base", "host", "max"].contains(&name), "{} {name}", known.label);
                continue;
            };
            let version = resolved.version_on(release, DefaultCpuVersion::One).unwrap();
            let versioned = format!("{}-v{version}", resolved.model.name);
            let alias = definition.get("alias-of").and_then(Value::as_str);
            assert_eq!(alias, (versioned != name).then_some(versioned.as_str()), "{} {name}", known.label);
            let deprecated = definition["deprecated"].as_bool().unwrap();
            assert_eq!(deprecated, resolved.model.deprecated.is_some(), "{} {name}", known.label);
        }
    }
}

#[test]
fn machines_equal_the_answers_of_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let answers = read(&folder, known.label, "kvm", "machines");
        let answers = answers.as_array().unwrap();
        assert_eq!(qemu::machines(release).count(), answers.len(), "{}", known.label);
        for answer in answers {
            let name = answer["name"].as_str().unwrap();
            let machine = qemu::machine(release, name).unwrap();
            assert_eq!(machine.name, name);
            assert_eq!(u64::from(machine.max_cpus), answer["cpu-max"].as_u64().unwrap(), "{} {name}", known.label);
            assert_eq!(machine.deprecated.is_some(), answer["deprecated"].as_bool().unwrap(), "{} {name}", known.label);
            let cpu = answer.get("default-cpu-type").and_then(Value::as_str);
            let cpu = cpu.map(|cpu| cpu.strip_suffix("-x86_64-cpu").unwrap());
            assert_eq!(machine.default_cpu, cpu, "{} {name}", known.label);
            if let Some(alias) = answer.get("alias").and_then(Value::as_str) {
                assert_eq!(machine.aliases, [alias]);
                assert_eq!(qemu::machine(release, alias), Ok(machine));
            }
        }
    }
}

#[test]
fn properties_equal_those_of_the_binaries() {
    let Some(folder) = shared::folder("facts") else { return };
    for (release, known) in qemu::RELEASES.iter().enumerate() {
        let answers = read(&folder, known.label, "tcg", "properties");
        let names = |class: &str| -> BTreeSet<String> {
            let rows = answers[format!("qom-list-properties:{class}-x86_64-cpu")].as_array().unwrap();
            rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
        };
        for (class, max) in [("max", true), ("qemu64", false)] {
            let theirs = names(class);
            for name in &theirs {
                let property = qemu::property(release, name);
                assert!(property.is_some_and(|property| max || !property.max_only), "{} {name}", known.label);
            }
            for property in qemu::properties(release).filter(|property| max || !property.max_only) {
                // Properties whose name begins so are listed for the device alone, or not at all.
                let hidden = property.name.starts_with("legacy-");
                assert!(theirs.contains(property.name) || hidden, "{} {}", known.label, property.name);
            }
        }
    }
}

#[test]
fn what_tables_name_exists_in_their_releases() {
    for release in 0..qemu::RELEASES.len() {
        let label = qemu::RELEASES[release].label;
        let words: BTreeSet<Word> = qemu::words(release).collect();
        let exists = |name: &str| assert!(qemu::property(release, name).is_some(), "{label}: property {name}");
        for model in qemu::models(release) {
            assert!(model.words.iter().all(|(word, _)| words.contains(word)), "{label} {}", model.name);
            assert_eq!(qemu::model(release, model.name), Some(model));
            assert_eq!(model.vendor.len(), 12, "{}", model.name);
            let numbers: Vec<u8> = model.versions(release).map(|version| version.number).collect();
            let count = u8::try_from(numbers.len()).unwrap();
            assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{label} {}", model.name);
            assert!(count >= 1);
            for version in qemu::versions(release, model.name) {
                version.properties.iter().for_each(|(name, _)| exists(name));
                assert!(version.number > 1 || version.properties.is_empty(), "{label} {}", model.name);
            }
        }
        for machine in qemu::machines(release) {
            for row in qemu::compat(release, machine) {
                // `host-cache-info` is one that only `host` and `max` have.
                exists(row.property);
                let special = ["", "host", "max"].contains(&row.driver);
                // Tables still name a model that 7.2 no longer has.
                let known = (0..=release).any(|release| qemu::resolve(release, row.driver).is_some());
                assert!(special || known, "{label}: CPU {}", row.driver);
            }
            for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
                qemu::default_properties(release, accelerator, machine).for_each(|row| exists(row.property));
            }
        }
        for row in qemu::dependencies(release) {
            assert!(words.contains(&row.from.0) && words.contains(&row.to.0), "{label} {row:?}");
        }
        for area in qemu::ext_save_areas(release) {
            assert!(area.features.iter().all(|&place| qemu::name(release, place).is_some()), "{label} {area:?}");
        }
        for row in qemu::hyperv_properties(release) {
            exists(row.property);
            row.needs.iter().for_each(|name| exists(name));
            assert!(row.description.contains(row.property), "{row:?}");
        }
        let bits: Vec<u8> = qemu::ext_save_areas(release).map(|area| area.bit).collect();
        assert!(bits.is_sorted_by(|a, b| a < b), "{label} {bits:?}");
        let codes: Vec<u8> = qemu::cache_descriptors(release).map(|row| row.code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{label} {codes:?}");
    }
}

#[test]
fn caches_are_consistent() {
    for caches in qemu::CACHES {
        for cache in [caches.l1d, caches.l1i, caches.l2, caches.l3] {
            let size = cache.line_size * cache.partitions * cache.associativity * cache.sets;
            // The sizes of two legacy tables do not follow from their sets, in QEMU's own words a mistake to keep.
            let legacy = caches.name.starts_with("legacy_");
            assert!(size == cache.size || legacy, "{} {cache:?}", caches.name);
        }
    }
    assert_eq!(qemu::LEGACY_INTEL_CACHES.l2.size, 4 << 20);
    assert_eq!(qemu::LEGACY_INTEL_CPUID2_CACHES.l2.size, 2 << 20);
    assert_eq!(qemu::LEGACY_AMD_CACHES.l1d.size, 64 << 10);
}

#[test]
fn names_resolve_as_the_machine_says() {
    for release in 0..qemu::RELEASES.len() {
        let resolve = |name: &str| qemu::resolve(release, name).unwrap();
        assert_eq!(resolve("SandyBridge").version, None);
        assert_eq!(resolve("SandyBridge-IBRS").version, Some(2));
        assert_eq!(resolve("SandyBridge-IBRS").model.name, "SandyBridge");
        assert_eq!(resolve("SandyBridge-v2"), resolve("SandyBridge-IBRS"));
        assert_eq!(qemu::resolve(release, "sandybridge"), None);
        assert_eq!(qemu::resolve(release, "host"), None);
        let on = |name: &str| {
            let machine = qemu::machine(release, name).unwrap();
            resolve("SandyBridge").version_on(release, machine.default_cpu_version)
        };
        assert_eq!((on("q35"), on("pc"), on("microvm"), on("none")), (Some(1), Some(1), Some(2), Some(1)));
        assert_eq!(on("isapc"), None);
    }
}

#[test]
fn old_machines_take_defaults_back() {
    let forced = |release: &str, machine: &str, property: &str| {
        let release = qemu::nearest(release).release;
        let machine = qemu::machine(release, machine).unwrap();
        qemu::default_properties(release, Accelerator::Kvm, machine)
            .any(|row| row.property == property && row.conditions.is_empty())
    };
    assert!(forced("5.2", "pc-i440fx-2.2", "svm") && !forced("5.2", "pc-i440fx-2.1", "svm"));
    assert!(forced("5.2", "pc-i440fx-2.0", "x2apic") && !forced("5.2", "pc-i440fx-1.7", "x2apic"));
    assert!(forced("5.2", "pc-1.3", "kvm-pv-eoi") && !forced("5.2", "pc-1.2", "kvm-pv-eoi"));
}

#[test]
fn compatibility_comes_newest_table_first() {
    let release = qemu::nearest("10.0").release;
    let compat = |name: &str| -> Vec<_> {
        qemu::compat(release, qemu::machine(release, name).unwrap()).map(|row| row.table).collect()
    };
    assert!(compat("q35").is_empty() && compat("microvm").is_empty() && compat("isapc").is_empty());
    assert_eq!(compat("pc-q35-9.1"), []);
    assert_eq!(compat("pc-q35-9.0"), [(9, 0); 4]);
    let old = compat("pc-q35-2.4");
    assert!(old.is_sorted_by(|a, b| a >= b));
    assert_eq!(old.len(), 69, "as many as in the binary");
    let split = qemu::machines(release).filter(|machine| machine.irqchip_split_default);
    let kinds: Vec<MachineKind> = split.map(|machine| machine.kind).collect();
    assert_eq!(kinds, [MachineKind::Q35, MachineKind::Microvm]);
}

#[test]
fn an_unknown_machine_names_the_known_ones() {
    let error = qemu::machine(qemu::nearest("11.1").release, "pc-q35-5.1").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("QEMU 11.1 has no machine type `pc-q35-5.1`; it has pc-i440fx-11.1,"), "{text}");
    assert!(text.contains("pc-q35-5.2"));
}
