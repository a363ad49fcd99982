//! kvm

include!(concat!(env!("OUT_DIR"), "/kvm.rs"));
