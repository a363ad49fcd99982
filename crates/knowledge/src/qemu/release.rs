//! QEMU releases, and which of the known ones stands for a version string.

use super::RELEASES;

/// A QEMU release that the tables were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Major and minor version: `7.2`.
    pub label: &'static str,
    /// The full version of the binary that was read: `7.2.22`.
    pub version: &'static str,
    /// The package it came from.
    pub source: &'static str,
}

/// How well a known release stands for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Major and minor version are the same.
    Same,
    /// The version is not known; this is the newest known release before it.
    Older,
    /// The version is older than all known releases; this is the oldest of them.
    Oldest,
    /// The text holds no version; this is the newest known release.
    Unreadable,
}

/// A known release that stands for a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The position in [`RELEASES`].
    pub release: usize,
    /// How well it fits.
    pub fit: Fit,
}

/// The known release that stands for a version: `7.2`, `7.2.22`, `QEMU emulator version 10.0.13 (Debian ...)`,
/// `pc-q35-9.2`, `qemu-kvm-6.2.0-53.el8`.
///
/// The same major and minor version if it is known, else the nearest older one, else the oldest.
#[must_use]
pub fn nearest(version: &str) -> Nearest {
    let newest = RELEASES.len().saturating_sub(1);
    let Some(wanted) = major_minor(version) else {
        return Nearest { release: newest, fit: Fit::Unreadable };
    };
    let known = |release: &Release| major_minor(release.label).unwrap_or_default();
    match RELEASES.iter().rposition(|release| known(release) <= wanted) {
        None => Nearest { release: 0, fit: Fit::Oldest },
        Some(release) => {
            let same = RELEASES.get(release).is_some_and(|found| known(found) == wanted);
            Nearest { release, fit: if same { Fit::Same } else { Fit::Older } }
        }
    }
}

/// The first `digits.digits` in a text.
fn major_minor(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|part| {
        let mut numbers = part.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_find_the_release_that_stands_for_them() {
        let find = |text| {
            let Nearest { release, fit } = nearest(text);
            (RELEASES[release].label, fit)
        };
        assert_eq!(find("7.2.22"), ("7.2", Fit::Same));
        assert_eq!(find("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)"), ("10.0", Fit::Same));
        assert_eq!(find("pc-q35-9.2"), ("7.2", Fit::Older));
        assert_eq!(find("qemu-kvm-6.2.0-53.el8"), ("5.2", Fit::Older));
        assert_eq!(find("99.1"), ("11.1", Fit::Older));
        assert_eq!(find("2.11.1"), ("5.2", Fit::Oldest));
        assert_eq!(find("git"), ("11.1", Fit::Unreadable));
    }
}
