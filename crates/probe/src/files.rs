//! Reading files of the machine, below a root that tests move elsewhere.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Refusal;

/// Where `/proc`, `/sys`, `/dev` and `/boot` are: `/`, or a folder that looks like it.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// This machine.
    pub(crate) fn machine() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A folder that looks like a machine.
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The place of a file that is named from the root, without the leading slash.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }

    /// The text of a file: at most `limit` bytes, bytes that are not UTF-8 replaced.
    pub(crate) fn text(&self, relative: &str, limit: u64) -> Result<String, Refusal> {
        let path = self.path(relative);
        let file = File::open(&path).map_err(|source| Refusal::file(&path, source))?;
        let bytes = bounded(file, &path, limit)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The text of a file of one value, without the white space around it.
    pub(crate) fn value(&self, relative: &str) -> Result<String, Refusal> {
        Ok(self.text(relative, 4096)?.trim().to_owned())
    }

    /// The names in a folder, sorted; at most 4096.
    pub(crate) fn names(&self, relative: &str) -> Result<Vec<String>, Refusal> {
        let path = self.path(relative);
        let entries = std::fs::read_dir(&path).map_err(|source| Refusal::file(&path, source))?;
        let mut names: Vec<_> =
            entries.take(4096).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// All bytes of `source`, which is called `path` and may hold at most `limit` bytes.
pub(crate) fn bounded(source: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let taken = source.take(limit + 1).read_to_end(&mut bytes).map_err(|source| Refusal::file(path, source))?;
    if taken as u64 > limit {
        return Err(Refusal::TooLong { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
