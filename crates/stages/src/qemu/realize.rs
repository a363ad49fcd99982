//! The order of events from start to the vCPU (`target/i386/cpu.c:x86_cpu_realizefn` and what it calls).

use std::collections::BTreeMap;

use cpusieve_knowledge::qemu::MachineKind;
use cpusieve_model::{KvmCpuidEntry, Register};

use super::cpu::{Cpu, Irqchip, Question};
use super::featurestr::Arguments;
use super::history::Phase;
use super::instance::{Class, Instance};
use super::output::{self, Output};
use super::properties::UNSET;
use super::refusal::Refusal;
use super::release::{V7_2, V10_0, V11_1};
use super::words::*;
use super::{board, leaves, msrs, start};

const APIC: u64 = 1 << 9;
const LM: u64 = 1 << 29;
const PAE: u64 = 1 << 6;
const PSE36: u64 = 1 << 17;
const MONITOR: u64 = 1 << 3;
const WAITPKG: u64 = 1 << 5;
const TOPOEXT: u64 = 1 << 22;
const MCE_AND_MCA: u64 = 1 << 7 | 1 << 14;
/// The format of LBR records in IA32_PERF_CAPABILITIES.
const LBR_FMT: u64 = 0x3f;
/// IA32_UMWAIT_CONTROL
const MSR_UMWAIT: u32 = 0xe1;
/// IA32_BIOS_SIGN_ID, the microcode's revision.
const MSR_UCODE_REV: u32 = 0x8b;
/// `CPUID_MWAIT_EMX | CPUID_MWAIT_IBE`: a vCPU always wakes on interrupts.
const MWAIT_ECX: u32 = 3;
/// Bits of a physical address where nobody says (`TCG_PHYS_ADDR_BITS`).
const TCG_PHYS_ADDR_BITS: u32 = 40;
/// `TARGET_PHYS_ADDR_SPACE_BITS`
const MOST_PHYS_BITS: u32 = 52;

/// Starts QEMU up to the first vCPU: what it gives to KVM, and what it prints.
#[must_use]
pub fn realize(question: Question<'_>) -> Output {
    match until_vcpu(question) {
        Ok(started) => {
            let Started { instance, warnings, refusal, vcpus, last } = started;
            output::of(instance, warnings, refusal, (vcpus, last))
        }
        Err((warnings, refusal)) => output::refused(warnings, refusal),
    }
}

/// The first vCPU; `None` where QEMU ends before.
pub(super) fn first_vcpu(question: Question<'_>) -> Option<Cpu<'_>> {
    let started = until_vcpu(question).ok()?;
    started.refusal.is_none().then_some(started.instance.cpu)
}

/// A CPU object at the end of realize, or where it was refused.
struct Started<'a> {
    instance: Instance<'a>,
    warnings: Vec<String>,
    refusal: Option<Refusal>,
    /// The CPUs that were made, or that QEMU began to make.
    vcpus: u32,
    /// What is said when all of them are there.
    last: Option<String>,
}

