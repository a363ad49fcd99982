//! `models [NAME [NAME2]]`: QEMU's CPU models, which run here, what a name means, what differs.

mod card;
mod compare;
mod list;

use cpusieve_answers::models::{self, NoModel, Setting};
use cpusieve_answers::predict::kvm::{self, KvmPrediction, Question};
use cpusieve_answers::predict::{Assumption, Kernel};
use cpusieve_knowledge::qemu::{self, Caches, RELEASES};
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::qemu::Accelerator;
use serde_json::{Value, json};

use super::{Done, Failure, record};
use crate::args::{Accel, ModelsOptions};
use crate::{input, page};

pub(crate) fn run(options: &ModelsOptions, as_json: bool) -> Result<Done, Failure> {
    // The names in an error are the user's.
    answer(options, as_json).map_err(|error| page::tame(&error.to_string()).into())
}

fn answer(options: &ModelsOptions, as_json: bool) -> Result<Done, Failure> {
    if let (Some(left), Some(right)) = (&options.name, &options.other) {
        return compare::run(options, [left, right], as_json);
    }
    let host = host(options)?;
    let (name, own) = match &options.name {
        Some(name) => split(name)?,
        None => ("", None),
    };
    let (release, assumed) = models::release(own.or(options.qemu.as_deref()), host.snapshot.as_ref())?;
    let machine = qemu::machine(release, &options.machine).map_err(NoModel::from)?;
    let accelerator = match (options.accel, host.cpuid(), &host.kvm) {
        (Accel::Tcg, ..) => Some(Accelerator::Tcg),
        (_, Some(cpuid), Some(kvm)) => Some(Accelerator::Kvm { host: cpuid, kvm: &kvm.view }),
        _ => None,
    };
    let setting = Setting { release, machine, accelerator };
    let scene = Scene { setting, host: &host, assumed };
    match name {
        "" => list::run(&scene, as_json),
        name => card::run(&scene, name, as_json),
    }
}

/// Where the models are asked for.
struct Scene<'a> {
    setting: Setting<'a>,
    host: &'a Host,
    /// What was assumed of QEMU.
    assumed: Vec<Assumption>,
}

/// The host on which guests would run.
struct Host {
    /// What is seen of it; `None` if it does not matter.
    snapshot: Option<Snapshot>,
    /// What its KVM offers.
    kvm: Option<KvmPrediction>,
    /// Why nothing is known of its KVM.
    unknown: Option<String>,
}

impl Host {
    fn cpuid(&self) -> Option<&cpusieve_model::CpuidTable> {
        self.snapshot.as_ref()?.first_cpuid().map(|cpu| &cpu.cpuid)
    }
}

/// The host that was given, else this machine. Under TCG only its QEMU matters.
fn host(options: &ModelsOptions) -> Result<Host, Failure> {
    let (snapshot, unlisted) = match &options.host {
        Some(path) => input::read_for_boot(path)?,
        None if options.accel == Accel::Tcg => (installed(options), Unlisted::NotSeen),
        None => (record::this_machine(), Unlisted::NotSeen),
    };
    if options.accel == Accel::Tcg {
        return Ok(Host { snapshot: Some(snapshot), kvm: None, unknown: None });
    }
    let kernel = Kernel { unlisted, ..Kernel::new(Stage::Host) };
    let found = kvm::predict(&snapshot, &Question::new(kernel));
    let (kvm, unknown) = match (found, &options.host) {
        (Ok(found), _) if found.view.supported.is_some() => (Some(found), None),
        (Ok(found), _) => {
            let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
            (None, Some(format!("its KVM offers nothing: {}", findings.join("; "))))
        }
        (Err(refusal), Some(path)) => return Err(format!("{}: {refusal}", input::name(path)).into()),
        (Err(refusal), None) => (None, Some(refusal.to_string())),
    };
    Ok(Host { snapshot: Some(snapshot), kvm, unknown })
}

/// This machine's QEMU alone, if no release was named.
fn installed(options: &ModelsOptions) -> Snapshot {
    let mut missing = Vec::new();
    let named = options.qemu.is_some();
    let qemu = if named { Vec::new() } else { cpusieve_probe::qemu::find(&mut missing) };
    Snapshot { qemu, ..Snapshot::default() }
}

