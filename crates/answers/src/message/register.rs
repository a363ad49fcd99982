//! Messages about whole registers: MSRs that are refused, leaves that do not fit.

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{self, At, Found, Spot};
use cpusieve_knowledge::x86;
use cpusieve_model::{CpuidBit, MsrBit, Place, Register};

use super::feature::{self, Subject};
use super::loss::Loss;
use super::scene::{Scene, hexadecimal};

/// Names of bits that are decoded at most.
const MAX_NAMES: usize = 16;

/// An MSR that was refused (by the VMM's or KVM's word), or that a guest touched in vain.
pub(super) fn msr(loss: &mut Loss, paste: &Paste, scene: &Scene, found: &Found) {
    let numbers = numbers(paste, found);
    let Some(index) = numbers.first().and_then(|&index| u32::try_from(index).ok()) else { return };
    let by_guest = matches!(found.message.id, "MSG0304" | "MSG0305");
    loss.spots.push(Spot::Msr { index, bits: None });
    let Some(row) = messages::msr(index) else {
        loss.why.push(format!("Which feature MSR {index:#x} belongs to is unknown here."));
        loss.remedies
            .push("run the guest with a CPU model instead of host, or a newer host kernel and QEMU".to_owned());
        return;
    };
    loss.why.push(format!("MSR {index:#x} is {}: {}.", row.name, row.what));
    // A log of KVM shows that somebody asked; it does not show that a feature is missing.
    if found.message.id != "MSG0305" {
        loss.subjects.extend(row.features.iter().filter_map(|id| x86::feature(id)).map(Subject::of));
        loss.spots.extend(row.bits);
    }
    if by_guest {
        loss.why.push(row.guest.to_owned());
        if found.message.id == "MSG0304" {
            loss.remedies.push("harmless for the guest: nothing has to be done; to silence it take the feature from the vCPU or update the host kernel".to_owned());
        }
        return;
    }
    if let Some(value) = numbers.get(1).filter(|_| index == 0x10a) {
        loss.why.push(format!("The value {value:#x} has {}.", bits_of(index, *value)));
    }
    loss.why.push(row.refused.to_owned());
    loss.remedies.push(row.remedy.to_owned());
    loss.cpu = row.cpu.map(str::to_owned);
    loss.cite = row.cite.or(loss.cite);
    if row.features.is_empty() && (scene.is("tdx") || scene.is("sev")) {
        loss.stage = At::Qemu;
        let kind = if scene.is("tdx") { "TDX" } else { "SEV" };
        loss.why.push(format!("Here it is a {kind} guest."));
    }
}

/// The hexadecimal numbers that a pattern took.
fn numbers(paste: &Paste, found: &Found) -> Vec<u64> {
    let ranges = found.taken.iter().flat_map(|taken| &taken.ranges);
    ranges.filter_map(|&range| hexadecimal(paste.piece(range))).collect()
}

/// The names of the bits of a feature MSR's value: `rdctl_no, mds_no`.
fn bits_of(index: u32, value: u64) -> String {
    let set = (0..64_u8).filter(|bit| value >> bit & 1 == 1);
    let name = |bit: u8| match x86::by_place(Place::Msr(MsrBit { index, bit })) {
        Some(feature) => feature.id.to_uppercase(),
        None => format!("bit {bit}"),
    };
    let names: Vec<String> = set.take(MAX_NAMES).map(name).collect();
    if names.is_empty() { "no bit set".to_owned() } else { names.join(", ") }
}

/// Cloud Hypervisor's comparison of a leaf.
pub(super) fn leaf(loss: &mut Loss, paste: &Paste, found: &Found) {
    let words: Vec<&str> =
        found.taken.iter().flat_map(|taken| &taken.ranges).map(|&range| paste.piece(range)).collect();
    let [leaf, subleaf, register, rest @ ..] = &words[..] else { return };
    let number = |text: &str| hexadecimal(text).and_then(|number| u32::try_from(number).ok());
    let (Some(leaf), Some(subleaf), Some(register)) = (number(leaf), number(subleaf), Register::from_name(register))
    else {
        return;
    };
    let (source, destination) = (rest.first().and_then(|text| number(text)), rest.get(1).and_then(|text| number(text)));
    if let Some(row) = messages::leaf(leaf) {
        loss.spots.push(Spot::Cpuid { leaf, subleaf, register, bits: None });
        loss.why.push(format!("Leaf {leaf:#x} is {}.", row.what));
        loss.subjects.extend(row.feature.and_then(x86::feature).map(Subject::of));
    } else if let (Some(source), Some(destination)) = (source, destination) {
        for bit in (0..32_u8).filter(|bit| (source & !destination) >> bit & 1 == 1) {
            let place = Place::Cpuid(CpuidBit { leaf, subleaf, register, bit });
            loss.subjects.push(match x86::by_place(place) {
                Some(feature) => Subject::of(feature),
                None => Subject::bit(Spot::Cpuid { leaf, subleaf, register, bits: Some((bit, bit)) }),
            });
        }
    } else {
        loss.spots.push(Spot::Cpuid { leaf, subleaf, register, bits: None });
    }
    if let (Some(source), Some(destination)) = (source, destination) {
        loss.why.push(format!("The source has {source:#x}, the destination {destination:#x}."));
    }
}

