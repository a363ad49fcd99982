//! What is said in the sieve picture: names of sieves, titles of groups, flags, in lines that fit.

use cpusieve_answers::reason::Confidence;
use cpusieve_model::Stage;

use crate::way::{Group, Side, Ways};

/// Columns of a character: flags are monospaced, of titles this is more than most have.
pub(super) const FLAG: f64 = 6.75;
pub(super) const LETTER: f64 = 6.25;
pub(super) const LINE: f64 = 15.0;
/// Lines of flags of one group; the rest is counted.
const MOST: usize = 7;
/// The longest name that is shown whole.
const LONGEST: usize = 34;

/// A line of text: words, or flags.
pub(super) struct Line {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) class: &'static str,
    pub(super) text: String,
    /// Positions of ways.
    pub(super) flags: Vec<usize>,
}

/// A stage's name as a heading.
pub(crate) const fn heading(stage: Stage) -> &'static str {
    match stage {
        Stage::Silicon => "Silicon",
        Stage::Host => "Host kernel",
        Stage::Kvm => "KVM",
        Stage::Qemu => "QEMU",
        Stage::Vcpu => "vCPU",
        Stage::Guest => "Guest kernel",
    }
}

/// The class that gives a sieve its colour; `None` is what nobody explains.
pub(crate) const fn class(stage: Option<Stage>) -> &'static str {
    match stage {
        Some(Stage::Silicon) => "s-silicon",
        Some(Stage::Host) => "s-host",
        Some(Stage::Kvm) => "s-kvm",
        Some(Stage::Qemu) => "s-qemu",
        Some(Stage::Vcpu) => "s-vcpu",
        Some(Stage::Guest) => "s-guest",
        None => "s-unknown",
    }
}

/// A name that may be as long as an input likes.
pub(crate) fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// What is said of a group: a line of its title, or of its flags.
pub(super) enum Said {
    /// The flags and the title in one line.
    Both(Vec<usize>, String),
    Title(String),
    Flags(Vec<usize>),
    More(String),
}

/// The title and the flags of a group, in lines of at most `width` pixels.
pub(super) fn said(group: &Group, ways: &Ways, width: f64) -> Vec<Said> {
    let title = title(group, ways);
    if group.members.len() <= 2 {
        let letters: usize =
            group.members.iter().filter_map(|&at| ways.ways.get(at)).map(|way| short(&way.feature).len() + 1).sum();
        if letters as f64 * FLAG + 10.0 + title.chars().count() as f64 * LETTER <= width {
            return vec![Said::Both(group.members.clone(), title)];
        }
    }
    let mut said: Vec<Said> = wrap(&title, (width / LETTER) as usize).into_iter().map(Said::Title).collect();
    let room = ((width / FLAG) as usize).max(8);
    let (mut line, mut used, mut rows, mut shown) = (Vec::new(), 0, 0, 0);
    for &member in &group.members {
        let Some(way) = ways.ways.get(member) else { continue };
        let length = short(&way.feature).chars().count();
        if used > 0 && used + 1 + length > room {
            said.push(Said::Flags(std::mem::take(&mut line)));
            rows += 1;
            used = 0;
            if rows == MOST {
                break;
            }
        }
        used += length + usize::from(used > 0);
        line.push(member);
        shown += 1;
    }
    if line.is_empty() {
        let more = group.members.len() - shown;
        if more > 0 {
            said.push(Said::More(format!("and {more} more")));
        }
    } else {
        said.push(Said::Flags(line));
    }
    said
}

/// How many, and by which rule.
pub(super) fn title(group: &Group, ways: &Ways) -> String {
    let first = group.members.first().and_then(|&at| ways.ways.get(at));
    let Some(cause) = first.and_then(|way| way.cause(group.side)) else { return String::new() };
    if group.rules > 1 {
        let what = match (group.side, group.at) {
            (Side::Leaves, _) => "for other reasons",
            (Side::Enters, Some(Stage::Host | Stage::Guest)) => "set by the kernel itself",
            (Side::Enters, _) => "added here",
        };
        return format!("{} · {what}, by {} rules", group.members.len(), group.rules);
    }
    let count = if group.members.len() > 1 { format!("{} · ", group.members.len()) } else { String::new() };
    let doubt = match cause.confidence {
        Some(Confidence::Likely) => " (likely)",
        Some(Confidence::Possible) => " (possible)",
        _ => "",
    };
    format!("{count}{}{doubt}", cause.title)
}

/// Lines of at most `columns` letters.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns.max(12) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The lines, from a place on downwards.
pub(super) fn lines(said: Vec<Said>, x: f64, mut y: f64) -> Vec<Line> {
    let one = |said| {
        let (class, text, flags) = match said {
            Said::Both(flags, text) => ("both", text, flags),
            Said::Title(text) => ("title", text, Vec::new()),
            Said::Flags(flags) => ("flags", String::new(), flags),
            Said::More(text) => ("more", text, Vec::new()),
        };
        let line = Line { x, y, class, text, flags };
        y += LINE;
        line
    };
    said.into_iter().map(one).collect()
}