/// A name and the release behind its `@`.
fn split(text: &str) -> Result<(&str, Option<&str>), Failure> {
    match text.rsplit_once('@') {
        Some((name, release)) if !name.is_empty() => Ok((name, Some(release))),
        Some(_) => Err(format!("`{}` names no CPU model before its @", page::tame(text)).into()),
        None if text.is_empty() => Err("an empty name is no CPU model".into()),
        None => Ok((text, None)),
    }
}

impl Scene<'_> {
    /// `QEMU 10.0 on pc-q35-10.0 with KVM`
    fn place(&self) -> String {
        let Setting { release, machine, accelerator } = &self.setting;
        let with = match accelerator {
            Some(Accelerator::Tcg) => " under TCG",
            _ => " under KVM",
        };
        format!("QEMU {} on {}{with}", label(*release), machine.name)
    }

    /// What the host is, for people.
    fn host_name(&self) -> Option<String> {
        if !matches!(self.setting.accelerator, Some(Accelerator::Kvm { .. })) {
            return None;
        }
        let snapshot = self.host.snapshot.as_ref()?;
        let signature = || {
            let cpuid = &snapshot.first_cpuid()?.cpuid;
            let (family, model, stepping) = cpuid.signature()?;
            Some(format!("{}, family {family} model {model} stepping {stepping}", cpuid.vendor_string()?))
        };
        Some(page::tame(&snapshot.title.clone().or_else(signature).unwrap_or_else(|| "an unnamed CPU".to_owned())))
    }

    fn done(&self, incompatible: bool) -> Done {
        match (incompatible, &self.host.unknown) {
            (true, _) => Done::Different,
            (false, Some(_)) => Done::InPart,
            (false, None) => Done::Same,
        }
    }

    /// Why nothing is known of the host, and what was assumed, in lines.
    fn doubts(&self, width: usize) -> String {
        let mut text = String::new();
        if let Some(unknown) = &self.host.unknown {
            let line = format!(
                "what runs on this host is not known: {}; --host FILE names another host, --accel tcg asks for none",
                page::tame(unknown)
            );
            text.push_str(&page::wrap(&line, "  ! ", "    ", width));
        }
        for Assumption { what, value, because, .. } in &self.assumed {
            text.push_str(&page::wrap(&format!("{what} {value} is assumed: {because}"), "  ! ", "    ", width));
        }
        let of_host = self.host.kvm.as_ref().map_or(0, |kvm| kvm.assumed.len());
        if of_host > 0 {
            let line =
                format!("{} of the host; `predict --until kvm` lists them", page::counted(of_host, "assumption"));
            text.push_str(&page::wrap(&line, "  ! ", "    ", width));
        }
        text
    }

    /// The fields that all answers have.
    fn as_value(&self) -> Value {
        let accel = match self.setting.accelerator {
            Some(Accelerator::Tcg) => "tcg",
            _ => "kvm",
        };
        let of_host = self.host.kvm.iter().flat_map(|kvm| kvm.assumed.iter().cloned());
        let assumed: Vec<Assumption> = of_host.chain(self.assumed.iter().cloned()).collect();
        json!({
            "format": 1,
            "qemu": label(self.setting.release),
            "machine": self.setting.machine.name,
            "accel": accel,
            "host": self.host_name(),
            "host_unknown": self.host.unknown,
            "assumed": super::predict::assumptions(&assumed),
        })
    }
}

fn label(release: usize) -> &'static str {
    RELEASES.get(release).map_or("", |release| release.label)
}

/// Four caches in a line; without a table the legacy ones.
fn caches(table: Option<&Caches>) -> String {
    let Some(table) = table else { return "QEMU's legacy tables".to_owned() };
    let cache = |name: &str, cache: &qemu::Cache| {
        let size = match cache.size {
            size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
            size => format!("{} KiB", size >> 10),
        };
        format!("{name} {size} {}-way", cache.associativity)
    };
    let caches = [("L1d", table.l1d), ("L1i", table.l1i), ("L2", table.l2), ("L3", table.l3)];
    let present = caches.iter().filter(|(_, known)| known.size > 0);
    present.map(|(name, known)| cache(name, known)).collect::<Vec<_>>().join(", ")
}
