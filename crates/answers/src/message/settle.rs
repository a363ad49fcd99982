//! From messages to an answer: what has one cause stands together, the worst first.

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{At, Severity, Spot};
use cpusieve_stages::Machine;

use super::feature::{self, Subject};
use super::loss::Loss;
use super::scene::Scene;
use super::{Answer, Cause, distinct};
use crate::why;

/// Groups the messages.
pub(super) fn settle(paste: &Paste, scene: &Scene, mut losses: Vec<Loss>) -> Answer {
    // What says no more than that something is wrong counts where nothing says what.
    let told = losses
        .iter()
        .any(|loss| !loss.weak && (loss.id == "MSG0606" || !loss.subjects.is_empty() || !loss.spots.is_empty()));
    let first = losses.iter().filter(|loss| loss.weak).map(|loss| loss.id).min();
    losses.retain(|loss| !loss.weak || (!told && Some(loss.id) == first));
    let mut groups: Vec<Loss> = Vec::new();
    for loss in losses {
        match groups.iter_mut().find(|group| alike(group, &loss)) {
            Some(group) => join(group, loss),
            None => groups.push(loss),
        }
    }
    let worst = groups.iter().map(|group| group.severity).max().unwrap_or(Severity::Harmless);
    let failed = groups.iter().find(|group| group.severity == Severity::Fatal).map(|group| group.id);
    let mut causes: Vec<Cause> = groups.into_iter().map(|group| cause(group, scene, failed)).collect();
    causes.sort_by_key(|cause| (std::cmp::Reverse(cause.severity), std::cmp::Reverse(cause.subjects.len())));
    say_once(&mut causes);
    if let Some(first) = causes.first_mut() {
        first.spots.extend(&scene.spots);
    }
    let used =
        distinct(causes.iter().flat_map(|cause| cause.lines.iter().copied()).chain(scene.lines.iter().copied())).len();
    let remedies = distinct(causes.iter().map(|cause| cause.remedy.clone()).filter(|text| !text.is_empty()));
    Answer {
        stage: causes.first().map_or(At::ByFeature, |cause| cause.stage),
        severity: worst,
        remedy: remedies.join(". "),
        cpu: causes.iter().find_map(|cause| cause.cpu.clone()),
        libvirt: causes.first().filter(|_| scene.other_accelerator().is_none()).and_then(libvirt),
        hints: if causes.is_empty() { Vec::new() } else { distinct(scene.hints.iter().cloned()) },
        causes,
        lines: paste.lines_read,
        ignored: paste.lines_read.saturating_sub(used),
    }
}

fn alike(one: &Loss, other: &Loss) -> bool {
    let class = |loss: &Loss| loss.class.map(|class| class.name);
    (one.id, class(one), one.stage, one.severity) == (other.id, class(other), other.stage, other.severity)
}

/// What one cause may name of a kind; no real paste comes near.
const MAX_OF_A_KIND: usize = 1024;

fn join(group: &mut Loss, other: Loss) {
    fn add<T: PartialEq>(all: &mut Vec<T>, new: Vec<T>) {
        for one in new {
            if all.len() < MAX_OF_A_KIND && !all.contains(&one) {
                all.push(one);
            }
        }
    }
    add(&mut group.lines, other.lines);
    add(&mut group.subjects, other.subjects);
    add(&mut group.spots, other.spots);
    add(&mut group.why, other.why);
    add(&mut group.remedies, other.remedies);
    group.cpu = group.cpu.take().or(other.cpu);
}

/// A sentence that an earlier cause has said is not said again.
fn say_once(causes: &mut [Cause]) {
    let mut said: Vec<String> = Vec::new();
    for cause in causes {
        cause.why.retain(|sentence| !said.contains(sentence));
        said.extend(cause.why.iter().cloned());
    }
}