/// From the start to the first vCPU; the error is a QEMU that ends before it has a CPU object.
fn until_vcpu(question: Question<'_>) -> Result<Started<'_>, (Vec<String>, Refusal)> {
    let arguments = Arguments::parse(question.release, question.cpu);
    let mut warnings = start::lines(&question);
    let mut instance = match start::refused(&question).map_or_else(|| Instance::new(question, arguments), Err) {
        Ok(instance) => instance,
        Err(refusal) => return Err((warnings, refusal)),
    };
    warnings.append(&mut instance.arguments.warnings);
    if let Some(refusal) = instance.arguments.refusal.take() {
        return Err((warnings, refusal));
    }
    warnings.extend(instance.deprecation());
    warnings.extend(board::cpu_of_isapc(&question, instance.arguments.name));
    warnings.extend(board::compatible_apic_ids(&question));
    if let Err(refusal) = board::apic_ids(&question) {
        return Err((warnings, refusal));
    }
    let first = instance.device_post_init().and_then(|()| instance.pre_plug()).and_then(|()| instance.realizefn());
    if let Err(refusal) = first {
        return Ok(Started { instance, warnings, refusal: Some(refusal), vcpus: 1, last: None });
    }
    let mut refusal = instance.address_space().err();
    let last = if refusal.is_none() { instance.feature_control() } else { None };
    refusal = refusal.or_else(|| instance.extended_interrupt_mode().err());
    refusal = refusal.or_else(|| instance.processors_in_a_byte().err());
    Ok(Started { instance, warnings, refusal, vcpus: question.smp.cpus.max(1), last })
}

impl Instance<'_> {
    /// `machine_run_board_init` warns of a deprecated model.
    fn deprecation(&self) -> Option<String> {
        let Class::Model(resolved) = self.class else { return None };
        let note = resolved.model.deprecated?;
        Some(format!("warning: CPU model {}-x86_64-cpu is deprecated -- {note}", self.arguments.name))
    }

    /// `x86_cpu_pre_plug`, `microvm_device_pre_plug_cb`: before realize, so without the plus and minus lists.
    fn pre_plug(&mut self) -> Result<(), Refusal> {
        if self.cpu.question.machine.kind == MachineKind::Microvm {
            self.cpu.properties.host_phys_bits = true;
        }
        self.vp_index_settable()
    }

    /// `x86_cpu_realizefn`
    fn realizefn(&mut self) -> Result<(), Refusal> {
        self.max_x86_cpu_realize();
        let properties = &self.cpu.properties;
        if self.release() >= V11_1 && !properties.vendor_cpuid_only && properties.vendor_cpuid_only_v2 {
            return Err(Refusal::plain("x-vendor-cpuid-only-v2 property depends on x-vendor-cpuid-only"));
        }
        if self.release() < V7_2 {
            self.host_cpuid_required()?;
            self.cpu_pm_before_expansion();
        }
        self.x86_cpu_hyperv_realize();
        self.x86_cpu_expand_features()?;
        if self.release() >= V7_2 {
            self.lbr_fmt()?;
        }
        if self.x86_cpu_filter_features() && self.cpu.properties.enforce {
            let who = if self.is_kvm() { "Host" } else { "TCG" };
            return Err(Refusal::plain(format!("{who} doesn't support requested features")));
        }
        if self.cpu.is_amd() {
            let same = self.cpu.feature(FEAT_1_EDX) & AMD_ALIASES;
            let word = self.cpu.feature_mut(FEAT_8000_0001_EDX);
            *word = *word & !AMD_ALIASES | same;
            self.record(Phase::Alias);
        }
        if self.release() >= V7_2 {
            self.cpu_pm_after_filter();
            self.address_bits_of_host()?;
            self.host_cpuid_required()?;
        } else {
            self.address_bits_of_host()?;
        }
        self.ucode_rev();
        self.cpu.mwait.ecx |= MWAIT_ECX;
        if self.release() >= V10_0 {
            self.hyperthreading();
        }
        self.address_bits()?;
        self.caches()?;
        self.apic()?;
        self.init_vcpu()?;
        if self.release() < V10_0 {
            self.hyperthreading();
            self.deprecated_apic();
        }
        Ok(())
    }

    /// `max_x86_cpu_realize`: since 9.0 or so TCG's `max` gets its signature here, when its features are not yet known
    /// but for those that machine type or user set.
    fn max_x86_cpu_realize(&mut self) {
        if self.release() < V10_0 || !self.is_max() || self.cpu.properties.family != 0 {
            return;
        }
        let long = self.cpu.feature(FEAT_8000_0001_EDX) & LM != 0;
        let properties = &mut self.cpu.properties;
        (properties.family, properties.model, properties.stepping) = if long { (15, 107, 1) } else { (6, 6, 3) };
    }

    fn host_cpuid_required(&self) -> Result<(), Refusal> {
        if !matches!(self.class, Class::Max { host: true }) || self.is_kvm() {
            return Ok(());
        }
        let whom = if self.release() < V7_2 { "KVM" } else { "KVM or HVF" };
        Err(Refusal::plain(format!("CPU model 'host' requires {whom}")))
    }

    /// Whether `-overcommit cpu-pm=on` concerns this CPU.
    fn cpu_pm(&self) -> bool {
        self.cpu.question.cpu_pm && self.is_max() && self.is_kvm()
    }

    /// 5.2 sets the bits before it looks whether KVM has them.
    fn cpu_pm_before_expansion(&mut self) {
        if !self.cpu_pm() {
            return;
        }
        self.cpu.mwait = self.offer.host.cpuid(5, 0);
        *self.cpu.feature_mut(FEAT_1_ECX) |= MONITOR;
        if self.offer.host.lists_msr(MSR_UMWAIT) {
            *self.cpu.feature_mut(FEAT_7_0_ECX) |= WAITPKG;
        }
        self.record(Phase::CpuPm);
    }

    /// `kvm_cpu_realizefn`, `host_cpu_enable_cpu_pm`: since 8.2 or so MONITOR stays as filtering left it.
    fn cpu_pm_after_filter(&mut self) {
        if !self.cpu_pm() {
            return;
        }
        if self.offer.host.lists_msr(MSR_UMWAIT) {
            *self.cpu.feature_mut(FEAT_7_0_ECX) |= WAITPKG;
        }
        if self.release() < V10_0 {
            *self.cpu.feature_mut(FEAT_1_ECX) |= MONITOR;
        }
        if self.cpu.feature(FEAT_1_ECX) & MONITOR != 0 {
            self.cpu.mwait = self.offer.host.cpuid(5, 0);
        }
        self.record(Phase::CpuPm);
    }

    /// `lbr-fmt` replaces the format in IA32_PERF_CAPABILITIES; a format needs `pmu=on` and must be the host's.
    fn lbr_fmt(&mut self) -> Result<(), Refusal> {
        let given = self.cpu.properties.lbr_fmt;
        if given != !LBR_FMT {
            let word = self.cpu.feature_mut(FEAT_PERF_CAPABILITIES);
            *word = *word & !LBR_FMT | given;
            self.record(Phase::LbrFmt);
        }
        let requested = self.cpu.feature(FEAT_PERF_CAPABILITIES) & LBR_FMT;
        if requested == 0 || !self.is_kvm() {
            return Ok(());
        }
        if !self.cpu.properties.pmu {
            return Err(Refusal::plain("vPMU: LBR is unsupported without pmu=on"));
        }
        let host = self.supported.get(FEAT_PERF_CAPABILITIES.0).copied().unwrap_or(0) & LBR_FMT;
        if requested == host {
            return Ok(());
        }
        let text = format!("vPMU: the lbr-fmt value (0x{requested:x}) does not match the host value (0x{host:x}).");
        Err(Refusal::plain(text))
    }

    /// `host_cpu_adjust_phys_bits`, `kvm_set_guest_phys_bits`.
    fn address_bits_of_host(&mut self) -> Result<(), Refusal> {
        self.cpu.phys_bits = self.cpu.properties.phys_bits;
        self.cpu.guest_phys_bits = self.cpu.properties.guest_phys_bits;
        let long = self.cpu.feature(FEAT_8000_0001_EDX) & LM != 0;
        if !long || !self.is_kvm() {
            return Ok(());
        }
        let host = self.offer.host.phys_bits();
        let given = self.cpu.phys_bits;
        if given != 0 && given != host {
            self.say(
                format!("warning: Host physical bits ({host}) does not match phys-bits property ({given})"),
                false,
            );
        }
        let limit = match self.cpu.properties.host_phys_bits_limit {
            0 => u32::MAX,
            limit => u32::from(limit),
        };
        let from_host = self.cpu.properties.host_phys_bits;
        if from_host {
            self.cpu.phys_bits = host.min(limit);
        }
        if self.release() >= V10_0 && self.cpu.guest_phys_bits == UNSET {
            let eax = self.offer.kvm_arch_get_supported_cpuid(0x8000_0008, 0, Register::Eax);
            let guest = eax >> 16 & 0xff;
            if guest != 0 {
                let guest = guest.min(self.cpu.phys_bits);
                self.cpu.guest_phys_bits = if from_host { guest.min(limit) } else { guest };
            }
        }
        self.phys_bits_in_range()
    }

    fn phys_bits_in_range(&self) -> Result<(), Refusal> {
        let bits = self.cpu.phys_bits;
        // Since 11.0 there is no upper limit.
        let most = if self.release() >= V11_1 { u32::MAX } else { MOST_PHYS_BITS };
        if bits == 0 || (32..=most).contains(&bits) {
            return Ok(());
        }
        if self.release() >= V11_1 {
            return Err(Refusal::plain(format!("phys-bits should be at least 32 (but is {bits})")));
        }
        Err(Refusal::plain(format!("phys-bits should be between 32 and {MOST_PHYS_BITS}  (but is {bits})")))
    }

    fn ucode_rev(&mut self) {
        if self.cpu.properties.ucode_rev == 0 && self.is_max() {
            self.cpu.properties.ucode_rev = self.offer.kvm_arch_get_supported_msr_feature(MSR_UCODE_REV);
        }
        if self.cpu.properties.ucode_rev == 0 {
            self.cpu.properties.ucode_rev = if self.cpu.is_amd() { 0x0100_0065 } else { 0x1_0000_0000 };
        }
    }

    /// Linux guests on AMD take several threads in a core for cores without TOPOEXT.
    fn hyperthreading(&mut self) {
        let threads = self.cpu.question.smp.threads;
        if !self.cpu.is_amd() || self.cpu.feature(FEAT_8000_0001_ECX) & TOPOEXT != 0 || threads <= 1 {
            return;
        }
        let warning = format!("warning: This family of AMD CPU doesn't support hyperthreading({threads})");
        let advice = "Please configure -smp options properly or try enabling topoext feature.";
        if self.release() >= V10_0 {
            self.say(format!("{warning}. {advice}"), false);
        } else {
            self.say(warning, false);
            self.say(advice, false);
        }
    }

    /// What a physical address may have, with and without long mode.
    fn address_bits(&mut self) -> Result<(), Refusal> {
        if self.cpu.guest_phys_bits == UNSET || self.release() < V10_0 {
            self.cpu.guest_phys_bits = 0;
        }
        let (given, guest) = (self.cpu.phys_bits, self.cpu.guest_phys_bits);
        if self.cpu.feature(FEAT_8000_0001_EDX) & LM == 0 {
            for (name, value) in [("phys-bits", given), ("guest-phys-bits", guest)] {
                if value != 0 {
                    return Err(Refusal::plain(format!("{name} is not user-configurable in 32 bit")));
                }
            }
            // Before 8.1 or so PAE alone did not count.
            let wide = if self.release() >= V10_0 { PSE36 | PAE } else { PSE36 };
            self.cpu.phys_bits = if self.cpu.feature(FEAT_1_EDX) & wide != 0 { 36 } else { 32 };
            return Ok(());
        }
        if self.release() < V7_2 && !self.is_kvm() && !matches!(given, 0 | TCG_PHYS_ADDR_BITS) {
            return Err(Refusal::plain(format!("TCG only supports phys-bits={TCG_PHYS_ADDR_BITS}")));
        }
        self.phys_bits_in_range()?;
        let bits = if given == 0 { TCG_PHYS_ADDR_BITS } else { given };
        self.cpu.phys_bits = bits;
        if guest != 0 && (guest > bits || guest < 32) {
            return Err(Refusal::plain(format!("guest-phys-bits should be between 32 and {bits}  (but is {guest})")));
        }
        Ok(())
    }

    fn caches(&mut self) -> Result<(), Refusal> {
        if self.cpu.properties.legacy_cache {
            self.cpu.caches = None;
        } else if self.cpu.caches.is_none() {
            let name = self.arguments.name;
            return Err(Refusal::plain(format!("CPU model '{name}' doesn't support legacy-cache=off")));
        }
        Ok(())
    }

    /// `apic_get_class`: since 8.0 or so QEMU's own local APIC does not work with KVM.
    fn apic(&self) -> Result<(), Refusal> {
        if self.release() >= V10_0 && self.is_kvm() && self.has_own_apic() {
            return Err(Refusal::plain("KVM does not support userspace APIC"));
        }
        Ok(())
    }

    /// Whether QEMU makes a local APIC of its own.
    fn has_own_apic(&self) -> bool {
        let question = &self.cpu.question;
        let wanted = self.cpu.feature(FEAT_1_EDX) & APIC != 0 || question.smp.cpus > 1;
        wanted && question.irqchip == Irqchip::Off
    }

    /// `hw/intc/apic.c:apic_realize`
    fn deprecated_apic(&mut self) {
        if (V7_2..V10_0).contains(&self.release()) && self.is_kvm() && self.has_own_apic() {
            self.say("warning: Userspace local APIC is deprecated for KVM.", true);
            self.say("warning: Do not use kernel-irqchip except for the -M isapc machine type.", true);
        }
    }

    /// `kvm_arch_pre_create_vcpu`, `kvm_arch_init_vcpu`: the TSC, the PMU's vendor, Hyper-V of old kernels.
    fn init_vcpu(&mut self) -> Result<(), Refusal> {
        let given = self.cpu.properties.tsc_frequency / 1000;
        let kvm = self.offer.host.kvm().and_then(|kvm| kvm.tsc_khz).unwrap_or(0);
        self.cpu.tsc_khz = if given > 0 { given.unsigned_abs() } else { kvm };
        if !self.is_kvm() {
            return Ok(());
        }
        if self.release() >= V11_1 && self.cpu.properties.pmu {
            self.kvm_init_pmu_info();
        }
        self.hyperv_of_vcpu()?;
        self.local_errors()
    }

    /// `mce_init`: whether the CPU has local machine check exceptions (`MCG_LMCE_P`).
    pub(super) fn reports_local_errors(&self) -> bool {
        let has_banks = self.cpu.feature(FEAT_1_EDX) & MCE_AND_MCA == MCE_AND_MCA;
        // The field of leaf 1 holds 15 for all families above it.
        self.cpu.properties.lmce && has_banks && self.cpu.properties.family >= 6
    }

    /// `kvm_arch_init_vcpu`: KVM has local machine check exceptions for Intel's CPUs alone.
    fn local_errors(&mut self) -> Result<(), Refusal> {
        if !self.reports_local_errors() || self.offer.host.may_have_local_errors() {
            return Ok(());
        }
        self.say("kvm: LMCE not supported", false);
        Err(Refusal::plain("kvm_init_vcpu: kvm_arch_init_vcpu failed (0): Operation not supported"))
    }

    /// `kvm_init_pmu_info`: a PMU is of the host's kind, and AMD has had one since the K7.
    fn kvm_init_pmu_info(&mut self) {
        if !self.pmu_fits_host() {
            self.say("host doesn't support requested feature: vPMU", true);
        } else if self.cpu.is_amd() && self.cpu.properties.family < 6 {
            self.say("AMD performance-monitoring is supported from K7 and later", true);
        }
    }

    /// Intel's and Zhaoxin's PMUs are of one kind, AMD's of another; KVM has none for the rest.
    fn pmu_fits_host(&self) -> bool {
        let intel = |vendor: &[u8; 12]| matches!(vendor, b"GenuineIntel" | b"  Shanghai  " | b"CentaurHauls");
        let (host, guest) = (self.offer.host.vendor(), self.cpu.properties.vendor);
        intel(&host) && intel(&guest) || host == *b"AuthenticAMD" && guest == host
    }
}

/// What a finished instance gives to KVM: CPUID table and MSRs.
pub(super) fn vcpu(instance: &Instance<'_>) -> Result<(Vec<KvmCpuidEntry>, BTreeMap<u32, u64>), Refusal> {
    let table = leaves::build(&instance.cpu).map_err(|full| Refusal::plain(full.to_string()))?;
    Ok((table, msrs::kvm_init_msrs(instance)))
}
