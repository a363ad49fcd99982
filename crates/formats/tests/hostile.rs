//! Inputs that are broken, cut off, mixed or made by an enemy: nothing panics, everything stays bounded and has a line.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests read files, say why they are skipped, and fail where something is missing"
)]

use std::fs;
use std::path::Path;

use cpusieve_formats::limits::{MAX_CPUS, MAX_DIAGNOSTICS, MAX_FILE, MAX_LINE};
use cpusieve_formats::{Format, Severity, fuzz, read, read_as};

/// The samples of this crate and the seeds of the fuzz targets, in order of their names.
fn samples() -> Vec<(String, Vec<u8>)> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut samples = Vec::new();
    let mut folders = vec![crate_folder.join("tests/samples"), crate_folder.join("../../fuzz/seeds")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // The text of traces is read by a crate of its own.
                let others =
                    path.ends_with("seeds/trace") || path.ends_with("seeds/stored") || path.ends_with("seeds/message");
                folders.extend((!others).then_some(path));
            } else if path.extension().is_none_or(|end| end != "md") {
                samples.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    samples.sort();
    assert!(samples.len() >= 25, "{}", samples.len());
    samples
}

fn sample(name: &str) -> Vec<u8> {
    samples().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// xorshift64*: the same numbers on every run and machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn assert_holds(format: Option<Format>, bytes: &[u8]) {
    if let Err(broken) = fuzz::check(format, bytes) {
        let shown = String::from_utf8_lossy(bytes);
        panic!("{broken}\nformat {format:?}, input {} bytes:\n{shown:?}", bytes.len());
    }
}

/// One change of the kind that editors, mail programs, disks and enemies make.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len());
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(8) {
        0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let from = random.below(other.len());
            let to = (from + random.below(200)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        5 => {
            let odd =
                [&b"\0"[..], b"\r", b"\n\n", b"\xff\xfe", b"0xffffffffff", b"99999999999", b"[SL", b"\"", b"{[", b":"];
            bytes.splice(at..at, odd[random.below(odd.len())].iter().copied());
        }
        6 => bytes.truncate(at),
        _ => bytes.splice(at..end, std::iter::repeat_n(b'f', random.below(40))).for_each(drop),
    }
}

#[test]
fn mutated_samples_keep_the_invariants() {
    let samples = samples();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..12_000 {
        let (_, seed) = &samples[random.below(samples.len())];
        let (_, other) = &samples[random.below(samples.len())];
        // A window of the sample: small inputs are quick, and reach the edges of the parsers more often.
        let start = random.below(seed.len());
        let mut bytes = seed[start..(start + 1 + random.below(3000)).min(seed.len())].to_vec();
        for _ in 0..=random.below(5) {
            mutate(&mut random, &mut bytes, other);
        }
        let format = Format::ALL.get(random.below(Format::ALL.len() + 5)).copied();
        assert_holds(format, &bytes);
    }
}

#[test]
fn mutated_domains_keep_the_invariants() {
    let seed = sample("running.xml");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..4_000 {
        let mut bytes = seed.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, &seed);
        }
        if let Err(broken) = fuzz::check_domain(&bytes) {
            panic!("{broken}\n{:?}", String::from_utf8_lossy(&bytes));
        }
    }
    for end in 0..seed.len() {
        fuzz::check_domain(&seed[..end]).unwrap();
    }
}

#[test]
fn random_bytes_keep_the_invariants() {
    let mut random = Random(88_172_645_463_325_252);
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        if round % 2 == 0 {
            let alphabet = b"CPUIDcpu 0123456789abcdefx:=-[]\n\r\t\",.{}<>SLMSReax";
            bytes.iter_mut().for_each(|byte| *byte = alphabet[usize::from(*byte) % alphabet.len()]);
        }
        assert_holds(None, &bytes);
        for format in Format::ALL {
            assert_holds(Some(format), &bytes);
        }
    }
}

#[test]
fn samples_are_recognised_and_keep_the_invariants() {
    for (name, bytes) in samples() {
        assert_ne!(read(&name, &bytes).format, Format::Unknown, "{name}");
        assert_holds(None, &bytes);
    }
}

#[test]
fn a_sample_may_end_at_any_byte() {
    for (name, bytes) in samples() {
        // The head, where formats are recognised, and the tail.
        let long = bytes.len();
        for end in (0..long.min(300)).chain(long.saturating_sub(90)..long) {
            assert_holds(None, &bytes[..end]);
        }
        let format = read(&name, &bytes).format;
        for end in 0..long.min(150) {
            assert_holds(Some(format), &bytes[..end]);
        }
    }
}

