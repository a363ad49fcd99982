//! `knowledge/x86/generations.toml`: CPU generations and the flags that tell them apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cpusieve_import::tables::{TreeList, rows};
use toml::{Table, Value};

use crate::{Result, Tables};

const FILE: &str = "x86/generations.toml";

/// What a generation says of a flag; a flag it says nothing of is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trait {
    Has,
    May,
}

struct Generation<'a> {
    table: &'a Table,
    traits: BTreeMap<String, Trait>,
}

/// `known` says whether a feature id exists.
pub(crate) fn generate(tables: &Tables, known: &dyn Fn(&str) -> bool) -> Result<String> {
    let text = tables.read(FILE)?;
    let file: Table = text.parse().map_err(|error| format!("{FILE}: {error}"))?;
    let telling = strings(&file, "telling")?;
    let host_only = strings(&file, "host_only")?;
    for flag in telling.iter().chain(&host_only) {
        if !known(flag) || !telling.contains(flag) {
            return Err(format!("{FILE}: `{flag}` is no feature, or not among `telling`").into());
        }
    }
    let mut out = String::new();
    write_telling(&telling, &host_only, &first_printed(tables)?, &mut out)?;
    let blocks = file.get("generation").and_then(Value::as_array).ok_or("no [[generation]]")?;
    let mut done: BTreeMap<&str, Generation> = BTreeMap::new();
    writeln!(out, "/// CPU generations, by vendor and age.")?;
    writeln!(out, "pub static GENERATIONS: &[Generation] = &[")?;
    for block in blocks {
        let table = block.as_table().ok_or("a generation is a table")?;
        let id = string(table, "id")?;
        let generation = inherit(table, &telling, &done).map_err(|error| format!("{FILE}: {id}: {error}"))?;
        write_generation(&generation, &telling, &mut out).map_err(|error| format!("{FILE}: {id}: {error}"))?;
        if done.insert(id, generation).is_some() {
            return Err(format!("{FILE}: {id} stands twice").into());
        }
    }
    writeln!(out, "];")?;
    Ok(out)
}

/// The first kernel that prints a flag, major and minor, of flags that the oldest tree does not print.
fn first_printed(tables: &Tables) -> Result<BTreeMap<String, (u32, u32)>> {
    let trees = TreeList::parse("linux/trees.tsv", &tables.read("linux/trees.tsv")?)?;
    let text = tables.read("linux/features.tsv")?;
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for (line, cells) in rows(&text) {
        let [_, _, printed, set] = cells[..] else {
            return Err(format!("linux/features.tsv:{line}: expected 4 cells").into());
        };
        let oldest = trees.parse_set(set)?.0.trailing_zeros();
        let held = first.entry(printed.to_owned()).or_insert(oldest);
        *held = oldest.min(*held);
    }
    let mut found = BTreeMap::new();
    for (flag, oldest) in first.into_iter().filter(|(_, oldest)| *oldest > 0) {
        let tree = trees.trees.get(usize::try_from(oldest)?).ok_or("a flag of no tree")?;
        let mut numbers = tree.version.split('.');
        let mut number = || -> Result<u32> { Ok(numbers.next().ok_or("a version is MAJOR.MINOR")?.parse()?) };
        found.insert(flag, (number()?, number()?));
    }
    Ok(found)
}

fn write_telling(
    telling: &[&str],
    host_only: &[&str],
    first: &BTreeMap<String, (u32, u32)>,
    out: &mut String,
) -> Result<()> {
    writeln!(out, "/// The flags that generations are told apart by.")?;
    writeln!(out, "pub static TELLING: &[Telling] = &[")?;
    for flag in telling {
        let (host_only, since) = (host_only.contains(flag), first.get(*flag));
        writeln!(out, "Telling {{ flag: {flag:?}, host_only: {host_only}, since: {since:?} }},")?;
    }
    writeln!(out, "];")?;
    Ok(())
}

fn inherit<'a>(table: &'a Table, telling: &[&str], done: &BTreeMap<&str, Generation>) -> Result<Generation<'a>> {
    let mut traits = match table.get("like").and_then(Value::as_str) {
        None => BTreeMap::new(),
        Some(like) => done.get(like).ok_or_else(|| format!("`{like}` does not stand before"))?.traits.clone(),
    };
    for flag in strings(table, "drops")? {
        traits.remove(flag).ok_or_else(|| format!("`{flag}` is dropped but not inherited"))?;
    }
    for (key, says) in [("has", Trait::Has), ("may", Trait::May)] {
        for flag in strings(table, key)? {
            if !telling.contains(&flag) {
                return Err(format!("`{flag}` is not among `telling`").into());
            }
            traits.insert(flag.to_owned(), says);
        }
    }
    Ok(Generation { table, traits })
}

fn write_generation(generation: &Generation, telling: &[&str], out: &mut String) -> Result<()> {
    let table = generation.table;
    let vendor = match string(table, "maker")? {
        "intel" => "Intel",
        "amd" => "Amd",
        "hygon" => "Hygon",
        "zhaoxin" => "Zhaoxin",
        other => return Err(format!("`{other}` is no maker").into()),
    };
    let year = table.get("year").and_then(Value::as_integer).ok_or("no year")?;
    let hybrid = table.get("hybrid").and_then(Value::as_bool).unwrap_or(false);
    let traits: Vec<&str> = telling
        .iter()
        .map(|flag| match generation.traits.get(*flag) {
            Some(Trait::Has) => "Trait::Has",
            Some(Trait::May) => "Trait::May",
            None => "Trait::Lacks",
        })
        .collect();
    let members = table.get("members").and_then(Value::as_array).ok_or("no members")?;
    let members: Vec<String> = members.iter().map(member).collect::<Result<_>>()?;
    writeln!(
        out,
        "Generation {{ id: {:?}, name: {:?}, vendor: Vendor::{vendor}, year: {year}, hybrid: {hybrid}, \
         members: &[{}], traits: &[{}] }},",
        string(table, "id")?,
        string(table, "name")?,
        members.join(", "),
        traits.join(", "),
    )?;
    Ok(())
}

fn member(value: &Value) -> Result<String> {
    let table = value.as_table().ok_or("a member is a table")?;
    let family = table.get("family").and_then(Value::as_integer).ok_or("a member has no family")?;
    let models = table.get("models").and_then(Value::as_array).ok_or("a member has no models")?;
    let models: Vec<String> = models.iter().map(range).collect::<Result<_>>()?;
    let steppings = match table.get("steppings") {
        None => "(0, 15)".to_owned(),
        Some(value) => range(value)?,
    };
    let (name, models) = (string(table, "name")?, models.join(", "));
    Ok(format!("Member {{ name: {name:?}, family: {family}, models: &[{models}], steppings: {steppings} }}"))
}

/// A number, or a pair of numbers with the ends included.
fn range(value: &Value) -> Result<String> {
    let (first, last) = match value {
        Value::Integer(one) => (*one, *one),
        Value::Array(pair) => match pair[..] {
            [Value::Integer(first), Value::Integer(last)] if first <= last => (first, last),
            _ => return Err("a range has two numbers".into()),
        },
        _ => return Err("expected a number or a range".into()),
    };
    Ok(format!("({first}, {last})"))
}

fn string<'a>(table: &'a Table, key: &str) -> Result<&'a str> {
    table.get(key).and_then(Value::as_str).ok_or_else(|| format!("`{key}` is missing").into())
}

fn strings<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a str>> {
    let Some(value) = table.get(key) else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| format!("`{key}` is no list"))?;
    list.iter().map(|item| item.as_str().ok_or_else(|| format!("`{key}` holds no words").into())).collect()
}
