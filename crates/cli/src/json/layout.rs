//! JSON laid out as `serde_json` lays its values out for people, without making the values first: a prediction shows some
//! thousand registers.

use serde_json::Value;

use super::append_quoted;

/// An object or a list that is being written.
pub(crate) struct Layout<'t> {
    text: &'t mut String,
    depth: usize,
    any: bool,
}

/// An object by itself, without a newline at its end.
pub(crate) fn object(fill: impl FnOnce(&mut Layout<'_>)) -> String {
    /// More than most answers take.
    const ROOM: usize = 64 << 10;
    let mut text = String::with_capacity(ROOM);
    Layout { text: &mut text, depth: 0, any: false }.object(fill);
    text
}

impl Layout<'_> {
    /// Begins the member of an object; its value is to follow.
    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        self.item().string(key);
        self.text.push_str(": ");
        self
    }

    /// Begins the item of a list; its value is to follow.
    pub(crate) fn item(&mut self) -> &mut Self {
        if self.any {
            self.text.push(',');
        }
        self.any = true;
        self.line();
        self
    }

    /// An object.
    pub(crate) fn object(&mut self, fill: impl FnOnce(&mut Layout<'_>)) {
        self.within('{', '}', fill);
    }

    /// A list.
    pub(crate) fn list(&mut self, fill: impl FnOnce(&mut Layout<'_>)) {
        self.within('[', ']', fill);
    }

    /// A text.
    pub(crate) fn string(&mut self, string: &str) {
        append_quoted(self.text, |text| text.push_str(string));
    }

    /// A number as a text, in hexadecimal with so many digits.
    pub(crate) fn hex(&mut self, number: u64, digits: u32) {
        self.text.push_str("\"0x");
        for digit in (0..digits).rev() {
            let value = number.checked_shr(4 * digit).unwrap_or(0) & 0xf;
            self.text.push(char::from_digit(value as u32, 16).unwrap_or_default());
        }
        self.text.push('"');
    }

    /// Any value.
    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(on) => self.text.push_str(if *on { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number.to_string()),
            Value::String(string) => self.string(string),
            Value::Array(items) => self.list(|json| items.iter().for_each(|item| json.item().value(item))),
            Value::Object(members) => {
                self.object(|json| members.iter().for_each(|(key, member)| json.key(key).value(member)));
            }
        }
    }

    fn within(&mut self, open: char, close: char, fill: impl FnOnce(&mut Layout<'_>)) {
        self.text.push(open);
        let mut inner = Layout { text: self.text, depth: self.depth + 1, any: false };
        fill(&mut inner);
        if inner.any {
            self.line();
        }
        self.text.push(close);
    }

    fn line(&mut self) {
        self.text.push('\n');
        (0..self.depth).for_each(|_| self.text.push_str("  "));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_laid_out_as_serde_json_does() {
        let value = json!({
            "empty": {}, "none": [], "null": null, "on": true, "number": -7, "large": u64::MAX, "text": "a\"b\\c\n\u{1}",
            "list": [1, [2, {"deep": [false]}], "x"], "object": {"a": {"b": "c"}},
        });
        let written = object(|json| {
            value.as_object().into_iter().flatten().for_each(|(key, member)| json.key(key).value(member));
        });
        assert_eq!(written, serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn registers_have_all_their_digits() {
        let written = object(|json| {
            json.key("low").hex(0x1f, 8);
            json.key("high").hex(u64::MAX - 1, 16);
        });
        assert_eq!(written, "{\n  \"low\": \"0x0000001f\",\n  \"high\": \"0xfffffffffffffffe\"\n}");
    }
}
