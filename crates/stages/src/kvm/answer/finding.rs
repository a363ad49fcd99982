//! What is odd about a host, so that KVM's answer is not predicted, or is not what was asked for.

use std::fmt;

/// Something about a host that the user should know before the answer is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// `/dev/kvm` is served by a module that is neither `kvm_intel` nor `kvm_amd`: only its own answer is known.
    OtherBackend(String),
    /// The CPU announces both VMX and SVM, which none does.
    BothVendors,
    /// The host kernel has neither VMX nor SVM: no module loads.
    NoBackend,
    /// The vendor has neither module: KVM does not load whatever the CPU announces.
    NoVendor(String),
    /// KVM was never read from this tree.
    UnknownTree,
    /// The host kernel's capabilities were not given.
    NoKernel,
    /// A parameter was asked for and the module clears it, because the CPU lacks what it needs.
    ParameterCleared {
        /// The parameter: `kvm_amd.nested`.
        name: String,
        /// What is missing.
        needs: &'static str,
    },
    /// A parameter of one vendor's module was given for a host of the other.
    ForeignParameter(String),
    /// The answer has more entries than KVM lets a caller have; the ioctl fails with `E2BIG`.
    TooManyEntries,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherBackend(module) => {
                write!(f, "/dev/kvm is served by {module}, neither VMX nor SVM: its answer is not predicted")
            }
            Self::BothVendors => f.write_str("this CPU announces both VMX and SVM: no real CPU does"),
            Self::NoBackend => f.write_str("the host kernel has neither vmx nor svm: KVM does not load"),
            Self::NoVendor(vendor) => write!(f, "KVM has no module for CPUs of {vendor}"),
            Self::UnknownTree => f.write_str("KVM of this kernel release is not known"),
            Self::NoKernel => f.write_str("nothing is known of the host's kernel"),
            Self::ParameterCleared { name, needs } => write!(f, "{name} is on, but has no effect without {needs}"),
            Self::ForeignParameter(name) => {
                write!(f, "{name} was given, but this host loads the other vendor's module")
            }
            Self::TooManyEntries => f.write_str("KVM's answer has more entries than a caller may have (E2BIG)"),
        }
    }
}
