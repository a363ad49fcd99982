//! Multiplication of numbers of 2048 bits, the heart of RSA and Diffie-Hellman: MULX and ADX.

use std::arch::asm;

use crate::work::{Kernel, Unit, Way, Work, noise};

/// Words of a number.
const WORDS: usize = 32;

/// Words that are done between two stops.
const BLOCK: usize = 8;

const MULX: Way = Way { name: "MULX", needs: &["bmi2"] };

const fn work(id: &'static str, feature: &'static str, with: Way, without: Way) -> Work {
    Work {
        id,
        feature,
        title: "2048-bit multiplication",
        with,
        without,
        unit: Unit::Operations("multiplications"),
        amount: 1,
        make: || Kernel::boxed(Factors::new, multiply_mulx, multiply_mul, Factors::product, Factors::reference),
    }
}

pub(super) const WORKS: &[Work] = &[
    work("big-multiply-mulx", "bmi2", MULX, Way { name: "MUL", needs: &[] }),
    Work {
        make: || Kernel::boxed(Factors::new, multiply_adx, multiply_mulx, Factors::product, Factors::reference),
        ..work("big-multiply-adx", "adx", Way { name: "MULX, ADCX and ADOX", needs: &["adx", "bmi2"] }, MULX)
    },
];

struct Factors {
    a: [u64; WORDS],
    b: [u64; WORDS],
    product: [u64; 2 * WORDS],
}

impl Factors {
    fn new() -> Self {
        let mut numbers = noise(5);
        let mut number = || std::array::from_fn(|_| numbers.next().unwrap_or_default());
        Self { a: number(), b: number(), product: [0; 2 * WORDS] }
    }

    fn product(&self) -> [u64; 2 * WORDS] {
        self.product
    }

    /// In digits of 32 bits, column by column.
    fn reference(&self) -> [u64; 2 * WORDS] {
        let digits = |number: &[u64]| -> Vec<u128> {
            number.iter().flat_map(|word| [u128::from(*word as u32), u128::from(word >> 32)]).collect()
        };
        let (a, b) = (digits(&self.a), digits(&self.b));
        let mut carry = 0;
        let mut product = [0; 2 * WORDS];
        for column in 0..4 * WORDS {
            let pairs = (0..=column).filter_map(|place| Some(a.get(place)? * b.get(column - place)?));
            let sum = carry + pairs.sum::<u128>();
            product[column / 2] |= u64::from(sum as u32) << (32 * (column % 2));
            carry = sum >> 32;
        }
        product
    }
}

/// Adds `a` times one word to the sums; returns what is carried out.
#[inline(always)]
fn add_row(sums: &mut [u64], a: &[u64; WORDS], word: u64) -> u64 {
    let mut carry = 0;
    for (sum, a) in sums.iter_mut().zip(a) {
        // Never overflows: (2^64 - 1)^2 + 2 (2^64 - 1) = 2^128 - 1.
        let value = u128::from(*a) * u128::from(word) + u128::from(*sum) + u128::from(carry);
        *sum = value as u64;
        carry = (value >> 64) as u64;
    }
    carry
}

#[inline(always)]
fn multiply(factors: &mut Factors) {
    factors.product = [0; 2 * WORDS];
    for (place, &word) in factors.b.iter().enumerate() {
        let (_, sums) = factors.product.split_at_mut(place);
        let carry = add_row(sums, &factors.a, word);
        if let Some(next) = sums.get_mut(WORDS) {
            *next = carry;
        }
    }
}

/// Row by row in blocks, each of which gets a carry and gives one.
#[inline(always)]
fn multiply_in_blocks(factors: &mut Factors, add_block: impl Fn(&mut [u64; BLOCK], &[u64; BLOCK], u64, u64) -> u64) {
    factors.product = [0; 2 * WORDS];
    let a = factors.a.as_chunks::<BLOCK>().0;
    for (place, &word) in factors.b.iter().enumerate() {
        let (_, sums) = factors.product.split_at_mut(place);
        let Some((sums, rest)) = sums.split_at_mut_checked(WORDS) else { continue };
        let mut carry = 0;
        for (sums, a) in sums.as_chunks_mut::<BLOCK>().0.iter_mut().zip(a) {
            carry = add_block(sums, a, word, carry);
        }
        if let Some(next) = rest.first_mut() {
            *next = carry;
        }
    }
}

fn multiply_mul(factors: &mut Factors) {
    multiply(factors);
}

