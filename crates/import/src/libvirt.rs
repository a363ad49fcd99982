//! libvirt's CPU map, read out of a source tree: what its names of x86 features and models mean.
//!
//! [`LibvirtFacts::read`] takes a source tree and returns what the files of `src/cpu_map` say that `index.xml` names, in
//! its order, as `src/cpu/cpu_map.c:cpuMapLoad` reads them. Understood are the layouts from 9.0 on.
//!
//! ```
//! use cpusieve_import::libvirt;
//!
//! let tree = |path: &str| (path == "meson.build").then(|| "project(\n  'libvirt', 'c',\n  version: '11.3.0',\n".to_owned());
//! assert_eq!(libvirt::version(&tree).unwrap(), "11.3.0");
//! let error = libvirt::LibvirtFacts::read(&tree).unwrap_err();
//! assert_eq!(error.to_string(), "src/cpu_map/index.xml is not in the tree");
//! ```

use std::collections::BTreeMap;

use cpusieve_model::{CpuidBit, MsrBit, Place, Register};

use crate::SourceTree;
use crate::xml::{Kind, Tag, tags};

/// What one libvirt tree says about CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibvirtFacts {
    /// The vendors.
    pub vendors: Vec<Vendor>,
    /// The features, each of them one bit, by bit: in no order of libvirt's, whose arithmetic does not hang on it.
    pub features: Vec<Feature>,
    /// The models.
    pub models: Vec<Model>,
    /// What the models list themselves, by model, in the order of [`LibvirtFacts::models`].
    pub words: Vec<ModelWord>,
}

/// A vendor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vendor {
    /// libvirt's name: `Intel`.
    pub name: String,
    /// What CPUID shows: `GenuineIntel`.
    pub string: String,
}

/// A feature. Sorts by its bit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature {
    /// Its bit.
    pub place: Place,
    /// libvirt's name.
    pub name: String,
    /// Whether a guest that has it can be migrated.
    pub migratable: bool,
}

/// A CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name.
    pub name: String,
    /// The model whose features, vendor and signatures it has unless it says otherwise.
    pub base: Option<String>,
    /// The vendor that it names itself.
    pub vendor: Option<String>,
    /// Whether a host may be called that.
    pub host: bool,
    /// Whether a guest's CPU may be called that when libvirt chooses the name.
    pub guest: bool,
    /// The CPUs that it names itself.
    pub signatures: Vec<Signature>,
}

/// The CPUs of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Display family.
    pub family: u16,
    /// Display model.
    pub model: u8,
    /// The steppings, as numbers and ranges: `0-4`; all if it is empty.
    pub steppings: String,
}

/// How a model lists a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// As its own.
    Own,
    /// In the hypervisor's model from the start, put into the map later: not counted.
    Added,
    /// Once its own, and gone: not counted, and turned off in guests.
    Removed,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Added, Self::Removed];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// The features of one register that a model lists with one mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelWord {
    /// The model.
    pub model: String,
    /// The mark.
    pub mark: Mark,
    /// The register: `7.0.EBX`, `MSR 10A`.
    pub register: String,
    /// libvirt's names, by bit.
    pub features: Vec<String>,
}

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LibvirtError {
    /// A file is missing.
    #[error("{0} is not in the tree")]
    Missing(String),
    /// A file says something that is not understood.
    #[error("{path}: {what}")]
    Unread {
        /// The file.
        path: String,
        /// What, and what was expected.
        what: String,
    },
}

/// The release of a tree: `11.3.0`.
///
/// # Errors
/// If `meson.build` is missing or names none.
pub fn version(tree: &dyn SourceTree) -> Result<String, LibvirtError> {
    let path = "meson.build";
    let text = tree.read(path).ok_or_else(|| LibvirtError::Missing(path.to_owned()))?;
    let value = |line: &str| Some(line.trim().strip_prefix("version:")?.split('\'').nth(1)?.to_owned());
    let what = || "no version of the project".to_owned();
    text.lines().find_map(value).ok_or_else(|| LibvirtError::Unread { path: path.to_owned(), what: what() })
}

/// The register that a bit is in, as the tables write it.
#[must_use]
pub fn register(place: Place) -> String {
    let text = print_place(place);
    text.split_once('[').map_or(text.clone(), |(register, _)| register.to_owned())
}

/// A place as the tables write it: `1.EDX[22]`, `7.0.EBX[16]`, `MSR 10A[1]`.
#[must_use]
pub fn print_place(place: Place) -> String {
    match place {
        Place::Msr(bit) => format!("MSR {:X}[{}]", bit.index, bit.bit),
        other => format!("{other:#}"),
    }
}

