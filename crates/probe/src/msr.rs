//! Model-specific registers, through `/dev/cpu/N/msr`.
//!
//! The device reads with `rdmsr_safe` (`arch/x86/kernel/msr.c:msr_read`): an MSR that the CPU or the hypervisor does
//! not have is EIO and changes nothing. Only registers that say what a CPU can do, or what switched it off, are read;
//! none of them counts, identifies the single chip, or changes when it is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use cpusieve_model::{MsrReading, MsrTable, Vendor};

use crate::Refusal;
use crate::files::Root;

/// Linux's EIO, by which the device says that RDMSR faulted.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// Which CPUs have an MSR.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// CPUs of every vendor.
    All,
    /// Intel's, Centaur's and Zhaoxin's.
    Intel,
    /// AMD's and Hygon's.
    Amd,
}

use On::{All, Amd, Intel};

/// First and last index, on which CPUs, and the name in `arch/x86/include/asm/msr-index.h` without `MSR_`.
const USEFUL: [(u32, u32, On, &str); 41] = [
    (0x17, 0x17, Intel, "IA32_PLATFORM_ID"),
    (0x1b, 0x1b, All, "IA32_APICBASE"),
    (0x33, 0x33, Intel, "TEST_CTRL"),
    (0x3a, 0x3a, Intel, "IA32_FEAT_CTL"),
    (0x48, 0x48, All, "IA32_SPEC_CTRL"),
    (0x8b, 0x8b, All, "IA32_UCODE_REV, AMD64_PATCH_LEVEL"),
    (0xbd, 0xbd, Intel, "IA32_XAPIC_DISABLE_STATUS"),
    (0xce, 0xce, Intel, "PLATFORM_INFO"),
    (0xcf, 0xcf, Intel, "IA32_CORE_CAPS"),
    // AMD silicon has no such MSR, but KVM shows it to guests of every vendor.
    (0x10a, 0x10a, All, "IA32_ARCH_CAPABILITIES"),
    (0x10f, 0x10f, Intel, "TSX_FORCE_ABORT"),
    (0x122, 0x122, Intel, "IA32_TSX_CTRL"),
    (0x123, 0x123, Intel, "IA32_MCU_OPT_CTRL"),
    (0x140, 0x140, Intel, "MISC_FEATURES_ENABLES"),
    (0x179, 0x179, All, "IA32_MCG_CAP"),
    (0x1a0, 0x1a0, Intel, "IA32_MISC_ENABLE"),
    (0x345, 0x345, Intel, "IA32_PERF_CAPABILITIES"),
    (0x480, 0x480, Intel, "IA32_VMX_BASIC"),
    (0x481, 0x484, Intel, "IA32_VMX_PINBASED_CTLS ... IA32_VMX_ENTRY_CTLS"),
    (0x485, 0x485, Intel, "IA32_VMX_MISC"),
    (0x486, 0x489, Intel, "IA32_VMX_CR0_FIXED0 ... IA32_VMX_CR4_FIXED1"),
    (0x48a, 0x48a, Intel, "IA32_VMX_VMCS_ENUM"),
    (0x48b, 0x48b, Intel, "IA32_VMX_PROCBASED_CTLS2"),
    (0x48c, 0x48c, Intel, "IA32_VMX_EPT_VPID_CAP"),
    (0x48d, 0x490, Intel, "IA32_VMX_TRUE_PINBASED_CTLS ... IA32_VMX_TRUE_ENTRY_CTLS"),
    (0x491, 0x491, Intel, "IA32_VMX_VMFUNC"),
    (0x492, 0x492, Intel, "IA32_VMX_PROCBASED_CTLS3"),
    (0x981, 0x982, Intel, "TME capability, IA32_TME_ACTIVATE"),
    (0xda0, 0xda0, All, "IA32_XSS"),
    (0xc000_0080, 0xc000_0080, All, "EFER"),
    (0xc001_0010, 0xc001_0010, Amd, "AMD64_SYSCFG"),
    (0xc001_0015, 0xc001_0015, Amd, "K7_HWCR"),
    (0xc001_0055, 0xc001_0055, Amd, "K8_INT_PENDING_MSG"),
    (0xc001_0114, 0xc001_0114, Amd, "VM_CR"),
    (0xc001_011f, 0xc001_011f, Amd, "AMD64_VIRT_SPEC_CTRL"),
    (0xc001_0131, 0xc001_0131, Amd, "AMD64_SEV"),
    (0xc001_0140, 0xc001_0141, Amd, "AMD64_OSVW_ID_LENGTH, AMD64_OSVW_STATUS"),
    (0xc001_1002, 0xc001_1005, Amd, "AMD64_CPUID_FN_7, AMD64_CPUID_FN_1 and their neighbours"),
    (0xc001_1020, 0xc001_1023, Amd, "AMD64_LS_CFG ... AMD64_TW_CFG"),
    (0xc001_1029, 0xc001_1029, Amd, "AMD64_DE_CFG"),
    (0xc001_102e, 0xc001_102e, Amd, "ZEN4_BP_CFG"),
];