/// What SNP's firmware rejects: `provided:` and `expected:` name four registers each.
pub(super) fn snp(loss: &mut Loss, paste: &Paste, found: &Found) {
    let numbers = numbers(paste, found);
    let number = |index: usize| numbers.get(index).and_then(|&number| u32::try_from(number).ok());
    let Some(leaf) = number(0) else { return };
    if let Some(row) = messages::leaf(leaf) {
        loss.why.push(format!("Leaf {leaf:#x} is {}.", row.what));
    }
    let after = paste.lower.get(found.start..).unwrap_or_default();
    let subleaf = after.split_once("index:").and_then(|(_, rest)| first_number(rest)).unwrap_or(0);
    let (Some((_, provided)), Some((_, expected))) = (after.split_once("provided:"), after.split_once("expected:"))
    else {
        return;
    };
    for register in Register::ALL {
        let key = format!("{}:", register.name().to_ascii_lowercase());
        let value = |text: &str| text.split_once(key.as_str()).and_then(|(_, rest)| first_number(rest));
        let (Some(provided), Some(expected)) = (value(provided), value(expected)) else { continue };
        let differ = provided ^ expected;
        for bit in (0..32_u8).filter(|bit| differ >> bit & 1 == 1) {
            loss.spots.push(Spot::Cpuid { leaf, subleaf, register, bits: Some((bit, bit)) });
            let said = format!(
                "{register} bit {bit} ({:#x}): QEMU provided {provided:#x}, the firmware expected {expected:#x}.",
                1_u64 << bit
            );
            loss.why.push(said);
        }
    }
}

fn first_number(text: &str) -> Option<u32> {
    let word = text.trim_start().split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    hexadecimal(word).and_then(|number| u32::try_from(number).ok())
}

/// What QEMU's warning asks for.
pub(super) fn requested(paste: &Paste, found: &Found) -> Option<Subject> {
    use cpusieve_formats::message::{Where, requested};
    let mut end = (found.end + 200).min(paste.flow.len());
    while !paste.flow.is_char_boundary(end) {
        end += 1;
    }
    let asked = requested(paste.piece((found.end, end)))?;
    let name = asked.name.as_deref();
    match asked.place {
        Where::Msr(index) => {
            let bit = asked.bit?;
            let place = Place::Msr(MsrBit { index, bit });
            Some(match x86::by_place(place) {
                Some(feature) => Subject { spot: feature::spot(place), ..Subject::of(feature) },
                None => Subject { name: name.unwrap_or_default().to_owned(), ..Subject::bit(feature::spot(place)?) },
            })
        }
        // Leaf DH: names stand in subleaf 1; the bits without a name are XCR0, in subleaf 0.
        Where::Cpuid { leaf: Some(0xd), subleaf: None | Some(0), register: Register::Eax } if name.is_none() => {
            Some(Subject::bit(Spot::Xcr0(asked.bit?)))
        }
        Where::Cpuid { leaf: Some(0xd), subleaf: None | Some(0), register: Register::Edx } if name.is_none() => {
            Some(Subject::bit(Spot::Xcr0(asked.bit?.checked_add(32)?)))
        }
        Where::Cpuid { leaf, subleaf, register } => {
            let (place, known) = feature::at(leaf, subleaf, register, asked.bit, name)?;
            let spot = feature::spot(Place::Cpuid(place));
            Some(match known {
                Some(feature) => Subject { spot, ..Subject::of(feature) },
                None => Subject { name: name.unwrap_or_default().to_owned(), ..Subject::bit(spot?) },
            })
        }
    }
}
