//! The text of `-cpu` (`target/i386/cpu.c:x86_cpu_parse_featurestr`, `hw/core/cpu-common.c`).

use std::borrow::Cow;

use super::refusal::Refusal;
use super::value::{Value, strtosz_metric};

/// The text of `-cpu`, taken apart.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    /// The CPU model.
    pub name: &'a str,
    /// `name=value` and bare names, in their order.
    pub globals: Vec<Argument<'a>>,
    /// `+name`, in their order; all are set after the globals.
    pub plus: Vec<Argument<'a>>,
    /// `-name`, in their order; all are cleared after `plus` was set.
    pub minus: Vec<Argument<'a>>,
    /// What QEMU says of them.
    pub warnings: Vec<String>,
    /// Where reading ended.
    pub refusal: Option<Refusal>,
}

/// One part of the text.
#[derive(Clone, Debug)]
pub(super) struct Argument<'a> {
    /// The property, with `-` for `_` where QEMU makes it so.
    pub name: Cow<'a, str>,
    /// Its value.
    pub value: Value<'a>,
    /// The value as messages show it.
    pub shown: Cow<'a, str>,
    /// Where the part starts in the text, in bytes.
    pub offset: usize,
}

impl<'a> Arguments<'a> {
    /// Takes the text apart.
    pub(super) fn parse(release: usize, text: &'a str) -> Self {
        let (name, features) = text.split_once(',').unwrap_or((text, ""));
        let mut arguments = Self { name, ..Self::default() };
        let mut offset = name.len() + 1;
        let mut ambiguous = false;
        for part in features.split(',') {
            let at = offset;
            offset += part.len() + 1;
            match part.as_bytes().first() {
                // strtok() passes over empty parts.
                None => {}
                Some(b'+') => arguments.plus.push(Argument::switch(part, true, at)),
                Some(b'-') => arguments.minus.push(Argument::switch(part, false, at)),
                Some(_) => {
                    ambiguous |= arguments.key_value(release, part, at);
                    if arguments.refusal.is_some() {
                        return arguments;
                    }
                }
            }
        }
        if ambiguous {
            let text = "warning: Compatibility of ambiguous CPU model strings won't be kept on future QEMU versions";
            arguments.warnings.push(text.to_owned());
        }
        arguments
    }

    /// Takes `name=value` or a bare name, and says whether it makes the text ambiguous.
    fn key_value(&mut self, release: usize, part: &'a str, offset: usize) -> bool {
        let (name, shown) = part.split_once('=').unwrap_or((part, "on"));
        let name = if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
        let before = self.warnings.len();
        for (sign, list) in [('+', &self.plus), ('-', &self.minus)] {
            if list.iter().any(|argument| argument.name == name) {
                self.warnings.push(format!(
                    "warning: Ambiguous CPU model string. Don't mix both \"{sign}{name}\" and \"{name}={shown}\""
                ));
            }
        }
        let argument = if name == "tsc-freq" {
            let Some(hertz) = strtosz_metric(release, shown).and_then(|hertz| i64::try_from(hertz).ok()) else {
                self.refusal = Some(Refusal::at(format!("bad numerical value {shown}"), offset));
                return false;
            };
            let shown = Cow::Owned(hertz.to_string());
            Argument { name: Cow::Borrowed("tsc-frequency"), value: Value::Number(hertz), shown, offset }
        } else {
            Argument { name, value: Value::Text(shown), shown: Cow::Borrowed(shown), offset }
        };
        self.globals.push(argument);
        self.warnings.len() > before
    }
}

impl<'a> Argument<'a> {
    fn switch(part: &'a str, on: bool, offset: usize) -> Self {
        let name = Cow::Borrowed(part.get(1..).unwrap_or_default());
        Self { name, value: Value::Switch(on), shown: Cow::Borrowed(if on { "on" } else { "off" }), offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguity_is_said_only_when_the_pair_comes_after_the_sign() {
        let after = Arguments::parse(0, "kvm64,+x2apic,x2apic=off");
        assert_eq!(after.warnings.len(), 2);
        assert!(after.warnings[0].ends_with("Don't mix both \"+x2apic\" and \"x2apic=off\""));
        assert!(Arguments::parse(0, "kvm64,x2apic=off,+x2apic").warnings.is_empty());
    }

    #[test]
    fn parts_know_where_they_stand() {
        let text = "EPYC,,tsc_freq,+foo";
        assert_eq!(Arguments::parse(0, text).refusal.map(|refusal| refusal.offset), Some(Some(6)));
        let text = "EPYC,,lahf_lm=off,+foo";
        let arguments = Arguments::parse(0, text);
        assert_eq!(arguments.globals[0].name, "lahf-lm");
        assert_eq!(&text[arguments.plus[0].offset..], "+foo");
    }
}
