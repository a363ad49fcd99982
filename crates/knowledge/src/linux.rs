//! linux

include!(concat!(env!("OUT_DIR"), "/linux.rs"));
