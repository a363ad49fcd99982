//! qemu

include!(concat!(env!("OUT_DIR"), "/qemu.rs"));