fn cause(mut group: Loss, scene: &Scene, failed: Option<&str>) -> Cause {
    group.state_components();
    if group.severity == Severity::Harmless && failed.is_some_and(|failed| failed != group.id) {
        group.why.push("It is a warning, and not the cause of the failure.".to_owned());
    }
    let cpu = match group.id {
        "MSG0100" | "MSG0101" => corrected(&group.subjects, scene),
        _ => group.cpu.map(|cpu| match (&scene.cpu, cpu.split_once(',')) {
            (Some(given), Some(("host" | "MODEL", change))) => format!("{given},{change}"),
            _ => cpu,
        }),
    };
    Cause {
        id: group.id,
        title: match group.class {
            Some(class) => format!("{} ({})", group.title, class.name),
            None => group.title,
        },
        stage: group.stage,
        severity: group.severity,
        lines: group.lines,
        subjects: group.subjects,
        spots: group.spots,
        why: group.why,
        remedy: group.remedies.join("; "),
        cpu,
        cite: group.cite,
    }
}

/// The same `-cpu` without what is filtered; without a given one, the model that asks for no more than there is.
fn corrected(subjects: &[Subject], scene: &Scene) -> Option<String> {
    let minus: Vec<String> = subjects
        .iter()
        .filter_map(|subject| feature::qemu_name(subject.feature?))
        .map(|name| format!(",-{name}"))
        .collect();
    match (&scene.cpu, scene.other_accelerator()) {
        (Some(given), _) if !minus.is_empty() => Some(format!("{given}{}", distinct(minus.into_iter()).concat())),
        (_, Some("TCG")) => Some("max".to_owned()),
        _ => Some("host".to_owned()),
    }
}

/// libvirt's `<cpu>` for what libvirt itself or QEMU complains about.
fn libvirt(cause: &Cause) -> Option<String> {
    if !matches!(cause.id, "MSG0100" | "MSG0200" | "MSG0202" | "MSG0203") {
        return None;
    }
    let names = cause.subjects.iter().filter_map(|subject| feature::qemu_name(subject.feature?));
    let features: Vec<String> =
        distinct(names).iter().map(|name| format!("  <feature policy='disable' name='{name}'/>")).collect();
    (!features.is_empty()).then(|| format!("<cpu mode='host-model'>\n{}\n</cpu>", features.join("\n")))
}

impl Loss {
    /// What hangs together among extended state and the instructions that need it.
    fn state_components(&mut self) {
        let has = |id: &str| self.subjects.iter().any(|subject| subject.name == id);
        let components: Vec<u8> = self
            .subjects
            .iter()
            .filter_map(|subject| match subject.spot {
                Some(Spot::Xcr0(bit)) => Some(bit),
                _ => None,
            })
            .collect();
        let users: Vec<&str> = ["avx", "avx2", "fma", "f16c", "avx512f"].into_iter().filter(|id| has(id)).collect();
        if has("xsave") && (!users.is_empty() || !components.is_empty()) {
            self.why.push(format!(
                "The root cause is xsave: {}the components of XCR0 depend on it and follow.",
                users.iter().map(|id| format!("{id}, ")).collect::<String>()
            ));
        } else if !components.is_empty() {
            let follows = if components.contains(&2) && has("avx") { "; XCR0[2] (YMM) follows from avx" } else { "" };
            self.why.push(format!("Bits of leaf DH without a name are components of XCR0 (subleaf 0), the ones with a name are subleaf 1: they follow from the instructions that need the state{follows}."));
        }
        if has("xsave") && !components.is_empty() {
            self.why.push("Bits of leaf DH without a name are components of XCR0 (subleaf 0: x87, SSE, YMM), the ones with a name are subleaf 1.".to_owned());
        }
    }
}

impl Subject {
    /// Asks the stages who takes the feature on a host.
    pub(super) fn ask(&mut self, host: &Machine<'_>) {
        let Some(feature) = self.feature else { return };
        let why = why::on(host, None, feature);
        let said = match (why.passage.culprit(), &why.reason) {
            (_, Some(reason)) => {
                let at = why.passage.culprit().map_or("unknown", |step| step.at.name());
                (at.to_owned(), format!("{} ({} {})", reason.cause, reason.cite, reason.rule))
            }
            (_, None) if why.passage.outcome.known() == Some(true) => (
                "none".to_owned(),
                "this host gives it to a guest with -cpu host: the guest's CPU definition leaves it out".to_owned(),
            ),
            _ => ("unknown".to_owned(), "what is known of this host does not decide it".to_owned()),
        };
        self.on_host = Some(said);
    }
}
