//! The virtual machine itself.

use cpusieve_model::{CpuidEntry, KvmCpuidEntry};
use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::memory::{self, Memory};
use super::watch::Stop;
use super::{Mode, RunError, Trial, refused};
use crate::files::Root;
use crate::{Refusal, kvm};

/// CR0: protection, extension type, numeric errors.
const CR0: u64 = 1 | 1 << 4 | 1 << 5;
/// CR0: paging.
const CR0_PG: u64 = 1 << 31;
/// CR4: physical-address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled and active.
const EFER_LONG: u64 = 1 << 8 | 1 << 10;
/// IA32_APIC_BASE after reset: at its usual place, on, of the boot CPU.
const APIC_BASE: u64 = 0xfee0_0900;
/// AMX's tile data among the state components: CPUID.(EAX=0DH,ECX=0):EAX\[18\].
const TILE_DATA: u32 = 18;
/// `ARCH_REQ_XCOMP_GUEST_PERM`
const REQUEST_GUEST_PERMISSION: libc::c_int = 0x1025;

/// What came of a run: whether the table was taken, the MSRs, the answers.
type Done = (Result<(), String>, Vec<(u32, u64, bool)>, Result<Vec<CpuidEntry>, RunError>);

/// Makes the machine and lets the program run.
pub(super) fn run(root: &Root, program: &[u8], trial: &Trial, mode: Mode, stop: &Stop) -> Result<Done, Refusal> {
    let kvm = kvm::open(root)?;
    permit_tiles(&trial.table);
    let memory = Memory::new(program, &trial.pairs)
        .map_err(|source| Refusal::Kvm { request: "memory for a virtual machine", source })?;
    // Declared after the memory, so that the machine is gone before it.
    let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory::SIZE as u64,
        userspace_addr: memory.address(),
    };
    // SAFETY: the region is the whole of a mapping that lives until after the machine; nobody in this process holds a
    // reference into it, and it is read and written through volatile accesses alone.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
    if let Err(error) = set_table(&vcpu, &trial.table) {
        return Ok((Err(error.to_string()), Vec::new(), Ok(Vec::new())));
    }
    let msrs = trial.msrs.iter().map(|&(index, value)| (index, value, takes(&vcpu, index, value))).collect();
    set_up(&vcpu, mode, trial.pairs.len().min(memory::PAIRS_AT_MOST))?;
    stop.reaches(&vcpu).map_err(|source| Refusal::Kvm { request: "KVM_SET_SIGNAL_MASK", source })?;
    let ended = to_the_end(&mut vcpu, stop);
    Ok((Ok(()), msrs, ended.map(|()| memory.answers(&trial.pairs))))
}

fn set_table(vcpu: &VcpuFd, table: &[KvmCpuidEntry]) -> Result<(), Refusal> {
    const REQUEST: &str = "KVM_SET_CPUID2";
    let entry = |entry: &KvmCpuidEntry| kvm_cpuid_entry2 {
        function: entry.leaf,
        index: entry.subleaf,
        flags: entry.flags,
        eax: entry.registers.eax,
        ebx: entry.registers.ebx,
        ecx: entry.registers.ecx,
        edx: entry.registers.edx,
        padding: [0; 3],
    };
    let entries: Vec<_> = table.iter().map(entry).collect();
    let too_many = |_| Refusal::Kvm { request: REQUEST, source: std::io::ErrorKind::ArgumentListTooLong.into() };
    let list = CpuId::from_entries(&entries).map_err(too_many)?;
    vcpu.set_cpuid2(&list).map_err(refused(REQUEST))
}

/// Whether KVM takes a value from outside.
fn takes(vcpu: &VcpuFd, index: u32, data: u64) -> bool {
    let entry = kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    let list = Msrs::from_entries(&[entry]);
    list.is_ok_and(|list| vcpu.set_msrs(&list).is_ok_and(|taken| taken == 1))
}

/// Asks the kernel for AMX's state in guests, as QEMU does before it makes a vCPU
/// (`target/i386/cpu.c`, `kvm_request_xsave_components`). Without the permission KVM refuses the table.
fn permit_tiles(table: &[KvmCpuidEntry]) {
    let has =
        |entry: &KvmCpuidEntry| entry.leaf == 0xd && entry.subleaf == 0 && entry.registers.eax >> TILE_DATA & 1 == 1;
    if table.iter().any(has) {
        // SAFETY: a plain system call on numbers; it widens what guests of this process may use, and nothing else. That
        // it may fail is no matter: KVM then refuses the table and says so.
        let _answer = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_GUEST_PERMISSION, TILE_DATA) };
    }
}

/// Puts the vCPU before the first instruction of the program.
fn set_up(vcpu: &VcpuFd, mode: Mode, pairs: usize) -> Result<(), Refusal> {
    let mut state = vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 8,
        type_: 11,
        present: 1,
        dpl: 0,
        db: u8::from(mode == Mode::Protected),
        s: 1,
        l: u8::from(mode == Mode::Long),
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: 16, type_: 3, db: 1, l: 0, ..code };
    state.cs = code;
    for segment in [&mut state.ds, &mut state.es, &mut state.fs, &mut state.gs, &mut state.ss] {
        *segment = data;
    }
    (state.cr0, state.cr4, state.efer) = match mode {
        Mode::Long => (CR0 | CR0_PG, CR4_PAE, EFER_LONG),
        Mode::Protected => (CR0, 0, 0),
    };
    state.cr3 = if mode == Mode::Long { memory::TABLES[0] } else { 0 };
    state.apic_base = APIC_BASE;
    vcpu.set_sregs(&state).map_err(refused("KVM_SET_SREGS"))?;
    let registers = kvm_regs {
        rip: memory::CODE,
        rsi: memory::PAIRS,
        rdi: memory::ANSWERS,
        rbp: pairs as u64,
        // The one bit that is always set.
        rflags: 2,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers).map_err(refused("KVM_SET_REGS"))
}

/// Runs the vCPU until it halts.
fn to_the_end(vcpu: &mut VcpuFd, stop: &Stop) -> Result<(), RunError> {
    loop {
        let error = match vcpu.run() {
            Ok(VcpuExit::Hlt) => return Ok(()),
            Ok(VcpuExit::Intr) => None,
            Ok(other) => return Err(RunError::Exit(format!("{other:?}"))),
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            return Err(RunError::Exit(std::io::Error::from_raw_os_error(error.errno()).to_string()));
        }
        if stop.is_set() {
            return Err(RunError::Late(std::time::Duration::ZERO));
        }
    }
}
