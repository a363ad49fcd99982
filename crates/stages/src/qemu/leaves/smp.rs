//! `-smp`: how each release reads it and fills in what was not given (`hw/core/machine-smp.c:machine_parse_smp_config`;
//! 5.2: `hw/i386/pc.c:pc_smp_parse`, `hw/core/machine.c:smp_parse`).
//!
//! Machines until 6.1 make sockets of what is left over, later ones cores: `-smp 4` is four sockets on `pc-q35-6.1` and
//! four cores on `pc-q35-6.2`.

use cpusieve_knowledge::qemu::{Machine, MachineKind};
use thiserror::Error;

use crate::qemu::cpu::Smp;
use crate::qemu::release::{V7_2, V10_0};

/// A `-smp` that QEMU refuses. Displays in QEMU's own words, without the program's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SmpError {
    /// QEMU's message.
    pub message: String,
    /// The byte of the text at which the parameter in question starts; 0 if it is about all of them.
    pub offset: usize,
    /// What QEMU warns of before it.
    pub warning: Option<String>,
}

impl SmpError {
    fn of(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: 0, warning: None }
    }
}

/// What QEMU says of a zero, and goes on (7.2; later releases refuse it).
const ZERO: &str = "CPU topology parameters must be greater than zero";

/// The parameters that were given: cpus, sockets, dies, clusters, modules, cores, threads, maxcpus.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    cpus: Option<u32>,
    sockets: Option<u32>,
    dies: Option<u32>,
    clusters: Option<u32>,
    modules: Option<u32>,
    cores: Option<u32>,
    threads: Option<u32>,
    maxcpus: Option<u32>,
    drawers: Option<u32>,
    books: Option<u32>,
}

impl Given {
    /// The place of a parameter, if the release knows it.
    fn slot(&mut self, release: usize, name: &str) -> Option<&mut Option<u32>> {
        Some(match name {
            "cpus" => &mut self.cpus,
            "sockets" => &mut self.sockets,
            "dies" => &mut self.dies,
            "cores" => &mut self.cores,
            "threads" => &mut self.threads,
            "maxcpus" => &mut self.maxcpus,
            "clusters" if release >= V7_2 => &mut self.clusters,
            "modules" if release >= V10_0 => &mut self.modules,
            "drawers" if release >= V10_0 => &mut self.drawers,
            "books" if release >= V10_0 => &mut self.books,
            _ => return None,
        })
    }

    fn has_zero(&self) -> bool {
        let all = [
            self.cpus,
            self.sockets,
            self.dies,
            self.clusters,
            self.modules,
            self.cores,
            self.threads,
            self.maxcpus,
            self.drawers,
            self.books,
        ];
        all.contains(&Some(0))
    }
}

impl Smp {
    /// The topology that `-smp TEXT` makes on a machine: `4,sockets=1,cores=2,threads=2`; with what QEMU warns of.
    ///
    /// # Errors
    /// QEMU does not start with it.
    pub fn parse(release: usize, machine: &Machine, text: &str) -> Result<(Self, Option<String>), SmpError> {
        let given = if release >= V7_2 { keyval(release, text)? } else { options(release, text)? };
        let warning = match given.has_zero() {
            true if release >= V10_0 => return Err(SmpError::of(format!("Invalid CPU topology: {ZERO}"))),
            true if release >= V7_2 => Some(format!("warning: Deprecated CPU topology (considered invalid): {ZERO}")),
            _ => None,
        };
        let parsed = match release >= V7_2 {
            true => machine_parse_smp_config(release, machine, &given),
            false => smp_parse(machine, &given),
        };
        match parsed.and_then(|(smp, maxcpus)| within_machine(machine, &smp, maxcpus).map(|()| smp)) {
            Ok(smp) => Ok((smp, warning)),
            Err(error) => Err(SmpError { warning, ..error }),
        }
    }
}

