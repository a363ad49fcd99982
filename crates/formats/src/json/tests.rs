//! Against `serde_json`, and what it does not give: lines, paths, and what stands before an error.

use proptest::prelude::*;

use super::*;
use crate::{Format, Parsed};
use cpusieve_model::Snapshot;

fn with<T>(text: &[u8], look: impl FnOnce(&Document<'_>) -> T) -> (T, Parsed) {
    let mut log = Log::new("f");
    let document = Document::read(text, &mut log);
    let seen = look(&document);
    (seen, log.finish(Format::Unknown, Snapshot::default()))
}

fn shown(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

fn to_serde(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Array => value.items().map(to_serde).collect(),
        Kind::Object => {
            serde_json::Value::Object(value.members().map(|(key, value)| (key.into_owned(), to_serde(value))).collect())
        }
        Kind::String => value.text().unwrap().into_owned().into(),
        Kind::Null | Kind::Bool | Kind::Number => serde_json::from_slice(value.raw()).unwrap_or_default(),
    }
}

/// Agrees with `serde_json` on whether this is JSON, and on what it says.
fn agrees(text: &[u8]) {
    let (ours, parsed) = with(text, |document| document.roots().map(to_serde).collect::<Vec<_>>());
    let is_whole = !parsed.has_errors() && ours.len() == 1;
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(theirs) => assert!(is_whole && ours == [theirs], "{:?}", String::from_utf8_lossy(text)),
        // What it refuses beyond the grammar: bytes that are not UTF-8, halves of surrogate pairs, numbers beyond f64.
        Err(error) => {
            let error = error.to_string();
            let beyond = std::str::from_utf8(text).is_err() || error.contains("hex escape") || error.contains("range");
            assert!(!is_whole || beyond, "{:?} {error}", String::from_utf8_lossy(text));
        }
    }
}

const SAMPLES: [&str; 6] = [
    r#"{"a":[1,-2.5e+3,0,{"b":"x\n\u00e9\ud83d\ude00\"\\"},[],{}],"c":null,"d":true,"e":false}"#,
    " [ ] ",
    "\"\\b\\f\\n\\r\\t\\/\"",
    "-0.1E-7",
    "{\"leaf\" : \"0x00000007\" ,\r\n\t\"subleaf\" : 0}",
    "18446744073709551615",
];

#[test]
fn every_cut_and_every_changed_byte_of_the_samples_reads_as_serde_json_does() {
    for sample in SAMPLES.map(str::as_bytes) {
        for at in 0..sample.len() {
            // A number that is cut off at the end of an array or object is an error for both, in any case.
            agrees(&sample[..at]);
            for byte in b"\"\\{}[]:,019.eE+-untf \x00\x1f\xff" {
                let mut changed = sample.to_vec();
                changed[at] = *byte;
                agrees(&changed);
                changed.insert(at, *byte);
                agrees(&changed);
            }
        }
        agrees(sample);
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_back(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let (ours, parsed) = with(text.as_bytes(), |document| document.roots().map(to_serde).collect::<Vec<_>>());
        prop_assert_eq!(ours, [value]);
        prop_assert!(parsed.diagnostics.is_empty());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees(&bytes);
    }
}

#[test]
fn every_value_knows_its_line_and_its_path() {
    let text = b"{\"cpus\": [\n  {\"cpu\": 0},\n  {\"cpu\": 1,\n   \"msrs\": {\"0x10a\": 7}}\n]}\n{}";
    let ((), parsed) = with(text, |document| {
        let root = document.roots().next().unwrap();
        let cpu = root.get("cpus").unwrap().items().nth(1).unwrap();
        let msr = cpu.get("msrs").unwrap().get("0x10a").unwrap();
        assert_eq!((root.line(), cpu.line(), msr.line()), (1, 3, 4));
        assert_eq!([root.path(), cpu.path()], ["", "cpus[1]"]);
        assert_eq!(msr.path(), "cpus[1].msrs[\"0x10a\"]");
        assert_eq!(document.roots().count(), 2);
    });
    assert!(parsed.diagnostics.is_empty());
}

#[test]
fn what_stands_before_an_error_is_kept() {
    let (kept, parsed) = with(b"{\"a\":1,\n\"b\":[{\"c\":2},{\"d\":3", |document| {
        document.roots().map(|root| to_serde(root).to_string()).collect::<Vec<_>>()
    });
    assert_eq!(kept, [r#"{"a":1,"b":[{"c":2},{}]}"#]);
    assert_eq!(shown(&parsed), ["f:2: the JSON ends too early; expected more after a number"]);
    let (kept, parsed) = with(b"[1,\n2 3]", |document| document.roots().map(to_serde).collect::<Vec<_>>());
    assert_eq!(kept, [serde_json::json!([1, 2])]);
    assert_eq!(shown(&parsed), ["f:2: not JSON: \"3]\"; expected \",\" or \"]\""]);
}

#[test]
fn a_repeated_key_is_told_and_its_last_value_counts() {
    for others in [0, 6, 7, 8, 50] {
        let others: String = (0..others).map(|n| format!("\"k{n}\":{n},")).collect();
        let text = format!("{{\"a\":1,\n{others}\n\"a\":2}}");
        let (value, parsed) =
            with(text.as_bytes(), |document| document.roots().next().unwrap().get("a").unwrap().u64());
        assert_eq!(value, Some(2));
        assert_eq!(shown(&parsed), ["f:3: the key \"a\" stands twice in one object; the last counts"]);
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let (_, parsed) = with(nested(MAX_JSON_DEPTH).as_bytes(), |_| ());
    assert!(parsed.diagnostics.is_empty());
    let (_, parsed) = with("[{\"a\":".repeat(1_000_000).as_bytes(), |_| ());
    assert_eq!(shown(&parsed), ["f:1: JSON nested deeper than 64 levels; the rest is not read"]);
}

#[test]
fn the_number_of_values_is_bounded() {
    let text = format!("[{}0]", "0,".repeat(MAX_JSON_VALUES));
    let (count, parsed) = with(text.as_bytes(), |document| document.roots().next().unwrap().items().count());
    assert_eq!(count, MAX_JSON_VALUES - 1);
    assert_eq!(shown(&parsed), ["f:1: more than 8388608 JSON values; the rest is not read"]);
}

#[test]
fn diagnostics_of_repeated_keys_are_bounded() {
    let text = format!("{{{}\"a\":0}}", "\"a\":0,".repeat(10_000));
    let (_, parsed) = with(text.as_bytes(), |_| ());
    assert_eq!(parsed.diagnostics.len(), crate::limits::MAX_DIAGNOSTICS);
}

#[test]
fn hexadecimal_numbers_are_those_of_from_str_radix() {
    for text in ["0x0", "0x0d", "0xffffffffffffffff", "0x00000000000000000000000001", "0xABCDEFabcdef"] {
        assert_eq!(hex(text), u64::from_str_radix(&text[2..], 16).ok(), "{text}");
    }
    for text in ["", "0", "0x", "0x+1", "0X1", "0x1g", "0x 1", "0x10000000000000000", "1"] {
        assert_eq!(hex(text), None, "{text}");
    }
}
