//! `knowledge/x86/`: features with their names, and CPU generations.

mod generations;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_import::tables::rows;

use crate::qemu::place::Bit;
use crate::{Result, Tables, qemu};

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let features = features(tables)?;
    let mut out = String::new();
    writeln!(out, "/// Every feature that Linux, KVM or QEMU name, in the order of their places.")?;
    writeln!(out, "pub static FEATURES: &[Feature] = &[")?;
    for feature in &features {
        let places: Vec<String> = feature.places.iter().map(|place| place.expression()).collect();
        let names: Vec<String> =
            feature.names.iter().map(|(system, name)| format!("(System::{system}, {name:?})")).collect();
        writeln!(
            out,
            "Feature {{ id: {:?}, places: &[{}], linux_made: {}, vendor: Scope::{}, \
             group: Group::{}, title: {:?}, names: &[{}] }},",
            feature.id,
            places.join(", "),
            feature.linux_made,
            feature.vendor,
            feature.group,
            feature.title,
            names.join(", "),
        )?;
    }
    writeln!(out, "];")?;
    indices(tables, &features, &mut out)?;
    out.push_str(&generations::generate(tables, &|id| features.iter().any(|feature| feature.id == id))?);
    Ok(out)
}

struct Feature {
    id: String,
    places: Vec<Bit>,
    linux_made: bool,
    vendor: &'static str,
    group: &'static str,
    title: String,
    /// Variant of `System`, and the name.
    names: Vec<(&'static str, String)>,
}

const VENDORS: [(&str, &str); 5] =
    [("intel", "Intel"), ("amd", "Amd"), ("any", "Any"), ("via", "Via"), ("transmeta", "Transmeta")];

const GROUPS: [(&str, &str); 28] = [
    ("base", "Base"),
    ("simd", "Simd"),
    ("amx", "Amx"),
    ("crypto", "Crypto"),
    ("random", "Random"),
    ("string", "String"),
    ("memory", "Memory"),
    ("cache", "Cache"),
    ("tsx", "Tsx"),
    ("security", "Security"),
    ("speculation", "Speculation"),
    ("power", "Power"),
    ("thermal", "Thermal"),
    ("debug-store", "DebugStore"),
    ("debug", "Debug"),
    ("pmu", "Pmu"),
    ("tsc", "Tsc"),
    ("interrupts", "Interrupts"),
    ("virtualization", "Virtualization"),
    ("sgx", "Sgx"),
    ("encryption", "Encryption"),
    ("qos", "Qos"),
    ("mce", "Mce"),
    ("xsave", "Xsave"),
    ("topology", "Topology"),
    ("paravirt", "Paravirt"),
    ("kernel", "Kernel"),
    ("misc", "Misc"),
];

const SYSTEMS: [(&str, &str); 7] = [
    ("intel", "Intel"),
    ("amd", "Amd"),
    ("libvirt", "Libvirt"),
    ("vmx", "LinuxVmx"),
    ("linux", "OldLinux"),
    ("kvm", "Kvm"),
    ("also", "Also"),
];

fn features(tables: &Tables) -> Result<Vec<Feature>> {
    let text = tables.read("x86/features.tsv")?;
    let mut found = Vec::new();
    for (line, cells) in rows(&text) {
        let fail = |what: &str| format!("x86/features.tsv:{line}: {what}");
        let [id, places, vendor, group, title, names] = cells[..] else {
            return Err(fail("expected 6 cells").into());
        };
        let mut feature = Feature {
            id: id.to_owned(),
            places: Vec::new(),
            linux_made: false,
            vendor: variant(&VENDORS, vendor).ok_or_else(|| fail("unknown vendor"))?,
            group: variant(&GROUPS, group).ok_or_else(|| fail("unknown group"))?,
            title: title.to_owned(),
            names: Vec::new(),
        };
        for place in places.split(',') {
            match place {
                "linux" => feature.linux_made = true,
                _ => feature.places.push(Bit::parse(place).map_err(|error| fail(&error.to_string()))?),
            }
        }
        for name in names.split(' ').filter(|&name| name != "-") {
            let (system, list) = name.split_once('=').ok_or_else(|| fail("expected SYSTEM=NAME,NAME"))?;
            let system = variant(&SYSTEMS, system).ok_or_else(|| fail("unknown system"))?;
            feature.names.extend(list.split(',').map(|name| (system, name.to_owned())));
        }
        found.push(feature);
    }
    Ok(found)
}

fn variant(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, variant)| *variant)
}

