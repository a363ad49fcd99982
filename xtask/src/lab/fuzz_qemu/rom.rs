//! The guest: firmware of one segment that executes CPUID in real mode, writes every answer to port E9H, and ends QEMU.

use cpusieve_model::Registers;

/// The ports of `isa-debugcon` and `isa-debug-exit`.
pub(super) const PORTS: [u16; 2] = [0xe9, 0xf4];

/// Leaves that are asked for: first, last, and the last subleaf of each. In 11.1 a guest that asks leaf 1FH for a subleaf
/// above 5 ends QEMU (`encode_topo_cpuid1f`), and leaves above the limit are answered with those of another one.
const RANGES: [(u32, u32, u32); 10] = [
    (0x0, 0x6, 5),
    (0x7, 0xc, 4),
    (0xd, 0xd, 21),
    (0xe, 0x1e, 3),
    (0x1f, 0x2a, 5),
    (0x4000_0000, 0x4000_0010, 0),
    (0x4000_0100, 0x4000_0101, 0),
    (0x8000_0000, 0x8000_001c, 0),
    (0x8000_001d, 0x8000_0028, 4),
    (0xc000_0000, 0xc000_0005, 0),
];

/// Where the program lies in its segment, and where the table of ranges.
const PROGRAM: usize = 0xf000;
const TABLE: usize = 0xf100;
const RESET: usize = 0xfff0;
const SEGMENT: usize = 0x1_0000;

/// The program, for 16 bits.
#[rustfmt::skip]
const CODE: [u8; 0x81] = [
    0xfc,                               //        cld
    0x31, 0xc0,                         //        xor ax, ax
    0x8e, 0xd0,                         //        mov ss, ax
    0x8e, 0xd8,                         //        mov ds, ax
    0xbc, 0x00, 0x70,                   //        mov sp, 0x7000
    0xbd, 0x00, 0xf1,                   //        mov bp, TABLE
    0x2e, 0x66, 0x8b, 0x7e, 0x00,       // range: mov edi, cs:[bp]          the leaf
    0x2e, 0x66, 0x8b, 0x46, 0x04,       //        mov eax, cs:[bp + 4]
    0x66, 0xa3, 0x00, 0x06,             //        mov [0x600], eax          the last leaf
    0x2e, 0x66, 0x8b, 0x46, 0x08,       //        mov eax, cs:[bp + 8]
    0x66, 0xa3, 0x04, 0x06,             //        mov [0x604], eax          the last subleaf
    0x83, 0xc5, 0x0c,                   //        add bp, 12
    0x66, 0x83, 0xf8, 0xff,             //        cmp eax, -1
    0x74, 0x4a,                         //        je done
    0x66, 0x31, 0xc0,                   // leaf:  xor eax, eax
    0x66, 0xa3, 0x08, 0x06,             //        mov [0x608], eax          the subleaf
    0x66, 0x89, 0xf8,                   // next:  mov eax, edi
    0x66, 0x8b, 0x0e, 0x08, 0x06,       //        mov ecx, [0x608]
    0x0f, 0xa2,                         //        cpuid
    0x66, 0xa3, 0x10, 0x06,             //        mov [0x610], eax
    0x66, 0x89, 0x1e, 0x14, 0x06,       //        mov [0x614], ebx
    0x66, 0x89, 0x0e, 0x18, 0x06,       //        mov [0x618], ecx
    0x66, 0x89, 0x16, 0x1c, 0x06,       //        mov [0x61c], edx
    0xbe, 0x10, 0x06,                   //        mov si, 0x610
    0xb9, 0x10, 0x00,                   //        mov cx, 16
    0xba, 0xe9, 0x00,                   //        mov dx, 0xe9
    0xf3, 0x6e,                         //        rep outsb
    0x66, 0xa1, 0x08, 0x06,             //        mov eax, [0x608]
    0x66, 0xff, 0x06, 0x08, 0x06,       //        inc dword [0x608]
    0x66, 0x3b, 0x06, 0x04, 0x06,       //        cmp eax, [0x604]
    0x75, 0xc8,                         //        jne next
    0x66, 0x3b, 0x3e, 0x00, 0x06,       //        cmp edi, [0x600]
    0x74, 0x9a,                         //        je range
    0x66, 0x47,                         //        inc edi
    0xeb, 0xb6,                         //        jmp leaf
    0xba, 0xf4, 0x00,                   // done:  mov dx, 0xf4
    0x31, 0xc0,                         //        xor ax, ax
    0xee,                               //        out dx, al
    0xfa,                               // halt:  cli
    0xf4,                               //        hlt
    0xeb, 0xfc,                         //        jmp halt
];

/// A jump back from the reset vector, relative to the instruction's end.
const JUMP: [u8; 3] = [0xe9, 0x0d, 0xf0];

/// The file for `-bios`.
pub(super) fn image() -> Vec<u8> {
    let mut image = vec![0; SEGMENT];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(room) = image.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    };
    put(PROGRAM, &CODE);
    let rows = RANGES.iter().copied().chain([(0, 0, u32::MAX)]);
    let table: Vec<u8> =
        rows.flat_map(|(first, last, subleaf)| [first, last, subleaf]).flat_map(u32::to_le_bytes).collect();
    put(TABLE, &table);
    put(RESET, &JUMP);
    image
}

/// Leaf and subleaf of every answer, in their order.
pub(super) fn asked() -> impl Iterator<Item = (u32, u32)> {
    let leaves = RANGES.iter().flat_map(|&(first, last, subleaf)| (first..=last).map(move |leaf| (leaf, subleaf)));
    leaves.flat_map(|(leaf, last)| (0..=last).map(move |subleaf| (leaf, subleaf)))
}

/// The answers that the guest wrote; `None` if it did not come to its end.
pub(super) fn answers(written: &[u8]) -> Option<Vec<((u32, u32), Registers)>> {
    let answer = |bytes: &[u8]| {
        let register = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        Some(Registers { eax: register(0)?, ebx: register(4)?, ecx: register(8)?, edx: register(12)? })
    };
    let answers: Vec<_> = asked().zip(written.chunks_exact(16).filter_map(answer)).collect();
    (answers.len() == asked().count() && written.len() == answers.len() * 16).then_some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_jumps_to_its_program() {
        let image = image();
        assert_eq!(image.len(), SEGMENT);
        let offset = usize::from(u16::from_le_bytes([image[RESET + 1], image[RESET + 2]]));
        assert_eq!((RESET + JUMP.len() + offset) % SEGMENT, PROGRAM);
        assert!(PROGRAM + CODE.len() <= TABLE && TABLE + (RANGES.len() + 1) * 12 <= RESET);
    }

    #[test]
    fn answers_are_all_there_or_none() {
        let written = vec![1; asked().count() * 16];
        assert_eq!(answers(&written).unwrap().len(), asked().count());
        assert!(answers(&written[16..]).is_none() && answers(&[]).is_none());
    }
}
