//! The vocabulary of cpusieve: CPUID tables, MSRs, places of features, states, stages and steps.
//!
//! This crate knows no file format, no kernel release and no effect: it never reads a file, never executes CPUID, and
//! holds no fact about any CPU but the shape of the CPUID instruction itself (which leaves look at ECX).
//!
//! ```
//! use cpusieve_model::{CpuidBit, CpuidTable, Register, Registers, State};
//!
//! let mut table = CpuidTable::default();
//! table.insert(0, 0, Registers { eax: 7, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 });
//! table.insert(7, 0, Registers { eax: 0, ebx: 1 << 16, ecx: 0, edx: 0 });
//!
//! let avx512f = CpuidBit::new(7, 0, Register::Ebx, 16);
//! assert_eq!(avx512f.to_string(), "CPUID.(EAX=07H,ECX=0):EBX[16]");
//! assert_eq!(table.state(avx512f), State::Present);
//! // Leaf 0DH lies above the maximum that leaf 0 announces: the CPU does not have it.
//! assert_eq!(table.state(CpuidBit::new(0xd, 1, Register::Eax, 0)), State::Reserved);
//! ```
#![forbid(unsafe_code)]

mod capture;
mod cpuid;
mod digits;
mod domain;
mod grounds;
mod msr;
mod place;
mod snapshot;
mod state;
mod step;
mod template;

pub use capture::{Captures, GuestCapture, MachineCapture, SurveyCapture, VcpuCapture};
pub use cpuid::{CpuidEntry, CpuidTable, Register, Registers, Vendor, has_subleaves};
pub use digits::hexadecimal;
pub use domain::{Domain, DomainCpu, DomainFeature, DomainPolicy, DomainTimer, DomainTopology};
pub use grounds::Grounds;
pub use msr::{MsrReading, MsrTable};
pub use place::{CpuidBit, LinuxBit, MsrBit, Place, msr_name};
pub use snapshot::{
    Cpu, CpuIdentity, Cpuinfo, FlagList, KvmCpuidEntry, KvmView, LinuxView, MissingPart, ModelExpansion, QemuBinary,
    Snapshot,
};
pub use state::State;
pub use step::{Cite, Effect, Evidence, RuleId, Stage, Step};
pub use template::{BitFilter, CapabilityCheck, CpuTemplate, CpuidModifier, MsrModifier};
