//! Feeds bytes to the recogniser and whichever parser it chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = cpusieve_formats::fuzz::check(None, bytes) {
        panic!("{broken}");
    }
});
