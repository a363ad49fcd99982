//! The text of `-cpu`, to be edited: a model, and parts such as `+avx`, `-avx`, `avx=off`.

use std::fmt;

use cpusieve_knowledge::qemu;

/// The text of `-cpu`, taken apart at its commas. Displays as the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuText {
    /// The model.
    pub model: String,
    parts: Vec<String>,
}

/// One part of the text: its property, by the name behind an alias, and its value; none for `+name` and `-name`.
struct Part<'a> {
    name: String,
    value: Option<&'a str>,
    sign: Option<char>,
}

impl<'a> Part<'a> {
    fn of(text: &'a str) -> Self {
        let sign = text.chars().next().filter(|sign| matches!(sign, '+' | '-'));
        let bare = if sign.is_some() { text.get(1..).unwrap_or_default() } else { text };
        let (name, value) = match (sign, bare.split_once('=')) {
            (None, Some((name, value))) => (name, Some(value)),
            _ => (bare, None),
        };
        // `+name` and `-name` are taken as they are (`target/i386/cpu.c:x86_cpu_parse_featurestr`); in `name=value`
        // an underscore stands for a hyphen.
        let name = if sign.is_some() { name.to_owned() } else { name.replace('_', "-") };
        Self { name: qemu::canonical(&name).to_owned(), value, sign }
    }
}

impl CpuText {
    /// Takes a text apart.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(',').map(str::to_owned);
        let model = parts.next().unwrap_or_default();
        Self { model, parts: parts.filter(|part| !part.is_empty()).collect() }
    }

    /// Whether it names the property at all.
    #[must_use]
    pub fn names(&self, property: &str) -> bool {
        self.parts.iter().any(|part| Part::of(part).name == property)
    }

    /// Whether it switches the property on or off; none if it does not name it, or gives it another value.
    ///
    /// All `-name` come last and win, then all `+name`, then of `name=value` the last.
    #[must_use]
    pub fn switch(&self, property: &str) -> Option<bool> {
        let parts: Vec<Part<'_>> =
            self.parts.iter().map(|part| Part::of(part)).filter(|part| part.name == property).collect();
        if parts.iter().any(|part| part.sign == Some('-')) {
            return Some(false);
        }
        if parts.iter().any(|part| part.sign == Some('+')) {
            return Some(true);
        }
        match parts.last().map(|part| part.value) {
            Some(Some("on" | "yes" | "true" | "y") | None) => Some(true),
            Some(Some("off" | "no" | "false" | "n")) => Some(false),
            _ => None,
        }
    }

    /// Takes out every part that names the property.
    pub fn remove(&mut self, property: &str) {
        self.parts.retain(|part| Part::of(part).name != property);
    }

    /// Gives the property this value, in the place of all that was said of it: `+name` for a feature that is on, else
    /// `name=value`.
    pub fn set(&mut self, property: &str, value: &str) {
        self.remove(property);
        let feature = qemu::by_name(property).next().is_some();
        self.parts.push(if feature && value == "on" { format!("+{property}") } else { format!("{property}={value}") });
    }

    /// The properties that are switched on and off, in their order, each once; those with another value are left out.
    pub fn switches(&self) -> impl Iterator<Item = (String, bool)> {
        let mut seen: Vec<String> = Vec::new();
        let names = self.parts.iter().map(|part| Part::of(part).name);
        names.filter_map(move |name| {
            if seen.contains(&name) {
                return None;
            }
            seen.push(name.clone());
            let on = self.switch(&name)?;
            Some((name, on))
        })
    }

    /// The properties that have a value that is no switch: `tsc-frequency=2000000000`.
    pub fn values(&self) -> impl Iterator<Item = (String, &str)> {
        self.parts.iter().filter_map(|part| {
            let part = Part::of(part);
            let value = part.value.filter(|value| !matches!(*value, "on" | "off"))?;
            Some((part.name, value))
        })
    }
}

impl fmt::Display for CpuText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        self.parts.iter().try_for_each(|part| write!(f, ",{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_of_a_property_is_replaced() {
        let mut text = CpuText::parse("EPYC,-sse3,tsc_adjust=off,+foo,,pni=on");
        assert_eq!(text.switch("pni"), Some(false), "a minus wins, under any alias");
        assert_eq!(text.switch("tsc-adjust"), Some(false));
        text.set("pni", "on");
        text.remove("tsc-adjust");
        text.set("migratable", "off");
        assert_eq!(text.to_string(), "EPYC,+foo,+pni,migratable=off");
        assert_eq!(text.switches().collect::<Vec<_>>().len(), 3);
    }
}
