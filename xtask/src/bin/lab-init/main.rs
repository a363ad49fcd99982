//! `/init` of the laboratory's guests: tells what the guest's CPU and kernel say, then restarts, which ends QEMU.
//!
//! It is `cpusieve_probe::guest`'s, with more to tell: a guest with a plan in its file system is itself a host of guests
//! (`nested`), whose reports it passes on. A section begins with a line `@name`; the last one is `@end`, without which the
//! report is not whole.
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "it is all of a guest's user land")]

mod kills;
mod nested;
mod program;
mod raw;

use std::fs;
use std::io;

use cpusieve_probe::guest;

fn main() {
    let Some(port) = guest::port() else {
        eprintln!("lab-init: it is the first process of the laboratory's guests and of use nowhere else");
        return;
    };
    let error = guest::run_with(port.as_ref(), |port| match fs::read_to_string(nested::PLAN) {
        Ok(plan) => nested::run(&plan, port).map_err(|error| io::Error::other(error.to_string())),
        Err(_) => Ok(()),
    });
    eprintln!("lab-init: {error}");
}
