//! `<cpudata>`: raw CPUID and MSRs of one CPU, as libvirt keeps them of hosts that it tests with.
//!
//! Three traps of these files are looked for. Files of the same shape hold masks of features. MSRs may have been read
//! from KVM where the CPU could not be asked. And in files that `cpu-gather.py` made with buffered reads, the VMX MSRs
//! hold MSR CFH, rotated by a byte for each index.

use cpusieve_model::{Cpu, CpuidTable, MsrReading, Register, Registers, Snapshot, Vendor};
use roxmltree::{Document, Node};

use super::Elements;
use crate::limits::{MAX_ENTRIES, MAX_MSRS};
use crate::machine::brand;

/// `IA32_CORE_CAPABILITIES`.
const CORE_CAPABILITIES: u32 = 0xcf;
/// `IA32_ARCH_CAPABILITIES`.
const ARCH_CAPABILITIES: u32 = 0x10a;
/// `IA32_VMX_BASIC` to `IA32_VMX_VMFUNC`.
const VMX: std::ops::RangeInclusive<u32> = 0x480..=0x491;
/// As many VMX MSRs must agree before they are taken for rotations of one value.
const ROTATED: usize = 3;

pub(super) fn read(document: &Document<'_>, elements: &mut Elements<'_, '_>) -> Snapshot {
    let root = document.root_element();
    if let Some(arch) = root.attribute("arch").filter(|arch| !matches!(*arch, "x86" | "x86_64" | "i686")) {
        let what = format!("CPU data of another architecture: {}", crate::diagnostic::quote(arch.as_bytes()));
        elements.log.error_expected(elements.line(root), what, "arch='x86'");
        return Snapshot::default();
    }
    let mut cpu = Cpu::default();
    for node in root.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "cpuid" => cpuid(elements, node, &mut cpu.cpuid),
            "msr" => msr(elements, node, &mut cpu),
            _ => elements.unknown(node),
        }
    }
    let comment = document.descendants().find(Node::is_comment).and_then(|comment| comment.text()).map(str::trim);
    if is_mask(&cpu.cpuid, comment) {
        elements.log.error_expected(
            elements.line(root),
            "a mask of features (libvirt's -enabled.xml or -disabled.xml), which is not what a CPU returned",
            "raw CPUID, which has leaf 0",
        );
        return Snapshot::default();
    }
    drop_rotated(elements, &mut cpu);
    tell_of_kvm(elements, &cpu);
    let title = comment.filter(|comment| !comment.is_empty()).map(str::to_owned).or_else(|| brand(&cpu.cpuid));
    Snapshot { title, cpus: vec![cpu], ..Snapshot::default() }
}

fn cpuid(elements: &mut Elements<'_, '_>, node: Node<'_, '_>, table: &mut CpuidTable) {
    // `function` is the name that libvirt gave to `eax_in` before it knew of subleaves.
    let leaf = if node.has_attribute("eax_in") { "eax_in" } else { "function" };
    let mut number = |name| elements.number(node, name);
    let (leaf, subleaf) = (number(leaf), number("ecx_in"));
    let registers = [number("eax"), number("ebx"), number("ecx"), number("edx")];
    let (Ok(leaf), Ok(subleaf), [Ok(eax), Ok(ebx), Ok(ecx), Ok(edx)]) = (leaf, subleaf, registers) else {
        elements.log.ignored.values += 1;
        return;
    };
    let Some(leaf) = leaf else {
        elements.log.ignored.values += 1;
        elements.log.warning_expected(elements.line(node), "<cpuid> without its leaf is left out", "eax_in='0x..'");
        return;
    };
    // libvirt reads a register that is not written as zero (src/cpu/cpu_x86.c:x86ParseCPUID).
    let values = [eax, ebx, ecx, edx];
    let missing = Register::ALL.iter().zip(values).find(|(_, value)| value.is_none());
    if let Some((register, _)) = missing {
        let what =
            format!("<cpuid> of leaf {leaf:#x} without {}, which counts as zero", register.name().to_lowercase());
        elements.log.warning(elements.line(node), what);
    }
    let [eax, ebx, ecx, edx] = values.map(Option::unwrap_or_default);
    let (subleaf, registers) = (subleaf.unwrap_or(0), Registers { eax, ebx, ecx, edx });
    match table.get(leaf, subleaf) {
        None if table.len() < MAX_ENTRIES => _ = table.insert(leaf, subleaf, registers),
        None => {
            elements.log.ignored.values += 1;
            elements.log.warning_expected(elements.line(node), "too many <cpuid>", format!("at most {MAX_ENTRIES}"));
        }
        Some(before) => {
            elements.log.ignored.values += 1;
            if before != registers {
                let what = format!("leaf {leaf:#x} subleaf {subleaf:#x} for the second time, with other values");
                elements.log.warning(elements.line(node), what);
            }
        }
    }
}

