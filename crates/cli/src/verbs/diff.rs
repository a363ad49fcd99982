//! `diff A B`: every flag lost and gained, by whom, and what brings it back.

use std::fmt::Write as _;
use std::path::Path;

use cpusieve_answers::diff::{self, Diff, NoDiff, Relation};

use super::flags::{self, Side};
use super::{Done, Failure};
use crate::args::DiffOptions;
use crate::input::{self, InputError};
use crate::json;
use crate::page::{self, HEAD, QUIET, styled};
use crate::worth::Worths;

pub(crate) fn run(options: &DiffOptions, as_json: bool) -> Result<Done, Failure> {
    if options.a == Path::new("-") && options.b == Path::new("-") {
        return Err(InputError::TwiceStandardInput.into());
    }
    let (a, b) = (input::read(&options.a)?, input::read(&options.b)?);
    let found = diff::diff(&a, &b).map_err(|why| no_diff(why, &options.a, &options.b))?;
    let worths = Worths::known(options.price.file.as_deref())?;
    if as_json {
        page::print(&json::diff(&found, &worths))?;
    } else {
        page::print(&text(&found, options, &worths, page::width()))?;
    }
    let done = if found.lost.is_empty() && found.gained.is_empty() { Done::Same } else { Done::Different };
    // The program ends here: the system takes the memory back faster than thousands of small pieces are freed.
    std::mem::forget((a, b, found));
    Ok(done)
}

/// Why two ends cannot be compared.
pub(super) fn no_diff(why: NoDiff, first: &Path, second: &Path) -> String {
    let path = match why {
        NoDiff::NothingInFirst => first,
        NoDiff::NothingInSecond => second,
    };
    format!("{}: neither a flags line nor CPUID is in it, so there is nothing to compare", path.display())
}

/// The page: one line of summary, what was assumed, then the flags by cause.
fn text(diff: &Diff, options: &DiffOptions, worths: &Worths, width: usize) -> String {
    let mut page = String::new();
    if diff.relation == Relation::Equal {
        let _ =
            writeln!(page, "{}", styled(HEAD, format!("The same: both show {}.", page::counted(diff.kept, "flag"))));
        return page;
    }
    let counts = format!("{} lost, {} gained, {} kept", diff.lost.len(), diff.gained.len(), diff.kept);
    let relation = format!("{}.", diff.relation.describe());
    page.push_str(&page::wrap(&relation, &format!("{}: ", styled(HEAD, counts)), "  ", width));
    if !diff.assumed.is_empty() {
        let concluded = format!("{}: concluded from what the two show.", flags::assumed(&diff.assumed));
        page.push_str(&styled(QUIET, page::wrap(&concluded, "", "", width).trim_end()));
        page.push('\n');
    }
    for (items, side) in [(&diff.lost, Side::Lost), (&diff.gained, Side::Gained)] {
        flags::side(&mut page, items, side, options.long, width);
        if let Some(line) = worths.line(items.iter().map(|item| item.flag.as_str())) {
            let first = format!("{}  ", styled(HEAD, "worth"));
            page.push('\n');
            page.push_str(&page::wrap(&line, &first, "  ", width));
        }
    }
    if !diff.undecided.is_empty() {
        let names = format!(
            "{} more that one end shows and the other cannot tell: {}",
            diff.undecided.len(),
            diff.undecided.join(" ")
        );
        page.push('\n');
        page.push_str(&page::wrap(&names, "", "  ", width));
    }
    if !diff.unknown.is_empty() {
        let count = page::counted(diff.unknown.len(), "flag");
        let names = format!("{count} that no kernel known to cpusieve prints: {}", diff.unknown.join(" "));
        page.push('\n');
        page.push_str(&page::wrap(&names, "", "  ", width));
    }
    page
}
