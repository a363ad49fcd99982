//! `machines.tsv`, `compat.tsv`, `defaults.tsv`, `max.tsv`.

use std::fmt::Write as _;

use super::{Source, conditions};
use crate::Result;

pub(crate) fn generate(source: &Source, out: &mut String) -> Result<()> {
    machines(source, out)?;
    compat(source, out)?;
    defaults(source, out)?;
    max(source, out)
}

fn machines(source: &Source, out: &mut String) -> Result<()> {
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut count = 0;
    source.tables.slice(
        out,
        "static MACHINES: &[Machine]",
        "qemu/machines.tsv",
        |[name, present, kind, version, alias, cpu_version, cpu, irqchip, max_cpus, deprecated]| {
            let kind = match kind {
                "pc" => "Pc",
                "q35" => "Q35",
                "microvm" => "Microvm",
                "isapc" => "Isapc",
                "none" => "None",
                "xenfv" => "Xenfv",
                "other" => "Other",
                _ => return Err(format!("`{kind}` is no kind of machine").into()),
            };
            let cpu_version = match cpu_version {
                "legacy" => "Legacy",
                "1" => "One",
                "latest" => "Latest",
                _ => return Err(format!("`{cpu_version}` is no default version").into()),
            };
            let version = if version == "-" { "None".to_owned() } else { format!("Some({:?})", release(version)?) };
            let present_name = |text: &str| (text != "-").then(|| text.to_owned());
            let aliases: Vec<String> = present_name(alias).into_iter().collect();
            let row = format!(
                "Machine {{ name: {name:?}, aliases: &{aliases:?}, kind: MachineKind::{kind}, version: {version}, \
             default_cpu_version: DefaultCpuVersion::{cpu_version}, default_cpu: {:?}, deprecated: {:?}, \
             irqchip_split_default: {}, max_cpus: {}, releases: {} }}",
                present_name(cpu),
                present_name(deprecated),
                irqchip == "split",
                max_cpus.parse::<u32>()?,
                source.set(present)?,
            );
            names.extend(aliases.into_iter().chain([name.to_owned()]).map(|name| (name, count)));
            count += 1;
            Ok(row)
        },
    )?;
    names.sort();
    writeln!(out, "static MACHINE_NAMES: &[(&str, u16)] = &{names:?};")?;
    Ok(())
}

/// The first two numbers of `4.0` or `4.0.1`.
fn release(text: &str) -> Result<(u16, u16)> {
    let mut numbers = text.split('.').map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok((major?, minor?)),
        _ => Err(format!("`{text}` is no version of a machine").into()),
    }
}

fn compat(source: &Source, out: &mut String) -> Result<()> {
    let mut last = (u16::MAX, u16::MAX);
    source.tables.slice(
        out,
        "static COMPAT: &[CompatProperty]",
        "qemu/compat.tsv",
        |[table, driver, property, value, present]| {
            let table = release(table)?;
            if table > last {
                return Err("tables must stand newest first".into());
            }
            last = table;
            let driver = if driver == "*" { "" } else { driver };
            Ok(format!(
                "CompatProperty {{ table: {table:?}, driver: {driver:?}, property: {property:?}, value: {value:?}, \
             releases: {} }}",
                source.set(present)?
            ))
        },
    )
}

fn defaults(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(
        out,
        "static DEFAULTS: &[DefaultProperty]",
        "qemu/defaults.tsv",
        |[accelerator, property, value, condition, except, present]| {
            let accelerator = accelerator_name(accelerator)?;
            let except = match except.strip_prefix("i440fx..") {
                Some(version) => format!("Some({:?})", release(version)?),
                None if except == "-" => "None".to_owned(),
                None => return Err(format!("`{except}`: expected i440fx..VERSION").into()),
            };
            Ok(format!(
                "DefaultProperty {{ accelerator: Accelerator::{accelerator}, property: {property:?}, value: {value:?}, \
             conditions: &[{}], except_i440fx_up_to: {except}, releases: {} }}",
                conditions(condition)?,
                source.set(present)?
            ))
        },
    )
}

fn accelerator_name(text: &str) -> Result<&'static str> {
    match text {
        "kvm" => Ok("Kvm"),
        "tcg" => Ok("Tcg"),
        _ => Err(format!("`{text}` is no accelerator").into()),
    }
}

fn max(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(
        out,
        "static MAX_PROPERTIES: &[MaxProperty]",
        "qemu/max.tsv",
        |[accelerator, property, value, when, present]| {
            let moment = match when {
                "init" => "Init",
                "unset:lm" => "FamilyUnset { lm: true }",
                "unset:!lm" => "FamilyUnset { lm: false }",
                _ => return Err(format!("`{when}` is no moment").into()),
            };
            Ok(format!(
                "MaxProperty {{ accelerator: Accelerator::{}, property: {property:?}, value: {value:?}, \
             moment: MaxMoment::{moment}, releases: {} }}",
                accelerator_name(accelerator)?,
                source.set(present)?
            ))
        },
    )
}
