//! `fleet compare`: whether what runs on one host runs on another.

use std::fmt::Write as _;
use std::path::Path;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::{Catalogue, Comparison, Definition, Fleet, Host, Relation, Setting, compare, features};
use serde_json::json;

use super::load::load;
use super::{Done, Failure, packed, setting};
use crate::args::{CompareOptions, Switch};
use crate::input::{self, InputError};
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};

pub(super) fn run(options: &CompareOptions, as_json: bool) -> Result<Done, Failure> {
    if options.a == Path::new("-") && options.b == Path::new("-") {
        return Err(InputError::TwiceStandardInput.into());
    }
    let (setting, mut assumed) = setting(&options.setting)?;
    let migratable = options.setting.migratable == Switch::On;
    let mut end = |path: &Path| {
        let (definition, of_end) = end(path, &setting, migratable)?;
        let new: Vec<_> = of_end.into_iter().filter(|new| !assumed.contains(new)).collect();
        assumed.extend(new);
        Ok::<_, Failure>(definition)
    };
    let (a, b) = (end(&options.a)?, end(&options.b)?);
    let found = compare(&a, &b);
    page::print(&if as_json { as_text(&found, &assumed) } else { text(&found, options, &assumed, page::width()) })?;
    Ok(if found.second_on_first { Done::Same } else { Done::Different })
}

/// One end: a definition as it stands, or a host, or what all hosts of a packed file offer, as the definition of that.
fn end(path: &Path, setting: &Setting<'_>, migratable: bool) -> Result<(Definition, Vec<Assumption>), Failure> {
    if packed::is_named(path) {
        return packed_end(path, setting, migratable);
    }
    let (seen, unlisted) = input::read_for_boot(path)?;
    let name = input::name(path);
    let of_libvirt = seen.expansions.first().filter(|expansion| expansion.other.contains_key("libvirt-cpu"));
    if let Some(expansion) = of_libvirt.filter(|_| seen.cpus.is_empty()) {
        return match Definition::of_expansion(expansion) {
            Ok(definition) => Ok((definition, Vec::new())),
            Err(error) => Err(format!("{name}: {error}").into()),
        };
    }
    let host = Host::of(&name, &seen, unlisted, setting).map_err(|why| format!("{name}: {why}"))?;
    let catalogue = Catalogue::of(setting.release);
    let words = features(&host.offer, &catalogue, migratable);
    let ids = catalogue.in_words(&words).map(|property| property.id).collect();
    Ok((Definition::of_features(host.ground.vendor, ids), host.assumed))
}

fn packed_end(path: &Path, setting: &Setting<'_>, migratable: bool) -> Result<(Definition, Vec<Assumption>), Failure> {
    let loaded = load(&[path.to_path_buf()], setting, true)?;
    let offer = loaded.fleet.offer().ok_or("there are no hosts")?;
    let catalogue = Catalogue::of(setting.release);
    let words = features(&offer, &catalogue, migratable);
    let require = catalogue.in_words(&words).map(|property| property.id).collect();
    let mut vendors = loaded.fleet.vendors().into_keys();
    let definition = match (vendors.next(), vendors.next()) {
        (Some(vendor), None) => Definition::of_features(vendor, require),
        _ => Definition { require, ..Definition::default() },
    };
    let assumed = loaded.fleet.assumed().into_iter().map(|assumed| Assumption {
        what: assumed.what,
        value: assumed.value,
        because: assumed.because,
        hangs: Vec::new(),
    });
    Ok((definition, assumed.collect()))
}

fn as_text(found: &Comparison, assumed: &[Assumption]) -> String {
    json::pretty(&json!({
        "format": 1,
        "relation": found.relation.name(),
        "b_on_a": found.second_on_first,
        "a_on_b": found.first_on_second,
        "only_a": found.only_first,
        "only_b": found.only_second,
        "common": found.common,
        "why": found.why,
        "assumed": super::assumptions(assumed, &Fleet::default()),
    }))
}

fn text(found: &Comparison, options: &CompareOptions, assumed: &[Assumption], width: usize) -> String {
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
    let assumed: Vec<String> = assumed.iter().map(|assumed| format!("{} {}", assumed.what, assumed.value)).collect();
    if !assumed.is_empty() {
        let line = format!("assumed: {}", page::tame(&assumed.join("; ")));
        let _ = writeln!(page, "\n{}", styled(QUIET, page::wrap(&line, "", "  ", width).trim_end()));
    }
    page
}
