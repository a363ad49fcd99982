//! The VMMs that hand on what KVM offers, with few edits: Firecracker and Cloud Hypervisor.
//!
//! QEMU keeps words of features and knows CPU models; these two start from `KVM_GET_SUPPORTED_CPUID` and change what a
//! guest cannot use, what depends on the number of vCPUs, and (Firecracker) what a CPU template says. The tables stand
//! in `knowledge/vmm/`, their rules in `knowledge/rules/`. Releases are positions in [`Vmm::releases`].
//!
//! ```
//! use cpusieve_knowledge::vmm::{self, Fit, Vmm};
//!
//! let nearest = Vmm::Firecracker.nearest("1.14.2");
//! assert_eq!((Vmm::Firecracker.releases()[nearest.release].label, nearest.fit), ("1.14", Fit::Same));
//! assert_eq!(vmm::template_names().collect::<Vec<_>>(), ["T2", "T2S", "T2CL", "C3", "T2A"]);
//! ```

use cpusieve_model::{BitFilter, Cite, CpuTemplate, CpuidBit, CpuidModifier, MsrModifier, Register, Registers, Vendor};

use crate::TreeSet;
pub use crate::qemu::{Fit, Nearest, Release};
use crate::rules::Software;

include!(concat!(env!("OUT_DIR"), "/vmm.rs"));

/// A VMM that hands on what KVM offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vmm {
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor, on KVM.
    CloudHypervisor,
}

impl Vmm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Firecracker, Self::CloudHypervisor];

    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firecracker => "Firecracker",
            Self::CloudHypervisor => "Cloud Hypervisor",
        }
    }

    /// Whose rules speak of it.
    #[must_use]
    pub const fn software(self) -> Software {
        match self {
            Self::Firecracker => Software::Firecracker,
            Self::CloudHypervisor => Software::CloudHypervisor,
        }
    }

    /// The releases that the tables were read from, oldest first.
    #[must_use]
    pub const fn releases(self) -> &'static [Release] {
        match self {
            Self::Firecracker => FIRECRACKER_RELEASES,
            Self::CloudHypervisor => CLOUD_HYPERVISOR_RELEASES,
        }
    }

    /// The position of the newest known release.
    #[must_use]
    pub const fn newest(self) -> usize {
        self.releases().len().saturating_sub(1)
    }

    /// The position of the known release with this label: from it on, something is done otherwise than before. Behind the
    /// last release if there is none.
    #[must_use]
    pub fn since(self, label: &str) -> usize {
        let releases = self.releases();
        releases.iter().position(|release| release.label == label).unwrap_or(releases.len())
    }

    /// The known release that stands for a version: `1.16.0-dev`, `Firecracker v1.12.1`, `cloud-hypervisor v51.1.0`.
    ///
    /// The same release if it is known, else the nearest older one, else the oldest.
    #[must_use]
    pub fn nearest(self, version: &str) -> Nearest {
        let releases = self.releases();
        let Some(wanted) = numbers(version) else {
            return Nearest { release: self.newest(), fit: Fit::Unreadable };
        };
        let known = |release: &Release| numbers(release.label).unwrap_or_default();
        match releases.iter().rposition(|release| known(release) <= wanted) {
            None => Nearest { release: 0, fit: Fit::Oldest },
            Some(release) => {
                let same = releases.get(release).is_some_and(|found| wanted.starts_with(&known(found)));
                Nearest { release, fit: if same { Fit::Same } else { Fit::Older } }
            }
        }
    }
}

/// The numbers of the first version in a text: `1.16.0-dev` is 1, 16, 0. At most four.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let version = text.get(start..)?.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    version.split('.').filter(|part| !part.is_empty()).take(4).map(|part| part.parse().ok()).collect()
}

/// Under what an edit takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The vendor is Intel.
    Intel,
    /// The vendor is AMD.
    Amd,
    /// There is more than one vCPU, or there is not.
    Smp(bool),
    /// AMX was not asked for.
    WithoutAmx,
    /// Nested virtualization was switched off.
    WithoutNested,
}

