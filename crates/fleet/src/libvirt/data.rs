//! What a CPU shows, as far as libvirt looks at it.

use cpusieve_knowledge::libvirt::{self, Set, VENDORS};
use cpusieve_model::{Cpu, Place, Vendor};

use super::cpu::ids;
use crate::definition::Definition;
use crate::offer::{Words, bit};

/// What guests may have on a host, as far as the map has names for it.
#[must_use]
pub fn offered(words: &Words, vendor: Vendor, release: usize) -> Definition {
    let is_set = |place| bit(place).is_some_and(|(at, mask)| words.get(at).is_some_and(|word| word & mask != 0));
    let features: Set = libvirt::features(release).filter(|(_, known)| is_set(known.place)).map(|(at, _)| at).collect();
    Definition::of_features(vendor, ids(&features))
}

/// The features, vendor and signature of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The features that the map has a name for.
    pub features: Set,
    /// The vendor, if the map has it.
    pub vendor: Option<&'static libvirt::Vendor>,
    /// 1.EAX; zero if it is not known.
    pub signature: u32,
}

/// The bits of 1.EAX that are not reserved (`SIGNATURE_MASK`).
const SIGNATURE: u32 = 0x0fff_3fff;

impl Data {
    /// What CPUID and MSRs show.
    #[must_use]
    pub fn of_cpu(cpu: &Cpu, release: usize) -> Self {
        let is_set = |place| match place {
            Place::Cpuid(bit) => {
                let leaf = cpu.cpuid.get(bit.leaf, bit.subleaf);
                leaf.is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
            }
            Place::Msr(bit) => cpu.msrs.get(bit.index).is_some_and(|value| value >> bit.bit & 1 == 1),
            Place::Linux(_) => false,
        };
        let features = libvirt::features(release).filter(|(_, feature)| is_set(feature.place));
        let string = cpu.cpuid.vendor_string();
        Self {
            features: features.map(|(at, _)| at).collect(),
            vendor: string.and_then(|string| VENDORS.iter().find(|vendor| vendor.string == string)),
            signature: cpu.cpuid.get(1, 0).map_or(0, |leaf| leaf.eax & SIGNATURE),
        }
    }

    /// Family, model and stepping, as `virCPUx86SignatureFromCPUID` reads them: the extended model always counts.
    #[must_use]
    pub fn family_model_stepping(&self) -> (u16, u8, u8) {
        let field = |shift: u32, mask: u32| self.signature >> shift & mask;
        let family = field(20, 0xff) + field(8, 0xf);
        let model = field(12, 0xf0) + field(4, 0xf);
        (family as u16, model as u8, field(0, 0xf) as u8)
    }

    /// The signature of a family, model and stepping (`x86MakeSignature`).
    #[must_use]
    pub fn signature_of(family: u32, model: u32, stepping: u32) -> u32 {
        let (extended, family) = if family > 0xf { (family - 0xf, 0xf) } else { (0, family) };
        extended << 20 | (model >> 4) << 16 | family << 8 | (model & 0xf) << 4 | stepping & 0xf
    }

    /// Without TSX where it does not work (`x86DataFilterTSX`): Haswell before the stepping that mended it.
    #[must_use]
    pub(super) fn without_broken_tsx(mut self, release: usize) -> Self {
        let intel = self.vendor.is_some_and(|vendor| vendor.name == "Intel");
        let (family, model, stepping) = self.family_model_stepping();
        if intel && family == 6 && (model == 63 && stepping < 4 || [60, 69, 70].contains(&model)) {
            let tsx = ["hle", "rtm"].into_iter().filter_map(|name| libvirt::feature(release, name));
            self.features = self.features.minus(&tsx.collect());
        }
        self
    }
}
