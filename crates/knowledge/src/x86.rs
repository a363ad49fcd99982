//! x86

include!(concat!(env!("OUT_DIR"), "/x86.rs"));
