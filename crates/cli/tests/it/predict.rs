//! `predict` as its users meet it: the words of real kernels, refusals, JSON.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{json_of, read, run as program};

/// Boots of Intel, AMD and Zhaoxin models under old and new kernels, with parameters that change features.
const BOOTS: [&str; 7] = [
    "q11.1-k5.10-EPYC-Milan_FORCE",
    "q11.1-k5.10-YongFeng",
    "q11.1-k6.1-Icelake-Server-v9",
    "q11.1-k6.12-EPYC-Genoa",
    "q11.1-k6.1-SapphireRapids",
    "q11.1-k6.12-max-c_clearcpuid=avx2",
    "q11.1-k7.3-ClearwaterForest",
];

fn run(arguments: &[&str], input: &[u8]) -> Output {
    program(&[&["predict"], arguments].concat(), input)
}

fn answer(arguments: &[&str], input: &[u8]) -> Value {
    json_of(&run(&[arguments, &["--json", "-"]].concat(), input), 0)
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// A line of the first CPU in a text of `/proc/cpuinfo`.
/// A captured boot.
fn boot(name: &str) -> Vec<u8> {
    read(&format!("guests-tcg/{name}.json.gz"))
}

fn line<'a>(cpuinfo: &'a str, name: &str) -> Vec<&'a str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let words = fields.into_iter().find(|(key, _)| key.trim() == name).map(|(_, words)| words);
    words.unwrap_or_default().split_whitespace().collect()
}

#[test]
fn captured_guests_print_what_is_predicted() {
    for name in BOOTS {
        let bytes = boot(name);
        let capture: Value = serde_json::from_slice(&bytes).unwrap();
        let cpuinfo = capture["cpuinfo"].as_str().unwrap();
        let release = capture["kernel_release"].as_str().unwrap();
        let found = answer(&["--from", "vcpu", "--until", "guest", "--guest-kernel", release], &bytes);
        for (field, of_cpuinfo) in [("flags", "flags"), ("bugs", "bugs"), ("vmx_flags", "vmx flags")] {
            assert_eq!(words(&found["guest"][field]), line(cpuinfo, of_cpuinfo), "{name}: {field}");
        }
        assert!(found.get("host").is_none());
    }
}

#[test]
fn this_machine_prints_what_is_predicted() {
    let record = Command::new(env!("CARGO_BIN_EXE_cpusieve")).arg("record").output().unwrap().stdout;
    let read = cpusieve_formats::read("record", &record).snapshot;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let recorded: Vec<&str> = read.flags().map(|flags| flags.iter().collect()).unwrap_or_default();
    assert_eq!(recorded, line(&cpuinfo, "flags"), "a record keeps the flags line");
    let found = answer(&["--until", "host"], &record);
    let kernel = found["assumed"].as_array().unwrap().iter().find(|assumed| assumed["what"] == "host kernel");
    let because = kernel.map(|assumed| assumed["because"].as_str().unwrap().to_owned()).unwrap_or_default();
    if !(because.is_empty() || because.contains("stands for")) {
        eprintln!("skipped: this machine's kernel is in no table: {because}");
        return;
    }
    assert_eq!(words(&found["host"]["flags"]), line(&cpuinfo, "flags"), "{because}");
    eprintln!("the {} flags of this machine are as predicted", words(&found["host"]["flags"]).len());
}