/// The number that C's `strtol` with base 0 reads, if it reads all of the text: white space, sign, `0x` or `0`.
fn integer(text: &str) -> Option<i128> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    digits.chars().next().filter(|digit| digit.is_digit(radix))?;
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// The low 32 bits: QEMU keeps an `int64_t` and hands on an `unsigned`.
const fn truncated(value: i128) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// One parameter: where it starts, its name, its value if it has one.
type Part = (usize, String, Option<String>);

/// Cuts at single commas; a doubled one stands for itself in a value. A first part without `=` is the value of `cpus`.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let name_end = rest.find(['=', ',']).unwrap_or(rest.len());
        let has_value = rest[name_end..].starts_with('=');
        let implied = at == 0 && name_end > 0 && !has_value;
        let value_at = if has_value { name_end + 1 } else { name_end };
        let (name, value, end) = if implied {
            let (value, end) = value(rest);
            ("cpus".to_owned(), Some(value), end)
        } else if has_value {
            let (value, end) = value(&rest[value_at..]);
            (rest[..name_end].to_owned(), Some(value), value_at + end)
        } else {
            (rest[..name_end].to_owned(), None, name_end)
        };
        parts.push((at, name, value));
        at += end + 1;
    }
    parts
}

/// A value up to the next single comma, and the bytes that it took.
fn value(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        if character == ',' && rest.next_if(|&(_, next)| next == ',').is_none() {
            return (value, at);
        }
        value.push(character);
    }
    (value, text.len())
}

/// Reads the text as 7.2 and later do (`util/keyval.c:keyval_parse`, `qapi/qobject-input-visitor.c`).
fn keyval(release: usize, text: &str) -> Result<Given, SmpError> {
    let refused = |offset, message: String| SmpError { offset, ..SmpError::of(format!("-smp {text}: {message}")) };
    let parts = parts(text);
    for (at, name, value) in &parts {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(letters) {
            return Err(refused(*at, format!("Invalid parameter '{name}'")));
        }
        if value.is_none() {
            return Err(refused(*at, format!("Expected '=' after parameter '{name}'")));
        }
    }
    let mut given = Given::default();
    let mut wrong = None;
    let mut unknown = None;
    for (at, name, value) in parts {
        let Some(slot) = given.slot(release, &name) else {
            let name = name.split('.').next().unwrap_or_default();
            let message = format!("Parameter 'smp.{name}' is unexpected");
            unknown.get_or_insert(SmpError { offset: at, ..SmpError::of(message) });
            continue;
        };
        let number = value.as_deref().and_then(integer).filter(|&number| i64::try_from(number).is_ok());
        *slot = number.map(truncated);
        if number.is_none() {
            let message = format!("Parameter 'smp.{name}' expects integer");
            wrong.get_or_insert(SmpError { offset: at, ..SmpError::of(message) });
        }
    }
    // The members are visited before what is left over.
    wrong.or(unknown).map_or(Ok(given), Err)
}

/// Reads the text as 5.2 does (`util/qemu-option.c`).
fn options(release: usize, text: &str) -> Result<Given, SmpError> {
    let refused = |offset, message: String| SmpError { offset, ..SmpError::of(format!("-smp {text}: {message}")) };
    let mut given = Given::default();
    for (at, name, value) in parts(text) {
        let Some(slot) = given.slot(release, &name) else {
            return Err(refused(at, format!("Invalid parameter '{name}'")));
        };
        let number = value.as_deref().and_then(integer);
        let Some(number) = number.filter(|&number| u64::try_from(number.abs()).is_ok()) else {
            return Err(refused(at, format!("Parameter '{name}' expects a number")));
        };
        *slot = Some(truncated(number));
    }
    Ok(given)
}

/// What a division by a product that was given as zero does to QEMU 5.2.
fn divide(dividend: u32, divisor: u32) -> Result<u32, SmpError> {
    dividend.checked_div(divisor).ok_or_else(|| SmpError::of("QEMU divides by zero and dies"))
}

/// The product of counts, as `unsigned` has it.
fn product(counts: &[u32]) -> u32 {
    counts.iter().fold(1, |product, &count| product.wrapping_mul(count))
}

