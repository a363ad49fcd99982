//! QEMU binaries: where they are, and which version they say they are.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cpusieve_model::{MissingPart, QemuBinary};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Refusal;

/// The names under which distributions install QEMU for x86-64 on the search path.
const NAMES: [&str; 2] = ["qemu-system-x86_64", "qemu-kvm"];

/// Where distributions put it beside the search path.
const PLACES: [&str; 1] = ["/usr/libexec/qemu-kvm"];

/// How long a binary may take to tell its version: a hundredth of a second, or some seconds where the CPU is emulated.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 16 << 10;

/// Asks every QEMU binary of the search path for its version. One that does not answer is named in `missing`.
pub fn find(missing: &mut Vec<MissingPart>) -> Vec<QemuBinary> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = Vec::new();
    for binary in binaries(&path, &PLACES.map(Path::new)) {
        match ask(&binary) {
            Ok(version) => found.push(QemuBinary { version, path: binary.to_string_lossy().into_owned() }),
            Err(refusal) => missing.push(refusal.missing("qemu", None)),
        }
    }
    found
}

/// The binaries in the folders of a search path and at other places, each once, whatever links lead to it. Folders
/// that are relative are skipped: what lies in the current folder is not run.
fn binaries(path: &OsStr, places: &[&Path]) -> Vec<PathBuf> {
    let on_path = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let named = on_path.flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let mut known = BTreeSet::new();
    named
        .chain(places.iter().map(|place| place.to_path_buf()))
        .filter(|candidate| candidate.is_file())
        .filter(|candidate| candidate.canonicalize().is_ok_and(|real| known.insert(real)))
        .collect()
}

/// The version that a binary tells: `7.2.22`.
///
/// # Errors
///
/// If it cannot be run, does not answer within ten seconds, or does not answer as QEMU does.
pub fn ask(binary: &Path) -> Result<String, Refusal> {
    ask_within(binary, PATIENCE)
}

fn ask_within(binary: &Path, patience: Duration) -> Result<String, Refusal> {
    let problem = |problem: String| Refusal::Program { path: binary.to_owned(), problem };
    let mut child = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| problem(error.to_string()))?;
    let deadline = Instant::now() + patience;
    let answer = child.stdout.take().map(|stdout| read_until(stdout, deadline));
    finish(&mut child, deadline);
    let answer = answer.flatten().ok_or_else(|| problem(format!("no answer within {patience:?}")))?;
    let text = String::from_utf8_lossy(&answer);
    parse_version(&text)
        .ok_or_else(|| problem(format!("no version in {:?}", text.chars().take(80).collect::<String>())))
}

/// The version in `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
fn parse_version(answer: &str) -> Option<String> {
    let (_, rest) = answer.lines().next()?.split_once("version ")?;
    let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(32).collect();
    version.contains('.').then(|| version.trim_end_matches('.').to_owned())
}

/// All that comes until the end of the stream; `None` if it does not end in time. The stream of a program that has
/// left a child behind may never end, so that waiting for the program alone would not do.
fn read_until(mut stream: ChildStdout, deadline: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < ANSWER_LIMIT {
        let left = deadline.checked_duration_since(Instant::now())?;
        let timeout = Timespec { tv_sec: left.as_secs().try_into().ok()?, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match stream.read(&mut chunk).ok()? {
            0 => break,
            count => answer.extend_from_slice(chunk.get(..count)?),
        }
    }
    Some(answer)
}

/// Waits for the end of a program until the deadline, then ends it.
fn finish(child: &mut Child, deadline: Instant) {
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn versions_are_read_as_the_distributions_print_them() {
        let version = |answer| parse_version(answer);
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright").as_deref(), Some("7.2.22"));
        assert_eq!(version("QEMU emulator version 10.0.0").as_deref(), Some("10.0.0"));
        assert_eq!(version("QEMU emulator version 9.1.0-rc2 (v9.1)").as_deref(), Some("9.1.0"));
        for bad in ["", "version ", "QEMU emulator version x", "QEMU", "version 7"] {
            assert_eq!(version(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_binary_is_asked_once_whatever_links_lead_to_it() {
        let folder = Folder::new("qemu");
        folder.program("bin/qemu-system-x86_64", "#!/bin/sh\necho QEMU emulator version 8.2.2\n");
        std::os::unix::fs::symlink(folder.path("bin/qemu-system-x86_64"), folder.path("bin/qemu-kvm")).unwrap();
        let path = std::env::join_paths([folder.path("bin"), folder.path("none"), PathBuf::from("bin")]).unwrap();
        let found = binaries(&path, &[&folder.path("bin/qemu-kvm")]);
        assert_eq!(found, [folder.path("bin/qemu-system-x86_64")]);
        assert_eq!(ask(&found[0]).unwrap(), "8.2.2");
    }

    #[test]
    fn a_binary_that_is_none_or_hangs_is_a_refusal() {
        let folder = Folder::new("qemu-bad");
        folder.program("silent", "#!/bin/sh\nexit 1\n");
        folder.program("hanging", "#!/bin/sh\nexec sleep 60\n");
        folder.program("leaving", "#!/bin/sh\nsleep 2 &\necho QEMU emulator version 8.2.2\n");
        folder.write("data", b"no program");
        for name in ["silent", "data", "absent"] {
            assert!(matches!(ask(&folder.path(name)), Err(Refusal::Program { .. })), "{name}");
        }
        for name in ["hanging", "leaving"] {
            let begin = Instant::now();
            let refusal = ask_within(&folder.path(name), Duration::from_millis(200)).unwrap_err();
            assert!(refusal.to_string().ends_with("no answer within 200ms"), "{name}: {refusal}");
            assert!(begin.elapsed() < PATIENCE, "{name}");
        }
    }
}
