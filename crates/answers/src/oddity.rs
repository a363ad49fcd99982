//! What is odd about a CPUID: things that hardly any CPU says, and that hypervisors say all the same.
//!
//! A kernel takes them as they are; what it makes of each is said beside it.

use std::sync::OnceLock;

use cpusieve_knowledge::linux;
use cpusieve_model::{CpuidBit, CpuidTable, Place, Register, State, Vendor};

/// More of one kind than these are counted, not listed.
const LISTED: usize = 8;

const XSAVE: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 26);

/// Everything that is odd, as sentences for people, for a kernel of this tree.
#[must_use]
pub fn oddities(cpuid: &CpuidTable, tree: usize) -> Vec<String> {
    let mut odd = Vec::new();
    odd.extend(vendor_and_family(cpuid));
    odd.extend(above_the_maximum(cpuid));
    odd.extend(below_their_level(cpuid, tree));
    odd.extend(without_what_they_need(cpuid, tree));
    odd.extend(empty_state_leaf(cpuid));
    odd
}

/// The families that each vendor has given its CPUs. Sources: Intel SDM volume 4, table 2-1; AMD revision guides.
fn vendor_and_family(cpuid: &CpuidTable) -> Option<String> {
    let (vendor, name) = (cpuid.vendor()?, cpuid.vendor_string()?);
    let (family, ..) = cpuid.signature()?;
    let makes = match vendor {
        Vendor::Other => {
            return Some(format!("64-bit Linux does not know the vendor `{name}`: no vendor's set-up code runs"));
        }
        Vendor::Intel => matches!(family, 4..=6 | 15 | 18 | 19),
        Vendor::Amd => matches!(family, 4..=6 | 15..=26),
        Vendor::Hygon => family == 24,
        Vendor::Centaur | Vendor::Zhaoxin => matches!(family, 5..=7),
        Vendor::Transmeta => matches!(family, 5 | 15),
    };
    let told = || {
        format!(
            "{} makes no CPU of family {family}: the kernel runs {}'s set-up code all the same",
            vendor.name(),
            vendor.name()
        )
    };
    (!makes).then(told)
}

/// Leaves that hold data beyond what their range announces.
fn above_the_maximum(cpuid: &CpuidTable) -> Option<String> {
    let above = |leaf: u32| leaf & 0xff != 0 && cpuid.maximum(leaf).is_some_and(|maximum| leaf > maximum);
    let data = cpuid.entries().iter().filter(|entry| !entry.registers.is_zero() && above(entry.leaf));
    let mut leaves: Vec<String> = data.map(|entry| format!("{:X}H", entry.leaf)).collect();
    leaves.dedup();
    (!leaves.is_empty()).then(|| {
        format!("leaves above the announced maximum hold data: {}; the kernel does not read them", listed(&leaves))
    })
}

/// Features whose own leaf lies above the announced maximum (`common.c:filter_cpuid_features`).
fn below_their_level(cpuid: &CpuidTable, tree: usize) -> Vec<String> {
    let Some(maximum) = cpuid.maximum(0) else { return Vec::new() };
    let levels = linux::levels(tree).filter(|level| level.leaf > maximum);
    let present = levels.filter_map(|level| Some((bit_of(tree, level.macro_name)?, level)));
    present
        .filter(|((_, bit), _)| cpuid.state(*bit) == State::Present)
        .map(|((id, _), level)| {
            format!(
                "{id} needs leaf {:X}H, and leaf 0 announces no more than {maximum:X}H: the kernel clears it",
                level.leaf
            )
        })
        .collect()
}

/// Features without one that Linux takes them to need (`cpuid-deps.c`). Old CPUs may be so by nature: MMX without FXSR.
fn without_what_they_need(cpuid: &CpuidTable, tree: usize) -> Option<String> {
    let needs = Needs::of(tree)?;
    let seen: Vec<(u32, u32)> = needs.registers.iter().map(|&first| set_and_clear(cpuid, first)).collect();
    let (set, clear): (Vec<u32>, Vec<u32>) = seen.into_iter().unzip();
    let is = |registers: &[u32], bit: &Bit| registers.get(bit.register).is_some_and(|value| value >> bit.bit & 1 == 1);
    let lacks = |(feature, needed): &&(Bit, Bit)| is(&set, feature) && is(&clear, needed);
    let pair = |(feature, needed): &(Bit, Bit)| format!("{} without {}", feature.id, needed.id);
    let pairs: Vec<String> = needs.pairs.iter().filter(lacks).map(pair).collect();
    (!pairs.is_empty()).then(|| {
        format!("{}: for Linux the first needs the second, but keeps it where only CPUID lacks that", listed(&pairs))
    })
}

