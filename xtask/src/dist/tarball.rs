//! Tar archives with nothing of the machine in them: no owner, one time, names sorted.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};

/// A file in an archive.
#[derive(Clone)]
pub(super) struct Entry {
    /// What it holds.
    pub(super) bytes: Vec<u8>,
    /// Its permissions: `0o755`.
    pub(super) mode: u32,
}

/// The files, by path, as a gzipped tar archive; every folder has an entry of its own before its files.
pub(super) fn gzipped(files: &BTreeMap<String, Entry>, time: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders: Vec<&str> = Vec::new();
    for (path, entry) in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if !folders.contains(&folder) && folder != "./" {
                folders.push(folder);
                let mut header = header(tar::EntryType::Directory, 0o755, time);
                header.set_size(0);
                archive.append_data(&mut header, folder, io::empty())?;
            }
        }
        let mut header = header(tar::EntryType::Regular, entry.mode, time);
        header.set_size(entry.bytes.len() as u64);
        archive.append_data(&mut header, path, entry.bytes.as_slice())?;
    }
    gzip(&archive.into_inner()?)
}

fn header(kind: tar::EntryType, mode: u32, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Gzip without name and time.
pub(super) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}
