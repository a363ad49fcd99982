//! Every leaf and subleaf of one CPU, asked once each through a closure.
//!
//! CPUID does not list what it has. Each range of leaves has a head (0, 40000000H, 80000000H, ...) whose EAX announces
//! the highest leaf of that range, and each leaf that looks at ECX has its own way of saying how many subleaves follow:
//! a count in EAX, a bitmap in one of the registers, or a type field that is zero in the first subleaf that does not
//! exist. [`enumerate`] follows these announcements. It takes a closure, so that the instruction, a file and a made-up
//! CPU are the same thing, and it believes no announcement beyond a bound: a hypervisor may announce anything.

use cpusieve_model::{CpuidTable, Register, Registers};

/// The most leaves that are asked in one range. The longest range seen in the wild, Hyper-V's, ends at 40000082H.
pub const LEAVES_AT_MOST: u32 = 0x100;

/// The most subleaves that are asked in one leaf. The most that a manual allows is 63, in leaf 0DH.
pub const SUBLEAVES_AT_MOST: u32 = 64;

/// The most hypervisors that are looked for, each 100H leaves above the one before. Two are common: KVM and Xen put
/// their own leaves at 40000100H when they show Hyper-V's at 40000000H.
pub const HYPERVISORS_AT_MOST: u32 = 4;

/// The distance between the leaves of two hypervisors (`arch/x86/include/asm/cpuid/api.h:cpuid_base_hypervisor`).
const HYPERVISOR_STEP: u32 = 0x100;

/// The heads of all ranges but the hypervisors': basic, extended, Transmeta's, and Centaur's and Zhaoxin's.
const EXTENDED_HEADS: [u32; 3] = [0x8000_0000, 0x8086_0000, 0xc000_0000];

/// What [`enumerate`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enumeration {
    /// Every answer, each pair of leaf and subleaf asked once.
    pub table: CpuidTable,
    /// Leaves whose subleaves, and heads whose leaves, were announced beyond the bounds of this module and therefore
    /// not all asked, in the order in which they were met.
    pub cut: Vec<u32>,
}

/// How a leaf says which subleaves it has.
#[derive(Clone, Copy)]
enum Subleaves {
    /// EAX of subleaf 0 is the highest subleaf.
    UpToEax,
    /// Bit n (1 to 31) of a register of subleaf 0 says that subleaf n exists.
    Bits(Register),
    /// Subleaf n + 1 is worth asking if the masked register of subleaf n is not zero. The first zero is kept.
    While(Register, u32),
    /// Bit n (2 to 62) of EAX and EDX of subleaf 0 or of ECX and EDX of subleaf 1 says that subleaf n exists.
    Xsave,
    /// Subleaf 1 exists if subleaf 0 is not all zero; from subleaf 2 on as long as the type in EAX\[3:0\] is not zero.
    Sgx,
}

/// The leaves with subleaves to enumerate. Leaves that are not here are asked with ECX = 0 alone, also leaf 2, whose
/// count in AL is 1 on every CPU that has it, and leaf 1AH, of which subleaf 0 alone is defined.
///
/// Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. Leaves 27H and 28H repeat 0FH and 10H for other
/// agents; 29H is in the APX specification.
const RULES: [(u32, Subleaves); 23] = [
    (0x4, Subleaves::While(Register::Eax, 0x1f)),
    (0x7, Subleaves::UpToEax),
    (0xb, Subleaves::While(Register::Ecx, 0xff00)),
    (0xd, Subleaves::Xsave),
    (0xf, Subleaves::Bits(Register::Edx)),
    (0x10, Subleaves::Bits(Register::Ebx)),
    (0x12, Subleaves::Sgx),
    (0x14, Subleaves::UpToEax),
    (0x17, Subleaves::UpToEax),
    (0x18, Subleaves::UpToEax),
    (0x1b, Subleaves::While(Register::Eax, 0xfff)),
    (0x1d, Subleaves::UpToEax),
    (0x1e, Subleaves::UpToEax),
    (0x1f, Subleaves::While(Register::Ecx, 0xff00)),
    (0x20, Subleaves::UpToEax),
    (0x23, Subleaves::Bits(Register::Eax)),
    (0x24, Subleaves::UpToEax),
    (0x27, Subleaves::Bits(Register::Edx)),
    (0x28, Subleaves::Bits(Register::Ebx)),
    (0x29, Subleaves::UpToEax),
    (0x8000_001d, Subleaves::While(Register::Eax, 0x1f)),
    (0x8000_0020, Subleaves::Bits(Register::Ebx)),
    (0x8000_0026, Subleaves::While(Register::Ecx, 0xff00)),
];

