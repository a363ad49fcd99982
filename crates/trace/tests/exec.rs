//! The CPUID instructions of real programs, held against a disassembler and against each other.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests run programs and say what they skip"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpusieve_trace::exec::elf::places;
use cpusieve_trace::exec::{Executed, run};

/// Programs and libraries of this machine.
fn files() -> Vec<PathBuf> {
    let folders = ["/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
    let libraries =
        ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libcrypto.so.3", "libstdc++.so.6", "libm.so.6"];
    let named = folders.iter().flat_map(|folder| libraries.map(|name| Path::new(folder).join(name)));
    let own = std::env::current_exe().unwrap();
    let all: BTreeSet<_> = named.chain(["/bin/true".into(), own]).filter_map(|path| path.canonicalize().ok()).collect();
    all.into_iter().collect()
}

#[test]
fn places_are_those_of_a_disassembler() {
    let mut compared = 0;
    for file in files() {
        let found = places(&std::fs::read(&file).unwrap());
        let Ok(output) = Command::new("objdump").args(["-d", "-F", "--no-show-raw-insn"]).arg(&file).output() else {
            eprintln!("skipped: no objdump");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Only functions' headings tell file offsets: the difference to the address is the section's.
        let mut difference = 0;
        let mut expected = BTreeSet::new();
        for line in text.lines() {
            if let Some((head, offset)) = line.split_once("(File Offset: 0x").filter(|_| !line.starts_with(' ')) {
                let address = u64::from_str_radix(head.split(' ').next().unwrap(), 16).unwrap();
                difference = address - u64::from_str_radix(offset.trim_end_matches([')', ':']), 16).unwrap();
            } else if let Some((address, "cpuid")) = line.trim().split_once(":\t").map(|(at, text)| (at, text.trim())) {
                expected.insert(u64::from_str_radix(address, 16).unwrap() - difference);
            }
        }
        let certain: BTreeSet<_> = found.certain.iter().copied().collect();
        let doubtful: BTreeSet<_> = found.doubtful.iter().copied().collect();
        eprintln!(
            "{}: {} certain, {} doubtful, objdump {}",
            file.display(),
            certain.len(),
            doubtful.len(),
            expected.len()
        );
        assert!(certain.is_subset(&expected), "{}: {:x?}", file.display(), certain.difference(&expected));
        let missed: Vec<_> = expected.iter().filter(|at| !certain.contains(at) && !doubtful.contains(at)).collect();
        assert!(missed.is_empty(), "{}: {missed:x?}", file.display());
        compared += expected.len();
    }
    assert!(compared > 0);
}

#[test]
fn what_is_no_program_has_no_places() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01\x0f\xa2", &own[..70], &[0x0f, 0xa2].repeat(40)] {
        assert!(places(bytes).certain.is_empty());
    }
    // Spoilt headers and tables end the search; nothing panics.
    for at in (0..own.len().min(4000)).step_by(7) {
        let mut spoilt = own.clone();
        spoilt.truncate(64 << 10);
        spoilt[at] ^= 0xff;
        let _ = places(&spoilt);
    }
    // Tables of sections and functions stand elsewhere.
    let whole = std::fs::read("/bin/true").unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..1500 {
        let mut spoilt = whole.clone();
        for _ in 0..8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state).unwrap() % spoilt.len();
            spoilt[at] = state.to_le_bytes()[5];
        }
        let _ = places(&spoilt);
    }
}

/// Runs a program without output; `None`, with the reason printed, where nothing may be traced.
fn traced(command: &mut Command) -> Option<Executed> {
    match run(command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null())) {
        Ok(executed) => Some(executed),
        Err(refusal) => {
            eprintln!("skipped: {refusal}");
            None
        }
    }
}

