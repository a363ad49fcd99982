//! `trace`: CPUID live.

mod exec;
mod json;
mod text;

use std::io::IsTerminal;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_model::{Snapshot, Stage};
use cpusieve_probe::signals;
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_trace::count::{Compared, Counts};
use cpusieve_trace::read;
use cpusieve_trace::tracefs::{Mounted, Refusal};
use cpusieve_trace::watch::Watch;

use super::{Done, Failure, record};
use crate::args::{TraceOptions, Whose};
use crate::{input, page};

/// Between two looks at the live view.
const REFRESH: Duration = Duration::from_secs(1);

/// The longest wait: what a signal interrupts just before it begins is noticed afterwards.
const TURN: Duration = Duration::from_millis(100);

/// What is shown.
pub(super) struct Seen {
    whose: Whose,
    /// Where the counts come from, in words.
    source: String,
    /// How long was watched; `None` for what others recorded.
    time: Option<Duration>,
    counts: Counts,
    /// How KVM's own calls compare with the prediction, and how many calls a complete ioctl makes.
    compared: Option<(Compared, usize)>,
    /// What is doubtful about this.
    doubts: Vec<String>,
}

pub(crate) fn run(options: &TraceOptions, as_json: bool) -> Result<Done, Failure> {
    if options.whose == Whose::Exec {
        return exec::run(options, as_json);
    }
    if !options.command.is_empty() {
        return Err("a program is traced by `trace exec -- CMD`".into());
    }
    let seen = match &options.from {
        Some(path) => from_file(path, options)?,
        None => match live(options, as_json)? {
            Ok(seen) => seen,
            Err(refusal) => return refused(options.whose, &refusal, as_json),
        },
    };
    page::print(&if as_json { json::counts(&seen) } else { text::counts(&seen, page::width()) })?;
    Ok(match (seen.compared.as_ref().is_some_and(|(compared, _)| !compared.other.is_empty()), seen.doubts.is_empty()) {
        (true, _) => Done::Different,
        (false, true) => Done::Same,
        (false, false) => Done::InPart,
    })
}

fn from_file(path: &Path, options: &TraceOptions) -> Result<Seen, Failure> {
    let name = input::name(path);
    let bytes = input::bytes(path, &name)?;
    let Some(read::Text { form, counts, ignored, first_ignored }) = read::read(&bytes) else {
        return Err(format!("{name}: neither a trace, nor a histogram, nor stack counts, nor bpftrace maps").into());
    };
    let mut doubts = doubts(&counts);
    if let Some(line) = first_ignored {
        let lines = page::counted(usize::try_from(ignored).unwrap_or(usize::MAX), "line");
        doubts.push(format!("{name}: {lines} not understood, the first is line {line}"));
    }
    // A file tells what it is about.
    let is_host = counts.guests.cpuid.is_empty() && counts.guests.exits.is_empty() && counts.guests.rips.is_empty();
    let whose = if is_host { Whose::Host } else { Whose::Guests };
    let compared = match &options.host {
        Some(host) => compare(&counts, &input::read_for_boot(host)?)?,
        None => None,
    };
    Ok(Seen { whose, source: format!("{name} ({form})"), time: None, counts, compared, doubts })
}

/// Nothing could be watched: a finding, with what would be needed.
fn refused(whose: Whose, refusal: &Refusal, as_json: bool) -> Result<Done, Failure> {
    if as_json {
        page::print(&json::refused(whose, refusal))?;
    } else {
        page::complain(refusal);
    }
    Ok(Done::InPart)
}

fn watch(options: &TraceOptions) -> Result<Watch, Refusal> {
    let files = Rc::new(Mounted::find()?);
    match options.whose {
        Whose::Host => Watch::host(files, options.functions),
        Whose::Guests | Whose::Exec => Watch::guests(files, options.events),
    }
}

