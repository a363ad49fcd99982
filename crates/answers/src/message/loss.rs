//! One message: what it names, and who took that.

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{At, Class, Found, Severity, Spot, Take};
use cpusieve_knowledge::x86::{self, Feature};

use super::fault;
use super::feature::{self, Subject};
use super::register;
use super::scene::Scene;
use crate::models::level::{self, Level};

/// What one message says.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) id: &'static str,
    pub(super) weak: bool,
    pub(super) title: String,
    pub(super) class: Option<&'static Class>,
    pub(super) stage: At,
    pub(super) severity: Severity,
    pub(super) lines: Vec<u32>,
    pub(super) subjects: Vec<Subject>,
    pub(super) spots: Vec<Spot>,
    pub(super) why: Vec<String>,
    pub(super) remedies: Vec<String>,
    pub(super) cpu: Option<String>,
    pub(super) cite: Option<&'static str>,
}

impl Loss {
    /// What a message that was found says.
    pub(super) fn of(paste: &Paste, scene: &Scene, found: &Found) -> Self {
        let message = found.message;
        let mut loss = Self {
            id: message.id,
            weak: message.weak,
            title: message.title.to_owned(),
            class: None,
            stage: message.stage,
            severity: message.severity,
            lines: (paste.line_at(found.start)..=paste.line_at(found.end.saturating_sub(1))).take(64).collect(),
            subjects: Vec::new(),
            spots: message.bits.to_vec(),
            why: vec![filled(message.cause, paste, found)],
            remedies: Some(filled(message.remedy, paste, found)).filter(|text| !text.is_empty()).into_iter().collect(),
            cpu: message.cpu.map(str::to_owned),
            cite: message.cite,
        };
        match message.id {
            "MSG0100" | "MSG0101" => {
                loss.subjects.extend(register::requested(paste, found));
                loss.filtered(scene);
            }
            "MSG0102" | "MSG0304" | "MSG0305" | "MSG0401" => register::msr(&mut loss, paste, scene, found),
            "MSG0400" => register::leaf(&mut loss, paste, found),
            "MSG0114" => register::snp(&mut loss, paste, found),
            "MSG0500" | "MSG0502" => loss.level(paste, found),
            "MSG0600" | "MSG0601" | "MSG0602" => loss.why.extend(fault::module(paste, found)),
            _ => loss.named(paste, found),
        }
        loss.judge(scene);
        loss
    }

    /// The features that the message's row or its own words name.
    fn named(&mut self, paste: &Paste, found: &Found) {
        let taken: Vec<&str> = found
            .taken
            .iter()
            .filter(|taken| taken.take == Take::Names)
            .flat_map(|taken| &taken.ranges)
            .map(|&range| paste.piece(range))
            .collect();
        let listed = found.message.features.iter().map(|id| filled(id, paste, found));
        for name in listed.chain(taken.into_iter().map(str::to_owned)) {
            if let Some(level) = feature::level(&name) {
                self.subjects.extend(level::added(level).iter().filter_map(|id| x86::feature(id)).map(Subject::of));
                continue;
            }
            let known = feature::named(&name);
            if known.is_empty() {
                self.subjects.push(Subject::unknown(&name));
            }
            self.subjects.extend(known.into_iter().map(Subject::of));
        }
        self.subjects = super::distinct(std::mem::take(&mut self.subjects).into_iter());
    }

    /// The features of a level of x86-64 that is named.
    fn level(&mut self, paste: &Paste, found: &Found) {
        let text = paste.lower.get(found.start..found.end).unwrap_or_default();
        let levels = [("v2", Level::V2, "x86-64-v1"), ("v3", Level::V3, "x86-64-v2"), ("v4", Level::V4, "x86-64-v3")];
        for (word, level, before) in levels {
            if !text.contains(word) {
                continue;
            }
            let features = level::added(level).iter().filter_map(|id| x86::feature(id));
            self.subjects.extend(features.map(Subject::of));
            self.title = format!("{}: {level}", self.title);
            self.why.push(format!(
                "{level} is {before} and all of these; at least one of them is missing, the message does not say which."
            ));
            self.remedies.push(format!(
                "in a VM raise the guest's CPU type to one with {level} (host, or {}), check that the flags of the host are passed (Proxmox's old default is kvm64), then stop the guest completely and start it again: a restart from inside is not enough; on bare metal only another CPU helps, or an older distribution or a rebuild for {before}",
                example(level)
            ));
            self.cpu = Some("host".to_owned());
        }
    }

