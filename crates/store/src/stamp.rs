//! For which software the words of a file hold.

use std::collections::HashMap;

use cpusieve_fleet::Setting;
use cpusieve_knowledge::qemu::RELEASES;
use serde_json::{Value, json};

use crate::Error;

/// The version of the schema.
const FORMAT: &str = "1";

/// The software for which the words of a file were computed; it stands in the schema's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The QEMU release: `10.0`.
    pub qemu: String,
    /// The machine type.
    pub machine: String,
    /// The kernel of all hosts; `None` for each host's own.
    pub kernel: Option<String>,
    /// Module parameters of KVM that replaced the seen ones.
    pub params: Vec<(String, String)>,
    /// Whether machines under a hypervisor counted as hosts.
    pub nested: bool,
}

impl Stamp {
    /// The stamp of a setting.
    #[must_use]
    pub fn of(setting: &Setting<'_>) -> Self {
        let mut params = setting.params.to_vec();
        params.sort();
        Self {
            qemu: RELEASES.get(setting.release).map_or("", |release| release.label).to_owned(),
            machine: setting.machine.name.to_owned(),
            kernel: setting.kernel.map(str::to_owned),
            params,
            nested: setting.nested,
        }
    }

    /// Whether words with this stamp answer a question about `asked`.
    ///
    /// # Errors
    /// If they were computed for other software. Whether guests counted as hosts was decided when the file was packed.
    pub fn answers(&self, asked: &Self) -> Result<(), Error> {
        if (&self.qemu, &self.machine, &self.kernel, &self.params)
            == (&asked.qemu, &asked.machine, &asked.kernel, &asked.params)
        {
            return Ok(());
        }
        Err(Error::Setting { packed: self.words(), asked: asked.words() })
    }

    /// The software as words: `QEMU 10.0, machine pc`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("QEMU {}, machine {}", self.qemu, self.machine);
        if let Some(kernel) = &self.kernel {
            words.push_str(&format!(", kernel {kernel}"));
        }
        for (name, value) in &self.params {
            words.push_str(&format!(", {name}={value}"));
        }
        words
    }

    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        let params = Value::from_iter(self.params.iter().map(|(name, value)| json!([name, value])));
        let mut metadata = HashMap::from([
            ("cpusieve.format".to_owned(), FORMAT.to_owned()),
            ("cpusieve.qemu".to_owned(), self.qemu.clone()),
            ("cpusieve.machine".to_owned(), self.machine.clone()),
            ("cpusieve.params".to_owned(), params.to_string()),
            ("cpusieve.nested".to_owned(), self.nested.to_string()),
        ]);
        if let Some(kernel) = &self.kernel {
            metadata.insert("cpusieve.kernel".to_owned(), kernel.clone());
        }
        metadata
    }

    pub(crate) fn of_metadata(metadata: &HashMap<String, String>) -> Result<Self, Error> {
        let text = |key: &str| metadata.get(&format!("cpusieve.{key}")).cloned();
        match text("format").as_deref() {
            Some(FORMAT) => {}
            Some(other) => return Err(Error::Foreign(format!("its format is {other}, and {FORMAT} is known here"))),
            None => return Err(Error::Foreign("its schema does not say `cpusieve.format`".to_owned())),
        }
        let needed =
            |key: &str| text(key).ok_or_else(|| Error::Foreign(format!("its schema does not say `cpusieve.{key}`")));
        let params: Value = text("params").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let pair = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
        Ok(Self {
            qemu: needed("qemu")?,
            machine: needed("machine")?,
            kernel: text("kernel"),
            params: params.as_array().map(|all| all.iter().filter_map(pair).collect()).unwrap_or_default(),
            nested: text("nested").as_deref() == Some("true"),
        })
    }
}