#[test]
fn a_dynamic_program_asks_in_its_loader() {
    let Some(executed) = traced(&mut Command::new("/bin/true")) else { return };
    assert_eq!(executed.status, 0);
    assert_eq!(executed.processes, 1);
    let rows: Vec<_> = executed.counts.rows().collect();
    eprintln!("{} CPUIDs by {}: {rows:x?}", executed.counts.total(), executed.method.name());
    assert!(rows.iter().any(|((_, asked), _)| asked.leaf == 7 && asked.subleaf == Some(0)));
    assert!(rows.iter().all(|((file, _), _)| file.contains("/ld")), "{rows:x?}");
    assert!(executed.counts.total() > 10);
}

#[test]
fn children_and_threads_are_followed_and_statuses_handed_on() {
    let script = "for n in 1 2 3; do /bin/true; done; (exit 3); /bin/true & wait; exit 7";
    let Some(executed) = traced(Command::new("/bin/sh").args(["-c", script])) else { return };
    assert_eq!(executed.status, 7);
    assert_eq!(executed.processes, 6, "a shell, four programs and a subshell");
    let one = traced(&mut Command::new("/bin/true")).unwrap().counts.total();
    assert_eq!(executed.counts.total(), 5 * one, "the subshell asks nothing again");
    let killed = traced(Command::new("/bin/sh").args(["-c", "kill -TERM $$"])).unwrap();
    assert_eq!(killed.status, -15);
    let refused = run(&mut Command::new("/does/not/exist")).unwrap_err();
    assert!(refused.to_string().starts_with("/does/not/exist: "), "{refused}");
}

/// A program without a dynamic loader, where a compiler is at hand: 3 CPUIDs in `main`, and those of the C library.
#[test]
fn a_static_program_is_counted_too() {
    let folder = std::env::temp_dir().join(format!("cpusieve-static-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("a.c"), folder.join("a"));
    let text = "int main(void){for(int n=0;n<3;n++){unsigned a=0x80000003u,b,c=0,d;\
        __asm__ volatile(\"cpuid\":\"+a\"(a),\"=b\"(b),\"+c\"(c),\"=d\"(d));}return 6;}";
    std::fs::write(&source, text).unwrap();
    let built = Command::new("gcc").args(["-static", "-w", "-o"]).arg(&program).arg(&source).output();
    if !built.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no compiler, or no static C library");
    } else if let Some(executed) = traced(&mut Command::new(&program)) {
        assert_eq!((executed.status, executed.unseen.len()), (6, 0), "{:?}", executed.unseen);
        let asked = |leaf| executed.counts.rows().filter(move |((_, asked), _)| asked.leaf == leaf);
        assert!(asked(0x8000_0003).map(|(_, count)| count).sum::<u64>() >= 3);
        assert_eq!(asked(7).count(), 2, "7.0 and 7.1, by the C library");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// This test's own program, traced: it executes CPUID a known number of times, in threads too.
#[test]
fn own_instructions_are_counted_exactly() {
    const ASKED: &str = "CPUSIEVE_ASKS_CPUID";
    if std::env::var_os(ASKED).is_some() {
        let ask = || (0..100).for_each(|_| _ = cpusieve_probe::cpuid::instruction(0x8000_0004, 0));
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(ask)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let vendor = cpusieve_probe::cpuid::enumerate_here().table.vendor_string();
        std::process::exit(if vendor.is_some_and(|vendor| !vendor.is_empty()) { 0 } else { 1 });
    }
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "own_instructions_are_counted_exactly", "--nocapture"];
    let Some(executed) = traced(Command::new(&own).args(arguments).env(ASKED, "1")) else { return };
    assert_eq!(executed.status, 0, "the answers are the CPU's own");
    let here = executed.counts.rows().filter(|((file, _), _)| Path::new(file) == own);
    let leaf = here.filter(|((_, asked), _)| asked.leaf == 0x8000_0004);
    // 400, and one of the enumeration, unless this CPU has no such leaf.
    let count: u64 = leaf.map(|(_, count)| count).sum();
    assert!((400..=401).contains(&count), "{count}");
}
