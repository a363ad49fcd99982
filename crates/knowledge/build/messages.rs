//! `knowledge/messages/*.toml`: what software prints, and what that means.

use std::fmt::Write as _;

use cpusieve_model::Register;
use toml::Value;

use crate::blocks::{Block, blocks};
use crate::{Result, Tables};

/// The files with messages; their order is that in which messages are looked for.
const FILES: [&str; 7] = ["context", "qemu", "libvirt", "kernel", "vmm", "programs", "faults"];

const STAGES: [(&str, &str); 11] = [
    ("silicon", "Silicon"),
    ("firmware", "Firmware"),
    ("host-kernel", "HostKernel"),
    ("kvm", "Kvm"),
    ("qemu", "Qemu"),
    ("vmm", "Vmm"),
    ("libvirt", "Libvirt"),
    ("management", "Management"),
    ("guest-kernel", "GuestKernel"),
    ("userspace", "Userspace"),
    ("by-feature", "ByFeature"),
];

const SEVERITIES: [(&str, &str); 6] = [
    ("harmless", "Harmless"),
    ("performance", "Performance"),
    ("migration", "Migration"),
    ("security", "Security"),
    ("fatal", "Fatal"),
    ("by-feature", "ByFeature"),
];

/// What a brace stands for.
const TAKES: [(&str, &str); 4] = [("{word}", "Word"), ("{names}", "Names"), ("{hex}", "Hex"), ("{number}", "Number")];

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let mut text = String::from(
        "/// All messages, in the order in which they are looked for.\npub static MESSAGES: &[Message] = &[\n",
    );
    let mut ids = Vec::new();
    for file in FILES {
        let path = format!("messages/{file}.toml");
        for row in &blocks(tables, &path, "message")? {
            let row = Block::new(&path, row)?;
            let id = row.text("id")?;
            if ids.contains(&id) {
                return Err(row.error("this identity stands twice").into());
            }
            text.push_str(&row.message(&id)?);
            ids.push(id);
        }
    }
    text.push_str(
        "];\n/// Model-specific registers, the first row that fits counting.\npub static MSRS: &[Msr] = &[\n",
    );
    for row in &blocks(tables, "messages/msrs.toml", "msr")? {
        text.push_str(&Block::new("messages/msrs.toml", row)?.msr()?);
    }
    text.push_str("];\n/// Kinds of features, the first that has one counting.\npub static CLASSES: &[Class] = &[\n");
    for row in &blocks(tables, "messages/classes.toml", "class")? {
        text.push_str(&Block::new("messages/classes.toml", row)?.class()?);
    }
    text.push_str(
        "];\n/// Names that CPUs are sold under, the first that fits counting.\npub static BRANDS: &[Brand] = &[\n",
    );
    for row in &blocks(tables, "messages/brands.toml", "brand")? {
        text.push_str(&Block::new("messages/brands.toml", row)?.brand()?);
    }
    text.push_str("];\n/// Leaves of CPUID that are more than words of features.\npub static LEAVES: &[Leaf] = &[\n");
    for row in &blocks(tables, "messages/classes.toml", "leaf")? {
        text.push_str(&Block::new("messages/classes.toml", row)?.leaf()?);
    }
    text.push_str("];\n");
    Ok(text)
}

