//! An initial file system in the `newc` form of cpio (Linux `Documentation/driver-api/early-userspace/
//! buffer-format.rst`), made in memory.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// `/dev/console`, which the kernel opens for `/init` before anything is mounted.
const CONSOLE: (u32, u32) = (5, 1);

/// The archive: `init` as `/init`, the `msr` module if there is one, and what they need.
#[must_use]
pub fn build(init: &[u8], msr: Option<&[u8]>) -> Vec<u8> {
    let mut archive = Archive::new(init);
    if let Some(module) = msr {
        archive.file("/msr.ko", module);
    }
    archive.finish()
}

/// An archive that is being made.
#[derive(Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    /// The folders that are in it: the kernel makes none by itself.
    folders: BTreeSet<String>,
}

impl Archive {
    /// With `init` as `/init`, and the folders and the device that it needs.
    #[must_use]
    pub fn new(init: &[u8]) -> Self {
        let mut archive = Self { bytes: Vec::new(), entries: 0, folders: BTreeSet::new() };
        for folder in ["dev", "proc", "sys"] {
            archive.folder(folder);
        }
        archive.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
        archive.file("/init", init);
        archive
    }

    /// Adds a file, which may be executed, at an absolute path, and the folders above it.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.folder(path.get(..end).unwrap_or_default());
        }
        self.entry(path, PROGRAM, (0, 0), data);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, (0, 0), &[]);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device (2), special device (2), length of name, checksum.
        let numbers = [self.entries, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(data);
        self.align();
    }

    /// Names end and data end at multiples of four.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_last_one_is_the_trailer() {
        let archive = build(b"12345", Some(b"1"));
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"070701"));
        let text = String::from_utf8(archive).unwrap();
        assert_eq!(text.matches("070701").count(), 7);
        let name = text.find("init\0").unwrap();
        let data = text.find("12345").unwrap();
        assert_eq!(data, (name + "init\0".len()).next_multiple_of(4));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::new(b"");
        archive.file("/lib/x/a", b"");
        archive.file("/lib/x/b", b"");
        let text = String::from_utf8(archive.finish()).unwrap();
        let places: Vec<_> = ["lib\0", "lib/x\0", "lib/x/a\0", "lib/x/b\0"].map(|name| text.find(name).unwrap()).into();
        assert!(places.is_sorted());
        assert_eq!(text.matches("lib/x\0").count(), 1);
    }
}
