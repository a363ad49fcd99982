//! What QEMU says of machine type and number of CPUs before any CPU exists (`system/vl.c`,
//! `accel/kvm/kvm-all.c:kvm_init`).

use super::cpu::Question;
use super::host::Host;
use super::refusal::Refusal;
use super::release::V7_2;

/// `KVM_CAP_NR_VCPUS`: the CPUs that KVM recommends at most.
const CAP_NR_VCPUS: u32 = 9;
/// `KVM_CAP_MAX_VCPUS`: the CPUs that KVM can do at most.
const CAP_MAX_VCPUS: u32 = 66;

/// Warnings about the number of CPUs, then about the machine type.
pub(super) fn lines(question: &Question<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, number) in counts(question) {
        if let Some(recommended) = limit(question, CAP_NR_VCPUS).filter(|&most| number > most) {
            lines.push(format!(
                "-accel kvm: warning: Number of {what} cpus requested ({number}) exceeds the recommended cpus \
                 supported by KVM ({recommended})"
            ));
        }
    }
    if let Some(reason) = question.machine.deprecated {
        // 5.2 reports it as an error, and goes on.
        let warning = if question.release >= V7_2 { "warning: " } else { "" };
        lines.push(format!("{warning}Machine type '{}' is deprecated: {reason}", question.machine.name));
    }
    lines
}

/// More CPUs than KVM can do.
pub(super) fn refused(question: &Question<'_>) -> Option<Refusal> {
    counts(question).into_iter().find_map(|(what, number)| {
        let most = limit(question, CAP_MAX_VCPUS).filter(|&most| number > most)?;
        Some(Refusal::plain(format!(
            "Number of {what} cpus requested ({number}) exceeds the maximum cpus supported by KVM ({most})"
        )))
    })
}

fn counts(question: &Question<'_>) -> [(&'static str, i64); 2] {
    let smp = &question.smp;
    [("SMP", i64::from(smp.cpus)), ("hotpluggable", i64::from(smp.max_cpus().max(smp.cpus)))]
}

/// A capability that counts CPUs; `None` where it was not seen.
fn limit(question: &Question<'_>, capability: u32) -> Option<i64> {
    let known = Host::of(question).kvm()?.caps.get(&capability).copied();
    known.filter(|&number| number > 0)
}
