//! Many hosts at once: what a guest may have on all of them, and which host takes what from everybody.
//!
//! A baseline is the bitwise AND of what QEMU supports on each host, that is, of what the host's KVM offers with QEMU's
//! changes; silicon alone would promise too much. This crate knows no file, no format and no effect; every fact about
//! KVM and QEMU comes from the stages, which are asked again on every kind of host before a model is named.
//!
//! ```
//! use cpusieve_fleet::{Fleet, Host, Setting, baseline};
//! use cpusieve_knowledge::qemu;
//! use cpusieve_model::{Cpu, Registers, Snapshot};
//! use cpusieve_stages::linux::boot::Unlisted;
//!
//! // AuthenticAMD, family 19H, with FPU, CMOV and SVM; one of two hosts has AES.
//! let host = |ecx| {
//!     let mut cpu = Cpu::default();
//!     cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
//!     cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, ecx, edx: 0x0000_8001, ..Registers::default() });
//!     cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0001, ..Registers::default() });
//!     cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
//!     Snapshot { cpus: vec![cpu], ..Snapshot::default() }
//! };
//! let release = qemu::nearest("10.0").release;
//! let machine = qemu::machine(release, "q35").unwrap();
//! let setting = Setting { release, machine, kernel: Some("6.12"), params: &[], nested: false };
//! let mut fleet = Fleet::default();
//! for (name, ecx) in [("one", 1 << 25), ("two", 0)] {
//!     fleet.push(Host::of(name, &host(ecx), Unlisted::NotSeen, &setting).unwrap());
//! }
//! let found = baseline(&fleet, &setting, true).unwrap();
//! assert!(found.features.contains(&"cmov") && !found.features.contains(&"aes"));
//! assert_eq!((found.costs[0].host.as_str(), found.costs[0].alone.as_slice()), ("two", &["aes"][..]));
//! ```
#![forbid(unsafe_code)]

mod baseline;
mod catalogue;
mod compare;
mod definition;
mod drift;
mod fleet;
mod host;
pub mod libvirt;
mod memory;
mod naming;
mod offer;
mod pools;
mod rest;
mod target;

pub use baseline::{Baseline, Cost, baseline, features};
pub use catalogue::{Catalogue, Property};
pub use compare::{Answer, Comparison, Relation, answer, apart, compare};
pub use definition::{Definition, Ids, feature, newest};
pub use drift::{Drift, Kept, Side, drift};
pub use fleet::{Assumed, Fleet, Kind, Member};
pub use host::{Ground, Host, NotAHost, Setting, Software};
pub use memory::Memory;
pub use naming::{Hosts, Named, name};
pub use offer::{Offer, Words, and, closed};
pub use pools::{MOST_KINDS, Pool, Split, TooManyKinds, Weights, pools};
pub use rest::{Lacking, Rest, Unnamed};
pub use target::{Target, kubevirt, openstack};