/// The bits of a register that are set, and those that are not, as far as either is known. `first` is its bit 0.
fn set_and_clear(cpuid: &CpuidTable, first: CpuidBit) -> (u32, u32) {
    match cpuid.state(first) {
        State::Present | State::Absent => {
            let value = cpuid.get(first.leaf, first.subleaf).unwrap_or_default().get(first.register);
            (value, !value)
        }
        State::Reserved => (0, u32::MAX),
        State::Unreadable | State::Unknown => (0, 0),
    }
}

/// A tree's dependencies between features that CPUID tells.
struct Needs {
    /// The registers that tell them, each by its bit 0.
    registers: Vec<CpuidBit>,
    /// A feature, and what it needs.
    pairs: Vec<(Bit, Bit)>,
}

/// A feature in one of [`Needs::registers`].
struct Bit {
    id: &'static str,
    register: usize,
    bit: u8,
}

impl Needs {
    /// The dependencies of a tree, looked up once.
    fn of(tree: usize) -> Option<&'static Self> {
        static NEEDS: [OnceLock<Needs>; 64] = [const { OnceLock::new() }; 64];
        Some(NEEDS.get(tree)?.get_or_init(|| Self::new(tree)))
    }

    fn new(tree: usize) -> Self {
        let mut registers: Vec<CpuidBit> = Vec::new();
        let mut bit = |macro_name: &str| {
            let (id, place) = bit_of(tree, macro_name)?;
            let first = CpuidBit { bit: 0, ..place };
            let register = registers.iter().position(|&known| known == first).unwrap_or(registers.len());
            if register == registers.len() {
                registers.push(first);
            }
            Some(Bit { id, register, bit: place.bit })
        };
        let pairs = linux::dependencies(tree).filter_map(|pair| Some((bit(pair.feature)?, bit(pair.needs)?))).collect();
        Self { registers, pairs }
    }
}

/// The id of a tree's feature, and its CPUID bit.
fn bit_of(tree: usize, macro_name: &str) -> Option<(&'static str, CpuidBit)> {
    let feature = linux::feature(tree, macro_name)?;
    Some((feature.id(), linux::place(tree, feature).and_then(Place::cpuid)?))
}

/// XSAVE without state components.
fn empty_state_leaf(cpuid: &CpuidTable) -> Option<String> {
    let empty = cpuid.get(0xd, 0).is_some_and(cpusieve_model::Registers::is_zero);
    (cpuid.state(XSAVE) == State::Present && empty)
        .then(|| "xsave is announced, and leaf DH holds no state component: the kernel gives XSAVE up".to_owned())
}

fn listed(names: &[String]) -> String {
    let shown = names.get(..LISTED).unwrap_or(names).join(", ");
    match names.len().checked_sub(LISTED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use cpusieve_model::Registers;

    use super::*;

    fn table(maximum: u32, vendor: [u32; 3], signature: u32, ecx: u32) -> CpuidTable {
        let [ebx, edx, ecx_of_0] = vendor;
        let mut table = CpuidTable::default();
        table.insert(0, 0, Registers { eax: maximum, ebx, ecx: ecx_of_0, edx });
        table.insert(1, 0, Registers { eax: signature, ebx: 0, ecx, edx: 0x0780_8131 });
        table
    }

    const INTEL: [u32; 3] = [0x756e_6547, 0x4965_6e69, 0x6c65_746e];
    const SKYLAKE: u32 = 0x0005_06e3;
    const AVX: u32 = 1 << 28;

    fn newest() -> usize {
        linux::TREES.len() - 1
    }

    #[test]
    fn a_plain_cpu_is_not_odd() {
        assert_eq!(oddities(&table(1, INTEL, SKYLAKE, 0), newest()), Vec::<String>::new());
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let avx_without_xsave = oddities(&table(0xd, INTEL, SKYLAKE, AVX), newest());
        assert!(avx_without_xsave.iter().any(|odd| odd.contains("avx without xsave")), "{avx_without_xsave:?}");

        let xsave_below_its_leaf = oddities(&table(7, INTEL, SKYLAKE, 1 << XSAVE.bit), newest());
        assert!(xsave_below_its_leaf.iter().any(|odd| odd.contains("xsave needs leaf DH")), "{xsave_below_its_leaf:?}");

        let zen_by_intel = oddities(&table(1, INTEL, 0x00a2_0f12, 0), newest());
        assert!(zen_by_intel.iter().any(|odd| odd.contains("Intel makes no CPU of family 25")), "{zen_by_intel:?}");

        let nobody = oddities(&table(1, [0; 3], SKYLAKE, 0), newest());
        assert!(nobody.iter().any(|odd| odd.contains("does not know the vendor")), "{nobody:?}");

        let mut garbage = table(1, INTEL, SKYLAKE, 0);
        garbage.insert(0x14, 0, Registers { eax: 7, ..Registers::default() });
        let garbage = oddities(&garbage, newest());
        assert!(garbage.iter().any(|odd| odd.contains("14H")), "{garbage:?}");
    }
}
