//! `--template`: one of Firecracker's own CPU templates by its name, or a file.

use std::path::Path;

use cpusieve_formats::firecracker as format;
use cpusieve_knowledge::vmm::template_names;
use cpusieve_model::CpuTemplate;
use cpusieve_stages::vmm::firecracker::Template;

use super::Failure;
use crate::args::VmmName;
use crate::input;

/// A template for another VMM.
#[derive(Debug, thiserror::Error)]
#[error("--template is for Firecracker alone")]
struct NoTemplates;

/// The template of a file, if `--template` names no template of Firecracker's own.
pub(super) fn custom(name: Option<&str>, vmm: VmmName) -> Result<Option<CpuTemplate>, Failure> {
    let Some(name) = name else { return Ok(None) };
    if vmm != VmmName::Firecracker {
        return Err(NoTemplates.into());
    }
    if template_names().any(|known| known == name) {
        return Ok(None);
    }
    let bytes = input::bytes(Path::new(name), name)?;
    let (template, diagnostics) = format::template(name, &bytes);
    input::show(&diagnostics);
    Ok(Some(template))
}

/// The template that the options ask for.
pub(super) fn chosen<'a>(name: Option<&'a str>, custom: Option<&'a CpuTemplate>) -> Template<'a> {
    match (custom, name) {
        (Some(custom), _) => Template::Custom(custom),
        (None, Some(name)) => Template::Static(name),
        (None, None) => Template::None,
    }
}
