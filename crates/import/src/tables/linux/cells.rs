//! How a row of `knowledge/linux/` says each kind of fact.

use cpusieve_model::{CpuidBit, Register, has_subleaves};

use super::{Number, PowerFlag};
use crate::linux::{Dependency, Flag, Level, Mask, MaskKind, NamingRule, Scattered, Shown, Word};
use crate::tables::facts::{Fact, Row, cells_of};

impl Fact for Number {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        let (name, value) = match self {
            Self::Ncapints(number) => ("NCAPINTS", number.to_string()),
            Self::Nbugints(number) => ("NBUGINTS", number.to_string()),
            Self::Nvmxints(number) => ("NVMXINTS", number.to_string()),
            Self::Naming(NamingRule::MacroUnlessQuoted) => ("naming", "macro-unless-quoted".to_owned()),
            Self::Naming(NamingRule::HiddenUnlessQuoted) => ("naming", "hidden-unless-quoted".to_owned()),
        };
        vec![name.to_owned(), value]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u8>().map_err(|_| format!("`{text}` is not a number of words"));
        match *cells {
            ["NCAPINTS", text] => number(text).map(Self::Ncapints),
            ["NBUGINTS", text] => number(text).map(Self::Nbugints),
            ["NVMXINTS", text] => number(text).map(Self::Nvmxints),
            ["naming", "macro-unless-quoted"] => Ok(Self::Naming(NamingRule::MacroUnlessQuoted)),
            ["naming", "hidden-unless-quoted"] => Ok(Self::Naming(NamingRule::HiddenUnlessQuoted)),
            _ => Err(format!("`{}` is no number or rule", cells.join(" "))),
        }
    }
}

impl Fact for Word {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.index.to_string(), self.name.clone()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [index, name] = cells_of(cells)?;
        Ok(Self { index: small(index, 255)?, name: name.to_owned() })
    }
}

impl Fact for Flag {
    const CELLS: usize = 4;

    fn cells(&self) -> Vec<String> {
        let shown = match &self.shown {
            Shown::Name(name) => name.clone(),
            Shown::Hidden => "-".to_owned(),
            Shown::Shadowed(name) => format!("~{name}"),
        };
        let only_if = self.only_if.clone().unwrap_or_else(|| "-".to_owned());
        vec![format!("{}*32+{}", self.word, self.bit), self.macro_name.clone(), shown, only_if]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [place, macro_name, shown, only_if] = cells_of(cells)?;
        let (word, bit) = place.split_once("*32+").ok_or_else(|| format!("`{place}` is not of the form 9*32+5"))?;
        let shown = match (shown, shown.strip_prefix('~')) {
            ("-", _) => Shown::Hidden,
            (_, Some(name)) => Shown::Shadowed(name.to_owned()),
            (name, None) => Shown::Name(name.to_owned()),
        };
        let only_if = (only_if != "-").then(|| only_if.to_owned());
        Ok(Self { word: small(word, 255)?, bit: small(bit, 31)?, macro_name: macro_name.to_owned(), shown, only_if })
    }
}

/// A flag in a table without the column `only-if`: there is no such flag in it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PlainFlag(Flag);

impl Fact for PlainFlag {
    const CELLS: usize = Flag::CELLS - 1;

    fn cells(&self) -> Vec<String> {
        let mut cells = self.0.cells();
        cells.truncate(Self::CELLS);
        cells
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        Flag::from_cells(&[cells, &["-"]].concat()).map(Self)
    }
}

pub(super) fn unwrapped(rows: Vec<Row<PlainFlag>>) -> Vec<Row<Flag>> {
    rows.into_iter().map(|row| Row { fact: row.fact.0, trees: row.trees }).collect()
}

pub(super) fn wrapped(rows: &[Row<Flag>]) -> Vec<Row<PlainFlag>> {
    rows.iter().map(|row| Row { fact: PlainFlag(row.fact.clone()), trees: row.trees }).collect()
}

impl Fact for PowerFlag {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.bit.to_string(), self.name.clone()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [bit, name] = cells_of(cells)?;
        Ok(Self { bit: small(bit, 31)?, name: name.to_owned() })
    }
}

impl Fact for Scattered {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.macro_name.clone(), print_bit(self.place)]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [macro_name, place] = cells_of(cells)?;
        let place = parse_bit(place).ok_or_else(|| format!("`{place}` is not of the form 7.0.EBX[16] or 1.EDX[22]"))?;
        Ok(Self { macro_name: macro_name.to_owned(), place })
    }
}

impl Fact for Dependency {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.feature.clone(), self.needs.clone()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [feature, needs] = cells_of(cells)?;
        Ok(Self { feature: feature.to_owned(), needs: needs.to_owned() })
    }
}

impl Fact for Level {
    const CELLS: usize = 2;

    fn cells(&self) -> Vec<String> {
        vec![self.feature.clone(), format!("{:X}", self.leaf)]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [feature, leaf] = cells_of(cells)?;
        let leaf = u32::from_str_radix(leaf, 16).map_err(|_| format!("`{leaf}` is not a leaf in hexadecimal"))?;
        Ok(Self { feature: feature.to_owned(), leaf })
    }
}

impl Fact for Mask {
    const CELLS: usize = 3;

    fn cells(&self) -> Vec<String> {
        let kind = match self.kind {
            MaskKind::Required => "required",
            MaskKind::Disabled => "disabled",
        };
        vec![kind.to_owned(), self.feature.clone(), self.condition.clone()]
    }

    fn from_cells(cells: &[&str]) -> Result<Self, String> {
        let [kind, feature, condition] = cells_of(cells)?;
        let kind = match kind {
            "required" => MaskKind::Required,
            "disabled" => MaskKind::Disabled,
            other => return Err(format!("`{other}` is neither `required` nor `disabled`")),
        };
        Ok(Self { kind, feature: feature.to_owned(), condition: condition.to_owned() })
    }
}

/// A decimal number up to `most`.
fn small(text: &str, most: u8) -> Result<u8, String> {
    text.parse().ok().filter(|&number| number <= most).ok_or_else(|| format!("`{text}` is not a number up to {most}"))
}

/// A CPUID bit in its short form, `7.0.EBX[16]` or `1.EDX[22]`. A subleaf other than 0 is always written.
#[must_use]
pub fn print_bit(place: CpuidBit) -> String {
    let CpuidBit { leaf, subleaf, register, bit } = place;
    if subleaf != 0 || has_subleaves(leaf) {
        format!("{leaf:X}.{subleaf:X}.{register}[{bit}]")
    } else {
        format!("{leaf:X}.{register}[{bit}]")
    }
}

/// The inverse of [`print_bit`].
#[must_use]
pub fn parse_bit(text: &str) -> Option<CpuidBit> {
    let (register, bit) = text.strip_suffix(']')?.split_once('[')?;
    let bit = bit.parse().ok().filter(|&bit: &u8| bit < 32)?;
    let hexadecimal = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let parts: Vec<&str> = register.split('.').collect();
    let (leaf, subleaf, register) = match parts[..] {
        [leaf, register] => (leaf, "0", register),
        [leaf, subleaf, register] => (leaf, subleaf, register),
        _ => return None,
    };
    Some(CpuidBit::new(hexadecimal(leaf)?, hexadecimal(subleaf)?, Register::from_name(register)?, bit))
}
