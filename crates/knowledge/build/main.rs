//! Turns the tables of `knowledge/` into static Rust, so that a program that starts parses nothing.
//!
//! One module a folder of `knowledge/`; each returns the Rust text of one file in `OUT_DIR`, which the module of the
//! same name in `src/` includes.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a build script reads tables and talks to cargo")]

mod blocks;
#[path = "../src/hash.rs"]
mod hash;
mod kvm;
mod libvirt;
mod linux;
mod messages;
mod msrs;
mod price;
mod qemu;
mod rules;
mod slots;
mod vmm;
mod x86;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use cpusieve_import::tables::{TreeList, rows};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the tables are.
struct Tables {
    root: PathBuf,
}

impl Tables {
    /// The text of one table, by its path below `knowledge/`.
    fn read(&self, path: &str) -> Result<String> {
        let full = self.root.join(path);
        fs::read_to_string(&full).map_err(|error| format!("{}: {error}", full.display()).into())
    }

    /// Runs `row` over the rows of a table of `N` columns; an error gets the table's path and the line.
    fn each<const N: usize>(&self, path: &str, mut row: impl FnMut([&str; N]) -> Result<()>) -> Result<()> {
        for (line, cells) in rows(&self.read(path)?) {
            let cells = cells.try_into().map_err(|_| format!("{path}:{line}: expected {N} cells"))?;
            row(cells).map_err(|error| format!("{path}:{line}: {error}"))?;
        }
        Ok(())
    }

    /// Writes a table of `N` columns as a slice; `row` makes an expression of each row.
    fn slice<const N: usize>(
        &self,
        out: &mut String,
        declaration: &str,
        path: &str,
        mut row: impl FnMut([&str; N]) -> Result<String>,
    ) -> Result<()> {
        writeln!(out, "{declaration} = &[")?;
        self.each(path, |cells| Ok(writeln!(out, "{},", row(cells)?)?))?;
        writeln!(out, "];")?;
        Ok(())
    }

    /// The tables of a folder with this ending, by their paths below `knowledge/`, sorted.
    fn list(&self, folder: &str, ending: &str) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.root.join(folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|known| known == ending) {
                paths.push(format!("{folder}/{name}"));
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// The releases of a VMM, as a slice.
fn releases(out: &mut String, declaration: &str, releases: &TreeList) -> Result<()> {
    writeln!(out, "{declaration}: &[Release] = &[")?;
    for tree in &releases.trees {
        writeln!(
            out,
            "Release {{ label: {:?}, version: {:?}, source: {:?} }},",
            tree.label, tree.version, tree.source
        )?;
    }
    writeln!(out, "];")?;
    Ok(())
}

fn main() -> Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../knowledge");
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/hash.rs");
    let tables = Tables { root };
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("linux.rs"), linux::generate(&tables)?)?;
    fs::write(out.join("kvm.rs"), kvm::generate(&tables)?)?;
    fs::write(out.join("libvirt.rs"), libvirt::generate(&tables)?)?;
    fs::write(out.join("msrs.rs"), msrs::generate(&tables)?)?;
    fs::write(out.join("parameters.rs"), msrs::parameters(&tables)?)?;
    fs::write(out.join("price.rs"), price::generate(&tables)?)?;
    fs::write(out.join("qemu.rs"), qemu::generate(&tables)?)?;
    fs::write(out.join("vmm.rs"), vmm::generate(&tables)?)?;
    fs::write(out.join("x86.rs"), x86::generate(&tables)?)?;
    fs::write(out.join("messages.rs"), messages::generate(&tables)?)?;
    fs::write(out.join("rules.rs"), rules::generate(&tables)?)?;
    Ok(())
}
