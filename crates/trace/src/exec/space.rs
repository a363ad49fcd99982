//! One process's memory: what is mapped where, and where breakpoints stand.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};

use cpusieve_probe::ptrace::{self, Tid};

use super::elf::{CPUID, Places, places};

/// INT3.
const BREAKPOINT: u8 = 0xcc;

/// The most bytes of a program file that are looked at.
const MAX_FILE: u64 = 1 << 30;

/// The most bytes of `/proc/PID/maps`: 65,530 mappings (`vm.max_map_count`) of about 100 bytes.
const MAX_MAPS: u64 = 16 << 20;

/// A line of `/proc/PID/maps` that is executable and has a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    file: String,
    /// Device and inode: a path may be another file later.
    identity: String,
}

/// A process's breakpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Address to file.
    breakpoints: BTreeMap<u64, String>,
}

/// The places of each file, found once.
#[derive(Debug, Default)]
pub(super) struct Files {
    known: HashMap<String, Places>,
    /// What could not be looked at, and why.
    pub(super) unseen: BTreeMap<String, String>,
}

impl Space {
    /// Sets breakpoints in what is mapped now and was not before.
    pub(super) fn look(&mut self, tid: Tid, files: &mut Files) -> io::Result<()> {
        for mapping in mappings(tid)? {
            let places = files.places(tid, &mapping);
            for &offset in &places.certain {
                let inside = (mapping.offset..mapping.offset + (mapping.end - mapping.start)).contains(&offset);
                let address = mapping.start.wrapping_add(offset.wrapping_sub(mapping.offset));
                if inside && !self.breakpoints.contains_key(&address) && set(tid, address)? {
                    self.breakpoints.insert(address, mapping.file.clone());
                }
            }
        }
        Ok(())
    }

    /// The file of a breakpoint.
    pub(super) fn file(&self, address: u64) -> Option<&str> {
        self.breakpoints.get(&address).map(String::as_str)
    }

    /// Forgets breakpoints in memory that was unmapped or mapped anew.
    pub(super) fn forget(&mut self, start: u64, size: u64) {
        self.breakpoints.retain(|&address, _| address < start || address - start >= size);
    }
}

/// Sets a breakpoint where CPUID stands; whether it does.
fn set(tid: Tid, address: u64) -> io::Result<bool> {
    let mut word = ptrace::peek(tid, address)?;
    if !word.starts_with(&CPUID) {
        return Ok(false);
    }
    if let Some(first) = word.first_mut() {
        *first = BREAKPOINT;
    }
    ptrace::poke(tid, address, word)?;
    Ok(true)
}

/// The file that is mapped at an address: for what faults without a breakpoint.
pub(super) fn file_at(tid: Tid, address: u64) -> String {
    let found = mappings(tid).unwrap_or_default();
    let inside = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&address);
    found.iter().find(inside).map_or_else(|| "[no file]".to_owned(), |mapping| mapping.file.clone())
}

impl Files {
    fn places(&mut self, tid: Tid, mapping: &Mapping) -> &Places {
        let unseen = &mut self.unseen;
        self.known.entry(mapping.identity.clone()).or_insert_with(|| {
            let found = match read(tid, &mapping.file) {
                Ok(bytes) => places(&bytes),
                Err(error) => {
                    unseen.insert(mapping.file.clone(), error.to_string());
                    return Places::default();
                }
            };
            if !found.doubtful.is_empty() {
                let why = format!("{} places that may be CPUID, outside known functions", found.doubtful.len());
                unseen.insert(mapping.file.clone(), why);
            }
            found
        })
    }
}

/// A file as the process sees it.
fn read(tid: Tid, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{tid}/root{path}"))?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn mappings(tid: Tid) -> io::Result<Vec<Mapping>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{tid}/maps"))?.take(MAX_MAPS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(mapping).collect())
}

/// `7f0000001000-7f0000002000 r-xp 00001000 fe:01 1234    /usr/lib/libc.so.6`
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.as_bytes().get(2) == Some(&b'x');
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let offset = hexadecimal(fields.next()?)?;
    let identity = format!("{} {}", fields.next()?, fields.next()?);
    let file = fields.next()?.trim_start();
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    (executable && file.starts_with('/') && start < end && offset.checked_add(end - start).is_some()).then(|| Mapping {
        start,
        end,
        offset,
        file: file.to_owned(),
        identity,
    })
}

#[cfg(test)]
mod tests {
    use super::mapping;

    #[test]
    fn executable_files_are_found_in_maps() {
        let found =
            mapping("7f01-7f02 r-xp 00001000 fe:01 1234                       /usr/lib/a b.so (deleted)").unwrap();
        assert_eq!((found.start, found.end, found.offset), (0x7f01, 0x7f02, 0x1000));
        assert_eq!(found.file, "/usr/lib/a b.so (deleted)");
        for other in
            ["7f01-7f02 r--p 0 fe:01 1 /a", "7f01-7f02 r-xp 0 00:00 0 [vdso]", "7f01-7f02 r-xp 0 00:00 0 ", "x"]
        {
            assert_eq!(mapping(other), None, "{other}");
        }
    }
}
