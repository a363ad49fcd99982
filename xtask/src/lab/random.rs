//! Random machines for kernels to boot on: `-cpu` as [`fuzz_qemu`](super::fuzz_qemu) draws it, and words for the
//! kernel's command line.

use cpusieve_knowledge::qemu;

use super::fuzz_qemu::Numbers;

/// What a CPU must keep for a kernel of 64 bits to boot at all (`arch/x86/boot/cpuflags.c`), and for QEMU's firmware.
const NEEDED: [&str; 17] = [
    "apic", "cmov", "cx8", "fpu", "fxsr", "lm", "mce", "msr", "nx", "pae", "pge", "pse", "sep", "sse", "sse2",
    "syscall", "tsc",
];

/// Names for `clearcpuid=`, as `/proc/cpuinfo` has them, and numbers.
const CLEARED: [&str; 24] = [
    "smap",
    "smep",
    "umip",
    "pku",
    "xsave",
    "avx",
    "avx2",
    "fsgsbase",
    "invpcid",
    "pcid",
    "erms",
    "rdrand",
    "rdseed",
    "la57",
    "sse4_2",
    "aes",
    "pni",
    "clflush",
    "154",
    "156",
    "514",
    "304",
    "hypervisor",
    "nonsense",
];

/// Words of the command line that decide over flags or bugs.
const WORDS: [&str; 44] = [
    "mitigations=off",
    "mitigations=auto",
    "mitigations=auto,nosmt",
    "nosmap",
    "nosmep",
    "noxsave",
    "noxsaveopt",
    "noxsaves",
    "nopku",
    "nopcid",
    "noinvpcid",
    "nofsgsbase",
    "nox2apic",
    "noapic",
    "nolapic",
    "lapic",
    "nolapic_timer",
    "nosgx",
    "no5lvl",
    "tsx=on",
    "tsx=off",
    "tsx=auto",
    "spectre_v2=off",
    "spectre_v2=retpoline",
    "spectre_v2=eibrs",
    "nospectre_v1",
    "nospectre_v2",
    "spec_store_bypass_disable=off",
    "l1tf=off",
    "mds=off",
    "nopti",
    "pti=on",
    "pti=off",
    "noexec=off",
    "split_lock_detect=off",
    "retbleed=off",
    "spec_rstack_overflow=off",
    "nordrand",
    "mce=off",
    "notsc",
    "tsc=reliable",
    "idle=nomwait",
    "nogbpages",
    "ibt=off",
];

/// Properties with values that take a kernel off its common path.
const PROPERTIES: [&str; 40] = [
    "hypervisor=off",
    "hypervisor=off",
    "hypervisor=off",
    "vendor=GenuineIntel",
    "vendor=AuthenticAMD",
    "vendor=HygonGenuine",
    "vendor=CentaurHauls",
    "vendor=__Shanghai__",
    "vendor=Transmeta___",
    "vendor=Vortex86_SoC",
    "level=1",
    "level=4",
    "level=6",
    "level=0xb",
    "level=0xd",
    "level=0x14",
    "level=0x1f",
    "xlevel=0x80000001",
    "xlevel=0x80000004",
    "xlevel=0x80000008",
    "xlevel=0x8000000a",
    "xlevel=0x80000021",
    "min-xlevel=0x80000022",
    "family=5",
    "family=6",
    "family=15",
    "family=16",
    "family=21",
    "family=23",
    "family=25",
    "family=26",
    "model=1",
    "model=85",
    "model=143",
    "model=207",
    "stepping=0",
    "stepping=7",
    "phys-bits=36",
    "tcg-cpuid=off",
    "x-force-features=on",
];

/// So many rows: `-cpu` for QEMU of this release, and the command line's addition.
pub(super) fn rows(release: usize, seed: u64, count: usize) -> Vec<(String, String)> {
    let mut numbers = Numbers::new(seed);
    let models: Vec<_> = qemu::cpu_names(release).filter(|name| is_long(release, name)).collect();
    let names = qemu::named_bits().filter(|(name, bit)| bit.named.contains(release) && !NEEDED.contains(name));
    let emulated = names.filter(|(_, bit)| qemu::tcg(release, bit.place)).map(|(name, _)| name);
    let features: Vec<&str> = emulated.collect();
    (0..count).map(|_| (cpu(&mut numbers, &models, &features), cmdline(&mut numbers))).collect()
}

/// Whether a model has the long mode.
fn is_long(release: usize, name: &str) -> bool {
    let lm = qemu::places(release, "lm").next();
    let Some((resolved, lm)) = qemu::resolve(release, name).zip(lm) else { return false };
    qemu::Word::of(lm).is_some_and(|word| resolved.model.word(word) >> 29 & 1 == 1)
}

fn cpu(numbers: &mut Numbers, models: &[&str], features: &[&str]) -> String {
    let mut cpu = if numbers.one_in(3) { "max" } else { numbers.one(models, "max") }.to_owned();
    for _ in 0..numbers.one(&[0, 1, 2, 3, 6], 1) {
        let part = match numbers.below(10) {
            0..4 => format!("-{}", numbers.one(features, "avx")),
            4..6 => format!("+{}", numbers.one(features, "avx")),
            _ => numbers.one(&PROPERTIES, "level=4").to_owned(),
        };
        cpu.push(',');
        cpu.push_str(&part);
    }
    cpu
}

fn cmdline(numbers: &mut Numbers) -> String {
    let words = (0..numbers.one(&[0, 0, 1, 2, 3], 0)).map(|_| {
        if !numbers.one_in(4) {
            return numbers.one(&WORDS, "nopcid").to_owned();
        }
        let cleared = (0..numbers.one(&[1, 1, 2, 3], 1)).map(|_| numbers.one(&CLEARED, "smap"));
        format!("clearcpuid={}", cleared.collect::<Vec<_>>().join(","))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_can_be_drawn_again() {
        let release = qemu::nearest("7.2").release;
        let drawn = rows(release, 3, 50);
        assert_eq!(drawn, rows(release, 3, 50));
        assert_ne!(drawn, rows(release, 4, 50));
        assert!(drawn.iter().all(|(cpu, _)| cpu.split(',').all(|part| part != "-lm" && part != "qemu32")));
    }
}
