//! The software of a host before and after an upgrade.

use std::borrow::Cow;

use cpusieve_model::{Cpuinfo, Snapshot};

/// What an upgrade does to one piece of software: `6.1..6.18`, or `6.18` from what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// What it was; `None` for what the input shows.
    pub before: Option<String>,
    /// What it becomes; `None` if it stays.
    pub after: Option<String>,
}

impl Range {
    /// Takes a text apart at its `..`; either side may be empty.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match text.split_once("..") {
            Some((before, after)) => Self { before: given(before), after: given(after) },
            None => Self { before: None, after: given(text) },
        }
    }

    /// What it is before and after; a side that was not given is as the other, or as the input shows it.
    const fn sides(&self) -> (Option<&String>, Option<&String>) {
        match (&self.before, &self.after) {
            (before, Some(after)) => (before.as_ref(), Some(after)),
            (Some(before), None) => (Some(before), Some(before)),
            (None, None) => (None, None),
        }
    }
}

/// What is upgraded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// The host's kernel, and its KVM.
    pub host_kernel: Range,
    /// QEMU, or the VMM in its place.
    pub vmm: Range,
    /// The machine type of the guests that do not name one.
    pub machine: Range,
    /// The microcode's revision.
    pub microcode: (Option<u64>, Option<u64>),
    /// Parameters of KVM's modules.
    pub params: Vec<(String, Range)>,
}

/// One end of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// The host's kernel; `None` for the input's own.
    pub kernel: Option<String>,
    /// Parameters of KVM's modules that replace those of the input.
    pub params: Vec<(String, String)>,
    /// The microcode's revision; `None` for the input's own.
    pub microcode: Option<u64>,
    /// QEMU's version, or that of the VMM in its place; `None` for the input's own.
    pub vmm: Option<String>,
    /// The machine type of guests that do not name one; `None` for QEMU's default.
    pub machine: Option<String>,
    /// Whether KVM is predicted even where the input holds its answer: both ends must be judged in the same way.
    pub predicted: bool,
}

impl Upgrade {
    /// Whether the host's kernel, its KVM or its microcode may change.
    #[must_use]
    pub fn is_of_host(&self) -> bool {
        self.host_kernel != Range::default() || self.microcode != (None, None) || !self.params.is_empty()
    }

    /// The stacks before and after.
    #[must_use]
    pub fn ends(&self) -> (Stack, Stack) {
        let (mut before, mut after) = (Stack::default(), Stack::default());
        let set = |range: &Range, one: &mut Option<String>, other: &mut Option<String>| {
            let (was, is) = range.sides();
            (*one, *other) = (was.cloned(), is.cloned());
        };
        set(&self.host_kernel, &mut before.kernel, &mut after.kernel);
        set(&self.vmm, &mut before.vmm, &mut after.vmm);
        set(&self.machine, &mut before.machine, &mut after.machine);
        // A machine type alone is that of the guests, and not an upgrade.
        before.machine = before.machine.or_else(|| after.machine.clone());
        (before.microcode, after.microcode) = match self.microcode {
            (Some(one), None) => (Some(one), Some(one)),
            both => both,
        };
        for (name, range) in &self.params {
            let (was, is) = range.sides();
            before.params.extend(was.map(|value| (name.clone(), value.clone())));
            after.params.extend(is.map(|value| (name.clone(), value.clone())));
        }
        (before.predicted, after.predicted) = (self.is_of_host(), self.is_of_host());
        (before, after)
    }
}

impl Stack {
    /// This stack with the host side of another: kernel, parameters, microcode.
    #[must_use]
    pub fn with_host_of(&self, other: &Self) -> Self {
        let Self { kernel, params, microcode, predicted, .. } = other.clone();
        Self { kernel, params, microcode, predicted, ..self.clone() }
    }

    /// The machine that the input shows, with this stack's microcode.
    #[must_use]
    pub fn of<'a>(&self, snapshot: &'a Snapshot) -> Cow<'a, Snapshot> {
        let Some(revision) = self.microcode else { return Cow::Borrowed(snapshot) };
        let mut other = snapshot.clone();
        for cpu in &mut other.cpus {
            cpu.cpuinfo.get_or_insert_with(Cpuinfo::default).identity.microcode = Some(revision);
        }
        Cow::Owned(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(before: Option<&str>, after: Option<&str>) -> Range {
        Range { before: before.map(str::to_owned), after: after.map(str::to_owned) }
    }

    #[test]
    fn a_single_value_is_what_it_becomes() {
        assert_eq!(Range::parse("6.1..6.18"), range(Some("6.1"), Some("6.18")));
        assert_eq!(Range::parse("6.18"), range(None, Some("6.18")));
        assert_eq!(Range::parse("6.1.."), range(Some("6.1"), None));
        assert_eq!(Range::parse(".."), Range::default());
    }

    #[test]
    fn the_ends_of_an_upgrade() {
        let params = vec![("nested".to_owned(), Range::parse("0..1")), ("sev".to_owned(), Range::parse("0"))];
        let upgrade =
            Upgrade { vmm: Range::parse("7.2..10.0"), machine: Range::parse("q35"), params, ..Upgrade::default() };
        let (before, after) = upgrade.ends();
        assert_eq!((before.vmm.as_deref(), after.vmm.as_deref()), (Some("7.2"), Some("10.0")));
        assert_eq!((before.machine.as_deref(), after.machine.as_deref()), (Some("q35"), Some("q35")));
        assert_eq!(before.params, [("nested".to_owned(), "0".to_owned())]);
        assert_eq!(after.params.len(), 2);
        assert!(before.predicted && after.predicted);
    }
}
