//! `verify`: predictions held against the real things: this kernel, its KVM, a vCPU, QEMU, a guest.

mod ask;
mod show;

use std::path::Path;
use std::time::{Duration, Instant};

use cpusieve_answers::verify::{self, Part, Proof};
use cpusieve_model::{Captures, CpuidBit, Register, Snapshot, State};
use cpusieve_stages::linux::boot::Unlisted;

use super::{Done, Failure, record};
use crate::args::VerifyOptions;
use crate::{input, page};

/// A part of the proof, and how long the real thing took to answer.
struct Section {
    proof: Proof,
    took: Option<Duration>,
    /// What is to be thought of that time.
    doubt: Option<&'static str>,
}

impl From<Proof> for Section {
    fn from(proof: Proof) -> Self {
        Self { proof, took: None, doubt: None }
    }
}

pub(crate) fn run(options: &VerifyOptions, as_json: bool) -> Result<Done, Failure> {
    let (snapshot, captures, sections) = match &options.record {
        Some(path) => of_record(options, path)?,
        None => of_this_machine(options),
    };
    if let Some(path) = &options.keep {
        let text = cpusieve_formats::record::print_with(&snapshot, &captures);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let around = sections.iter().any(|section| section.proof.part == Part::Host);
    let outside = (around && options.record.is_none()).then(|| verify::outside(&snapshot)).flatten();
    page::print(&if as_json {
        show::as_text(&sections, outside.as_ref())
    } else {
        show::text(&sections, outside.as_ref(), page::width())
    })?;
    let any = |is: fn(&Proof) -> bool| sections.iter().any(|section| is(&section.proof));
    Ok(match (any(|proof| !proof.mismatches.is_empty()), any(|proof| !proof.unseen.is_empty())) {
        (true, _) => Done::Different,
        (false, true) => Done::InPart,
        (false, false) => Done::Same,
    })
}

/// Why the time that a vCPU took here says little of others.
fn doubt(snapshot: &Snapshot) -> Option<&'static str> {
    const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);
    let guest = snapshot.first_cpuid().is_some_and(|cpu| cpu.cpuid.state(HYPERVISOR) == State::Present);
    Some(if guest { "once, in a machine that is itself a guest" } else { "once" })
}

/// The parts that were named; none if all are meant that there are.
fn named(options: &VerifyOptions) -> Vec<Part> {
    let given = [
        (options.host, Part::Host),
        (options.kvm, Part::Kvm),
        (options.vcpu, Part::Vcpu),
        (options.qemu, Part::Qemu),
        (options.guest, Part::Guest),
    ];
    given.into_iter().filter(|(given, _)| *given).map(|(_, part)| part).collect()
}

/// What a record holds is compared without asking anybody.
fn of_record(options: &VerifyOptions, path: &Path) -> Result<(Snapshot, Captures, Vec<Section>), Failure> {
    let name = input::name(path);
    let (snapshot, unlisted, captures) = input::read_with_captures(path)?;
    let held = |part: &Part| match part {
        Part::Host => snapshot.flags().is_some() && snapshot.first_cpuid().is_some(),
        Part::Kvm => snapshot.kvm.is_some(),
        Part::Vcpu => captures.vcpu.is_some(),
        Part::Qemu => !captures.surveys.is_empty(),
        Part::Guest => captures.guest.is_some(),
    };
    let mut parts = named(options);
    if parts.is_empty() {
        parts = Part::ALL.into_iter().filter(held).collect();
    }
    if parts.is_empty() {
        parts.push(Part::Kvm);
    }
    let mut sections: Vec<Section> = Vec::new();
    for part in parts {
        match part {
            Part::Host => {
                sections
                    .push(verify::host(&snapshot, unlisted).map_err(|refusal| format!("{name}: {refusal}"))?.into());
            }
            Part::Kvm => sections.push(kvm(&snapshot, unlisted).map_err(|refusal| format!("{name}: {refusal}"))?),
            _ if !held(&part) => {
                let why = format!("{name} holds no such capture; `cpusieve verify --keep FILE` makes one");
                sections.push(refused(part, why));
            }
            _ => sections.extend(of_captures(&snapshot, &captures, part)),
        }
    }
    Ok((snapshot, captures, sections))
}

/// The parts of a proof that were captured.
fn of_captures(snapshot: &Snapshot, captures: &Captures, part: Part) -> Vec<Section> {
    let refused = |why: String| refused(part, why);
    let tried = captures.vcpu.as_ref();
    match part {
        Part::Vcpu => tried.map(|seen| of_vcpu(snapshot, seen).unwrap_or_else(refused)).into_iter().collect(),
        Part::Qemu => captures.surveys.iter().map(|seen| verify::qemu(snapshot, seen, tried).into()).collect(),
        Part::Guest => {
            let proof =
                |seen| verify::guest(snapshot, seen).map_or_else(|error| refused(error.to_string()), Section::from);
            captures.guest.as_ref().map(proof).into_iter().collect()
        }
        Part::Host | Part::Kvm => Vec::new(),
    }
}