/// The indices of the MSRs that are worth reading on CPUs of this vendor, ascending. For a vendor that is not known:
/// those that every CPU has.
fn useful(vendor: Option<Vendor>) -> impl Iterator<Item = u32> {
    let on = match vendor {
        Some(Vendor::Intel | Vendor::Centaur | Vendor::Zhaoxin) => Intel,
        Some(Vendor::Amd | Vendor::Hygon) => Amd,
        Some(Vendor::Transmeta | Vendor::Other) | None => All,
    };
    USEFUL.iter().filter(move |row| row.2 == All || row.2 == on).flat_map(|&(first, last, ..)| first..=last)
}

/// Reads the useful MSRs of one CPU. An MSR that faults is [`MsrReading::Unreadable`].
///
/// From a thread that is pinned to this CPU it costs a system call an MSR; from elsewhere an interrupt of that CPU too.
///
/// # Errors
///
/// If `/dev/cpu/N/msr` cannot be opened (no `msr` module, no privilege), or fails otherwise than by a fault.
pub fn read(cpu: u32, vendor: Option<Vendor>) -> Result<MsrTable, Refusal> {
    read_below(&Root::machine(), cpu, vendor)
}

pub(crate) fn read_below(root: &Root, cpu: u32, vendor: Option<Vendor>) -> Result<MsrTable, Refusal> {
    let path = root.path(&format!("dev/cpu/{cpu}/msr"));
    let device = File::open(&path).map_err(|source| Refusal::file(&path, source))?;
    let mut table = MsrTable::default();
    for index in useful(vendor) {
        let mut value = [0; 8];
        match device.read_exact_at(&mut value, u64::from(index)) {
            Ok(()) => table.insert(index, MsrReading::Value(u64::from_le_bytes(value))),
            Err(error) if error.raw_os_error() == Some(EIO) => table.insert(index, MsrReading::Unreadable),
            Err(source) => return Err(Refusal::file(&path, source)),
        };
    }
    Ok(table)
}

/// What helps where MSRs cannot be read.
pub(crate) fn remedy(refusal: &Refusal) -> Option<&'static str> {
    match refusal.kind()? {
        io::ErrorKind::NotFound => Some("as root: modprobe msr (needs a kernel with CONFIG_X86_MSR)"),
        io::ErrorKind::PermissionDenied => Some("run as root (CAP_SYS_RAWIO)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_table_ascends_and_names_every_row() {
        assert!(USEFUL.iter().all(|(first, last, _, name)| first <= last && last - first < 8 && !name.is_empty()));
        assert!(USEFUL.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn each_vendor_has_its_own_and_the_common_ones() {
        let intel: Vec<_> = useful(Some(Vendor::Intel)).collect();
        let amd: Vec<_> = useful(Some(Vendor::Hygon)).collect();
        let other: Vec<_> = useful(None).collect();
        assert!(intel.contains(&0x48d) && intel.contains(&0x3a) && !intel.contains(&0xc001_0015));
        assert!(amd.contains(&0xc001_0114) && !amd.contains(&0x3a));
        assert!(other.iter().all(|index| intel.contains(index) && amd.contains(index)));
    }

    #[test]
    fn a_missing_device_and_one_that_is_none_are_refusals_with_a_reason() {
        let folder = Folder::new("msr");
        let absent = read_below(&folder.root(), 0, None).unwrap_err();
        assert!(absent.to_string().contains("dev/cpu/0/msr"), "{absent}");
        assert!(remedy(&absent).unwrap().contains("modprobe msr"));
        folder.write("dev/cpu/0/msr", b"");
        assert!(read_below(&folder.root(), 0, None).is_err(), "an empty file is no device");
    }

    #[test]
    fn values_are_read_at_the_offset_of_the_index() {
        let folder = Folder::new("msr-values");
        let mut device = vec![0; 0xda0 + 8];
        device[0x10a..0x112].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
        // A file that is long enough for the low indices only: the high ones end early, which is no fault.
        folder.write("dev/cpu/3/msr", &device);
        let refused = read_below(&folder.root(), 3, None).unwrap_err();
        assert_eq!(refused.kind(), Some(io::ErrorKind::UnexpectedEof));
    }
}
