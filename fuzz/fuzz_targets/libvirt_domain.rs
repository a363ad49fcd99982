//! Feeds bytes to the parser of libvirt's domains; what must hold is in `cpusieve_formats::fuzz::check_domain`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = cpusieve_formats::fuzz::check_domain(bytes) {
        panic!("{broken}");
    }
});
