//! The feature MSRs, kernel tree by kernel tree: which there are, and how KVM makes each.
//!
//! ```
//! use cpusieve_knowledge::{kvm::msrs, linux};
//!
//! // IA32_VMX_BASIC comes first wherever there is nested VMX, and nowhere before 4.17.
//! let first = |release| msrs::feature_msrs(linux::nearest(release).tree).next().map(|msr| msr.name);
//! assert_eq!(first("6.12"), Some("VMX_BASIC"));
//! assert_eq!(first("4.14"), Some("AMD64_DE_CFG"));
//! ```

use cpusieve_model::MsrBit;

use super::in_tree;
use crate::TreeSet;

/// An MSR in one of KVM's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedMsr {
    /// The MSR's index.
    pub index: u32,
    /// The macro without `MSR_`.
    pub name: &'static str,
    /// What must hold so that it is in the list; `false` beside a condition negates it.
    pub needs: &'static [(Need, bool)],
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// What KVM does to some bits of a feature MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureBits {
    /// The MSR's index.
    pub index: u32,
    /// The bits.
    pub mask: u64,
    /// The kernel's name for them; empty for a whole register.
    pub name: &'static str,
    /// What is done to them.
    pub effect: MsrEffect,
    /// What must hold so that it is done; `false` beside a condition negates it.
    pub needs: &'static [(Need, bool)],
    /// The trees in which it is so.
    pub trees: TreeSet,
}

/// What is done to bits of a feature MSR, which begins as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsrEffect {
    /// Those that are set in this MSR of the hardware are set.
    Keep(u32),
    /// Those that are set in this feature MSR are set.
    Copy(u32),
    /// They are set.
    Set,
    /// They are cleared.
    Clear,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// The host kernel has this capability (macro).
    Flag(&'static str),
    /// The host kernel has this bug (macro).
    Bug(&'static str),
    /// KVM offers this feature (macro).
    Cap(&'static str),
    /// This parameter of the loaded module is on.
    Param(&'static str),
    /// The vendor module is `kvm_intel`.
    IntelModule,
    /// The vendor module is `kvm_amd`.
    AmdModule,
    /// This bit of the hardware's MSR is set.
    Hardware(MsrBit),
    /// This bit of the feature MSR is set so far.
    SoFar(MsrBit),
    /// `l1tf_vmx_mitigation` is not `VMENTER_L1D_FLUSH_NEVER`.
    L1dFlush,
    /// `gds_ucode_mitigated()`
    GdsMicrocode,
    /// Reading this MSR of the hardware does not fault.
    Readable(u32),
    /// perf knows how many branch records the CPU has.
    Lbr,
    /// perf knows the branch records' call stack mode.
    LbrCallStack,
}

include!(concat!(env!("OUT_DIR"), "/msrs.rs"));

/// The feature MSRs of this tree under some condition, in KVM's order.
pub fn feature_msrs(tree: usize) -> impl Iterator<Item = &'static ListedMsr> {
    in_tree(FEATURE_MSRS, tree, |msr| msr.trees)
}

/// What is done to all feature MSRs in this tree, by MSR, and of one in order.
pub fn all_feature_bits(tree: usize) -> impl Iterator<Item = &'static FeatureBits> {
    in_tree(FEATURE_BITS, tree, |bits| bits.trees)
}

/// What is done to this feature MSR in this tree, in order.
pub fn feature_bits(tree: usize, index: u32) -> impl Iterator<Item = &'static FeatureBits> {
    let start = FEATURE_BITS.partition_point(|bits| bits.index < index);
    let end = FEATURE_BITS.partition_point(|bits| bits.index <= index);
    in_tree(FEATURE_BITS.get(start..end).unwrap_or(&[]), tree, |bits| bits.trees)
}

/// The MSRs of which it is known whether `KVM_GET_MSR_INDEX_LIST` lists them, each once.
pub fn indexed_msrs() -> impl Iterator<Item = u32> {
    let before = |position: usize| position.checked_sub(1).and_then(|position| INDEXED_MSRS.get(position));
    let first =
        move |(position, msr): &(usize, &ListedMsr)| before(*position).is_none_or(|other| other.index != msr.index);
    INDEXED_MSRS.iter().enumerate().filter(first).map(|(_, msr)| msr.index)
}

/// The rows of this tree by which this MSR is in `KVM_GET_MSR_INDEX_LIST`; any of them suffices.
pub fn indexed_by(tree: usize, index: u32) -> impl Iterator<Item = &'static ListedMsr> {
    in_tree(INDEXED_MSRS, tree, |msr| msr.trees).filter(move |msr| msr.index == index)
}
