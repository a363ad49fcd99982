//! Which tree stands for a release.

use super::{TREES, Tree};
use crate::own;

/// The tree that stands for a release, and how well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The position in [`TREES`].
    pub tree: usize,
    /// How near it is.
    pub distance: Distance,
}

/// How near a tree is to the release that was asked for.
///
/// Even [`Distance::SameRelease`] is no promise: stable kernels carry backports. What a record shows decides before
/// this does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// The release is this tree: its label or its full version.
    Same,
    /// The release has the first two numbers of this tree: `6.1.0-56-cloud-amd64` and 6.1.176.
    SameRelease,
    /// No tree has the release's numbers; this is the nearest older one.
    Older,
    /// All trees are newer; this is the oldest one.
    Oldest,
    /// The text does not begin with a release number; this is the newest tree.
    Unread,
}

impl Nearest {
    /// The tree itself.
    #[must_use]
    pub fn tree(self) -> &'static Tree {
        &TREES[self.tree]
    }
}

/// The tree that stands for a release such as `6.1`, `6.1.0-56-cloud-amd64` or `5.14.0-427.el9`.
///
/// A registered tree ([`crate::own`]) whose label, built release or version this is wins, then a compiled-in tree with that
/// very label or version, then those with the same first two numbers, then those of the nearest older release, then the
/// oldest. Where several have the same numbers:
///
/// - Ubuntu's trees stand for Ubuntu's kernels (`6.8.0-31-generic`), and for no others, if there is a choice;
/// - then the youngest counts that is not younger than the release, as far as its third number tells (`SINCE` knows
///   better); if all are younger, the oldest. Of trees with the same numbers it is the one of the same distribution.
///   Debian hides the third number behind a count of its own (`6.1.0-56-cloud-amd64`); the `source` of its trees ends in
///   theirs;
/// - for an older release it is the first of the distribution, else of kernel.org: what younger trees of the series have
///   more was backported to them later.
///
/// ```
/// use cpusieve_knowledge::linux::{self, Distance};
///
/// let nearest = linux::nearest("6.1.0-56-cloud-amd64");
/// assert_eq!((nearest.tree().label, nearest.distance), ("6.1.192", Distance::SameRelease));
/// let nearest = linux::nearest("5.10.255-253.1008.amzn2.x86_64");
/// assert_eq!((nearest.tree().label, nearest.distance), ("5.10.262", Distance::SameRelease));
/// let nearest = linux::nearest("5.14.0-427.el9.x86_64");
/// assert_eq!((nearest.tree().label, nearest.distance), ("5.10", Distance::Older));
/// ```
#[must_use]
pub fn nearest(release: &str) -> Nearest {
    let wanted = release.trim();
    let named = |own: &own::Own| own.tree.label == wanted || own.release == Some(wanted);
    // Another tree's own name is nearer than a version, which two trees may have.
    let found =
        own::all().find(|(_, own)| named(own)).or_else(|| own::all().find(|(_, own)| own.tree.version == wanted));
    found.map_or_else(|| nearest_compiled(release), |(tree, _)| Nearest { tree, distance: Distance::Same })
}

/// [`nearest`] among the compiled-in trees alone.
pub(crate) fn nearest_compiled(release: &str) -> Nearest {
    let release = release.trim();
    let release = release.strip_prefix('v').unwrap_or(release);
    if let Some(tree) = TREES.iter().position(|tree| tree.label == release) {
        return Nearest { tree, distance: Distance::Same };
    }
    if let Some(tree) = TREES.iter().position(|tree| tree.version == release) {
        return Nearest { tree, distance: Distance::Same };
    }
    let Some(wanted) = numbers(release) else {
        return Nearest { tree: TREES.len() - 1, distance: Distance::Unread };
    };
    let Some(found) = TREES.iter().map(|tree| tree.release).filter(|&numbers| numbers <= wanted).max() else {
        return Nearest { tree: 0, distance: Distance::Oldest };
    };
    let trees = || TREES.iter().enumerate().filter(|(_, tree)| tree.release == found);
    if found != wanted {
        let of = |source: &str| trees().find(|(_, tree)| tree.source.starts_with(source));
        let tree = of(distribution(release)).or_else(|| of("kernel.org")).or_else(|| trees().next());
        return Nearest { tree: tree.map_or(0, |(index, _)| index), distance: Distance::Older };
    }
    let builder = distribution(release);
    let by = |tree: &Tree, builder: &str| tree.source.starts_with(builder);
    let foreign = |tree: &Tree| by(tree, UBUNTU) != (builder == UBUNTU);
    let (count, third) = (debian_count(release), third(release).unwrap_or(0));
    let younger = |tree: &Tree| {
        let since = SINCE.iter().find(|(label, ..)| *label == tree.label);
        // Ubuntu's third number is that of no stable release.
        let own = self::third(tree.version).filter(|_| !by(tree, UBUNTU)).unwrap_or(0);
        match (count, debian_count(tree.source)) {
            (Some(count), Some(own)) => count < since.map_or(own, |(.., count)| *count),
            _ => third < since.map_or(own, |(_, third, _)| *third),
        }
    };
    // The last of several that are as good.
    let best = trees().filter(|(_, tree)| !younger(tree)).max_by_key(|(_, tree)| (!foreign(tree), by(tree, builder)));
    let oldest = trees().min_by_key(|(_, tree)| foreign(tree));
    Nearest { tree: best.or(oldest).map_or(0, |(index, _)| index), distance: Distance::SameRelease }
}

