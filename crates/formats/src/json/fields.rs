//! Values out of JSON, with a diagnostic for each that is not what it should be.

use std::collections::BTreeMap;

use cpusieve_model::{CpuidTable, KvmCpuidEntry, Register, Registers};

use super::{Kind, Value, is_full};
use crate::diagnostic::{Log, quote};
use crate::limits::{MAX_ENTRIES, MAX_JSON_MEMBERS, MAX_JSON_STRINGS};

/// Names of unknown fields that are told; the others are counted.
const MAX_UNKNOWN: usize = 20;

/// Reads the fields of one input: wrong values become diagnostics and are left out, unknown fields are counted.
pub(crate) struct Fields<'l> {
    pub(crate) log: &'l mut Log,
    /// Unknown fields by the place where they stand: the first line, and how often.
    unknown: BTreeMap<String, (u32, u64)>,
    /// Strings that may still be kept.
    strings: usize,
}

impl<'l> Fields<'l> {
    pub(crate) fn new(log: &'l mut Log) -> Self {
        Self { log, unknown: BTreeMap::new(), strings: MAX_JSON_STRINGS }
    }

    /// Tells of unknown fields, once for each name.
    pub(crate) fn finish(self) {
        for (name, (line, count)) in self.unknown {
            let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
            self.log.note(line, format!("the field {name} is not known here and is left out{times}"));
        }
    }

    /// Hands each field of an object to `take`, which says whether it knows the field. `null` is a missing field.
    ///
    /// `place` names the object in messages: `cpus[]`. Returns whether it is an object.
    pub(crate) fn each<'d>(
        &mut self,
        object: Value<'d>,
        place: &str,
        mut take: impl FnMut(&mut Self, &str, Value<'d>) -> bool,
    ) -> bool {
        if object.kind() != Kind::Object {
            self.wrong(object, "an object");
            return false;
        }
        for (key, value) in object.members() {
            if value.kind() != Kind::Null && !take(self, &key, value) {
                self.unknown(place, &key, value);
            }
        }
        true
    }

