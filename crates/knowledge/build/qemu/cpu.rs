//! `dependencies.tsv`, `properties.tsv`, `descriptors.tsv`, `xsave.tsv`, `hyperv.tsv`.

use std::fmt::Write as _;

use super::Source;
use super::models::bytes;
use super::place::{Bit, Word};
use crate::Result;

pub(crate) fn generate(source: &Source, out: &mut String) -> Result<()> {
    dependencies(source, out)?;
    properties(source, out)?;
    descriptors(source, out)?;
    xsave(source, out)?;
    hyperv(source, out)
}

fn dependencies(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(
        out,
        "static DEPENDENCIES: &[Dependency]",
        "qemu/dependencies.tsv",
        |[from, from_bits, to, to_bits, present]| {
            let (from, to) = (Word::parse(from)?, Word::parse(to)?);
            Ok(format!(
                "Dependency {{ from: ({}, {:#x}), to: ({}, {:#x}), releases: {} }}",
                from.expression(),
                source.names.mask(from, from_bits)?,
                to.expression(),
                source.names.mask(to, to_bits)?,
                source.set(present)?
            ))
        },
    )
}

fn properties(source: &Source, out: &mut String) -> Result<()> {
    let mut found = Vec::new();
    source.tables.each("qemu/properties.tsv", |[name, kind, default, types, present]| {
        let (target, kind) = match kind.strip_prefix("alias:") {
            Some(target) => (Some(target), "PropertyKind::Bool".to_owned()),
            None => (None, property_kind(kind)?),
        };
        let max_only = match types {
            "*" => false,
            "max" => true,
            _ => return Err(format!("`{types}`: expected * or max").into()),
        };
        found.push((
            name.to_owned(),
            format!(
                "OtherProperty {{ name: {name:?}, alias_of: {target:?}, kind: {kind}, default: {:?}, \
                 max_only: {max_only}, releases: TreeSet({:#x}) }},",
                (default != "-").then_some(default),
                source.set_bits(present)?
            ),
        ));
        Ok(())
    })?;
    found.sort();
    writeln!(out, "static PROPERTIES: &[OtherProperty] = &[")?;
    found.iter().try_for_each(|(_, row)| writeln!(out, "{row}"))?;
    writeln!(out, "];")?;
    Ok(())
}

fn property_kind(text: &str) -> Result<String> {
    if let Some(bits) = text.strip_prefix("uint") {
        return Ok(format!("PropertyKind::Uint {{ bits: {} }}", bits.parse::<u8>()?));
    }
    if let Some(bits) = text.strip_prefix("int") {
        return Ok(format!("PropertyKind::Int {{ bits: {} }}", bits.parse::<u8>()?));
    }
    let kind = match text {
        "bool" => "Bool",
        "str" => "Str",
        "on-off-auto" => "OnOffAuto",
        "link" => "Link",
        "read-only" => "ReadOnly",
        _ => return Err(format!("`{text}` is no kind of property").into()),
    };
    Ok(format!("PropertyKind::{kind}"))
}

fn descriptors(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(
        out,
        "static DESCRIPTORS: &[CacheDescriptor]",
        "qemu/descriptors.tsv",
        |[code, kind, level, size, ways, line, present]| {
            let kind = match kind {
                "data" => "Data",
                "instruction" => "Instruction",
                "unified" => "Unified",
                _ => return Err(format!("`{kind}` is no kind of cache").into()),
            };
            Ok(format!(
                "CacheDescriptor {{ code: {:#x}, kind: CacheKind::{kind}, level: {}, size: {}, associativity: {}, \
             line_size: {}, releases: {} }}",
                u8::from_str_radix(code, 16)?,
                level.parse::<u8>()?,
                bytes(size)?,
                ways.parse::<u32>()?,
                line.parse::<u32>()?,
                source.set(present)?
            ))
        },
    )
}

fn xsave(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(out, "static EXT_SAVE_AREAS: &[ExtSaveArea]", "qemu/xsave.tsv", |[bit, name, register, size, offset, features, present]| {
        let supervisor = match register {
            "xcr0" => false,
            "xss" => true,
            _ => return Err(format!("`{register}`: expected xcr0 or xss").into()),
        };
        let offset = if offset == "-" { None } else { Some(offset.parse::<u32>()?) };
        Ok(format!("ExtSaveArea {{ bit: {}, name: {name:?}, supervisor: {supervisor}, size: {}, standard_offset: {offset:?}, \
             features: &[{}], releases: {} }}",
            bit.parse::<u8>()?,
            size.parse::<u32>()?,
            places(features)?,
            source.set(present)?))
    })
}

fn hyperv(source: &Source, out: &mut String) -> Result<()> {
    source.tables.slice(
        out,
        "static HYPERV_PROPERTIES: &[HypervProperty]",
        "qemu/hyperv.tsv",
        |[property, bits, needs, passthrough, description, present]| {
            let needs: Vec<&str> = needs.split_whitespace().filter(|&name| name != "-").collect();
            Ok(format!(
                "HypervProperty {{ property: {property:?}, bits: &[{}], needs: &{needs:?}, passthrough: {}, \
             description: {description:?}, releases: {} }}",
                places(bits)?,
                passthrough == "yes",
                source.set(present)?
            ))
        },
    )
}

fn places(text: &str) -> Result<String> {
    let places = text.split_whitespace().map(|bit| Ok(Bit::parse(bit)?.expression())).collect::<Result<Vec<_>>>()?;
    Ok(places.join(", "))
}
