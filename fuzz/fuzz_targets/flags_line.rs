//! Feeds bytes to the parser of one format; what must hold is in `cpusieve_formats::fuzz::check`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = cpusieve_formats::fuzz::check(Some(cpusieve_formats::Format::FlagsLine), bytes) {
        panic!("{broken}");
    }
});
