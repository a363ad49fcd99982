//! Where a program file executes CPUID.
//!
//! The bytes of CPUID count only where an instruction begins for certain: on the way from the start of a function whose
//! bounds the file itself tells: the table of `.eh_frame_hdr`, or in statically linked files, which lack it, the section
//! `.eh_frame`; unwinders use them, so that stripped files keep them. Other places are returned as doubtful, and are left
//! alone.

use super::length::length;

/// The bytes of CPUID.
pub const CPUID: [u8; 2] = [0x0f, 0xa2];

/// The places of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Offsets in the file at which CPUID stands.
    pub certain: Vec<u64>,
    /// Offsets at which its bytes stand in executable parts, outside known functions or where decoding did not get.
    pub doubtful: Vec<u64>,
}

/// The most places that are looked at.
const MAX_PLACES: usize = 1 << 16;

/// The most functions of a file.
const MAX_FUNCTIONS: usize = 1 << 22;

/// The encoding of addresses as four signed bytes (DW_EH_PE_sdata4).
const SIGNED_4: u8 = 0x0b;

/// A loaded part of a file.
struct Segment {
    offset: u64,
    size: u64,
    address: u64,
    executable: bool,
}

/// A file's bytes, and where they are loaded.
struct Image<'a> {
    bytes: &'a [u8],
    segments: Vec<Segment>,
}

/// Finds the CPUID instructions of an ELF file for x86-64; nothing in any other file.
#[must_use]
pub fn places(bytes: &[u8]) -> Places {
    let mut places = Places::default();
    let Some((image, unwind)) = Image::of(bytes) else { return places };
    let functions = unwind.map(|address| image.functions(address)).filter(|functions| !functions.is_empty());
    let functions = functions.or_else(|| image.functions_of_section()).unwrap_or_default();
    for segment in image.segments.iter().filter(|segment| segment.executable) {
        let code = image.slice(segment.offset, segment.size);
        let found = code.windows(CPUID.len()).enumerate().filter(|(_, window)| *window == CPUID);
        for (at, _) in found.take(MAX_PLACES) {
            let at = at as u64;
            match image.is_instruction(&functions, segment.address + at) {
                Some(true) => places.certain.push(segment.offset + at),
                Some(false) => {}
                None => places.doubtful.push(segment.offset + at),
            }
        }
    }
    places
}

impl<'a> Image<'a> {
    /// The segments, and the address of the table of functions.
    fn of(bytes: &'a [u8]) -> Option<(Self, Option<u64>)> {
        const X86_64: u16 = 62;
        let is_elf = bytes.starts_with(b"\x7fELF\x02\x01");
        if !is_elf || u16(bytes, 18)? != X86_64 {
            return None;
        }
        let (table, size, count) = (u64(bytes, 32)?, u64::from(u16(bytes, 54)?), u64::from(u16(bytes, 56)?));
        let mut image = Self { bytes, segments: Vec::new() };
        let mut unwind = None;
        for n in 0..count {
            let header = usize::try_from(table.checked_add(n.checked_mul(size)?)?).ok()?;
            let field = |at| header.checked_add(at);
            let (kind, flags) = (u32(bytes, header)?, u32(bytes, field(4)?)?);
            let (offset, address) = (u64(bytes, field(8)?)?, u64(bytes, field(16)?)?);
            match kind {
                // PT_LOAD; PF_X
                1 => image.segments.push(Segment {
                    offset,
                    size: u64(bytes, field(32)?)?,
                    address,
                    executable: flags & 1 == 1,
                }),
                // PT_GNU_EH_FRAME
                0x6474_e550 => unwind = Some(address),
                _ => {}
            }
        }
        image.segments.sort_by_key(|segment| segment.address);
        // Addresses that run over are no program's.
        let sane = |segment: &Segment| segment.address.checked_add(segment.size).is_some();
        image.segments.iter().all(sane).then_some((image, unwind))
    }

