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
/// very label or version, then one with the same first two numbers, then the nearest older one,
/// then the oldest. Where several trees have the same numbers, the one of the distribution that the release string
/// shows wins (`6.8.0-31-generic` is Ubuntu's), else kernel.org's.
///
/// ```
/// use cpusieve_knowledge::linux::{self, Distance};
///
/// let nearest = linux::nearest("6.1.0-56-cloud-amd64");
/// assert_eq!((nearest.tree().label, nearest.distance), ("6.1", Distance::SameRelease));
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
    let trees = || TREES.iter().enumerate().filter(|(_, tree)| tree.release == found).map(|(index, _)| index);
    let of = |source: &str| trees().find(|&tree| TREES[tree].source.starts_with(source));
    let tree = of(distribution(release)).or_else(|| of("kernel.org")).or_else(|| trees().next_back());
    let distance = if found == wanted { Distance::SameRelease } else { Distance::Older };
    Nearest { tree: tree.unwrap_or(0), distance }
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

/// How `Tree::source` of the distribution begins that builds kernels with such a release string.
///
/// Ubuntu ends them with the flavour (`-generic`, `-aws`), Debian with flavour and architecture (`-cloud-amd64`).
fn distribution(release: &str) -> &'static str {
    let flavours = ["-generic", "-lowlatency", "-aws", "-azure", "-gcp", "-oracle", "-kvm", "-ibm", "-oem", "-nvidia"];
    if flavours.iter().any(|flavour| release.ends_with(flavour)) {
        "Ubuntu"
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
        assert_eq!(found("6.1.0-56-cloud-amd64"), ("6.1", Distance::SameRelease));
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
    fn a_distribution_finds_its_own_tree() {
        assert_eq!(found("6.8"), ("6.8", Distance::Same));
        assert_eq!(found("6.8.0-31-generic"), ("6.8", Distance::SameRelease));
        assert_eq!(found("6.8.12"), ("6.8vanilla", Distance::SameRelease));
        assert_eq!(found("6.8.12-1-amd64"), ("6.8vanilla", Distance::SameRelease));
        assert_eq!(found("6.9.1-gentoo"), ("6.8vanilla", Distance::Older));
        assert_eq!(found("6.11.0-9-generic"), ("6.8", Distance::Older));
    }
}
