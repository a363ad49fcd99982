//! The releases at which QEMU's code changed, as positions in [`RELEASES`](cpusieve_knowledge::qemu::RELEASES).
//!
//! A change that lies between two known releases stands at the newer one.

/// 7.2
pub(crate) const V7_2: usize = 1;
/// 10.0
pub(crate) const V10_0: usize = 2;
/// 11.1
pub(crate) const V11_1: usize = 3;

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::qemu::RELEASES;

    use super::*;

    #[test]
    fn positions_are_those_of_the_labels() {
        let label = |release: usize| RELEASES[release].label;
        assert_eq!([label(V7_2), label(V10_0), label(V11_1)], ["7.2", "10.0", "11.1"]);
    }
}
