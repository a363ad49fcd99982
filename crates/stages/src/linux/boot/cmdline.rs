//! The kernel's command line, split as the kernel does it (`arch/x86/lib/cmdline.c`, `lib/cmdline.c:next_arg`).

/// A command line.
pub(super) struct Cmdline<'a> {
    /// Its arguments, in their order.
    words: Vec<&'a str>,
    /// Whether it was seen at all.
    pub(super) seen: bool,
}

/// `cpu_parse_early_param` copies the value of `clearcpuid=` into 128 bytes, the last of which is zero.
const LONGEST_VALUE: usize = 127;

impl<'a> Cmdline<'a> {
    pub(super) fn new(text: Option<&'a str>) -> Self {
        Self { words: text.unwrap_or_default().split_ascii_whitespace().collect(), seen: text.is_some() }
    }

    /// Whether an argument was given; of `key=value`, the last value counts.
    pub(super) fn given(&self, argument: &str) -> bool {
        // Most command lines say nothing, and are asked of everything.
        if self.words.is_empty() {
            return false;
        }
        match argument.split_once('=') {
            None => self.words.contains(&argument),
            Some((key, value)) => self.value(key) == Some(value),
        }
    }

    /// The last value of `key=`.
    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(key)?.strip_prefix('=');
        self.words.iter().rev().find_map(value)
    }

    /// The items of a list that `cpu_parse_early_param` reads (`clearcpuid=`, `setcpuid=`).
    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.value(key).unwrap_or_default();
        let end = (0..=value.len().min(LONGEST_VALUE)).rev().find(|&end| value.is_char_boundary(end)).unwrap_or(0);
        let given = value.get(..end).filter(|given| !given.is_empty());
        given.into_iter().flat_map(|given| given.split(','))
    }
}
