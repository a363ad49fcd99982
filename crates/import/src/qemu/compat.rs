//! What accelerators and old machine types set on CPUs.

use super::initializer::{list, nested};
use super::models::properties;
use super::{CPU_C, Result, Source, no_table, unreadable_in};

const PC: &str = "hw/i386/pc.c";
const PIIX: &str = "hw/i386/pc_piix.c";

/// The defaults of KVM and TCG: accelerator, property, value.
pub(super) fn defaults(
    source: &Source,
    file: &impl Fn(&'static str) -> Option<String>,
) -> Result<Vec<(String, String, String)>> {
    let mut found = Vec::new();
    // The tables moved out of `cpu.c` in 6.0; what follows the name tells the table from its uses.
    for (accelerator, table, path) in [
        ("kvm", "kvm_default_props[] =", "target/i386/kvm/kvm-cpu.c"),
        ("tcg", "tcg_default_props[] =", "target/i386/tcg/tcg-cpu.c"),
    ] {
        let text = file(path).filter(|text| text.contains(table));
        let text = text.as_deref().unwrap_or(&source.cpu);
        let start = text.find(table).ok_or_else(|| no_table(CPU_C, table))?;
        let pairs = text.get(start..).and_then(|text| properties(source, text));
        let pairs = pairs.ok_or_else(|| unreadable_in(path, table, ""))?;
        found.extend(pairs.into_iter().map(|(property, value)| (accelerator.to_owned(), property, value)));
    }
    Ok(found)
}

/// Version of a machine type: (2, 12).
type Table = (u32, u32);

/// The properties of CPUs in `pc_compat_*`: table, type, property, value; newest table first.
pub(super) fn read(source: &Source, pc: &str, piix: Option<&str>) -> Result<Vec<[String; 4]>> {
    let mut tables: Vec<(Table, Vec<[String; 3]>)> = Vec::new();
    for (at, _) in pc.match_indices("GlobalProperty pc_compat_") {
        let Some(text) = pc.get(at..) else { continue };
        let name = text.split('[').next().unwrap_or_default();
        let mut numbers = name.rsplitn(3, '_').map(str::parse::<u32>);
        let (Some(Ok(minor)), Some(Ok(major))) = (numbers.next(), numbers.next()) else { continue };
        tables.push(((major, minor), entries(source, text).ok_or_else(|| unreadable_in(PC, name, text))?));
    }
    // Machines before 1.4 keep their tables in their functions, named after them.
    let old = piix.unwrap_or_default();
    for (at, _) in old.match_indices("static GlobalProperty compat[]") {
        let (before, text) = old.split_at(at);
        let wrong = || unreadable_in(PIIX, "compat[]", text);
        let (_, name) = before.rsplit_once("pc_i440fx_").ok_or_else(wrong)?;
        let mut numbers = name.split('_').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Err(wrong()) };
        tables.push(((major, minor), entries(source, text).ok_or_else(wrong)?));
    }
    tables.sort_by_key(|(table, _)| std::cmp::Reverse(*table));
    let row =
        |(major, minor): Table, [cpu, property, value]: [String; 3]| [format!("{major}.{minor}"), cpu, property, value];
    Ok(tables.into_iter().flat_map(|(table, rows)| rows.into_iter().map(move |cells| row(table, cells))).collect())
}

/// The entries for CPUs of one table; those for other devices are left out.
fn entries(source: &Source, text: &str) -> Option<Vec<[String; 3]>> {
    const MODEL_IDS: &str = "PC_CPU_MODEL_IDS(";
    let end = text.find("};")?;
    let mut text = text.get(..end + 1)?.to_owned();
    // The macro stands for three entries and their commas (`include/hw/i386/pc.h`).
    while let Some((before, after)) = text.split_once(MODEL_IDS) {
        let (version, rest) = after.split_once(')')?;
        let entry = |cpu: &str| {
            format!("{{ \"{cpu}-\" TYPE_X86_CPU, \"model-id\", \"QEMU Virtual CPU version \" {version} }},")
        };
        text = format!("{before}{}{rest}", ["qemu32", "qemu64", "athlon"].map(entry).concat());
    }
    let mut found = Vec::new();
    for row in list(&text, "=")? {
        let cells = nested(row.value)?;
        let [cpu, property, value] = cells[..] else { return None };
        if !cpu.value.contains("TYPE_X86_CPU") {
            continue;
        }
        let suffix = source.macros.string("TYPE_X86_CPU").unwrap_or_else(|| "x86_64-cpu".to_owned());
        // Without `cpu-qom.h` the type's name is still known.
        let name = cpu.value.replace("TYPE_X86_CPU", &format!("\"{suffix}\""));
        let name = source.macros.string(&name)?;
        let name = name.strip_suffix(&suffix)?;
        let name = if name.is_empty() { "*" } else { name.strip_suffix('-')? };
        found.push([name.to_owned(), source.macros.string(property.value)?, source.macros.string(value.value)?]);
    }
    Some(found)
}