/// A bit that a VMM sets or clears whatever KVM said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitEdit {
    /// The VMM.
    pub vmm: Vmm,
    /// The bit.
    pub bit: CpuidBit,
    /// Whether it is set; otherwise it is cleared.
    pub sets: bool,
    /// All that must hold.
    pub conditions: &'static [Condition],
    /// The releases that do it.
    pub releases: TreeSet,
    /// The identity of the rule that says why.
    pub rule: &'static str,
}

/// The edits of a release, in the order of the table.
pub fn bit_edits(vmm: Vmm, release: usize) -> impl Iterator<Item = &'static BitEdit> {
    BIT_EDITS.iter().filter(move |edit| edit.vmm == vmm && edit.releases.contains(release))
}

/// An MSR that a VMM writes before the guest's kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootMsr {
    /// The VMM.
    pub vmm: Vmm,
    /// The MSR.
    pub index: u32,
    /// The value written.
    pub value: u64,
    /// The releases that do it.
    pub releases: TreeSet,
    /// Where it stands.
    pub cite: Cite,
}

/// The MSRs that a release writes, in its order.
pub fn boot_msrs(vmm: Vmm, release: usize) -> impl Iterator<Item = &'static BootMsr> {
    BOOT_MSRS.iter().filter(move |msr| msr.vmm == vmm && msr.releases.contains(release))
}

/// A leaf that Cloud Hypervisor answers when it poses as Hyper-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervLeaf {
    /// The leaf.
    pub leaf: u32,
    /// The answer.
    pub registers: Registers,
    /// The releases of Cloud Hypervisor with this answer.
    pub releases: TreeSet,
}

/// The leaves with which a release of Cloud Hypervisor poses as Hyper-V, in its order.
pub fn hyperv_leaves(release: usize) -> impl Iterator<Item = &'static HypervLeaf> {
    HYPERV_LEAVES.iter().filter(move |leaf| leaf.releases.contains(release))
}

/// Where a row of a template writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemplatePlace {
    /// A register of CPUID output, with the flags that its entry gets.
    Cpuid { leaf: u32, subleaf: u32, register: Register, flags: u32 },
    /// An MSR.
    Msr { index: u32 },
}

/// One row of a static template.
struct TemplateRow {
    template: &'static str,
    place: TemplatePlace,
    bits: BitFilter,
    releases: TreeSet,
}

/// The static templates of Firecracker, by name.
pub fn template_names() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    TEMPLATE_ROWS
        .iter()
        .filter_map(move |row| (row.template != std::mem::replace(&mut last, row.template)).then_some(row.template))
}

/// A static template of Firecracker, as this release has it; `None` if there is none of this name.
#[must_use]
pub fn template(release: usize, name: &str) -> Option<CpuTemplate> {
    let rows = TEMPLATE_ROWS.iter().filter(|row| row.template == name && row.releases.contains(release));
    let mut template = CpuTemplate::default();
    for row in rows {
        match row.place {
            TemplatePlace::Cpuid { leaf, subleaf, register, flags } => {
                template.cpuid.push(CpuidModifier { leaf, subleaf, flags, register: Some((register, row.bits)) });
            }
            TemplatePlace::Msr { index } => template.msrs.push(MsrModifier { index, bits: row.bits }),
        }
    }
    (!template.cpuid.is_empty()).then_some(template)
}

/// The hosts on which a release takes a static template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateHosts {
    /// The template.
    pub template: &'static str,
    /// The vendor it is for.
    pub vendor: Vendor,
    /// The CPUs.
    pub hosts: Hosts,
    /// The releases for which this row holds.
    pub releases: TreeSet,
}

/// CPUs, by leaf 1 EAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// All.
    All,
    /// This one and those that compare as later.
    From(u32),
    /// These alone.
    These(&'static [u32]),
}

