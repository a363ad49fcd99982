//! `knowledge/rules/*.toml`: rules and KVM's conditions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_import::tables::TreeList;
use cpusieve_model::Register;
use toml::{Table, Value};

use crate::blocks::Block;
use crate::{Result, Tables, slots};

/// The files, with the table of releases that their `trees` are sets of.
const FILES: [(&str, &str, &str); 6] = [
    ("rules/silicon.toml", "silicon", "linux/trees.tsv"),
    ("rules/kvm.toml", "kvm", "linux/trees.tsv"),
    ("rules/linux.toml", "linux", "linux/trees.tsv"),
    ("rules/qemu.toml", "qemu", "qemu/releases.tsv"),
    ("rules/firecracker.toml", "firecracker", "vmm/firecracker-releases.tsv"),
    ("rules/cloud-hypervisor.toml", "cloud-hypervisor", "vmm/cloud-hypervisor-releases.tsv"),
];

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let mut rules = BTreeMap::new();
    let mut conditions = BTreeMap::new();
    let mut by_feature: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut by_when: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut by_function: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, software, releases) in FILES {
        let releases = TreeList::parse(releases, &tables.read(releases)?)?;
        let file: Table = tables.read(path)?.parse().map_err(|error| format!("{path}: {error}"))?;
        let blocks = |key: &str| file.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        for block in blocks("rule") {
            let block = Block::new(path, &block)?;
            let id = block.id()?;
            let features = block.list("feature")?;
            if let (true, Some(when)) = (features.is_empty(), block.optional("when")?)
                && by_when.insert((when, software.to_owned()), id.clone()).is_some()
            {
                return Err(block.error("another generic rule stands for this situation").into());
            }
            if let ("linux", Some((_, function))) = (software, block.cite()?.split_once(':')) {
                by_function.entry(function.to_owned()).or_default().push(id.clone());
            }
            for feature in features {
                by_feature.entry(feature).or_default().push(id.clone());
            }
            if rules.insert(id.clone(), block.rule(software, &releases)?).is_some() {
                return Err(block.error("this identity stands twice").into());
            }
        }
        for block in blocks("condition") {
            let block = Block::new(path, &block)?;
            let id = block.id()?;
            if rules.contains_key(&id) || conditions.insert(id, block.condition(&releases)?).is_some() {
                return Err(block.error("this identity stands twice").into());
            }
        }
    }
    print(&rules, &conditions, &[("BY_FEATURE", &by_feature), ("BY_FUNCTION", &by_function)], &by_when)
}

fn print(
    rules: &BTreeMap<String, String>,
    conditions: &BTreeMap<String, String>,
    lists: &[(&str, &BTreeMap<String, Vec<String>>)],
    by_when: &BTreeMap<(String, String), String>,
) -> Result<String> {
    let position: BTreeMap<&String, usize> = rules.keys().enumerate().map(|(index, id)| (id, index)).collect();
    let mut text = String::from("/// All rules, by identity.\npub static RULES: &[Rule] = &[\n");
    rules.values().for_each(|rule| text.push_str(rule));
    text.push_str("];\n");
    slots::write(&mut text, "RULES", rules.keys().map(String::as_str))?;
    text.push_str("/// All conditions of KVM's code, by identity.\npub static KVM_CONDITIONS: &[KvmCondition] = &[\n");
    conditions.values().for_each(|condition| text.push_str(condition));
    text.push_str("];\n");
    for (name, list) in lists {
        let _ = writeln!(text, "static {name}: &[(&str, &[u16])] = &[");
        for (key, ids) in *list {
            let mut indices: Vec<usize> = ids.iter().map(|id| position[id]).collect();
            indices.sort_unstable();
            indices.dedup();
            let _ = writeln!(text, "({key:?}, &{indices:?}),");
        }
        text.push_str("];\n");
        slots::write(&mut text, name, list.keys().map(String::as_str))?;
    }
    text.push_str("static BY_WHEN: &[(&str, Software, u16)] = &[\n");
    for ((when, software), id) in by_when {
        let _ = writeln!(text, "({when:?}, Software::{}, {}),", software_name(software), position[id]);
    }
    text.push_str("];\n");
    slots::write(&mut text, "BY_WHEN", by_when.keys().map(|(when, _)| when.as_str()))?;
    Ok(text)
}

fn software_name(software: &str) -> &'static str {
    match software {
        "kvm" => "Kvm",
        "linux" => "Linux",
        "qemu" => "Qemu",
        "firecracker" => "Firecracker",
        "cloud-hypervisor" => "CloudHypervisor",
        _ => "Silicon",
    }
}