/// MULX leaves the flags alone, so that the high halves are added in one chain of carries, and the sums in another one
/// afterwards.
#[target_feature(enable = "bmi2")]
fn multiply_mulx(factors: &mut Factors) {
    multiply_in_blocks(factors, |sums, a, word, carry| {
        let mut high = carry;
        // SAFETY: reads and writes the eight words of each array and registers that are declared; the ways that come here
        // need BMI2.
        unsafe {
            asm!(
                "mulx {other}, {t0}, [{a}]",
                "add {t0}, {high}",
                "mulx {high}, {t1}, [{a} + 8]",
                "adc {t1}, {other}",
                "mulx {other}, {t2}, [{a} + 16]",
                "adc {t2}, {high}",
                "mulx {high}, {t3}, [{a} + 24]",
                "adc {t3}, {other}",
                "mulx {other}, {t4}, [{a} + 32]",
                "adc {t4}, {high}",
                "mulx {high}, {t5}, [{a} + 40]",
                "adc {t5}, {other}",
                "mulx {other}, {t6}, [{a} + 48]",
                "adc {t6}, {high}",
                "mulx {high}, {t7}, [{a} + 56]",
                "adc {t7}, {other}",
                "adc {high}, 0",
                "add [{sums}], {t0}",
                "adc [{sums} + 8], {t1}",
                "adc [{sums} + 16], {t2}",
                "adc [{sums} + 24], {t3}",
                "adc [{sums} + 32], {t4}",
                "adc [{sums} + 40], {t5}",
                "adc [{sums} + 48], {t6}",
                "adc [{sums} + 56], {t7}",
                "adc {high}, 0",
                t0 = out(reg) _,
                t1 = out(reg) _,
                t2 = out(reg) _,
                t3 = out(reg) _,
                t4 = out(reg) _,
                t5 = out(reg) _,
                t6 = out(reg) _,
                t7 = out(reg) _,
                other = out(reg) _,
                high = inout(reg) high,
                a = in(reg) a.as_ptr(),
                sums = in(reg) sums.as_mut_ptr(),
                in("rdx") word,
                options(nostack),
            );
        }
        high
    });
}

/// One block of a row with two chains of carries: ADCX adds the high halves, ADOX the sums.
#[inline]
#[target_feature(enable = "adx,bmi2")]
fn add_block(sums: &mut [u64; BLOCK], a: &[u64; BLOCK], word: u64, carry: u64) -> u64 {
    let mut high = carry;
    // SAFETY: reads and writes the eight words of each array and registers that are declared; the ways that come here
    // need ADX and BMI2.
    unsafe {
        asm!(
            "xor {zero:e}, {zero:e}",
            "mulx {other}, {low}, [{a}]",
            "adcx {low}, {high}",
            "adox {low}, [{sums}]",
            "mov [{sums}], {low}",
            "mulx {high}, {low}, [{a} + 8]",
            "adcx {low}, {other}",
            "adox {low}, [{sums} + 8]",
            "mov [{sums} + 8], {low}",
            "mulx {other}, {low}, [{a} + 16]",
            "adcx {low}, {high}",
            "adox {low}, [{sums} + 16]",
            "mov [{sums} + 16], {low}",
            "mulx {high}, {low}, [{a} + 24]",
            "adcx {low}, {other}",
            "adox {low}, [{sums} + 24]",
            "mov [{sums} + 24], {low}",
            "mulx {other}, {low}, [{a} + 32]",
            "adcx {low}, {high}",
            "adox {low}, [{sums} + 32]",
            "mov [{sums} + 32], {low}",
            "mulx {high}, {low}, [{a} + 40]",
            "adcx {low}, {other}",
            "adox {low}, [{sums} + 40]",
            "mov [{sums} + 40], {low}",
            "mulx {other}, {low}, [{a} + 48]",
            "adcx {low}, {high}",
            "adox {low}, [{sums} + 48]",
            "mov [{sums} + 48], {low}",
            "mulx {high}, {low}, [{a} + 56]",
            "adcx {low}, {other}",
            "adox {low}, [{sums} + 56]",
            "mov [{sums} + 56], {low}",
            "adcx {high}, {zero}",
            "adox {high}, {zero}",
            zero = out(reg) _,
            low = out(reg) _,
            other = out(reg) _,
            high = inout(reg) high,
            a = in(reg) a.as_ptr(),
            sums = in(reg) sums.as_mut_ptr(),
            in("rdx") word,
            options(nostack),
        );
    }
    high
}

#[target_feature(enable = "adx,bmi2")]
fn multiply_adx(factors: &mut Factors) {
    multiply_in_blocks(factors, |sums, a, word, carry| add_block(sums, a, word, carry));
}
