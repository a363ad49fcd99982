//! Words of rules that stand for something that no condition of the rule language says: each is decided here.

use std::sync::LazyLock;

#[cfg(test)]
use cpusieve_knowledge::rules::{Condition, RULES, Software};
use cpusieve_model::{MsrBit, State, Vendor};

use super::mitigations::SpectreV2;
use super::state::Boot;
use super::truth::Truth;
use crate::names::Names;

/// How words are decided.
#[derive(Clone, Copy)]
pub(super) enum Decide {
    /// On every ordinary boot it is so (a self test passes, no platform of the year 2010): no assumption worth listing.
    Normally(bool),
    /// No capture shows it: what it is about, what it is taken to be, and why.
    Assumed(&'static str, bool, &'static str),
    /// By what was captured.
    By(fn(&mut Boot<'_>) -> Truth),
    /// By what was captured, where that decides.
    Perhaps(fn(&mut Boot<'_>) -> Option<Truth>),
    /// Not known: what the rule does stays unknown if its other conditions hold.
    Unknown,
}

use Decide::{Assumed, By, Normally, Perhaps, Unknown};

/// The words, each once.
const WORDS: &[(&str, Decide)] = &[
    // The time stamp counter.
    ("the TSC does not reset on single CPUs", Normally(true)),
    ("leaf 15H: EAX and EBX are not 0, and the kernel knows the crystal's frequency", By(crystal_is_known)),
    ("leaf 15H gives the ratio, and the crystal's frequency is known or computed", By(crystal_is_known_or_computed)),
    ("Hyper-V offers its frequency MSRs", By(|boot| hyperv(boot, 0x4000_0003, 1 << 11, 1 << 8))),
    ("Hyper-V offers control of the invariant TSC", By(|boot| hyperv(boot, 0x4000_0003, 1 << 15, 0))),
    (
        "VMware told the TSC's frequency",
        Assumed("VMware tells the TSC's frequency", true, "VMware has done so for many releases"),
    ),
    ("one of the Intel MID platforms", Normally(false)),
    ("an Atom of the phone and tablet line, such as model 4AH", By(|boot| is_model(boot, &[0x27, 0x35, 0x4a]))),
    ("the TSC's frequency could not be determined", By(tsc_is_not_calibrated)),
    ("Haswell to Kaby Lake with microcode older than the fix", By(|boot| boot.deadline_is_broken())),
    ("microcode older than the fix of the TSC deadline timer", By(|boot| boot.deadline_is_broken())),
    // Speculation.
    ("microcode revision on the kernel's list", By(|boot| boot.bad_spectre_microcode())),
    ("the CPU has SRSO, mitigations are on, and the microcode extends IBPB", Unknown),
    ("writing SBPB to PRED_CMD does not fault", Assumed("SBPB works", true, "current microcode has it")),
    ("the CPU has SRSO and writing SBPB to PRED_CMD does not fault", Unknown),
    ("a CPU older than family 19H with SRSO, updated microcode, and SMT off", Perhaps(|boot| boot.srso_without_smt())),
    ("microcode at least as new as the kernel's list", By(|boot| boot.tsa_microcode())),
    ("Zen 3 or Zen 4 with microcode at least as new as the kernel's list", By(zen3_or_4_with_tsa_microcode)),
    ("LFENCE was made serializing in DE_CFG", By(|boot| Truth::seen(boot.family != 0xf && boot.family != 0x11))),
    ("LFENCE could not be made serializing in DE_CFG", By(|boot| Truth::seen(matches!(boot.family, 0xf | 0x11)))),
    ("the kernel did not choose BP_SPEC_REDUCE against SRSO", Normally(true)),
    ("Spectre v2 is mitigated by retpolines", Perhaps(|boot| boot.spectre_v2_is(&[SpectreV2::Retpolines]))),
    ("Spectre v2 is mitigated by AMD's retpolines", Unknown),
    ("Spectre v2 is mitigated by LFENCE", Perhaps(|boot| boot.only_if_asked())),
    ("Spectre v2 is mitigated by IBRS", Perhaps(|boot| boot.spectre_v2_is(&[SpectreV2::Ibrs]))),
    (
        "Spectre v2 is mitigated",
        Perhaps(|boot| boot.spectre_v2_is(&[SpectreV2::Retpolines, SpectreV2::Ibrs, SpectreV2::EnhancedIbrs])),
    ),
    (
        "Spectre v2 is mitigated by retpolines, LFENCE or IBRS",
        Perhaps(|boot| boot.spectre_v2_is(&[SpectreV2::Retpolines, SpectreV2::Ibrs])),
    ),
    ("enhanced IBRS is in use and the CPU has the bug eibrs_pbrsb", Perhaps(|boot| boot.pbrsb_matters())),
    ("IBPB is there and Spectre v2 is mitigated", Unknown),
    ("IBPB is there and Spectre v2 is mitigated between tasks", Perhaps(|boot| boot.ibpb_between_tasks())),
    ("IBRS is there and is not on all the time", Perhaps(|boot| boot.ibrs_for_firmware())),
    (
        "an AMD or Hygon CPU with the bug retbleed and IBPB, not mitigated by IBPB on entry",
        Perhaps(|boot| boot.ibpb_for_firmware()),
    ),
    ("speculative store bypass is switched off for all", Perhaps(|boot| boot.ssb_for_all())),
    ("the CPU has the bug l1tf and the memory is small enough", Perhaps(|boot| boot.l1tf_inverts())),
    ("Spectre v1 is mitigated, and SMAP does not protect SWAPGS", Perhaps(|boot| boot.swapgs_needs_fences())),
    (
        "MDS, TAA, MMIO stale data, RFDS or TSA is mitigated by clearing CPU buffers",
        Perhaps(|boot| boot.clears_buffers()),
    ),
    ("TSA is mitigated for guests", Perhaps(|boot| boot.clears_buffers_for_guests())),
    (
        "TSA (from 6.19 on also MDS, TAA, MMIO stale data or RFDS) is mitigated for guests",
        Perhaps(|boot| boot.clears_buffers_for_guests()),
    ),
    (
        "MMIO stale data is mitigated, and nothing else clears the buffers",
        Perhaps(|boot| boot.clears_buffers_for_mmio()),
    ),
    ("retbleed or SRSO is mitigated by untraining returns", Perhaps(|boot| boot.untrains_returns())),
    ("retbleed or SRSO is mitigated by IBPB on kernel entry", Perhaps(|boot| boot.only_if_asked())),
    ("SRSO is mitigated by IBPB after VM exits", Perhaps(|boot| boot.only_if_asked())),
    ("retbleed or SRSO is mitigated by IBPB", Perhaps(|boot| boot.only_if_asked())),
    ("retbleed (6.12: or ITS) is mitigated by call depth tracking", Perhaps(|boot| boot.only_if_asked())),
    ("retbleed (from 6.18 on also ITS) is mitigated by call depth tracking", Perhaps(|boot| boot.only_if_asked())),
    ("SRSO is mitigated by safe returns", Perhaps(|boot| boot.srso_by_safe_returns())),
    ("ITS is mitigated by aligned thunks", Perhaps(|boot| boot.its_by_thunks())),
    ("branch history injection is mitigated and the CPU has bhi_ctrl", Perhaps(|boot| boot.bhi_in_hardware())),
    ("branch history injection is mitigated in software", Perhaps(|boot| boot.bhi_in_software())),
    ("VMSCAPE is mitigated by IBPB", By(vmscape_by_ibpb)),
    ("`mitigations=` leaves attacks of user space on the kernel alone", By(user_kernel_vector_is_off)),
    // Paging, XSAVE, TSX.
    ("microcode older than the fix of INVLPG", By(|boot| boot.invlpg_misses())),
    ("the kernel was not entered with 5-level paging on", Normally(false)),
    (
        "the kernel has vsyscall emulation or EFI built in",
        Assumed("EFI and vsyscall emulation are built in", true, "distribution kernels have both"),
    ),
    ("the kernel's self test of IBT failed", By(|boot| Truth::seen(boot.loses_writes(0x6a2)))),
    ("Hyper-V's hypercall page does not begin with ENDBR", Normally(false)),
    ("XSAVE was switched off: `noxsave`, no FPU, or an enumeration that does not add up", By(xsave_was_switched_off)),
    ("leaf 0DH lacks FP or SSE, or its sizes do not add up", By(|boot| Truth::seen(lacks_fp_or_sse(boot)))),
    (
        "TSX is switched off: `tsx=off`, `tsx=auto` on a CPU open to TAA, or by the kernel's configuration",
        By(|boot| tsx(boot, false)),
    ),
    ("TSX is switched on: `tsx=on`, or by the kernel's configuration", By(|boot| tsx(boot, true))),
    ("TSX development mode was on in MCU_OPT_CTRL, on a CPU open to TAA", Normally(false)),
    ("a CPU without the CPUID instruction, and no FPU found by probing", Normally(false)),
    ("a CPU without the CPUID instruction, and an FPU found by probing", Normally(false)),
    ("Xen does not let the guest use XSAVE", Normally(false)),
    (
        "the CPU has the bug gds and no microcode to control it",
        By(|boot| {
            let (value, on) = boot.arch_capabilities();
            Truth { holds: boot.has_bug("GDS") && value >> 25 & 1 == 0, on }
        }),
    ),
    // Virtualization, enclaves, encryption.
    ("VMXON could not be prepared (VMCS size, memory)", Normally(false)),
    ("the VMX capability MSRs allow it", Assumed("the VMX capability MSRs", true, "current CPUs have these controls")),
    (
        "the kernel uses SGX neither by itself nor for guests (CONFIG_X86_SGX, launch control)",
        By(|boot| Truth::seen(!boot.has("SGX_LC") && !boot.has("VMX"))),
    ),
    ("SGX is not used for guests either", By(|boot| Truth::seen(!boot.has("VMX")))),
    (
        "MSR 982H (TME_ACTIVATE) is not both locked and enabled",
        By(|boot| {
            let (value, on) = boot.msr_or_zero(0x982);
            Truth { holds: value & 3 != 3, on }
        }),
    ),
    (
        "the kernel does not encrypt its own memory (`mem_encrypt=on` was not in force at boot)",
        By(|boot| Truth { holds: !boot.cmdline.given("mem_encrypt=on"), on: boot.note_cmdline() }),
    ),
    ("memory encryption is off (SYSCFG[23]), or SMM is not locked (HWCR[0])", By(no_memory_encryption)),
    (
        "older than family 19H, or no RMP table that the kernel can use",
        Assumed("the firmware set up an RMP table for SEV-SNP", true, "most firmware does not"),
    ),
    (
        "neither Zen 3, Zen 4 nor RMPREAD, or no RMP table that the kernel can use",
        Assumed("the firmware set up an RMP table for SEV-SNP", true, "most firmware does not"),
    ),
    (
        "the firmware set at least two private KeyIDs aside",
        Assumed("the firmware set private KeyIDs aside", false, "most firmware does not"),
    ),
    ("an SEV-SNP or TDX guest, or isolated by Hyper-V", By(confidential_guest)),
    ("a confidential or Xen PV guest whose memory types the kernel fixes", By(confidential_guest)),
    // Xen.
    ("not Xen's first domain", Normally(true)),
    ("Xen lets the guest use MWAIT", Normally(false)),
    ("Xen does not let the guest use MWAIT", Normally(true)),
    ("Xen refused the callback", Normally(false)),
    ("a paravirtualized domain", Assumed("a paravirtualized Xen domain", false, "HVM and PVH are what is in use")),
    // AMD, and topology.
    (
        "PCI configuration 00:18.0 register 68H bits 18:17 are both set",
        Assumed("the north bridge has 8-bit APIC ids on", true, "firmware switches them on"),
    ),
    (
        "the bit could be set in MSR C0011005H",
        By(|boot| {
            let holds = !boot.is_vm();
            Truth {
                holds,
                on: boot.assumptions.note_words("TOPOEXT can be set in MSR C0011005H", holds, "CPUs have it"),
            }
        }),
    ),
    ("the MSR NODEID tells more than one node a package", By(nodes_by_msr)),
    ("the bit could be cleared in MSR C0011004H", By(|boot| Truth::seen(!boot.is_vm()))),
    ("a Cyrix CPU", Normally(false)),
    ("a Cyrix CPU with bit 24 of 80000001H:EDX", Normally(false)),
    ("a Cyrix 6x86 or MII", Normally(false)),
    ("RDRAND delivered nothing in the self test", Normally(false)),
    ("RDRAND failed, or repeated itself, in the self test", Normally(false)),
    (
        "microcode older than the fix, or a model and stepping that is not on the kernel's list",
        By(|boot| boot.zen5_rdseed_is_broken()),
    ),
    // Serial numbers, performance counters.
    (
        "a server model from Ivy Bridge on, or Xeon Phi",
        By(|boot| is_model(boot, &[0x3e, 0x3f, 0x4f, 0x55, 0x56, 0x57, 0x6a, 0x6c, 0x85])),
    ),
    ("PPIN_CTL can be read and enabled", By(|boot| ppin(boot, true))),
    ("PPIN_CTL can be read and is enabled", By(|boot| ppin(boot, true))),
    ("PPIN_CTL cannot be read, is locked, or does not enable", By(|boot| ppin(boot, false))),
    ("a CPU without the CPUID instruction", Normally(false)),
    ("the LBR depth MSR refuses the greatest depth", Normally(false)),
    // The local APIC.
    ("the kernel may use neither ACPI nor MP tables (`acpi=off` without MP table support)", By(acpi_mps_check)),
    ("the firmware left the APIC in x2APIC mode", Normally(false)),
    ("the APIC was enabled by the kernel", Normally(false)),
    ("x2APIC mode is off, or can be left", Normally(true)),
    // Hypervisors, buses, one CPU.
    ("VMware asks for VMCALL", Normally(false)),
    ("VMware asks for VMMCALL", Normally(false)),
    ("the hypervisor takes part in spin locks", Unknown),
    ("the hypervisor tells which vCPUs are not running", Unknown),
    ("the bit in MSR 33H (TEST_CTRL) can be switched", By(test_ctrl_works)),
    ("more than one CPU comes up after code was patched for one", Normally(false)),
];

/// How words are decided; words that are not on the list stay unknown.
pub(super) fn decide(words: &str) -> &'static Decide {
    static BY_WORDS: LazyLock<Names<&'static Decide>> =
        LazyLock::new(|| Names::new(WORDS.iter().map(|(words, decide)| (*words, decide))));
    BY_WORDS.get(words).copied().unwrap_or(&Unknown)
}

/// Words of Linux's rules that nothing here decides: none, as a law of the tables.
#[cfg(test)]
pub(super) fn undecided() -> impl Iterator<Item = &'static str> {
    let rules = RULES.iter().filter(|rule| rule.software == Software::Linux);
    let words = rules.flat_map(|rule| rule.needs).filter_map(|need| match need.condition {
        Condition::Other(words) | Condition::Model(words) => Some(words),
        _ => None,
    });
    words.filter(|words| !WORDS.iter().any(|(known, _)| known == words))
}

fn is_model(boot: &mut Boot<'_>, models: &[u32]) -> Truth {
    Truth::seen(boot.family == 6 && models.contains(&boot.model))
}

/// `tsc.c:native_calibrate_tsc` up to 5.3: crystals of Skylake, Denverton and Goldmont are in the code.
fn crystal_is_known(boot: &mut Boot<'_>) -> Truth {
    let leaf = boot.cpuid(0x15, 0);
    let in_code = matches!(boot.model, 0x4e | 0x5e | 0x5f | 0x5c);
    Truth::seen(boot.has_leaf(0x15) && leaf.eax != 0 && leaf.ebx != 0 && (leaf.ecx >= 1000 || in_code))
}

/// `tsc.c:native_calibrate_tsc`: the crystal's frequency is told, or computed from the base frequency of leaf 16H.
fn crystal_is_known_or_computed(boot: &mut Boot<'_>) -> Truth {
    let leaf = boot.cpuid(0x15, 0);
    let ratio = boot.has_leaf(0x15) && leaf.eax != 0 && leaf.ebx != 0;
    let base = boot.has_leaf(0x16) && boot.cpuid(0x16, 0).eax & 0xffff != 0;
    Truth::seen(ratio && (leaf.ecx >= 1000 || base))
}

/// `tsc.c:determine_cpu_tsc_frequencies`: where nothing tells the frequency, the kernel measures it, and hypervisors
/// that are slow to answer timers make that fail.
fn tsc_is_not_calibrated(boot: &mut Boot<'_>) -> Truth {
    let virtual_cpu = boot.is_vm() || boot.input.cpuid.get(0x4000_0000, 0).is_some_and(|leaf| leaf.ebx != 0);
    if boot.has("TSC_KNOWN_FREQ") || !virtual_cpu {
        return Truth::seen(false);
    }
    let on = boot.assumptions.note_words("the TSC can be measured", true, "most hypervisors' timers are good enough");
    Truth { holds: false, on }
}

/// Bits of EAX and EDX of one of Hyper-V's leaves.
fn hyperv(boot: &mut Boot<'_>, leaf: u32, eax: u32, edx: u32) -> Truth {
    let registers = boot.cpuid(leaf, 0);
    Truth::seen(boot.has_leaf(leaf) && registers.eax & eax == eax && registers.edx & edx == edx)
}

fn zen3_or_4_with_tsa_microcode(boot: &mut Boot<'_>) -> Truth {
    if boot.has("ZEN3") || boot.has("ZEN4") { boot.tsa_microcode() } else { Truth::seen(false) }
}

/// `bugs.c:vmscape_select_mitigation`.
fn vmscape_by_ibpb(boot: &mut Boot<'_>) -> Truth {
    let off = boot.mitigations_off() || boot.cmdline.given("vmscape=off");
    Truth { holds: boot.has("IBPB") && !off, on: boot.note_cmdline() }
}

/// `bus_lock.c:split_lock_verify_msr`: the kernel writes the bit and reads it back.
fn test_ctrl_works(boot: &mut Boot<'_>) -> Truth {
    if boot.loses_writes(0x33) {
        return Truth::seen(false);
    }
    let readable = boot.input.msrs.state(MsrBit { index: 0x33, bit: 29 });
    match readable {
        State::Unreadable => Truth::seen(false),
        State::Unknown => {
            let on = boot.assumptions.note_words("MSR 33H (TEST_CTRL) works", true, "CPUs that announce it have it");
            Truth { holds: true, on }
        }
        _ => Truth::seen(true),
    }
}

/// `kernel/cpu.c:mitigations_parse_cmdline`, from 6.17 on: attack vectors may be left out one by one.
fn user_kernel_vector_is_off(boot: &mut Boot<'_>) -> Truth {
    let options = boot.cmdline.value("mitigations").unwrap_or_default();
    let off = boot.release() >= (6, 17) && options.split(',').any(|option| option == "no_user_kernel");
    Truth { holds: off, on: boot.note_cmdline() }
}

/// `acpi/boot.c:acpi_mps_check`.
fn acpi_mps_check(boot: &mut Boot<'_>) -> Truth {
    let without = ["acpi=off", "acpi=noirq", "pci=noacpi"].iter().any(|parameter| boot.cmdline.given(parameter));
    if !without {
        return Truth { holds: false, on: boot.note_cmdline() };
    }
    let tables = boot.config("X86_MPPARSE");
    Truth { holds: !tables.holds, on: tables.on }
}

fn lacks_fp_or_sse(boot: &Boot<'_>) -> bool {
    boot.has("XSAVE") && boot.has_leaf(0xd) && (boot.cpuid(0xd, 0).eax | boot.cpuid(0xd, 1).ecx) & 3 != 3
}

fn xsave_was_switched_off(boot: &mut Boot<'_>) -> Truth {
    let parameter = boot.param("noxsave");
    let holds = parameter.holds || !boot.has("FPU") || lacks_fp_or_sse(boot);
    Truth { holds, on: if parameter.holds { 0 } else { parameter.on } }
}

/// `tsx.c:tsx_init`: distributions build with `CONFIG_X86_INTEL_TSX_MODE_OFF` or `_AUTO`; both switch TSX off on CPUs
/// that are open to TAA, and that is all that has the MSR but a few.
fn tsx(boot: &mut Boot<'_>, on: bool) -> Truth {
    let auto = !boot.has_bug("TAA");
    let value = boot.cmdline.value("tsx");
    let enabled = match value {
        Some("on") => true,
        Some("auto") => auto,
        Some(_) => false,
        None => boot.input.config.is_some_and(|config| {
            let is = |option: &str| config.get(option).is_some_and(|value| value == "y");
            is("CONFIG_X86_INTEL_TSX_MODE_ON") || is("CONFIG_X86_INTEL_TSX_MODE_AUTO") && auto
        }),
    };
    let assumed = if value.is_none() && boot.input.config.is_none() {
        boot.assumptions.note_words("the kernel switches TSX off", true, "distributions build it so")
    } else {
        boot.note_cmdline()
    };
    Truth { holds: enabled == on, on: assumed }
}

/// `amd.c:early_detect_mem_encrypt`.
fn no_memory_encryption(boot: &mut Boot<'_>) -> Truth {
    let (syscfg, on) = boot.msr_or_zero(0xc001_0010);
    let (hwcr, also_on) = boot.msr_or_zero(0xc001_0015);
    Truth { holds: syscfg >> 23 & 1 == 0 || hwcr & 1 == 0, on: on | also_on }
}

/// SEV-SNP by the MSR of its guests, TDX by its leaf, Hyper-V's isolation by its leaf 4000000CH.
fn confidential_guest(boot: &mut Boot<'_>) -> Truth {
    let (snp, on) = if boot.has_leaf(0x8000_001f) && boot.cpuid(0x8000_001f, 0).eax >> 1 & 1 == 1 {
        boot.msr_or_zero(0xc001_0131)
    } else {
        (0, 0)
    };
    let isolated = boot.has_leaf(0x4000_000c) && boot.cpuid(0x4000_000c, 0).ebx & 0xf != 0;
    Truth { holds: snp >> 2 & 1 == 1 || boot.has("TDX_GUEST") || isolated, on }
}

/// `MSR_FAM10H_NODE_ID`, bits 5:3.
fn nodes_by_msr(boot: &mut Boot<'_>) -> Truth {
    let (value, on) = boot.msr_or_zero(0xc001_100c);
    Truth { holds: value >> 3 & 7 > 0, on }
}

/// `common.c:ppin_init`: the control MSR (4EH; AMD C00102F0H) is enabled, or not locked and takes the enable bit.
fn ppin(boot: &mut Boot<'_>, works: bool) -> Truth {
    let index = if boot.vendor == Vendor::Intel { 0x4e } else { 0xc001_02f0 };
    if boot.is_vm() && boot.input.unlisted == super::Unlisted::NotSeen {
        return Truth::seen(!works);
    }
    let (value, on) = boot.msr(index);
    // If it is not locked, the kernel sets the enable bit.
    let enabled = value.is_some_and(|value| value & 3 != 1) && !boot.loses_writes(index);
    Truth { holds: enabled == works, on }
}
