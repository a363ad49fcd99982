//! A tree of source files, as the importers see it.

/// A kernel source tree: paths relative to its root in, text out.
///
/// The caller decides what stands behind it: a folder, an archive, or a handful of fragments in a test. A closure from
/// path to text is a tree.
///
/// ```
/// use cpusieve_import::SourceTree;
///
/// let tree = |path: &str| (path == "Makefile").then(|| "VERSION = 6\n".to_owned());
/// assert!(tree.read("Makefile").is_some());
/// assert!(tree.read("Kconfig").is_none());
/// ```
pub trait SourceTree {
    /// The text of the file at `path`; none if the tree does not have it. Bytes that are not UTF-8 may be replaced.
    fn read(&self, path: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> SourceTree for F {
    fn read(&self, path: &str) -> Option<String> {
        self(path)
    }
}
