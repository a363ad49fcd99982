//! What developers run: `cargo xtask ci`, `import`, `price`, `fuzz`, `bench`, `book`, `lab`, `dist`, `deny`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, reason = "a tool for developers")]

mod bench;
mod bench_fleet;
mod book;
mod ci;
mod deny;
mod dist;
mod fuzz;
mod import;
mod lab;
mod price;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask ci                        format, lints, tests, doctests, knowledge check, licences: what must be green
cargo xtask import linux DIR [--label L] [--check]
cargo xtask import kvm DIR [--label L] [--check]
                                      reads a kernel tree into knowledge/, or compares (--check)
cargo xtask import qemu DIR [--label L] [--check]
                                      the same for a source tree of QEMU
cargo xtask import qemu --binary PATH [--label L] [--check]
                                      machine types and properties as a QEMU binary tells them over QMP; its models
                                      and what they expand to are held against the tables
cargo xtask import libvirt DIR [--label L] [--check]
                                      the same for the CPU map of a source tree of libvirt
cargo xtask import price FILE         what `cpusieve price --json` measured, as a table of knowledge/price
cargo xtask import check              whether knowledge/ is canonical and keeps its laws
cargo xtask fuzz [--seconds N] [TARGET...]
                                      every parser on mutated input; with cargo-fuzz and a nightly toolchain if present
cargo xtask bench                     whole processes beside their yardsticks
cargo xtask price again A.json B.json whether two runs of `cpusieve price --json` agree
cargo xtask price openssl FILE.json   whether a run agrees with `openssl speed`
cargo xtask lab [--quick] [--kernel SERIES|RELEASE]... [--cpu S]... [--append CMDLINE] [--random N [--seed N]] [--keep DIR]
                                      real kernels under emulated CPUs, predicted and compared: docs/lab.md
cargo xtask lab fuzz-qemu [--seed N] [--count N] [--qemu PROGRAM]... [--machine M --cpu S [--smp S]]
                                      random command lines put to real QEMUs and to the QEMU stage
cargo xtask lab nested [--quick] [--kernel S]... [--cpu S] [--append S] [--options S] [--guest CPU]... [--keep DIR]
                                      a real KVM and guests under it, inside an emulated host
cargo xtask lab libvirt [--quick]     libvirt's own cases of comparing CPUs, by the files of its source package
cargo xtask book                      docs/book with a page for each rule, in target/book; mdbook makes HTML of it
cargo xtask dist [--target TRIPLE] [--twice]
                                      the static binary, man pages and completions as a tarball and a Debian package;
                                      --twice builds the commit again from a clone elsewhere and compares every byte
cargo xtask deny                      licences, duplicates and sources of all dependencies";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("ci") => ci::run(),
        Some("import") => import::run(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("bench") => bench::run(),
        Some("book") => book::run(rest),
        Some("price") => price::run(rest),
        Some("lab") => lab::run(rest),
        Some("deny") => deny::run(),
        Some("dist") => dist::run(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cargo that runs us.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.current_dir(root());
    command
}