const FOLDER: &str = "src/cpu_map";

/// One file of the map.
struct File<'a> {
    path: String,
    facts: &'a mut LibvirtFacts,
}

impl LibvirtFacts {
    /// Reads a tree's map of x86.
    ///
    /// # Errors
    /// The first file that is missing, or that says something that is not understood.
    pub fn read(tree: &dyn SourceTree) -> Result<Self, LibvirtError> {
        let read = |path: &str| tree.read(path).ok_or_else(|| LibvirtError::Missing(path.to_owned()));
        let mut facts = Self::default();
        for name in includes(&read(&format!("{FOLDER}/index.xml"))?) {
            let path = format!("{FOLDER}/{name}");
            let text = read(&path)?;
            File { path, facts: &mut facts }.read(&text)?;
        }
        facts.features.sort();
        Ok(facts)
    }

    /// What contradicts itself, as sentences; empty if the tree was read rightly.
    #[must_use]
    pub fn broken_laws(&self) -> Vec<String> {
        let mut laws = Vec::new();
        let mut places = BTreeMap::new();
        for feature in &self.features {
            if let Some(other) = places.insert(feature.place, &feature.name) {
                laws.push(format!("{} and {other} are one bit", feature.name));
            }
        }
        for (at, model) in self.models.iter().enumerate() {
            let before = self.models.get(..at).unwrap_or_default();
            if before.iter().any(|other| other.name == model.name) {
                laws.push(format!("the model {} stands twice", model.name));
            }
            if let Some(base) = model.base.as_ref().filter(|base| !before.iter().any(|other| other.name == **base)) {
                laws.push(format!("{} is made of {base}, which does not stand before it", model.name));
            }
            if let Some(vendor) = &model.vendor
                && !self.vendors.iter().any(|known| known.name == *vendor)
            {
                laws.push(format!("the vendor {vendor} of {} is unknown", model.name));
            }
        }
        if [self.vendors.len(), self.features.len(), self.models.len()].contains(&0) {
            laws.push("no vendors, features or models".to_owned());
        }
        laws
    }
}

/// The files that the index names for x86.
fn includes(index: &str) -> Vec<&str> {
    let mut is_x86 = false;
    let mut found = Vec::new();
    for tag in tags(index) {
        match (tag.name, tag.kind) {
            ("arch", Kind::Open) => is_x86 = tag.attribute("name") == Some("x86"),
            ("include", Kind::Empty) if is_x86 => found.extend(tag.attribute("filename")),
            _ => {}
        }
    }
    found
}

