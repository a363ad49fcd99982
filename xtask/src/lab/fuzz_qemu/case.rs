//! Random but plausible command lines, drawn from what is known of a release.

use std::fmt;

use cpusieve_knowledge::qemu::{self, Machine, MachineKind, PropertyKind};
use cpusieve_stages::qemu::Irqchip;

/// One command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// `-machine`, its type alone.
    pub(super) machine: &'static Machine,
    /// `-machine kernel-irqchip=`
    pub(super) irqchip: Option<Irqchip>,
    /// `-smp`
    pub(super) smp: String,
    /// The name of `-cpu`.
    pub(super) model: String,
    /// What follows the name, part by part.
    pub(super) parts: Vec<String>,
    /// `-overcommit cpu-pm=on`
    pub(super) cpu_pm: bool,
}

impl Case {
    /// `-cpu`
    pub(super) fn cpu(&self) -> String {
        [self.model.as_str()].into_iter().chain(self.parts.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
    }

    /// `-machine`
    pub(super) fn machine(&self) -> String {
        let irqchip = self.irqchip.map_or("", |irqchip| match irqchip {
            Irqchip::Kernel => ",kernel-irqchip=on",
            Irqchip::Split => ",kernel-irqchip=split",
            Irqchip::Off => ",kernel-irqchip=off",
        });
        format!("{}{irqchip}", self.machine.name)
    }

    /// All command lines that ask for one thing less, the simplest first.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        if self.smp != "1" {
            simpler.push(Self { smp: "1".to_owned(), ..self.clone() });
        }
        if self.cpu_pm {
            simpler.push(Self { cpu_pm: false, ..self.clone() });
        }
        if self.irqchip.is_some() {
            simpler.push(Self { irqchip: None, ..self.clone() });
        }
        for place in 0..self.parts.len() {
            let mut case = self.clone();
            case.parts.remove(place);
            simpler.push(case);
        }
        let smp: Vec<&str> = self.smp.split(',').collect();
        for place in 1..smp.len() {
            let without = smp.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, part)| *part);
            simpler.push(Self { smp: without.collect::<Vec<_>>().join(","), ..self.clone() });
        }
        simpler
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pm = if self.cpu_pm { " -overcommit cpu-pm=on" } else { "" };
        write!(f, "-machine {} -cpu '{}' -smp {}{pm}", self.machine(), self.cpu(), self.smp)
    }
}

/// Numbers that look random and are always the same for a seed (`xorshift64*`).
pub(in crate::lab) struct Numbers(u64);

impl Numbers {
    pub(in crate::lab) const fn new(seed: u64) -> Self {
        // No state is zero, and seeds that are near each other do not start alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(in crate::lab) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// Whether something happens that happens once in so many times.
    pub(in crate::lab) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(in crate::lab) fn one<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        let place = self.below(of.len());
        of.get(place).copied().unwrap_or(otherwise)
    }
}

/// Draws cases: numbers, and what a release knows.
pub(super) struct Dice {
    numbers: Numbers,
    release: usize,
    /// Whether the host is known.
    host: bool,
    machines: Vec<&'static Machine>,
    models: Vec<&'static str>,
    /// Names of feature bits in this release, with aliases.
    features: Vec<&'static str>,
    /// Properties that are no feature bits.
    properties: Vec<qemu::Property>,
    /// Names that other releases have.
    strangers: Vec<&'static str>,
}

/// Properties that say nothing of what the CPU is, whose values are other objects, or on which an answer of KVM decides
/// that records do not hold (`lmce`).
const LEFT_OUT: [&str; 15] = [
    "apic-id",
    "core-id",
    "die-id",
    "hotpluggable",
    "hotplugged",
    "legacy-memory",
    "lmce",
    "memory",
    "module-id",
    "node-id",
    "parent_bus",
    "realized",
    "socket-id",
    "start-powered-off",
    "thread-id",
];

/// Names that no release has.
const MISSPELT: [&str; 8] = ["avx_2", "sse42", "AVX", "vmx-foo", "l3_cache", "tsc", "x2-apic", "spec_ctr"];

/// Texts that some property takes, and most do not.
const ODD: [&str; 12] =
    ["", "maybe", "ON", "yes", "n", "true", "-1", "0x10", "010", "1k", "99999999999999999999", "auto"];

/// Properties that do most, drawn more often.
const WEIGHTY: [&str; 22] = [
    "level",
    "xlevel",
    "min-level",
    "min-xlevel",
    "vendor",
    "phys-bits",
    "host-phys-bits",
    "host-phys-bits-limit",
    "guest-phys-bits",
    "l3-cache",
    "host-cache-info",
    "legacy-cache",
    "family",
    "model-id",
    "migratable",
    "pmu",
    "tsc-frequency",
    "check",
    "enforce",
    "x-force-features",
    "avx10-version",
    "kvm",
];

const VENDORS: [&str; 7] =
    ["GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls", "  Shanghai  ", "abc", "123456789012"];

