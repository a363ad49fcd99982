//! `cargo xtask lab libvirt`: libvirt's own cases, judged by its own files, and whether its CPU map is the one of
//! `knowledge/`. The source package comes from the distribution; nothing of it is kept in the repository.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::archive::{Archive, files};
use super::{bounded, cache};
use crate::{Outcome, cargo, import};

/// The suite of Debian whose libvirt has the tests that the cases were read from.
const SUITE: &str = "trixie";

/// What is needed of the source tree.
const PARTS: [&str; 3] = ["*/tests/cputestdata", "*/src/cpu_map", "*/meson.build"];

const UNPACK: Duration = Duration::from_secs(120);

pub(super) fn run(arguments: &[String]) -> Outcome {
    let quick = match arguments {
        [] => false,
        [option] if option == "--quick" => true,
        _ => {
            eprintln!("cargo xtask lab libvirt [--quick]");
            return Ok(ExitCode::from(2));
        }
    };
    let tree = match tree() {
        Ok(tree) => tree,
        Err(error) if quick => {
            println!("lab libvirt: skipped: {error}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            eprintln!("lab libvirt: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let folder = tree.to_string_lossy().into_owned();
    let current = import::run(&["libvirt".to_owned(), folder, "--check".to_owned()])?;
    let mut cases = cargo();
    cases.args(["test", "--quiet", "--package", "cpusieve-fleet", "--test", "libvirt", "--", "--nocapture"]);
    let judged = cases.env("CPUSIEVE_LIBVIRT", &tree).status()?;
    Ok(if judged.success() { current } else { ExitCode::FAILURE })
}

/// The unpacked source tree: a cached one if there is one.
fn tree() -> Result<PathBuf, Box<dyn Error>> {
    let home = cache()?.join("libvirt");
    let tree = home.join(SUITE);
    if tree.is_dir() {
        return Ok(tree);
    }
    fs::create_dir_all(&home)?;
    println!("fetching the source of libvirt in {SUITE}");
    let sources = format!(
        "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {SUITE} main\n"
    );
    let packages = home.join("packages");
    fs::create_dir_all(&packages)?;
    let tried = Archive::of_sources(&home, sources).source("libvirt", &packages);
    let found = files(&packages).into_iter().find(|path| path.to_string_lossy().contains(".orig.tar."));
    // The patches and signatures beside it are not needed, so it does not matter whether they could be had.
    let found = found.ok_or_else(|| match tried {
        Ok(()) => "the source package holds no archive of libvirt's".into(),
        Err(error) => error,
    });
    let unpacked = found.and_then(|archive| unpack(&archive, &home));
    fs::remove_dir_all(&packages)?;
    // It is in the cache whole or not at all.
    fs::rename(unpacked?, &tree)?;
    Ok(tree)
}

/// Unpacks what is needed of an archive, and says where its one folder is.
fn unpack(archive: &Path, home: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let parts = home.join(format!("unpack-{}", std::process::id()));
    fs::create_dir_all(&parts)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&parts).arg("--wildcards").args(PARTS);
    tar.args(["--strip-components", "1"]);
    if let Err(error) = bounded::must(&mut tar, UNPACK) {
        fs::remove_dir_all(&parts)?;
        return Err(error);
    }
    Ok(parts)
}