/// Trees that stand for releases older than their own too, because what distinguishes them from the tree before came
/// then: the label, the third number from which on, and Debian's count of a release in which it was read.
///
/// 5.10.240 has the patches against TSA (a fingerprint of 5.10.255 shows their mark in 80000021H:ECX); 5.10.251 has all of
/// 5.10.262 that guests and users see but the names of Zen's generations, which are hidden.
const SINCE: [(&str, u32, u32); 1] = [("5.10.262", 240, 43)];

/// The third number of a version, `6.1.176`; none if it has none.
fn third(version: &str) -> Option<u32> {
    let digits = version.splitn(3, '.').nth(2)?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Debian's count in `6.1.0-56-cloud-amd64`, or in a `source` that ends in `6.1.0-56`.
fn debian_count(text: &str) -> Option<u32> {
    let (before, after) = text.split_once(".0-")?;
    if !before.ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (count, rest) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    let debian = rest.is_empty() || rest.starts_with('-') && rest.ends_with("amd64");
    count.parse().ok().filter(|_| debian)
}

/// The release string by which [`nearest`] finds just this tree: its version, or its label where another tree has that
/// version too. Empty if there is no such tree.
#[must_use]
pub fn release_of(tree: usize) -> &'static str {
    let Some(known) = TREES.get(tree) else { return "" };
    if nearest(known.version).tree == tree { known.version } else { known.label }
}

/// The first two numbers of a release string; `v6.1`, `6.19-rc3` and a bare `7.3` are fine.
pub(crate) fn numbers(release: &str) -> Option<(u16, u16)> {
    let (major, rest) = release.strip_prefix('v').unwrap_or(release).split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

const UBUNTU: &str = "Ubuntu";

/// How `Tree::source` of the distribution begins that builds kernels with such a release string.
///
/// Ubuntu ends them with the flavour (`-generic`, `-aws`), Debian with flavour and architecture (`-cloud-amd64`).
fn distribution(release: &str) -> &'static str {
    let flavours = ["-generic", "-lowlatency", "-aws", "-azure", "-gcp", "-oracle", "-kvm", "-ibm", "-oem", "-nvidia"];
    if flavours.iter().any(|flavour| release.ends_with(flavour)) {
        UBUNTU
    } else if release.ends_with("-amd64") {
        "Debian"
    } else {
        "kernel.org"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(release: &str) -> (&'static str, Distance) {
        let nearest = nearest(release);
        (nearest.tree().label, nearest.distance)
    }

    #[test]
    fn releases_find_their_trees() {
        assert_eq!(found("6.1"), ("6.1", Distance::Same));
        assert_eq!(found("6.1.176"), ("6.1", Distance::Same));
        assert_eq!(found("6.1.0-50-cloud-amd64"), ("6.1", Distance::SameRelease));
        assert_eq!(found("6.12.30-amd64\n"), ("6.12", Distance::SameRelease));
        assert_eq!(found("v7.3-rc2"), ("7.3", Distance::SameRelease));
        assert_eq!(found("6.17.13+deb14-amd64"), ("6.16", Distance::Older));
        assert_eq!(found("99.0"), (TREES[TREES.len() - 1].label, Distance::Older));
        assert_eq!(found("3.10.0-1160.el7.x86_64"), ("4.14", Distance::Oldest));
        assert_eq!(found("linux"), (TREES[TREES.len() - 1].label, Distance::Unread));
        assert_eq!(found(""), (TREES[TREES.len() - 1].label, Distance::Unread));
        assert_eq!(found("6."), (TREES[TREES.len() - 1].label, Distance::Unread));
    }

    #[test]
    fn the_nearest_stable_release_counts() {
        let same = |release| {
            let (label, distance) = found(release);
            assert_eq!(distance, Distance::SameRelease, "{release}");
            label
        };
        // What a label alone means is what it always meant.
        assert_eq!(found("5.10"), ("5.10", Distance::Same));
        assert_eq!(found("5.10.262"), ("5.10.262", Distance::Same));
        for release in ["5.10.0", "5.10.13-custom", "5.10.224", "5.10.239", "5.10.0-9-amd64", "5.10.0-42-cloud-amd64"] {
            assert_eq!(same(release), "5.10", "{release}");
        }
        for release in ["5.10.240", "5.10.245-amazon", "5.10.255-253.1008.amzn2.x86_64", "5.10.300", "5.10.0-43-amd64"]
        {
            assert_eq!(same(release), "5.10.262", "{release}");
        }
        assert_eq!(same("6.1.0-56-cloud-amd64"), "6.1.192");
        assert_eq!(same("6.1.0-54-amd64"), "6.1");
        assert_eq!(same("6.1.190"), "6.1");
        assert_eq!(same("6.12.107+deb13-amd64"), "6.12");
        // TSA by fills is not in 6.12.116 yet.
        assert_eq!(same("6.12.116+deb13-amd64"), "6.12");
        assert_eq!(same("6.12.117+deb12-cloud-amd64"), "6.12.117");
        assert_eq!(same("6.12.0-29-generic"), "6.12");
        // No count of Debian's.
        assert_eq!(same("5.10.0-60.el8.x86_64"), "5.10");
    }

    #[test]
    fn a_distribution_finds_its_own_tree() {
        assert_eq!(found("6.8"), ("6.8", Distance::Same));
        assert_eq!(found("6.8.0-31-generic"), ("6.8", Distance::SameRelease));
        assert_eq!(found("6.8.12"), ("6.8vanilla", Distance::SameRelease));
        assert_eq!(found("6.8.12-1-amd64"), ("6.8vanilla", Distance::SameRelease));
        assert_eq!(found("6.9.1-gentoo"), ("6.8vanilla", Distance::Older));
        assert_eq!(found("6.11.0-9-generic"), ("6.8", Distance::Older));
    }
}
