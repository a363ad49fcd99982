//! What touches the system: RDPID, FSGSBASE, SERIALIZE, the registers that a context switch saves, a mitigation.

mod switch;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __rdtscp};

use cpusieve_probe::affinity;
use rustix::param::linux_hwcap;
use rustix::process::{
    SpeculationFeature, SpeculationFeatureControl, SpeculationFeatureState, control_speculative_feature,
    speculative_feature_state,
};

use crate::work::{Kernel, Pair, Refused, Side, Unit, Way, Work, Wrong, noise_bytes};

/// How often one run does it.
const TIMES: usize = 64;
const EACH: (Unit, u64) = (Unit::Operations("times"), TIMES as u64);

/// The bit of AT_HWCAP2 with which the kernel says that it allows FSGSBASE (`HWCAP2_FSGSBASE`).
const ALLOWS_FSGSBASE: usize = 2;

const fn work(
    (id, feature, title): (&'static str, &'static str, &'static str),
    with: Way,
    without: Way,
    (unit, amount): (Unit, u64),
    make: unsafe fn() -> Result<Box<dyn Pair>, Refused>,
) -> Work {
    Work { id, feature, title, with, without, unit, amount, make }
}

pub(super) const WORKS: &[Work] = &[
    work(
        ("cpu-number", "rdpid", "the number of the CPU"),
        Way { name: "RDPID", needs: &["rdpid"] },
        Way { name: "RDTSCP", needs: &["rdtscp"] },
        EACH,
        || Kernel::boxed(Answer::default, number_rdpid, number_rdtscp, Answer::is_a_cpu, |_| true),
    ),
    work(
        ("thread-pointer", "fsgsbase", "the thread's FS base"),
        Way { name: "RDFSBASE", needs: &["fsgsbase"] },
        Way { name: "the system call arch_prctl", needs: &[] },
        EACH,
        || match linux_hwcap().1 & ALLOWS_FSGSBASE {
            0 => Err(Refused("the kernel does not allow FSGSBASE")),
            _ => Kernel::boxed(Answer::default, base_read, base_asked, Answer::number, |_| thread_pointer()),
        },
    ),
    work(
        ("serialize", "serialize", "execution serialised"),
        Way { name: "SERIALIZE", needs: &["serialize"] },
        Way { name: "CPUID", needs: &[] },
        EACH,
        || Kernel::boxed(Answer::default, serialize_new, serialize_cpuid, Answer::number, |_| TIMES as u64),
    ),
    work(
        ("store-bypass", "ssbd", "histogram, store bypass off"),
        Way { name: "prctl: loads wait for all stores", needs: &[] },
        Way { name: "loads pass stores", needs: &[] },
        (Unit::Bytes, Histogram::BYTES as u64),
        Histogram::boxed,
    ),
    work(
        ("switch-avx512", "avx512f", "context switch, AVX-512 in use"),
        Way { name: "ZMM0 to ZMM15 not zero", needs: &["avx512f"] },
        Way { name: "VZEROUPPER before", needs: &["avx"] },
        (Unit::Operations("switches"), 2),
        switch::boxed,
    ),
];

/// What was found.
#[derive(Default)]
struct Answer {
    number: u64,
}

impl Answer {
    fn number(&self) -> u64 {
        self.number
    }

    /// Linux keeps the CPU's number in the low twelve bits of `TSC_AUX`, and the node's above.
    fn is_a_cpu(&self) -> bool {
        affinity::online().is_ok_and(|cpus| cpus.iter().any(|cpu| u64::from(*cpu) == self.number & 0xfff))
    }
}

fn number_rdpid(answer: &mut Answer) {
    for _ in 0..TIMES {
        // SAFETY: reads a number into a register; the ways that come here need RDPID.
        unsafe { asm!("rdpid {number}", number = out(reg) answer.number, options(nomem, nostack, preserves_flags)) };
    }
}

fn number_rdtscp(answer: &mut Answer) {
    for _ in 0..TIMES {
        let mut number = 0;
        // SAFETY: reads the counter and a number; the ways that come here need RDTSCP.
        unsafe { __rdtscp(&raw mut number) };
        answer.number = u64::from(number);
    }
}

/// The first word of a thread's control block, which the ABI for thread-local storage makes a pointer to itself.
fn thread_pointer() -> u64 {
    let pointer;
    // SAFETY: FS points to the control block in every thread.
    unsafe { asm!("mov {pointer}, fs:[0]", pointer = out(reg) pointer, options(nostack, readonly, preserves_flags)) };
    pointer
}

fn base_read(answer: &mut Answer) {
    for _ in 0..TIMES {
        // SAFETY: reads a base into a register; the kernel has said that it allows the instruction.
        unsafe { asm!("rdfsbase {base}", base = out(reg) answer.number, options(nomem, nostack, preserves_flags)) };
    }
}

fn base_asked(answer: &mut Answer) {
    for _ in 0..TIMES {
        // SAFETY: arch_prctl (158) with ARCH_GET_FS (1003H) writes eight bytes to the address that it is given.
        unsafe {
            asm!(
                "syscall",
                inout("rax") 158_u64 => _,
                in("rdi") 0x1003_u64,
                in("rsi") &raw mut answer.number,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
    }
}

fn serialize_new(answer: &mut Answer) {
    answer.number = 0;
    for _ in 0..TIMES {
        // SAFETY: SERIALIZE (0F 01 E8) changes no register and no memory; the ways that come here need it.
        unsafe { asm!(".byte 0x0f, 0x01, 0xe8", options(nostack, preserves_flags)) };
        answer.number += 1;
    }
}

fn serialize_cpuid(answer: &mut Answer) {
    answer.number = 0;
    for _ in 0..TIMES {
        std::hint::black_box(__cpuid(0));
        answer.number += 1;
    }
}

/// Bytes counted: each addition stores where the next but one may load.
struct Histogram {
    bytes: Vec<u8>,
    counts: [u32; 256],
}

impl Histogram {
    const BYTES: usize = 16 * 1024;

    fn boxed() -> Result<Box<dyn Pair>, Refused> {
        let state = speculative_feature_state(SpeculationFeature::SpeculativeStoreBypass).ok().flatten();
        match state {
            Some(state) if state.contains(SpeculationFeatureState::PRCTL | SpeculationFeatureState::ENABLE) => {
                Ok(Box::new(Self { bytes: noise_bytes(21, Self::BYTES), counts: [0; 256] }))
            }
            Some(state) if state.contains(SpeculationFeatureState::PRCTL) => {
                Err(Refused("store bypass is disabled for this process already"))
            }
            _ => Err(Refused("the kernel lets no process choose its store bypass here")),
        }
    }

    /// A failure shows as two ways that cost the same.
    fn set(control: SpeculationFeatureControl) {
        let _ = control_speculative_feature(SpeculationFeature::SpeculativeStoreBypass, control);
    }
}

impl Pair for Histogram {
    fn check(&mut self) -> Result<(), Wrong> {
        let plain = |value: u8| self.bytes.iter().filter(|byte| **byte == value).count();
        let expected: Vec<usize> = (0..=255).map(plain).collect();
        self.counts = [0; 256];
        self.run(Side::With);
        let right = self.counts.iter().zip(expected).all(|(count, expected)| *count as usize == expected);
        Wrong::unless(right, "the histogram")
    }

    fn run(&mut self, _side: Side) {
        for &byte in &self.bytes {
            let count = &mut self.counts[usize::from(byte)];
            *count = count.wrapping_add(1);
        }
        std::hint::black_box(&mut self.counts);
    }

    fn enter(&mut self, side: Side) {
        if side == Side::With {
            Self::set(SpeculationFeatureControl::DISABLE);
        }
    }

    fn leave(&mut self, side: Side) {
        if side == Side::With {
            Self::set(SpeculationFeatureControl::ENABLE);
        }
    }
}
