//! A custom CPU template of Firecracker.
//!
//! Firecracker has no models and no policy: it hands on what KVM offers, and a template sets and clears bits of that. So
//! a template is made of the wishes themselves, and can do less than QEMU's command line: it cannot replace the kernel.

use std::collections::BTreeMap;

use cpusieve_answers::want::{Wish, bits};
use cpusieve_model::{CpuidBit, Place, Register, has_subleaves};
use serde_json::{Value, json};

use super::paste::{Paste, Target};

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: the subleaf counts.
const SUBLEAF_COUNTS: u32 = 1;

const NOTE: &str =
    "Firecracker itself sets some bits after the template (topology, caches, the hypervisor bit); it was not asked";

/// What a template changes: registers of CPUID and MSRs, each bit by its value.
#[derive(Default)]
struct Template {
    cpuid: BTreeMap<(u32, u32), BTreeMap<Register, BTreeMap<u8, bool>>>,
    msrs: BTreeMap<u32, BTreeMap<u8, bool>>,
}

/// The template that grants the wishes, as far as a template can.
pub(super) fn template(target: &Target<'_>) -> Paste {
    let mut template = Template::default();
    let mut beyond = Vec::new();
    for &wish in target.wishes {
        if let Err(why) = template.grant(target, wish) {
            beyond.push(format!("{}: {why}", wish.feature.id));
        }
    }
    let impossible = !beyond.is_empty();
    Paste { text: crate::json::pretty(&template.value()), beyond, note: Some(NOTE), impossible }
}

impl Template {
    fn grant(&mut self, target: &Target<'_>, wish: Wish) -> Result<(), &'static str> {
        let places = bits(wish.feature, target.start.guest.tree, target.vendor);
        if places.is_empty() {
            return Err("the guest's kernel makes the flag up; no bit of CPUID or of an MSR decides it");
        }
        let offered = target.start.vcpu.kvm.as_ref().and_then(|kvm| kvm.view.supported_table());
        let offers = |bit: CpuidBit| {
            let registers = offered.as_ref().and_then(|table| table.get(bit.leaf, bit.subleaf));
            registers.is_some_and(|registers| registers.get(bit.register) >> bit.bit & 1 == 1)
        };
        // A feature that is mirrored is had where KVM offers it, and lost where all mirrors are clear.
        let cpuid: Vec<CpuidBit> = places.iter().filter_map(|place| place.cpuid()).collect();
        let chosen = |bit: &&CpuidBit| !wish.present || offers(**bit);
        if wish.present && !cpuid.is_empty() && !cpuid.iter().any(|&bit| offers(bit)) {
            return Err("this host's KVM does not offer it; a template would show a bit with nothing behind it");
        }
        for bit in cpuid.iter().filter(chosen) {
            let registers = self.cpuid.entry((bit.leaf, bit.subleaf)).or_default();
            registers.entry(bit.register).or_default().insert(bit.bit, wish.present);
        }
        for place in &places {
            if let Place::Msr(bit) = place {
                self.msrs.entry(bit.index).or_default().insert(bit.bit, wish.present);
            }
        }
        Ok(())
    }

    fn value(&self) -> Value {
        let cpuid = self.cpuid.iter().map(|(&(leaf, subleaf), registers)| {
            let modifiers = registers.iter().map(
                |(register, bits)| json!({"register": register.to_string().to_lowercase(), "bitmap": bitmap(bits, 32)}),
            );
            json!({
                "leaf": format!("{leaf:#x}"),
                "subleaf": format!("{subleaf:#x}"),
                "flags": if has_subleaves(leaf) { SUBLEAF_COUNTS } else { 0 },
                "modifiers": modifiers.collect::<Vec<_>>(),
            })
        });
        let msrs =
            self.msrs.iter().map(|(index, bits)| json!({"addr": format!("{index:#x}"), "bitmap": bitmap(bits, 64)}));
        json!({"cpuid_modifiers": cpuid.collect::<Vec<_>>(), "msr_modifiers": msrs.collect::<Vec<_>>()})
    }
}

/// Bits from the highest to the lowest; `x` leaves one as it is.
fn bitmap(bits: &BTreeMap<u8, bool>, width: u8) -> String {
    let digit = |position| match bits.get(&position) {
        Some(true) => '1',
        Some(false) => '0',
        None => 'x',
    };
    format!("0b{}", (0..width).rev().map(digit).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_written_from_the_highest_down() {
        let bits = BTreeMap::from([(0, true), (30, false)]);
        assert_eq!(bitmap(&bits, 32), "0bx0xxxxxxxxxxxxxxxxxxxxxxxxxxxxx1");
    }
}
