//! This machine, as it is: what is proved is printed, and what the machine lacks is named.

#![allow(clippy::disallowed_methods, reason = "asks another program for a second opinion")]
#![allow(clippy::expect_used, reason = "what is expected is what is tested")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use cpusieve_model::{CpuidBit, Register, Snapshot, State};
use cpusieve_probe::{Only, Options, machine, record};
use raw_cpuid::CpuId;

/// Leaf, subleaf, register, bit, the kernel's name, and what another decoder says of it.
type Named = (u32, u32, Register, u8, &'static str, Option<bool>);

fn cpuid_only() -> Snapshot {
    record(Options::only(Only::Cpuid))
}

/// The pairs and values of `cpuid -r`, for each CPU.
fn other_dump(text: &str) -> Vec<Vec<(u32, u32, [u32; 4])>> {
    let number = |word: &str| u32::from_str_radix(word.rsplit("0x").next()?.trim_end_matches(':'), 16).ok();
    let mut cpus: Vec<Vec<_>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("CPU") {
            cpus.push(Vec::new());
            continue;
        }
        let words: Option<Vec<_>> = line.split_whitespace().map(number).collect();
        let words: [u32; 6] = words.and_then(|words| words.try_into().ok()).expect("six numbers in a line");
        let [leaf, subleaf, values @ ..] = words;
        cpus.last_mut().expect("a CPU's heading before its lines").push((leaf, subleaf, values));
    }
    cpus
}

/// Bits that differ between two readings of the same CPU: they count, or say which CPU this is or what its kernel has
/// switched on at the moment.
fn moves(leaf: u32) -> bool {
    matches!(leaf, 0x1 | 0xb | 0x1f | 0x8000_001e | 0x8000_0026)
}

#[test]
fn all_that_another_dumper_shows_is_seen_and_the_same() {
    let Ok(output) = Command::new("cpuid").arg("-r").output() else {
        eprintln!("skipped: there is no cpuid (package cpuid) on this machine");
        return;
    };
    let theirs = other_dump(&String::from_utf8_lossy(&output.stdout));
    let ours = cpuid_only();
    assert_eq!(ours.cpus.len(), theirs.len(), "{:?}", ours.missing);
    let mut compared = 0;
    for (cpu, theirs) in ours.cpus.iter().zip(&theirs) {
        for &(leaf, subleaf, values) in theirs {
            let Some(registers) = cpu.cpuid.get(leaf, subleaf) else {
                // The other asks a few pairs that no announcement leads to; there is nothing in them.
                assert_eq!(values, [0; 4], "{leaf:x}.{subleaf:x} holds something and was not asked");
                continue;
            };
            if !moves(leaf) {
                let seen = [registers.eax, registers.ebx, registers.ecx, registers.edx];
                assert_eq!(seen, values, "CPU {}, leaf {leaf:x}.{subleaf:x}", cpu.id);
            }
            compared += 1;
        }
    }
    eprintln!("proved: {compared} pairs on {} CPUs are what cpuid -r shows", theirs.len());
}

#[test]
fn every_feature_that_a_second_decoder_names_agrees() {
    let snapshot = cpuid_only();
    let table = &snapshot.cpus.first().expect("a CPU").cpuid;
    let other = CpuId::new();
    let vendor = other.get_vendor_info().map(|vendor| vendor.as_str().to_owned());
    assert_eq!(table.vendor_string(), vendor);
    let info = other.get_feature_info().expect("leaf 1");
    assert_eq!(table.signature(), {
        let (family, model) = (u32::from(info.family_id()), u32::from(info.model_id()));
        Some((family, model, u32::from(info.stepping_id())))
    });
    let mut compared = 0;
    for (leaf, subleaf, register, bit, name, told) in named(&other) {
        let state = table.state(CpuidBit::new(leaf, subleaf, register, bit));
        match told {
            Some(told) => assert_eq!(state.known(), Some(told), "{name}: {state}"),
            // The other decoder found no such leaf; neither may there be one here.
            None => assert_ne!(state, State::Present, "{name}"),
        }
        compared += 1;
    }
    eprintln!("proved: vendor, signature and {compared} features are what raw-cpuid says");
}