impl Dice {
    pub(super) fn new(release: usize, seed: u64, host: bool) -> Self {
        let plain = |machine: &&Machine| {
            matches!(machine.kind, MachineKind::Pc | MachineKind::Q35 | MachineKind::Microvm | MachineKind::Isapc)
        };
        let named = qemu::named_bits().filter(move |(_, bit)| bit.named.contains(release)).map(|(name, _)| name);
        let aliases = qemu::aliases().iter().map(|&(alias, _)| alias);
        let wanted = |property: &qemu::Property| {
            let settable =
                !matches!(property.kind, PropertyKind::Feature | PropertyKind::ReadOnly | PropertyKind::Link);
            settable && !LEFT_OUT.contains(&property.name)
        };
        let others = (0..qemu::RELEASES.len()).flat_map(qemu::properties).map(|property| property.name);
        Self {
            numbers: Numbers::new(seed.wrapping_add(release as u64)),
            release,
            host,
            machines: qemu::machines(release).filter(plain).collect(),
            models: qemu::cpu_names(release).collect(),
            features: named.chain(aliases).collect(),
            properties: qemu::properties(release).filter(wanted).collect(),
            strangers: others.filter(|name| qemu::property(release, name).is_none()).collect(),
        }
    }

    /// A command line.
    pub(super) fn draw(&mut self) -> Option<Case> {
        let first = *self.machines.first()?;
        let usual = ["q35", "pc", "q35", "microvm"];
        let machine = if self.numbers.one_in(2) {
            let name = self.numbers.one(&usual, "q35");
            qemu::machine(self.release, name).unwrap_or(first)
        } else {
            self.numbers.one(&self.machines, first)
        };
        let model = self.model();
        let parts = [0, 1, 1, 2, 3, 5, 8];
        let parts = (0..self.numbers.one(&parts, 0)).map(|_| self.part()).collect();
        let smp = if self.numbers.one_in(2) { "1".to_owned() } else { self.smp() };
        let cpu_pm = self.numbers.one_in(20);
        let irqchip = if self.host && self.numbers.one_in(8) {
            Some(self.numbers.one(&[Irqchip::Kernel, Irqchip::Split, Irqchip::Off], Irqchip::Kernel))
        } else {
            None
        };
        Some(Case { machine, irqchip, smp, model, parts, cpu_pm })
    }

    fn model(&mut self) -> String {
        let named = self.numbers.one(&self.models, "qemu64");
        match self.numbers.below(40) {
            0..12 => "max".to_owned(),
            12..14 => "base".to_owned(),
            14..17 => "host".to_owned(),
            17 => format!("{named}-v{}", self.numbers.below(10)),
            18 => named.to_lowercase(),
            19 if self.numbers.one_in(4) => String::new(),
            _ => named.to_owned(),
        }
    }

