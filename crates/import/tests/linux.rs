//! The Linux importer on hand-made trees, one for each layout; and the tables of `knowledge/linux/` as a whole.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files, and may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cpusieve_import::linux::{self, LinuxFacts, Mask, MaskKind, NamingRule, ReadError, Shown};
use cpusieve_import::tables::TreeList;
use cpusieve_import::tables::linux::{LinuxTables, print_bit};

/// A tree of files in memory.
#[derive(Clone)]
struct Files(BTreeMap<&'static str, String>);

impl Files {
    fn read(&self) -> Result<LinuxFacts, ReadError> {
        LinuxFacts::read(&|path: &str| self.0.get(path).cloned())
    }

    fn with(mut self, path: &'static str, text: &str) -> Self {
        self.0.insert(path, text.to_owned());
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.0.remove(path);
        self
    }

    /// What is printed for a feature's macro.
    fn shown(&self, macro_name: &str) -> Shown {
        let facts = self.read().unwrap();
        facts.features.into_iter().find(|flag| flag.macro_name == macro_name).unwrap().shown
    }
}

const CPUFEATURES: &str = "arch/x86/include/asm/cpufeatures.h";
const VMXFEATURES: &str = "arch/x86/include/asm/vmxfeatures.h";
const CPUFEATURE: &str = "arch/x86/include/asm/cpufeature.h";
const MKCAPFLAGS: &str = "arch/x86/kernel/cpu/mkcapflags.sh";
const REQUIRED: &str = "arch/x86/include/asm/required-features.h";
const DISABLED: &str = "arch/x86/include/asm/disabled-features.h";
const KCONFIG: &str = "arch/x86/Kconfig.cpufeatures";
const SCATTERED: &str = "arch/x86/kernel/cpu/scattered.c";
const CPUID_DEPS: &str = "arch/x86/kernel/cpu/cpuid-deps.c";
const COMMON: &str = "arch/x86/kernel/cpu/common.c";
const POWERFLAGS: &str = "arch/x86/kernel/cpu/powerflags.c";
const LEAVES: &str = "arch/x86/include/asm/cpuid/types.h";

const OLD_RULE: &str =
    "# VALUE is the quoted text\n[ -z \"$VALUE\" ] && VALUE=\"\\\"$NAME\\\"\"\n[ \"$VALUE\" = '\"\"' ] && continue\n";
const NEW_RULE: &str = "[ ! \"$VALUE\" ] && continue\n";

/// A tree in the layout of 5.10: one header a mask, names by the older rule.
fn elder() -> Files {
    let files = [
        (MKCAPFLAGS, OLD_RULE),
        (
            CPUFEATURES,
            "#ifndef _ASM_X86_CPUFEATURES_H\n#define NCAPINTS 3 /* words */\n#define NBUGINTS\t2\n\
             /* first word,\n * #define X86_FEATURE_GHOST ( 0*32+ 9)\n */\n\
             #define X86_FEATURE_ALPHA\t\t( 0*32+ 0) /* no quotes */\n\
             #define X86_FEATURE_BETA ( 0*32+31) /* \"Beta_2\" some words */\n\
             /* #define X86_FEATURE_GONE ( 0*32+ 5) */\n\
             # define X86_FEATURE_HUSH ( 1*32+ 2) /* \"\" says nothing */\n\
             #define X86_FEATURE_LONG ( 2*32+ 1) /*\n\t\t\t * \"longer\" than a line */\n\
             #define X86_FEATURE_BARE (2*32+2)\n\
             #define X86_BUG(x) (NCAPINTS*32 + (x))\n\
             #define X86_BUG_ONE X86_BUG(3) /* one */\n\
             #ifdef CONFIG_X86_32\n#define X86_BUG_TWO X86_BUG(9) /* \"\" */\n#endif\n\
             #define X86_BUG_SRSO X86_BUG(1*32 + 4) /* \"srso\" */\n#endif\n",
        ),
        (
            CPUFEATURE,
            "enum cpuid_leafs\n{\n\tCPUID_1_EDX\t= 0,\n\tCPUID_8000_0001_ECX, /* AMD */\n\tCPUID_LNX_1,\n\tNR_CPUID_WORDS,\n};\n",
        ),
        (POWERFLAGS, "const char *const x86_power_flags[32] = {\n\t\"ts\", /* sensor */\n\t\"\",\n\t\"fid\",\n};\n"),
        (
            SCATTERED,
            "static const struct cpuid_bit cpuid_bits[] = {\n\
             { X86_FEATURE_LONG, CPUID_ECX, 3, 0x00000006, 0 },\n\
             { X86_FEATURE_BARE, CPUID_EDX, 30, 0x80000026, 1 },\n{ 0, 0, 0, 0, 0 }\n};\nvoid f(void) { }\n",
        ),
        (
            CPUID_DEPS,
            "static const struct cpuid_dep cpuid_deps[] = {\n\t{ X86_FEATURE_BETA,\tX86_FEATURE_ALPHA, },\n\
             \t{ X86_FEATURE_HUSH, X86_FEATURE_BETA },\n\t{ X86_FEATURE_BETA, X86_FEATURE_ALPHA },\n\t{}\n};\n",
        ),
        (
            COMMON,
            "struct cpuid_dependent_feature { u32 feature; u32 level; };\nstatic const struct cpuid_dependent_feature\n\
             cpuid_dependent_features[] = {\n\t{ X86_FEATURE_BETA, 0x0000000d },\n\t{ 0, 0 }\n};\n",
        ),
        (
            REQUIRED,
            "#ifndef _ASM_X86_REQUIRED_FEATURES_H\n#if defined(CONFIG_A) || defined(CONFIG_B)\n\
             # define NEED_ALPHA (1<<(X86_FEATURE_ALPHA & 31))\n#else\n# define NEED_ALPHA 0\n#endif\n# define NEED_NONE 0\n#endif\n",
        ),
        (
            DISABLED,
            "#ifdef CONFIG_C\n# define DISABLE_X\t0\n#else\n# define DISABLE_X\t((1 << (X86_FEATURE_BETA & 31)) | \\\n\
             \t(1 << (X86_FEATURE_HUSH & 31)))\n#endif\n#define DISABLE_Y (1 << (X86_FEATURE_BARE & 31))\n\
             #define DISABLED_MASK0 (DISABLE_X)\n",
        ),
    ];
    Files(files.into_iter().map(|(path, text)| (path, text.to_owned())).collect())
}

/// A tree in the layout of 7.x: masks from Kconfig, leaves by name, VMX features, names by the newer rule.
fn younger() -> Files {
    elder()
        .without(REQUIRED)
        .without(DISABLED)
        .with(MKCAPFLAGS, NEW_RULE)
        .with(
            KCONFIG,
            "config X86_REQUIRED_FEATURE_ALPHA\n\tdef_bool y\n\nconfig X86_REQUIRED_FEATURE_BETA\n\tdef_bool y\n\
             \tdepends on A || B\n\tdepends on !C # why\nconfig OTHER\n\tdepends on D\n\
             config X86_DISABLED_FEATURE_HUSH\n\tdef_bool !E\n",
        )
        .with(LEAVES, "#define CPUID_LEAF_XSTATE\t0x0d\n")
        .with(COMMON, "cpuid_dependent_features[] = {\n\t{ X86_FEATURE_BETA, CPUID_LEAF_XSTATE },\n\t{}\n};\n")
        .with(
            VMXFEATURES,
            "#define NVMXINTS 3\n#define VMX_FEATURE_A ( 0*32+  5) /* \"vnmi\" NMI */\n#define VMX_FEATURE_B ( 2*32+ 1) /* B */\n",
        )
}

#[test]
fn the_elder_layout() {
    let facts = elder().read().unwrap();
    assert_eq!(facts.naming, NamingRule::MacroUnlessQuoted);
    assert_eq!((facts.ncapints, facts.nbugints, facts.nvmxints), (3, 2, 0));
    let places: Vec<_> = facts.features.iter().map(|flag| (flag.macro_name.as_str(), flag.word, flag.bit)).collect();
    assert_eq!(places, [("ALPHA", 0, 0), ("BETA", 0, 31), ("HUSH", 1, 2), ("LONG", 2, 1), ("BARE", 2, 2)]);
    let bugs: Vec<_> =
        facts.bugs.iter().map(|bug| (bug.word, bug.bit, bug.shown.name(), bug.only_if.as_deref())).collect();
    assert_eq!(bugs, [(0, 3, Some("one"), None), (0, 9, None, Some("X86_32")), (1, 4, Some("srso"), None)]);
    assert!(facts.vmx_flags.is_empty());
    let words: Vec<_> =
        facts.words.iter().map(|word| (word.name.as_str(), word.source().map(|(leaf, ..)| leaf))).collect();
    assert_eq!(words, [("CPUID_1_EDX", Some(1)), ("CPUID_8000_0001_ECX", Some(0x8000_0001)), ("CPUID_LNX_1", None)]);
    assert_eq!(facts.power_flags, ["ts", "", "fid"]);
    let scattered: Vec<_> = facts.scattered.iter().map(|bit| (bit.macro_name.as_str(), print_bit(bit.place))).collect();
    assert_eq!(scattered, [("LONG", "6.ECX[3]".to_owned()), ("BARE", "80000026.1.EDX[30]".to_owned())]);
    // The kernel's table has a pair twice, and its order is kept.
    let pairs: Vec<_> = facts.dependencies.iter().map(|pair| (pair.feature.as_str(), pair.needs.as_str())).collect();
    assert_eq!(pairs, [("BETA", "ALPHA"), ("HUSH", "BETA"), ("BETA", "ALPHA")]);
    assert_eq!(facts.levels.iter().map(|level| level.leaf).collect::<Vec<_>>(), [0xd]);
    let mask =
        |kind, feature: &str, condition: &str| Mask { kind, feature: feature.into(), condition: condition.into() };
    assert_eq!(
        facts.masks,
        [
            mask(MaskKind::Required, "ALPHA", "A || B"),
            mask(MaskKind::Disabled, "BARE", "y"),
            mask(MaskKind::Disabled, "BETA", "!C"),
            mask(MaskKind::Disabled, "HUSH", "!C"),
        ]
    );
    assert!(facts.broken_laws().is_empty());
}

#[test]
fn the_younger_layout() {
    let facts = younger().read().unwrap();
    assert_eq!((facts.naming, facts.nvmxints), (NamingRule::HiddenUnlessQuoted, 3));
    let flags: Vec<_> = facts.vmx_flags.iter().map(|flag| (flag.word, flag.bit, flag.shown.name())).collect();
    assert_eq!(flags, [(0, 5, Some("vnmi")), (2, 1, None)]);
    assert_eq!(facts.levels.iter().map(|level| level.leaf).collect::<Vec<_>>(), [0xd]);
    let conditions: Vec<_> = facts.masks.iter().map(|mask| (mask.feature.as_str(), mask.condition.as_str())).collect();
    assert_eq!(conditions, [("ALPHA", "y"), ("BETA", "(A || B) && !C"), ("HUSH", "!E")]);
}

#[test]
fn a_word_that_nothing_fills_is_no_register() {
    let words = |common: &str| {
        let lists = "cpuid_dependent_features[] = {\n\t{}\n};\n";
        let facts = elder().with(COMMON, &format!("{common}\n{lists}")).read().unwrap();
        facts.words.into_iter().map(|word| word.name).collect::<Vec<_>>()
    };
    let filled = "c->x86_capability[CPUID_1_EDX] = edx;";
    assert_eq!(words(filled), ["CPUID_1_EDX", "CPUID_8000_0001_ECX_UNFILLED", "CPUID_LNX_1"]);
    assert_eq!(words("fill(c);"), ["CPUID_1_EDX", "CPUID_8000_0001_ECX", "CPUID_LNX_1"]);
}

#[test]
fn names_by_the_older_rule() {
    let tree = elder();
    assert_eq!(tree.shown("ALPHA"), Shown::Name("alpha".to_owned()));
    assert_eq!(tree.shown("BETA"), Shown::Name("beta_2".to_owned()));
    assert_eq!(tree.shown("HUSH"), Shown::Hidden);
    // A comment of several lines gives no name, whatever is quoted in it.
    assert_eq!(tree.shown("LONG"), Shown::Name("long".to_owned()));
    assert_eq!(tree.shown("BARE"), Shown::Name("bare".to_owned()));
}

#[test]
fn names_by_the_newer_rule() {
    let tree = younger();
    assert_eq!(tree.shown("BETA"), Shown::Name("beta_2".to_owned()));
    for hidden in ["ALPHA", "HUSH", "LONG", "BARE"] {
        assert_eq!(tree.shown(hidden), Shown::Hidden, "{hidden}");
    }
}

#[test]
fn only_the_quotes_at_the_start_of_a_comment_count() {
    let header =
        |comment: &str| format!("#define NCAPINTS 1\n#define NBUGINTS 1\n#define X86_FEATURE_A (0*32+1) {comment}\n");
    let shown = |comment: &str| younger().with(CPUFEATURES, &header(comment)).shown("A");
    let name = |name: &str| Shown::Name(name.to_owned());
    assert_eq!(shown("/* \"a\" */"), name("a"));
    assert_eq!(shown("/*\t\"A b\" x */"), name("a b"));
    assert_eq!(shown("/* not \"a\" */"), Shown::Hidden);
    assert_eq!(shown("/* x */ /* \"a\" */"), name("a"));
    assert_eq!(shown("/* \"a\" */ /* x */"), name("a"));
    assert_eq!(shown("/* \"\" */"), Shown::Hidden);
    assert_eq!(shown("/* \"a\"\n */"), Shown::Hidden);
}

#[test]
fn of_two_macros_on_a_bit_the_later_name_is_printed() {
    let header = "#define NCAPINTS 1\n#define NBUGINTS 1\n#define X86_FEATURE_ONE (0*32+1) /* \"one\" */\n\
                  #define X86_FEATURE_TWO (0*32+1) /* \"two\" */\n#define X86_FEATURE_NOT X86_FEATURE_TWO /* hidden */\n";
    let tree = younger().with(CPUFEATURES, header);
    assert_eq!(tree.shown("ONE"), Shown::Shadowed("one".to_owned()));
    assert_eq!(tree.shown("TWO"), Shown::Name("two".to_owned()));
    assert_eq!(tree.shown("NOT"), Shown::Hidden);
}

#[test]
fn errors_name_the_file_and_the_line() {
    let error = |tree: Files| tree.read().unwrap_err().to_string();
    assert_eq!(error(elder().without(CPUID_DEPS)), "arch/x86/kernel/cpu/cpuid-deps.c: not in this source tree");
    assert_eq!(error(younger().without(KCONFIG)), "arch/x86/include/asm/required-features.h: not in this source tree");
    assert_eq!(
        error(elder().with(MKCAPFLAGS, "# [ ! \"$VALUE\" ] && continue\n")),
        "arch/x86/kernel/cpu/mkcapflags.sh: expected what is done with an empty $VALUE, found none"
    );
    assert_eq!(
        error(elder().with(CPUFEATURES, "#define NCAPINTS 1\n#define NBUGINTS 1\n#define X86_FEATURE_A FOO(1)\n")),
        "arch/x86/include/asm/cpufeatures.h:3: expected a bit such as ( 9*32+ 5), found `#define X86_FEATURE_A FOO(1)`"
    );
    assert_eq!(
        error(elder().with(CPUFEATURES, "#define NCAPINTS 1\n#define NBUGINTS 1\n#define X86_FEATURE_A (1*32+0)\n")),
        "arch/x86/include/asm/cpufeatures.h:3: expected a word below the number of words, found `#define X86_FEATURE_A (1*32+0)`"
    );
    assert_eq!(
        error(elder().with(SCATTERED, "\ncpuid_bits[] = {\n\n  { X86_FEATURE_A, CPUID_ECX, 32,\n 6, 0 },\n};")),
        "arch/x86/kernel/cpu/scattered.c:4: expected { feature, register, bit, leaf, subleaf }, \
         found `{ X86_FEATURE_A, CPUID_ECX, 32, 6, 0 }`"
    );
    assert_eq!(
        error(elder().with(COMMON, "cpuid_dependent_features[] = {\n{ X86_FEATURE_A, CPUID_LEAF_NONE },\n};")),
        "arch/x86/kernel/cpu/common.c:2: expected { feature, leaf }, found `{ X86_FEATURE_A, CPUID_LEAF_NONE }`"
    );
    assert_eq!(
        error(elder().with(POWERFLAGS, "")),
        "arch/x86/kernel/cpu/powerflags.c: expected `x86_power_flags[32] =` and its list, found none"
    );
}

#[test]
fn laws_are_noticed_when_broken() {
    let mut facts = elder().read().unwrap();
    facts.dependencies.push(linux::Dependency { feature: "ALPHA".into(), needs: "HUSH".into() });
    facts.dependencies.push(linux::Dependency { feature: "NONE".into(), needs: "ALPHA".into() });
    facts.scattered[0].macro_name = "ALPHA".into();
    facts.features[4].word = 3;
    facts.features[1].shown = Shown::Name("alpha".into());
    facts.words.swap(0, 1);
    let laws = facts.broken_laws().join("\n");
    for word in [
        "in a ring",
        "no feature is called NONE",
        "a word that CPUID fills",
        "lies outside",
        "printed as",
        "out of order",
    ] {
        assert!(laws.contains(word), "{word}: {laws}");
    }
}

#[test]
fn versions() {
    let version = |text: &str| linux::version(&|_: &str| Some(text.to_owned()));
    assert_eq!(version("VERSION = 6\nPATCHLEVEL = 19\nSUBLEVEL = 0\nEXTRAVERSION =\n").unwrap(), "6.19");
    assert_eq!(version("VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc1\n").unwrap(), "7.4-rc1");
    assert_eq!(version("PATCHLEVEL = 4\n").unwrap_err().to_string(), "Makefile: expected VERSION, found none");
}

#[test]
fn tables_give_the_facts_of_each_tree_back() {
    let trees = TreeList::parse("trees.tsv", "1 1.0 a\n2 2.0 b\n3 3.0 c\n").unwrap();
    let mut third = younger().read().unwrap();
    third.scattered.reverse();
    let facts = [elder().read().unwrap(), younger().read().unwrap(), third];
    let tables = LinuxTables::of(&facts);
    let files: BTreeMap<_, _> = tables.print(&trees).into_iter().collect();
    let read = LinuxTables::parse(&trees, &|file: &str| files.get(file).cloned()).unwrap();
    assert_eq!(read, tables);
    for (tree, facts) in facts.iter().enumerate() {
        assert_eq!(read.facts(tree).as_ref(), Ok(facts));
    }
}

#[test]
fn wrong_rows_are_named() {
    let trees = TreeList::parse("trees.tsv", "1 1.0 a\n").unwrap();
    let files: BTreeMap<_, _> = LinuxTables::of(&[elder().read().unwrap()]).print(&trees).into_iter().collect();
    let error = |file: &'static str, text: &str| {
        let mut files = files.clone();
        files.insert(file, text.to_owned());
        LinuxTables::parse(&trees, &|file: &str| files.get(file).cloned())
            .and_then(|tables| tables.facts(0))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(error("features.tsv", "# x\n0*32+32 A a *"), "features.tsv:2: `32` is not a number up to 31");
    assert_eq!(error("features.tsv", "0+3 A a *"), "features.tsv:1: `0+3` is not of the form 9*32+5");
    assert_eq!(error("bugs.tsv", "0*32+3 A a *"), "bugs.tsv:1: expected 5 cells, found 4");
    assert_eq!(
        error("scattered.tsv", "A 7.EBX *"),
        "scattered.tsv:1: `7.EBX` is not of the form 7.0.EBX[16] or 1.EDX[22]"
    );
    assert_eq!(error("levels.tsv", "A x *"), "levels.tsv:1: `x` is not a leaf in hexadecimal");
    assert_eq!(error("masks.tsv", "maybe A y *"), "masks.tsv:1: `maybe` is neither `required` nor `disabled`");
    assert_eq!(error("numbers.tsv", "NCAPINTS 22 2"), "numbers.tsv:1: no tree has the label `2`");
    assert!(error("numbers.tsv", "NCAPINTS 22 1").contains("no naming rule"));
}

/// The folder `knowledge/` of the repository.
fn knowledge() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge/linux")
}

fn stored() -> (TreeList, LinuxTables) {
    let trees = TreeList::parse("trees.tsv", &fs::read_to_string(knowledge().join("trees.tsv")).unwrap()).unwrap();
    let tables = LinuxTables::parse(&trees, &|file: &str| fs::read_to_string(knowledge().join(file)).ok()).unwrap();
    (trees, tables)
}

#[test]
fn the_stored_tables_are_canonical_and_lawful() {
    let (trees, tables) = stored();
    let facts: Vec<LinuxFacts> = (0..trees.trees.len()).map(|tree| tables.facts(tree).unwrap()).collect();
    for (facts, tree) in facts.iter().zip(&trees.trees) {
        assert!(facts.broken_laws().is_empty(), "{tree}: {:?}", facts.broken_laws());
    }
    for (file, text) in LinuxTables::of(&facts).print(&trees) {
        assert!(fs::read_to_string(knowledge().join(file)).unwrap() == text, "{file} is not canonical");
    }
    assert_eq!(fs::read_to_string(knowledge().join("trees.tsv")).unwrap(), trees.print());
}
