//! `fleet pack`: a fleet as one file of columns.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use cpusieve_store::{Error, Stamp, Writer, pack};
use serde_json::json;

use super::load::{Detail, load_with};
use super::{Asked, Done, Failure, assumptions, label, setting};
use crate::args::PackOptions;
use crate::json;
use crate::page::{self, HEAD, counted, styled};

pub(super) fn run(options: &PackOptions, as_json: bool) -> Result<Done, Failure> {
    let asked = Asked::of(&options.setting, &options.inputs);
    let (setting, assumed) = setting(&asked)?;
    let loaded = load_with(&options.inputs, &setting, options.setting.strict, Detail::Whole, |_| {})?;
    let stamp = Stamp::of(&setting);
    let mut written = Vec::new();
    if let Some(path) = &options.output {
        written.push((path, write(path, |out| pack(&loaded.fleet, Writer::arrow(out, &stamp)?))?));
    }
    if let Some(path) = &options.parquet {
        written.push((path, write(path, |out| pack(&loaded.fleet, Writer::parquet(out, &stamp)?))?));
    }
    let kinds = loaded.fleet.kinds().len();
    let text = if as_json {
        let (skipped, duplicates) = loaded.lists();
        let files = written.iter().map(|(path, bytes)| json!({"file": path.display().to_string(), "bytes": bytes}));
        json::pretty(&json!({
            "format": 1,
            "hosts": loaded.fleet.hosts(),
            "kinds": kinds,
            "qemu": label(setting.release),
            "machine": setting.machine.name,
            "files": files.collect::<Vec<_>>(),
            "assumed": assumptions(&assumed, &loaded.fleet),
            "skipped": skipped,
            "duplicates": duplicates,
        }))
    } else {
        let head = format!(
            "{} of {} packed for QEMU {} and machine {}.",
            counted(loaded.fleet.hosts(), "host"),
            counted(kinds, "kind"),
            label(setting.release),
            setting.machine.name
        );
        let files = written.iter().map(|(path, bytes)| {
            let line = format!("{}  {} KiB", page::tame(&path.display().to_string()), bytes.div_ceil(1024));
            format!("  {line}\n")
        });
        let mut text = page::wrap(&styled(HEAD, head), "", "  ", page::width());
        text.extend(files);
        text
    };
    page::print(&text)?;
    Ok(if loaded.skipped.is_empty() { Done::Same } else { Done::InPart })
}

/// Writes a file beside its place and moves it there, so that nobody who has it mapped sees it change. Gives its length.
fn write(path: &Path, fill: impl FnOnce(BufWriter<File>) -> Result<BufWriter<File>, Error>) -> Result<u64, Failure> {
    let name = path.file_name().ok_or_else(|| format!("{}: no name of a file", path.display()))?;
    let mut beside = name.to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let filled = || -> Result<u64, Failure> {
        let file = File::create(&beside).map_err(|error| failed(&error))?;
        let out = fill(BufWriter::with_capacity(1 << 20, file)).map_err(|error| failed(&error))?;
        let file = out.into_inner().map_err(|error| failed(error.error()))?;
        file.sync_all().map_err(|error| failed(&error))?;
        fs::rename(&beside, path).map_err(|error| failed(&error))?;
        Ok(file.metadata().map_err(|error| failed(&error))?.len())
    };
    let done = filled();
    if done.is_err() {
        // What is left of it is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&beside);
    }
    done
}