fn named(other: &CpuId<impl raw_cpuid::CpuIdReader>) -> Vec<Named> {
    use Register::{Eax, Ebx, Ecx, Edx};
    let basic = other.get_feature_info();
    let extended = other.get_extended_feature_info();
    let amd = other.get_extended_processor_and_feature_identifiers();
    let xsave = other.get_extended_state_info();
    let power = other.get_advanced_power_mgmt_info();
    macro_rules! rows {
        ($source:ident, $leaf:expr, $subleaf:expr, $($register:ident $bit:literal $method:ident),+ $(,)?) => {
            vec![$(($leaf, $subleaf, $register, $bit, stringify!($method), $source.as_ref().map(|s| s.$method()))),+]
        };
    }
    let mut rows: Vec<Named> = rows!(basic, 1, 0, Ecx 0 has_sse3, Ecx 1 has_pclmulqdq, Ecx 3 has_monitor_mwait,
        Ecx 5 has_vmx, Ecx 9 has_ssse3, Ecx 12 has_fma, Ecx 13 has_cmpxchg16b, Ecx 15 has_pdcm, Ecx 17 has_pcid,
        Ecx 19 has_sse41, Ecx 20 has_sse42, Ecx 21 has_x2apic, Ecx 22 has_movbe, Ecx 23 has_popcnt,
        Ecx 24 has_tsc_deadline, Ecx 25 has_aesni, Ecx 26 has_xsave, Ecx 27 has_oxsave, Ecx 28 has_avx,
        Ecx 29 has_f16c, Ecx 30 has_rdrand, Ecx 31 has_hypervisor, Edx 0 has_fpu, Edx 4 has_tsc, Edx 9 has_apic,
        Edx 15 has_cmov, Edx 22 has_acpi, Edx 24 has_fxsave_fxstor, Edx 25 has_sse, Edx 26 has_sse2, Edx 28 has_htt);
    rows.extend(rows!(extended, 7, 0, Ebx 0 has_fsgsbase, Ebx 1 has_tsc_adjust_msr, Ebx 3 has_bmi1, Ebx 4 has_hle,
        Ebx 5 has_avx2, Ebx 7 has_smep, Ebx 8 has_bmi2, Ebx 10 has_invpcid, Ebx 11 has_rtm, Ebx 16 has_avx512f,
        Ebx 17 has_avx512dq, Ebx 18 has_rdseed, Ebx 19 has_adx, Ebx 20 has_smap, Ebx 21 has_avx512_ifma,
        Ebx 24 has_clwb, Ebx 28 has_avx512cd, Ebx 29 has_sha, Ebx 30 has_avx512bw, Ebx 31 has_avx512vl,
        Ecx 1 has_avx512vbmi, Ecx 2 has_umip, Ecx 3 has_pku, Ecx 8 has_gfni, Ecx 9 has_vaes, Ecx 16 has_la57,
        Ecx 22 has_rdpid));
    rows.extend(rows!(extended, 7, 1, Eax 4 has_avx_vnni, Eax 5 has_avx512_bf16));
    rows.extend(rows!(amd, 0x8000_0001, 0, Ecx 0 has_lahf_sahf, Ecx 2 has_svm, Ecx 5 has_lzcnt, Ecx 6 has_sse4a,
        Ecx 8 has_prefetchw, Edx 11 has_syscall_sysret, Edx 20 has_execute_disable, Edx 26 has_1gib_pages,
        Edx 27 has_rdtscp, Edx 29 has_64bit_mode));
    rows.extend(rows!(xsave, 0xd, 1, Eax 0 has_xsaveopt, Eax 1 has_xsavec, Eax 2 has_xgetbv, Eax 3 has_xsaves_xrstors));
    rows.extend(rows!(power, 0x8000_0007, 0, Edx 8 has_invariant_tsc));
    rows
}