    fn slice(&self, offset: u64, size: u64) -> &'a [u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = usize::try_from(offset.saturating_add(size)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The bytes from an address to the end of its segment.
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        let segment = self.segments.iter().find(|s| (s.address..s.address + s.size).contains(&address))?;
        let skip = address - segment.address;
        Some(self.slice(segment.offset + skip, segment.size - skip))
    }

    /// The functions' addresses and sizes, ascending, by the sorted table behind `.eh_frame_hdr` (Linux Standard Base, core
    /// specification, 10.6). Tables of another encoding than GNU ld's and lld's are not read.
    fn functions(&self, header: u64) -> Vec<(u64, u64)> {
        const TABLE: usize = 12;
        let Some(bytes) = self.at(header).filter(|bytes| bytes.starts_with(&[1, 0x1b, 0x03, 0x3b])) else {
            return Vec::new();
        };
        let count = u32(bytes, 8).unwrap_or(0) as usize;
        let entries = bytes.get(TABLE..).unwrap_or_default().chunks_exact(8).take(count);
        let function = |entry: &[u8]| {
            let relative = |at| Some(header.wrapping_add_signed(i64::from(u32(entry, at)?.cast_signed())));
            Some((relative(0)?, self.size_of(relative(4)?)?))
        };
        let mut functions: Vec<_> = entries.filter_map(function).collect();
        functions.sort_unstable();
        functions
    }

    /// The size of the function that an entry of `.eh_frame` describes.
    fn size_of(&self, entry: u64) -> Option<u64> {
        let bytes = self.at(entry)?;
        let common = self.at(entry.checked_add(4)?.checked_sub(u64::from(u32(bytes, 4)?))?)?;
        // Where addresses have four bytes, so has the size.
        let encoding = pointer_encoding(common)?;
        (encoding & 0x0f == SIGNED_4).then(|| u32(bytes, 12).map(u64::from)).flatten()
    }

    /// The same functions by the section `.eh_frame`, one entry after the other.
    fn functions_of_section(&self) -> Option<Vec<(u64, u64)>> {
        let (address, size) = self.section(b".eh_frame")?;
        let bytes = self.at(address)?;
        let (mut functions, mut at) = (Vec::new(), 0);
        while at + 4 <= usize::try_from(size).unwrap_or(usize::MAX) && functions.len() < MAX_FUNCTIONS {
            // Entries of four gigabytes and more are no program's; one of no length is the last.
            let length = u32(bytes, at).filter(|length| !matches!(*length, 0 | u32::MAX))?;
            let entry = address.checked_add(at as u64)?;
            // An entry without a reference is what others refer to.
            if u32(bytes, at + 4)? != 0
                && let Some(size) = self.size_of(entry)
                && self.is_relative(entry)
            {
                let relative = i64::from(u32(bytes, at + 8)?.cast_signed());
                functions.push((entry.wrapping_add(8).wrapping_add_signed(relative), size));
            }
            at = at.checked_add(usize::try_from(length).ok()?)?.checked_add(4)?;
            if u32(bytes, at).is_none_or(|length| length == 0) {
                break;
            }
        }
        functions.sort_unstable();
        Some(functions)
    }

    /// Whether an entry's addresses are relative to themselves (DW_EH_PE_pcrel), as compilers write them.
    fn is_relative(&self, entry: u64) -> bool {
        let reference = self.at(entry).and_then(|bytes| u32(bytes, 4));
        let common = reference.and_then(|back| self.at(entry.checked_add(4)?.checked_sub(u64::from(back))?));
        common.and_then(pointer_encoding) == Some(0x10 | SIGNED_4)
    }

    /// The address and size of a section.
    fn section(&self, name: &[u8]) -> Option<(u64, u64)> {
        let (table, size) = (u64(self.bytes, 40)?, u64::from(u16(self.bytes, 58)?));
        let header = |n: u16| usize::try_from(table.checked_add(size.checked_mul(n.into())?)?).ok();
        let names = u64(self.bytes, header(u16(self.bytes, 62)?)?.checked_add(24)?)?;
        for n in 0..u16(self.bytes, 60)? {
            let at = header(n)?;
            let word = usize::try_from(names.checked_add(u32(self.bytes, at)?.into())?).ok()?;
            let text = self.bytes.get(word..)?;
            if text.starts_with(name) && text.get(name.len()) == Some(&0) {
                return Some((u64(self.bytes, at.checked_add(16)?)?, u64(self.bytes, at.checked_add(32)?)?));
            }
        }
        None
    }

    /// Whether an instruction begins at `address`; `None` if that is not known.
    fn is_instruction(&self, functions: &[(u64, u64)], address: u64) -> Option<bool> {
        let after = functions.partition_point(|(start, _)| *start <= address);
        let &(start, size) = functions.get(after.checked_sub(1)?)?;
        if address - start >= size {
            return None;
        }
        let code = self.at(start)?;
        let wanted = usize::try_from(address - start).ok()?;
        let mut at = 0;
        while at < wanted {
            at += length(code.get(at..)?)?;
        }
        Some(at == wanted)
    }
}

/// The encoding of addresses of a common information entry (`R` in its augmentation); `None` if it says none.
fn pointer_encoding(entry: &[u8]) -> Option<u8> {
    let text = entry.get(9..)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    let (augmentation, rest) = text.split_at_checked(end)?;
    let mut rest = rest.get(1..)?;
    // Code alignment, data alignment, return address register, length of what follows: four LEB128 numbers.
    for _ in 0..4 {
        let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
        rest = rest.get(end + 1..)?;
    }
    for letter in augmentation.strip_prefix(b"z")? {
        match letter {
            b'R' => return rest.first().copied(),
            b'L' => rest = rest.get(1..)?,
            // A pointer to the personality routine, of four bytes, or of eight if it is absolute.
            b'P' => rest = rest.get(if rest.first()? & 0x0f == 0 { 9 } else { 5 }..)?,
            b'S' | b'B' => {}
            _ => return None,
        }
    }
    None
}

fn u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
