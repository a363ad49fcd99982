//! The QEMU that runs a guest: the one of `PATH`, or one from the distribution's archive, unpacked below the cache with
//! all of its libraries and started through its own loader.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::bounded;

/// The one name under which the laboratory looks for QEMU.
const PROGRAM: &str = "qemu-system-x86_64";

/// Debian's loader of x86-64 programs, and where it lies since `/lib64` is a link.
const LOADER: (&str, &str) = ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2");

/// Where an unpacked QEMU has its libraries, below its root.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Where an unpacked QEMU has its firmware, below its root.
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The firmware of a machine `pc` without devices that boots a kernel directly. A QEMU need not have all of them.
const FIRMWARE: [&str; 4] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "linuxboot.bin"];

/// What emulates CPUs where that is not part of the program, below its libraries.
const EMULATOR: &str = "qemu/accel-tcg-x86_64.so";

const PATIENCE: Duration = Duration::from_secs(20);

/// A QEMU that can be started.
pub(super) struct Qemu {
    /// Its version line: `10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)`.
    pub(super) version: String,
    program: PathBuf,
    /// Below which everything of an unpacked one lies; `None` for the machine's own.
    root: Option<PathBuf>,
}

/// A QEMU and what it needs to run guests under KVM, as files of another machine.
pub(super) struct Packed {
    /// Where the program is on that machine.
    pub(super) program: String,
    /// All files by absolute path.
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Qemu {
    /// The one of `PATH`.
    pub(super) fn installed() -> Result<Self, Box<dyn Error>> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file());
        let program =
            program.ok_or_else(|| format!("no {PROGRAM} in PATH (Debian: apt-get install qemu-system-x86)"))?;
        Self { version: String::new(), program, root: None }.told()
    }

    /// Any other.
    pub(super) fn named(program: &Path) -> Result<Self, Box<dyn Error>> {
        Self { version: String::new(), program: program.to_owned(), root: None }.told()
    }

    /// One that was unpacked below this folder.
    pub(super) fn unpacked(root: &Path) -> Result<Self, Box<dyn Error>> {
        let program = root.join("usr/bin").join(PROGRAM);
        Self { version: String::new(), program, root: Some(root.to_owned()) }.told()
    }

    fn told(mut self) -> Result<Self, Box<dyn Error>> {
        let text = bounded::must(self.command().arg("--version"), PATIENCE)?;
        let line = text.lines().next().unwrap_or_default();
        self.version = line.strip_prefix("QEMU emulator version ").unwrap_or(line).to_owned();
        Ok(self)
    }

    /// The first number of its version; zero if it tells none.
    pub(super) fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// What starts it; arguments follow.
    pub(super) fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new(&self.program) };
        let mut command = self.loader(root);
        command.arg(&self.program).env("QEMU_MODULE_DIR", root.join(LIBRARIES[0]).join("qemu"));
        DATA.iter().for_each(|folder| _ = command.arg("-L").arg(root.join(folder)));
        command
    }

    /// Its loader, which finds libraries below its root alone.
    fn loader(&self, root: &Path) -> Command {
        let mut command = Command::new(root.join(LOADER.1));
        let folders: Vec<String> = LIBRARIES.iter().map(|folder| root.join(folder).display().to_string()).collect();
        command.args(["--library-path", &folders.join(":")]);
        command
    }

    /// Packs it with its libraries and the firmware.
    pub(super) fn pack(&self) -> Result<Packed, Box<dyn Error>> {
        let list = match &self.root {
            Some(root) => bounded::must(self.loader(root).arg("--list").arg(&self.program), PATIENCE)?,
            None => bounded::must(Command::new("ldd").arg(&self.program), PATIENCE)?,
        };
        let mut paths = libraries(&list)?;
        let folders = match &self.root {
            Some(root) => DATA.iter().map(|folder| root.join(folder)).collect(),
            None => {
                let told = bounded::must(Command::new(&self.program).args(["-L", "help"]), PATIENCE)?;
                told.lines().map(|folder| PathBuf::from(folder.trim())).collect::<Vec<_>>()
            }
        };
        for name in FIRMWARE {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
            match found {
                Some(path) => paths.push((self.place(&path), path)),
                None if name == FIRMWARE[0] => return Err(format!("QEMU has no {name} (Debian: seabios)").into()),
                None => {}
            }
        }
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let emulator = LIBRARIES.iter().map(|folder| root.join(folder).join(EMULATOR)).find(|path| path.is_file());
        paths.extend(emulator.map(|path| (self.place(&path), path)));
        let program = self.place(&self.program);
        paths.push((program.clone(), self.program.clone()));
        let mut files = BTreeMap::new();
        for (place, path) in paths {
            let place = if place.starts_with(LOADER.0) { place } else { self.place(Path::new(&place)) };
            files.insert(place, fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
        }
        Ok(Packed { program, files })
    }

    /// Where a file is to be on the other machine: where it is here, seen from the root of an unpacked one.
    fn place(&self, path: &Path) -> String {
        let below = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        tidy(&below.map_or_else(|| path.to_owned(), |path| Path::new("/").join(path)))
    }
}

/// The libraries in what a loader lists, where they are to be and where they are: `libz.so.1 => /lib/libz.so.1 (0x..)`,
/// `/lib64/ld-linux-x86-64.so.2 (0x..)`, `/lib64/ld-linux-x86-64.so.2 => /root/ld-linux-x86-64.so.2 (0x..)`.
fn libraries(listed: &str) -> Result<Vec<(String, PathBuf)>, String> {
    let mut paths = Vec::new();
    for line in listed.lines().map(str::trim) {
        if line.ends_with("not found") {
            return Err(format!("QEMU lacks a library: {line}"));
        }
        let line = line.split(" (").next().unwrap_or_default();
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path.starts_with('/') {
            let place = if name.starts_with('/') { name } else { path };
            paths.push((place.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(paths)
}

/// The same path without `..`: QEMU names its folders by way of its own (`/usr/bin/../share`), which need not be there.
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
        let pair = |place: &str, path: &str| (place.to_owned(), PathBuf::from(path));
        let expected = [pair("/lib/x/libz.so.1", "/lib/x/libz.so.1"), pair("/lib64/ld.so.2", "/lib64/ld.so.2")];
        assert_eq!(libraries(listed).unwrap(), expected);
        assert_eq!(libraries("/lib64/ld.so.2 => /r/ld.so.2 (0x0)").unwrap(), [pair("/lib64/ld.so.2", "/r/ld.so.2")]);
        assert!(libraries("\tlibz.so.1 => not found\n").is_err());
    }

    #[test]
    fn files_are_placed_as_seen_from_the_root() {
        let qemu = |root: Option<&str>| Qemu {
            version: "10.0.13 (Debian)".to_owned(),
            program: PathBuf::new(),
            root: root.map(PathBuf::from),
        };
        assert_eq!(qemu(None).place(Path::new("/usr/bin/../share/qemu/x.bin")), "/usr/share/qemu/x.bin");
        assert_eq!(qemu(Some("/cache/root")).place(Path::new("/cache/root/usr/bin/q")), "/usr/bin/q");
        assert_eq!(qemu(None).major(), 10);
    }
}
