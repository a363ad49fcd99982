//! The guest's memory: where what lies, and the mapping.

use std::ptr::NonNull;

use cpusieve_model::{CpuidEntry, Registers};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes of memory.
pub(super) const SIZE: usize = 256 << 10;

/// Where the program lies.
pub(super) const CODE: u64 = 0x1000;

/// The page tables: one page each of level 4, 3 and 2. Level 2 maps the first 2 MiB as they are.
pub(super) const TABLES: [u64; 3] = [0x2000, 0x3000, 0x4000];

/// The pairs, eight bytes each.
pub(super) const PAIRS: u64 = 0x8000;

/// The answers, sixteen bytes each.
pub(super) const ANSWERS: u64 = 0x1_0000;

/// As many as lie between both.
pub(super) const PAIRS_AT_MOST: usize = (ANSWERS - PAIRS) as usize / 8;

/// The guest's program, the same bytes in 64-bit and in protected mode. ESI is at the pairs, EDI at the answers, EBP is
/// how many there are.
pub(super) const PROGRAM: [u8; 35] = [
    0x85, 0xed, // test ebp, ebp
    0x74, 0x1e, // jz end
    0x8b, 0x06, // mov eax, [rsi]
    0x8b, 0x4e, 0x04, // mov ecx, [rsi + 4]
    0x0f, 0xa2, // cpuid
    0x89, 0x07, // mov [rdi], eax
    0x89, 0x5f, 0x04, // mov [rdi + 4], ebx
    0x89, 0x4f, 0x08, // mov [rdi + 8], ecx
    0x89, 0x57, 0x0c, // mov [rdi + 12], edx
    0x48, 0x83, 0xc6, 0x08, // add rsi, 8 (in protected mode: dec eax; add esi, 8)
    0x48, 0x83, 0xc7, 0x10, // add rdi, 16
    0xff, 0xcd, // dec ebp
    0xeb, 0xde, // jmp to the start
    0xf4, // end: hlt
];

/// Present, writable.
const TABLE_ENTRY: u64 = 0x3;
/// Present, writable, 2 MiB.
const LARGE_PAGE: u64 = 0x83;

/// Anonymous memory, unmapped when this is dropped. A virtual machine that uses it must be gone by then.
pub(super) struct Memory(NonNull<u8>);

impl Memory {
    /// Memory with program, page tables and pairs; answers are zero.
    pub(super) fn new(program: &[u8], pairs: &[(u32, u32)]) -> std::io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let memory = Self(start);
        memory.write(CODE, program);
        let [four, three, two] = TABLES;
        memory.write(four, &(three | TABLE_ENTRY).to_le_bytes());
        memory.write(three, &(two | TABLE_ENTRY).to_le_bytes());
        memory.write(two, &LARGE_PAGE.to_le_bytes());
        for (number, (leaf, subleaf)) in pairs.iter().take(PAIRS_AT_MOST).enumerate() {
            let at = PAIRS + 8 * number as u64;
            memory.write(at, &leaf.to_le_bytes());
            memory.write(at + 4, &subleaf.to_le_bytes());
        }
        Ok(memory)
    }

    /// Where it lies in this process.
    pub(super) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// What the guest has stored.
    pub(super) fn answers(&self, pairs: &[(u32, u32)]) -> Vec<CpuidEntry> {
        let number = |at: u64| u32::from_le_bytes(self.read(at));
        let pairs = pairs.iter().take(PAIRS_AT_MOST).enumerate();
        pairs
            .map(|(place, &(leaf, subleaf))| {
                let at = ANSWERS + 16 * place as u64;
                let (eax, ebx) = (number(at), number(at + 4));
                let (ecx, edx) = (number(at + 8), number(at + 12));
                CpuidEntry { leaf, subleaf, registers: Registers { eax, ebx, ecx, edx } }
            })
            .collect()
    }

    /// Writes bytes that lie within; others are left out.
    fn write(&self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        for (place, &byte) in (at..SIZE).zip(bytes) {
            // SAFETY: `place` is below SIZE, so that the byte lies in the mapping, which lives as long as `self`; it is
            // volatile because the guest reads it behind the compiler's back.
            unsafe { self.0.as_ptr().add(place).write_volatile(byte) };
        }
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        for (place, byte) in (at as usize..SIZE).zip(&mut bytes) {
            // SAFETY: as in `write`.
            *byte = unsafe { self.0.as_ptr().add(place).read_volatile() };
        }
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, of the same size, and nothing borrows from it any more.
        let _unmapped = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_jumps_where_it_should() {
        assert_eq!(PROGRAM[3] as usize + 4, PROGRAM.len() - 1, "jz leads to hlt");
        assert_eq!(34 + i32::from(PROGRAM[33] as i8), 0, "jmp leads to the start");
    }

    #[test]
    fn what_lies_in_memory_does_not_overlap() {
        let code_end = CODE + PROGRAM.len() as u64;
        assert!(code_end <= TABLES[0] && TABLES[2] + 0x1000 <= PAIRS);
        assert!(ANSWERS as usize + PAIRS_AT_MOST * 16 <= SIZE);
        let memory = Memory::new(&PROGRAM, &[(7, 1), (0xd, 2)]).unwrap();
        assert_eq!(memory.read::<8>(PAIRS + 8), [0xd, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(memory.read::<2>(CODE), [0x85, 0xed]);
        let answers = memory.answers(&[(7, 1)]);
        assert_eq!(answers, [CpuidEntry { leaf: 7, subleaf: 1, registers: Registers::default() }]);
    }
}
