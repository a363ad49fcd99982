//! A Debian package (deb(5)): an `ar` archive of three members, the format's version, the control files, the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use super::tarball::{self, Entry};

/// The package of these files, whose paths are below `/usr`.
pub(super) fn package(files: &BTreeMap<String, Entry>, version: &str, time: u64) -> io::Result<Vec<u8>> {
    let installed = files.values().map(|entry| entry.bytes.len()).sum::<usize>().div_ceil(1024);
    let control = format!(
        "Package: cpusieve\nVersion: {version}\nArchitecture: amd64\nMaintainer: The cpusieve developers <cpusieve@example.org>\n\
         Installed-Size: {installed}\nSection: utils\nPriority: optional\nDescription: where did my CPU flag go, and how do I get it back?\n \
         CPU features pass six sieves between the silicon and a guest's /proc/cpuinfo:\n silicon, host kernel, KVM, QEMU, vCPU, \
         guest kernel. cpusieve says which one\n took a flag, in which function, why, and what brings it back.\n"
    );
    let control = BTreeMap::from([("./control".to_owned(), Entry { bytes: control.into_bytes(), mode: 0o644 })]);
    let data = files.iter().map(|(path, entry)| (format!("./usr/{path}"), entry.clone())).collect();
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tarball::gzipped(&control, time)?),
        ("data.tar.gz", tarball::gzipped(&data, time)?),
    ] {
        member(&mut archive, name, &bytes, time);
    }
    Ok(archive)
}

/// A member of an `ar` archive: a head of 60 bytes, the data, and a line feed after an odd number of bytes.
fn member(archive: &mut Vec<u8>, name: &str, bytes: &[u8], time: u64) {
    let mut head = String::new();
    let _ = writeln!(head, "{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, "100644", bytes.len());
    archive.extend_from_slice(head.as_bytes());
    archive.extend_from_slice(bytes);
    if bytes.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::member;

    #[test]
    fn members_begin_at_even_offsets() {
        let mut archive = b"!<arch>\n".to_vec();
        member(&mut archive, "debian-binary", b"2.0", 0);
        assert_eq!(archive.len(), 8 + 60 + 4);
        assert_eq!(&archive[66..68], b"`\n");
    }
}
