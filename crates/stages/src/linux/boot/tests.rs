//! Laws of a boot on hand-made CPUs.

use cpusieve_knowledge::linux;
use cpusieve_model::{CpuidTable, Effect, Evidence, MsrReading, MsrTable, Registers, Stage};

use super::{Input, Output, Unlisted, boot};

const INTEL: (u32, u32, u32) = (0x756e_6547, 0x6c65_746e, 0x4965_6e69);
const AMD: (u32, u32, u32) = (0x6874_7541, 0x444d_4163, 0x6974_6e65);

/// A CPU with leaves up to 0DH and 80000008H: FXSR, SSE2, XSAVE, AVX and AVX2.
fn cpu(vendor: (u32, u32, u32), signature: u32) -> CpuidTable {
    let (ebx, ecx, edx) = vendor;
    let mut table = CpuidTable::default();
    table.insert(0, 0, Registers { eax: 0xd, ebx, ecx, edx });
    // 1.ECX: SSE3, XSAVE, OSXSAVE, AVX, RDRAND. 1.EDX: FPU, TSC, MSR, APIC, PGE, MMX, FXSR, SSE, SSE2.
    table.insert(1, 0, Registers { eax: signature, ebx: 0, ecx: 0x5c00_0001, edx: 0x0780_2231 });
    table.insert(7, 0, Registers { eax: 0, ebx: 1 << 5, ecx: 0, edx: 0 });
    table.insert(0xd, 0, Registers { eax: 7, ebx: 0x340, ecx: 0x340, edx: 0 });
    table.insert(0x8000_0000, 0, Registers { eax: 0x8000_0008, ..Registers::default() });
    table.insert(0x8000_0001, 0, Registers { edx: 1 << 29, ..Registers::default() });
    table
}

fn run(table: &CpuidTable, msrs: &MsrTable, cmdline: Option<&str>, release: &str) -> Output {
    let (microcode, config, unlisted) = (None, None, Unlisted::NotSeen);
    let input = Input { of: "host", at: Stage::Host, cpuid: table, msrs, unlisted, microcode, cmdline, config };
    boot(&input, linux::nearest(release).tree)
}

fn effect(output: &Output, feature: &str) -> Option<(Effect, &'static str)> {
    output.steps.iter().find(|step| step.feature == feature).map(|step| (step.effect, step.rule.0))
}

#[test]
fn a_cleared_feature_takes_its_dependents_along() {
    let output = run(&cpu(INTEL, 0x306a9), &MsrTable::default(), Some("clearcpuid=avx"), "6.1");
    assert!(!output.flags.contains(&"avx") && !output.flags.contains(&"avx2"));
    assert_eq!(effect(&output, "avx"), Some((Effect::Dropped, "LNX0005")));
    assert_eq!(effect(&output, "avx2"), Some((Effect::Dropped, "LNX0004")));
    let step = output.steps.iter().find(|step| step.feature == "avx2").unwrap();
    assert!(step.because.contains(&Evidence::Flag { of: "host", name: "avx".into(), printed: false }));
}

#[test]
fn a_missing_parent_takes_nothing_along() {
    let mut table = cpu(INTEL, 0x306a9);
    table.insert(1, 0, Registers { eax: 0x306a9, ebx: 0, ecx: 0x4c00_0001, edx: 0x0780_2231 });
    let output = run(&table, &MsrTable::default(), Some(""), "6.1");
    assert!(!output.flags.contains(&"avx") && output.flags.contains(&"avx2"));
}

#[test]
fn names_in_clearcpuid_are_understood_from_6_0_on() {
    let table = cpu(INTEL, 0x306a9);
    let shows = |cmdline: &str, release: &str| {
        run(&table, &MsrTable::default(), Some(cmdline), release).flags.contains(&"avx2")
    };
    assert!(shows("clearcpuid=avx2", "5.10") && !shows("clearcpuid=avx2", "6.0"));
    // Word 9, bit 5.
    assert!(!shows("clearcpuid=293", "5.10") && !shows("clearcpuid=nosuchflag,293", "6.0"));
}

#[test]
fn what_is_forced_outlives_what_is_cleared() {
    let table = cpu(INTEL, 0x306a9);
    let cleared = run(&table, &MsrTable::default(), Some("clearcpuid=cpuid,nopl"), "6.12");
    assert!(cleared.flags.contains(&"cpuid") && cleared.flags.contains(&"nopl"));
    let both = run(&table, &MsrTable::default(), Some("clearcpuid=avx512f setcpuid=avx512f"), "7.3");
    assert!(both.flags.contains(&"avx512f"));
    assert_eq!(effect(&both, "avx512f"), Some((Effect::Forced, "LNX0006")));
}

