//! `knowledge/linux/`: kernel trees and what they know about CPU features.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cpusieve_import::linux::{Flag, LinuxFacts, MaskKind, NamingRule, Shown};
use cpusieve_import::tables::facts::Row;
use cpusieve_import::tables::linux::LinuxTables;
use cpusieve_import::tables::{TreeList, TreeSet};
use cpusieve_model::{CpuidBit, Place};

use crate::{Result, Tables, slots};

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let trees = TreeList::parse("linux/trees.tsv", &tables.read("linux/trees.tsv")?)?;
    let rows = LinuxTables::parse(&trees, &|file: &str| tables.read(&format!("linux/{file}")).ok())?;
    let facts = (0..trees.trees.len()).map(|tree| rows.facts(tree)).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut out = String::new();
    write_trees(&mut out, &trees, &facts)?;
    write_features(&mut out, &rows, &facts)?;
    write_bits(&mut out, "BUGS", "The bugs of all trees, in word and bit order.", &rows.bugs)?;
    write_bits(&mut out, "VMX_FLAGS", "The VMX features of all trees, in word and bit order.", &rows.vmx_flags)?;
    write_lists(&mut out, &rows)?;
    write_dependents(&mut out, &facts)?;
    Ok(out)
}

/// A static slice out of its items, with the comment that documents it.
fn slice(out: &mut String, doc: &str, visibility: &str, name: &str, of: &str, items: &[String]) -> Result<()> {
    writeln!(out, "/// {doc}\n{visibility}static {name}: &[{of}] = &[")?;
    for item in items {
        writeln!(out, "    {item},")?;
    }
    writeln!(out, "];")?;
    Ok(())
}

fn set(trees: TreeSet) -> String {
    format!("TreeSet({:#x})", trees.0)
}

fn write_trees(out: &mut String, trees: &TreeList, facts: &[LinuxFacts]) -> Result<()> {
    let tree = |(tree, facts): (&cpusieve_import::tables::Tree, &LinuxFacts)| {
        let rule = match facts.naming {
            NamingRule::MacroUnlessQuoted => "MacroUnlessQuoted",
            NamingRule::HiddenUnlessQuoted => "HiddenUnlessQuoted",
        };
        format!(
            "Tree {{ label: {:?}, version: {:?}, source: {:?}, release: {:?}, naming: NamingRule::{rule}, \
             ncapints: {}, nbugints: {}, nvmxints: {} }}",
            tree.label,
            tree.version,
            tree.source,
            tree.release(),
            facts.ncapints,
            facts.nbugints,
            facts.nvmxints,
        )
    };
    let items: Vec<String> = trees.trees.iter().zip(facts).map(tree).collect();
    writeln!(out, "/// The compiled-in kernel trees, oldest release first.\npub(crate) const COMPILED: &[Tree] = &[")?;
    items.iter().try_for_each(|item| writeln!(out, "    {item},"))?;
    writeln!(out, "];")?;
    Ok(())
}

