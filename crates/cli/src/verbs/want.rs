//! `want`: how to get flags, the smallest change first.

mod domain;
mod firecracker;
mod json;
mod kubevirt;
mod libvirt;
mod openstack;
mod paste;
mod proxmox;
mod qemu;
mod text;

use std::path::{Path, PathBuf};

use cpusieve_answers::want::{Answer, Wish, want};
use cpusieve_knowledge::x86;

use super::{Done, Failure};
use crate::args::{To, WantOptions};
use crate::input;
use crate::page;
use crate::worth::Worths;
use paste::{Paste, Target};

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// Only one operand was given, and no flag with `--without`.
    #[error("`{0}` stands alone: name the flags that are wanted and then the host's file; `-` is standard input")]
    NoInput(String),
    /// A flag is wanted and unwanted.
    #[error("{0} is wanted and unwanted at once")]
    Contradiction(&'static str),
}

pub(crate) fn run(options: &WantOptions, as_json: bool) -> Result<Done, Failure> {
    let (flags, path) = operands(options)?;
    let wishes = wishes(&flags, &options.without)?;
    let worths = Worths::known(options.price.file.as_deref())?;
    let (snapshot, unlisted) = input::read_for_boot(path)?;
    let route = options.route.route(unlisted);
    let answer = want(&snapshot, &route, &wishes).map_err(|refusal| format!("{}: {refusal}", input::name(path)))?;
    let vendor = snapshot.vendor();
    let pastes = pastes(&answer, &wishes, options.to.unwrap_or(To::Qemu), vendor);
    let granted = answer.nothing_to_do() || !answer.solutions.is_empty();
    let mut done = if granted { Done::Same } else { Done::Different };
    if as_json {
        page::print(&json::answer(&answer, &wishes, &worths, options.to.unwrap_or(To::Qemu), &pastes))?;
    } else if let Some(to) = options.to.filter(|_| granted) {
        done = alone(&answer, &pastes, to)?;
    } else {
        page::print(&text::answer(&answer, &wishes, &worths, page::width()))?;
    }
    Ok(done)
}

/// The flags, and the file behind them.
fn operands(options: &WantOptions) -> Result<(Vec<String>, &Path), Refusal> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    match options.flags_and_input.split_last() {
        Some((input, flags)) if !flags.is_empty() || !options.without.is_empty() => {
            Ok((flags.iter().map(text).collect(), input))
        }
        last => Err(Refusal::NoInput(last.map_or_else(String::new, |(input, _)| page::tame(&text(input))))),
    }
}

/// The features that the names stand for; of several the likeliest, which is then said.
fn wishes(wanted: &[String], unwanted: &[String]) -> Result<Vec<Wish>, Failure> {
    let mut wishes: Vec<Wish> = Vec::new();
    let words = wanted.iter().map(|word| (word, true)).chain(unwanted.iter().map(|word| (word, false)));
    for (word, present) in words {
        let (features, _) = super::name::called(word)?;
        let Some((&feature, others)) = features.split_first() else { continue };
        if !others.is_empty() {
            let others: Vec<&str> = others.iter().map(|other: &&x86::Feature| other.id).collect();
            page::warn(&format!("{word} is taken for {}; it may also mean {}", feature.id, others.join(", ")));
        }
        match wishes.iter().find(|other| other.feature.id == feature.id) {
            Some(other) if other.present != present => return Err(Refusal::Contradiction(feature.id).into()),
            Some(_) => {}
            None => wishes.push(Wish { feature, present }),
        }
    }
    Ok(wishes)
}

/// What is pasted for each solution, or for the start if there is nothing to do.
fn pastes(answer: &Answer, wishes: &[Wish], to: To, vendor: Option<cpusieve_model::Vendor>) -> Vec<Paste> {
    let target = |settings, guest, changes| Target { settings, guest, start: &answer.start, changes, wishes, vendor };
    if answer.nothing_to_do() {
        return vec![paste::paste(to, &target(&answer.settings, &answer.start, &[]))];
    }
    let each = answer.solutions.iter();
    each.map(|solution| paste::paste(to, &target(&solution.settings, &solution.guest, &solution.changes))).collect()
}

/// The first solution that the system can express whole, or else the first; what else there is to know goes to standard
/// error.
fn alone(answer: &Answer, pastes: &[Paste], to: To) -> Result<Done, Failure> {
    let whole = pastes.iter().position(|paste| paste.beyond.is_empty());
    let chosen = whole.unwrap_or(0);
    let Some(paste) = pastes.get(chosen) else { return Ok(Done::Different) };
    page::print(&paste.text)?;
    paste.beyond.iter().for_each(|beyond| page::warn(beyond));
    paste.note.iter().for_each(|note| page::warn(note));
    // Firecracker is told bits, whatever QEMU would have to be told.
    if let Some(solution) = answer.solutions.get(chosen).filter(|_| to != To::Firecracker) {
        text::sacrifices(&solution.price).iter().for_each(|(what, words)| page::warn(&format!("{what}: {words}")));
    }
    Ok(if paste.impossible { Done::Different } else { Done::Same })
}
