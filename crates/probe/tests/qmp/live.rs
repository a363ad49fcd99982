//! The QEMUs that this machine has. `CPUSIEVE_QEMU` names more of them, separated as in `PATH`.

use std::path::PathBuf;

use cpusieve_probe::qmp::{QmpError, Start, survey, vcpu};

use crate::facts;

fn binaries() -> Vec<PathBuf> {
    let mut missing = Vec::new();
    let found = cpusieve_probe::qemu::find(&mut missing);
    let named = std::env::var_os("CPUSIEVE_QEMU").unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|path| path.is_file()).collect::<Vec<_>>();
    let binaries: Vec<_> = found.into_iter().map(|qemu| PathBuf::from(qemu.path)).chain(named).collect();
    if binaries.is_empty() {
        eprintln!("skipped: there is no qemu-system-x86_64 (package qemu-system-x86) on this machine: {missing:?}");
    }
    binaries
}

#[test]
fn an_installed_qemu_is_surveyed() {
    for binary in binaries() {
        let survey = survey(&Start::new(&binary, "tcg"), None).unwrap_or_else(|error| panic!("{error}"));
        let refused = survey.full.iter().chain(&survey.static_).filter(|(_, model)| model.is_err()).count();
        assert_eq!(survey.full.len(), survey.definitions.len());
        let (models, took) = (survey.definitions.len(), survey.took);
        eprintln!(
            "proved: {} {} tells {models} models in {took:.2?}, {refused} refused",
            binary.display(),
            survey.version
        );
        assert_eq!(refused, 0);
        if let Some(folder) = facts::folder(&survey) {
            eprintln!("proved: {} values are what another program was told", facts::compare(&survey, &folder));
        }
    }
}

#[test]
fn an_installed_qemu_makes_a_vcpu_or_says_why_not() {
    for binary in binaries() {
        let tcg = Start::new(&binary, "tcg").machine("q35").smp("2");
        let view = vcpu(&tcg.clone().cpu("max")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((view.vcpus, view.properties["fpu"].as_str()), (2, "true"));
        let unknown = vcpu(&tcg.cpu("NoSuchModel")).unwrap_err();
        assert!(matches!(&unknown, QmpError::Ended { .. }), "{unknown}");
        assert!(unknown.to_string().contains("unable to find CPU model 'NoSuchModel'"), "{unknown}");
        // What comes of hardware is this machine's; a KVM that QEMU does not get along with is a finding.
        match vcpu(&Start::new(&binary, "kvm").machine("q35").cpu("host")) {
            Ok(view) => eprintln!("proved: {} makes a vCPU with KVM in {:.2?}", binary.display(), view.took),
            Err(error) => eprintln!("found: {error}"),
        }
        match survey(&Start::new(&binary, "kvm"), None) {
            Ok(survey) => assert!(survey.definitions.iter().any(|model| model.name == "host")),
            Err(error) => eprintln!("found: {error}"),
        }
    }
}