/// The features, and for each of them where it comes from in each tree, and the indexes by which they are found.
fn write_features(out: &mut String, rows: &LinuxTables, facts: &[LinuxFacts]) -> Result<()> {
    let ids = ids(&rows.features);
    let mut items = Vec::new();
    let mut by_place = Vec::new();
    for (index, Row { fact, trees }) in rows.features.iter().enumerate() {
        let mut groups = BTreeMap::<Vec<Place>, TreeSet>::new();
        for (tree, facts) in facts.iter().enumerate().filter(|&(tree, _)| trees.contains(tree)) {
            groups.entry(facts.places(fact)).or_default().insert(tree);
        }
        let text = |(list, trees): (&Vec<Place>, &TreeSet)| {
            let list: Vec<String> = list.iter().map(place).collect();
            format!("({}, &[{}])", set(*trees), list.join(", "))
        };
        let places: Vec<String> = groups.iter().map(text).collect();
        let unordered = groups.iter().flat_map(|(list, trees)| list.iter().map(move |place| (*place, *trees, index)));
        by_place.extend(unordered);
        items.push(format!(
            "Feature {{ macro_name: {:?}, word: {}, bit: {}, shown: {:?}, shadowed: {}, id: {:?}, trees: {}, places: &[{}] }}",
            fact.macro_name,
            fact.word,
            fact.bit,
            fact.shown.name(),
            matches!(fact.shown, Shown::Shadowed(_)),
            ids.get(fact.macro_name.as_str()).map_or("", String::as_str),
            set(*trees),
            places.join(", "),
        ));
    }
    slice(out, "The features of all trees, in word and bit order.", "pub ", "FEATURES", "Feature", &items)?;
    let keys = |key: &dyn Fn(&Flag) -> Option<String>| {
        let mut keys: Vec<(String, usize)> =
            rows.features.iter().enumerate().filter_map(|(index, row)| Some((key(&row.fact)?, index))).collect();
        keys.sort();
        keys
    };
    let mut index = |doc: &str, name: &str, keys: &[(String, usize)]| -> Result<()> {
        let items: Vec<String> = keys.iter().map(|(_, index)| index.to_string()).collect();
        slice(out, doc, "", name, "u16", &items)?;
        slots::write(out, name, keys.iter().map(|(key, _)| key.as_str()))
    };
    let shown = keys(&|flag| flag.shown.name().map(str::to_owned));
    let id = keys(&|flag| ids.get(flag.macro_name.as_str()).cloned());
    let macros = keys(&|flag| Some(flag.macro_name.clone()));
    index("Features by printed name.", "BY_SHOWN", &shown)?;
    index("Features by id.", "BY_ID", &id)?;
    index("Features by macro.", "BY_MACRO", &macros)?;
    by_place.sort();
    let items: Vec<String> =
        by_place.iter().map(|(at, trees, index)| format!("({}, {}, {index})", place(at), set(*trees))).collect();
    slice(out, "Features by place.", "", "BY_PLACE", "(Place, TreeSet, u16)", &items)
}

/// The id of each macro: the name under which some tree prints it, if there is just one, else the macro in lower case.
fn ids(features: &[Row<Flag>]) -> BTreeMap<&str, String> {
    let mut names = BTreeMap::<&str, BTreeSet<&str>>::new();
    for Row { fact, .. } in features {
        names.entry(&fact.macro_name).or_default().extend(fact.shown.name());
    }
    let id = |name: &str, printed: &BTreeSet<&str>| match printed.first() {
        Some(&only) if printed.len() == 1 => only.to_owned(),
        _ => name.to_ascii_lowercase(),
    };
    names.iter().map(|(name, printed)| (*name, id(name, printed))).collect()
}

fn place(place: &Place) -> String {
    match place {
        Place::Cpuid(bit) => format!("Place::Cpuid({})", cpuid_bit(*bit)),
        Place::Msr(bit) => format!("Place::Msr(MsrBit {{ index: {:#x}, bit: {} }})", bit.index, bit.bit),
        Place::Linux(bit) => format!("Place::Linux(LinuxBit {{ word: {}, bit: {} }})", bit.word, bit.bit),
    }
}

fn cpuid_bit(bit: CpuidBit) -> String {
    format!("CpuidBit::new({:#x}, {}, Register::{:?}, {})", bit.leaf, bit.subleaf, bit.register, bit.bit)
}

fn write_bits(out: &mut String, name: &str, doc: &str, rows: &[Row<Flag>]) -> Result<()> {
    let item = |Row { fact, trees }: &Row<Flag>| {
        format!(
            "NamedBit {{ macro_name: {:?}, word: {}, bit: {}, shown: {:?}, only_if: {:?}, trees: {} }}",
            fact.macro_name,
            fact.word,
            fact.bit,
            fact.shown.name(),
            fact.only_if.as_deref(),
            set(*trees),
        )
    };
    slice(out, doc, "pub ", name, "NamedBit", &rows.iter().map(item).collect::<Vec<_>>())
}