impl Block<'_> {
    fn id(&self) -> Result<String> {
        let id = self.text("id")?;
        let well_formed = id.len() == 7
            && id[..3].bytes().all(|byte| byte.is_ascii_uppercase())
            && id[3..].bytes().all(|byte| byte.is_ascii_digit());
        if well_formed { Ok(id) } else { Err(self.error("an identity is three capitals and four digits").into()) }
    }

    fn cite(&self) -> Result<String> {
        let cite = self.text("cite")?;
        let parses = cite.split_once(':').is_some_and(|(file, function)| {
            file.contains('.') && !file.contains(' ') && !function.is_empty() && !function.contains(' ')
        });
        if parses { Ok(cite) } else { Err(self.error(&format!("the cite `{cite}` is not file:function")).into()) }
    }

    fn trees(&self, releases: &TreeList) -> Result<u64> {
        let set = releases.parse_set(&self.text("trees")?).map_err(|error| self.error(&error.to_string()))?;
        Ok(set.0)
    }

    fn remedy(&self) -> Result<String> {
        let Some(value) = self.table.get("remedy") else { return Ok("None".to_owned()) };
        let table = value.as_table().ok_or_else(|| self.error("`remedy` is not a table"))?;
        let inner = Block { path: self.path, table };
        let kind = match inner.text("kind")?.as_str() {
            "qemu" => "Qemu",
            "machine" => "Machine",
            "module" => "Module",
            "kernel" => "Kernel",
            "firmware" => "Firmware",
            "hardware" => "Hardware",
            "none" => "None",
            other => return Err(self.error(&format!("no kind of remedy is called `{other}`")).into()),
        };
        let (text, cpu) = (inner.text("text")?, inner.optional("cpu")?);
        Ok(format!("Some(Remedy {{ kind: RemedyKind::{kind}, text: {text:?}, cpu: {cpu:?} }})"))
    }

    fn rule(&self, software: &str, releases: &TreeList) -> Result<String> {
        let stage = self.text("stage")?;
        if stage != software {
            return Err(self.error(&format!("stage `{stage}` does not belong into this file")).into());
        }
        let software = software_name(software);
        let effect = match self.text("effect")?.as_str() {
            "sets" => "Sets",
            "clears" => "Clears",
            "forces" => "Forces",
            other => return Err(self.error(&format!("no effect is called `{other}`")).into()),
        };
        let needs = self.list("needs")?;
        let needs: Vec<String> = needs.iter().map(|need| self.need(need)).collect::<Result<_>>()?;
        let features = self.list("feature")?;
        let when = self.optional("when")?;
        if features.is_empty() && when.is_none() {
            return Err(self.error("a rule without `feature` needs `when`").into());
        }
        Ok(format!(
            "Rule {{ id: RuleId({:?}), software: Software::{software}, features: &{features:?}, when: {when:?}, \
             only: {:?}, effect: RuleEffect::{effect}, trees: RuleTrees(TreeSet({})), needs: &[{}], cite: Cite({:?}), title: {:?}, \
             cause: {:?}, remedy: {} }},\n",
            self.id()?,
            self.optional("only")?,
            self.trees(releases)?,
            needs.join(", "),
            self.cite()?,
            self.text("title")?,
            self.text("cause")?,
            self.remedy()?,
        ))
    }

    fn condition(&self, releases: &TreeList) -> Result<String> {
        let never = match self.optional("holds")?.as_deref() {
            None => false,
            Some("never") => true,
            Some(other) => return Err(self.error(&format!("`holds` is `{other}`, and can only be `never`")).into()),
        };
        Ok(format!(
            "KvmCondition {{ id: RuleId({:?}), c: &{:?}, trees: RuleTrees(TreeSet({})), never: {never}, cite: Cite({:?}), \
             title: {:?}, cause: {:?}, remedy: {} }},\n",
            self.id()?,
            self.list("c")?,
            self.trees(releases)?,
            self.cite()?,
            self.text("title")?,
            self.text("cause")?,
            self.remedy()?,
        ))
    }

    fn need(&self, text: &str) -> Result<String> {
        let (negated, positive) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (kind, value) = positive.split_once(':').unwrap_or((positive, ""));
        let wrong = || self.error(&format!("the condition `{text}` cannot be read; docs/rules.md has the kinds"));
        let words = value.trim_matches('"');
        let condition = match kind {
            "cpuid" => format!("Cpuid({})", cpuid_bit(value).ok_or_else(wrong)?),
            "flag" => format!("Flag({value:?})"),
            "msr" => format!("Msr({})", msr_bit(value).ok_or_else(wrong)?),
            "vendor" => format!("Vendor(&[{}])", vendors(value).ok_or_else(wrong)?),
            "vm" if value.is_empty() => "Vm".to_owned(),
            "hypervisor" => format!("Hypervisor({value:?})"),
            "family" => {
                let (first, last) = value.split_once("..").unwrap_or((value, value));
                let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
                format!("Family({first}, {last})")
            }
            "model" => match signatures(words) {
                Some(signatures) => format!("Signature(&[{signatures}])"),
                None => format!("Model({words:?})"),
            },
            "param" => format!("Param({words:?})"),
            "config" => format!("Config({words:?})"),
            "other" => decidable(words).unwrap_or_else(|| format!("Other({words:?})")),
            _ => return Err(wrong().into()),
        };
        Ok(format!("Need {{ negated: {negated}, condition: Condition::{condition} }}"))
    }
}

