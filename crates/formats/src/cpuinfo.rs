//! `/proc/cpuinfo` of x86 (`arch/x86/kernel/cpu/proc.c:show_cpuinfo`), and `flags` lines cut out of it.
//!
//! This is the kernel's view, not CPUID: words that the kernel switched off are missing, and words of its own are
//! there. Flags lines that are the same, byte for byte, share one list. All other fields are kept as they stood.

mod flags_line;

use cpusieve_model::{Cpuinfo, FlagList, LinuxView, Snapshot};

use crate::diagnostic::{Log, quote};
use crate::limits::{MAX_FIELDS, MAX_FLAGS};
use crate::machine::Machine;
use crate::text::{Lines, prepare, to_text};
use crate::{Format, Parsed};

pub use flags_line::parse as parse_flags_line;
pub(crate) use flags_line::{is_flag, known_flags};

/// What a line looks like, for messages.
const EXPECTED: &str = "`field : value`, as in /proc/cpuinfo";

/// Which line of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flags,
    VmxFlags,
    Bugs,
}

impl Kind {
    fn of(key: &[u8]) -> Option<Self> {
        match key {
            b"flags" => Some(Self::Flags),
            b"vmx flags" => Some(Self::VmxFlags),
            b"bugs" => Some(Self::Bugs),
            _ => None,
        }
    }

    /// Puts a line of flags where it belongs. The first of its kind counts; a second that differs is reported.
    fn put(self, log: &mut Log, number: u32, cpuinfo: &mut Cpuinfo, list: FlagList) {
        let (slot, name) = match self {
            Self::Flags => (&mut cpuinfo.flags, "flags"),
            Self::VmxFlags => (&mut cpuinfo.vmx_flags, "vmx flags"),
            Self::Bugs => (&mut cpuinfo.bugs, "bugs"),
        };
        let Some(first) = slot else {
            *slot = Some(list);
            return;
        };
        log.ignored.values += 1;
        if *first != list {
            let what = format!("a second line of {name} that differs; the first is used");
            log.warning_expected(number, what, "one machine in one file");
        }
    }
}

/// The lists of flags made so far: equal lines share one.
#[derive(Debug, Default)]
struct Shared<'a> {
    /// The last line of each [`Kind`] and its list.
    last: [Option<(&'a [u8], FlagList)>; 3],
    /// Flags in all lists made.
    made: usize,
}

impl<'a> Shared<'a> {
    fn list(&mut self, log: &mut Log, number: u32, kind: Kind, value: &'a [u8]) -> FlagList {
        let last = &mut self.last[kind as usize];
        if let Some((bytes, list)) = last
            && *bytes == value
        {
            return list.clone();
        }
        let text = to_text(value);
        let room = MAX_FLAGS.saturating_sub(self.made);
        let count = text.split_ascii_whitespace().count();
        if count > room {
            log.ignored.values += (count - room) as u64;
            log.error_expected(number, format!("{} flags are not used", count - room), format!("at most {MAX_FLAGS}"));
        }
        let list: FlagList = text.split_ascii_whitespace().take(room).collect();
        self.made += list.len();
        *last = Some((value, list.clone()));
        list
    }
}

/// Reads `/proc/cpuinfo`, whole or in part.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let text = prepare(&mut log, bytes);
    let mut reader = Reader { machine: Machine::new(), shared: Shared::default() };
    let mut lines = Lines::new(&text);
    let mut last_key: &[u8] = b"";
    while let Some((number, line)) = lines.next(&mut log) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match field(line) {
            Some((key, value)) => {
                last_key = key;
                reader.field(&mut log, number, key, value);
            }
            None => {
                log.ignored.lines += 1;
                log.warning_expected(number, format!("{} is not read", quote(line)), EXPECTED);
            }
        }
    }
    let last = lines.number();
    if !text.ends_with(b"\n") && Kind::of(last_key).is_some() {
        log.note(last, "the file ends in this line, without a line end: its last word may be cut off");
    }
    let mut snapshot = reader.machine.finish();
    snapshot.title = snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.identity.brand.clone());
    completeness(&mut log, &snapshot, last);
    snapshot.linux = Some(LinuxView { cpuinfo: Some(to_text(&text).into_owned()), ..LinuxView::default() });
    log.finish(Format::Cpuinfo, snapshot)
}