/// `hw/i386/pc.c:pc_smp_parse` of 5.2; without dies `hw/core/machine.c:smp_parse`, for machines that are no PC.
fn smp_parse(machine: &Machine, given: &Given) -> Result<(Smp, u32), SmpError> {
    let pc = machine.is_pc();
    let dies = if pc { given.dies.unwrap_or(1) } else { 1 };
    let or_zero = |count: Option<u32>| count.unwrap_or(0);
    let [mut cpus, mut sockets, mut cores, mut threads] =
        [given.cpus, given.sockets, given.cores, given.threads].map(or_zero);
    let hierarchy = |sockets: u32, cores: u32, threads: u32| match pc {
        true => format!("sockets ({sockets}) * dies ({dies}) * cores ({cores}) * threads ({threads})"),
        false => format!("sockets ({sockets}) * cores ({cores}) * threads ({threads})"),
    };
    if cpus == 0 || sockets == 0 {
        cores = cores.max(1);
        threads = threads.max(1);
        if cpus == 0 {
            sockets = sockets.max(1);
            cpus = product(&[cores, threads, dies, sockets]);
        } else {
            sockets = divide(given.maxcpus.unwrap_or(cpus), product(&[cores, threads, dies]))?;
        }
    } else if cores == 0 {
        threads = threads.max(1);
        cores = divide(cpus, product(&[sockets, dies, threads]))?.max(1);
    } else if threads == 0 {
        threads = divide(cpus, product(&[cores, dies, sockets]))?.max(1);
    } else if product(&[sockets, dies, cores, threads]) < cpus {
        let hierarchy = hierarchy(sockets, cores, threads);
        return Err(SmpError::of(format!("cpu topology: {hierarchy} < smp_cpus ({cpus})")));
    }
    let maxcpus = given.maxcpus.unwrap_or(cpus);
    if maxcpus < cpus {
        return Err(SmpError::of("maxcpus must be equal to or greater than smp"));
    }
    if product(&[sockets, dies, cores, threads]) != maxcpus {
        let deprecated = if pc { " deprecated" } else { "" };
        let hierarchy = hierarchy(sockets, cores, threads);
        return Err(SmpError::of(format!("Invalid CPU topology{deprecated}: {hierarchy} != maxcpus ({maxcpus})")));
    }
    Ok((Smp { cpus, sockets, dies, modules: 1, cores, threads }, maxcpus))
}

/// Whether a machine makes sockets of CPUs that nothing was said of, and not cores (`prefer_sockets`).
fn prefers_sockets(machine: &Machine) -> bool {
    machine.version.is_some_and(|version| version <= (6, 1))
}

/// Refuses levels that the machine does not have.
fn supported(release: usize, machine: &Machine, given: &Given) -> Result<(), SmpError> {
    let old = release < V10_0;
    let levels = [
        ("modules", given.modules, machine.is_pc()),
        ("clusters", given.clusters, false),
        ("dies", given.dies, machine.is_pc()),
        ("books", given.books, false),
        ("drawers", given.drawers, false),
    ];
    // 7.2 looks at dies first.
    let refused = |wanted: &str| {
        let found = levels.iter().find(|(name, ..)| *name == wanted);
        found.is_some_and(|&(_, count, has)| !has && count.is_some_and(|count| count > 1))
    };
    let order: &[&str] = if old { &["dies", "clusters"] } else { &["modules", "clusters", "dies", "books", "drawers"] };
    let name = order.iter().find(|name| refused(name));
    let limit = if old { "" } else { " > 1" };
    name.map_or(Ok(()), |name| Err(SmpError::of(format!("{name}{limit} not supported by this machine's CPU topology"))))
}

