//! What is asked of a QEMU, as it is written on the wire.

use serde_json::{Map, Value, json};

/// One QMP command. The names are QEMU's (`qapi/*.json`).
#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    /// `qmp_capabilities`: ends the negotiation; without it nothing else is answered.
    Capabilities,
    /// `query-version`.
    Version,
    /// `query-machines`.
    Machines,
    /// `query-cpu-definitions`.
    CpuDefinitions,
    /// `query-cpu-model-expansion` of a model with properties.
    Expand {
        /// `static` or `full`.
        expansion: Expansion,
        /// A model, version or alias: `SandyBridge-v1`, `host`.
        model: &'a str,
        /// What `-cpu` would add after the name.
        props: &'a [(&'a str, PropertyValue<'a>)],
    },
    /// `device-list-properties`: the properties that `-cpu` takes of a type that can be made.
    DeviceProperties {
        /// `max-x86_64-cpu`.
        typename: &'a str,
    },
    /// `qom-list-properties`: the properties of a type, abstract ones (`x86_64-cpu`) too.
    TypeProperties {
        /// `x86_64-cpu`.
        typename: &'a str,
    },
    /// `query-cpus-fast`: the vCPUs and their places in the object tree.
    Vcpus,
    /// `qom-list`: the properties of an object.
    List {
        /// `/machine/unattached/device[0]`.
        path: &'a str,
    },
    /// `qom-get`: the value of an object's property.
    Get {
        /// `/machine/unattached/device[0]`.
        path: &'a str,
        /// `filtered-features`.
        property: &'a str,
    },
    /// `quit`.
    Quit,
}

/// How far a model is expanded (`CpuModelExpansionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expansion {
    /// To `base` and the properties that differ from it: what migration may rely on.
    Static,
    /// To all properties.
    Full,
}

/// The value of a property in `-cpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PropertyValue<'a> {
    /// `aes=on`.
    Bool(bool),
    /// `level=13`.
    Number(u64),
    /// `vendor=AuthenticAMD`.
    Text(&'a str),
}

impl Expansion {
    /// QEMU's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Full => "full",
        }
    }
}

impl Command<'_> {
    /// QEMU's name of the command.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Capabilities => "qmp_capabilities",
            Self::Version => "query-version",
            Self::Machines => "query-machines",
            Self::CpuDefinitions => "query-cpu-definitions",
            Self::Expand { .. } => "query-cpu-model-expansion",
            Self::DeviceProperties { .. } => "device-list-properties",
            Self::TypeProperties { .. } => "qom-list-properties",
            Self::Vcpus => "query-cpus-fast",
            Self::List { .. } => "qom-list",
            Self::Get { .. } => "qom-get",
            Self::Quit => "quit",
        }
    }

    /// The command as one line without a line feed; `id` comes back with the reply.
    #[must_use]
    pub fn line(&self, id: u64) -> String {
        let mut command = Map::new();
        command.insert("execute".to_owned(), self.name().into());
        if let Some(arguments) = self.arguments() {
            command.insert("arguments".to_owned(), arguments);
        }
        command.insert("id".to_owned(), id.into());
        Value::Object(command).to_string()
    }

    fn arguments(&self) -> Option<Value> {
        match *self {
            Self::Capabilities | Self::Version | Self::Machines | Self::CpuDefinitions | Self::Vcpus | Self::Quit => {
                None
            }
            Self::Expand { expansion, model, props: [] } => {
                Some(json!({"type": expansion.name(), "model": {"name": model}}))
            }
            Self::Expand { expansion, model, props } => {
                let props: Map<_, _> = props.iter().map(|&(name, value)| (name.to_owned(), value.json())).collect();
                Some(json!({"type": expansion.name(), "model": {"name": model, "props": props}}))
            }
            Self::DeviceProperties { typename } | Self::TypeProperties { typename } => {
                Some(json!({"typename": typename}))
            }
            Self::List { path } => Some(json!({"path": path})),
            Self::Get { path, property } => Some(json!({"path": path, "property": property})),
        }
    }
}

impl PropertyValue<'_> {
    fn json(self) -> Value {
        match self {
            Self::Bool(value) => value.into(),
            Self::Number(value) => value.into(),
            Self::Text(value) => value.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_qemu_reads_them() {
        assert_eq!(Command::Capabilities.line(1), r#"{"execute":"qmp_capabilities","id":1}"#);
        let props = [("aes", PropertyValue::Bool(false)), ("vendor", PropertyValue::Text("a\"\n"))];
        let command = Command::Expand { expansion: Expansion::Full, model: "max", props: &props };
        let arguments = r#"{"type":"full","model":{"name":"max","props":{"aes":false,"vendor":"a\"\n"}}}"#;
        let line = format!(r#"{{"execute":"query-cpu-model-expansion","arguments":{arguments},"id":2}}"#);
        assert_eq!(command.line(2), line);
        let command = Command::Get { path: "/machine", property: "type" };
        assert_eq!(
            command.line(3),
            r#"{"execute":"qom-get","arguments":{"path":"/machine","property":"type"},"id":3}"#
        );
    }
}
