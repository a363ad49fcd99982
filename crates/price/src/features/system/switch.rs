//! A context switch with vector registers in use and without.
//!
//! Two threads on one CPU hand a byte to and fro, so that each byte is a switch. The kernel saves what is in use alone:
//! after VZEROUPPER the upper parts of ZMM0 to ZMM15 are not.

use std::arch::asm;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::thread;

use crate::work::{Pair, Refused, Side, Wrong};

struct Switch {
    there: PipeWriter,
    back: PipeReader,
    received: u8,
}

/// Makes the other thread, which ends when this one's pipe is closed.
pub(super) fn boxed() -> Result<Box<dyn Pair>, Refused> {
    let refused = |_| Refused("no pipe could be made");
    let (mut from_there, there) = pipe().map_err(refused)?;
    let (back, mut to_here) = pipe().map_err(refused)?;
    let answer = move || {
        let mut byte = [0];
        while let Ok(1) = from_there.read(&mut byte) {
            prepare(if byte[0] & 1 == 1 { Side::With } else { Side::Without });
            if to_here.write(&byte).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().spawn(answer).map_err(|_| Refused("no second thread could be made"))?;
    Ok(Box::new(Switch { there, back, received: 0 }))
}

/// Puts something into the registers, or takes it out.
fn prepare(side: Side) {
    // SAFETY: the works that come here need AVX-512.
    unsafe {
        match side {
            Side::With => fill(),
            Side::Without => empty(),
        }
    }
}

#[target_feature(enable = "avx512f")]
fn fill() {
    // SAFETY: writes registers that are declared.
    unsafe {
        asm!(
            "vpternlogd zmm0, zmm0, zmm0, 255",
            "vmovdqa64 zmm1, zmm0",
            "vmovdqa64 zmm7, zmm0",
            "vmovdqa64 zmm15, zmm0",
            out("zmm0") _, out("zmm1") _, out("zmm7") _, out("zmm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

#[target_feature(enable = "avx512f")]
fn empty() {
    // SAFETY: writes the upper parts of registers whose lower parts stay; all sixteen are declared.
    unsafe {
        asm!(
            "vzeroupper",
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

impl Pair for Switch {
    fn check(&mut self) -> Result<(), Wrong> {
        for (side, sent) in [(Side::With, 1), (Side::Without, 2)] {
            self.run(side);
            Wrong::unless(self.received == sent, "the other thread")?;
        }
        Ok(())
    }

    fn run(&mut self, side: Side) {
        let byte = if side == Side::With { 1 } else { 2 };
        prepare(side);
        let mut received = [0];
        // A failure shows in `check`: nothing is received then.
        self.received = match self.there.write(&[byte]).and_then(|_| self.back.read(&mut received)) {
            Ok(1) => received[0],
            _ => 0,
        };
    }

    fn leave(&mut self, _side: Side) {
        // What is left in the upper halves slows down SSE instructions, whoever executes them next.
        prepare(Side::Without);
    }

    fn waits(&self) -> bool {
        true
    }
}
