//! Pasted errors, as their notes ask: features, places, stage, severity.
//!
//! The messages are other people's, collected from public threads: they are read where they lie and never copied.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests read files and say why they are skipped"
)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use cpusieve_answers::message::fuzz::check;
use cpusieve_answers::message::{Answer, explain};
use cpusieve_formats::message::parse;
use cpusieve_knowledge::messages::{At, LEAVES, MESSAGES, MSRS, Severity};
use cpusieve_knowledge::x86::{self, GENERATIONS};

fn examples() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = env::var_os("CPUSIEVE_SHARED").map_or(beside, PathBuf::from).join("examples/errors");
    folder.is_dir().then_some(folder)
}

fn answer(text: &str) -> Answer {
    explain(&parse(text.as_bytes()), None)
}

fn words(answer: &Answer) -> String {
    let causes = answer.causes.iter().map(|cause| format!("{} {} {}", cause.title, cause.why.join(" "), cause.remedy));
    causes.chain(answer.hints.iter().cloned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn collected_messages_are_answered_as_their_notes_ask() {
    let Some(folder) = examples() else {
        eprintln!("skipped: the collected messages are not here; CPUSIEVE_SHARED names their folder");
        return;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut tally = [0; 4];
    let mut wrong = Vec::new();
    for path in &files {
        let case: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let expect = case["expect"].as_table().unwrap();
        let found = answer(case["text"].as_str().unwrap());
        let list = |key: &str| {
            let mut list: Vec<String> =
                expect[key].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect();
            list.sort();
            list
        };
        let mut features: Vec<String> = found.features().into_iter().map(str::to_owned).collect();
        features.sort();
        let mut bits = found.bits();
        bits.sort();
        let wanted = list("bits");
        let right = [
            features == list("features"),
            wanted.iter().all(|bit| bits.contains(bit)),
            found.stage.name() == expect["stage"].as_str().unwrap(),
            found.severity.name() == expect["severity"].as_str().unwrap(),
        ];
        tally.iter_mut().zip(right).for_each(|(sum, right)| *sum += usize::from(right));
        if right.contains(&false) {
            wrong.push(format!(
                "{}: {features:?} {bits:?} {} {}",
                path.file_name().unwrap().to_string_lossy(),
                found.stage.name(),
                found.severity.name()
            ));
        }
    }
    eprintln!("of {} messages right: features, bits, stage, severity {tally:?}", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pastes_are_answered_as_they_were_when_somebody_looked() {
    let table: toml::Table = include_str!("pastes.toml").parse().unwrap();
    let pastes = table["paste"].as_array().unwrap();
    let mut wrong = Vec::new();
    for paste in pastes {
        let found = answer(paste["text"].as_str().unwrap());
        let wanted: Vec<&str> =
            paste["features"].as_array().unwrap().iter().map(|feature| feature.as_str().unwrap()).collect();
        let right = found.features() == wanted
            && found.stage.name() == paste["stage"].as_str().unwrap()
            && found.severity.name() == paste["severity"].as_str().unwrap();
        if !right {
            let (stage, severity) = (found.stage.name(), found.severity.name());
            wrong.push(format!("{:?}: {:?} {stage} {severity}", paste["name"], found.features()));
        }
    }
    assert!(pastes.len() >= 80 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_trap_line_tells_where_in_which_file() {
    let line = "traps: app[7] trap invalid opcode ip:7f00000213b4 sp:7ffd0 error:0 in libc.so.6";
    for (mapping, said) in [
        ("[7f0000000000+178000]", "libc.so.6, 0x213b4 behind the beginning"),
        ("[493b4,7f0000000000+178000]", "libc.so.6, at offset 0x493b4 of the file"),
    ] {
        let found = answer(&format!("{line}{mapping}"));
        assert!(words(&found).contains(said), "{}", words(&found));
    }
}

#[test]
fn every_row_speaks_of_things_that_are_known() {
    let known =
        |ids: &[&str]| ids.iter().all(|id| id.starts_with('{') || *id == "x86-64-v2" || x86::feature(id).is_some());
    for message in MESSAGES {
        assert!(known(message.features), "{}: {:?}", message.id, message.features);
        assert!(message.tag.is_some() || message.stage != At::ByFeature || message.severity >= Severity::ByFeature);
        let tags = message.with.iter().chain(message.without);
        for tag in tags {
            assert!(MESSAGES.iter().any(|other| other.tag == Some(tag)), "{}: no hint is called {tag}", message.id);
        }
    }
    for msr in MSRS {
        assert!(known(msr.features), "{}: {:?}", msr.name, msr.features);
    }
    for leaf in LEAVES {
        assert!(leaf.feature.is_none_or(|id| x86::feature(id).is_some()), "{:x}", leaf.leaf);
    }
    for brand in cpusieve_knowledge::messages::BRANDS {
        assert!(GENERATIONS.iter().any(|generation| generation.id == brand.generation), "{}", brand.name);
    }
    for class in cpusieve_knowledge::messages::CLASSES {
        assert!(known(class.features), "{}: {:?}", class.name, class.features);
        let group = |title: &&&str| x86::FEATURES.iter().any(|feature| feature.group.title() == **title);
        assert_eq!(class.groups.iter().filter(group).count(), class.groups.len(), "{}: {:?}", class.name, class.groups);
    }
    for feature in x86::FEATURES {
        assert!(cpusieve_knowledge::messages::class(feature).is_some(), "{} is in no class", feature.id);
    }
}

#[test]
fn every_feature_that_qemu_names_is_read_back_from_its_warning() {
    let mut read = 0;
    for (name, bit) in cpusieve_knowledge::qemu::named_bits() {
        let place = match bit.place {
            cpusieve_model::Place::Cpuid(place) => {
                format!(
                    "CPUID[eax={:02X}h,ecx={:02X}h].{}.{name} [bit {}]",
                    place.leaf, place.subleaf, place.register, place.bit
                )
            }
            cpusieve_model::Place::Msr(place) => format!("MSR({:X}H).{name} [bit {}]", place.index, place.bit),
            cpusieve_model::Place::Linux(_) => continue,
        };
        let found = answer(&format!("qemu-kvm: warning: host doesn't support requested feature: {place}"));
        let id = x86::by_place(bit.place).map(|feature| feature.id);
        assert_eq!(found.features().first().copied(), id, "{place}");
        read += 1;
    }
    assert!(read > 300, "{read}");
}

#[test]
fn nothing_is_invented() {
    for text in [
        "",
        "Dear Sir or Madam, is internet access required? A new version is available.",
        "error: failed to set MSR 0x12345678 to 0x0",
        "CPU model 'Foo-v9' not found",
        "traps: a[1] trap invalid opcode ip:1234 sp:0 error:0 in a[1000+1000]",
        "SIGILL: => 0x4011f5 <main+21>: ud2",
        "Code: ff 48 8b 4c 24 20 <0f> 0b 80 4c 24",
        "unhandled rdmsr: 0x1c9",
    ] {
        assert_eq!(answer(text).features(), [""; 0], "{text}");
    }
    let unknown = answer("error: failed to set MSR 0x12345678 to 0x0");
    assert_eq!((unknown.severity, unknown.bits()), (Severity::Fatal, vec!["MSR.0x12345678".to_owned()]));
    assert!(words(&unknown).contains("unknown"));
}

#[test]
fn causes_of_one_paste_stand_apart_the_worst_first() {
    let found = answer(
        "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.vmx [bit 5]\n\
         some other line\n\
         qemu-system-x86_64: error: failed to set MSR 0x10a to 0x1\n",
    );
    let causes: Vec<_> = found.causes.iter().map(|cause| (cause.severity, cause.lines.clone())).collect();
    assert_eq!(causes, [(Severity::Fatal, vec![3]), (Severity::Harmless, vec![1])]);
    assert_eq!((found.lines, found.ignored), (3, 1));
    assert_eq!(found.cpu.as_deref(), Some("host,-arch-capabilities"));
    assert!(words(&found).contains("RDCL_NO"), "{}", words(&found));
}

#[test]
fn a_given_cpu_argument_is_corrected() {
    let found = answer(
        "qemu-system-x86_64 -accel kvm -cpu Haswell-v4 -smp 2\n\
         warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]\n\
         warning: host doesn't support requested feature: CPUID.07H:EBX.rtm [bit 11]\n",
    );
    assert_eq!(found.cpu.as_deref(), Some("Haswell-v4,-hle,-rtm"));
    let xml = found.libvirt.unwrap();
    assert!(xml.contains("<feature policy='disable' name='hle'/>"), "{xml}");
}

#[test]
fn wrappers_do_not_hide_a_message() {
    let plain = answer("guest CPU doesn't match specification: missing features: vaes,fsrm");
    for wrapped in [
        "reason: \"virError(Code=9, Message='operation failed: guest CPU doesn\\'t match specification: missing features: vaes,fsrm')\"",
        "  api call: ''operation failed: guest CPU\n      doesn''t match\n   specification: missing features: vaes,fsrm''",
        "{\"msg\":\"guest CPU doesn\\u0027t match specification: missing features: vaes,fsrm\"}",
        "error: guest CPU doesn’t match specification: missing features: vaes,fsrm",
    ] {
        assert_eq!(answer(wrapped).features(), plain.features(), "{wrapped}");
        assert_eq!(answer(wrapped).stage, plain.stage, "{wrapped}");
    }
}

#[test]
fn with_a_host_the_stages_say_who_took_it() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/examples/hybrid-host.flags");
    let bytes = fs::read(host).unwrap();
    let snapshot = cpusieve_formats::read("host", &bytes).snapshot;
    let machine = cpusieve_stages::Machine::new("host", &snapshot);
    let text = "guest CPU doesn't match specification: missing features: monitor";
    let found = explain(&parse(text.as_bytes()), Some(&machine));
    let (at, why) = found.causes[0].subjects[0].on_host.clone().unwrap();
    assert_ne!(at, "unknown", "{why}");
}

#[test]
fn hostile_pastes_end() {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let pieces = [
        "CPUID[eax=",
        "07h,ecx=",
        "].EBX.",
        " [bit ",
        "MSR(",
        "failed to set MSR 0x",
        "requested feature:",
        "missing features: ",
        ",",
        "Code: ",
        "<0f> ",
        "=> 0x4011f5 <f+1>: ",
        "vpxor %ymm0,",
        "traps: ",
        "trap invalid opcode ip:",
        "\\n",
        "''",
        "ä",
        "\u{1b}[",
        "x86-64-v",
        "62 f1 7c 48 ",
        "0x",
        "leaf=0x1d (subleaf=0x0), register='EAX', ",
        "-cpu ",
        "provided: eax:",
        "expected: edx:",
    ];
    for _ in 0..150 {
        let text: String = (0..next() % 60).map(|_| pieces[next() as usize % pieces.len()]).collect();
        check(text.as_bytes()).unwrap_or_else(|broken| panic!("{broken}: {text}"));
        let cut: Vec<u8> = text.bytes().filter(|_| next() % 40 != 0).collect();
        check(&cut).unwrap_or_else(|broken| panic!("{broken}: {cut:?}"));
    }
    let long = "host doesn't support requested feature: CPUID.07H:EBX [bit 4] ".repeat(2000);
    assert!(answer(&long).causes.len() < 4);
}
