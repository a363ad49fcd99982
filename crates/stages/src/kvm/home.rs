//! Where a function of KVM stands in one tree: rules cite it as most releases have it.

use cpusieve_knowledge::kvm::{self, Shape};
use cpusieve_knowledge::linux;
use cpusieve_model::Cite;

/// What holds the masks.
const MASKS: Cite = Cite("arch/x86/kvm/cpuid.c:kvm_set_cpu_caps");

/// A function that was renamed or moved.
struct Moved {
    /// As rules cite it.
    cited: &'static str,
    /// The releases in which it stands elsewhere: from the first on, and before the last.
    from: (u16, u16),
    before: (u16, u16),
    /// Where.
    there: &'static str,
}

const EVER: (u16, u16) = (0, 0);
const STILL: (u16, u16) = (u16::MAX, 0);

/// Read in 5.10, 6.1, 6.12, 7.1, 7.2 and 7.3, and in their younger stable trees; a release between two of these counts for
/// the side on which the change is taken to have happened.
const MOVED: [Moved; 12] = [
    at("arch/x86/kvm/x86.c:kvm_get_feature_msr", EVER, (6, 12), "arch/x86/kvm/x86.c:kvm_get_msr_feature"),
    at("arch/x86/kvm/x86.c:kvm_get_feature_msr", (7, 3), STILL, "arch/x86/kvm/msrs.c:kvm_get_feature_msr"),
    at("arch/x86/kvm/x86.c:kvm_get_arch_capabilities", (7, 3), STILL, "arch/x86/kvm/msrs.c:kvm_get_arch_capabilities"),
    at("arch/x86/kvm/svm/svm.c:svm_get_feature_msr", EVER, (5, 7), "arch/x86/kvm/svm.c:svm_get_msr_feature"),
    at("arch/x86/kvm/svm/svm.c:svm_get_feature_msr", (5, 7), (6, 12), "arch/x86/kvm/svm/svm.c:svm_get_msr_feature"),
    at(
        "arch/x86/kvm/vmx/vmx.c:vmx_get_perf_capabilities",
        EVER,
        (6, 1),
        "arch/x86/kvm/vmx/capabilities.h:vmx_get_perf_capabilities",
    ),
    at("arch/x86/kvm/vmx/vmx.c:vmx_hardware_setup", EVER, (6, 10), "arch/x86/kvm/vmx/vmx.c:hardware_setup"),
    at("arch/x86/kvm/pmu.c:kvm_init_pmu_capability", EVER, (6, 18), "arch/x86/kvm/pmu.h:kvm_init_pmu_capability"),
    at("arch/x86/kvm/svm/avic.c:avic_hardware_setup", EVER, (6, 0), "arch/x86/kvm/svm/svm.c:svm_hardware_setup"),
    at("arch/x86/kvm/x86.c:kvm_do_msr_access", EVER, (6, 12), "arch/x86/kvm/x86.c:kvm_msr_ignored_check"),
    at("arch/x86/kvm/x86.c:kvm_do_msr_access", (7, 3), STILL, "arch/x86/kvm/msrs.c:kvm_do_msr_access"),
    at("arch/x86/kvm/x86.c:__kvm_x86_dev_get_attr", EVER, (6, 12), "arch/x86/kvm/x86.c:kvm_x86_dev_get_attr"),
];

const fn at(cited: &'static str, from: (u16, u16), before: (u16, u16), there: &'static str) -> Moved {
    Moved { cited, from, before, there }
}

/// Where the function that a rule cites stands in this tree.
#[must_use]
pub fn home(cite: Cite, tree: usize) -> Cite {
    let release = linux::TREES.get(tree).map_or(EVER, |tree| tree.release);
    if cite == MASKS {
        return match kvm::shape(tree) {
            Some(Shape::ConstMasks) if release < (5, 0) => Cite("arch/x86/kvm/cpuid.c:__do_cpuid_ent"),
            Some(Shape::ConstMasks) => Cite("arch/x86/kvm/cpuid.c:__do_cpuid_func"),
            Some(Shape::CapInit) if release >= (7, 1) => Cite("arch/x86/kvm/cpuid.c:kvm_initialize_cpu_caps"),
            _ => MASKS,
        };
    }
    let moved = MOVED.iter().find(|moved| moved.cited == cite.0 && (moved.from..moved.before).contains(&release));
    moved.map_or(cite, |moved| Cite(moved.there))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_tree(cite: &'static str, label: &str) -> &'static str {
        let tree = linux::TREES.iter().position(|tree| tree.label == label).unwrap();
        home(Cite(cite), tree).0
    }

    #[test]
    fn functions_are_cited_where_the_tree_has_them() {
        let pmu = "arch/x86/kvm/pmu.c:kvm_init_pmu_capability";
        assert_eq!(in_tree(pmu, "6.12"), "arch/x86/kvm/pmu.h:kvm_init_pmu_capability");
        assert_eq!(in_tree(pmu, "7.2"), pmu);
        let msr = "arch/x86/kvm/x86.c:kvm_get_feature_msr";
        assert_eq!(in_tree(msr, "6.1"), "arch/x86/kvm/x86.c:kvm_get_msr_feature");
        assert_eq!(in_tree(msr, "6.12"), msr);
        assert_eq!(in_tree(msr, "7.3"), "arch/x86/kvm/msrs.c:kvm_get_feature_msr");
        assert_eq!(
            in_tree("arch/x86/kvm/vmx/vmx.c:vmx_hardware_setup", "6.1"),
            "arch/x86/kvm/vmx/vmx.c:hardware_setup"
        );
        assert_eq!(in_tree(MASKS.0, "7.3"), "arch/x86/kvm/cpuid.c:kvm_initialize_cpu_caps");
    }
}