#[test]
fn every_range_is_complete_on_every_cpu() {
    for cpu in cpuid_only().cpus {
        for head in [0, 0x8000_0000] {
            let maximum = cpu.cpuid.maximum(head).expect("a head");
            for leaf in head..=maximum {
                assert!(cpu.cpuid.get(leaf, 0).is_some(), "CPU {}: leaf {leaf:x} is missing", cpu.id);
            }
        }
    }
}

#[test]
fn a_full_record_shows_each_part_or_names_it() {
    let snapshot = record(Options::default());
    let named = |what: &str| snapshot.missing.iter().any(|part| part.what.contains(what));
    assert!(!snapshot.cpus.is_empty());
    assert!(snapshot.cpus.iter().all(|cpu| !cpu.msrs.is_empty()) || named("MSRs"));
    let linux = snapshot.linux.as_ref().expect("a kernel");
    assert!(linux.release.as_deref().is_some_and(|release| !release.is_empty()));
    assert!(linux.cpuinfo.as_deref().is_some_and(|text| text.contains("flags")));
    assert!(linux.config.is_some() || named("kernel configuration"));
    match snapshot.kvm.as_ref().and_then(|kvm| kvm.supported.as_ref()) {
        Some(supported) => {
            let kvm = snapshot.kvm.as_ref().expect("it was just there");
            eprintln!("proved: KVM answers {} leaves and {} capabilities", supported.len(), kvm.caps.len());
            assert!(kvm.msr_index.as_ref().is_some_and(|list| !list.is_empty()));
            assert!(kvm.msr_features.is_some());
            assert!(kvm.caps.contains_key(&72), "a zero of a capability that decides is kept");
        }
        None => assert!(named("kvm"), "{:?}", snapshot.missing),
    }
    for part in &snapshot.missing {
        eprintln!("not seen here: {}: {} ({:?})", part.what, part.why, part.remedy);
        assert!(!part.why.is_empty());
    }
}

#[test]
fn the_machine_is_what_its_hypervisor_bit_says() {
    let snapshot = cpuid_only();
    let table = &snapshot.cpus.first().expect("a CPU").cpuid;
    let machine = machine::look(table);
    eprintln!("this is {machine}");
    let bit = table.state(CpuidBit::new(1, 0, Register::Ecx, 31));
    // Without the bit it may be a guest all the same: a VMM can hide it.
    assert!(bit != State::Present || machine.kind == machine::Kind::Guest);
}

/// Set for the run of this program that has given up its privileges.
const UNPRIVILEGED: &str = "CPUSIEVE_TEST_UNPRIVILEGED";

#[test]
fn without_privilege_each_loss_is_named_with_a_remedy() {
    let root = rustix::process::geteuid().is_root();
    if root && std::env::var_os(UNPRIVILEGED).is_none() {
        let own = std::env::current_exe().expect("this program has a path");
        let this = "without_privilege_each_loss_is_named_with_a_remedy";
        let mut again = Command::new(own);
        again.args(["--exact", this, "--nocapture"]).env(UNPRIVILEGED, "1").uid(65534).gid(65534);
        match again.output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("skipped: cannot run as nobody: {error}"),
        }
        return;
    }
    let snapshot = record(Options::default());
    assert!(!snapshot.cpus.is_empty(), "CPUID needs no privilege");
    for part in &snapshot.missing {
        let refused = part.why.contains("os error 1)") || part.why.contains("os error 13)");
        assert!(!refused || part.remedy.is_some(), "{part:?}");
    }
    assert!(snapshot.cpus.iter().all(|cpu| cpu.msrs.is_empty()), "MSRs need privilege");
    assert!(snapshot.missing.iter().any(|part| part.what.starts_with("MSRs") && part.remedy.is_some()));
    let supported = snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some());
    assert!(supported || snapshot.missing.iter().any(|part| part.what == "kvm"), "{:?}", snapshot.missing);
}
