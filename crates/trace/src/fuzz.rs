//! What must hold for every text, however hostile: one function for the fuzz target and for the ordinary tests.

use crate::count::{Counts, MAX_CALLS, MAX_IOCTLS, MAX_ROWS, Tally};
use crate::exec::elf::places;
use crate::read::{Form, MAX_FRAMES, Reader, read};

/// Reads `bytes` in every way and says which invariant is broken, if one is: tables are bounded, a second reading and a
/// reading in pieces give the same.
///
/// # Errors
///
/// The invariant that does not hold, in words.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let text = read(bytes);
    if read(bytes) != text {
        return Err("two readings differ".to_owned());
    }
    // Places of CPUID in what is no program.
    let places = places(bytes);
    if places.certain.iter().chain(&places.doubtful).any(|&at| bytes.get(at as usize) != Some(&0x0f)) {
        return Err("a place that holds something else".to_owned());
    }
    let mut pieces = Counts::default();
    let mut reader = Reader::default();
    let size = bytes.first().map_or(1, |&byte| usize::from(byte % 7) + 1);
    bytes.chunks(size).for_each(|chunk| reader.push(chunk, &mut |event| pieces.add(event)));
    reader.finish(&mut |event| pieces.add(event));
    bounded(&pieces)?;
    let Some(text) = text else { return Ok(()) };
    if text.form == Form::Events && text.counts != pieces {
        return Err("a reading in pieces differs".to_owned());
    }
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    if text.ignored > lines || text.first_ignored.is_some_and(|line| line == 0 || line > lines) {
        return Err(format!("{} of {lines} lines ignored, the first is {:?}", text.ignored, text.first_ignored));
    }
    bounded(&text.counts)
}

fn bounded(counts: &Counts) -> Result<(), String> {
    let rows = [
        counts.tasks.len(),
        rows(&counts.guests.cpuid),
        rows(&counts.guests.exits),
        rows(&counts.guests.rips),
        rows(&counts.host.calls),
        rows(&counts.host.stacks),
    ];
    let ioctls = &counts.host.ioctls;
    let long = counts.host.stacks.rows().any(|((stack, _), _)| stack.len() > MAX_FRAMES);
    if long || rows.iter().any(|&rows| rows > MAX_ROWS) || ioctls.len() > MAX_IOCTLS {
        return Err(format!("tables of {rows:?} rows, {} ioctls", ioctls.len()));
    }
    match ioctls.iter().find(|ioctl| ioctl.calls.len() > MAX_CALLS) {
        Some(ioctl) => Err(format!("an ioctl of {} calls", ioctl.calls.len())),
        None => Ok(()),
    }
}

fn rows<K: Ord>(tally: &Tally<K>) -> usize {
    tally.rows().count()
}
