//! One message of a QEMU: a line of JSON on the wire.

use cpusieve_model::{ModelExpansion, Snapshot};

use super::types::all;
use super::{CpuDefinition, FeatureWord, MachineType, ObjectProperty, VcpuPath, Version};
use crate::diagnostic::{Log, quote};
use crate::json::{Document, Fields, Kind, Value};
use crate::limits::MAX_QMP_MESSAGE;

/// One message of a QEMU.
///
/// ```
/// use cpusieve_formats::qmp::Message;
///
/// let line = br#"{"return": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "id": 4}"#;
/// let Ok(Message::Return { id: Some(4), reply }) = Message::read(line) else { panic!("not a reply") };
/// assert_eq!(reply.version().unwrap().to_string(), "7.2.22");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message: who is there.
    Greeting(Version),
    /// A command was done.
    Return {
        /// The command's `id`.
        id: Option<u64>,
        /// What was returned.
        reply: Reply,
    },
    /// A command was refused.
    Error {
        /// The command's `id`; none if QEMU could not read the command.
        id: Option<u64>,
        /// `GenericError`, `CommandNotFound`.
        class: String,
        /// QEMU's words, without control characters.
        description: String,
    },
    /// Something happened that nobody asked for.
    Event(String),
}

/// The `return` of a reply, not yet read as what the question makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(Vec<u8>);

/// A line that is no QMP message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a QMP message: {0}")]
pub struct NotQmp(
    /// The beginning of the line, in quotation marks.
    pub String,
);

/// A reply that is no answer to its question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply {found} is not {expected}")]
pub struct Unexpected {
    /// What the question asks for.
    pub expected: &'static str,
    /// The beginning of the reply, in quotation marks.
    pub found: String,
}

impl Message {
    /// Reads one line; the line feed may be missing.
    ///
    /// # Errors
    ///
    /// If it is not one JSON object that QMP defines, or longer than [`MAX_QMP_MESSAGE`].
    pub fn read(line: &[u8]) -> Result<Self, NotQmp> {
        let line = line.trim_ascii();
        if line.len() > MAX_QMP_MESSAGE {
            return Err(NotQmp(quote(line)));
        }
        let mut log = Log::new("QMP");
        let document = Document::read(line, &mut log);
        let mut roots = document.roots();
        let message = match (roots.next(), roots.next(), log.is_sound()) {
            (Some(root), None, true) => Self::of(root),
            _ => None,
        };
        message.ok_or_else(|| NotQmp(quote(line)))
    }

    fn of(root: Value<'_>) -> Option<Self> {
        let id = root.get("id").and_then(Value::u64);
        let words = |value: Value<'_>| Some(value.text()?.replace(char::is_control, "?"));
        if let Some(reply) = root.get("return") {
            Some(Self::Return { id, reply: Reply(reply.raw().to_vec()) })
        } else if let Some(error) = root.get("error") {
            let class = error.get("class").and_then(words)?;
            Some(Self::Error { id, class, description: error.get("desc").and_then(words).unwrap_or_default() })
        } else if let Some(greeting) = root.get("QMP") {
            Some(Self::Greeting(Version::read(greeting.get("version")?)?))
        } else {
            Some(Self::Event(words(root.get("event")?)?))
        }
    }
}

impl Reply {
    /// The JSON text as QEMU wrote it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Of `query-version`.
    ///
    /// # Errors
    ///
    /// If the reply is none; the same for the readers below.
    pub fn version(&self) -> Result<Version, Unexpected> {
        self.read("a version", Version::read)
    }

    /// Of `query-machines`, in QEMU's order.
    ///
    /// # Errors
    ///
    /// If the reply is no list of machine types.
    pub fn machines(&self) -> Result<Vec<MachineType>, Unexpected> {
        self.read("a list of machine types", |list| all(list, MachineType::read))
    }

    /// Of `query-cpu-definitions`, in QEMU's order.
    ///
    /// # Errors
    ///
    /// If the reply is no list of CPU models.
    pub fn cpu_definitions(&self) -> Result<Vec<CpuDefinition>, Unexpected> {
        self.read("a list of CPU models", |list| all(list, CpuDefinition::read))
    }

    /// Of `query-cpu-model-expansion`.
    ///
    /// # Errors
    ///
    /// If the reply is no model with properties.
    pub fn expansion(&self) -> Result<ModelExpansion, Unexpected> {
        self.read("an expanded CPU model", |reply| {
            reply.get("model")?.get("props").filter(|props| props.kind() == Kind::Object)?;
            let mut log = Log::new("QMP");
            let mut snapshot = Snapshot::default();
            super::message(&mut Fields::new(&mut log), reply, &mut snapshot);
            snapshot.expansions.pop().filter(|expansion| !expansion.name.is_empty() && log.ignored.values == 0)
        })
    }

