//! Leaf 0DH: the state that XSAVE keeps.

use cpusieve_model::Registers;

use super::View;
use super::words::{
    ARCH_LBR, FEAT_1_ECX, FEAT_7_0_EDX, FEAT_XSAVE, FEAT_XSAVE_XCR0_HI, FEAT_XSAVE_XCR0_LO, FEAT_XSAVE_XSS_HI,
    FEAT_XSAVE_XSS_LO, XSAVE, XSAVES,
};
use crate::qemu::cpu::{Cpu, XsaveArea};
use crate::qemu::release::{V7_2, V11_1};

/// x87 and SSE state (512 bytes) and the header of the XSAVE area.
const LEGACY_AREA: u64 = 512 + 64;
/// The component of last-branch records.
const ARCH_LBR_COMPONENT: u32 = 15;
/// ECX of a subleaf: aligned to 64 bytes in the compacted form; can be switched off by XFD.
const ALIGNED_OR_XFD: u32 = 1 << 1 | 1 << 2;
/// ECX of a subleaf: supervisor state.
const SUPERVISOR: u32 = 1;

/// The user components that are on (`x86_cpu_xsave_xcr0_components`).
fn xcr0_components(view: &View<'_>) -> u64 {
    u64::from(view.word(FEAT_XSAVE_XCR0_HI)) << 32 | u64::from(view.word(FEAT_XSAVE_XCR0_LO))
}

/// The supervisor components that are on (`x86_cpu_xsave_xss_components`).
fn xss_components(view: &View<'_>) -> u64 {
    u64::from(view.word(FEAT_XSAVE_XSS_HI)) << 32 | u64::from(view.word(FEAT_XSAVE_XSS_LO))
}

/// The bytes that these components take (`xsave_area_size`). The compacted form, since 7.0, ignores alignment.
fn area_size(cpu: &Cpu<'_>, components: u64, compacted: bool) -> u32 {
    let on = |index: usize| components >> index & 1 == 1;
    let areas = cpu.xsave.iter().enumerate().skip(2).filter(|&(index, _)| on(index));
    let size = areas.fold(LEGACY_AREA, |size, (_, area)| {
        let offset = if compacted { size } else { u64::from(area.offset) };
        size.max(offset + u64::from(area.size))
    });
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// The bytes in the standard form. 5.2 counts nothing for the legacy area if neither of its components is on.
fn standard_size(view: &View<'_>, components: u64) -> u32 {
    if !view.since(V7_2) && components == 0 { 0 } else { area_size(view.cpu, components, false) }
}

/// Leaf 0DH.
pub(super) fn leaf_d(view: &View<'_>, subleaf: u32) -> Registers {
    if view.word(FEAT_1_ECX) & XSAVE == 0 {
        return Registers::default();
    }
    match subleaf {
        0 => leaf_d_0(view),
        1 => leaf_d_1(view),
        _ => component(view, subleaf),
    }
}

fn leaf_d_0(view: &View<'_>) -> Registers {
    let ecx = standard_size(view, xcr0_components(view));
    // KVM computes EBX itself when the guest writes XCR0.
    let ebx = if view.is_kvm() { ecx } else { standard_size(view, view.running.xcr0) };
    Registers { eax: view.word(FEAT_XSAVE_XCR0_LO), ebx, ecx, edx: view.word(FEAT_XSAVE_XCR0_HI) }
}

fn leaf_d_1(view: &View<'_>) -> Registers {
    let cpu = view.cpu;
    let eax = view.word(FEAT_XSAVE);
    if !view.since(V7_2) {
        return Registers { eax, ..Registers::default() };
    }
    let ebx = area_size(cpu, xcr0_components(view) | xss_components(view), true);
    let mut ecx = view.word(FEAT_XSAVE_XSS_LO);
    // Until 10.2 the component of last-branch records follows the feature, whatever the filter left.
    if !view.since(V11_1) {
        let records = view.is_kvm() && has_branch_records(view) && eax & XSAVES != 0;
        ecx = if records { ecx | 1 << ARCH_LBR_COMPONENT } else { ecx & !(1 << ARCH_LBR_COMPONENT) };
    }
    Registers { eax, ebx, ecx, edx: view.word(FEAT_XSAVE_XSS_HI) }
}

fn has_branch_records(view: &View<'_>) -> bool {
    view.cpu.properties.pmu && view.word(FEAT_7_0_EDX) & ARCH_LBR != 0
}

/// A subleaf from 2: size, offset and kind of one component that is on; since 11.1 of each that the accelerator has.
fn component(view: &View<'_>, subleaf: u32) -> Registers {
    let cpu = view.cpu;
    let area = usize::try_from(subleaf).ok().and_then(|index| cpu.xsave.get(index)).copied();
    let Some(XsaveArea { size, offset, flags }) = area else { return Registers::default() };
    if view.since(V11_1) {
        return Registers { eax: size, ebx: offset, ecx: flags, edx: 0 };
    }
    if subleaf == ARCH_LBR_COMPONENT && view.since(V7_2) && has_branch_records(view) {
        return view.supported(0xd, subleaf);
    }
    if xcr0_components(view) >> subleaf & 1 == 1 {
        Registers { eax: size, ebx: offset, ecx: flags & ALIGNED_OR_XFD, edx: 0 }
    } else if xss_components(view) >> subleaf & 1 == 1 {
        Registers { eax: size, ebx: 0, ecx: SUPERVISOR, edx: 0 }
    } else {
        Registers::default()
    }
}
