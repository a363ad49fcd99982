//! QMP replies to `query-cpu-model-expansion`: what a QEMU says of a CPU model on the host where it ran.
//!
//! A transcript holds several JSON values one after the other: the greeting, replies, events. Expansions are kept, and
//! QEMU's version out of the greeting. All else is counted. A property that is missing is not known to that QEMU; the
//! spelling variants of one feature (`sse4.1`, `sse4-1`, `sse4_1`) are properties of their own and stay so.
//!
//! Who talks to a QEMU writes [`Command`]s and reads [`Message`]s; QEMU's words on stderr are [`Notice`]s.

mod command;
mod notice;
mod reply;
mod types;

use cpusieve_model::{ModelExpansion, QemuBinary, Snapshot};

use crate::diagnostic::Log;
use crate::json::{Document, Fields, Kind, Value};
use crate::limits::{MAX_FIELDS, MAX_JSON_MEMBERS};
use crate::{Format, Parsed};

pub use command::{Command, Expansion, PropertyValue};
pub use notice::{Notice, NoticeKind, notices};
pub use reply::{Message, NotQmp, Reply, Unexpected};
pub use types::{CpuDefinition, FeatureWord, MachineType, ObjectProperty, VcpuPath, Version};

/// Reads one or several QMP replies.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut log = Log::new(name);
    let bytes = crate::text::prepare(&mut log, bytes);
    let document = Document::read(&bytes, &mut log);
    let mut snapshot = Snapshot::default();
    let mut fields = Fields::new(&mut log);
    for root in document.roots() {
        if root.kind() == Kind::Array {
            root.items().for_each(|item| message(&mut fields, item, &mut snapshot));
        } else {
            message(&mut fields, root, &mut snapshot);
        }
    }
    fields.finish();
    if snapshot.expansions.is_empty() {
        let reply = "{\"return\":{\"model\":{\"name\":..,\"props\":{..}}}}";
        log.error_expected(0, "no reply to query-cpu-model-expansion", reply);
    }
    log.finish(Format::Qmp, snapshot)
}

/// One JSON value of a transcript.
pub(crate) fn message(fields: &mut Fields<'_>, value: Value<'_>, snapshot: &mut Snapshot) {
    let (reply, error) = (value.get("return").unwrap_or(value), value.get("error"));
    if let Some(model) = reply.get("model").filter(|model| model.get("props").is_some()) {
        if snapshot.expansions.len() >= MAX_FIELDS {
            fields.log.ignored.values += 1;
            fields.warn(model, |_| "one expansion more is left out".to_owned(), Some(&format!("at most {MAX_FIELDS}")));
            return;
        }
        snapshot.expansions.extend(expansion(fields, model));
    } else if let Some(version) = version(value.get("QMP").and_then(|qmp| qmp.get("version")).unwrap_or(reply)) {
        let known = snapshot.qemu.iter().any(|qemu| qemu.version == version);
        if !known && snapshot.qemu.len() < MAX_FIELDS {
            snapshot.qemu.push(QemuBinary { version, path: String::new() });
        }
    } else if let Some(error) = error {
        let words = error.get("desc").and_then(Value::text).unwrap_or_default();
        let words = crate::diagnostic::quote(words.as_bytes());
        fields.log.warning(error.line(), format!("QEMU refused a command: {words}"));
    } else if value.kind() != Kind::Object {
        fields.wrong(value, "a QMP message, which is an object");
    } else {
        fields.log.ignored.values += reply.items().count().max(1) as u64;
    }
}

/// `{"name":"base","props":{"aes":true,"level":13}}`
fn expansion(fields: &mut Fields<'_>, model: Value<'_>) -> Option<ModelExpansion> {
    let mut expansion = ModelExpansion::default();
    let is_object = fields.each(model, "model", |fields, key, value| {
        match key {
            "name" => expansion.name = fields.text(value).unwrap_or_default(),
            "props" if value.kind() == Kind::Object => {
                for (name, value) in value.members() {
                    if expansion.flags.len() + expansion.other.len() >= MAX_JSON_MEMBERS {
                        fields.log.ignored.values += 1;
                        let most = format!("at most {MAX_JSON_MEMBERS} properties");
                        fields.warn(value, |path| format!("{path} is left out"), Some(&most));
                    } else if let Some(flag) = value.bool() {
                        expansion.flags.insert(name.into_owned(), flag);
                    } else {
                        expansion.other.insert(name.into_owned(), text_of(value));
                    }
                }
            }
            "props" => fields.wrong(value, "an object"),
            _ => return false,
        }
        true
    });
    is_object.then_some(expansion)
}

/// The JSON text of a value, without the blanks between its parts.
fn text_of(value: Value<'_>) -> String {
    let raw = value.raw();
    match value.kind() {
        // Numbers stay as they stand: a number may be larger than any type here.
        Kind::Null | Kind::Bool | Kind::Number => String::from_utf8_lossy(raw).into_owned(),
        Kind::String | Kind::Array | Kind::Object => serde_json::from_slice(raw)
            .map_or_else(|_| crate::text::to_text(raw).into_owned(), |value: serde_json::Value| value.to_string()),
    }
}

/// A version as `11.1.3`.
fn version(object: Value<'_>) -> Option<String> {
    Version::read(object).map(|version| version.to_string())
}
