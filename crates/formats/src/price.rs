//! What `cpusieve price --json` printed: features' worth on one machine, to be shown beside flags elsewhere.
//!
//! Rows without a ratio and its interval are left out and counted; the machine may be told in part. What else is in the
//! file is left alone.

use crate::diagnostic::Log;
use crate::json::{Document, Kind, Value};
use crate::{Diagnostic, Format};
use cpusieve_model::Snapshot;

/// Rows of one kind in one file at most. A run has fewer than 100.
pub const MAX_ROWS: usize = 4096;

/// Characters of one text at most.
const MAX_TEXT: usize = 200;

/// A median and the interval in which the true one lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The median.
    pub median: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Samples.
    pub n: u64,
}

/// The machine that was measured, as far as the file tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The CPU's name for itself.
    pub brand: Option<String>,
    /// Its generation: `Zen 4`.
    pub generation: Option<String>,
    /// Display family, model and stepping: `25/17/1`.
    pub signature: Option<String>,
    /// Bare metal, or what lies below.
    pub place: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// `2026-11-22`
    pub date: Option<String>,
}

/// One feature's worth in one piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The feature's id.
    pub feature: String,
    /// The work's id.
    pub work: String,
    /// The work for people.
    pub title: String,
    /// The way with the feature.
    pub with: String,
    /// The way without it.
    pub without: String,
    /// What the rates count in a second: `bytes`.
    pub unit: String,
    /// The time without by the time with.
    pub ratio: Range,
    /// Units a second with the feature.
    pub rate_with: Option<Range>,
    /// Units a second without it.
    pub rate_without: Option<Range>,
}

/// What an operation costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// A name that stays: `cpuid.1.0`.
    pub id: String,
    /// For people.
    pub what: String,
    /// Nanoseconds.
    pub ns: Range,
    /// `native`, `between`, `trapped`.
    pub label: String,
}

/// All that is kept of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices {
    /// Where it was measured.
    pub machine: Machine,
    /// Features' worth.
    pub rows: Vec<Row>,
    /// Works that were not timed, by id, each with the features that were lacking.
    pub lacking: Vec<(String, Vec<String>)>,
    /// The cost of leaving.
    pub exits: Vec<Exit>,
}

/// Reads what `cpusieve price --json` printed; `name` is the file's in diagnostics.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> (Prices, Vec<Diagnostic>) {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let mut prices = Prices::default();
    if let Some(root) = document.roots().next() {
        prices.machine = root.get("machine").map(machine).unwrap_or_default();
        prices.rows = rows(&mut log, root.get("prices"), row);
        prices.lacking = rows(&mut log, root.get("unpriced"), |value| Some((text(value, "work")?, lacking(value))));
        prices.exits = rows(&mut log, root.get("exits").and_then(|exits| exits.get("rows")), exit);
    }
    if prices.rows.is_empty() && prices.exits.is_empty() {
        log.error_expected(0, "no prices are in it", "what `cpusieve price --json` prints");
    }
    (prices, log.finish(Format::Record, Snapshot::default()).diagnostics)
}

/// The elements of an array that `read` takes. One that is not timed has its reason in the file and is no mistake.
fn rows<T>(log: &mut Log, array: Option<Value<'_>>, read: impl Fn(Value<'_>) -> Option<T>) -> Vec<T> {
    let Some(array) = array.filter(|array| array.kind() == Kind::Array) else { return Vec::new() };
    let mut rows = Vec::new();
    for value in array.items() {
        match read(value).filter(|_| rows.len() < MAX_ROWS) {
            Some(row) => rows.push(row),
            None => log.ignored.values += 1,
        }
    }
    rows
}

/// A text that a terminal and a table can take: no control characters, not too long.
fn text(object: Value<'_>, key: &str) -> Option<String> {
    let text = object.get(key)?.text()?;
    let text: String = text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect();
    (!text.is_empty()).then_some(text)
}

fn machine(object: Value<'_>) -> Machine {
    let field = |key: &str| text(object, key);
    Machine {
        brand: field("brand"),
        generation: field("generation"),
        signature: object.get("signature").and_then(signature),
        place: field("place"),
        kernel: field("kernel"),
        date: field("date"),
    }
}

/// `25/17/1` of `{"family":25,"model":17,"stepping":1}`.
fn signature(object: Value<'_>) -> Option<String> {
    let number = |key: &str| object.get(key).and_then(Value::u64);
    Some(format!("{}/{}/{}", number("family")?, number("model")?, number("stepping")?))
}