/// `machine_parse_smp_config`.
fn machine_parse_smp_config(release: usize, machine: &Machine, given: &Given) -> Result<(Smp, u32), SmpError> {
    supported(release, machine, given)?;
    let at_least_one = |count: Option<u32>| count.unwrap_or(0).max(1);
    let or_zero = |count: Option<u32>| count.unwrap_or(0);
    let [dies, modules] = [given.dies, given.modules].map(at_least_one);
    let between = product(&[dies, modules]);
    let [cpus, mut sockets, mut cores, mut threads, mut maxcpus] =
        [given.cpus, given.sockets, given.cores, given.threads, given.maxcpus].map(or_zero);
    if cpus == 0 && maxcpus == 0 {
        [sockets, cores, threads] = [sockets, cores, threads].map(|count| count.max(1));
    } else {
        maxcpus = if maxcpus > 0 { maxcpus } else { cpus };
        let fill_sockets = sockets == 0 && (cores != 0 || prefers_sockets(machine));
        if fill_sockets {
            [cores, threads] = [cores, threads].map(|count| count.max(1));
            sockets = divide(maxcpus, product(&[between, cores, threads]))?;
        } else if cores == 0 {
            [sockets, threads] = [sockets, threads].map(|count| count.max(1));
            cores = divide(maxcpus, product(&[sockets, between, threads]))?;
        }
        if threads == 0 {
            threads = divide(maxcpus, product(&[sockets, between, cores]))?;
        }
    }
    let total = product(&[sockets, between, cores, threads]);
    let maxcpus = if maxcpus > 0 { maxcpus } else { total };
    let cpus = if cpus > 0 { cpus } else { maxcpus };
    let smp = Smp { cpus, sockets, dies, modules, cores, threads };
    let message = if total != maxcpus {
        format!("product of the hierarchy must match maxcpus: {} != maxcpus ({maxcpus})", shown(release, machine, &smp))
    } else if maxcpus < cpus {
        let hierarchy = shown(release, machine, &smp);
        let relation = format!("{hierarchy} == maxcpus ({maxcpus}) < smp_cpus ({cpus})");
        format!("maxcpus must be equal to or greater than smp: {relation}")
    } else {
        return Ok((smp, maxcpus));
    };
    Err(SmpError::of(format!("Invalid CPU topology: {message}")))
}

/// `cpu_hierarchy_to_string`.
fn shown(release: usize, machine: &Machine, smp: &Smp) -> String {
    let Smp { sockets, dies, modules, cores, threads, .. } = smp;
    let dies = if machine.is_pc() { format!(" * dies ({dies})") } else { String::new() };
    let modules = if machine.is_pc() && release >= V10_0 { format!(" * modules ({modules})") } else { String::new() };
    format!("sockets ({sockets}){dies}{modules} * cores ({cores}) * threads ({threads})")
}