#[test]
fn the_json_has_the_fields_of_the_contract() {
    let found = answer(&["--from", "vcpu", "--until", "guest", "--guest-kernel", "6.12"], &boot("q11.1-k5.10-max"));
    assert_eq!(found["format"], 1);
    assert_eq!(found["guest"]["kernel"], "6.12");
    for field in ["flags", "hidden", "bugs", "vmx_flags"] {
        assert!(found["guest"][field].is_array(), "{field}");
    }
    for assumed in found["assumed"].as_array().unwrap() {
        for field in ["what", "value", "because"] {
            assert!(assumed[field].is_string(), "{field} of {assumed}");
        }
    }
    let steps = found["steps"].as_array().unwrap();
    for step in steps {
        for field in ["feature", "bit", "effect", "rule", "cite"] {
            assert!(step[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {step}");
        }
        assert_eq!(step["at"], "guest");
    }
    for shown in words(&found["guest"]["flags"]) {
        assert!(steps.iter().any(|step| step["feature"] == shown), "{shown}");
    }
}

#[test]
fn the_command_line_that_is_given_counts() {
    let bytes = boot("q11.1-k6.12-EPYC-Genoa");
    let flags = |more: &[&str]| {
        let found = answer(&[&["--from", "vcpu", "--until", "guest"], more].concat(), &bytes);
        words(&found["guest"]["flags"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (with, without) = (flags(&[]), flags(&["--guest-cmdline", "clearcpuid=smap quiet"]));
    assert!(with.contains(&"smap".to_owned()));
    assert_eq!(without, with.iter().filter(|name| *name != "smap").cloned().collect::<Vec<_>>());
}

#[test]
fn a_bare_dump_gets_the_newest_kernel_and_says_so() {
    let dump = b"CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n   \
        0x00000001 0x00: eax=0x000906ed ebx=0x00000000 ecx=0x00000000 edx=0x07008021\n";
    let found = answer(&["--until", "host"], dump);
    assert_eq!(&words(&found["host"]["flags"])[..2], ["fpu", "msr"]);
    let assumed = found["assumed"].as_array().unwrap();
    assert_eq!(assumed[0]["what"], "host kernel");
    assert_eq!(assumed[0]["value"], found["host"]["kernel"]);
    for what in ["MSR 1A0H", "kernel command line"] {
        assert!(assumed.iter().any(|assumed| assumed["what"] == what), "{what}: {assumed:?}");
    }
    let older = answer(&["--until", "host", "--host-kernel", "6.13.7"], dump);
    assert_eq!(older["assumed"][0]["value"], "6.12");
    let text = run(&["--until", "host", "-"], dump);
    let text = String::from_utf8(text.stdout).unwrap();
    for heading in ["flags (", "bugs (", "assumed ("] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
}

#[test]
fn an_intel_dump_of_another_mode_gets_what_64_bit_mode_shows() {
    let dump = b"CPU 0:\n   0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n   \
        0x00000001 0x00: eax=0x000906ed ebx=0x00000000 ecx=0x00000000 edx=0x07008021\n   \
        0x80000000 0x00: eax=0x80000001 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n   \
        0x80000001 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x20000000\n";
    let found = answer(&["--until", "host", "--host-kernel", "6.12"], dump);
    assert!(words(&found["host"]["flags"]).contains(&"syscall"));
    let assumed = found["assumed"].as_array().unwrap();
    assert!(assumed.iter().any(|assumed| assumed["hangs"][0] == "syscall"), "{assumed:?}");
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let bytes = boot("q11.1-k5.10-max");
    let refused = |arguments: &[&str], input: &[u8], words: &str| {
        let output = run(&[arguments, &["-"]].concat(), input);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words) && output.stdout.is_empty(), "{arguments:?}: {error}");
    };
    refused(&["--until", "guest", "--qemu", "newest"], &bytes, "no QEMU version");
    refused(&["--until", "vcpu", "--machine", "pc-q35-99.0", "--accel", "tcg"], &bytes, "it has pc-i440fx-");
    refused(&["--until", "vcpu", "--smp", "4,cores=3", "--accel", "tcg"], &bytes, "-smp 4,cores=3: ");
    for until in ["host", "kvm", "vcpu"] {
        refused(&["--from", "vcpu", "--until", until], &bytes, "after the vCPU");
    }
    refused(&["--until", "host", "--host-kernel", "linux"], &bytes, "no kernel release");
    refused(&["--until", "host"], b"flags : fpu vme de pse tsc msr", "no CPUID");
    refused(&[], &bytes, "--until");
}

#[test]
fn why_tells_of_the_hosts_kernel_what_predict_does() {
    let bytes = boot("q11.1-k6.12-EPYC-Genoa");
    let predicted = answer(&["--until", "host"], &bytes);
    let mut checked = 0;
    for flag in ["rep_good", "cpuid", "nopl", "hypervisor", "avx2"] {
        let output = program(&["why", flag, "--host", "-", "--json"], &bytes);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let at_host = |steps: &Value| {
            let steps = steps.as_array().unwrap();
            let step = steps.iter().find(|step| step["at"] == "host" && step["feature"] == flag)?;
            Some(["effect", "rule", "cite"].map(|field| step[field].as_str().unwrap().to_owned()))
        };
        let wanted = at_host(&predicted["steps"]);
        assert_eq!(at_host(&found["answers"][0]["steps"]), wanted, "{flag}");
        checked += usize::from(wanted.is_some());
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn help_offers_what_works() {
    let help = String::from_utf8(run(&["--help"], b"").stdout).unwrap();
    let until = help.split("--until <STAGE>\n").nth(1).and_then(|rest| rest.split("--host-kernel").next()).unwrap();
    assert!(["host:", "kvm:", "vcpu:", "guest:"].iter().all(|stage| until.contains(stage)), "{until}");
}
