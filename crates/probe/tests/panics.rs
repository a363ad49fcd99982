//! A real kernel that panics, under the QEMU of this machine; skipped, with the reason printed, without one of the two.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they skip"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cpusieve_probe::guest::{Start, boot, find};
use cpusieve_probe::qemu;

/// A kernel of this machine, or one that the laboratory (`cargo xtask lab`) has fetched.
fn kernel() -> Option<PathBuf> {
    if let Ok(kernel) = find(None) {
        return Some(kernel.image);
    }
    let named = std::env::var_os("CPUSIEVE_LAB").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/cpusieve-lab"));
    let cached = std::fs::read_dir(named.or_else(usual)?.join("kernels")).ok()?;
    cached.flatten().map(|entry| entry.path().join("vmlinuz")).find(|image| image.is_file())
}

#[test]
fn a_kernel_that_panics_ends_at_once_with_its_last_words() {
    let Some(kernel) = kernel() else {
        eprintln!("skipped: no kernel to boot, neither of this machine nor of the laboratory");
        return;
    };
    let Some(binary) = qemu::find(&mut Vec::new()).into_iter().next() else {
        eprintln!("skipped: no qemu-system-x86_64 on the search path");
        return;
    };
    let start = Start {
        binary: Path::new(&binary.path),
        accelerator: "tcg",
        machine: "pc",
        cpu: "max",
        kernel: &kernel,
        // Nothing that could be a first process.
        initramfs: b"",
        append: "",
        limit: Duration::from_secs(120),
    };
    let ended = boot(&start).unwrap();
    assert!(ended.took < start.limit, "{ended:#?}");
    let why = ended.report.as_ref().unwrap_err();
    assert!(why.starts_with("the guest's kernel panicked: VFS: Unable to mount root fs"), "{ended:#?}");
    assert!(!ended.console.is_empty());
    eprintln!("proved: {} after {:.1?}: {why}", kernel.display(), ended.took);
}