    /// QEMU took a feature out: what that means hangs on the feature and on the accelerator.
    fn filtered(&mut self, scene: &Scene) {
        let class = self.subjects.first().and_then(Subject::class);
        self.class = class;
        let (stage, severity) = class.map_or((At::Kvm, Severity::Harmless), |class| (class.stage, class.severity));
        self.stage = if self.stage == At::ByFeature { stage } else { self.stage };
        self.severity = severity;
        self.why.extend(class.map(|class| class.means.to_owned()));
        self.remedies.extend(class.map(|class| class.remedy.to_owned()));
        if let Some(name) = scene.other_accelerator() {
            self.stage = At::Qemu;
            self.other_accelerator(name);
        }
        if scene.is("enforce") {
            self.severity = Severity::Fatal;
        }
    }

    /// Under another accelerator than KVM it is that one which does not give the feature.
    fn other_accelerator(&mut self, name: &'static str) {
        let virtualization = self.class.is_some_and(|class| class.name == "hardware virtualization");
        if name != "TCG" {
            // The host's own protections stay in force; what a desktop guest does without is no hole in the host.
            self.severity = if self.severity == Severity::Security { Severity::Harmless } else { self.severity };
            return;
        }
        self.why.pop();
        self.remedies.pop();
        if virtualization {
            self.severity = Severity::Fatal;
            self.why.push("TCG does not emulate VMX; it does emulate SVM, AMD's virtualization. A guest that runs VMs by VMX needs KVM (-accel kvm) with kvm_intel nested=1 on an Intel host; if nothing in the guest nests, ignore the line.".to_owned());
            self.remedies.push(
                "-accel kvm with nested=1, or +svm with an AMD model under TCG, or take vmx from -cpu".to_owned(),
            );
            return;
        }
        let place = self.subjects.first().and_then(|subject| subject.feature).and_then(Feature::place);
        let emulated: Vec<&str> = place.map_or_else(Vec::new, |place| {
            let releases = cpusieve_knowledge::qemu::RELEASES.iter().enumerate();
            releases
                .filter(|(release, _)| cpusieve_knowledge::qemu::tcg(*release, place))
                .map(|(_, known)| known.label)
                .collect()
        });
        self.why.push(match (emulated.first(), cpusieve_knowledge::qemu::RELEASES.last()) {
            (Some(first), _) => {
                format!("TCG emulates it in QEMU {first} and newer ones; this QEMU is older, or emulates another mode.")
            }
            (None, Some(newest)) => {
                format!("No QEMU up to {} emulates it under TCG, in a machine or for a single program.", newest.label)
            }
            (None, None) => String::new(),
        });
        self.remedies.push("run under KVM or natively on a host that has it, or use a model or a build without it (-march=x86-64-v3 for AVX2)".to_owned());
    }