    /// Counts a field that is not known here.
    pub(crate) fn unknown(&mut self, place: &str, key: &str, value: Value<'_>) {
        self.log.ignored.fields += 1;
        let name = quote(if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }.as_bytes());
        if let Some((_, count)) = self.unknown.get_mut(&name) {
            *count += 1;
        } else if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.insert(name, (value.line(), 1));
        }
    }

    /// Says that a value is not what it should be.
    pub(crate) fn wrong(&mut self, value: Value<'_>, expected: &str) {
        self.warn(value, |path| format!("{path} is {}", value.shown()), Some(expected));
    }

    /// A warning about a value; `what` is given its path.
    pub(crate) fn warn(&mut self, value: Value<'_>, what: impl FnOnce(&str) -> String, expected: Option<&str>) {
        if is_full(self.log) {
            self.log.ignored.diagnostics += 1;
            return;
        }
        let path = value.path();
        let what = what(if path.is_empty() { "the whole" } else { &path });
        match expected {
            Some(expected) => self.log.warning_expected(value.line(), what, expected),
            None => self.log.warning(value.line(), what),
        }
    }

    fn checked<T>(&mut self, value: Value<'_>, read: Option<T>, expected: &str) -> Option<T> {
        if read.is_none() {
            self.wrong(value, expected);
        }
        read
    }

    /// Whether it is an array; says so if not.
    pub(crate) fn is_array(&mut self, value: Value<'_>) -> bool {
        self.checked(value, (value.kind() == Kind::Array).then_some(()), "an array").is_some()
    }

    pub(crate) fn text(&mut self, value: Value<'_>) -> Option<String> {
        let text = self.checked(value, value.text(), "a string")?;
        if self.strings == 0 {
            self.log.ignored.values += 1;
            self.warn(
                value,
                |path| format!("{path} is left out"),
                Some(&format!("at most {MAX_JSON_STRINGS} strings")),
            );
            return None;
        }
        self.strings -= 1;
        Some(text.into_owned())
    }

    /// The members of an object that `read` takes, at most [`MAX_JSON_MEMBERS`].
    pub(crate) fn map<K: Ord, V>(
        &mut self,
        object: Value<'_>,
        mut read: impl FnMut(&mut Self, &str, Value<'_>) -> Option<(K, V)>,
    ) -> Option<BTreeMap<K, V>> {
        if object.kind() != Kind::Object {
            self.wrong(object, "an object");
            return None;
        }
        let mut map = BTreeMap::new();
        for (key, value) in object.members() {
            if map.len() < MAX_JSON_MEMBERS {
                map.extend(read(self, &key, value));
            } else {
                self.log.ignored.values += 1;
                let most = format!("at most {MAX_JSON_MEMBERS} members");
                self.warn(value, |path| format!("{path} is left out"), Some(&most));
            }
        }
        Some(map)
    }

    /// A number of 32 bits, as a JSON number or as a hexadecimal string.
    pub(crate) fn u32(&mut self, value: Value<'_>) -> Option<u32> {
        let number = value.u64().or_else(|| hex_value(value));
        self.checked(value, number.and_then(|number| u32::try_from(number).ok()), "a number of at most 32 bits")
    }

    /// A hexadecimal string of at most 32 bits.
    pub(crate) fn hex32(&mut self, value: Value<'_>) -> Option<u32> {
        let number = hex_value(value).and_then(|number| u32::try_from(number).ok());
        self.checked(value, number, "a hexadecimal string of at most 32 bits, such as \"0x0000000d\"")
    }

    /// A hexadecimal string of at most 64 bits.
    pub(crate) fn hex64(&mut self, value: Value<'_>) -> Option<u64> {
        let number = hex_value(value);
        self.checked(value, number, "a hexadecimal string of at most 64 bits, such as \"0x000000000000002b\"")
    }

    pub(crate) fn i64(&mut self, value: Value<'_>) -> Option<i64> {
        self.checked(value, value.i64(), "a whole number")
    }

    pub(crate) fn u64(&mut self, value: Value<'_>) -> Option<u64> {
        self.checked(value, value.u64(), "a whole number that is not negative")
    }

    pub(crate) fn bool(&mut self, value: Value<'_>) -> Option<bool> {
        self.checked(value, value.bool(), "true or false")
    }

    /// The index in the key of an object, in hexadecimal: an MSR.
    pub(crate) fn hex_key(&mut self, key: &str, value: Value<'_>) -> Option<u32> {
        let index = hex(key).and_then(|index| u32::try_from(index).ok());
        if index.is_none() {
            let what = |path: &str| format!("{path}: the key is not the index of an MSR");
            self.warn(value, what, Some("a hexadecimal key, such as \"0x0000010a\""));
        }
        index
    }

    /// One `{"leaf":..,"subleaf":..,"eax":..,"ebx":..,"ecx":..,"edx":..}`, `flags` too; none if a register is missing.
    pub(crate) fn entry(&mut self, object: Value<'_>, place: &str) -> Option<KvmCpuidEntry> {
        let mut leaf = None;
        let (mut subleaf, mut flags) = (0, 0);
        let mut registers = Registers::default();
        let mut seen = 0;
        let mut sound = true;
        let known = self.each(object, place, |fields, key, value| {
            let number = match key {
                "leaf" => fields.hex32(value).inspect(|&number| leaf = Some(number)),
                "subleaf" => fields.u32(value).inspect(|&number| subleaf = number),
                "flags" => fields.u32(value).inspect(|&number| flags = number),
                _ => match Register::ALL.into_iter().find(|register| is_lower(key, register.name())) {
                    Some(register) => fields.hex32(value).inspect(|&number| {
                        *registers.get_mut(register) = number;
                        seen |= 1 << register as u32;
                    }),
                    None => return false,
                },
            };
            sound &= number.is_some();
            true
        });
        if known && sound && (leaf.is_none() || seen != 0b1111) {
            self.warn(
                object,
                |path| format!("{path} is not whole and is left out"),
                Some("leaf, eax, ebx, ecx and edx"),
            );
        }
        let leaf = leaf.filter(|_| sound && seen == 0b1111);
        self.log.ignored.values += u64::from(leaf.is_none());
        Some(KvmCpuidEntry { leaf: leaf?, subleaf, flags, registers })
    }

    /// Puts an entry into a table. The first of several for one leaf and subleaf counts; a second that differs is told.
    pub(crate) fn insert(&mut self, table: &mut CpuidTable, entry: KvmCpuidEntry, at: Value<'_>) {
        let KvmCpuidEntry { leaf, subleaf, registers, .. } = entry;
        match table.get(leaf, subleaf) {
            Some(before) => {
                self.log.ignored.values += 1;
                if before != registers {
                    let what = format!("leaf {leaf:#x} subleaf {subleaf:#x} for the second time, with other values");
                    self.warn(at, |path| format!("{path}: {what}"), None);
                }
            }
            None if table.len() < MAX_ENTRIES => _ = table.insert(leaf, subleaf, registers),
            None => {
                self.log.ignored.values += 1;
                self.warn(at, |path| format!("{path}: more than {MAX_ENTRIES} entries of one CPU"), None);
            }
        }
    }
}

/// Whether `key` is the lower-case form of `name`.
fn is_lower(key: &str, name: &str) -> bool {
    key.len() == name.len() && key.bytes().zip(name.bytes()).all(|(k, n)| k == n.to_ascii_lowercase())
}

/// The number that a text such as `0x0000000d` means.
pub(crate) fn hex(text: &str) -> Option<u64> {
    hex_bytes(text.as_bytes())
}

/// By hand, because records are made of such numbers.
fn hex_bytes(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x").filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |number, &digit| {
        let value = char::from(digit).to_digit(16)?;
        (number >> 60 == 0).then_some(number << 4 | u64::from(value))
    })
}

/// The number of a hexadecimal string.
fn hex_value(value: Value<'_>) -> Option<u64> {
    if value.kind() != Kind::String {
        return None;
    }
    let raw = value.raw();
    hex_bytes(raw.get(1..raw.len().saturating_sub(1))?).or_else(|| hex(&value.text()?))
}