/// Asks one CPU everything that it announces: `ask` gets a leaf (EAX) and a subleaf (ECX) and returns the registers.
///
/// The heads 0, 40000000H, 80000000H, 80860000H and C0000000H are always asked and kept, whatever they answer; the
/// leaves behind a head only if it announces leaves of its own range. Each pair is asked once, in ascending order, but
/// for a second hypervisor's head, which is asked only where the first one is there and kept only if it answers.
///
/// ```
/// use cpusieve_model::Registers;
/// use cpusieve_probe::cpuid::enumerate;
///
/// let cpu = |leaf, _| match leaf {
///     0 => Registers { eax: 1, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 },
///     1 => Registers { eax: 0x0009_0672, ebx: 0, ecx: 0, edx: 1 },
///     _ => Registers::default(),
/// };
/// let found = enumerate(cpu);
/// assert_eq!(found.table.vendor_string().as_deref(), Some("GenuineIntel"));
/// assert_eq!(found.table.signature(), Some((6, 0x97, 2)));
/// assert!(found.cut.is_empty());
/// ```
pub fn enumerate(ask: impl FnMut(u32, u32) -> Registers) -> Enumeration {
    let mut walk = Walk { ask, found: Enumeration::default() };
    let highest = walk.keep(0, 0).eax;
    walk.leaves(0, highest, LEAVES_AT_MOST);
    walk.hypervisors();
    for head in EXTENDED_HEADS {
        let highest = walk.keep(head, 0).eax;
        walk.leaves(head, highest, LEAVES_AT_MOST);
    }
    walk.found
}

/// Asks the CPU on which this thread runs, with the instruction itself.
///
/// To be sure which CPU that is, pin the thread first: see [`crate::affinity`].
#[must_use]
pub fn enumerate_here() -> Enumeration {
    enumerate(instruction)
}

/// Whether a leaf looks at ECX. For the others ECX is whatever the program left there.
#[must_use]
pub fn has_subleaves(leaf: u32) -> bool {
    RULES.iter().any(|(ruled, _)| *ruled == leaf)
}

/// One execution of the CPUID instruction on the CPU on which this thread runs.
#[must_use]
pub fn instruction(leaf: u32, subleaf: u32) -> Registers {
    let answer = std::arch::x86_64::__cpuid_count(leaf, subleaf);
    Registers { eax: answer.eax, ebx: answer.ebx, ecx: answer.ecx, edx: answer.edx }
}

struct Walk<F> {
    ask: F,
    found: Enumeration,
}

impl<F: FnMut(u32, u32) -> Registers> Walk<F> {
    /// Asks a pair and keeps the answer.
    fn keep(&mut self, leaf: u32, subleaf: u32) -> Registers {
        let registers = (self.ask)(leaf, subleaf);
        self.found.table.insert(leaf, subleaf, registers);
        registers
    }

    /// Asks the leaves behind `head`, at most `most`, if `highest` lies in its range; returns whether it does.
    fn leaves(&mut self, head: u32, highest: u32, most: u32) -> bool {
        let Some(count) = highest.checked_sub(head).filter(|&count| count <= 0xffff) else { return false };
        let asked = count.min(most);
        if asked < count {
            self.found.cut.push(head);
        }
        for leaf in head + 1..=head + asked {
            self.leaf(leaf);
        }
        true
    }