/// Says what shows that lines are missing: no flags at all, or CPUs with fewer fields than the first.
fn completeness(log: &mut Log, snapshot: &Snapshot, last: u32) {
    let blocks = || snapshot.cpus.iter().filter_map(|cpu| Some((cpu.id, cpu.cpuinfo.as_ref()?)));
    if !blocks().any(|(_, block)| block.flags.is_some()) {
        log.error_expected(0, "no line of flags", "`flags : fpu vme ...`, as x86 kernels print it");
        return;
    }
    let Some((_, first)) = blocks().next() else { return };
    let less =
        |block: &Cpuinfo| (block.flags.is_none() && first.flags.is_some()) || block.other.len() < first.other.len();
    if let Some((id, _)) = blocks().find(|(_, block)| less(block)) {
        log.warning_expected(last, format!("CPU {id} has fewer fields than the first"), "the file to its end");
    }
}

/// Key and value around the first colon. Keys of `/proc/cpuinfo` are words; what is not comes from elsewhere.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (key, value) = line.split_at_checked(colon)?;
    let key = key.trim_ascii_end();
    let wordy = |byte: &u8| byte.is_ascii_alphanumeric() || b" _-/.()".contains(byte);
    let plain = key.first().is_some_and(u8::is_ascii_alphabetic) && key.len() <= 40 && key.iter().all(wordy);
    (plain && !key.starts_with(b"CPU")).then_some((key, value.get(1..)?.trim_ascii()))
}

struct Reader<'a> {
    machine: Machine,
    shared: Shared<'a>,
}

impl<'a> Reader<'a> {
    fn field(&mut self, log: &mut Log, number: u32, key: &'a [u8], value: &'a [u8]) {
        if key == b"processor" {
            let id = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            if id.is_none() {
                log.warning_expected(number, format!("processor {}", quote(value)), "a number");
            }
            self.machine.start(log, number, id);
        }
        let Some(cpu) = self.machine.cpu_mut(log, number) else {
            log.ignored.values += 1;
            return;
        };
        let cpuinfo = cpu.cpuinfo.get_or_insert_default();
        if key == b"processor" {
            return;
        }
        if let Some(kind) = Kind::of(key) {
            let list = self.shared.list(log, number, kind, value);
            kind.put(log, number, cpuinfo, list);
            return;
        }
        if !identify(cpuinfo, key, value) {
            if cpuinfo.other.len() >= MAX_FIELDS {
                log.ignored.fields += 1;
                if cpuinfo.other.len() == MAX_FIELDS {
                    log.warning_expected(number, "too many fields for one CPU", format!("at most {MAX_FIELDS}"));
                }
                return;
            }
            cpuinfo.other.push((to_text(key).into(), to_text(value).into()));
        }
    }
}

/// Takes a field that says who the CPU is. What does not read as it should is left to the other fields.
fn identify(cpuinfo: &mut Cpuinfo, key: &[u8], value: &[u8]) -> bool {
    let identity = &mut cpuinfo.identity;
    let text = to_text(value);
    let number = || text.parse::<u32>().ok();
    match key {
        b"vendor_id" => fill(&mut identity.vendor, Some(text.into_owned())),
        b"model name" => fill(&mut identity.brand, Some(text.into_owned())),
        b"cpu family" => fill(&mut identity.family, number()),
        b"model" => fill(&mut identity.model, number()),
        b"stepping" => fill(&mut identity.stepping, number()),
        b"microcode" => {
            let digits = text.strip_prefix("0x").filter(|digits| digits.len() <= 16);
            fill(&mut identity.microcode, digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()))
        }
        _ => false,
    }
}

