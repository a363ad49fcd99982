//! Files in memory without a copy: the kernel brings in what is looked at.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A whole file, readable as bytes until it is dropped.
///
/// A file that somebody cuts short meanwhile ends the process (SIGBUS) when the missing part is looked at; whoever writes
/// such files writes them under another name first, as `cpusieve fleet pack` does.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping is readable memory that belongs to this value alone and is never written through it.
unsafe impl Send for Mapped {}
// SAFETY: as above; reading from several threads is no race.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// What the kernel answers; `InvalidInput` for what has no length, such as an empty file, a pipe or a device.
    pub fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).ok().and_then(NonZeroUsize::new);
        let length =
            length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "nothing in it can be mapped"))?;
        // SAFETY: no address is asked for, so that no other memory is touched; the length is not zero.
        let start = unsafe { mmap(std::ptr::null_mut(), length.get(), ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is as long as that, readable, and there until `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of`, and nobody borrows from it any more. Nothing is left to do if it fails.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_it_stands_and_an_empty_one_is_not() {
        let this = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/mapped.rs")).unwrap();
        let mapped = Mapped::of(&this).unwrap();
        assert!(mapped.as_ref().starts_with(b"//! Files in memory"));
        assert_eq!(mapped.as_ref(), include_bytes!("mapped.rs"));
        let nothing = File::open("/dev/null").unwrap();
        assert_eq!(Mapped::of(&nothing).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