    fn feature(&mut self) -> &'static str {
        self.numbers.one(&self.features, "avx")
    }

    fn part(&mut self) -> String {
        match self.numbers.below(40) {
            0..9 => format!("+{}", self.feature()),
            9..16 => format!("-{}", self.feature()),
            16..20 => {
                let value = self.numbers.one(&["on", "off", "yes", "off", "false", "true", "y", "n", "no", "1"], "on");
                format!("{}={value}", self.feature())
            }
            20 => self.feature().to_owned(),
            21 => self.feature().replace('-', "_") + "=on",
            22 if self.numbers.one_in(3) => format!("+{}", self.numbers.one(&MISSPELT, "foo")),
            23 if self.numbers.one_in(3) => {
                let name = self.numbers.one(&self.strangers, "foo");
                self.numbers.one(&["+", "-"], "+").to_owned() + name
            }
            24 if self.numbers.one_in(3) => String::new(),
            26..29 if self.host => {
                let enlightenments = qemu::hyperv_properties(self.release).map(|property| property.property);
                let enlightenments: Vec<&str> = enlightenments.collect();
                format!("{}=on", self.numbers.one(&enlightenments, "hv-relaxed"))
            }
            25 => {
                let value =
                    self.numbers.one(&["2G", "2.5G", "1000000", "2000000000", "3M", "1.5k", "7", "x", "1e9"], "2G");
                format!("tsc-freq={value}")
            }
            _ => self.assignment(),
        }
    }

    /// A property that is no feature bit, and a value.
    fn assignment(&mut self) -> String {
        let property = if self.numbers.one_in(2) {
            let name = self.numbers.one(&WEIGHTY, "level");
            qemu::property(self.release, name)
        } else {
            None
        };
        let place = self.numbers.below(self.properties.len());
        let property = property.or_else(|| self.properties.get(place).copied());
        // Under TCG that shows a host of which nothing is known here.
        let known = |property: &qemu::Property| self.host || property.name != "host-cache-info";
        let Some(property) = property.filter(known) else { return String::new() };
        if self.numbers.one_in(60) {
            return format!("{}={}", property.name, self.numbers.one(&ODD, ""));
        }
        let value = match property.kind {
            PropertyKind::Bool | PropertyKind::Feature => self.numbers.one(&["on", "off"], "on").to_owned(),
            PropertyKind::OnOffAuto => self.numbers.one(&["on", "off", "auto"], "on").to_owned(),
            PropertyKind::Str => self.text(property.name),
            _ => self.value(property.name),
        };
        format!("{}={value}", property.name)
    }

    fn text(&mut self, name: &str) -> String {
        match name {
            "vendor" => self.numbers.one(&VENDORS, "GenuineIntel"),
            "model-id" => {
                self.numbers.one(&["", "x", "QEMU", "A long name of more than forty-eight characters, it seems"], "x")
            }
            _ => self.numbers.one(&["", "abc", "Microsoft Hv", "KVMKVMKVMKVM", "thirteen char"], "abc"),
        }
        .to_owned()
    }

    fn value(&mut self, name: &str) -> String {
        let numbers: &[u64] = match name {
            "level" | "min-level" => &[0, 1, 2, 4, 6, 7, 0xb, 0xd, 0xe, 0x14, 0x1f, 0x20, 0x24, 0x29, 0x40],
            "xlevel" | "min-xlevel" => {
                &[0, 0x8000_0000, 0x8000_0001, 0x8000_0004, 0x8000_0008, 0x8000_000a, 0x8000_001e, 0x8000_0022]
            }
            "xlevel2" | "min-xlevel2" => &[0, 0xc000_0000, 0xc000_0001, 0xc000_0004, 0xc000_0100],
            "level-func7" => &[0, 1, 2, 3, 200],
            "family" => &[0, 4, 5, 6, 15, 16, 25, 26, 255, 270, 271],
            "model" => &[0, 1, 13, 15, 16, 94, 255, 256],
            "stepping" => &[0, 3, 15, 16],
            // With more than 52, 11.1 aborts under KVM (`kvm_get_msrs`).
            "phys-bits" if self.host => &[0, 31, 32, 35, 36, 40, 46, 48, 52],
            "phys-bits" | "guest-phys-bits" | "host-phys-bits-limit" => &[0, 31, 32, 36, 40, 46, 48, 52, 53],
            "avx10-version" => &[0, 1, 2, 3, 255],
            "tsc-frequency" => &[0, 999, 1000, 2_000_000_000, 2_100_000_123, 3_000_000_000],
            "lbr-fmt" => &[0, 1, 5, 6, 0x3f, 0x40],
            "ucode-rev" => &[0, 1, 0x1_0000_0000, 0x2b00_0000_0000],
            "hv-spinlocks" => &[0, 0xfff, 0x1fff, 0xffff_ffff],
            _ => &[0, 1, 2, 64, 255, 256, 65536],
        };
        let number = self.numbers.one(numbers, 0);
        if self.numbers.one_in(3) { format!("{number:#x}") } else { number.to_string() }
    }

    /// A topology; most are right, some are not.
    fn smp(&mut self) -> String {
        let mut parts = Vec::new();
        let mut all = 1;
        for name in ["sockets", "dies", "clusters", "modules", "cores", "threads"] {
            let rare = matches!(name, "dies" | "clusters" | "modules");
            if self.numbers.one_in(if rare { 5 } else { 2 }) {
                let count = self.numbers.one(&[1, 2, 2, 2, 3, 4, 5], 1);
                all *= count;
                parts.push(format!("{name}={count}"));
            }
        }
        if self.numbers.one_in(4) {
            let most = self.numbers.one(&[all, all, all * 2, all + 1, 64, 255, 0], all);
            parts.push(format!("maxcpus={most}"));
        }
        if self.numbers.one_in(30) {
            parts.push(self.numbers.one(&["books=1", "foo=1", "cores=x", "threads=0", "cores"], "foo=1").to_owned());
        }
        let cpus = self.numbers.one(&[all, all, all, all, 1, 2, all + 1], 1).min(12);
        let cpus = if self.numbers.one_in(8) { format!("cpus={cpus}") } else { cpus.to_string() };
        if parts.is_empty() || !self.numbers.one_in(6) {
            parts.insert(0, cpus);
        }
        parts.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_cases() {
        for release in 0..qemu::RELEASES.len() {
            let cases = |seed| {
                let mut dice = Dice::new(release, seed, false);
                (0..200).filter_map(|_| dice.draw()).collect::<Vec<_>>()
            };
            assert_eq!(cases(1), cases(1));
            assert_ne!(cases(1), cases(2));
            assert!(cases(3).iter().any(|case| case.smp != "1" && !case.parts.is_empty()));
        }
    }

    #[test]
    fn a_simpler_case_asks_for_one_thing_less() {
        let machine = qemu::machine(0, "q35").unwrap();
        let parts = vec!["+avx".to_owned(), "level=4".to_owned()];
        let case =
            Case { machine, irqchip: None, smp: "4,cores=2".to_owned(), model: "max".to_owned(), parts, cpu_pm: false };
        let simpler: Vec<String> = case.simpler().iter().map(|case| format!("{} {}", case.cpu(), case.smp)).collect();
        assert_eq!(
            simpler,
            ["max,+avx,level=4 1", "max,level=4 4,cores=2", "max,+avx 4,cores=2", "max,+avx,level=4 4"]
        );
    }
}
