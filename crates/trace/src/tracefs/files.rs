//! The files of tracefs.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags, open};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::Refusal;

/// The most bytes of one file: a histogram of 131,072 rows has about 20 MB.
const MAX_FILE: u64 = 32 << 20;

/// The most names of one folder.
const MAX_NAMES: usize = 1 << 14;

/// What a session does with tracefs. Paths are relative to its root; tests put a simulator here.
pub trait Files: Debug {
    /// Where the root is.
    fn root(&self) -> &Path;

    /// A file as it is to be called in words.
    fn shown(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// What the kernel answers; files that are too long are cut.
    fn read(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.root().join(path))?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes to a file that exists, in one piece and without truncating it first: truncation clears the lists of kprobes
    /// and of triggers (`kernel/trace/trace_kprobe.c:probes_open`).
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.root().join(path))?.write_all(text.as_bytes())
    }

    /// Makes a folder.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn make(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir(self.root().join(path))
    }

    /// Removes an instance's folder.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_dir(self.root().join(path))
    }

    /// The names in a folder.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.root().join(path))?;
        Ok(entries.take(MAX_NAMES).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Whether a file is there.
    fn exists(&self, path: &str) -> bool {
        self.root().join(path).exists()
    }

    /// Opens a file whose reads take events out and return at once if there are none.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    fn pipe(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(self.root().join(path))
    }
}

/// A mounted tracefs, held open: what is switched on can be switched off even if somebody unmounts it meanwhile.
#[derive(Debug)]
pub struct Mounted {
    /// Its root, by way of the descriptor.
    root: PathBuf,
    /// Where it is mounted; `tracefs` if it is mounted for this process alone.
    place: PathBuf,
    /// Its root; a mount that nobody else sees is gone when this is closed.
    _held: OwnedFd,
}

/// Where distributions mount it; the second by way of debugfs, which mounts it when it is looked at.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `TRACEFS_MAGIC` of `include/uapi/linux/magic.h`.
const MAGIC: u64 = 0x7472_6163;

impl Mounted {
    /// This machine's tracefs: where it is mounted, or else by a mount that is attached nowhere (Linux 5.2 and newer), so
    /// that nothing on the machine changes.
    ///
    /// # Errors
    ///
    /// If the kernel has none, or this process may not have it.
    pub fn find() -> Result<Self, Refusal> {
        let mut refused = None;
        let mut take = |place: PathBuf| match Self::at(&place) {
            Ok(mounted) => Some(mounted),
            Err(source) => {
                let path = place.join("instances");
                refused.get_or_insert(Refusal::of(path, source, "root (CAP_SYS_ADMIN), or the right to its files"));
                None
            }
        };
        if let Some(found) = PLACES.into_iter().map(PathBuf::from).filter(|place| is_tracefs(place)).find_map(&mut take)
        {
            return Ok(found);
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !filesystems.split_whitespace().any(|name| name == "tracefs") {
            return Err(Refusal::NoTracefs);
        }
        let source = match Self::own() {
            Ok(own) => return Ok(own),
            Err(source) => source,
        };
        // Somebody else's mount is the last choice: it may go away.
        let listed = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounted = listed.lines().filter_map(mount_point).map(PathBuf::from);
        let found = mounted.filter(|place| is_tracefs(place)).find_map(&mut take);
        found.ok_or_else(|| refused.unwrap_or(Refusal::NotMounted { source }))
    }

    /// The one that is mounted there, if instances can be made in it.
    fn at(place: &Path) -> io::Result<Self> {
        usable(place)?;
        let root = open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::held(root, place.to_owned()))
    }

    fn held(root: OwnedFd, place: PathBuf) -> Self {
        Self { root: PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())), place, _held: root }
    }

    /// A mount of our own.
    fn own() -> io::Result<Self> {
        let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let none = MountAttrFlags::empty();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, none)?;
        // It has no place that anybody else could look at.
        Ok(Self::held(mount, PathBuf::from("tracefs")))
    }
}

impl Files for Mounted {
    fn root(&self) -> &Path {
        &self.root
    }

    fn shown(&self, path: &str) -> PathBuf {
        self.place.join(path)
    }
}

fn is_tracefs(place: &Path) -> bool {
    rustix::fs::statfs(place).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(MAGIC))
}

/// Whether instances can be made there.
fn usable(place: &Path) -> io::Result<()> {
    let folder = place.join("instances");
    std::fs::read_dir(&folder)?;
    Ok(rustix::fs::access(&folder, Access::WRITE_OK)?)
}

/// The mount point of a line of `/proc/self/mountinfo` that is a tracefs.
fn mount_point(line: &str) -> Option<String> {
    let (mount, kind) = line.split_once(" - ")?;
    let is_root = mount.split(' ').nth(3) == Some("/");
    (kind.split(' ').next() == Some("tracefs") && is_root).then(|| mount.split(' ').nth(4).map(unescape)).flatten()
}

/// Spaces and the like stand as `\040`.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::mount_point;

    #[test]
    fn mounts_are_found_in_mountinfo() {
        let line = "42 27 0:13 / /sys/kernel/tracing rw,relatime shared:9 - tracefs none rw";
        assert_eq!(mount_point(line).as_deref(), Some("/sys/kernel/tracing"));
        let odd = "42 27 0:13 / /a\\040b rw - tracefs tracefs rw";
        assert_eq!(mount_point(odd).as_deref(), Some("/a b"));
        for other in ["42 27 0:13 /instances/x /mnt rw - tracefs none rw", "42 27 0:13 / /mnt rw - proc none rw", ""] {
            assert_eq!(mount_point(other), None, "{other}");
        }
    }
}
