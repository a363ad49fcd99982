//! From what was asked to the words that are asked of the accelerator (`target/i386/cpu.c:x86_cpu_expand_features`).

use cpusieve_knowledge::qemu::{WORD_ORDER, Word};
use cpusieve_model::Register;

use super::filter;
use super::history::Phase;
use super::instance::{AVX10, Instance};
use super::properties::UNSET;
use super::refusal::Refusal;
use super::release::{V7_2, V10_0, V11_1};
use super::words::*;

const HT: u64 = 1 << 28;
const CMP_LEGACY: u64 = 1 << 1;
const PDCM: u64 = 1 << 15;
const ARCH_LBR: u64 = 1 << 19;
const MPX: u64 = 1 << 14;
const APX: u64 = 1 << 21;
const SVM: u64 = 1 << 2;
const SGX: u64 = 1 << 2;
pub(super) const INTEL_PT: u64 = 1 << 25;

/// The words that raise a level to their leaf, beside 7.0.EBX, and the release since which they do.
const RAISING: [(W, usize); 16] = [
    (FEAT_1_EDX, 0),
    (FEAT_1_ECX, 0),
    (FEAT_6_EAX, 0),
    (FEAT_7_0_ECX, 0),
    (FEAT_7_1_EAX, 0),
    (FEAT_7_1_ECX, V11_1),
    (FEAT_7_1_EDX, V10_0),
    (FEAT_7_2_EDX, V10_0),
    (FEAT_8000_0001_EDX, 0),
    (FEAT_8000_0001_ECX, 0),
    (FEAT_8000_0007_EDX, 0),
    (FEAT_8000_0008_EBX, 0),
    (FEAT_C000_0001_EDX, 0),
    (FEAT_SVM, 0),
    (FEAT_XSAVE, 0),
    (FEAT_8000_0021_EAX, V10_0),
];

