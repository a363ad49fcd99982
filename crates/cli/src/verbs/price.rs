//! `price [FEATURE...]`: what CPU features are worth here.

mod chosen;
mod exits;
mod guests;
mod json;
mod list;
mod rest;
mod text;

use std::io;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use cpusieve_knowledge::x86;
use cpusieve_price::features::{UNSEEN, works};
use cpusieve_price::measure::Progress;
use cpusieve_price::report::{Report, Why};
use cpusieve_price::survey::survey;
use cpusieve_probe::signals;

use super::{Done, Failure};
use crate::args::{PriceOptions, PricePart};
use crate::json::pretty;
use crate::page;
use rest::Rest;

/// Between two lines of progress.
const TURN: Duration = Duration::from_millis(200);

pub(crate) fn run(options: &PriceOptions, as_json: bool) -> Result<Done, Failure> {
    let features = features(&options.features)?;
    if options.list {
        page::print(&if as_json { list::json(&features) } else { list::text(&features, page::width()) })?;
        return Ok(Done::Same);
    }
    if !options.guests.cpu.is_empty() {
        return guests::run(&options.guests, (options.seconds / 4).max(1), as_json);
    }
    signals::catch()?;
    let budget = Duration::from_secs(options.seconds);
    let mut line = Line::new(budget);
    let all = features.is_empty() && options.only.is_none();
    let wanted = |part: PricePart| all || options.only == Some(part);
    let rest = Rest::measure(wanted, &mut |next| line.say(next));
    let report = (wanted(PricePart::Features) || !features.is_empty()).then(|| {
        survey(&features, budget, &mut |progress| {
            line.show(&progress);
            !signals::interrupted()
        })
    });
    line.clear();
    let text = if as_json {
        let mut fields = report.as_ref().map(json::report).unwrap_or_default();
        fields.entry("format").or_insert(1.into());
        rest.add_to(&mut fields);
        pretty(&fields.into())
    } else {
        let text = report.as_ref().map(|report| text::report(report, page::width())).unwrap_or_default();
        (text + &rest.text(page::width())).trim_start().to_owned()
    };
    page::print(&text)?;
    let cut = if signals::interrupted() { Done::InPart } else { Done::Same };
    Ok(report.as_ref().map_or(cut, |report| done(report, !features.is_empty())))
}

/// What the first process of a guest that [`guests`] has booted adds to its report: the features and the exits, as one
/// line of JSON.
pub(crate) fn inside(port: &mut impl io::Write) -> io::Result<()> {
    let Some(seconds) = cpusieve_price::guests::seconds() else { return Ok(()) };
    let rest = Rest::measure(|part| part == PricePart::Exits, &mut |_| {});
    let mut fields = json::report(&survey(&[], Duration::from_secs(seconds), &mut |_| true));
    rest.add_to(&mut fields);
    writeln!(port, "@{}\n{}", cpusieve_price::guests::SECTION, serde_json::Value::Object(fields))
}

/// Whether all that was asked for was done. What this CPU lacks is missing only if it was asked for by name.
fn done(report: &Report, named: bool) -> Done {
    let cut = |why: &Why| matches!(why, Why::NoTime | Why::Wrong(_));
    let in_part = report.unpriced.iter().any(|left| named || cut(&left.why)) || signals::interrupted();
    if in_part { Done::InPart } else { Done::Same }
}

/// The ids of features that have work, or of which it is known why they have none.
fn features(names: &[String]) -> Result<Vec<&'static str>, Failure> {
    let priced: Vec<&str> = works().iter().map(|work| work.feature).chain(UNSEEN.iter().map(|row| row.0)).collect();
    let mut ids = Vec::new();
    for name in names {
        let found = x86::resolve(name);
        let Some(feature) = found.iter().find(|feature| priced.contains(&feature.id)).or(found.first()) else {
            return Err(page::tame(&unknown(name, &priced)).into());
        };
        if !priced.contains(&feature.id) {
            let text = format!("no work here uses {}; `cpusieve price --list` shows what is priced", feature.id);
            return Err(text.into());
        }
        if !ids.contains(&feature.id) {
            ids.push(feature.id);
        }
    }
    Ok(ids)
}

fn unknown(name: &str, priced: &[&str]) -> String {
    let near: Vec<&str> = x86::suggest(name).into_iter().filter(|id| priced.contains(id)).collect();
    match near.as_slice() {
        [] => format!("`{name}` is no feature that is known; `cpusieve price --list` shows what is priced"),
        near => format!("`{name}` is no feature that is known; near it: {}", near.join(", ")),
    }
}

/// One line on standard error that says how far it is, where somebody looks.
struct Line {
    budget: Duration,
    shown: Option<Instant>,
    seen: bool,
}

impl Line {
    fn new(budget: Duration) -> Self {
        Self { budget, shown: None, seen: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: &Progress) {
        if !self.seen || self.shown.is_some_and(|shown| shown.elapsed() < TURN) {
            return;
        }
        self.shown = Some(Instant::now());
        let Progress { work, done, works, elapsed } = progress;
        let (now, all) = (elapsed.as_secs(), self.budget.as_secs());
        // Nothing can be said any more when standard error is gone.
        let _ = write!(io::stderr(), "\r\u{1b}[K{done} of {works} done, {now} s of at most {all} s: {work}");
    }

    /// Says what is done that has no end in sight.
    fn say(&mut self, what: &str) {
        if self.seen {
            self.shown = Some(Instant::now());
            // Nothing can be said any more when standard error is gone.
            let _ = write!(io::stderr(), "\r\u{1b}[K{what}");
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