impl File<'_> {
    fn unread(&self, what: impl Into<String>) -> LibvirtError {
        LibvirtError::Unread { path: self.path.clone(), what: what.into() }
    }

    fn needed<'t>(&self, tag: &Tag<'t>, attribute: &str) -> Result<&'t str, LibvirtError> {
        tag.attribute(attribute).ok_or_else(|| self.unread(format!("<{}> without {attribute}", tag.name)))
    }

    fn read(&mut self, text: &str) -> Result<(), LibvirtError> {
        let mut tags = tags(text);
        while let Some(tag) = tags.next() {
            match (tag.name, tag.kind) {
                ("vendor", Kind::Empty) => {
                    let (name, string) = (self.needed(&tag, "name")?, self.needed(&tag, "string")?);
                    self.facts.vendors.push(Vendor { name: name.to_owned(), string: string.to_owned() });
                }
                ("feature", Kind::Open) => self.feature(&tag, &mut tags)?,
                ("model", Kind::Open) => self.model(&tag, &mut tags)?,
                ("cpus", _) => {}
                (name, _) => return Err(self.unread(format!("<{name}> is not expected here"))),
            }
        }
        Ok(())
    }

    /// A feature, up to its end.
    fn feature<'t>(&mut self, tag: &Tag<'t>, tags: &mut impl Iterator<Item = Tag<'t>>) -> Result<(), LibvirtError> {
        let name = self.needed(tag, "name")?;
        let migratable = tag.attribute("migratable") != Some("no");
        let mut places = Vec::new();
        for tag in tags.take_while(|tag| tag.kind != Kind::Close) {
            match tag.name {
                "cpuid" => self.cpuid(&tag, &mut places)?,
                "msr" => self.msr(&tag, &mut places)?,
                "alias" => {}
                other => return Err(self.unread(format!("<{other}> in the feature {name}"))),
            }
        }
        let [place] = places[..] else {
            return Err(self.unread(format!("the feature {name} has {} bits; expected one", places.len())));
        };
        self.facts.features.push(Feature { place, name: name.to_owned(), migratable });
        Ok(())
    }

    /// The value of an attribute in hexadecimal, zero if it is missing.
    fn number(&self, tag: &Tag<'_>, attribute: &str) -> Result<u32, LibvirtError> {
        let Some(text) = tag.attribute(attribute) else { return Ok(0) };
        let number = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| self.unread(format!("{attribute}='{text}' is no number in hexadecimal")))
    }

    fn cpuid(&self, tag: &Tag<'_>, places: &mut Vec<Place>) -> Result<(), LibvirtError> {
        let (leaf, subleaf) = (self.number(tag, "eax_in")?, self.number(tag, "ecx_in")?);
        for register in [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx] {
            let mask = self.number(tag, &register.name().to_ascii_lowercase())?;
            let bits = (0..32).filter(|bit| mask >> bit & 1 == 1);
            places.extend(bits.map(|bit| Place::Cpuid(CpuidBit::new(leaf, subleaf, register, bit))));
        }
        Ok(())
    }

    fn msr(&self, tag: &Tag<'_>, places: &mut Vec<Place>) -> Result<(), LibvirtError> {
        let index = self.number(tag, "index")?;
        let value = u64::from(self.number(tag, "edx")?) << 32 | u64::from(self.number(tag, "eax")?);
        let bits = (0..64).filter(|bit| value >> bit & 1 == 1);
        places.extend(bits.map(|bit| Place::Msr(MsrBit { index, bit })));
        Ok(())
    }

    /// A model, up to its end.
    fn model<'t>(&mut self, tag: &Tag<'t>, tags: &mut impl Iterator<Item = Tag<'t>>) -> Result<(), LibvirtError> {
        let name = self.needed(tag, "name")?.to_owned();
        let mut model = Model { name, base: None, vendor: None, host: false, guest: false, signatures: Vec::new() };
        let mut listed = BTreeMap::new();
        for tag in tags.take_while(|tag| tag.kind != Kind::Close) {
            match tag.name {
                "decode" => {
                    model.host = tag.attribute("host") == Some("on");
                    model.guest = tag.attribute("guest") == Some("on");
                }
                "model" => model.base = Some(self.needed(&tag, "name")?.to_owned()),
                "vendor" => model.vendor = Some(self.needed(&tag, "name")?.to_owned()),
                "signature" => model.signatures.push(self.signature(&tag)?),
                "feature" => self.listed(&tag, &mut listed)?,
                // How libvirt itself checks a guest that asks for `check='partial'`.
                "check" => {}
                other => return Err(self.unread(format!("<{other}> in the model {}", model.name))),
            }
        }
        // By mark, then in the order of the features' bits.
        let mut words: Vec<ModelWord> = Vec::new();
        for ((mark, place), feature) in listed {
            let register = register(place);
            match words.last_mut().filter(|word| (word.mark, &word.register) == (mark, &register)) {
                Some(word) => word.features.push(feature),
                None => words.push(ModelWord { model: model.name.clone(), mark, register, features: vec![feature] }),
            }
        }
        self.facts.words.extend(words);
        self.facts.models.push(model);
        Ok(())
    }

    fn listed(&self, tag: &Tag<'_>, to: &mut BTreeMap<(Mark, Place), String>) -> Result<(), LibvirtError> {
        let name = self.needed(tag, "name")?;
        let mark = match (tag.attribute("removed"), tag.attribute("added")) {
            (Some("yes"), _) => Mark::Removed,
            (_, Some("yes")) => Mark::Added,
            _ => Mark::Own,
        };
        let known = self.facts.features.iter().find(|feature| feature.name == name);
        let place = known.ok_or_else(|| self.unread(format!("the feature {name} is unknown")))?.place;
        to.insert((mark, place), name.to_owned());
        Ok(())
    }

    fn signature(&self, tag: &Tag<'_>) -> Result<Signature, LibvirtError> {
        let wrong = || self.unread("a signature that is no family and model");
        Ok(Signature {
            family: self.needed(tag, "family")?.parse().map_err(|_| wrong())?,
            model: self.needed(tag, "model")?.parse().map_err(|_| wrong())?,
            steppings: tag.attribute("stepping").unwrap_or("").to_owned(),
        })
    }
}
