//! Feeds bytes to the reader of pasted errors; what must hold is in `cpusieve_answers::message::fuzz::check`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = cpusieve_answers::message::fuzz::check(bytes) {
        panic!("{broken}");
    }
});
