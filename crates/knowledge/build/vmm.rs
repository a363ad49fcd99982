//! `knowledge/vmm/`: what Firecracker and Cloud Hypervisor do to KVM's answer: bits, CPU templates, MSRs of the boot.

use cpusieve_import::tables::TreeList;

use crate::qemu::place::{Bit, Word};
use crate::{Result, Tables, releases};

/// The two VMMs, as the tables and as Rust name them, with the table of their releases.
const VMMS: [(&str, &str, &str); 2] = [
    ("firecracker", "Firecracker", "vmm/firecracker-releases.tsv"),
    ("cloud-hypervisor", "CloudHypervisor", "vmm/cloud-hypervisor-releases.tsv"),
];

/// One VMM with its releases.
struct Known {
    table: &'static str,
    rust: &'static str,
    releases: TreeList,
}

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let mut known = Vec::new();
    for (table, rust, path) in VMMS {
        known.push(Known { table, rust, releases: TreeList::parse(path, &tables.read(path)?)? });
    }
    let mut out = String::new();
    for vmm in &known {
        let declaration = format!("static {}_RELEASES", vmm.table.replace('-', "_").to_uppercase());
        releases(&mut out, &declaration, &vmm.releases)?;
    }
    bits(tables, &known, &mut out)?;
    boot_msrs(tables, &known, &mut out)?;
    let firecracker = known.first().ok_or("no VMM")?;
    templates(tables, firecracker, &mut out)?;
    template_hosts(tables, firecracker, &mut out)?;
    hyperv_leaves(tables, Known::find(&known, "cloud-hypervisor")?, &mut out)?;
    Ok(out)
}

impl Known {
    fn find<'a>(all: &'a [Self], name: &str) -> Result<&'a Self> {
        let found = all.iter().find(|vmm| vmm.table == name);
        found.ok_or_else(|| format!("`{name}` is no VMM of knowledge/vmm").into())
    }

    fn set(&self, text: &str) -> Result<String> {
        Ok(format!("TreeSet({:#x})", self.releases.parse_set(text)?.0))
    }
}

fn bits(tables: &Tables, known: &[Known], out: &mut String) -> Result<()> {
    tables.slice(
        out,
        "static BIT_EDITS: &[BitEdit]",
        "vmm/bits.tsv",
        |[vmm, place, effect, condition, releases, rule]| {
            let vmm = Known::find(known, vmm)?;
            let Bit { word: Word::Cpuid { leaf, subleaf, register }, bit } = Bit::parse(place)? else {
                return Err(format!("`{place}` is no bit of CPUID").into());
            };
            let sets = match effect {
                "sets" => true,
                "clears" => false,
                _ => return Err(format!("`{effect}` is no effect").into()),
            };
            let conditions: Vec<&str> =
                condition.split('+').filter_map(|part| condition_name(part).transpose()).collect::<Result<_>>()?;
            Ok(format!(
                "BitEdit {{ vmm: Vmm::{}, bit: CpuidBit::new({leaf:#x}, {subleaf:#x}, Register::{register:?}, {bit}), \
             sets: {sets}, conditions: &[{}], releases: {}, rule: {rule:?} }}",
                vmm.rust,
                conditions.join(", "),
                vmm.set(releases)?
            ))
        },
    )
}

fn condition_name(text: &str) -> Result<Option<&'static str>> {
    Ok(Some(match text {
        "always" => return Ok(None),
        "intel" => "Condition::Intel",
        "amd" => "Condition::Amd",
        "smp" => "Condition::Smp(true)",
        "!smp" => "Condition::Smp(false)",
        "!amx" => "Condition::WithoutAmx",
        "!nested" => "Condition::WithoutNested",
        _ => return Err(format!("vmm/bits.tsv: `{text}` is no condition").into()),
    }))
}

