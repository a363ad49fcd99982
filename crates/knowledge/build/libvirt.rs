//! `knowledge/libvirt/`: libvirt's CPU map, with the features of every model as one set of bits.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_import::libvirt::{LibvirtFacts, Mark, Model, Signature, print_place};
use cpusieve_import::tables::TreeList;
use cpusieve_import::tables::libvirt::LibvirtTables;

use crate::qemu::place::Bit;
use crate::{Result, Tables, slots};

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let releases = TreeList::parse("libvirt/releases.tsv", &tables.read("libvirt/releases.tsv")?)?;
    let rows = LibvirtTables::parse(&releases, &|file: &str| tables.read(&format!("libvirt/{file}")).ok())?;
    let mut map = Map::default();
    let words = rows.features.len().div_ceil(64);
    writeln!(map.features, "const SET_WORDS: usize = {words};")?;
    writeln!(map.features, "/// The features of all releases, by bit.\npub static FEATURES: &[Feature] = &[")?;
    for (at, row) in rows.features.iter().enumerate() {
        let feature = &row.fact;
        if map.positions.insert(feature.name.clone(), at).is_some() {
            return Err(format!("libvirt/features.tsv: {} stands twice", feature.name).into());
        }
        let place = Bit::parse(&print_place(feature.place))?.expression();
        let name = map.name(&feature.name)?;
        let (migratable, set) = (feature.migratable, row.trees.0);
        writeln!(
            map.features,
            "Feature {{ name: {name}, place: {place}, migratable: {migratable}, releases: TreeSet({set:#x}) }},"
        )?;
    }
    writeln!(map.features, "];")?;
    slots::write(&mut map.features, "FEATURES", rows.features.iter().map(|row| row.fact.name.as_str()))?;
    let mut lists = String::new();
    for (at, release) in releases.trees.iter().enumerate() {
        let facts = rows.facts(at);
        let first = map.count;
        map.models(&facts, words)?;
        writeln!(
            lists,
            "Release {{ label: {:?}, version: {:?}, source: {:?}, first: {first}, models: {} }},",
            release.label,
            release.version,
            release.source,
            map.count - first
        )?;
    }
    let vendors: Vec<String> = rows
        .vendors
        .iter()
        .map(|row| format!("Vendor {{ name: {:?}, string: {:?} }}", row.fact.name, row.fact.string))
        .collect();
    map.finish(&lists, &vendors.join(", "))
}

/// What is written, piece by piece.
#[derive(Default)]
struct Map {
    /// Names behind one another, and where each begins.
    names: String,
    starts: BTreeMap<String, usize>,
    positions: BTreeMap<String, usize>,
    features: String,
    models: String,
    signatures: String,
    signature_count: usize,
    count: usize,
}

/// The features of a model, and what it says of its vendor and signatures.
#[derive(Clone, Default)]
struct Whole {
    data: Vec<u64>,
    removed: Vec<u64>,
    vendor: Option<String>,
    signatures: Vec<Signature>,
}

impl Map {
    /// The expression of a name.
    fn name(&mut self, name: &str) -> Result<String> {
        let start = match self.starts.get(name) {
            Some(&start) => start,
            None => {
                let start = self.names.len();
                self.names.push_str(name);
                self.starts.insert(name.to_owned(), start);
                start
            }
        };
        Ok(format!("Name {{ start: {}, len: {} }}", u16::try_from(start)?, u8::try_from(name.len())?))
    }

    /// The features that a model lists with a mark.
    fn listed(&self, facts: &LibvirtFacts, model: &Model, mark: Mark, words: usize) -> Result<Vec<u64>> {
        let mut set = vec![0_u64; words];
        let rows = facts.words.iter().filter(|word| word.model == model.name && word.mark == mark);
        for name in rows.flat_map(|word| &word.features) {
            let at = self.positions.get(name).ok_or_else(|| format!("libvirt: the feature {name} is unknown"))?;
            set[at / 64] |= 1 << (at % 64);
        }
        Ok(set)
    }

    /// The models of one release, each with what it takes from its base (`src/cpu/cpu_x86.c:x86ModelParseAncestor`): its
    /// features without those removed from it, its vendor and its signatures.
    fn models(&mut self, facts: &LibvirtFacts, words: usize) -> Result<()> {
        let mut known: BTreeMap<&str, Whole> = BTreeMap::new();
        for model in &facts.models {
            let base = model.base.as_deref().and_then(|base| known.get(base)).cloned().unwrap_or_default();
            let own = self.listed(facts, model, Mark::Own, words)?;
            let of_base = |at: usize| base.data.get(at).unwrap_or(&0) & !base.removed.get(at).unwrap_or(&0);
            let whole = Whole {
                data: own.iter().enumerate().map(|(at, word)| word | of_base(at)).collect(),
                removed: self.listed(facts, model, Mark::Removed, words)?,
                vendor: model.vendor.clone().or(base.vendor),
                signatures: if model.signatures.is_empty() { base.signatures } else { model.signatures.clone() },
            };
            let added = self.listed(facts, model, Mark::Added, words)?;
            self.model(facts, model, &whole, &added)?;
            known.insert(&model.name, whole);
        }
        Ok(())
    }

    fn model(&mut self, facts: &LibvirtFacts, model: &Model, whole: &Whole, added: &[u64]) -> Result<()> {
        let vendor = whole.vendor.as_ref().map(|name| {
            let known = facts.vendors.iter().position(|vendor| vendor.name == *name);
            known.ok_or_else(|| format!("libvirt: the vendor {name} is unknown"))
        });
        let first = self.signature_count;
        for signature in &whole.signatures {
            let Signature { family, model, steppings } = signature;
            writeln!(
                self.signatures,
                "Signature {{ family: {family}, model: {model}, steppings: {:#x} }},",
                mask(steppings)?
            )?;
            self.signature_count += 1;
        }
        let name = self.name(&model.name)?;
        writeln!(
            self.models,
            "Model {{ name: {name}, vendor: {:?}, host: {}, guest: {}, data: Set({:?}), added: Set({added:?}), \
             removed: Set({:?}), first: {first}, signatures: {} }},",
            vendor.transpose()?,
            model.host,
            model.guest,
            whole.data,
            whole.removed,
            whole.signatures.len()
        )?;
        self.count += 1;
        Ok(())
    }

    fn finish(self, releases: &str, vendors: &str) -> Result<String> {
        let mut out = self.features;
        writeln!(out, "static NAMES: &str = {:?};", self.names)?;
        writeln!(out, "/// The releases that the tables were read from, oldest first.")?;
        writeln!(out, "pub static RELEASES: &[Release] = &[{releases}];")?;
        writeln!(out, "/// The vendors.\npub static VENDORS: &[Vendor] = &[{vendors}];")?;
        writeln!(out, "static MODELS: &[Model] = &[{}];", self.models)?;
        writeln!(out, "static SIGNATURES: &[Signature] = &[{}];", self.signatures)?;
        Ok(out)
    }
}

/// Steppings as a mask of 16 bits: `0-4,7`; all if none is named.
fn mask(steppings: &str) -> Result<u16> {
    if steppings.is_empty() {
        return Ok(u16::MAX);
    }
    let mut mask = 0;
    for part in steppings.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        for stepping in first.parse::<u16>()?..=last.parse::<u16>()? {
            mask |= 1_u16.checked_shl(stepping.into()).ok_or_else(|| format!("libvirt: no stepping {stepping}"))?;
        }
    }
    Ok(mask)
}
