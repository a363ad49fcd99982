//! `fleet compare`: whether what runs on one host runs on another.

use std::fmt::Write as _;
use std::path::Path;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::libvirt::{Cpu, beyond, offered};
use cpusieve_fleet::{
    Catalogue, Comparison, Definition, Fleet, Host, Offer, Relation, Setting, apart, compare, features,
};
use cpusieve_model::Vendor;
use serde_json::json;

use super::load::load;
use super::{Asked, Done, Failure, definitions, label, libvirt, packed, setting};
use crate::args::{CompareOptions, Switch};
use crate::input::{self, InputError};
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};

pub(super) fn run(options: &CompareOptions, as_json: bool) -> Result<Done, Failure> {
    if options.a == Path::new("-") && options.b == Path::new("-") {
        return Err(InputError::TwiceStandardInput.into());
    }
    let asked = Asked::of(&options.setting, [&options.a, &options.b]);
    let (setting, of_qemu) = setting(&asked)?;
    let (a, b) = (end(&options.a, &setting)?, end(&options.b, &setting)?);
    let by_libvirt = [&a, &b].into_iter().any(|end| matches!(end, End::Definition(..)));
    let (release, of_libvirt) = libvirt(options.libvirt.as_deref())?;
    let mut assumed: Vec<Assumption> = of_libvirt.filter(|_| by_libvirt).into_iter().collect();
    // No QEMU has a say between two definitions.
    if ![&a, &b].into_iter().all(|end| matches!(end, End::Definition(..))) {
        assumed.extend(of_qemu);
    }
    for new in [&a, &b].into_iter().flat_map(End::assumed) {
        if !assumed.contains(new) {
            assumed.push(new.clone());
        }
    }
    let catalogue = Catalogue::of(setting.release);
    let scale = Scale {
        catalogue: &catalogue,
        migratable: options.setting.migratable == Switch::On,
        libvirt: by_libvirt.then_some(release),
    };
    let found = match apart(&a.head(), &b.head()) {
        Some(apart) => apart,
        None => compare(&a.definition(&options.a, &scale)?, &b.definition(&options.b, &scale)?),
    };
    let notes = match &options.setting.qemu {
        Some(_) => {
            [(&options.a, &a), (&options.b, &b)].into_iter().filter_map(|(p, end)| end.note(p, &scale)).collect()
        }
        None => Vec::new(),
    };
    let told = Told { options, found: &found, notes: &notes, assumed: &assumed };
    page::print(&if as_json { told.as_text() } else { told.text(page::width()) })?;
    Ok(if found.second_on_first { Done::Same } else { Done::Different })
}

/// How features are counted.
struct Scale<'s> {
    catalogue: &'s Catalogue,
    migratable: bool,
    /// The release of libvirt whose names count, if one of the ends is a definition.
    libvirt: Option<usize>,
}

/// One of the two that are compared.
enum End {
    /// A libvirt definition, as it stands.
    Definition(Cpu),
    /// What a host offers, or all hosts of a packed file, and their vendor if it is one.
    Offer(Box<Offer>, Option<Vendor>, Vec<Assumption>),
}

impl End {
    fn assumed(&self) -> &[Assumption] {
        match self {
            Self::Definition(_) => &[],
            Self::Offer(_, _, assumed) => assumed,
        }
    }

    /// What is compared before features are.
    fn head(&self) -> Definition {
        match self {
            Self::Definition(cpu) => cpu.head(),
            Self::Offer(_, vendor, _) => {
                Definition { vendor: vendor.map(|vendor| vendor.name().to_owned()), ..Definition::default() }
            }
        }
    }

    fn definition(&self, path: &Path, scale: &Scale<'_>) -> Result<Definition, String> {
        let (offer, vendor) = match self {
            Self::Definition(cpu) => {
                let release = scale.libvirt.unwrap_or_default();
                return cpu.definition(release).map_err(|unknown| definitions::placed(path, &unknown));
            }
            Self::Offer(offer, vendor, _) => (offer, vendor),
        };
        let words = features(offer, scale.catalogue, scale.migratable);
        let found = match scale.libvirt {
            Some(release) => offered(&words, Vendor::Other, release),
            None => {
                let ids = scale.catalogue.in_words(&words).map(|property| property.id).collect();
                Definition::of_features(Vendor::Other, ids)
            }
        };
        Ok(Definition { vendor: vendor.map(|vendor| vendor.name().to_owned()), ..found })
    }

