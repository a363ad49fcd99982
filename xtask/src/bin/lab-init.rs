//! `/init` of the laboratory's guests: tells what the guest's CPU and kernel say, then restarts, which ends QEMU. It is
//! what `cpusieve` itself does in the guests of `cpusieve verify`, in a smaller file.
#![allow(clippy::print_stderr, reason = "it is all of a guest's user land")]

use std::path::Path;

fn main() {
    // What it tells goes to the second serial port, so that no kernel message can come between.
    let error = cpusieve_probe::guest::run(Path::new("ttyS1"));
    eprintln!("lab-init: {error}");
}
