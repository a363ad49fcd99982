//! libvirt's arithmetic of CPUs: what `virsh` computes from `<cpu>` elements.
//!
//! A definition names a model of libvirt's CPU map and features with policies; what the names mean comes from
//! [`cpusieve_knowledge::libvirt`]. Features that a model lists as `added` or `removed` do not count. Each function here
//! is one of `src/cpu/cpu_x86.c`, which its comment names; sets, errors and chosen names are libvirt's own.
//!
//! ```
//! use cpusieve_fleet::libvirt::{Cpu, Policy, baseline};
//! use cpusieve_knowledge::libvirt::newest;
//!
//! let host = |model: &str| Cpu { arch: Some("x86_64".to_owned()), model: Some(model.to_owned()), ..Cpu::default() };
//! let cpu = baseline(&[host("Westmere"), host("Nehalem")], newest(), false).unwrap();
//! assert_eq!(cpu.model.as_deref(), Some("Nehalem"));
//! assert!(cpu.guest && !cpu.features.values().any(|policy| *policy == Policy::Disable));
//! ```

mod baseline;
mod beyond;
mod cpu;
mod data;
mod decode;
mod update;

pub use baseline::{BaselineError, baseline, costs};
pub use beyond::{beyond, named};
pub use cpu::{Cpu, Match, Mode, Policy, Unknown, id};
pub use data::{Data, offered};
pub use decode::{Allowed, decode};
pub use update::{UpdateError, expand_features, migratable, translate, update, update_live};
