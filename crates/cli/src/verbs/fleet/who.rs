//! `fleet who`: how many hosts offer a feature, and which do not.

use cpusieve_fleet::{Catalogue, Property};
use cpusieve_store::Who;
use serde_json::json;

use super::load::load;
use super::{Asked, Done, Failure, label, packed, setting};
use crate::args::WhoOptions;
use crate::json;
use crate::page::{self, GAINED, HEAD, LOST, counted, styled};

/// Hosts that are named in text.
const NAMED: usize = 20;

pub(super) fn run(options: &WhoOptions, as_json: bool) -> Result<Done, Failure> {
    let asked = Asked::of(&options.setting, &options.inputs);
    let (setting, _) = setting(&asked)?;
    let catalogue = Catalogue::of(setting.release);
    let property = property(&options.feature, &catalogue)?;
    let mut lacking = Vec::new();
    let (mut skipped, mut who) = (false, Who::default());
    match options.inputs.as_slice() {
        // One column of one file: nothing else is looked at.
        [path] if packed::is_named(path) => {
            let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
            let packed = packed::open(path, &setting).map_err(|why| failed(&why))?;
            who = packed.who(property).map_err(|why| failed(&why))?;
        }
        inputs => {
            let loaded = load(inputs, &setting, options.setting.strict)?;
            skipped = !loaded.skipped.is_empty();
            let has: Vec<bool> = loaded.fleet.kinds().iter().map(|kind| property.is_in(&kind.offer.own)).collect();
            who.hosts = loaded.fleet.hosts() as u64;
            let having = loaded.fleet.kinds().iter().zip(&has).filter(|(_, has)| **has);
            who.having = having.map(|(kind, _)| kind.hosts as u64).sum();
            if let Some(rest) = loaded.fleet.rest() {
                who.having += rest.having(property);
            }
            let members = loaded.fleet.members().iter();
            lacking = members.filter(|member| has.get(member.kind) == Some(&false)).map(|of| of.name.clone()).collect();
        }
    }
    let text = if as_json {
        json::pretty(&json!({
            "format": 1,
            "feature": property.id,
            "property": property.name,
            "qemu": label(setting.release),
            "hosts": who.hosts,
            "having": who.having,
            "lacking": lacking,
        }))
    } else {
        text(property, who, &lacking)
    };
    page::print(&text)?;
    Ok(match (skipped, who.having == who.hosts) {
        (true, _) => Done::InPart,
        (false, true) => Done::Same,
        (false, false) => Done::Different,
    })
}

/// A feature property by any of its names.
pub(super) fn property<'c>(name: &str, catalogue: &'c Catalogue) -> Result<&'c Property, Failure> {
    let by_name = catalogue.properties().iter().find(|property| property.name == name);
    let by_id = |id| catalogue.properties().iter().find(|property| property.id == id);
    let found = by_name.or_else(|| cpusieve_fleet::feature(name, catalogue).and_then(by_id));
    Ok(found.ok_or_else(|| format!("QEMU {} has no feature `{name}`", label(catalogue.release)))?)
}

fn text(property: &Property, who: Who, lacking: &[String]) -> String {
    let style = if who.having == who.hosts { GAINED } else { LOST };
    let hosts = counted(usize::try_from(who.hosts).unwrap_or(usize::MAX), "host");
    let count = styled(style, format!("{} of {hosts}", who.having));
    let mut page = format!("{}: {count}\n", styled(HEAD, property.id));
    if !lacking.is_empty() {
        let names: Vec<&str> = lacking.iter().take(NAMED).map(String::as_str).collect();
        let mut list = page::tame(&names.join(", "));
        if lacking.len() > NAMED {
            list.push_str(&format!(" and {} more", lacking.len() - NAMED));
        }
        page.push_str(&page::wrap(&list, "  without: ", "    ", page::width()));
    }
    page
}
