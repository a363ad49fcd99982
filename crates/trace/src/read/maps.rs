//! Maps as `bpftrace` prints them when it ends.

use super::{MAX_FRAMES, MAX_LINE, Skipped, frame, of_stack};
use crate::count::Counts;
use crate::event::{Event, What, hexadecimal};

/// Counts the maps of a text.
///
/// Numbers among a map's keys are the leaf and the subleaf, in this order, of whatever the map's name speaks: `@guest...`,
/// `@kvm_cpuid...` and `@exit...` of guests, all others of `do_host_cpuid`. A word among the keys is the thread's name. A
/// stack makes the count one of KVM's own calls.
pub(super) fn count(text: &str, counts: &mut Counts) -> Skipped {
    let mut skipped = Skipped::default();
    let mut open: Option<(Key<'_>, Vec<String>)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with("Attach") || line == "^C" {
            continue;
        }
        if line.len() > MAX_LINE {
            skipped.line(number);
        } else if let Some((key, stack)) = &mut open {
            match line.trim_start().rsplit_once("]: ") {
                Some((words, value)) => {
                    key.words.extend(words.split(',').map(str::trim).filter(|word| !word.is_empty()));
                    let (key, stack) = (std::mem::take(key), std::mem::take(stack));
                    open = None;
                    if !add(&key, &stack, value, counts) {
                        skipped.line(number);
                    }
                }
                None if stack.len() < MAX_FRAMES => stack.push(frame(line).to_owned()),
                None => {}
            }
        } else if let Some((name, rest)) = line.strip_prefix('@').and_then(|line| line.split_once('[')) {
            let mut key = Key { name, words: Vec::new() };
            match rest.rsplit_once("]: ") {
                Some((words, value)) => {
                    key.words.extend(words.split(',').map(str::trim).take(8));
                    if !add(&key, &[], value, counts) {
                        skipped.line(number);
                    }
                }
                None => {
                    key.words.extend(rest.split(',').map(str::trim).filter(|word| !word.is_empty()).take(8));
                    open = Some((key, Vec::new()));
                }
            }
        } else if let Some((name, value)) = line.strip_prefix('@').and_then(|line| line.split_once(": ")) {
            if !add(&Key { name, words: Vec::new() }, &[], value, counts) {
                skipped.line(number);
            }
        } else {
            skipped.line(number);
        }
    }
    skipped
}

/// A map's name and keys.
#[derive(Default)]
struct Key<'a> {
    name: &'a str,
    words: Vec<&'a str>,
}

/// Counts one element; `false` if its value is no number.
fn add(key: &Key<'_>, stack: &[String], value: &str, counts: &mut Counts) -> bool {
    let Ok(count) = value.trim().parse() else { return false };
    let number = |word: &&str| if word.starts_with("0x") { hexadecimal(word) } else { word.parse().ok() };
    let mut numbers = key.words.iter().filter_map(number).filter_map(|number| u32::try_from(number).ok());
    let asked = numbers.next().map(|leaf| (leaf, numbers.next()));
    let comm = key.words.iter().find(|word| number(word).is_none()).copied().unwrap_or("");
    let of_guest = ["guest", "kvm_cpuid", "exit"].iter().any(|word| key.name.contains(word));
    let what = match asked {
        Some((leaf, subleaf)) if of_guest && stack.is_empty() => What::Cpuid { leaf, subleaf, found: None },
        _ if of_guest => What::Other,
        asked if stack.is_empty() => What::HostCpuid { asked, stack: &[] },
        asked => of_stack(asked, stack),
    };
    counts.add_many(&Event { comm, pid: None, what }, count);
    true
}
