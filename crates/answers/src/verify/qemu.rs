//! An installed QEMU: what it says of its models and of a paused machine.

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::{self, Fit, RELEASES};
use cpusieve_model::{MachineCapture, ModelExpansion, Snapshot, SurveyCapture, VcpuCapture};
use cpusieve_stages::qemu::{
    Accelerator, Expansion, Irqchip, Output, PropertyValue, Protected, Question, Smp, expansion, realize,
};

use super::{Mismatch, Part, Proof, vcpu};

/// Paths of other objects, which say nothing of the CPU.
const NO_FACTS: [&str; 1] = ["memory"];

/// What QEMU's `-cpu host` would have to be so that no MSR that this KVM refuses ends it: `host,-arch-capabilities`.
#[must_use]
pub fn foretold(tried: Option<&VcpuCapture>) -> String {
    let properties = tried.map(vcpu::remedies).unwrap_or_default();
    properties.iter().fold("host".to_owned(), |cpu, property| format!("{cpu},{property}"))
}

/// Compares what a QEMU said with the stage. `tried` are the MSRs that a vCPU of our own took or refused.
#[must_use]
pub fn qemu(snapshot: &Snapshot, survey: &SurveyCapture, tried: Option<&VcpuCapture>) -> Proof {
    let nearest = qemu::nearest(&survey.version);
    let name = if survey.kvm { "KVM" } else { "TCG" };
    let of = format!("QEMU {} with {name}, {} models", survey.version, survey.expansions.len());
    let mut proof = Proof::new(Part::Qemu, of, "property");
    let cause = match nearest.fit {
        Fit::Same => "this QEMU is patched, or our knowledge of its release is wrong".to_owned(),
        _ => {
            let label = RELEASES.get(nearest.release).map_or("", |release| release.label);
            let finding = format!("QEMU {} is not known; {label} stands for it", survey.version);
            proof.findings.push(finding.clone());
            finding
        }
    };
    let kvm = snapshot.kvm.as_ref().filter(|kvm| kvm.supported.is_some());
    let host = snapshot.first_cpuid().map(|cpu| &cpu.cpuid);
    let accelerator = match (survey.kvm, host.zip(kvm)) {
        (false, _) => Accelerator::Tcg,
        (true, Some((host, kvm))) => Accelerator::Kvm { host, kvm },
        (true, None) => {
            proof.unseen.push("KVM's answers, from which QEMU makes its own, were not seen".to_owned());
            return proof;
        }
    };
    let mut odd = Odd::default();
    for model in &survey.expansions {
        compare_model(&mut proof, &mut odd, nearest.release, accelerator, model);
    }
    proof.mismatches.extend(odd.mismatches(&cause));
    for machine in &survey.machines {
        compare_machine(&mut proof, &cause, nearest.release, accelerator, (machine, tried));
    }
    proof
}

/// The models for which a property came out otherwise, by property and both values.
#[derive(Default)]
struct Odd(BTreeMap<(String, Option<String>, Option<String>), Vec<String>>);

impl Odd {
    fn put(&mut self, model: &str, property: &str, predicted: Option<String>, real: Option<String>) {
        self.0.entry((property.to_owned(), predicted, real)).or_default().push(model.to_owned());
    }

    fn mismatches(self, cause: &str) -> impl Iterator<Item = Mismatch> {
        self.0.into_iter().map(move |((property, predicted, real), models)| {
            let named: Vec<&str> = models.iter().map(String::as_str).take(3).collect();
            let more = if models.len() > 3 { format!(" and {} more", models.len() - 3) } else { String::new() };
            Mismatch {
                what: format!("{property} of {}{more}", named.join(", ")),
                predicted,
                real,
                features: vec![property],
                cause: cause.to_owned(),
            }
        })
    }
}

fn compare_model(
    proof: &mut Proof,
    odd: &mut Odd,
    release: usize,
    accelerator: Accelerator<'_>,
    model: &ModelExpansion,
) {
    let mut made = match expansion(release, accelerator, &model.name, Expansion::Full) {
        Ok(made) => made,
        Err(refusal) => {
            proof.compared += 1;
            return odd.put(&model.name, "the model", Some(refusal.to_string()), Some("known".to_owned()));
        }
    };
    let flags = model.flags.iter().map(|(name, on)| (name, on.to_string()));
    let seen = flags.chain(model.other.iter().map(|(name, text)| (name, text.clone())));
    for (name, real) in seen.filter(|(name, _)| !NO_FACTS.contains(&name.as_str())) {
        proof.compared += 1;
        let predicted = made.remove(name.as_str()).map(|value| shown(&value));
        if predicted.as_ref() != Some(&real) {
            odd.put(&model.name, name, predicted, Some(real));
        }
    }
    for (name, value) in made {
        proof.compared += 1;
        odd.put(&model.name, name, Some(shown(&value)), None);
    }
}

/// A value as JSON writes it.
fn shown(value: &PropertyValue) -> String {
    match value {
        PropertyValue::Bool(on) => on.to_string(),
        PropertyValue::Number(number) => number.to_string(),
        PropertyValue::Text(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn compare_machine(
    proof: &mut Proof,
    cause: &str,
    release: usize,
    accelerator: Accelerator<'_>,
    (seen, tried): (&MachineCapture, Option<&VcpuCapture>),
) {
    let of = format!("-machine {} -cpu {}", seen.machine, seen.cpu);
    let machine = match qemu::machine(release, &seen.machine) {
        Ok(machine) => machine,
        Err(unknown) => return proof.unseen.push(format!("{of}: {unknown}")),
    };
    let (smp, irqchip, protected) = (Smp::default(), Irqchip::of(machine), Protected::default());
    let question = Question { release, machine, accelerator, cpu: &seen.cpu, smp, cpu_pm: false, irqchip, protected };
    let made = realize(question);
    proof.compared += 1;
    let expected = made.error.as_ref().map(ToString::to_string).or_else(|| failure(&made, tried));
    let mut put = |what: String, predicted: Option<String>, real: Option<String>| {
        proof.mismatches.push(Mismatch { what, predicted, real, features: Vec::new(), cause: cause.to_owned() });
    };
    match (&expected, &seen.failed) {
        (None, None) => {}
        (Some(expected), Some(failed)) if failed.contains(expected.as_str()) => {
            return proof.findings.push(format!("{of}: ends as foretold: {expected}"));
        }
        (expected, failed) => {
            let real = failed.clone().unwrap_or_else(|| "starts".to_owned());
            let predicted = expected.clone().unwrap_or_else(|| "starts".to_owned());
            return put(of, Some(predicted), Some(real));
        }
    }
    if made.warnings != seen.lines {
        put(format!("{of}: lines on stderr"), Some(made.warnings.join("; ")), Some(seen.lines.join("; ")));
    }
    let mut count = 1;
    for (name, on) in made.properties() {
        let Some(&real) = seen.properties.get(name) else { continue };
        count += 1;
        if real != on {
            put(format!("{of}: {name}"), Some(on.to_string()), Some(real.to_string()));
        }
    }
    proof.compared += count;
}

/// QEMU's words when KVM refuses the first MSR that it writes.
fn failure(made: &Output, tried: Option<&VcpuCapture>) -> Option<String> {
    let refused = tried?.msrs.iter().find(|(index, value, took)| !took && made.msrs.get(index) == Some(value));
    refused.map(|(index, value, _)| format!("failed to set MSR {index:#x} to {value:#x}"))
}