fn msr(elements: &mut Elements<'_, '_>, node: Node<'_, '_>, cpu: &mut Cpu) {
    let mut number = |name| elements.number(node, name);
    let numbers = [number("index"), number("edx"), number("eax")];
    let [Ok(Some(index)), Ok(Some(high)), Ok(Some(low))] = numbers else {
        elements.log.ignored.values += 1;
        if numbers.iter().all(Result::is_ok) {
            elements.log.warning_expected(elements.line(node), "<msr> is left out", "index, edx and eax");
        }
        return;
    };
    if cpu.msrs.len() >= MAX_MSRS {
        elements.log.ignored.values += 1;
        elements.log.warning_expected(elements.line(node), "too many <msr>", format!("at most {MAX_MSRS}"));
        return;
    }
    let reading = MsrReading::Value(u64::from(high) << 32 | u64::from(low));
    if let Some(before) = cpu.msrs.insert(index, reading)
        && before != reading
    {
        cpu.msrs.insert(index, before);
        elements.log.ignored.values += 1;
        elements.log.warning(elements.line(node), format!("MSR {index:#x} for the second time, with another value"));
    }
}

/// Whether this is a mask: libvirt says so in the comment, or there is neither a vendor nor a signature.
fn is_mask(table: &CpuidTable, comment: Option<&str>) -> bool {
    let told = comment.is_some_and(|comment| comment.starts_with("Features ") && comment.ends_with(" by QEMU"));
    let nameless = table.get(0, 0).is_none() && table.get(1, 0).is_none_or(|leaf| leaf.eax == 0);
    told || nameless && !table.is_empty()
}

/// The value of which an MSR would be the rotation, if it were one.
fn unrotated(index: u32, value: u64) -> u64 {
    value.rotate_left(index.wrapping_sub(CORE_CAPABILITIES) % 8 * 8)
}

/// Leaves out MSRs that are rotations of MSR CFH.
fn drop_rotated(elements: &mut Elements<'_, '_>, cpu: &mut Cpu) {
    let vmx: Vec<_> = VMX.filter_map(|index| Some(unrotated(index, cpu.msrs.get(index)?))).collect();
    let Some(&value) = vmx.first() else { return };
    let same =
        vmx.iter().all(|&other| other == value) && cpu.msrs.get(CORE_CAPABILITIES).is_none_or(|told| told == value);
    if !same || vmx.len() < ROTATED || value == 0 {
        return;
    }
    let is_rotated = |index: u32, reading: MsrReading| match reading {
        MsrReading::Value(found) => index != CORE_CAPABILITIES && unrotated(index, found) == value,
        MsrReading::Unreadable => false,
    };
    let before = cpu.msrs.len();
    let kept = cpu.msrs.iter().filter(|&(index, reading)| !is_rotated(index, reading)).collect::<Vec<_>>();
    let dropped = before - kept.len();
    cpu.msrs = cpusieve_model::MsrTable::default();
    for (index, reading) in kept {
        cpu.msrs.insert(index, reading);
    }
    elements.log.ignored.values += dropped as u64;
    let what = format!(
        "{dropped} MSRs, those of VMX among them, are rotations of one value, {value:#x}: they were read wrongly \
         and are left out"
    );
    elements.log.warning(0, what);
}

/// AMD's CPUs have no MSR 10AH: where the CPUID bit is clear, a value of it came from KVM.
fn tell_of_kvm(elements: &mut Elements<'_, '_>, cpu: &Cpu) {
    let is_amd = matches!(cpu.cpuid.vendor(), Some(Vendor::Amd | Vendor::Hygon));
    let announced = cpu.cpuid.get(7, 0).is_some_and(|leaf| leaf.edx >> 29 & 1 == 1);
    if let Some(value) = cpu.msrs.get(ARCH_CAPABILITIES).filter(|_| is_amd && !announced) {
        let what = format!("MSR 0x10a is {value:#x} on a CPU that does not have it: KVM, not the CPU, was asked");
        elements.log.note(0, what);
    }
}