impl Hosts {
    /// Whether a CPU with this leaf 1 EAX is one of them; the type in bits 13:12 does not count
    /// (`src/vmm/src/arch/x86_64/cpu_model.rs:CpuModel`).
    #[must_use]
    pub fn has(self, eax: u32) -> bool {
        // Extended family, extended model, family, model, stepping: the order in which they are compared.
        let model = |eax: u32| (eax >> 20 & 0xff, eax >> 16 & 0xf, eax >> 8 & 0xf, eax >> 4 & 0xf, eax & 0xf);
        match self {
            Self::All => true,
            Self::From(first) => model(eax) >= model(first),
            Self::These(these) => these.iter().any(|&this| model(this) == model(eax)),
        }
    }
}

/// The hosts on which this release takes a static template.
#[must_use]
pub fn template_hosts(release: usize, name: &str) -> Option<&'static TemplateHosts> {
    TEMPLATE_HOSTS.iter().find(|row| row.template == name && row.releases.contains(release))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rules, x86};
    use cpusieve_model::Place;

    #[test]
    fn versions_find_the_release_that_stands_for_them() {
        let find = |vmm: Vmm, text| {
            let Nearest { release, fit } = vmm.nearest(text);
            (vmm.releases()[release].label, fit)
        };
        assert_eq!(find(Vmm::Firecracker, "1.16.0-dev"), ("1.16", Fit::Same));
        assert_eq!(find(Vmm::Firecracker, "Firecracker v1.10.1"), ("1.10", Fit::Same));
        assert_eq!(find(Vmm::Firecracker, "1.99.0"), ("1.16", Fit::Older));
        assert_eq!(find(Vmm::Firecracker, "0.25"), ("1.5", Fit::Oldest));
        assert_eq!(find(Vmm::CloudHypervisor, "cloud-hypervisor v51.1.0"), ("51", Fit::Same));
        assert_eq!(find(Vmm::CloudHypervisor, "nightly"), ("53", Fit::Unreadable));
    }

    #[test]
    fn every_edit_has_a_rule_that_speaks_of_its_feature_and_effect() {
        for edit in BIT_EDITS {
            let rule = rules::rule(edit.rule).unwrap_or_else(|| panic!("{}", edit.rule));
            let feature = x86::by_place(Place::Cpuid(edit.bit)).unwrap();
            assert!(rule.features.contains(&feature.id), "{} is about {:?}", edit.rule, rule.features);
            assert_eq!(rule.effect == rules::RuleEffect::Sets, edit.sets, "{}", edit.rule);
            assert_eq!(rule.software, edit.vmm.software());
            assert_eq!(edit.releases.intersection(*rule.trees), edit.releases, "{}", edit.rule);
        }
    }

    #[test]
    fn every_template_has_hosts_in_every_release_and_writes_no_bit_outside_its_mask() {
        for release in 0..Vmm::Firecracker.releases().len() {
            for name in template_names() {
                let template = template(release, name).unwrap();
                assert!(template_hosts(release, name).is_some(), "{name}");
                let registers = template.cpuid.iter().filter_map(|modifier| modifier.register);
                assert!(registers.chain([]).all(|(_, bits)| bits.value & !bits.mask == 0 && bits.mask >> 32 == 0));
                let msrs = usize::from(matches!(name, "T2S" | "T2CL"));
                assert_eq!(template.msrs.len(), msrs, "{name}");
            }
        }
        assert_eq!(template(0, "T3"), None);
    }

    #[test]
    fn hosts_are_compared_field_by_field() {
        let release = |version| Vmm::Firecracker.nearest(version).release;
        let hosts = |version, name| template_hosts(release(version), name).unwrap().hosts;
        // Sapphire Rapids took T2 up to 1.11.
        assert!(hosts("1.11", "T2").has(0x806f8) && !hosts("1.12", "T2").has(0x806f8));
        assert!(hosts("1.11", "T2CL").has(0x606a6) && !hosts("1.11", "T2CL").has(0x50654));
        assert!(hosts("1.12", "T2A").has(0x00a0_0f11) && hosts("1.12", "T2S").has(0x50657));
    }
}