/// `6/0e..3a,17/31:0,6/97`, as Rust expressions.
fn signatures(words: &str) -> Option<String> {
    let range = |text: &str| -> Option<(u32, u32)> {
        let hexadecimal = |text: &str| u32::from_str_radix(text, 16).ok();
        match text.split_once("..") {
            Some((first, "")) => Some((hexadecimal(first)?, u32::MAX)),
            Some((first, last)) => Some((hexadecimal(first)?, hexadecimal(last)?)),
            None => Some((hexadecimal(text)?, hexadecimal(text)?)),
        }
    };
    let signature = |part: &str| -> Option<String> {
        let (family, rest) = part.trim().split_once('/')?;
        let family = u32::from_str_radix(family, 16).ok()?;
        let (models, steppings) = match rest.split_once(':') {
            Some((models, steppings)) => (range(models)?, range(steppings)?),
            None => (range(rest)?, (0, u32::MAX)),
        };
        Some(format!("Signature {{ family: {family}, models: {models:?}, steppings: {steppings:?} }}"))
    };
    let all: Vec<String> = words.split(',').map(signature).collect::<Option<_>>()?;
    Some(all.join(", "))
}

/// Words of `other` that mean one thing exactly, as a Rust expression.
fn decidable(words: &str) -> Option<String> {
    let parts: Vec<&str> = words.split(' ').collect();
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    match parts[..] {
        ["MSR", index, "readable"] => Some(format!("MsrReadable({:#x})", hexadecimal(index)?)),
        ["microcode", "<", revision] => Some(format!("MicrocodeBelow({:#x})", hexadecimal(revision)?)),
        ["bug", name] => Some(format!("Bug({name:?})")),
        [field, comparison @ (">=" | "="), number] => {
            let number: u32 = number.parse().ok()?;
            let (place, bits) = field.strip_suffix(']')?.split_once('[')?;
            let (high, low) = bits.split_once(':').unwrap_or((bits, bits));
            let (high, low): (u8, u8) = (high.parse().ok()?, low.parse().ok()?);
            let width = high.checked_sub(low)? + 1;
            let bit = cpuid_bit(&format!("{place}[{low}]"))?;
            let exactly = comparison == "=";
            Some(format!("Field(Field {{ low: {bit}, width: {width}, exactly: {exactly}, number: {number} }})"))
        }
        // A register that is compared as a whole.
        _ => None,
    }
}

/// `7.0.EBX[16]` or `1.EDX[22]`, as a Rust expression.
fn cpuid_bit(text: &str) -> Option<String> {
    let (place, bit) = text.strip_suffix(']')?.split_once('[')?;
    let bit: u8 = bit.parse().ok().filter(|&bit| bit < 32)?;
    let mut parts = place.split('.').rev();
    let register = Register::from_name(parts.next()?)?;
    let numbers: Vec<u32> = parts.map(|part| u32::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let (leaf, subleaf) = match numbers[..] {
        [leaf] => (leaf, 0),
        [subleaf, leaf] => (leaf, subleaf),
        _ => return None,
    };
    Some(format!("CpuidBit::new({leaf:#x}, {subleaf}, cpusieve_model::Register::{register:?}, {bit})"))
}

/// `10A[1]`, as a Rust expression.
fn msr_bit(text: &str) -> Option<String> {
    let (index, bit) = text.strip_suffix(']')?.split_once('[')?;
    let index = u32::from_str_radix(index, 16).ok()?;
    let bit: u8 = bit.parse().ok().filter(|&bit| bit < 64)?;
    Some(format!("MsrBit {{ index: {index:#x}, bit: {bit} }}"))
}

fn vendors(text: &str) -> Option<String> {
    let vendors: Vec<&str> = text
        .split(',')
        .map(|name| {
            Some(match name.trim() {
                "intel" => "Vendor::Intel",
                "amd" => "Vendor::Amd",
                "hygon" => "Vendor::Hygon",
                "centaur" => "Vendor::Centaur",
                "zhaoxin" => "Vendor::Zhaoxin",
                "transmeta" => "Vendor::Transmeta",
                "other" => "Vendor::Other",
                _ => return None,
            })
        })
        .collect::<Option<_>>()?;
    Some(vendors.join(", "))
}