    /// The class of most of the features; of several the one that is named first.
    fn main_class(&self) -> Option<&'static Class> {
        let classes: Vec<&'static Class> = self.subjects.iter().filter_map(Subject::class).collect();
        let count = |class: &&&'static Class| classes.iter().filter(|other| other.name == class.name).count();
        // The last of several maxima is taken, hence from behind.
        classes.iter().rev().max_by_key(count).copied()
    }

    /// Stage and severity where the row leaves them to the features.
    fn judge(&mut self, scene: &Scene) {
        let features: Vec<&'static Feature> = self.subjects.iter().filter_map(|subject| subject.feature).collect();
        let program = self.id.starts_with("MSG05");
        if program && !matches!(self.stage, At::Userspace) {
            let by_brand = feature::stage_of_program(&features, scene.brand, scene.in_vm());
            if self.stage == At::ByFeature || (scene.brand.is_some() && by_brand == At::Silicon) {
                self.stage = by_brand;
            }
            self.why.extend(scene.brand.map(|brand| of_brand(brand, &features)).filter(|said| !said.is_empty()));
            self.why.extend(of_flags(&scene.flags, &features));
        } else if self.stage == At::ByFeature {
            let class = self.main_class();
            let names: Vec<&str> = self.subjects.iter().filter_map(Subject::class).map(|class| class.name).collect();
            let physical =
                names.iter().any(|name| matches!(*name, "what KVM gives on every host" | "hardware virtualization"));
            self.stage = match class {
                // libvirt compared with the physical CPU, or with a model of the other vendor.
                _ if physical && self.id == "MSG0203" => At::Libvirt,
                Some(class) => class.stage,
                None => At::Libvirt,
            };
            if physical && self.id == "MSG0203" && names.contains(&"what KVM gives on every host") {
                self.why.push("KVM can emulate x2apic and tsc-deadline whatever the physical CPU has: libvirt compared with the host's own CPU. A host that lacks all of these is old (before the model's generation, as SandyBridge or Westmere) or is itself a VM (nested) whose outer hypervisor hides them.".to_owned());
            }
            let mut said: Vec<&str> = Vec::new();
            for class in self.subjects.iter().filter_map(Subject::class) {
                if !said.contains(&class.name) {
                    said.push(class.name);
                    self.why.push(class.means.to_owned());
                    self.remedies.push(class.remedy.to_owned());
                }
            }
        }
        if self.id == "MSG0206" {
            let class = self.subjects.iter().find_map(Subject::class);
            self.why.extend(class.map(|class| format!("What it is: {}", class.means)));
        }
        if self.severity == Severity::ByFeature {
            self.severity = Severity::Harmless;
        }
    }
}

/// A named model of a level.
const fn example(level: Level) -> &'static str {
    match level {
        Level::V1 => "qemu64",
        Level::V2 => "Nehalem or Westmere; Proxmox: x86-64-v2-AES",
        Level::V3 => "Haswell or EPYC; Proxmox: x86-64-v3",
        Level::V4 => "Skylake-Server or EPYC-Genoa; Proxmox: x86-64-v4",
    }
}

/// What a CPU that the paste names has of the features.
pub(super) fn of_brand(brand: &cpusieve_knowledge::messages::Brand, features: &[&'static Feature]) -> String {
    let of = |has: bool| -> Vec<&str> {
        features
            .iter()
            .filter(|feature| feature::brand_has(brand, feature) == Some(has))
            .map(|feature| feature.id)
            .collect()
    };
    let (has, lacks) = (of(true), of(false));
    match (has.is_empty(), lacks.is_empty()) {
        (_, false) => format!(
            "The paste names a CPU, {}: its silicon lacks {}, and no setting brings that.",
            brand.name,
            lacks.join(", ")
        ),
        (false, true) if has.len() == features.len() => {
            format!(
                "The paste names a CPU, {}, which has all of it: the VM's CPU type hides it from the guest.",
                brand.name
            )
        }
        _ => String::new(),
    }
}

/// What a flags line in the paste says of the features.
pub(super) fn of_flags(flags: &[String], features: &[&'static Feature]) -> Option<String> {
    let shown = |feature: &&&'static Feature| flags.iter().any(|flag| flag == feature.id);
    let lacks: Vec<&str> = features.iter().filter(|feature| !shown(feature)).map(|feature| feature.id).collect();
    (!flags.is_empty() && !features.is_empty()).then(|| {
        let guest = if flags.iter().any(|flag| flag == "hypervisor") { " (it is a guest: hypervisor)" } else { "" };
        match lacks.is_empty() {
            true => format!("The flags line in the paste{guest} has all of them."),
            false => format!("The flags line in the paste{guest} lacks {}.", lacks.join(", ")),
        }
    })
}

/// Fills what a pattern took into a text.
fn filled(text: &str, paste: &Paste, found: &Found) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let pieces: Vec<&str> =
        found.taken.iter().flat_map(|taken| &taken.ranges).map(|&range| paste.piece(range)).collect();
    let mut out = text.replace("{0}", paste.piece((found.start, found.end))).replace("{all}", &pieces.join(", "));
    for number in 1..=4 {
        let piece = pieces.get(number - 1).copied().unwrap_or("it");
        out = out.replace(&format!("{{{number}}}"), piece);
    }
    let hex = found.taken.iter().filter(|taken| taken.take == Take::Hex).flat_map(|taken| &taken.ranges).next_back();
    let ip = hex.map_or_else(String::new, |&range| format!("0x{}", paste.piece(range).trim_start_matches("0x")));
    out.replace("{ip}", &ip)
}
