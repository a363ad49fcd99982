//! How long an instruction is, in 64-bit mode.
//!
//! The bytes of CPUID, 0FH A2H, also occur inside other instructions. Where instructions begin is known from a function's
//! start on, one length after the other. Sources: Intel SDM volume 2, appendix A; AMD APM volume 3, appendix A.

/// What follows an opcode, a letter for each of 256, sixteen a line:
/// `.` nothing, `m` ModRM, `b` one byte, `w` two, `e` three (ENTER), `z` two or four, `d` four, `q` like z, eight with REX.W,
/// `a` an address, `B` ModRM and a byte, `Z` ModRM and z, `f`/`F` ModRM and, for TEST, a byte or z, `r` ModRM without memory,
/// `x` ModRM and two bytes behind 66H or F2H, `p` a prefix, `!` another map, `-` no instruction.
const ONE_BYTE: &[u8; 256] = b"\
mmmmbz--mmmmbz-!\
mmmmbz--mmmmbz--\
mmmmbzp-mmmmbzp-\
mmmmbzp-mmmmbzp-\
pppppppppppppppp\
................\
--!mppppzZbB....\
bbbbbbbbbbbbbbbb\
BZ-Bmmmmmmmmmmm!\
..........-.....\
aaaa....bz......\
bbbbbbbbqqqqqqqq\
BBw.!!BZe.w..b-.\
mmmm---.mmmmmmmm\
bbbbbbbbdd-b....\
p.pp..fF......mm";

/// The same behind 0FH.
const TWO_BYTES: &[u8; 256] = b"\
mmmm-....-.-.m.B\
mmmmmmmmmmmmmmmm\
rrrr----mmmmmmmm\
......-.!-!-----\
mmmmmmmmmmmmmmmm\
mmmmmmmmmmmmmmmm\
mmmmmmmmmmmmmmmm\
BBBBmmm.xm--mmmm\
dddddddddddddddd\
mmmmmmmmmmmmmmmm\
...mBm--...mBmmm\
mmmmmmmmmmBmmmmm\
mmBmBBBm........\
mmmmmmmmmmmmmmmm\
mmmmmmmmmmmmmmmm\
mmmmmmmmmmmmmmmm";

/// No instruction is longer (Intel SDM volume 3, 6.15).
const LONGEST: usize = 15;

/// What was read so far.
struct Code<'a> {
    bytes: &'a [u8],
    at: usize,
    /// 66H, F2H or 67H came before.
    operand_size: bool,
    repne: bool,
    address_size: bool,
    wide: bool,
}

/// The length in bytes of the instruction at the beginning of `bytes`; `None` if it is none, or is cut off.
#[must_use]
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let mut code = Code { bytes, at: 0, operand_size: false, repne: false, address_size: false, wide: false };
    code.instruction()?;
    (code.at <= LONGEST && code.at <= bytes.len()).then_some(code.at)
}

impl Code<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn instruction(&mut self) -> Option<()> {
        let mut opcode = self.next()?;
        while ONE_BYTE.get(usize::from(opcode)) == Some(&b'p') {
            match opcode {
                0x66 => self.operand_size = true,
                0x67 => self.address_size = true,
                0xf2 => self.repne = true,
                _ => {}
            }
            // REX counts only right before the opcode.
            self.wide = opcode & 0xf8 == 0x48;
            opcode = self.next()?;
        }
        match (opcode, self.bytes.get(self.at)) {
            (0x0f, _) => self.two_bytes(),
            (0x62, _) => self.evex(),
            (0xc5, _) => {
                self.next()?;
                self.vector(1)
            }
            (0xc4, Some(&byte)) => {
                self.at += 2;
                self.vector(byte & 0x1f)
            }
            // AMD's XOP shares its first byte with POP, whose ModRM has zeroes there.
            (0x8f, Some(&byte)) if byte & 0x1f >= 8 => {
                self.at += 2;
                self.vector(byte & 0x1f)
            }
            (0x8f, _) => self.operands(b'm'),
            _ => self.operands(*ONE_BYTE.get(usize::from(opcode))?),
        }
    }

    fn two_bytes(&mut self) -> Option<()> {
        match self.next()? {
            0x38 => {
                self.next()?;
                self.operands(b'm')
            }
            0x3a => {
                self.next()?;
                self.operands(b'B')
            }
            opcode => self.operands(*TWO_BYTES.get(usize::from(opcode))?),
        }
    }

    fn evex(&mut self) -> Option<()> {
        let map = self.next()? & 7;
        self.at += 2;
        self.vector(map)
    }

    /// The opcode and operands behind a VEX, EVEX or XOP prefix, by its map.
    fn vector(&mut self, map: u8) -> Option<()> {
        let opcode = self.next()?;
        match map {
            1 => match *TWO_BYTES.get(usize::from(opcode))? {
                // VZEROUPPER and VZEROALL.
                b'.' if opcode == 0x77 => Some(()),
                b'B' => self.operands(b'B'),
                _ => self.operands(b'm'),
            },
            2 | 4 | 5 | 6 | 9 => self.operands(b'm'),
            3 | 8 => self.operands(b'B'),
            7 | 10 => {
                self.operands(b'm')?;
                self.skip(4)
            }
            _ => None,
        }
    }

    fn operands(&mut self, kind: u8) -> Option<()> {
        let z = if self.operand_size && !self.wide { 2 } else { 4 };
        match kind {
            b'.' => Some(()),
            b'm' => self.modrm().map(drop),
            b'b' => self.skip(1),
            b'w' => self.skip(2),
            b'e' => self.skip(3),
            b'd' => self.skip(4),
            b'z' => self.skip(z),
            b'q' => self.skip(if self.wide { 8 } else { z }),
            b'a' => self.skip(if self.address_size { 4 } else { 8 }),
            b'r' => self.skip(1),
            b'B' | b'Z' => {
                self.modrm()?;
                self.skip(if kind == b'B' { 1 } else { z })
            }
            b'f' | b'F' => {
                let is_test = self.modrm()? < 2;
                let immediate = if kind == b'f' { 1 } else { z };
                self.skip(if is_test { immediate } else { 0 })
            }
            b'x' => {
                self.modrm()?;
                self.skip(if self.operand_size || self.repne { 2 } else { 0 })
            }
            _ => None,
        }
    }

    /// ModRM, SIB and displacement; returns the middle field.
    fn modrm(&mut self) -> Option<u8> {
        let byte = self.next()?;
        let (mode, memory) = (byte >> 6, byte & 7);
        if mode != 3 {
            let base = if memory == 4 { self.next()? & 7 } else { memory };
            self.skip(match mode {
                0 if base == 5 => 4,
                0 => 0,
                1 => 1,
                _ => 4,
            })?;
        }
        Some(byte >> 3 & 7)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len()).then_some(())
    }
}
