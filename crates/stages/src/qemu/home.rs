//! Where a function of QEMU stands in one release: rules and tables cite it as most releases have it.

use cpusieve_model::Cite;

use super::release::V7_2;

/// Functions that stood elsewhere before a release.
struct Moved {
    /// As rules cite it.
    cited: &'static str,
    /// The first release that has it there.
    since: usize,
    /// Where it stood before.
    before: &'static str,
}

/// Read in 5.2, 7.2, 10.0 and 10.2. The accelerator's part of `target/i386` got a folder, and the CPU's a file of its own
/// there, between 5.2 and 7.2.
const MOVED: [Moved; 3] = [
    Moved {
        cited: "target/i386/kvm/kvm.c:kvm_arch_get_supported_cpuid",
        since: V7_2,
        before: "target/i386/kvm.c:kvm_arch_get_supported_cpuid",
    },
    Moved {
        cited: "target/i386/kvm/kvm.c:kvm_arch_get_supported_msr_feature",
        since: V7_2,
        before: "target/i386/kvm.c:kvm_arch_get_supported_msr_feature",
    },
    Moved {
        cited: "target/i386/kvm/kvm-cpu.c:kvm_default_props",
        since: V7_2,
        before: "target/i386/cpu.c:kvm_default_props",
    },
];

/// Where what a rule cites stands in a release, a position in [`RELEASES`](cpusieve_knowledge::qemu::RELEASES).
pub(super) fn home(cite: Cite, release: usize) -> Cite {
    // All that moved did so before 7.2: nothing is to be compared for later releases.
    if release >= V7_2 {
        return cite;
    }
    let moved = MOVED.iter().find(|moved| release < moved.since && moved.cited == cite.0);
    moved.map_or(cite, |moved| Cite(moved.before))
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::qemu::{WORD_ORDER, word_fixups};
    use cpusieve_knowledge::rules::{RULES, Software};

    use super::*;

    /// Files below `target/i386` that 5.2 does not have.
    const NOT_IN_5_2: [&str; 4] = ["target/i386/kvm/", "target/i386/tcg/", "target/i386/host-cpu.c", "hw/i386/sgx"];

    #[test]
    fn no_release_is_cited_with_a_file_that_came_later() {
        let oldest = 0;
        let rules = RULES.iter().filter(|rule| rule.software == Software::Qemu && rule.trees.contains(oldest));
        let fixups = WORD_ORDER.into_iter().flat_map(|word| word_fixups(oldest, word));
        for cite in rules.map(|rule| rule.cite).chain(fixups.map(|fixup| Cite(fixup.cite))) {
            let there = home(cite, oldest);
            assert!(!NOT_IN_5_2.iter().any(|file| there.0.starts_with(file)), "{there}");
            assert_eq!(home(cite, V7_2), cite);
        }
    }

    #[test]
    fn the_table_has_nothing_that_nobody_cites() {
        for moved in MOVED {
            let of_rule = RULES.iter().any(|rule| rule.cite.0 == moved.cited);
            let mut fixups = WORD_ORDER.into_iter().flat_map(|word| word_fixups(0, word));
            assert!(of_rule || fixups.any(|fixup| fixup.cite == moved.cited), "{}", moved.cited);
        }
    }
}
