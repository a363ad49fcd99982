//! A kernel source tree that is made up from what the repository's tables say of a real one, with changes: a new flag, a
//! new word for an old one. Only the files are there that are read for Linux's half.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cpusieve_import::linux::{Flag, LinuxFacts, NamingRule, Shown};
use cpusieve_import::tables::TreeList;
use cpusieve_import::tables::linux::LinuxTables;

/// The new flag: 7.1.EAX\[9\].
pub(crate) const NEW: &str = "MY_FLAG";

/// What the repository's tables say of a tree: its version, its facts.
pub(crate) fn facts(label: &str) -> (String, LinuxFacts) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge/linux");
    let trees = TreeList::parse("trees.tsv", &fs::read_to_string(root.join("trees.tsv")).unwrap()).unwrap();
    let tables = LinuxTables::parse(&trees, &|file: &str| fs::read_to_string(root.join(file)).ok()).unwrap();
    let tree = trees.position(label).unwrap();
    (trees.trees[tree].version.clone(), tables.facts(tree).unwrap())
}

/// Writes the tree of a label with the new flag, as a kernel whose version ends with `extra`.
pub(crate) fn write(folder: &Path, label: &str, extra: &str) {
    let (version, mut facts) = facts(label);
    let shown = Shown::Name(NEW.to_ascii_lowercase());
    facts.features.push(Flag { word: 12, bit: 9, macro_name: NEW.to_owned(), shown, only_if: None });
    write_facts(folder, &version, extra, &facts);
}

/// Writes a tree that says what these facts say, but for compile-time masks.
pub(crate) fn write_facts(folder: &Path, version: &str, extra: &str, facts: &LinuxFacts) {
    assert_eq!(facts.naming, NamingRule::HiddenUnlessQuoted, "the other rule has no made-up tree");
    let mut numbers = version.split('.');
    let mut number = || numbers.next().unwrap_or("");
    let makefile =
        format!("VERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\nEXTRAVERSION = {extra}\n", number(), number(), number());
    let mut capabilities = format!("#define NCAPINTS {}\n#define NBUGINTS {}\n", facts.ncapints, facts.nbugints);
    // A macro that another one shadows stands before it.
    let shadowed = |flag: &&Flag| matches!(flag.shown, Shown::Shadowed(_));
    let (first, second): (Vec<_>, Vec<_>) = facts.features.iter().partition(shadowed);
    for flag in first.into_iter().chain(second) {
        let place = format!("({}*32+{})", flag.word, flag.bit);
        capabilities.push_str(&define("X86_FEATURE", flag, &place));
    }
    capabilities.push_str("#define X86_BUG(x) (NCAPINTS*32 + (x))\n");
    for bug in &facts.bugs {
        let line = define("X86_BUG", bug, &format!("X86_BUG({}*32 + {})", bug.word, bug.bit));
        let guarded = bug.only_if.as_ref().map(|option| format!("#ifdef CONFIG_{option}\n{line}#endif\n"));
        capabilities.push_str(&guarded.unwrap_or(line));
    }
    let mut vmx = format!("#define NVMXINTS {}\n", facts.nvmxints);
    for flag in &facts.vmx_flags {
        vmx.push_str(&define("VMX_FEATURE", flag, &format!("({}*32+{})", flag.word, flag.bit)));
    }
    let include = "arch/x86/include/asm";
    let files = [
        ("Makefile".to_owned(), makefile),
        (format!("{include}/cpufeatures.h"), capabilities),
        (format!("{include}/vmxfeatures.h"), vmx),
        (format!("{include}/cpufeature.h"), words(facts)),
        (format!("{include}/required-features.h"), "#define REQUIRED_MASK0 0\n".to_owned()),
        (format!("{include}/disabled-features.h"), "#define DISABLED_MASK0 0\n".to_owned()),
        ("arch/x86/kernel/cpu/mkcapflags.sh".to_owned(), "[ ! \"$VALUE\" ] && continue\n".to_owned()),
        ("arch/x86/kernel/cpu/powerflags.c".to_owned(), power(facts)),
        ("arch/x86/kernel/cpu/scattered.c".to_owned(), scattered(facts)),
        ("arch/x86/kernel/cpu/cpuid-deps.c".to_owned(), dependencies(facts)),
        ("arch/x86/kernel/cpu/common.c".to_owned(), levels(facts)),
    ];
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn define(prefix: &str, flag: &Flag, value: &str) -> String {
    let name = match &flag.shown {
        Shown::Name(name) | Shown::Shadowed(name) => format!("\"{name}\""),
        Shown::Hidden => "no name".to_owned(),
    };
    format!("#define {prefix}_{} {value} /* {name} */\n", flag.macro_name)
}

fn words(facts: &LinuxFacts) -> String {
    let names: Vec<&str> = facts.words.iter().map(|word| word.name.as_str()).collect();
    format!("enum cpuid_leafs\n{{\n\t{},\n\tNR_CPUID_WORDS,\n}};\n", names.join(",\n\t"))
}

fn power(facts: &LinuxFacts) -> String {
    let names: String = facts.power_flags.iter().fold(String::new(), |all, name| all + "\t\"" + name + "\",\n");
    format!("const char *const x86_power_flags[32] = {{\n{names}}};\n")
}

fn scattered(facts: &LinuxFacts) -> String {
    let mut text = "static const struct cpuid_bit cpuid_bits[] = {\n".to_owned();
    for bit in &facts.scattered {
        let place = bit.place;
        let register = place.register.to_string();
        let _ = writeln!(
            text,
            "\t{{ X86_FEATURE_{}, CPUID_{register}, {}, {:#010x}, {} }},",
            bit.macro_name, place.bit, place.leaf, place.subleaf
        );
    }
    text + "\t{ 0, 0, 0, 0, 0 }\n};\n"
}

fn dependencies(facts: &LinuxFacts) -> String {
    let mut text = "static const struct cpuid_dep cpuid_deps[] = {\n".to_owned();
    for pair in &facts.dependencies {
        let _ = writeln!(text, "\t{{ X86_FEATURE_{}, X86_FEATURE_{} }},", pair.feature, pair.needs);
    }
    text + "\t{}\n};\n"
}

fn levels(facts: &LinuxFacts) -> String {
    let mut text = "static const struct cpuid_dependent_feature\ncpuid_dependent_features[] = {\n".to_owned();
    for level in &facts.levels {
        let _ = writeln!(text, "\t{{ X86_FEATURE_{}, {:#010x} }},", level.feature, level.leaf);
    }
    text + "\t{ 0, 0 }\n};\n"
}
