//! Which format an input has, by its content alone.

use crate::diagnostic::Log;
use crate::text::{Lines, contains, prepare};
use crate::{Format, Parsed, aida64, cpuid_r, cpuinfo, firecracker, kcpuid, lab, libcpuid, libvirt_xml, lscpu, qmp};
use crate::{Snapshot, record};

/// Reads an input in whichever format it is. `name` stands in the diagnostics.
///
/// ```
/// let parsed = cpusieve_formats::read("pasted", b"flags : fpu vme de pse tsc msr");
/// assert_eq!(parsed.format, cpusieve_formats::Format::FlagsLine);
/// let parsed = cpusieve_formats::read("letter", b"Dear Sir or Madam,");
/// assert!(parsed.has_errors() && parsed.snapshot.cpus.is_empty());
/// ```
#[must_use]
pub fn read(name: &str, bytes: &[u8]) -> Parsed {
    read_as(recognise(bytes), name, bytes)
}

/// Reads an input as `format`, whatever it looks like. [`Format::Unknown`] gives the error that names all formats.
#[must_use]
pub fn read_as(format: Format, name: &str, bytes: &[u8]) -> Parsed {
    match format {
        Format::Record => record::parse(name, bytes),
        Format::LabCapture => lab::parse(name, bytes),
        Format::Cpuinfo => cpuinfo::parse(name, bytes),
        Format::FlagsLine => cpuinfo::parse_flags_line(name, bytes),
        Format::CpuidR => cpuid_r::parse(name, bytes),
        Format::Kcpuid => kcpuid::parse(name, bytes),
        Format::Aida64 => aida64::parse(name, bytes),
        Format::Libcpuid => libcpuid::parse(name, bytes),
        Format::LibvirtCpuid | Format::LibvirtCpu => libvirt_xml::parse(name, bytes),
        Format::Qmp => qmp::parse(name, bytes),
        Format::FirecrackerFingerprint | Format::FirecrackerTemplate => firecracker::parse(name, bytes),
        Format::LscpuText | Format::LscpuJson => lscpu::parse(name, bytes),
        Format::Unknown => unknown(name, bytes),
    }
}

fn unknown(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let formats: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
    let what = if bytes.trim_ascii().is_empty() { "the file is empty" } else { "the file is in no known format" };
    log.error_expected(0, what, format!("one of: {}", formats.join(", ")));
    log.ignored.lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count() as u64;
    log.finish(Format::Unknown, Snapshot::default())
}

/// The format that the content shows; [`Format::Unknown`] if it shows none.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Format {
    let mut log = Log::new("");
    let text = prepare(&mut log, bytes);
    match text.trim_ascii_start().first() {
        Some(b'{' | b'[') => by_keys(&text),
        Some(b'<') => by_root(&text),
        _ => by_lines(&text),
    }
}

/// Keys of the outermost JSON object that only one format has.
const KEYS: [(&[u8], Format); 13] = [
    (b"cpuid_modifiers", Format::FirecrackerTemplate),
    (b"msr_modifiers", Format::FirecrackerTemplate),
    (b"kvm_capabilities", Format::FirecrackerTemplate),
    (b"guest_cpu_config", Format::FirecrackerFingerprint),
    (b"firecracker_version", Format::FirecrackerFingerprint),
    (b"lscpu", Format::LscpuJson),
    (b"QMP", Format::Qmp),
    (b"return", Format::Qmp),
    (b"kind", Format::Record),
    (b"cpus", Format::Record),
    (b"cpu_arg", Format::LabCapture),
    (b"l1", Format::LabCapture),
    (b"kvm_supported_cpuid", Format::LabCapture),
];

/// JSON: the first key of the outermost object that tells.
fn by_keys(text: &[u8]) -> Format {
    let mut keys = TopKeys { text, at: 0, depth: 0 };
    let told = |key: &[u8]| KEYS.iter().find(|(known, _)| *known == key).map(|&(_, format)| format);
    std::iter::from_fn(|| keys.next_key()).find_map(told).unwrap_or(Format::Unknown)
}

/// The strings that stand directly in the outermost objects. Values are among them, which does no harm here: no value
/// of a known format is called like a key of another one.
struct TopKeys<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> TopKeys<'a> {
    fn next_key(&mut self) -> Option<&'a [u8]> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b'"' => {
                    let string = self.string();
                    if self.depth <= 1 {
                        return Some(string);
                    }
                }
                _ => {}
            }
        }
    }

    /// The rest of a string that has begun.
    fn string(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return self.text.get(start..self.at - 1).unwrap_or_default();
            }
        }
        self.text.get(start..).unwrap_or_default()
    }
}

/// XML: libvirt's data, or its description of a CPU, which also stands inside capabilities and domains.
fn by_root(text: &[u8]) -> Format {
    if contains(text, b"<cpudata") {
        Format::LibvirtCpuid
    } else if contains(text, b"<cpu>") || contains(text, b"<cpu ") || contains(text, b"<cpu\n") {
        Format::LibvirtCpu
    } else {
        Format::Unknown
    }
}