/// Must equal `cpusieve_knowledge::x86::fold`.
fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Sorted indices: by id, by place, and by every folded spelling (with a rank: the lower, the closer to the id).
fn indices(tables: &Tables, features: &[Feature], out: &mut String) -> Result<()> {
    let mut by_id: Vec<(&str, usize)> = Vec::new();
    let mut by_place: BTreeMap<Bit, usize> = BTreeMap::new();
    let mut by_name: BTreeMap<(String, usize), u8> = BTreeMap::new();
    let mut spell = |name: &str, feature: usize, rank: u8| {
        let held = by_name.entry((fold(name), feature)).or_insert(rank);
        *held = rank.min(*held);
    };
    for (index, feature) in features.iter().enumerate() {
        by_id.push((&feature.id, index));
        spell(&feature.id, index, 0);
        for place in &feature.places {
            if by_place.insert(*place, index).is_some() {
                return Err(format!("x86/features.tsv: {} stands on a place of another row", feature.id).into());
            }
        }
        for (system, name) in &feature.names {
            if *system == "OldLinux" || *system == "Kvm" {
                by_id.push((name, index));
            }
            let rank = SYSTEMS.iter().position(|(_, known)| known == system).unwrap_or(0);
            spell(name, index, u8::try_from(rank).unwrap_or(u8::MAX).saturating_add(2));
        }
    }
    let aliases = qemu::alias_rows(tables)?;
    for row in qemu::bit_rows(tables)? {
        let Some(name) = row.name else { continue };
        let Some(&index) = by_place.get(&row.place) else {
            return Err(format!("x86/features.tsv has no row for QEMU's {name}").into());
        };
        spell(&name, index, 1);
        for (alias, _) in aliases.iter().filter(|(_, of)| *of == name) {
            spell(alias, index, 1);
        }
    }
    for (id, name) in linux_macros(tables)? {
        if let Some(index) = features.iter().position(|feature| feature.id == id) {
            spell(&name, index, u8::MAX);
        }
    }
    by_id.sort_unstable();
    if let Some(pair) = by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("x86/features.tsv: {} stands twice", pair[0].0).into());
    }
    let by_place: Vec<String> =
        by_place.iter().map(|(place, index)| format!("({}, {index})", place.expression())).collect();
    let mut spellings: Vec<(String, u8, usize)> =
        by_name.into_iter().map(|((name, feature), rank)| (name, rank, feature)).collect();
    spellings.sort();
    writeln!(out, "static BY_ID: &[(&str, u16)] = &{by_id:?};")?;
    writeln!(out, "static BY_PLACE: &[(Place, u16)] = &[{}];", by_place.join(", "))?;
    writeln!(out, "static BY_NAME: &[(&str, u8, u16)] = &{spellings:?};")?;
    Ok(())
}

/// Id and macro of every Linux feature.
fn linux_macros(tables: &Tables) -> Result<Vec<(String, String)>> {
    let text = tables.read("linux/features.tsv")?;
    let mut found = Vec::new();
    for (line, cells) in rows(&text) {
        let [_, name, printed, _] = cells[..] else {
            return Err(format!("linux/features.tsv:{line}: expected 4 cells").into());
        };
        let hidden = printed == "-" || printed.starts_with('~');
        found.push((if hidden { name.to_ascii_lowercase() } else { printed.to_owned() }, name.to_owned()));
    }
    Ok(found)
}
