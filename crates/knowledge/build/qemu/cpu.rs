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
    writeln!(out, "static DEPENDENCIES: &[Dependency] = &[")?;
    source.each("qemu/dependencies.tsv", |cells| {
        let [from, from_bits, to, to_bits, present] = cells[..] else { return Err("expected 5 cells".into()) };
        let (from, to) = (Word::parse(from)?, Word::parse(to)?);
        writeln!(
            out,
            "Dependency {{ from: ({}, {:#x}), to: ({}, {:#x}), releases: TreeSet({:#x}) }},",
            from.expression(),
            source.names.mask(from, from_bits)?,
            to.expression(),
            source.names.mask(to, to_bits)?,
            source.set_bits(present)?
        )?;
        Ok(())
    })?;
    writeln!(out, "];")?;
    Ok(())
}

fn properties(source: &Source, out: &mut String) -> Result<()> {
    let mut found = Vec::new();
    source.each("qemu/properties.tsv", |cells| {
        let [name, kind, default, types, present] = cells[..] else { return Err("expected 5 cells".into()) };
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
    writeln!(out, "static DESCRIPTORS: &[CacheDescriptor] = &[")?;
    source.each("qemu/descriptors.tsv", |cells| {
        let [code, kind, level, size, ways, line, present] = cells[..] else { return Err("expected 7 cells".into()) };
        let kind = match kind {
            "data" => "Data",
            "instruction" => "Instruction",
            "unified" => "Unified",
            _ => return Err(format!("`{kind}` is no kind of cache").into()),
        };
        writeln!(
            out,
            "CacheDescriptor {{ code: {:#x}, kind: CacheKind::{kind}, level: {}, size: {}, associativity: {}, \
             line_size: {}, releases: TreeSet({:#x}) }},",
            u8::from_str_radix(code, 16)?,
            level.parse::<u8>()?,
            bytes(size)?,
            ways.parse::<u32>()?,
            line.parse::<u32>()?,
            source.set_bits(present)?
        )?;
        Ok(())
    })?;
    writeln!(out, "];")?;
    Ok(())
}

fn xsave(source: &Source, out: &mut String) -> Result<()> {
    writeln!(out, "static EXT_SAVE_AREAS: &[ExtSaveArea] = &[")?;
    source.each("qemu/xsave.tsv", |cells| {
        let [bit, name, register, size, offset, features, present] = cells[..] else {
            return Err("expected 7 cells".into());
        };
        let supervisor = match register {
            "xcr0" => false,
            "xss" => true,
            _ => return Err(format!("`{register}`: expected xcr0 or xss").into()),
        };
        let offset = if offset == "-" { None } else { Some(offset.parse::<u32>()?) };
        writeln!(
            out,
            "ExtSaveArea {{ bit: {}, name: {name:?}, supervisor: {supervisor}, size: {}, standard_offset: {offset:?}, \
             features: &[{}], releases: TreeSet({:#x}) }},",
            bit.parse::<u8>()?,
            size.parse::<u32>()?,
            places(features)?,
            source.set_bits(present)?
        )?;
        Ok(())
    })?;
    writeln!(out, "];")?;
    Ok(())
}

fn hyperv(source: &Source, out: &mut String) -> Result<()> {
    writeln!(out, "static HYPERV_PROPERTIES: &[HypervProperty] = &[")?;
    source.each("qemu/hyperv.tsv", |cells| {
        let [property, bits, needs, passthrough, description, present] = cells[..] else {
            return Err("expected 6 cells".into());
        };
        let needs: Vec<&str> = needs.split_whitespace().filter(|&name| name != "-").collect();
        writeln!(
            out,
            "HypervProperty {{ property: {property:?}, bits: &[{}], needs: &{needs:?}, passthrough: {}, \
             description: {description:?}, releases: TreeSet({:#x}) }},",
            places(bits)?,
            passthrough == "yes",
            source.set_bits(present)?
        )?;
        Ok(())
    })?;
    writeln!(out, "];")?;
    Ok(())
}

fn places(text: &str) -> Result<String> {
    let places = text.split_whitespace().map(|bit| Ok(Bit::parse(bit)?.expression())).collect::<Result<Vec<_>>>()?;
    Ok(places.join(", "))
}
