//! Feeds bytes to the reader of imported kernel trees; what must hold is in `StoredTree::check_any`.
#![no_main]

use cpusieve_import::stored::StoredTree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = StoredTree::check_any(bytes) {
        panic!("{broken}");
    }
});
