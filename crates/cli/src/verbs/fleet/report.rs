//! `report fleet`: the hosts, their baseline and their pools, as a page.

use cpusieve_fleet::{MOST_KINDS, baseline, pools};
use cpusieve_report::{Page, of_fleet};

use super::load::load;
use super::{Asked, Done, Failure, baseline as verb, setting};
use crate::args::{ReportFleetOptions, Switch};
use crate::page;
use crate::worth::Worths;

/// The page, and how complete it is.
pub(in crate::verbs) fn page(options: &ReportFleetOptions) -> Result<(Page, Done), Failure> {
    let asked = Asked::of(&options.setting, &options.inputs);
    let (setting, assumed) = setting(&asked)?;
    let loaded = load(&options.inputs, &setting, options.setting.strict)?;
    let worths = Worths::known(None)?;
    let migratable = options.setting.migratable == Switch::On;
    let found = baseline(&loaded.fleet, &setting, migratable).ok_or("there are no hosts")?;
    let kinds = loaded.fleet.kinds().len();
    let splits = if kinds > MOST_KINDS || options.most < 2 {
        if kinds > MOST_KINDS {
            page::warn(&format!("{kinds} kinds of hosts; pools are looked for among at most {MOST_KINDS}"));
        }
        Vec::new()
    } else {
        let weights = worths.weights().into_iter().map(|(feature, weight)| (feature.to_owned(), weight)).collect();
        pools(&loaded.fleet, &setting, migratable, &weights, usize::from(options.most))?
    };
    let json = verb::as_text(&found, &loaded, &setting, &assumed, &worths);
    let page = of_fleet(&loaded.fleet, &found, &setting, (&splits, migratable), &loaded.skipped, json);
    Ok((page, if loaded.skipped.is_empty() { Done::Same } else { Done::InPart }))
}
