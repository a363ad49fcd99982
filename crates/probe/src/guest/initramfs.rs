//! An initial file system in the `newc` form of cpio (Linux `Documentation/driver-api/early-userspace/
//! buffer-format.rst`), made in memory.

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// `/dev/console`, which the kernel opens for `/init` before anything is mounted.
const CONSOLE: (u32, u32) = (5, 1);

/// The archive: `init` as `/init`, the `msr` module if there is one, and what they need.
#[must_use]
pub fn build(init: &[u8], msr: Option<&[u8]>) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys"] {
        archive.entry(folder, FOLDER, (0, 0), &[]);
    }
    archive.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
    archive.entry("init", PROGRAM, (0, 0), init);
    if let Some(module) = msr {
        archive.entry("msr.ko", PROGRAM, (0, 0), module);
    }
    archive.entry("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
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
}