    /// Of `device-list-properties`, `qom-list-properties` and `qom-list`, in QEMU's order.
    ///
    /// # Errors
    ///
    /// If the reply is no list of properties.
    pub fn properties(&self) -> Result<Vec<ObjectProperty>, Unexpected> {
        self.read("a list of properties", |list| all(list, ObjectProperty::read))
    }

    /// Of `qom-get` for `feature-words` and `filtered-features`, in QEMU's order.
    ///
    /// # Errors
    ///
    /// If the reply is no list of feature words.
    pub fn feature_words(&self) -> Result<Vec<FeatureWord>, Unexpected> {
        self.read("a list of feature words", |list| all(list, FeatureWord::read))
    }

    /// Of `query-cpus-fast`, in QEMU's order.
    ///
    /// # Errors
    ///
    /// If the reply is no list of vCPUs.
    pub fn vcpus(&self) -> Result<Vec<VcpuPath>, Unexpected> {
        self.read("a list of vCPUs", |list| all(list, VcpuPath::read))
    }

    fn read<T>(&self, expected: &'static str, read: impl FnOnce(Value<'_>) -> Option<T>) -> Result<T, Unexpected> {
        let document = Document::read(&self.0, &mut Log::new("QMP"));
        let value = document.roots().next().and_then(read);
        value.ok_or_else(|| Unexpected { expected, found: quote(&self.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(json: &str) -> Reply {
        match Message::read(format!("{{\"id\":7,\"return\":{json}}}\r\n").as_bytes()) {
            Ok(Message::Return { id: Some(7), reply }) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 5}, "package": ""}}}"#;
        assert!(matches!(Message::read(greeting.as_bytes()), Ok(Message::Greeting(v)) if v.to_string() == "5.2.0"));
        let error = br#"{"error": {"class": "GenericError", "desc": "a\tb"}}"#;
        let expected = Message::Error { id: None, class: "GenericError".to_owned(), description: "a?b".to_owned() };
        assert_eq!(Message::read(error), Ok(expected));
        assert_eq!(Message::read(br#"{"event": "STOP"}"#), Ok(Message::Event("STOP".to_owned())));
        for bad in
            ["", "{}", "[]", "{} {}", "null", "{\"return\": ", "{\"error\": 1}", "{\"event\": 1}", "{\"QMP\": {}}"]
        {
            assert!(Message::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!("{{\"event\": \"{}\"}}", "x".repeat(MAX_QMP_MESSAGE));
        assert!(Message::read(long.as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_known_is_kept_and_what_is_wrong_is_refused() {
        let [model] = &reply(r#"[{"name":"a","static":1,"new":{"b":[]}}]"#).cpu_definitions().unwrap()[..] else {
            panic!("one model")
        };
        assert_eq!((model.is_static, model.other["static"].as_str()), (None, "1"));
        assert_eq!((&model.unavailable_features, model.other["new"].as_str()), (&None, r#"{"b":[]}"#));
        let words = reply(r#"[{"cpuid-register":"EDX","cpuid-input-eax":7,"cpuid-input-ecx":0,"features":5}]"#);
        let word = FeatureWord { leaf: 7, subleaf: Some(0), register: cpusieve_model::Register::Edx, bits: 5 };
        assert_eq!(words.feature_words(), Ok(vec![word]));
        for bad in [
            r#"[{"cpuid-register":"EDX","cpuid-input-eax":4294967296,"features":5}]"#,
            r#"[{"cpuid-register":"EDX","cpuid-input-eax":7,"cpuid-input-ecx":-1,"features":5}]"#,
            r#"[{"cpuid-register":"ESP","cpuid-input-eax":7,"features":5}]"#,
            "[7]",
            "{}",
        ] {
            assert!(reply(bad).feature_words().is_err(), "{bad}");
        }
        assert!(reply(r#"{"model":{"name":"a","props":[]}}"#).expansion().is_err());
        assert!(reply(r#"{"model":{"props":{}}}"#).expansion().is_err());
        let wrong = reply("{\"a\":\"\\u0007\"}").machines().unwrap_err().to_string();
        assert_eq!(wrong, r#"the reply "{"a":"\u0007"}" is not a list of machine types"#);
    }
}
