//! The feature words that leaves are made of, by QEMU's names (`target/i386/cpu.h:FeatureWord`), and the bits of them
//! that decide about leaves.

use cpusieve_model::Register::{Eax, Ebx, Ecx, Edx};

pub(super) use crate::qemu::words::{
    FEAT_1_ECX, FEAT_1_EDX, FEAT_6_EAX, FEAT_7_0_EBX, FEAT_7_0_ECX, FEAT_7_0_EDX, FEAT_7_1_EAX, FEAT_7_1_ECX,
    FEAT_7_1_EDX, FEAT_7_2_EDX, FEAT_14_0_ECX, FEAT_24_0_EBX, FEAT_24_1_ECX, FEAT_8000_0001_ECX, FEAT_8000_0001_EDX,
    FEAT_8000_0007_EBX, FEAT_8000_0007_EDX, FEAT_8000_0008_EBX, FEAT_8000_0021_EAX, FEAT_C000_0001_EDX, FEAT_KVM,
    FEAT_SVM, FEAT_XSAVE, FEAT_XSAVE_XCR0_HI, FEAT_XSAVE_XCR0_LO, FEAT_XSAVE_XSS_HI, FEAT_XSAVE_XSS_LO,
};
use crate::qemu::words::{W, cpuid};

pub(super) const FEAT_SGX_12_0_EAX: W = cpuid(0x12, 0, Eax);
pub(super) const FEAT_SGX_12_0_EBX: W = cpuid(0x12, 0, Ebx);
pub(super) const FEAT_SGX_12_1_EAX: W = cpuid(0x12, 1, Eax);
pub(super) const FEAT_1E_1_EAX: W = cpuid(0x1e, 1, Eax);
pub(super) const FEAT_29_0_EBX: W = cpuid(0x29, 0, Ebx);
pub(super) const FEAT_KVM_HINTS: W = cpuid(0x4000_0001, 0, Edx);
pub(super) const FEAT_8000_0021_EBX: W = cpuid(0x8000_0021, 0, Ebx);
pub(super) const FEAT_8000_0021_ECX: W = cpuid(0x8000_0021, 0, Ecx);
pub(super) const FEAT_8000_0022_EAX: W = cpuid(0x8000_0022, 0, Eax);

/// 1.EDX: hyper-threading.
pub(super) const HT: u32 = 1 << 28;
/// 1.ECX: perfmon and debug capability.
pub(super) const PDCM: u32 = 1 << 15;
/// 1.ECX: XSAVE.
pub(super) const XSAVE: u32 = 1 << 26;
/// 1.ECX: XSAVE enabled by the operating system.
pub(super) const OSXSAVE: u32 = 1 << 27;
/// 7.0.EBX: SGX.
pub(super) const SGX: u32 = 1 << 2;
/// 7.0.EBX: processor trace.
pub(super) const INTEL_PT: u32 = 1 << 25;
/// 7.0.ECX: protection keys.
pub(super) const PKU: u32 = 1 << 3;
/// 7.0.ECX: protection keys enabled by the operating system.
pub(super) const OSPKE: u32 = 1 << 4;
/// 7.0.ECX: 57 bits of linear address.
pub(super) const LA57: u32 = 1 << 16;
/// 7.0.ECX: SGX launch control.
pub(super) const SGX_LC: u32 = 1 << 30;
/// 7.0.EDX: architectural last-branch records.
pub(super) const ARCH_LBR: u32 = 1 << 19;
/// 7.0.EDX: AMX tiles.
pub(super) const AMX_TILE: u32 = 1 << 24;
/// 7.1.EDX: AVX10.
pub(super) const AVX10: u32 = 1 << 19;
/// 7.1.EDX: APX.
pub(super) const APXF: u32 = 1 << 21;
/// D.1.EAX: XSAVES.
pub(super) const XSAVES: u32 = 1 << 3;
/// 14.0.ECX: packets hold linear instruction pointers.
pub(super) const PT_LIP: u32 = 1 << 31;
/// 80000001.ECX: more than one logical CPU without hyper-threading.
pub(super) const CMP_LEGACY: u32 = 1 << 1;
/// 80000001.ECX: SVM.
pub(super) const SVM: u32 = 1 << 2;
/// 80000001.EDX: SYSCALL.
pub(super) const SYSCALL: u32 = 1 << 11;
/// 80000001.EDX: long mode.
pub(super) const LM: u32 = 1 << 29;
/// 80000007.EDX: invariant TSC.
pub(super) const INVTSC: u32 = 1 << 8;
/// 80000022.EAX: performance monitoring version 2.
pub(super) const PERFMON_V2: u32 = 1;