fn boot_msrs(tables: &Tables, known: &[Known], out: &mut String) -> Result<()> {
    tables.slice(out, "static BOOT_MSRS: &[BootMsr]", "vmm/boot-msrs.tsv", |[vmm, index, value, releases, cite]| {
        let vmm = Known::find(known, vmm)?;
        Ok(format!(
            "BootMsr {{ vmm: Vmm::{}, index: {:#x}, value: {:#x}, releases: {}, cite: Cite({cite:?}) }}",
            vmm.rust,
            u32::from_str_radix(index, 16)?,
            u64::from_str_radix(value, 16)?,
            vmm.set(releases)?
        ))
    })
}

fn templates(tables: &Tables, firecracker: &Known, out: &mut String) -> Result<()> {
    tables.slice(out, "static TEMPLATE_ROWS: &[TemplateRow]", "vmm/templates.tsv", |[template, place, flags, bits, releases]| {
        let (place, width) = match Word::parse(place)? {
            Word::Msr { index } => (format!("TemplatePlace::Msr {{ index: {index:#x} }}"), 64),
            Word::Cpuid { leaf, subleaf, register } => (
                format!(
                    "TemplatePlace::Cpuid {{ leaf: {leaf:#x}, subleaf: {subleaf:#x}, register: Register::{register:?}, \
                     flags: {} }}",
                    flags.parse::<u32>()?
                ),
                32,
            ),
        };
        let (mask, value) = three_valued(bits, width)
            .ok_or_else(|| format!("expected {width} of 0, 1, x"))?;
        Ok(format!("TemplateRow {{ template: {template:?}, place: {place}, bits: BitFilter {{ mask: {mask:#x}, value: {value:#x} }}, \
             releases: {} }}",
            firecracker.set(releases)?))
    })
}

/// The bits that are written, and their values; none if it is not `width` of 0, 1 and x.
fn three_valued(text: &str, width: usize) -> Option<(u64, u64)> {
    let bits = text.bytes().try_fold((0_u64, 0_u64), |(mask, value), digit| {
        let (written, one) = match digit {
            b'0' => (1, 0),
            b'1' => (1, 1),
            b'x' => (0, 0),
            _ => return None,
        };
        Some((mask << 1 | written, value << 1 | one))
    });
    bits.filter(|_| text.len() == width)
}

fn template_hosts(tables: &Tables, firecracker: &Known, out: &mut String) -> Result<()> {
    tables.slice(
        out,
        "static TEMPLATE_HOSTS: &[TemplateHosts]",
        "vmm/template-hosts.tsv",
        |[template, vendor, hosts, releases]| {
            let vendor = match vendor {
                "intel" => "Vendor::Intel",
                "amd" => "Vendor::Amd",
                _ => return Err(format!("`{vendor}` is no vendor here").into()),
            };
            let signature = |text: &str| u32::from_str_radix(text, 16);
            let hosts = match (hosts, hosts.strip_prefix(">=")) {
                ("*", _) => "Hosts::All".to_owned(),
                (_, Some(first)) => format!("Hosts::From({:#x})", signature(first)?),
                _ => format!(
                    "Hosts::These(&{:?})",
                    hosts.split(',').map(signature).collect::<std::result::Result<Vec<_>, _>>()?
                ),
            };
            Ok(format!(
                "TemplateHosts {{ template: {template:?}, vendor: {vendor}, hosts: {hosts}, releases: {} }}",
                firecracker.set(releases)?
            ))
        },
    )
}

fn hyperv_leaves(tables: &Tables, vmm: &Known, out: &mut String) -> Result<()> {
    tables.slice(
        out,
        "static HYPERV_LEAVES: &[HypervLeaf]",
        "vmm/hyperv.tsv",
        |[leaf, eax, ebx, ecx, edx, releases]| {
            let number = |text: &str| u32::from_str_radix(text, 16);
            Ok(format!(
                "HypervLeaf {{ leaf: {:#x}, registers: Registers {{ eax: {:#x}, ebx: {:#x}, ecx: {:#x}, edx: {:#x} }}, \
             releases: {} }}",
                number(leaf)?,
                number(eax)?,
                number(ebx)?,
                number(ecx)?,
                number(edx)?,
                vmm.set(releases)?
            ))
        },
    )
}
