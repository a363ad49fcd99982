//! The distribution's QEMU with all that it needs to run a guest under KVM, as files for an initial file system.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::{bounded, guest};

/// The firmware of a machine `pc` without devices that boots a kernel directly. A QEMU need not have all of them.
const FIRMWARE: [&str; 4] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "linuxboot.bin"];

/// The first of these must be there.
const BIOS: &str = FIRMWARE[0];

const PATIENCE: Duration = Duration::from_secs(20);

/// QEMU and what it needs, by absolute path.
pub(super) struct Packed {
    /// Where the program itself is.
    pub(super) program: String,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// Packs the QEMU of `PATH`.
pub(super) fn qemu() -> Result<Packed, Box<dyn Error>> {
    let program = in_path().ok_or("QEMU is not in PATH")?;
    let listed = bounded::must(Command::new("ldd").arg(&program), PATIENCE)?;
    let mut paths = libraries(&listed)?;
    let folders = bounded::must(Command::new(&program).args(["-L", "help"]), PATIENCE)?;
    paths.extend(FIRMWARE.iter().filter_map(|name| {
        let places = folders.lines().map(|folder| Path::new(folder.trim()).join(name));
        places.into_iter().find(|path| path.is_file())
    }));
    if !paths.iter().any(|path| path.ends_with(BIOS)) {
        return Err(format!("QEMU has no {BIOS} (Debian: apt-get install seabios)").into());
    }
    paths.push(program.clone());
    let mut files = BTreeMap::new();
    for path in paths {
        // QEMU names its folders by way of its own (`/usr/bin/../share`), which the guest need not have.
        let plain = tidy(&path);
        files.insert(plain, fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(Packed { program: tidy(&program), files })
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(guest::QEMU)).find(|path| path.is_file())
}

/// The paths in what `ldd` prints: `libz.so.1 => /lib/libz.so.1 (0x..)` and `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn libraries(listed: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in listed.lines().map(str::trim) {
        if line.ends_with("not found") {
            return Err(format!("QEMU lacks a library: {line}"));
        }
        let name = line.split_once(" => ").map_or(line, |(_, path)| path);
        let name = name.split(" (").next().unwrap_or_default();
        if name.starts_with('/') {
            paths.push(PathBuf::from(name));
        }
    }
    Ok(paths)
}

/// The same path without `..`, whether or not its folders are there.
fn tidy(path: &Path) -> String {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in path.iter().skip(1) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.iter().map(|part| format!("/{}", part.to_string_lossy())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_off_the_loader() {
        let listed =
            "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x00007f)\n\t/lib64/ld.so.2 (0x0)\n";
        let paths = libraries(listed).unwrap();
        assert_eq!(paths, [Path::new("/lib/x/libz.so.1"), Path::new("/lib64/ld.so.2")]);
        assert!(libraries("\tlibz.so.1 => not found\n").is_err());
        assert_eq!(tidy(Path::new("/usr/bin/../share/qemu/x.bin")), "/usr/share/qemu/x.bin");
    }
}
