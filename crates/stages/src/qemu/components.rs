//! XSAVE state components (`target/i386/cpu.c:x86_cpu_enable_xsave_components`,
//! `target/i386/kvm/kvm-cpu.c:kvm_cpu_xsave_init`, `target/i386/tcg/tcg-cpu.c:x86_tcg_cpu_xsave_init`).

use cpusieve_knowledge::qemu::{self, ExtSaveArea, Word};
use cpusieve_model::Place;

use super::cpu::XsaveArea;
use super::history::Phase;
use super::instance::Instance;
use super::release::{V7_2, V10_0, V11_1};
use super::words::*;

const XSAVE: u64 = 1 << 26;
const XSAVES: u64 = 1 << 3;

impl Instance<'_> {
    /// `x86_cpu_enable_xsave_components`: a component is on when it has a size and one of its features is on.
    pub(super) fn x86_cpu_enable_xsave_components(&mut self) {
        self.xsave_init();
        let (mut xcr0, mut xss) = (0_u64, 0_u64);
        if self.cpu.feature(FEAT_1_ECX) & XSAVE != 0 {
            for area in qemu::ext_save_areas(self.release()) {
                if self.component_is_on(area) {
                    let mask = if area.supervisor { &mut xss } else { &mut xcr0 };
                    *mask |= 1 << area.bit;
                }
            }
        }
        let low = u64::from(u32::MAX);
        *self.cpu.feature_mut(FEAT_XSAVE_XCR0_LO) = xcr0 & low;
        *self.cpu.feature_mut(FEAT_XSAVE_XCR0_HI) = xcr0 >> 32;
        if self.release() >= V7_2 {
            *self.cpu.feature_mut(FEAT_XSAVE_XSS_LO) = xss & low;
            *self.cpu.feature_mut(FEAT_XSAVE_XSS_HI) = xss >> 32;
        }
        self.record(Phase::Xsave);
    }

    fn component_is_on(&self, area: &ExtSaveArea) -> bool {
        if self.release() >= V11_1 && area.supervisor && self.cpu.feature(FEAT_XSAVE) & XSAVES == 0 {
            return false;
        }
        let sized = self.cpu.xsave.get(usize::from(area.bit)).is_some_and(|known| known.size != 0);
        sized && area.features.iter().any(|&place| self.cpu.has(place))
    }

    /// Sizes and places of the components. Before 6.1 they are QEMU's own; since then KVM guests get the places of the
    /// host's CPU, and since 9.0 a component that the accelerator does not list has no size.
    fn xsave_init(&mut self) {
        let listed = self.listed_components();
        for area in qemu::ext_save_areas(self.release()) {
            let unlisted = area.bit >= 2 && listed >> area.bit & 1 == 0;
            let size = if unlisted { 0 } else { area.size };
            let mut known = XsaveArea { size, offset: area.standard_offset.unwrap_or(0), flags: 0 };
            if self.is_kvm() && self.release() >= V7_2 && area.bit >= 2 {
                known.offset = 0;
                let host = self.offer.host.cpuid(0xd, u32::from(area.bit));
                if size != 0 && host.eax != 0 && self.places_come_from_host(area) {
                    (known.offset, known.flags) = (host.ebx, host.ecx);
                }
            }
            if let Some(slot) = self.cpu.xsave.get_mut(usize::from(area.bit)) {
                *slot = known;
            }
        }
    }

    /// The components that the accelerator lists (`x86_cpu_init_xsave`).
    fn listed_components(&self) -> u64 {
        if self.release() < V10_0 {
            return u64::MAX;
        }
        let word = |at: W| self.supported.get(at.0).copied().unwrap_or(0);
        let xcr0 = word(FEAT_XSAVE_XCR0_LO) | word(FEAT_XSAVE_XCR0_HI) << 32;
        let xss = word(FEAT_XSAVE_XSS_LO) | word(FEAT_XSAVE_XSS_HI) << 32;
        if self.release() >= V11_1 { xcr0 | xss } else { xcr0 }
    }

    /// Before 9.0 the host's CPU is asked only about components whose features KVM supports.
    fn places_come_from_host(&self, area: &ExtSaveArea) -> bool {
        let supports = |place: &Place| {
            let bit = match place {
                Place::Cpuid(bit) => bit.bit,
                _ => return false,
            };
            let at = Word::of(*place).and_then(qemu::word_position);
            at.and_then(|at| self.supported.get(at)).is_some_and(|word| word >> bit & 1 == 1)
        };
        self.release() >= V10_0 || area.features.iter().all(supports)
    }
}
