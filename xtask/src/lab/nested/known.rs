//! What is known to be otherwise than predicted, and why it stays so.

/// A comparison: the capture, what was compared, the lines, why.
type Known = (&'static str, &'static str, &'static [&'static str], &'static str);

/// All of them.
pub(super) const KNOWN: [Known; 3] = [
    (
        "q7.2-k6.17-EPYC_+svm_+npt_vgif=0",
        "KVM_GET_SUPPORTED_CPUID",
        &[
            "KVM alone: entry 0x80000021 0x00 flags=0x0 00000204 00000000 00000006 00000000",
            "prediction alone: entry 0x80000021 0x00 flags=0x0 20000204 00000000 00000006 00000000",
        ],
        "6.17.13 does not force srso_no on Zen 1 without SMT any more, its nearest tree, 6.16.1, does",
    ),
    (
        "q7.2-k6.18-max_+svm_nested=0-c_mitigations=off",
        "guest -cpu host,-kvm",
        &["flags: kernel alone [], prediction alone [tsc_deadline_timer]"],
        "without KVM's clock this guest could not calibrate its TSC, which CPUID does not tell",
    ),
    (
        "q7.2-k6.18-max_+svm_nested=0-c_mitigations=off",
        "way to -cpu host,-kvm",
        &["tsc_deadline_timer: not there"],
        "the same guest",
    ),
];

/// Why a comparison of a capture is known to differ, in exactly these lines.
pub(super) fn why(id: &str, what: &str, differences: &[String]) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| (known.0, known.1) == (id, what));
    known.filter(|known| differences == known.2).map(|known| known.3)
}