fn live(options: &TraceOptions, as_json: bool) -> Result<Result<Seen, Refusal>, Failure> {
    signals::catch()?;
    let mut watch = match watch(options) {
        Ok(watch) => watch,
        Err(refusal) => return Ok(Err(refusal)),
    };
    for left in &watch.swept().removed {
        page::warn(&format!("removed what a killed cpusieve had left in tracefs: {left}"));
    }
    for left in &watch.swept().failed {
        page::warn(&format!("a killed cpusieve has left in tracefs: {left}"));
    }
    let source = watch.source();
    let started = Instant::now();
    let view = !as_json && std::io::stdout().is_terminal();
    let (mut problem, mut gone) = (None, false);
    let mut shown = started;
    while !signals::interrupted() && options.duration.is_none_or(|duration| started.elapsed() < duration) {
        let left = options.duration.map_or(TURN, |duration| duration.saturating_sub(started.elapsed()));
        if let Err(refusal) = watch.turn(left.min(TURN)) {
            // It is as gone at the end.
            gone = matches!(refusal, Refusal::Gone { .. });
            problem = Some(refusal.to_string());
            break;
        }
        if view && shown.elapsed() >= REFRESH {
            shown = Instant::now();
            let (whose, time) = (options.whose, Some(started.elapsed()));
            let counts = watch.counts().clone();
            let source = source.name().to_owned();
            let seen = Seen { whose, source, time, counts, compared: None, doubts: Vec::new() };
            page::print(&format!("{}{}", text::CLEAR, text::counts(&seen, page::width())))?;
        }
    }
    let time = Some(started.elapsed());
    let (counts, ended) = watch.end();
    let mut doubts = doubts(&counts);
    doubts.extend(problem);
    doubts.extend(ended.err().map(|refusal| refusal.to_string()).filter(|_| !gone));
    if view {
        page::print(text::CLEAR)?;
    }
    let compared = match &options.host {
        _ if options.whose != Whose::Host || counts.host.ioctls.is_empty() => None,
        Some(host) => compare(&counts, &input::read_for_boot(host)?)?,
        // Only now: this asks KVM itself.
        None => compare(&counts, &(record::this_machine(), Unlisted::NotSeen))?,
    };
    Ok(Ok(Seen { whose: options.whose, source: source.name().to_owned(), time, counts, compared, doubts }))
}

/// Compares KVM's own calls with those that one ioctl must make on a host.
fn compare(counts: &Counts, host: &(Snapshot, Unlisted)) -> Result<Option<(Compared, usize)>, Failure> {
    if counts.host.ioctls.is_empty() {
        return Ok(None);
    }
    let (snapshot, unlisted) = host;
    let kernel = Kernel { unlisted: *unlisted, ..Kernel::new(Stage::Host) };
    let predicted = kvm::predict(snapshot, &kvm::Question::new(kernel))?;
    let calls: Vec<_> = predicted.calls.iter().map(|call| (call.leaf, call.subleaf)).collect();
    Ok((!calls.is_empty()).then(|| (counts.host.against(&calls), calls.len())))
}

/// What makes the counts doubtful.
fn doubts(counts: &Counts) -> Vec<String> {
    let lost = counts.lost;
    let events = lost.events;
    let more = if lost.more { " or more" } else { "" };
    let mut doubts = Vec::new();
    if lost.any() {
        doubts.push(format!("{events}{more} events were lost: the counts are too low"));
    }
    if counts.guests.all_exits.is_some() && counts.guests.exit_count().is_none() {
        doubts.push(
            "this KVM reports fewer exits than CPUIDs: it does not trace them all, so there is no share".to_owned(),
        );
    }
    let tables = [counts.guests.cpuid.other(), counts.guests.exits.other(), counts.guests.rips.other()];
    let host = [counts.host.calls.other(), counts.host.stacks.other()];
    let other = tables.into_iter().chain(host).fold(0, u64::saturating_add);
    if other > 0 {
        doubts.push(format!("{other} events have no row of their own: there were too many kinds"));
    }
    doubts
}