/// Text: the first line that only one format has; failing that, lines of flags.
fn by_lines(text: &[u8]) -> Format {
    let mut flags = false;
    let mut lscpu = false;
    let mut old_flags = 0;
    let mut lines = Lines::new(text);
    while let Some((_, line)) = lines.next_of_any_length() {
        let line = line.trim_ascii();
        if let Some(format) = by_line(line) {
            return if format == Format::Aida64 && has_separator(&lines) { Format::Libcpuid } else { format };
        }
        let key = line.split(|&byte| byte == b':').next().unwrap_or_default().trim_ascii_end();
        if [&b"flags"[..], b"Flags", b"vmx flags", b"bugs"].contains(&key) && key.len() < line.len() {
            flags = true;
        } else if [&b"Vendor ID"[..], b"Model name", b"CPU family"].contains(&key) {
            lscpu = true;
        } else {
            old_flags += cpuinfo::known_flags(line);
        }
    }
    if flags {
        return if lscpu { Format::LscpuText } else { Format::FlagsLine };
    }
    // Three of the oldest flags, and nothing that cannot be one: a line of flags without its label.
    if old_flags >= 3 && all_flags(text) { Format::FlagsLine } else { Format::Unknown }
}

fn all_flags(text: &[u8]) -> bool {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).all(cpuinfo::is_flag)
}

/// Whether a line of dashes and something after it follows, as in libcpuid's tests.
fn has_separator(lines: &Lines<'_>) -> bool {
    let mut lines = lines.clone();
    std::iter::from_fn(|| lines.next_of_any_length()).any(|(_, line)| libcpuid::is_separator(line))
}

/// The format that alone has such a line.
fn by_line(line: &[u8]) -> Option<Format> {
    let starts = |word: &[u8]| line.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let field = |name: &[u8]| line.strip_prefix(name).is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"));
    if cpuid_r::entry(line).is_some() {
        Some(Format::CpuidR)
    } else if kcpuid::read_line(line).is_some() {
        Some(Format::Kcpuid)
    } else if libcpuid::native(line).is_some() {
        Some(Format::Libcpuid)
    } else if (starts(b"CPUID") && aida64::row(line).is_some()) || starts(b"CPUID Registers (CPU #") {
        Some(Format::Aida64)
    } else if [&b"processor"[..], b"vendor_id", b"model name", b"cpu family"].into_iter().any(field) {
        Some(Format::Cpuinfo)
    } else if [&b"Architecture"[..], b"CPU op-mode(s)"].into_iter().any(field) {
        Some(Format::LscpuText)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_recognised_by_its_content() {
        for (text, format) in [
            ("CPU:\n   0x00000000 0x00: eax=0x00000001 ebx=0x00000002 ecx=0x00000003 edx=0x00000004\n", Format::CpuidR),
            ("Basic Leafs :\n======\n", Format::Kcpuid),
            ("CPU Type : x\nCPUID 00000000: 00000001-00000002-00000003-00000004\n", Format::Aida64),
            ("basic_cpuid[0]=00000001 00000002 00000003 00000004\n", Format::Libcpuid),
            ("CPUID 00000000: 00000001-00000002-00000003-00000004\n--------------------\nx86\n", Format::Libcpuid),
            ("processor\t: 0\nflags : fpu\n", Format::Cpuinfo),
            ("flags : fpu\n", Format::FlagsLine),
            ("Flags:   fpu vme\n", Format::FlagsLine),
            ("fpu vme de pse\ntsc", Format::FlagsLine),
            ("Architecture:   x86_64\nFlags:  fpu\n", Format::LscpuText),
            ("Model name: x\nFlags:  fpu\n", Format::LscpuText),
            ("Aborted\nModel name: x\n", Format::Unknown),
            ("{\"lscpu\":[]}", Format::LscpuJson),
            (" {\"x\":{\"return\":1},\"guest_cpu_config\":{}}", Format::FirecrackerFingerprint),
            ("{\"cpuid_modifiers\":[]}", Format::FirecrackerTemplate),
            ("{\"return\": {}}", Format::Qmp),
            ("{\"format\":1,\"kind\":\"cpusieve-record\"}", Format::Record),
            ("{\"id\":\"q\",\"cpu_arg\":\"max\"}", Format::LabCapture),
            ("<!-- x -->\n<cpudata arch='x86'/>", Format::LibvirtCpuid),
            ("<cpu mode='custom'/>", Format::LibvirtCpu),
            ("<html>", Format::Unknown),
            ("{\"a\\\"return\": \"b", Format::Unknown),
            ("the msr, mmx and sse of the fpu", Format::Unknown),
            ("", Format::Unknown),
        ] {
            assert_eq!(recognise(text.as_bytes()), format, "{text}");
        }
    }

    #[test]
    fn an_unknown_file_gives_one_error_that_names_the_formats() {
        let parsed = read("letter", b"Dear Sir,\n\nyours\n");
        let shown: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 1);
        assert!(shown[0].starts_with("letter: the file is in no known format; expected one of: cpusieve record, "));
        assert_eq!(parsed.ignored.lines, 2);
    }
}