/// Puts a value into an empty slot; says whether it went in.
fn fill<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let fits = slot.is_none() && value.is_some();
    if fits {
        *slot = value;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(number: u32, flags: &str) -> String {
        format!(
            "processor\t: {number}\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD  EPYC\n\
             stepping\t: 1\nmicrocode\t: 0xa0011d1\ncpu MHz\t\t: 2445.426\nflags\t\t: {flags}\nbugs\t\t: \n\
             power management:\n\n"
        )
    }

    #[test]
    fn fields_are_kept_and_equal_flags_are_shared() {
        let text = cpu(0, "fpu vme") + &cpu(7, "fpu vme") + &cpu(8, "fpu");
        let parsed = parse("f", text.as_bytes());
        assert_eq!(parsed.diagnostics, []);
        let ids: Vec<u32> = parsed.snapshot.cpus.iter().map(|cpu| cpu.id).collect();
        assert_eq!(ids, [0, 7, 8]);
        let [first, second, third] = [0, 1, 2].map(|index| parsed.snapshot.cpus[index].cpuinfo.clone().unwrap());
        assert_eq!(first.identity.brand.as_deref(), Some("AMD  EPYC"));
        assert_eq!((first.identity.family, first.identity.microcode), (Some(25), Some(0xa00_11d1)));
        assert_eq!(first.other, [("cpu MHz".into(), "2445.426".into()), ("power management".into(), "".into())]);
        let address = |list: &Option<FlagList>| list.as_ref().unwrap().iter().next().unwrap().as_ptr();
        assert_eq!(address(&first.flags), address(&second.flags));
        assert_eq!(third.flags.unwrap().iter().collect::<Vec<_>>(), ["fpu"]);
        assert!(first.bugs.unwrap().is_empty());
        assert_eq!(parsed.snapshot.linux.unwrap().cpuinfo.as_deref(), Some(&*text));
    }

    #[test]
    fn two_machines_in_one_file_are_noticed() {
        let text = cpu(0, "fpu vme") + &cpu(0, "fpu");
        let parsed = parse("f", text.as_bytes());
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [13]);
        assert_eq!(parsed.snapshot.flags().map(FlagList::len), Some(2));
    }

    #[test]
    fn a_file_that_ends_early_is_noticed() {
        let text = cpu(0, "fpu vme") + "processor\t: 1\nvendor_id\t: Authe";
        let parsed = parse("f", text.as_bytes());
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [14]);
        let parsed = parse("f", b"processor : 0\nflags : fpu vm");
        assert_eq!(parsed.diagnostics.iter().map(|d| d.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn lines_from_elsewhere_are_no_fields() {
        let text = cpu(0, "fpu") + "CPU 0:\n   0x00000000 0x00: eax=0x00000001\nCPUID 00000000: 1-2-3-4\nnoise\n";
        let parsed = parse("f", text.as_bytes());
        assert_eq!((parsed.ignored.lines, parsed.diagnostics.len()), (4, 4));
    }

    #[test]
    fn fields_and_flags_are_bounded() {
        let many: String = (0..MAX_FIELDS + 3).map(|n| format!("f{n} : x\n")).collect();
        let parsed = parse("f", (many + "flags : fpu\n").as_bytes());
        assert_eq!(parsed.snapshot.cpus[0].cpuinfo.as_ref().unwrap().other.len(), MAX_FIELDS);
        assert_eq!(parsed.ignored.fields, 3);
        let line = format!("flags : {}\n", "a ".repeat(30_000));
        let text: String = (0..10).map(|n| format!("processor : {n}\n{line}")).collect();
        let parsed = parse("f", text.as_bytes());
        assert!(parsed.snapshot.cpus.len() == 10 && !parsed.has_errors(), "equal lines count once");
        let text: String = (0..10).map(|n| format!("processor : {n}\nflags : {n} {}\n", "a ".repeat(30_000))).collect();
        let parsed = parse("f", text.as_bytes());
        let flags: usize =
            parsed.snapshot.cpus.iter().filter_map(|cpu| Some(cpu.cpuinfo.as_ref()?.flags.as_ref()?.len())).sum();
        assert_eq!(flags, MAX_FLAGS);
        assert!(parsed.has_errors());
    }
}