#[test]
fn a_leaf_above_the_maximum_clears_what_needs_it() {
    let mut table = cpu(INTEL, 0x306a9);
    let (ebx, ecx, edx) = INTEL;
    table.insert(0, 0, Registers { eax: 7, ebx, ecx, edx });
    let output = run(&table, &MsrTable::default(), Some(""), "6.1");
    assert_eq!(effect(&output, "xsave"), Some((Effect::Dropped, "LNX0003")));
    assert!(!output.flags.contains(&"avx2"), "AVX2 hangs on XSAVE");
}

#[test]
fn an_unseen_msr_is_assumed_and_named() {
    let mut table = cpu(INTEL, 0x306a9);
    table.insert(7, 0, Registers { eax: 0, ebx: 1 << 5 | 1 << 9, ecx: 0, edx: 0 });
    let assumed = run(&table, &MsrTable::default(), Some(""), "6.1");
    assert!(assumed.flags.contains(&"erms") && assumed.flags.contains(&"rep_good"));
    let assumption = assumed.assumed.iter().find(|assumption| assumption.what == "MSR 1A0H").unwrap();
    assert!(assumption.hangs.contains(&"erms") && assumption.hangs.contains(&"rep_good"));

    let mut msrs = MsrTable::default();
    msrs.insert(0x1a0, MsrReading::Value(0));
    let seen = run(&table, &msrs, Some(""), "6.1");
    assert!(!seen.flags.contains(&"erms") && !seen.flags.contains(&"rep_good"));
    assert!(seen.assumed.iter().all(|assumption| assumption.what != "MSR 1A0H"));
}

#[test]
fn speculation_control_is_hidden_and_its_consequences_are_shown() {
    let mut table = cpu(INTEL, 0x306a9);
    table.insert(7, 0, Registers { eax: 0, ebx: 0, ecx: 0, edx: 1 << 26 });
    let mut msrs = MsrTable::default();
    msrs.insert(0x8b, MsrReading::Value(0x21 << 32));
    let output = run(&table, &msrs, Some(""), "6.1");
    assert!(output.hidden.contains(&"spec_ctrl") && !output.flags.contains(&"spec_ctrl"));
    assert!(output.flags.contains(&"ibrs") && output.flags.contains(&"ibpb"));
    assert_eq!(effect(&output, "ibrs"), Some((Effect::Added, "LNX0200")));
}

#[test]
fn meltdown_brings_page_table_isolation_unless_it_is_switched_off() {
    let (intel, amd) = (cpu(INTEL, 0x306a9), cpu(AMD, 0x0080_0f12));
    let bugs = |table: &CpuidTable| run(table, &MsrTable::default(), Some(""), "6.1").bugs;
    assert!(bugs(&intel).contains(&"cpu_meltdown") && !bugs(&amd).contains(&"cpu_meltdown"));
    let pti = |cmdline: &str| run(&intel, &MsrTable::default(), Some(cmdline), "6.1").flags.contains(&"pti");
    assert!(pti("quiet") && !pti("pti=off") && !pti("mitigations=off") && !pti("nopti"));
}

#[test]
fn an_assumed_arch_capabilities_decides_bugs_and_what_follows_from_them() {
    let mut table = cpu(INTEL, 0x606a6);
    table.insert(7, 0, Registers { eax: 0, ebx: 0, ecx: 0, edx: 1 << 29 });
    let output = run(&table, &MsrTable::default(), Some(""), "6.1");
    let assumption = output.assumed.iter().find(|assumption| assumption.what == "MSR 10AH").unwrap();
    for hangs in ["cpu_meltdown", "mds", "pti", "ibrs_enhanced"] {
        assert!(assumption.hangs.contains(&hangs), "{hangs}: {:?}", assumption.hangs);
    }
}

#[test]
fn kvmclock_tells_the_frequency_and_keeps_the_native_functions_away() {
    // Model 4CH, whose frequency the kernel otherwise reads from MSRs.
    let mut table = cpu(INTEL, 0x406c3);
    table.insert(1, 0, Registers { eax: 0x406c3, ebx: 0, ecx: 0xdc00_0001, edx: 0x0780_2231 });
    let shown = |table: &CpuidTable, cmdline: &str| {
        let output = run(table, &MsrTable::default(), Some(cmdline), "6.1");
        ["tsc_known_freq", "tsc_reliable"].map(|flag| output.flags.contains(&flag))
    };
    assert_eq!(shown(&table, ""), [true, true]);
    table.insert(0x4000_0000, 0, Registers { eax: 0x4000_0001, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d });
    table.insert(0x4000_0001, 0, Registers { eax: 1 << 3, ..Registers::default() });
    assert_eq!(shown(&table, ""), [true, false]);
    assert_eq!(shown(&table, "no-kvmclock"), [true, true]);
}
