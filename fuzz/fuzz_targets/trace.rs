//! Feeds bytes to the readers of traces; what must hold is in `cpusieve_trace::fuzz::check`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = cpusieve_trace::fuzz::check(bytes) {
        panic!("{broken}");
    }
});