impl Block<'_> {
    fn word(&self, key: &str, words: &[(&str, &'static str)]) -> Result<&'static str> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, name)| *name);
        found.ok_or_else(|| self.error(&format!("`{key}` cannot be `{text}`")).into())
    }

    fn spots(&self) -> Result<String> {
        let spot = |text: &String| spot(text).ok_or_else(|| self.error(&format!("`{text}` is no place")).into());
        Ok(self.list("bits")?.iter().map(spot).collect::<Result<Vec<_>>>()?.join(", "))
    }

    fn hex(&self, key: &str) -> Result<Option<u32>> {
        let Some(text) = self.optional(key)? else { return Ok(None) };
        let number = u32::from_str_radix(&text, 16).map_err(|_| self.error(&format!("`{key}` is no number")))?;
        Ok(Some(number))
    }

    fn message(&self, id: &str) -> Result<String> {
        let says = self.list("says")?;
        if says.is_empty() {
            return Err(self.error("`says` is missing").into());
        }
        let says: Vec<String> = says.iter().map(|says| self.pattern(says)).collect::<Result<_>>()?;
        let tag = self.optional("tag")?;
        let (stage, severity) = if tag.is_some() && self.table.get("stage").is_none() {
            ("ByFeature", "Harmless")
        } else {
            (self.word("stage", &STAGES)?, self.word("severity", &SEVERITIES)?)
        };
        let cause = if tag.is_some() { self.optional("cause")?.unwrap_or_default() } else { self.text("cause")? };
        Ok(format!(
            "Message {{ id: {id:?}, says: &[{}], tag: {tag:?}, with: &{:?}, without: &{:?}, features: &{:?}, \
             bits: &[{}], stage: At::{stage}, severity: Severity::{severity}, weak: {}, title: {:?}, cause: {cause:?}, \
             remedy: {:?}, cpu: {:?}, cite: {:?} }},\n",
            says.join(", "),
            self.list("with")?,
            self.list("without")?,
            self.list("features")?,
            self.spots()?,
            self.table.get("weak").and_then(Value::as_bool).unwrap_or(false),
            self.text("title")?,
            self.optional("remedy")?.unwrap_or_default(),
            self.optional("cpu")?,
            self.optional("cite")?,
        ))
    }

    /// Literal text in lower case; `*` is a gap, a brace takes something.
    fn pattern(&self, says: &str) -> Result<String> {
        let mut pieces = Vec::new();
        let mut rest = says;
        while !rest.is_empty() {
            let next = rest.find(['*', '{']).unwrap_or(rest.len());
            let (literal, tail) = rest.split_at(next);
            if !literal.is_empty() {
                pieces.push(format!("Piece::Text({:?})", literal.to_ascii_lowercase()));
            }
            rest = tail;
            if let Some(tail) = rest.strip_prefix('*') {
                pieces.push("Piece::Gap".to_owned());
                rest = tail;
            } else if let Some((word, name)) = TAKES.iter().find(|(word, _)| rest.starts_with(word)) {
                pieces.push(format!("Piece::Take(Take::{name})"));
                rest = &rest[word.len()..];
            } else if !rest.is_empty() {
                return Err(self.error(&format!("`{says}` has an unknown brace")).into());
            }
        }
        match pieces.first() {
            // Three letters: by these a text is searched.
            Some(first) if first.starts_with("Piece::Text") && first.len() >= "Piece::Text(\"abc\")".len() => {
                Ok(format!("&[{}]", pieces.join(", ")))
            }
            _ => Err(self.error(&format!("`{says}` must begin with three letters of text")).into()),
        }
    }

    fn msr(&self) -> Result<String> {
        let first = self.hex("first")?.ok_or_else(|| self.error("`first` is missing"))?;
        let last = self.hex("last")?.unwrap_or(first);
        if last < first {
            return Err(self.error("`last` is below `first`").into());
        }
        Ok(format!(
            "Msr {{ first: {first:#x}, last: {last:#x}, name: {:?}, what: {:?}, features: &{:?}, bits: &[{}], \
             refused: {:?}, remedy: {:?}, cpu: {:?}, guest: {:?}, cite: {:?} }},\n",
            self.text("name")?,
            self.text("what")?,
            self.list("features")?,
            self.spots()?,
            self.text("refused")?,
            self.text("remedy")?,
            self.optional("cpu")?,
            self.text("guest")?,
            self.optional("cite")?,
        ))
    }

    fn class(&self) -> Result<String> {
        Ok(format!(
            "Class {{ name: {:?}, features: &{:?}, prefixes: &{:?}, groups: &{:?}, severity: Severity::{}, \
             stage: At::{}, means: {:?}, remedy: {:?} }},\n",
            self.text("name")?,
            self.list("features")?,
            self.list("prefixes")?,
            self.list("groups")?,
            self.word("severity", &SEVERITIES)?,
            self.word("stage", &STAGES)?,
            self.text("means")?,
            self.text("remedy")?,
        ))
    }

    fn leaf(&self) -> Result<String> {
        let leaf = self.hex("leaf")?.ok_or_else(|| self.error("`leaf` is missing"))?;
        let (feature, what) = (self.optional("feature")?, self.text("what")?);
        Ok(format!("Leaf {{ leaf: {leaf:#x}, feature: {feature:?}, what: {what:?} }},\n"))
    }

    fn brand(&self) -> Result<String> {
        let says: Vec<String> = self.list("says")?.iter().map(|says| self.pattern(says)).collect::<Result<_>>()?;
        Ok(format!(
            "Brand {{ says: &[{}], generation: {:?}, name: {:?} }},\n",
            says.join(", "),
            self.text("generation")?,
            self.text("name")?
        ))
    }
}

/// `1.ECX[5]`, `7.0.EBX[16]`, `8000001D.3.EDX[2]`, `80000008.EAX[7:0]`, `A.EAX`, `MSR 3A`, `MSR 3A[0]`, `XCR0[5]`.
fn spot(text: &str) -> Option<String> {
    let (place, bits) = match text.split_once('[') {
        Some((place, bits)) => (place, Some(bits.strip_suffix(']')?)),
        None => (text, None),
    };
    let bits = match bits {
        None => None,
        Some(bits) => {
            let (high, low) = bits.split_once(':').unwrap_or((bits, bits));
            Some((high.parse::<u8>().ok()?, low.parse::<u8>().ok()?))
        }
    };
    let mut out = String::new();
    if place == "XCR0" {
        let (bit, _) = bits?;
        let _ = write!(out, "Spot::Xcr0({bit})");
        return Some(out);
    }
    if let Some(index) = place.strip_prefix("MSR ") {
        let index = u32::from_str_radix(index, 16).ok()?;
        let _ = write!(out, "Spot::Msr {{ index: {index:#x}, bits: {bits:?} }}");
        return Some(out);
    }
    let mut parts = place.split('.').rev();
    let register = Register::from_name(parts.next()?)?;
    let numbers: Vec<u32> = parts.map(|part| u32::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let (leaf, subleaf) = match numbers[..] {
        [leaf] => (leaf, 0),
        [subleaf, leaf] => (leaf, subleaf),
        _ => return None,
    };
    let _ = write!(
        out,
        "Spot::Cpuid {{ leaf: {leaf:#x}, subleaf: {subleaf}, register: Register::{register:?}, bits: {bits:?} }}"
    );
    Some(out)
}