fn of_vcpu(snapshot: &Snapshot, seen: &cpusieve_model::VcpuCapture) -> Result<Section, String> {
    let question = verify::vcpu_question(snapshot).map_err(|error| error.to_string())?;
    Ok(verify::vcpu(snapshot, &question, seen).into())
}

fn kvm(snapshot: &Snapshot, unlisted: Unlisted) -> Result<Section, String> {
    let found = verify::kvm(snapshot, unlisted).map_err(|refusal| refusal.to_string())?;
    let mut proof = Proof::from(found);
    // What the recorder says of what could not be compared.
    if !proof.unseen.is_empty() {
        let unread = proof.unseen.iter().any(|unseen| unseen.contains("were not read"));
        let of_kvm = snapshot.missing.iter();
        let of_kvm = of_kvm.filter(|part| part.what == "kvm" || unread && part.what.starts_with("MSRs"));
        proof.unseen.extend(of_kvm.map(record::missing));
    }
    Ok(proof.into())
}

/// Asks this machine.
fn of_this_machine(options: &VerifyOptions) -> (Snapshot, Captures, Vec<Section>) {
    let snapshot = record::this_machine();
    let mut parts = named(options);
    if parts.is_empty() {
        parts = Part::ALL.to_vec();
    }
    let wanted = |part: Part| parts.contains(&part);
    let mut captures = Captures::default();
    let mut sections = Vec::new();
    if wanted(Part::Host) {
        let proof = verify::host(&snapshot, Unlisted::NotSeen).map_err(|refusal| refusal.to_string());
        sections.push(proof.map_or_else(|why| refused(Part::Host, why), Section::from));
    }
    if wanted(Part::Kvm) {
        sections.push(kvm(&snapshot, Unlisted::NotSeen).unwrap_or_else(|why| refused(Part::Kvm, why)));
    }
    // QEMU and the guest want to know which MSRs KVM refuses.
    let vcpu = ask::vcpu(&snapshot);
    if let Ok((seen, ..)) = &vcpu {
        captures.vcpu = Some(seen.clone());
    }
    if wanted(Part::Vcpu) {
        // The time is that of the whole proof: the machine, every leaf, the MSRs, and the comparison.
        let section = vcpu.map(|(seen, question, took)| {
            let clock = Instant::now();
            let proof = verify::vcpu(&snapshot, &question, &seen);
            Section { took: Some(took + clock.elapsed()), doubt: doubt(&snapshot), ..proof.into() }
        });
        sections.push(section.unwrap_or_else(|why| refused(Part::Vcpu, why)));
    }
    sections.extend(of_qemu(options, &snapshot, &mut captures, (wanted(Part::Qemu), wanted(Part::Guest))));
    (snapshot, captures, sections)
}

/// What needs QEMU: its own answers, and a guest, which boots while QEMU is asked.
fn of_qemu(
    options: &VerifyOptions,
    snapshot: &Snapshot,
    captures: &mut Captures,
    (models, guest): (bool, bool),
) -> Vec<Section> {
    let tried = captures.vcpu.as_ref();
    let (kernel, limit) = (options.kernel.as_deref(), Duration::from_secs(options.limit));
    let (surveys, guest) = std::thread::scope(|scope| {
        let guest = guest.then(|| scope.spawn(|| ask::guest(snapshot, kernel, tried, limit)));
        let surveys = if models { ask::surveys(snapshot, tried, limit) } else { Vec::new() };
        let gone = || Err("the thread that booted the guest did not come to its end".to_owned());
        (surveys, guest.map(|guest| guest.join().unwrap_or_else(|_| gone())))
    });
    let (mut sections, mut seen_surveys) = (Vec::new(), Vec::new());
    for survey in surveys {
        match survey {
            Ok((seen, took)) => {
                sections.push(Section { took: Some(took), ..verify::qemu(snapshot, &seen, tried).into() });
                seen_surveys.push(seen);
            }
            Err(why) => sections.push(refused(Part::Qemu, why)),
        }
    }
    captures.surveys = seen_surveys;
    match guest {
        Some(Ok((seen, took))) => {
            let proof = verify::guest(snapshot, &seen);
            let section = proof.map_or_else(|error| refused(Part::Guest, error.to_string()), Section::from);
            sections.push(Section { took: Some(took), ..section });
            captures.guest = Some(seen);
        }
        Some(Err(why)) => sections.push(refused(Part::Guest, why)),
        None => {}
    }
    sections
}

/// A part that could not be looked at.
fn refused(part: Part, why: String) -> Section {
    Proof::unseen(part, part.name(), why).into()
}
