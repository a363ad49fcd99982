//! libvirt's XML: raw CPUID (`<cpudata>`), and the `<cpu>` of capabilities and domains.
//!
//! `<cpudata>` holds registers of one CPU. `<cpu>`, of which a file may hold a list, names a model and features that are
//! added or taken away: what the model itself holds stands in libvirt's CPU map and not in the file.

mod cpu;
mod cpudata;
mod domain;
mod guard;

use std::collections::BTreeMap;

use cpusieve_model::{Domain, Snapshot};
use roxmltree::{Document, Node, ParsingOptions};

use crate::diagnostic::{Log, quote};
use crate::limits::{MAX_XML_ATTRIBUTES, MAX_XML_NODES};
use crate::position::Lines;
use crate::{Diagnostic, Format, Parsed, Severity};

/// Reads `<cpudata>` or `<cpu>` XML, the latter also inside `<capabilities>`, `<domain>` and `<domainCapabilities>`.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let text = crate::text::to_text(&bytes);
    if let Err(error) = std::str::from_utf8(&bytes) {
        let line = Lines::new(&bytes).at(error.valid_up_to());
        log.warning_expected(line, "bytes that are not UTF-8, taken for Latin-1", "XML in UTF-8");
    }
    let (format, snapshot) = read(&text, &mut log);
    log.finish(format, snapshot)
}

/// Reads `<domain>` XML as a virtual machine; `None` if it is none, and the diagnostics say why.
///
/// ```
/// let text = b"<domain type='kvm'><name>web1</name><cpu mode='host-passthrough'/></domain>";
/// let (domain, diagnostics) = cpusieve_formats::libvirt_xml::domain("web1.xml", text);
/// assert_eq!(domain.unwrap().cpu.unwrap().mode.as_deref(), Some("host-passthrough"));
/// assert!(diagnostics.is_empty());
/// ```
#[must_use]
pub fn domain(name: &str, bytes: &[u8]) -> (Option<Domain>, Vec<Diagnostic>) {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let text = crate::text::to_text(&bytes);
    let lines = Lines::new(text.as_bytes());
    let read = |document: &Document<'_>, elements: &mut Elements<'_, '_>| {
        let domain = domain::read(document.root_element(), elements);
        elements.finish();
        domain
    };
    let domain = with_document(&text, &lines, &mut log, read).ok().flatten();
    let parsed = log.finish(Format::LibvirtCpu, Snapshot::default());
    // What is left out of a domain is not about CPUs.
    let told = parsed.diagnostics.into_iter().filter(|diagnostic| diagnostic.severity != Severity::Note);
    (domain, told.collect())
}

/// Why there is no document; it was said.
enum NoDocument {
    /// It is not given to the parser.
    Refused,
    /// It stops being XML at this byte.
    Broken(usize),
}

/// What is read of the document in a text.
fn with_document<T>(
    text: &str,
    lines: &Lines<'_>,
    log: &mut Log,
    read: impl FnOnce(&Document<'_>, &mut Elements<'_, '_>) -> T,
) -> Result<T, NoDocument> {
    if let Some(place) = guard::excess(text.as_bytes()) {
        let most = format!("at most {MAX_XML_ATTRIBUTES} attributes of one element, and no name spaces but libvirt's");
        log.error_expected(lines.at(place), "XML that is not libvirt's; it is not read", most);
        return Err(NoDocument::Refused);
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_XML_NODES, ..ParsingOptions::default() };
    let error = match Document::parse_with_options(text, options) {
        Ok(document) => return Ok(read(&document, &mut Elements::new(log, lines))),
        Err(error) => error,
    };
    // Of an input that ends too early the parser names no place.
    let is_cut = matches!(error, roxmltree::Error::UnclosedRootNode | roxmltree::Error::UnexpectedEndOfStream);
    let place = if is_cut { text.len() } else { guard::offset(text, error.pos()) };
    let words = error.to_string().replace(char::is_control, "?");
    log.error(lines.at(place), format!("not well-formed XML: {words}"));
    Err(NoDocument::Broken(place))
}

fn read(text: &str, log: &mut Log) -> (Format, Snapshot) {
    let is_data = text.contains("<cpudata");
    let format = if is_data { Format::LibvirtCpuid } else { Format::LibvirtCpu };
    let lines = Lines::new(text.as_bytes());
    let place = match with_document(text, &lines, log, root) {
        Ok(snapshot) => return (format, snapshot),
        Err(NoDocument::Refused) => return (format, Snapshot::default()),
        Err(NoDocument::Broken(place)) => place,
    };
    // What stands before the place of the error can still be used if it is a list of whole elements.
    let Some(whole) = is_data.then(|| guard::until(text, place)).flatten() else {
        return (format, Snapshot::default());
    };
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_XML_NODES, ..ParsingOptions::default() };
    let snapshot = Document::parse_with_options(&whole, options)
        .map_or_else(|_| Snapshot::default(), |document| root(&document, &mut Elements::new(log, &lines)));
    (format, snapshot)
}

fn root(document: &Document<'_>, elements: &mut Elements<'_, '_>) -> Snapshot {
    let root = document.root_element();
    let snapshot = match root.tag_name().name() {
        "cpudata" => cpudata::read(document, elements),
        "cpu" | "capabilities" | "domain" | "domainCapabilities" => cpu::read(root, elements),
        _ if root.children().any(|child| child.has_tag_name("cpu")) => cpu::read(root, elements),
        other => {
            let what = format!("the root element is {}", quote(other.as_bytes()));
            elements.log.error_expected(elements.line(root), what, "cpudata, cpu, capabilities or domain");
            Snapshot::default()
        }
    };
    elements.finish();
    snapshot
}

/// Reads the elements of one input: wrong attributes become diagnostics, unknown elements are counted.
struct Elements<'l, 't> {
    log: &'l mut Log,
    lines: &'t Lines<'t>,
    /// Unknown elements by name: the first line, and how often. Names beyond the first twenty are counted alone.
    unknown: BTreeMap<String, (u32, u64)>,
}

impl<'l, 't> Elements<'l, 't> {
    const MAX_UNKNOWN: usize = 20;

    fn new(log: &'l mut Log, lines: &'t Lines<'t>) -> Self {
        Self { log, lines, unknown: BTreeMap::new() }
    }

    fn line(&self, node: Node<'_, '_>) -> u32 {
        self.lines.at(node.range().start)
    }

    /// Counts an element that is not known here.
    fn unknown(&mut self, node: Node<'_, '_>) {
        self.log.ignored.fields += 1;
        let name = quote(node.tag_name().name().as_bytes());
        let line = self.line(node);
        if let Some((_, count)) = self.unknown.get_mut(&name) {
            *count += 1;
        } else if self.unknown.len() < Self::MAX_UNKNOWN {
            self.unknown.insert(name, (line, 1));
        }
    }

    fn finish(&mut self) {
        for (name, (line, count)) in std::mem::take(&mut self.unknown) {
            let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
            self.log.note(line, format!("the element {name} is not known here and is left out{times}"));
        }
    }

    /// The number in an attribute, in decimal or with `0x` in hexadecimal; says so if it is none.
    fn number(&mut self, node: Node<'_, '_>, attribute: &str) -> Result<Option<u32>, ()> {
        let Some(text) = node.attribute(attribute) else { return Ok(None) };
        let number = match text.strip_prefix("0x") {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            let what = format!("{attribute} of <{}> is {}", node.tag_name().name(), quote(text.as_bytes()));
            self.log.warning_expected(self.line(node), what, "a number of at most 32 bits, such as 0x0000000d");
        }
        number.map(Some).ok_or(())
    }
}