fn write_lists(out: &mut String, rows: &LinuxTables) -> Result<()> {
    let words = rows.words.iter().map(|Row { fact, trees }| {
        let source = fact.source().map(|(leaf, subleaf, register)| {
            format!("Some(WordSource {{ leaf: {leaf:#x}, subleaf: {subleaf}, register: Register::{register:?} }})")
        });
        let source = source.unwrap_or_else(|| "None".to_owned());
        format!("Word {{ index: {}, name: {:?}, source: {source}, trees: {} }}", fact.index, fact.name, set(*trees))
    });
    slice(out, "The capability words of all trees, by index.", "pub ", "WORDS", "Word", &words.collect::<Vec<_>>())?;
    let power = rows.power_flags.iter().map(|Row { fact, trees }| {
        format!("PowerFlag {{ bit: {}, name: {:?}, trees: {} }}", fact.bit, fact.name, set(*trees))
    });
    let doc = "The names of the line `power management`, by bit.";
    slice(out, doc, "pub ", "POWER_FLAGS", "PowerFlag", &power.collect::<Vec<_>>())?;
    let scattered = rows.scattered.iter().map(|Row { fact, trees }| {
        let place = cpuid_bit(fact.place);
        format!("Scattered {{ macro_name: {:?}, place: {place}, trees: {} }}", fact.macro_name, set(*trees))
    });
    let doc = "The scattered bits of all trees; those of one tree stand in its order.";
    slice(out, doc, "pub ", "SCATTERED", "Scattered", &scattered.collect::<Vec<_>>())?;
    let dependencies = rows.dependencies.iter().map(|Row { fact, trees }| {
        format!("Dependency {{ feature: {:?}, needs: {:?}, trees: {} }}", fact.feature, fact.needs, set(*trees))
    });
    let doc = "The dependencies of all trees; those of one tree stand in its order.";
    slice(out, doc, "pub ", "DEPENDENCIES", "Dependency", &dependencies.collect::<Vec<_>>())?;
    let levels = rows.levels.iter().map(|Row { fact, trees }| {
        format!("Level {{ macro_name: {:?}, leaf: {:#x}, trees: {} }}", fact.feature, fact.leaf, set(*trees))
    });
    let doc = "Features that need a basic leaf; those of one tree stand in its order.";
    slice(out, doc, "pub ", "LEVELS", "Level", &levels.collect::<Vec<_>>())?;
    let masks = rows.masks.iter().map(|Row { fact, trees }| {
        let kind = match fact.kind {
            MaskKind::Required => "Required",
            MaskKind::Disabled => "Disabled",
        };
        let (name, condition) = (&fact.feature, &fact.condition);
        format!(
            "Mask {{ kind: MaskKind::{kind}, macro_name: {name:?}, condition: {condition:?}, trees: {} }}",
            set(*trees)
        )
    });
    slice(out, "Compile-time masks, by kind and macro.", "pub ", "MASKS", "Mask", &masks.collect::<Vec<_>>())
}

/// For each feature that others need: what goes when it is cleared, worked out here once.
fn write_dependents(out: &mut String, facts: &[LinuxFacts]) -> Result<()> {
    let mut groups = BTreeMap::<(&str, Vec<&str>), TreeSet>::new();
    for (tree, facts) in facts.iter().enumerate() {
        for needed in facts.dependencies.iter().map(|pair| pair.needs.as_str()).collect::<BTreeSet<_>>() {
            groups.entry((needed, facts.dependents(needed))).or_default().insert(tree);
        }
    }
    let item = |((name, all), trees): (&(&str, Vec<&str>), &TreeSet)| {
        format!("Dependents {{ macro_name: {name:?}, trees: {}, all: &{all:?} }}", set(*trees))
    };
    let items: Vec<String> = groups.iter().map(item).collect();
    slice(out, "What needs a feature, through others too, by macro.", "", "DEPENDENTS", "Dependents", &items)?;
    slots::write(out, "DEPENDENTS", groups.keys().map(|(name, _)| *name))
}
