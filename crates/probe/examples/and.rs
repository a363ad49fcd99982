//! The yardstick of packed fleets: maps a file and takes the AND of its first bytes, as 32-bit words. Nothing that reads
//! these bytes on one core can be faster.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "an example of effects that says what it found")]

use std::error::Error;
use std::fs::File;

use cpusieve_probe::Mapped;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("which file?")?;
    let length: usize = arguments.next().map_or(Ok(usize::MAX), |length| length.parse())?;
    let mapped = Mapped::of(&File::open(file)?)?;
    let bytes = mapped.as_ref();
    let (words, _) = bytes.get(..length.min(bytes.len())).unwrap_or(bytes).as_chunks::<4>();
    let all = words.iter().fold(u32::MAX, |all, word| all & u32::from_le_bytes(*word));
    println!("{all:#010x} of {} bytes", words.len() * 4);
    Ok(())
}