    /// What QEMU's model of the same name has that libvirt does not count.
    fn note(&self, path: &Path, scale: &Scale<'_>) -> Option<String> {
        let Self::Definition(cpu) = self else { return None };
        let more = beyond(cpu, scale.catalogue, scale.libvirt?);
        let (model, qemu) = (cpu.model.as_ref()?, label(scale.catalogue.release));
        let (vmx, plain): (Vec<&str>, Vec<&str>) = more.iter().partition(|name| name.starts_with("vmx-"));
        let controls = (!vmx.is_empty()).then(|| format!("{} of VMX (vmx-*)", vmx.len()));
        let plain = (!plain.is_empty()).then(|| plain.join(" "));
        let names = plain.into_iter().chain(controls).collect::<Vec<_>>().join(", and ");
        let name = input::name(path);
        (!names.is_empty()).then(|| format!("{name}: QEMU {qemu}'s {model} also has, uncounted by libvirt: {names}"))
    }
}

fn end(path: &Path, setting: &Setting<'_>) -> Result<End, Failure> {
    if packed::is_named(path) {
        return packed_end(path, setting);
    }
    let (seen, unlisted) = input::read_for_boot(path)?;
    let name = input::name(path);
    let mut cpus = seen.expansions.iter().filter_map(Cpu::of_expansion);
    if let Some(cpu) = cpus.next().filter(|_| seen.cpus.is_empty()) {
        let more = cpus.count();
        if more > 0 {
            return Err(format!("{name}: {} <cpu> in one file; one end is one CPU", more + 1).into());
        }
        return Ok(End::Definition(cpu));
    }
    let host = Host::of(&name, &seen, unlisted, setting).map_err(|why| format!("{name}: {why}"))?;
    Ok(End::Offer(Box::new(host.offer), Some(host.ground.vendor), host.assumed))
}

fn packed_end(path: &Path, setting: &Setting<'_>) -> Result<End, Failure> {
    let loaded = load(&[path.to_path_buf()], setting, true)?;
    let offer = loaded.fleet.offer().ok_or("there are no hosts")?;
    let mut vendors = loaded.fleet.vendors().into_keys();
    let vendor = vendors.next().filter(|_| vendors.next().is_none());
    let assumed = loaded.fleet.assumed().into_iter().map(|assumed| Assumption {
        what: assumed.what,
        value: assumed.value,
        because: assumed.because,
        hangs: Vec::new(),
    });
    Ok(End::Offer(Box::new(offer), vendor, assumed.collect()))
}

/// A comparison to be shown.
struct Told<'t> {
    options: &'t CompareOptions,
    found: &'t Comparison,
    notes: &'t [String],
    assumed: &'t [Assumption],
}

impl Told<'_> {
    fn as_text(&self) -> String {
        let Self { found, notes, assumed, .. } = self;
        json::pretty(&json!({
            "format": 1,
            "relation": found.relation.name(),
            "b_on_a": found.second_on_first,
            "a_on_b": found.first_on_second,
            "only_a": found.only_first,
            "only_b": found.only_second,
            "common": found.common,
            "why": found.why,
            "notes": notes,
            "assumed": super::assumptions(assumed, &Fleet::default()),
        }))
    }

    fn text(&self, width: usize) -> String {
        let Self { options, found, notes, assumed } = self;
        let (a, b) = (page::tame(&input::name(&options.a)), page::tame(&input::name(&options.b)));
        let mut page = String::new();
        let verdict = match found.relation {
            Relation::Identical => styled(GAINED, "identical"),
            Relation::Superset => styled(GAINED, "superset"),
            Relation::Subset => styled(LOST, "subset"),
            Relation::Incompatible => styled(LOST, "incompatible"),
        };
        let _ = writeln!(page, "{}{verdict}, {} in common", styled(HEAD, "The first is to the second: "), found.common);
        for (from, to, runs) in [(&b, &a, found.second_on_first), (&a, &b, found.first_on_second)] {
            let word = if runs { "runs" } else { "does not run" };
            page.push_str(&page::wrap(&format!("what runs on {from} {word} on {to}"), "  ", "    ", width));
        }
        for why in &found.why {
            page.push_str(&page::wrap(&page::tame(why), "  ! ", "    ", width));
        }
        for (name, only) in [(&a, &found.only_first), (&b, &found.only_second)] {
            if !only.is_empty() {
                let _ = writeln!(page, "\n{}", styled(HEAD, format!("{} in {name} alone", only.len())));
                page.push_str(&page::wrap(&only.join(" "), "  ", "  ", width));
            }
        }
        for note in *notes {
            let _ = write!(page, "\n{}", page::wrap(&page::tame(note), "", "  ", width));
        }
        let assumed: Vec<String> =
            assumed.iter().map(|assumed| format!("{} {}", assumed.what, assumed.value)).collect();
        if !assumed.is_empty() {
            let line = format!("assumed: {}", page::tame(&assumed.join("; ")));
            let _ = writeln!(page, "\n{}", styled(QUIET, page::wrap(&line, "", "  ", width).trim_end()));
        }
        page
    }
}