/// Refuses fewer CPUs than one and more than the machine's limit.
fn within_machine(machine: &Machine, smp: &Smp, maxcpus: u32) -> Result<(), SmpError> {
    let name = machine.name;
    let limit = |asked: u32, which: &str, limit: u32| {
        let asked = asked.cast_signed();
        let message = format!("Invalid SMP CPUs {asked}. The {which} CPUs supported by machine '{name}' is {limit}");
        Err(SmpError::of(message))
    };
    match machine.kind {
        MachineKind::None => Ok(()),
        _ if smp.cpus < 1 => limit(smp.cpus, "min", 1),
        _ if maxcpus > machine.max_cpus => limit(maxcpus, "max", machine.max_cpus),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::qemu;

    use super::*;

    /// What `-smp TEXT` makes, or what QEMU says.
    fn parsed(release: &str, machine: &str, text: &str) -> String {
        let release = qemu::nearest(release).release;
        let machine = qemu::machine(release, machine).unwrap();
        match Smp::parse(release, machine, text) {
            Ok((Smp { cpus, sockets, dies, modules, cores, threads }, warning)) => {
                let warning = warning.map_or("", |_| " with a warning");
                format!("{cpus}: {sockets}.{dies}.{modules}.{cores}.{threads}{warning}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn old_machines_prefer_sockets_and_new_ones_cores() {
        assert_eq!(parsed("5.2", "q35", "4"), "4: 4.1.1.1.1");
        assert_eq!(parsed("7.2", "q35", "4"), "4: 1.1.1.4.1");
        assert_eq!(parsed("7.2", "pc-q35-6.1", "4"), "4: 4.1.1.1.1");
        assert_eq!(parsed("7.2", "microvm", "4"), "4: 1.1.1.4.1");
        assert_eq!(parsed("10.0", "q35", "8,threads=2"), "8: 1.1.1.4.2");
        assert_eq!(parsed("10.0", "q35", "8,dies=2,modules=2"), "8: 1.2.2.2.1");
        assert_eq!(parsed("7.2", "pc-i440fx-2.4", "8,cores=2"), "8: 4.1.1.2.1");
        assert_eq!(parsed("10.0", "q35", "sockets=2,cores=3"), "6: 2.1.1.3.1");
        assert_eq!(parsed("10.0", "q35", ""), "1: 1.1.1.1.1");
        assert_eq!(parsed("10.0", "q35", "2,maxcpus=8,sockets=2,cores=2,threads=2"), "2: 2.1.1.2.2");
    }

    /// Each line was printed by a real QEMU 7.2.22.
    #[test]
    fn refusals_are_worded_as_qemu_words_them() {
        let q35 = |text| parsed("7.2", "q35", text);
        assert_eq!(q35("4,foo=2"), "Parameter 'smp.foo' is unexpected");
        assert_eq!(q35("4,cores=2,modules=2"), "Parameter 'smp.modules' is unexpected");
        assert_eq!(q35("cpus=x"), "Parameter 'smp.cpus' expects integer");
        assert_eq!(q35("4k"), "Parameter 'smp.cpus' expects integer");
        assert_eq!(q35("4,dies=2,foo"), "-smp 4,dies=2,foo: Expected '=' after parameter 'foo'");
        assert_eq!(q35(",cores=2"), "-smp ,cores=2: Invalid parameter ''");
        assert_eq!(q35("4,cores=2,4"), "-smp 4,cores=2,4: Invalid parameter '4'");
        assert_eq!(q35("300"), "Invalid SMP CPUs 300. The max CPUs supported by machine 'pc-q35-7.2' is 288");
        assert_eq!(q35("-1"), "Invalid SMP CPUs -1. The max CPUs supported by machine 'pc-q35-7.2' is 288");
        assert_eq!(
            q35("99999999999"),
            "Invalid SMP CPUs 1215752191. The max CPUs supported by machine 'pc-q35-7.2' is 288"
        );
        assert_eq!(
            q35("4,sockets=3,cores=1,threads=1"),
            "Invalid CPU topology: product of the hierarchy must match maxcpus: sockets (3) * dies (1) * cores (1) * \
             threads (1) != maxcpus (4)"
        );
        assert_eq!(
            q35("2,maxcpus=1"),
            "Invalid CPU topology: maxcpus must be equal to or greater than smp: sockets (1) * dies (1) * cores (1) * \
             threads (1) == maxcpus (1) < smp_cpus (2)"
        );
        assert_eq!(q35("0x4"), "4: 1.1.1.4.1");
        assert_eq!(q35("0"), "1: 1.1.1.1.1 with a warning");
        assert_eq!(q35("4,cores=0"), "4: 1.1.1.4.1 with a warning");
    }

    #[test]
    fn an_offset_points_at_the_parameter() {
        let release = qemu::nearest("7.2").release;
        let machine = qemu::machine(release, "q35").unwrap();
        let error = Smp::parse(release, machine, "4,cores=2,foo=1").unwrap_err();
        assert_eq!(error.offset, 10);
    }

    #[test]
    fn no_text_panics() {
        for text in [",", ",,", "=", "4,=", "4,,5", "é,é=é", "0x", "- 1", "4,cores=4294967296", "cpus=1,dies=0"] {
            for release in ["5.2", "7.2", "10.0", "11.1"] {
                let _ = parsed(release, "q35", text);
            }
        }
        assert_eq!(parsed("5.2", "q35", "4,dies=0"), "QEMU divides by zero and dies");
    }
}