#[test]
fn what_stands_before_a_cut_is_used_and_the_cut_has_a_line() {
    let bytes = sample("cpuid-r.txt");
    let cut = &bytes[..4280];
    let parsed = read("cut", cut);
    let lines = cut.split(|&byte| byte == b'\n').count() as u32;
    assert_eq!(
        parsed.diagnostics.iter().map(|d| (d.line, d.severity)).collect::<Vec<_>>(),
        [(lines, Severity::Warning)]
    );
    assert_eq!(parsed.snapshot.cpus[0].cpuid.len() as u32, lines - 2);
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    for (name, bytes) in samples() {
        if matches!(bytes.first(), Some(b'{' | b'<')) {
            continue;
        }
        let text = String::from_utf8(bytes).unwrap().replace("\r\n", "\n");
        let mut plain = read(&name, text.as_bytes());
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = format!("\u{feff}{text}");
        plain.snapshot.linux = None;
        let others = [
            text.replace('\n', "\r\n").into_bytes(),
            text.replace('\n', "\r").into_bytes(),
            marked.into_bytes(),
            utf16,
        ];
        for (form, bytes) in ["CRLF", "CR", "BOM", "UTF-16"].into_iter().zip(others) {
            let mut parsed = read(&name, &bytes);
            // The text of /proc/cpuinfo is kept as it stood.
            parsed.snapshot.linux = None;
            assert_eq!(parsed, plain, "{name} with {form}");
        }
    }
}

#[test]
fn latin_1_and_nul_are_survived() {
    let text = b"CPU Type : caf\xe9\nCPUID 00000000: 00000001-00000002-00000003-00000004\nCPUID 00000001: 0\xe90\n";
    let parsed = read("latin", text);
    assert_eq!((parsed.format, parsed.diagnostics.len()), (Format::Aida64, 1));
    let parsed = read("latin", b"processor : 0\nmodel name : Caf\xe9 CPU\nflags : fpu\0vme\n");
    let cpuinfo = parsed.snapshot.cpus[0].cpuinfo.as_ref().unwrap();
    assert_eq!(cpuinfo.identity.brand.as_deref(), Some("Caf\u{e9} CPU"));
    assert_eq!(cpuinfo.flags.as_ref().unwrap().iter().collect::<Vec<_>>(), ["fpu", "vme"]);
    assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [3]);
}

#[test]
fn mixed_files_are_read_as_their_first_format_and_say_so() {
    let (cpuid, cpuinfo) = (sample("cpuid-r.txt"), sample("cpuinfo.txt"));
    let parsed = read("mixed", &[&cpuid[..], &cpuinfo].concat());
    assert_eq!((parsed.format, parsed.snapshot.cpus.len()), (Format::CpuidR, 2));
    let first = cpuid.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1;
    assert_eq!(parsed.diagnostics.first().map(|d| d.line), Some(first));
    let parsed = read("mixed", &[&cpuinfo[..], &cpuid].concat());
    assert_eq!((parsed.format, parsed.snapshot.cpus.len()), (Format::Cpuinfo, 2));
    assert_eq!(parsed.ignored.lines, u64::from(first) - 1);
    assert_eq!(parsed.diagnostics.len(), MAX_DIAGNOSTICS);
    assert_eq!(parsed.ignored.diagnostics + MAX_DIAGNOSTICS as u64, u64::from(first) - 1);
}

#[test]
fn the_same_dump_twice_is_one_machine() {
    let bytes = sample("cpuid-r.txt");
    let parsed = read("twice", &[&bytes[..], &bytes].concat());
    assert_eq!(parsed.snapshot, read("once", &bytes).snapshot);
    assert!(parsed.has_errors() && parsed.ignored.values > 100);
}

#[test]
fn long_lines_many_cpus_and_large_files_are_bounded() {
    let long = format!(
        "CPU 0:\n{}\n   0x00000000 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n",
        "x".repeat(MAX_LINE + 1)
    );
    let parsed = read("long", long.as_bytes());
    assert_eq!((parsed.snapshot.cpus[0].cpuid.len(), parsed.diagnostics[0].line), (1, 2));

    let row = "   0x00000000 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n";
    let many: String = (0..MAX_CPUS + 2).map(|id| format!("CPU {id}:\n{row}")).collect();
    let parsed = read("many", many.as_bytes());
    assert_eq!((parsed.snapshot.cpus.len(), parsed.ignored.values, parsed.diagnostics.len()), (MAX_CPUS, 2, 2));

    let huge = row.repeat(MAX_FILE / row.len() + 10);
    let parsed = read("huge", huge.as_bytes());
    assert_eq!((parsed.snapshot.cpus.len(), parsed.snapshot.cpus[0].cpuid.len()), (1, 1));
    assert!(parsed.has_errors());

    let nothing = vec![b' '; MAX_FILE + 1];
    assert_eq!(read("nothing", &nothing).format, Format::Unknown);
}

#[test]
fn numbers_that_do_not_fit_are_no_numbers() {
    for text in [
        "CPU 99999999999:\n   0x00000000 0x00: eax=0x00000001 ebx=0x00000002 ecx=0x00000003 edx=0x00000004\n",
        "   0x00000000 0x00: eax=0x123456789 ebx=0x00000002 ecx=0x00000003 edx=0x00000004\n",
        "   0x00000000 0x00: eax=-0000001 ebx=0x00000002 ecx=0x00000003 edx=0x00000004\n",
    ] {
        let parsed = read_as(Format::CpuidR, "numbers", text.as_bytes());
        assert_eq!(parsed.diagnostics.iter().filter(|d| d.line == 1).count(), 1, "{text}");
    }
    let parsed = read_as(Format::Cpuinfo, "numbers", b"processor : 99999999999\nmodel : x\nflags : fpu\n");
    assert_eq!((parsed.snapshot.cpus[0].id, parsed.diagnostics.len()), (0, 1));
}