    /// Asks the hypervisors' ranges.
    ///
    /// Bit 31 of 1.ECX is not looked at: a VMM may clear it and show its leaves all the same (QEMU's `hypervisor=off`).
    fn hypervisors(&mut self) {
        let mut head = 0x4000_0000;
        let mut first = self.keep(head, 0);
        for _ in 1..HYPERVISORS_AT_MOST {
            if !self.leaves(head, first.eax, HYPERVISOR_STEP - 1) {
                return;
            }
            head += HYPERVISOR_STEP;
            first = (self.ask)(head, 0);
            // Where there is no second hypervisor, silicon answers with the data of another leaf and KVM with zeroes.
            if !(head..=head | 0xffff).contains(&first.eax) {
                return;
            }
            self.found.table.insert(head, 0, first);
        }
        self.leaves(head, first.eax, HYPERVISOR_STEP - 1);
    }

    /// Asks all subleaves of a leaf.
    fn leaf(&mut self, leaf: u32) {
        let first = self.keep(leaf, 0);
        let Some((_, rule)) = RULES.iter().find(|(ruled, _)| *ruled == leaf) else { return };
        match *rule {
            Subleaves::UpToEax => {
                let highest = first.eax.min(SUBLEAVES_AT_MOST - 1);
                if highest < first.eax {
                    self.found.cut.push(leaf);
                }
                for subleaf in 1..=highest {
                    self.keep(leaf, subleaf);
                }
            }
            Subleaves::Bits(register) => self.bits(leaf, u64::from(first.get(register)), 1),
            Subleaves::While(register, mask) => self.while_typed(leaf, 0, first, register, mask),
            Subleaves::Xsave => {
                if first.is_zero() {
                    return;
                }
                let second = self.keep(leaf, 1);
                let low = first.eax | second.ecx;
                let high = first.edx | second.edx;
                // Bit 63 is the compaction format's mark, never a component.
                self.bits(leaf, (u64::from(high) << 32 | u64::from(low)) & !(1 << 63), 2);
            }
            Subleaves::Sgx => {
                if first.is_zero() {
                    return;
                }
                self.keep(leaf, 1);
                let section = self.keep(leaf, 2);
                self.while_typed(leaf, 2, section, Register::Eax, 0xf);
            }
        }
    }

    /// Asks the subleaves whose bits are set, from bit `lowest` on.
    fn bits(&mut self, leaf: u32, bits: u64, lowest: u32) {
        for subleaf in (lowest..u64::BITS).filter(|&bit| bits >> bit & 1 == 1) {
            self.keep(leaf, subleaf);
        }
    }