impl Instance<'_> {
    /// `x86_cpu_expand_features`.
    ///
    /// # Errors
    /// A property of the plus or minus list is unknown, or KVM lacks a Hyper-V enlightenment.
    pub(super) fn x86_cpu_expand_features(&mut self) -> Result<(), Refusal> {
        self.set_plus_and_minus()?;
        if self.is_max() {
            self.max_features()?;
        }
        self.threads();
        self.without_pmu();
        self.feature_dependencies();
        if !self.is_kvm() || !self.cpu.properties.kvm {
            *self.cpu.feature_mut(FEAT_KVM) = 0;
            self.record(Phase::Paravirtual);
        }
        self.mpx_or_apx();
        self.x86_cpu_enable_xsave_components();
        self.levels();
        if self.release() >= V7_2 { self.kvm_hyperv_expand_features() } else { Ok(()) }
    }

    /// `host` and `max` take what the accelerator supports, but for what machine type or user touched.
    ///
    /// # Errors
    /// Since 11.0, an AVX10 of the accelerator that is newer than this QEMU knows.
    fn max_features(&mut self) -> Result<(), Refusal> {
        let own = self.offer.for_cpu(self.program, &self.supported, &self.cpu.properties);
        let never = self.program.no_autoenable();
        for (((word, own), user), never) in self.cpu.words.iter_mut().zip(own).zip(self.user).zip(never) {
            *word |= own & !user & !never;
        }
        let avx10 = self.cpu.feature(FEAT_7_1_EDX) & AVX10 != 0;
        if self.release() >= V10_0 && avx10 && self.cpu.properties.avx10_version == 0 {
            self.set_avx10_version(self.supported_avx10_version()).map_err(Refusal::plain)?;
        }
        self.record(Phase::Max);
        Ok(())
    }

    /// The version in 24H.EBX\[7:0\] of the accelerator.
    pub(super) fn supported_avx10_version(&self) -> u8 {
        (self.offer.kvm_arch_get_supported_cpuid(0x24, 0, Register::Ebx) & 0xff) as u8
    }

    /// Since 9.2 HT and CMP_LEGACY are features that several threads in a package turn on; before, CPUID adds them.
    fn threads(&mut self) {
        if self.release() < V10_0 || self.cpu.question.smp.threads_per_package() <= 1 {
            return;
        }
        *self.cpu.feature_mut(FEAT_1_EDX) |= HT;
        if !self.cpu.is_intel() && !self.cpu.is_zhaoxin() {
            *self.cpu.feature_mut(FEAT_8000_0001_ECX) |= CMP_LEGACY;
        }
        self.record(Phase::Topology);
    }

    /// Since 10.1 PDCM, and since 11.0 architectural LBRs, are features that need the PMU; before, CPUID masks them.
    fn without_pmu(&mut self) {
        if self.release() < V11_1 || self.cpu.properties.pmu {
            return;
        }
        if !self.cpu.properties.pdcm_on_even_without_pmu {
            *self.cpu.feature_mut(FEAT_1_ECX) &= !PDCM;
        }
        *self.cpu.feature_mut(FEAT_7_0_EDX) &= !ARCH_LBR;
        self.record(Phase::Pmu);
    }

    /// `feature_dependencies`: one pass in table order. Only what machine type or user touched is worth a warning.
    fn feature_dependencies(&mut self) {
        for dependency in &self.program.dependencies {
            let ((from, needed), (to, mask)) = (dependency.from, dependency.to);
            if self.cpu.feature(from) & needed != 0 {
                continue;
            }
            let unavailable = self.cpu.feature(to) & mask;
            let asked = unavailable & self.user.get(to.0).copied().unwrap_or(0);
            self.mark_unavailable_features(to, asked, Some(filter::DEPENDENCY));
            *self.cpu.feature_mut(to) &= !unavailable;
        }
        self.record(Phase::Dependency);
    }

    /// Since 11.0 or so MPX and APX exclude each other: their states lie at the same offset.
    fn mpx_or_apx(&mut self) {
        let both = self.cpu.feature(FEAT_7_0_EBX) & MPX != 0 && self.cpu.feature(FEAT_7_1_EDX) & APX != 0;
        if self.release() >= V11_1 && both {
            self.mark_unavailable_features(FEAT_7_0_EBX, MPX, Some("this feature conflicts with APX"));
            self.mark_unavailable_features(FEAT_7_1_EDX, APX, Some("this feature conflicts with MPX"));
            self.record(Phase::Conflict);
        }
    }

    /// Levels follow the features, unless they were given.
    fn levels(&mut self) {
        self.x86_cpu_adjust_feat_level(FEAT_7_0_EBX);
        if self.cpu.properties.full_cpuid_auto_level {
            for (word, since) in RAISING {
                if self.release() >= since {
                    self.x86_cpu_adjust_feat_level(word);
                }
            }
            self.levels_of_leaves();
        }
        let properties = &self.cpu.properties;
        let given_or = |given, minimum| if given == UNSET { minimum } else { given };
        self.cpu.level_func7 = given_or(properties.level_func7, properties.min_level_func7);
        self.cpu.level = given_or(properties.level, properties.min_level);
        self.cpu.xlevel = given_or(properties.xlevel, properties.min_xlevel);
        self.cpu.xlevel2 = given_or(properties.xlevel2, properties.min_xlevel2);
    }

    /// Leaves that hang on one feature.
    fn levels_of_leaves(&mut self) {
        let release = self.release();
        let cpu = &self.cpu;
        let has = |word, bit: u64| cpu.feature(word) & bit != 0;
        let vendor = cpu.is_intel() || !cpu.properties.vendor_cpuid_only;
        let basic = [
            (self.x86_has_cpuid_0x1f() && vendor, 0x1f),
            (release >= V10_0 && has(FEAT_7_1_EDX, AVX10), 0x24),
            (release >= V11_1 && has(FEAT_7_1_EDX, APX), 0x29),
            (release >= V7_2 && has(FEAT_7_0_EBX, SGX), 0x12),
        ];
        let svm = has(FEAT_8000_0001_ECX, SVM);
        let sev = cpu.question.protected.sev.is_some();
        if has(FEAT_7_0_EBX, INTEL_PT) {
            self.level_of_processor_trace();
        }
        let properties = &mut self.cpu.properties;
        for (needed, leaf) in basic {
            if needed {
                properties.min_level = properties.min_level.max(leaf);
            }
        }
        if svm {
            properties.min_xlevel = properties.min_xlevel.max(0x8000_000a);
        }
        if sev {
            properties.min_xlevel = properties.min_xlevel.max(0x8000_001f);
        }
    }

    fn level_of_processor_trace(&mut self) {
        let properties = &mut self.cpu.properties;
        if properties.intel_pt_auto_level {
            properties.min_level = properties.min_level.max(0x14);
        } else if properties.min_level < 0x14 {
            let option = if self.release() < V7_2 { "+intel-pt" } else { "intel-pt=on" };
            let prefix = format!("Intel PT need CPUID leaf 0x14, please set by \"-cpu ...,{option},min-level=0x14\"");
            self.mark_unavailable_features(FEAT_7_0_EBX, INTEL_PT, Some(&prefix));
            self.record(Phase::Level);
        }
    }

    /// `x86_has_cpuid_0x1f`, `x86_has_extended_topo`; before 9.1 there are no modules.
    fn x86_has_cpuid_0x1f(&self) -> bool {
        let smp = &self.cpu.question.smp;
        let modules = self.release() >= V10_0 && smp.modules > 1;
        let forced = self.release() >= V11_1 && self.cpu.properties.force_cpuid_0x1f;
        smp.dies > 1 || modules || forced
    }

    /// `x86_cpu_adjust_feat_level`
    fn x86_cpu_adjust_feat_level(&mut self, at: W) {
        let Some(&Word::Cpuid { leaf, subleaf, .. }) = WORD_ORDER.get(at.0) else { return };
        if self.cpu.feature(at) == 0 {
            return;
        }
        let properties = &mut self.cpu.properties;
        let level = match leaf >> 28 {
            0 => &mut properties.min_level,
            8 => &mut properties.min_xlevel,
            0xc => &mut properties.min_xlevel2,
            _ => return,
        };
        *level = leaf.max(*level);
        if leaf == 7 {
            properties.min_level_func7 = properties.min_level_func7.max(subleaf);
        }
    }
}
