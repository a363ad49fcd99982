//! What `--version` says: the program's version, and what it knows.

use std::fmt::Write as _;
use std::sync::LazyLock;

use cpusieve_knowledge::vmm::Vmm;
use cpusieve_knowledge::{libvirt, linux, qemu};

/// One line: `-V`.
pub(super) fn short() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(newest);
    &TEXT
}

/// One line for each software whose tables are compiled in: `--version`.
pub(super) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(all);
    &TEXT
}

fn newest() -> String {
    let kernel = linux::TREES.last().map_or("", |tree| tree.version);
    let qemu = qemu::RELEASES.last().map_or("", |release| release.version);
    format!("{} (knows Linux up to {kernel}, QEMU up to {qemu})", env!("CARGO_PKG_VERSION"))
}

fn all() -> String {
    let mut text = format!("{}\n", env!("CARGO_PKG_VERSION"));
    let trees: Vec<&str> = linux::TREES.iter().map(|tree| tree.version).collect();
    let _ = writeln!(text, "Linux and KVM: {}", trees.join(", "));
    let releases: Vec<&str> = qemu::RELEASES.iter().map(|release| release.version).collect();
    let _ = writeln!(text, "QEMU: {}", releases.join(", "));
    for vmm in Vmm::ALL {
        let releases: Vec<&str> = vmm.releases().iter().map(|release| release.version).collect();
        let _ = writeln!(text, "{}: {}", vmm.name(), releases.join(", "));
    }
    let releases: Vec<&str> = libvirt::RELEASES.iter().map(|release| release.version).collect();
    let _ = writeln!(text, "libvirt: {}", releases.join(", "));
    text.truncate(text.trim_end().len());
    text
}
