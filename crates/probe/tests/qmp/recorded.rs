//! Recorded exchanges: what the client asks, word for word, and what it makes of the answers.

use cpusieve_formats::qmp::NoticeKind;
use cpusieve_model::Register;
use cpusieve_probe::qmp::{Start, Survey, VcpuView, survey, vcpu};

use crate::fake::{Fake, recording};
use crate::{asked, facts};

fn surveyed(release: &str) -> Survey {
    let said = recording(&format!("{release}-survey"));
    let fake = Fake::replay(&said);
    let start = Start::new(fake.program(), asked::ACCELERATOR).transcript();
    let survey = survey(&start, Some(&asked::MODELS)).unwrap();
    assert_eq!(
        survey.transcript.join("\n").trim(),
        said.lines().take(survey.transcript.len()).collect::<Vec<_>>().join("\n")
    );
    survey
}

fn started(release: &str) -> VcpuView {
    let fake = Fake::replay(&recording(&format!("{release}-vcpu")));
    let start = Start::new(fake.program(), asked::ACCELERATOR).machine(asked::MACHINE).cpu(asked::CPU);
    vcpu(&start).unwrap()
}

#[test]
fn four_releases_are_surveyed() {
    // Version, models, machine types, properties of `max`: counted in the answers by another program.
    let expected = [("5.2", "5.2.0", 123, 53, 387), ("7.2", "7.2.22", 132, 59, 434), ("10.0", "10.0.13", 154, 65, 502)];
    for (release, version, models, machines, properties) in
        expected.into_iter().chain([("11.1", "11.1.3", 189, 41, 531)])
    {
        let survey = surveyed(release);
        assert_eq!(survey.version.to_string(), version);
        assert!(survey.version.package.starts_with("Debian 1:"), "{}", survey.version.package);
        assert_eq!((survey.definitions.len(), survey.machines.len()), (models, machines), "{release}");
        assert_eq!(survey.device_properties["max-x86_64-cpu"].len(), properties, "{release}");
        assert_eq!(survey.notices, []);
        let ibrs = survey.definitions.iter().find(|model| model.name == "SandyBridge-IBRS").unwrap();
        assert_eq!(ibrs.alias_of.as_deref(), Some("SandyBridge-v2"));
        assert_eq!((ibrs.migration_safe, ibrs.is_static, ibrs.deprecated), (Some(true), Some(false), Some(false)));
        assert!(ibrs.unavailable_features.as_ref().unwrap().iter().any(|name| name == "spec-ctrl"), "{ibrs:?}");
        assert!(ibrs.other.is_empty(), "{:?}", ibrs.other);
        let default: Vec<_> = survey.machines.iter().filter(|machine| machine.is_default).collect();
        assert!(matches!(default[..], [machine] if machine.alias.as_deref() == Some("pc")), "{default:?}");
        assert!(default[0].other.contains_key("numa-mem-supported"), "what has no field is kept");
        let full = survey.full["SandyBridge-IBRS"].as_ref().unwrap();
        assert_eq!((full.flags["spec-ctrl"], full.other["vendor"].as_str()), (true, "\"GenuineIntel\""));
        assert_eq!(survey.static_["max"].as_ref().unwrap().name, "base");
        let spinlocks = survey.device_properties["max-x86_64-cpu"].iter().find(|p| p.name == "hv-spinlocks").unwrap();
        assert_eq!((spinlocks.kind.as_str(), spinlocks.default.as_deref()), ("uint32", Some("4294967295")));
        if let Some(folder) = facts::folder(&survey) {
            eprintln!("proved: {} values of QEMU {version} are what they were", facts::compare(&survey, &folder));
        }
    }
}

#[test]
fn a_start_is_a_command_line() {
    let start = Start::new("/usr/bin/qemu-kvm", "kvm").machine("pc-q35-7.2").cpu("host,migratable=off").smp("2");
    let line = "-accel kvm -machine pc-q35-7.2 -cpu host,migratable=off -smp 2 \
                -S -nodefaults -no-user-config -display none -qmp stdio";
    assert_eq!(start.arguments().join(" "), line);
}

#[test]
fn a_paused_vcpu_of_four_releases_shows_what_was_filtered() {
    for release in ["5.2", "7.2", "10.0", "11.1"] {
        let view = started(release);
        assert!(view.version.to_string().starts_with(release));
        let word = |words: &[cpusieve_formats::qmp::FeatureWord], leaf, register| {
            words.iter().find(|word| word.leaf == leaf && word.register == register).unwrap().bits
        };
        let filtered = word(&view.filtered, 1, Register::Ecx);
        assert_eq!(filtered >> 17 & 1, 1, "{release}: no TCG has PCID");
        assert_eq!(filtered & word(&view.features, 1, Register::Ecx), 0, "{release}: what was filtered is not there");
        assert_eq!(view.properties["pcid"], "false");
        assert_eq!(view.properties["realized"], "true");
        assert_eq!(view.properties["vendor"], "\"GenuineIntel\"");
        assert_eq!(view.vcpus, 1);
        let warnings: Vec<_> = view.notices.iter().filter(|notice| notice.kind == NoticeKind::Warning).collect();
        assert_eq!(warnings.len(), view.notices.len());
        let bits: u32 = view.filtered.iter().map(|word| word.bits.count_ones()).sum();
        assert_eq!(warnings.len(), bits as usize, "{release}: one warning a bit: {warnings:?}");
        assert!(warnings[0].text.starts_with("TCG doesn't support requested feature: CPUID"), "{}", warnings[0].text);
    }
}
