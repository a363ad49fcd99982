//! What KVM can report, read out of `arch/x86/kvm/`.