fn row(object: Value<'_>) -> Option<Row> {
    let way = |key: &str| object.get(key).and_then(|way| text(way, "way")).unwrap_or_default();
    let rate = |key: &str| object.get(key).and_then(|way| way.get("rate")).and_then(range);
    Some(Row {
        feature: text(object, "feature")?,
        work: text(object, "work")?,
        title: text(object, "title")?,
        with: way("with"),
        without: way("without"),
        unit: text(object, "unit").unwrap_or_default(),
        ratio: range(object.get("ratio")?).filter(|ratio| ratio.low > 0.0)?,
        rate_with: rate("with"),
        rate_without: rate("without"),
    })
}

fn lacking(object: Value<'_>) -> Vec<String> {
    let Some(list) = object.get("lacking").filter(|list| list.kind() == Kind::Array) else { return Vec::new() };
    list.items().take(MAX_ROWS).filter_map(|lacking| text(lacking, "feature")).collect()
}

fn exit(object: Value<'_>) -> Option<Exit> {
    let label = text(object, "label")?;
    Some(Exit { id: text(object, "id")?, what: text(object, "what")?, ns: range(object.get("ns")?)?, label })
}

/// `{"median":1.5,"low":1.4,"high":1.6,"n":12}`, the ends in order.
fn range(object: Value<'_>) -> Option<Range> {
    let number = |key: &str| {
        let raw = std::str::from_utf8(object.get(key).filter(|value| value.kind() == Kind::Number)?.raw()).ok()?;
        raw.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
    };
    let range = Range {
        median: number("median")?,
        low: number("low")?,
        high: number("high")?,
        n: object.get("n").and_then(Value::u64).unwrap_or(0),
    };
    (range.low <= range.median && range.median <= range.high).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"format":1,"machine":{"brand":"AMD EPYC","generation":"Zen 4",
        "signature":{"family":25,"model":17,"stepping":1},"date":"2026-11-22"},
        "prices":[{"feature":"aes","work":"aes-256-gcm","title":"AES-256-GCM","unit":"bytes",
          "with":{"way":"AES-NI","needs":["aes"],"rate":{"median":2e9,"low":1.9e9,"high":2.1e9,"n":12}},
          "without":{"way":"SSSE3"},"ratio":{"median":11.5,"low":11,"high":12.25,"n":12}},
          {"feature":"sha_ni","work":"sha-256","title":"SHA-256","ratio":{"median":3,"low":4,"high":5}}],
        "unpriced":[{"feature":"amx_int8","work":"amx","why":"lacking","lacking":[{"feature":"amx_int8"}]}],
        "exits":{"rows":[{"id":"cpuid.0.0","what":"CPUID 0H","label":"trapped","ns":{"median":70,"low":60,"high":80,"n":9}},
          {"id":"rdpmc","what":"RDPMC","refused":"faults"}]}}"#;

    #[test]
    fn what_price_prints_is_read_and_nonsense_left_out() {
        let (prices, diagnostics) = parse("price.json", WHOLE.as_bytes());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        // Ends that are not in order are no interval.
        let [row] = &prices.rows[..] else { panic!("{:?}", prices.rows) };
        assert_eq!((row.feature.as_str(), row.ratio.median, row.ratio.n), ("aes", 11.5, 12));
        assert_eq!((row.with.as_str(), row.rate_with.map(|rate| rate.median)), ("AES-NI", Some(2e9)));
        assert_eq!(prices.machine.generation.as_deref(), Some("Zen 4"));
        assert_eq!(prices.machine.signature.as_deref(), Some("25/17/1"));
        assert_eq!(prices.lacking, [("amx".to_owned(), vec!["amx_int8".to_owned()])]);
        assert_eq!(prices.exits.len(), 1);
    }

    #[test]
    fn what_is_no_price_list_is_told_and_never_panics() {
        for bad in
            ["", "{", "[]", "{\"prices\":[]}", "{\"prices\":[{\"ratio\":1e999}]}", "{\"prices\":{\"a\":1}}", "\u{0}"]
        {
            let (prices, diagnostics) = parse("x", bad.as_bytes());
            assert!(prices.rows.is_empty() && !diagnostics.is_empty(), "{bad}");
        }
        for end in 0..WHOLE.len() {
            let _ = parse("cut", &WHOLE.as_bytes()[..end]);
        }
    }
}
