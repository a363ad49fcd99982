//! What must hold in the facts of every tree. A broken law means that the importer misread something.

use std::collections::{BTreeMap, BTreeSet};

use super::{Flag, LinuxFacts, Shown};

impl LinuxFacts {
    /// The laws that these facts break, in words; none if all is well.
    ///
    /// Words count from 0 without a gap, and no more than `NCAPINTS`; each bit lies in a word that exists; a macro stands
    /// once; a bit and a printed name have one printing macro at most; what other tables name is a feature; scattered
    /// bits go into words of Linux alone; nothing needs itself.
    #[must_use]
    pub fn broken_laws(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.words.len() > usize::from(self.ncapints)
            || self.words.iter().zip(0..).any(|(word, at)| word.index != at)
        {
            broken.push(format!("{} words, of which one is out of order or above NCAPINTS", self.words.len()));
        }
        if self.power_flags.len() > 32 {
            broken.push("more than 32 power flags".to_owned());
        }
        let tables = [
            ("feature", &self.features, self.ncapints),
            ("bug", &self.bugs, self.nbugints),
            ("VMX feature", &self.vmx_flags, self.nvmxints),
        ];
        for (what, flags, words) in tables {
            flag_laws(what, flags, words, &mut broken);
        }
        self.name_laws(&mut broken);
        self.need_laws(&mut broken);
        broken
    }

    /// What the other tables name must be features. Not so the masks: in 7.3 the Kconfig option of `UP` has outlived it.
    fn name_laws(&self, broken: &mut Vec<String>) {
        let words: BTreeMap<&str, u8> =
            self.features.iter().map(|flag| (flag.macro_name.as_str(), flag.word)).collect();
        let named = [
            ("scattered", self.scattered.iter().map(|bit| &bit.macro_name).collect::<Vec<_>>()),
            ("deps", self.dependencies.iter().flat_map(|pair| [&pair.feature, &pair.needs]).collect()),
            ("levels", self.levels.iter().map(|level| &level.feature).collect()),
        ];
        for (table, names) in named {
            let strangers = names.into_iter().filter(|name| !words.contains_key(name.as_str()));
            broken.extend(strangers.map(|name| format!("{table}: no feature is called {name}")));
        }
        for bit in &self.scattered {
            let word = words.get(bit.macro_name.as_str()).and_then(|&word| self.words.get(usize::from(word)));
            if word.is_some_and(|word| word.source().is_some()) {
                broken.push(format!("scattered: {} lies in a word that CPUID fills", bit.macro_name));
            }
        }
    }

    /// Nothing needs itself, not even through others.
    fn need_laws(&self, broken: &mut Vec<String>) {
        let mut left: Vec<_> = self.dependencies.iter().collect();
        // Take away, again and again, what needs nothing that is left; a ring stays.
        loop {
            let bound: BTreeSet<&str> = left.iter().map(|pair| pair.feature.as_str()).collect();
            let before = left.len();
            left.retain(|pair| bound.contains(pair.needs.as_str()));
            if left.len() == before {
                break;
            }
        }
        broken.extend(left.iter().map(|pair| format!("deps: {} needs {} in a ring", pair.feature, pair.needs)));
    }
}

fn flag_laws(what: &str, flags: &[Flag], words: u8, broken: &mut Vec<String>) {
    let mut places = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut macros = BTreeSet::new();
    for flag in flags {
        let Flag { word, bit, macro_name, .. } = flag;
        if *word >= words || *bit > 31 {
            broken.push(format!("{what} {macro_name}: {word}*32+{bit} lies outside of {words} words"));
        }
        if !macros.insert(macro_name) {
            broken.push(format!("{what} {macro_name} stands twice"));
        }
        if let Some(name) = flag.shown.name() {
            if !places.insert((word, bit)) {
                broken.push(format!("{what} {macro_name}: another macro prints {word}*32+{bit}"));
            }
            if !names.insert(name) {
                broken.push(format!("{what} {macro_name}: another one is printed as {name}"));
            }
        }
    }
    for flag in flags.iter().filter(|flag| matches!(flag.shown, Shown::Shadowed(_))) {
        if !places.contains(&(&flag.word, &flag.bit)) {
            broken.push(format!("{what} {}: nothing shadows it", flag.macro_name));
        }
    }
}
