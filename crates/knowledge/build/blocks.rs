//! The blocks of tables that are written by hand: `[[rule]]`, `[[message]]`.

use toml::{Table, Value};

use crate::{Result, Tables};

/// The blocks of a file under one key.
pub(crate) fn blocks(tables: &Tables, path: &str, key: &str) -> Result<Vec<Value>> {
    let file: Table = tables.read(path)?.parse().map_err(|error| format!("{path}: {error}"))?;
    Ok(file.get(key).and_then(Value::as_array).cloned().unwrap_or_default())
}

/// One block of a file, with what an error needs to name it.
pub(crate) struct Block<'a> {
    pub(crate) path: &'a str,
    pub(crate) table: &'a Table,
}

impl<'a> Block<'a> {
    pub(crate) fn new(path: &'a str, value: &'a Value) -> Result<Self> {
        let table = value.as_table().ok_or_else(|| format!("{path}: a block is not a table"))?;
        Ok(Self { path, table })
    }

    /// What is wrong, with the file and the block's identity or name.
    pub(crate) fn error(&self, what: &str) -> String {
        let name = |key: &str| self.table.get(key).and_then(Value::as_str);
        let id = name("id").or_else(|| name("name")).unwrap_or("a block without id");
        format!("{}: {id}: {what}", self.path)
    }

    /// A text, its white space made single blanks.
    pub(crate) fn optional(&self, key: &str) -> Result<Option<String>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
            Some(_) => Err(self.error(&format!("`{key}` is not a string")).into()),
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&self, key: &str) -> Result<String> {
        self.optional(key)?.ok_or_else(|| self.error(&format!("`{key}` is missing")).into())
    }

    /// A list of texts; empty if it is not there.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<String>> {
        let wrong = || self.error(&format!("`{key}` is not a list of strings"));
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(wrong)?;
        items.iter().map(|item| Ok(item.as_str().ok_or_else(wrong)?.to_owned())).collect()
    }
}