    /// Asks subleaf after subleaf behind `subleaf`, which answered `last`, until the masked register is zero.
    fn while_typed(&mut self, leaf: u32, mut subleaf: u32, mut last: Registers, register: Register, mask: u32) {
        while last.get(register) & mask != 0 {
            subleaf += 1;
            if subleaf == SUBLEAVES_AT_MOST {
                self.found.cut.push(leaf);
                return;
            }
            last = self.keep(leaf, subleaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    type Answers = BTreeMap<(u32, u32), [u32; 4]>;

    /// Enumerates a made-up CPU, checks the laws that hold for every CPU, and returns the pairs that were kept.
    fn walk(cpu: impl Fn(u32, u32) -> [u32; 4]) -> (Vec<(u32, u32)>, Vec<u32>) {
        let mut asked = BTreeSet::new();
        let found = enumerate(|leaf, subleaf| {
            assert!(asked.insert((leaf, subleaf)), "{leaf:x}.{subleaf:x} was asked twice");
            let [eax, ebx, ecx, edx] = cpu(leaf, subleaf);
            Registers { eax, ebx, ecx, edx }
        });
        let kept: Vec<_> = found.table.entries().iter().map(|entry| (entry.leaf, entry.subleaf)).collect();
        assert!(kept.iter().all(|pair| asked.contains(pair)));
        assert!(asked.len() <= kept.len() + 1, "only the last hypervisor's head may be asked and not kept");
        for head in [0, 0x4000_0000, 0x8000_0000, 0x8086_0000, 0xc000_0000] {
            assert!(kept.contains(&(head, 0)), "head {head:x} is missing");
        }
        (kept, found.cut)
    }

    fn listed(answers: Answers) -> impl Fn(u32, u32) -> [u32; 4] {
        move |leaf, subleaf| answers.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    /// The subleaves that are kept of one leaf with these answers.
    fn subleaves(leaf: u32, answers: &[(u32, [u32; 4])]) -> Vec<u32> {
        let head = leaf & 0xffff_0000;
        let mut all = Answers::from([((head, 0), [leaf, 0, 0, 0])]);
        all.extend(answers.iter().map(|&(subleaf, registers)| ((leaf, subleaf), registers)));
        let (kept, cut) = walk(listed(all));
        assert!(cut.is_empty());
        kept.into_iter().filter(|(kept, _)| *kept == leaf).map(|(_, subleaf)| subleaf).collect()
    }

    #[test]
    fn a_cpu_that_announces_nothing_has_its_heads_asked_and_no_more() {
        let (kept, cut) = walk(|_, _| [0; 4]);
        assert_eq!(kept, [(0, 0), (0x4000_0000, 0), (0x8000_0000, 0), (0x8086_0000, 0), (0xc000_0000, 0)]);
        assert!(cut.is_empty());
    }

    #[test]
    fn counts_in_eax_are_followed() {
        for leaf in [0x7, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x20, 0x24, 0x29] {
            assert_eq!(subleaves(leaf, &[(0, [2, 0, 0, 0])]), [0, 1, 2], "{leaf:x}");
            assert_eq!(subleaves(leaf, &[]), [0], "{leaf:x}");
        }
    }

    #[test]
    fn bitmaps_are_followed() {
        assert_eq!(subleaves(0xf, &[(0, [0, 0, 0, 0b10])]), [0, 1]);
        assert_eq!(subleaves(0x10, &[(0, [0, 0b1_1110, 0, 0])]), [0, 1, 2, 3, 4]);
        assert_eq!(subleaves(0x10, &[(0, [0, 0b100, 0, 0])]), [0, 2]);
        assert_eq!(subleaves(0x23, &[(0, [0b10_1011, 0, 0, 0])]), [0, 1, 3, 5]);
        assert_eq!(subleaves(0x28, &[(0, [0, 0x40, 0, 0])]), [0, 6]);
        assert_eq!(subleaves(0x8000_0020, &[(0, [0, 0b10_1110, 0, 0])]), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn types_are_followed_and_the_terminating_entry_is_kept() {
        for leaf in [0x4, 0x8000_001d] {
            let caches = [(0, [0x121, 0, 0, 0]), (1, [0x122, 0, 0, 0]), (2, [0x143, 0, 0, 0])];
            assert_eq!(subleaves(leaf, &caches), [0, 1, 2, 3], "{leaf:x}");
        }
        for leaf in [0xb, 0x1f, 0x8000_0026] {
            assert_eq!(subleaves(leaf, &[(0, [1, 2, 0x100, 0]), (1, [5, 8, 0x201, 0])]), [0, 1, 2], "{leaf:x}");
            assert_eq!(subleaves(leaf, &[]), [0], "{leaf:x}");
        }
        assert_eq!(subleaves(0x1b, &[(0, [1, 1, 2, 0]), (1, [1, 1, 0, 0])]), [0, 1, 2]);
    }

    #[test]
    fn xsave_components_come_from_xcr0_and_xss() {
        assert_eq!(subleaves(0xd, &[]), [0]);
        assert_eq!(subleaves(0xd, &[(0, [0x3, 0x240, 0x240, 0])]), [0, 1]);
        let components = [(0, [0x2e7, 0x980, 0x980, 0x4000_0000]), (1, [0xf, 0, 0x1800, 0x8000_0001])];
        assert_eq!(subleaves(0xd, &components), [0, 1, 2, 5, 6, 7, 9, 11, 12, 32, 62]);
    }

    #[test]
    fn sgx_sections_end_with_the_first_invalid_one() {
        assert_eq!(subleaves(0x12, &[]), [0]);
        assert_eq!(subleaves(0x12, &[(0, [1, 0, 0, 0])]), [0, 1, 2]);
        assert_eq!(subleaves(0x12, &[(0, [1, 0, 0, 0]), (2, [0x7000_0001, 0, 1, 0])]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_second_hypervisor_is_found_behind_the_first() {
        let hyperv_over_kvm = Answers::from([
            ((0x4000_0000, 0), [0x4000_000a, 0x7263_694d, 0x666f_736f, 0x7648_2074]),
            ((0x4000_0100, 0), [0x4000_0101, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        ]);
        let (kept, _) = walk(listed(hyperv_over_kvm));
        let leaves: Vec<_> = kept.iter().map(|(leaf, _)| *leaf).filter(|leaf| leaf >> 16 == 0x4000).collect();
        let expected: Vec<_> = (0x4000_0000..=0x4000_000a).chain(0x4000_0100..=0x4000_0101).collect();
        assert_eq!(leaves, expected);
    }

    #[test]
    fn a_head_that_answers_for_another_range_announces_nothing() {
        // Intel silicon answers a leaf above its maximum with the data of its highest basic leaf.
        let (kept, cut) = walk(|leaf, _| match leaf {
            0 => [1, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
            _ => [7, 1, 2, 3],
        });
        assert_eq!(kept.len(), 6);
        assert!(cut.is_empty());
    }

    #[test]
    fn hostile_announcements_are_bounded_and_named() {
        let (kept, cut) = walk(|_, _| [u32::MAX; 4]);
        assert_eq!(kept.len(), 5, "a maximum outside the range announces nothing");
        assert!(cut.is_empty());

        let greedy = |leaf: u32, subleaf: u32| match (leaf & 0xffff, subleaf) {
            (0, _) => [leaf | 0xffff, 1, 1, 1],
            _ => [u32::MAX; 4],
        };
        let (kept, cut) = walk(greedy);
        let bound = (4 + HYPERVISORS_AT_MOST) as usize * (LEAVES_AT_MOST + 1) as usize
            + RULES.len() * SUBLEAVES_AT_MOST as usize;
        assert!(kept.len() <= bound, "{} entries", kept.len());
        assert!(
            [0, 4, 7, 0xb, 0x12, 0x1f, 0x4000_0000, 0x8000_0000, 0x8000_001d].iter().all(|leaf| cut.contains(leaf)),
            "{cut:x?}"
        );
        // Leaf 0DH and the bitmaps bound themselves.
        assert!(!cut.contains(&0xd) && !cut.contains(&0x10));
    }

    #[test]
    fn hostile_hypervisors_are_bounded() {
        let endless = |leaf: u32, _: u32| if leaf >> 16 == 0x4000 { [leaf | 0xff, 1, 1, 1] } else { [0; 4] };
        let (kept, _) = walk(endless);
        assert_eq!(kept.len(), 4 + (HYPERVISORS_AT_MOST * HYPERVISOR_STEP) as usize);
    }

    #[test]
    fn every_rule_is_for_a_leaf_that_the_model_knows_to_have_subleaves() {
        let unknown: Vec<_> =
            RULES.iter().map(|(leaf, _)| *leaf).filter(|&l| !cpusieve_model::has_subleaves(l)).collect();
        assert_eq!(unknown, Vec::<u32>::new());
        assert!(RULES.is_sorted_by_key(|(leaf, _)| *leaf));
    }
}
