//! Questions about KVM on captured hosts: hybrids, likely causes, answers that are seen in part.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files")]

use std::path::Path;

use cpusieve_answers::predict::Kernel;
use cpusieve_answers::predict::kvm::{Question, predict};
use cpusieve_answers::verify;
use cpusieve_model::{CpuidBit, Effect, LinuxView, Register, Registers, Snapshot, Stage, State};
use cpusieve_stages::linux::boot::Unlisted;

/// A captured host with KVM, under QEMU's TCG, which reads unknown MSRs as zero.
fn host(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm").join(format!("{name}.json"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cpusieve_formats::read(name, &bytes).snapshot
}

fn kernel() -> Kernel<'static> {
    Kernel { unlisted: Unlisted::Zero, ..Kernel::new(Stage::Host) }
}

const AVX2: CpuidBit = CpuidBit::new(7, 0, Register::Ebx, 5);

#[test]
fn kvm_offers_what_all_kinds_of_cpus_have() {
    let mut hybrid = host("k6.12-max");
    let mut other = hybrid.cpus[0].clone();
    other.id = 1;
    let leaf = other.cpuid.get(7, 0).unwrap();
    other.cpuid.insert(7, 0, Registers { ebx: leaf.ebx & !(1 << AVX2.bit), ..leaf });
    hybrid.cpus.push(other);
    let question = Question { predicted: true, ..Question::new(kernel()) };
    let both = predict(&hybrid, &question).unwrap();
    assert_eq!(both.view.supported_table().unwrap().state(AVX2), State::Absent);
    hybrid.cpus.truncate(1);
    let alone = predict(&hybrid, &question).unwrap();
    assert_eq!(alone.view.supported_table().unwrap().state(AVX2), State::Present);
}

#[test]
fn the_cpu_that_answered_is_told_by_its_apic_id() {
    const APIC_ID: u32 = 1 << 24;
    let mut record = host("k6.12-max");
    let mut other = record.cpus[0].clone();
    other.id = 1;
    let leaf = other.cpuid.get(1, 0).unwrap();
    other.cpuid.insert(1, 0, Registers { ebx: leaf.ebx | APIC_ID, ..leaf });
    record.cpus.push(other);
    assert_eq!(verify::kvm(&record, Unlisted::Zero).unwrap().differences, []);
    for entry in record.kvm.as_mut().unwrap().supported.iter_mut().flatten().filter(|entry| entry.leaf == 1) {
        entry.registers.ebx |= APIC_ID;
    }
    assert_eq!(verify::kvm(&record, Unlisted::Zero).unwrap().differences, [], "CPU 1 answered");
}

#[test]
fn a_wrong_release_is_found_to_be_the_likely_cause() {
    let mut record = host("k6.12-max");
    // Without its flags line nothing contradicts the release.
    record.cpus[0].cpuinfo = None;
    record.linux = Some(LinuxView { release: Some("5.10.0".to_owned()), ..LinuxView::default() });
    let found = verify::kvm(&record, Unlisted::Zero).unwrap();
    assert!(found.differences.len() > 5, "{:?}", found.differences);
    let named = found.differences.iter().filter(|difference| difference.cause.contains("KVM of Linux 6."));
    assert_eq!(named.count(), found.differences.len(), "{:#?}", found.differences);
    assert!(found.differences.iter().any(|difference| difference.cause.contains("Linux 6.12 ")));
}

#[test]
fn a_parameter_that_was_not_recorded_is_found_to_be_the_likely_cause() {
    let mut record = host("d-k6.12-max-nested0");
    record.kvm.as_mut().unwrap().params.clear();
    let found = verify::kvm(&record, Unlisted::Zero).unwrap();
    let svm = found.differences.iter().find(|difference| difference.features.contains(&"svm")).unwrap();
    assert!(svm.cause.contains("nested=0"), "{}", svm.cause);
}

#[test]
fn a_part_that_was_not_seen_is_predicted_and_the_others_stand() {
    let mut record = host("k6.12-max");
    let whole = predict(&record, &Question::new(kernel())).unwrap();
    assert!(whole.seen.supported && whole.seen.emulated && whole.seen.msr_features);
    record.kvm.as_mut().unwrap().emulated = None;
    let part = predict(&record, &Question::new(kernel())).unwrap();
    assert!(part.seen.supported && !part.seen.emulated);
    assert_eq!((part.view.emulated, part.msr_features), (whole.view.emulated, whole.msr_features));
    let found = verify::kvm(&record, Unlisted::Zero).unwrap();
    assert_eq!(found.differences, []);
    assert_eq!(found.unseen.len(), 1);
}

#[test]
fn another_backend_is_not_predicted_and_its_answer_is_explained_by_itself() {
    let mut record = host("k6.12-max");
    let kvm = record.kvm.as_mut().unwrap();
    kvm.params = [("kvm_pvm.force".to_owned(), "N".to_owned())].into();
    let found = predict(&record, &Question::new(kernel())).unwrap();
    assert!(found.seen.supported);
    assert!(found.findings.iter().any(|finding| finding.to_string().contains("kvm_pvm")), "{:?}", found.findings);
    let step = found.steps.iter().find(|step| step.feature == "acpi").unwrap();
    assert_eq!((step.at, step.effect, step.cite.function()), (Stage::Kvm, Effect::Dropped, "kvm_dev_ioctl_get_cpuid"));
    let asked = predict(&record, &Question { predicted: true, ..Question::new(kernel()) }).unwrap();
    assert_eq!(asked.view.supported, None);
}
