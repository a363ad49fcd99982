//! The table of features and sieves: the picture in words.

use maud::{Markup, html};

use cpusieve_model::{Effect, Stage};

use crate::sieve::{class, heading};
use crate::way::{Cause, Cell, Fate, Side, Way, Ways};

/// Features of which the same is to be said, under a heading.
pub(crate) struct Section {
    /// The group's id in the picture, if it is one there.
    pub(crate) id: String,
    /// The fate of its members.
    pub(crate) fate: Fate,
    /// Positions of ways.
    pub(crate) members: Vec<usize>,
}

/// All ways, each in one section: lost and open by cause, gained by cause, then the rest.
pub(crate) fn sections(ways: &Ways) -> Vec<Section> {
    let mut sections = Vec::new();
    for fate in Fate::ALL {
        let mut rest: Vec<usize> = (0..ways.ways.len()).filter(|&at| fate_of(ways, at) == Some(fate)).collect();
        let sides: &[(Side, &str)] = match fate {
            Fate::Lost | Fate::Open => &[(Side::Leaves, "l"), (Side::Enters, "e")],
            Fate::Gained => &[(Side::Enters, "e"), (Side::Leaves, "l")],
            Fate::Unprinted => &[(Side::Leaves, "l")],
            Fate::Kept => &[],
        };
        for &(side, letter) in sides {
            for (number, group) in ways.groups(side).into_iter().enumerate() {
                let members: Vec<usize> = group.members.into_iter().filter(|at| rest.contains(at)).collect();
                rest.retain(|at| !members.contains(at));
                if !members.is_empty() {
                    sections.push(Section { id: format!("{letter}{number}"), fate, members });
                }
            }
        }
        if !rest.is_empty() {
            sections.push(Section { id: fate.name().to_owned(), fate, members: rest });
        }
    }
    sections
}

fn fate_of(ways: &Ways, at: usize) -> Option<Fate> {
    ways.ways.get(at).map(|way| way.fate)
}

/// The cause that a way is listed under.
pub(crate) fn cause(way: &Way) -> Option<&Cause> {
    match way.fate {
        Fate::Gained => way.enters.as_ref().or(way.leaves.as_ref()),
        Fate::Lost | Fate::Open => way.leaves.as_ref().or(way.enters.as_ref()),
        Fate::Kept | Fate::Unprinted => way.leaves.as_ref(),
    }
}

/// The whole table.
pub(crate) fn table(ways: &Ways) -> Markup {
    let stages = || Stage::ALL.into_iter().filter(|&stage| stage <= ways.until);
    html! {
        table #features role="grid" aria-label="Features and what each sieve did to them" {
            thead { tr {
                th scope="col" { "Feature" }
                th .place scope="col" { "Bit" }
                @for stage in stages() { th .st .(class(Some(stage))) scope="col" { (brief(stage)) } }
            } }
            @for section in sections(ways) { (rows(&section, ways)) }
        }
    }
}

/// A stage's name in a narrow column.
const fn brief(stage: Stage) -> &'static str {
    match stage {
        Stage::Host => "host",
        Stage::Guest => "guest",
        other => heading(other),
    }
}

fn rows(section: &Section, ways: &Ways) -> Markup {
    let first = section.members.first().and_then(|&at| ways.ways.get(at));
    let why = first.and_then(cause);
    let columns = ways.until as usize + 3;
    html! {
        tbody .(section.fate.name()) data-g=(section.id) {
            tr .head { th colspan=(columns) scope="rowgroup" {
                span .count { (section.members.len()) " " (section.fate.name()) }
                @if let Some(why) = why {
                    @if let Some(at) = why.at { " at " span .at .(class(why.at)) { (heading(at)) } }
                    " · " span .why { (why.title) }
                    @if !why.rule.is_empty() { " " span .rule { (why.rule) } }
                }
            } }
            @for &at in &section.members {
                @if let Some(way) = ways.ways.get(at) { (row(at, way, ways.until)) }
            }
        }
    }
}

fn row(at: usize, way: &Way, until: Stage) -> Markup {
    html! {
        tr .way data-f=(at) tabindex="-1" {
            th scope="row" { (way.feature) }
            td .place { @if let Some(place) = way.place { (short_place(place)) } }
            @for (stage, cell) in Stage::ALL.into_iter().zip(way.cells()).filter(|(stage, _)| *stage <= until) {
                td .(mark(cell)) .(class(Some(stage))) { (cell.name()) }
            }
        }
    }
}

/// The bit, as short as the manuals allow.
fn short_place(place: cpusieve_model::Place) -> String {
    match place {
        cpusieve_model::Place::Cpuid(bit) => format!("{bit:#}"),
        other => other.to_string(),
    }
}

const fn mark(cell: Cell) -> &'static str {
    match cell {
        Cell::Did(Effect::Kept) => "k",
        Cell::Did(Effect::Dropped) => "d",
        Cell::Did(Effect::Added) => "a",
        Cell::Did(Effect::Forced) => "f",
        Cell::Did(Effect::Unknown) => "u",
        Cell::Passed => "p",
        Cell::Nothing => "n",
    }
}
