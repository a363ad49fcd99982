//! The requests to `/dev/kvm` that `kvm-ioctls` lacks, or bounds too tightly.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{KVM_X86_XCOMP_GUEST_SUPP, kvm_cpuid_entry2, kvm_cpuid2, kvm_device_attr, kvm_msr_list};
use kvm_ioctls::Kvm;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// `KVMIO`
const GROUP: u8 = 0xae;
const KVM_GET_MSR_INDEX_LIST: Opcode = opcode::read_write::<kvm_msr_list>(GROUP, 0x02);
const KVM_GET_MSR_FEATURE_INDEX_LIST: Opcode = opcode::read_write::<kvm_msr_list>(GROUP, 0x0a);
const KVM_GET_SUPPORTED_HV_CPUID: Opcode = opcode::read_write::<kvm_cpuid2>(GROUP, 0xc1);
const KVM_GET_DEVICE_ATTR: Opcode = opcode::write::<kvm_device_attr>(GROUP, 0xe2);

/// Room for a list of MSRs. `kvm-ioctls` has room for 256 and fails beyond, while the list grows with every release.
const MSRS_AT_MOST: usize = 2048;

/// `struct kvm_msr_list` with its array.
#[repr(C)]
struct MsrList {
    nmsrs: u32,
    indices: [u32; MSRS_AT_MOST],
}

/// `KVM_GET_MSR_INDEX_LIST`: the MSRs that KVM saves and restores, in its order.
pub(super) fn msr_index_list(kvm: &Kvm) -> io::Result<Vec<u32>> {
    list::<KVM_GET_MSR_INDEX_LIST>(kvm)
}

/// `KVM_GET_MSR_FEATURE_INDEX_LIST`: the MSRs that say what KVM can do, in its order.
pub(super) fn msr_feature_index_list(kvm: &Kvm) -> io::Result<Vec<u32>> {
    list::<KVM_GET_MSR_FEATURE_INDEX_LIST>(kvm)
}

fn list<const REQUEST: Opcode>(kvm: &Kvm) -> io::Result<Vec<u32>> {
    let mut list = Box::new(MsrList { nmsrs: MSRS_AT_MOST as u32, indices: [0; MSRS_AT_MOST] });
    // SAFETY: both requests (the only ones that this module passes) take a `struct kvm_msr_list` and write at most as
    // many indices as `nmsrs` says there is room for, which is the length of the array.
    unsafe { ioctl(descriptor(kvm), Updater::<REQUEST, MsrList>::new(&mut list))? };
    let count = usize::try_from(list.nmsrs).unwrap_or(usize::MAX).min(MSRS_AT_MOST);
    Ok(list.indices.iter().take(count).copied().collect())
}

/// Room for Hyper-V's leaves, of which Linux 7.3 has ten.
const HYPERV_LEAVES_AT_MOST: usize = 64;

/// `struct kvm_cpuid2` with its array.
#[repr(C)]
struct CpuidList {
    nent: u32,
    padding: u32,
    entries: [kvm_cpuid_entry2; HYPERV_LEAVES_AT_MOST],
}

/// `KVM_GET_SUPPORTED_HV_CPUID` of the system: the leaves of Hyper-V that KVM can give to a guest, in its order.
pub(super) fn supported_hv_cpuid(kvm: &Kvm) -> io::Result<Vec<kvm_cpuid_entry2>> {
    let entries = [kvm_cpuid_entry2::default(); HYPERV_LEAVES_AT_MOST];
    let mut list = Box::new(CpuidList { nent: HYPERV_LEAVES_AT_MOST as u32, padding: 0, entries });
    // SAFETY: the request takes a `struct kvm_cpuid2` and writes at most as many entries as `nent` says there is room
    // for, which is the length of the array (`arch/x86/kvm/hyperv.c:kvm_get_hv_cpuid`).
    unsafe { ioctl(descriptor(kvm), Updater::<KVM_GET_SUPPORTED_HV_CPUID, CpuidList>::new(&mut list))? };
    let count = usize::try_from(list.nent).unwrap_or(usize::MAX).min(HYPERV_LEAVES_AT_MOST);
    Ok(list.entries.iter().take(count).copied().collect())
}

/// `KVM_X86_XCOMP_GUEST_SUPP`: the XCR0 bits that a guest may have if its VMM asks for the permission.
pub(super) fn xcomp_guest_supp(kvm: &Kvm) -> io::Result<u64> {
    let mut bits = 0_u64;
    let attribute =
        kvm_device_attr { flags: 0, group: 0, attr: KVM_X86_XCOMP_GUEST_SUPP.into(), addr: &raw mut bits as u64 };
    // SAFETY: the request takes a `struct kvm_device_attr`, which the kernel reads, and writes the eight bytes of this
    // attribute to `addr` (`arch/x86/kvm/x86.c:kvm_x86_dev_get_attr`), where `bits` lives until after the call.
    unsafe { ioctl(descriptor(kvm), Setter::<KVM_GET_DEVICE_ATTR, _>::new(attribute))? };
    // SAFETY: `bits` is a live, aligned u64; reading it through a volatile load keeps the compiler from using the value
    // it had before the call, since the call's type does not tell that memory behind `addr` changes.
    Ok(unsafe { (&raw const bits).read_volatile() })
}

fn descriptor(kvm: &Kvm) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `kvm`, from which the lifetime of the result is borrowed.
    unsafe { BorrowedFd::borrow_raw(kvm.as_raw_fd()) }
}
