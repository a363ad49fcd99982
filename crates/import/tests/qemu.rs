//! A small QEMU of our own, read and put into tables; and the stored tables are as the importer writes them.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use cpusieve_import::qemu::{self, QemuError, QemuFacts};
use cpusieve_import::tables::qemu::{QemuImportError, QemuTables};
use cpusieve_import::tables::{TableError, Tree};

const HEADER: &str = r#"
typedef enum FeatureWord {
    FEAT_1_ECX, /* CPUID[1].ECX */
    FEAT_7_0_EBX,
    FEAT_CAPS,
    FEATURE_WORDS,
} FeatureWord;
#define VENDOR "GenuineIntel"
#define ONE_VMX (1U << 5)
#define ONE_AVX (1U << 28)
#define SEVEN_TOP (1U << 31)
#define CAPS_HIGH (1ULL << 62)
"#;

const CPU: &str = r#"
struct CPUID2CacheDescriptorInfo cpuid2_cache_descriptors[] = {
    [0xDC] = { .level = 3, .type = UNIFIED_CACHE, .size = 1.5 * MiB, .associativity = 12, .line_size = 64, },
    [0x2C] = { .level = 1, .type = DATA_CACHE, .size = 32 * KiB, .associativity = 8, .line_size = 64, },
};
static const CPUCaches big_cache_info = {
    .l1d_cache = &(CPUCacheInfo) { .type = DATA_CACHE, .level = 1, .size = 48 * KiB, .self_init = 1, .line_size = 64,
        .associativity = 12, .sets = 64, .partitions = 1, .no_invd_sharing = true, .share_level = CPU_TOPOLOGY_LEVEL_CORE },
    .l1i_cache = &(CPUCacheInfo) { .size = 32 * KiB, .inclusive = false },
    .l2_cache = &(CPUCacheInfo) { .size = 2 * MiB, },
    .l3_cache = &(CPUCacheInfo) { .size = 30 * MiB, .complex_indexing = true },
};
FeatureWordInfo feature_word_info[FEATURE_WORDS] = {
    [FEAT_CAPS] = {
        .type = MSR_FEATURE_WORD,
        .feat_names = { "rdctl-no", [62] = "its-no" },
        .msr = { .index = 0x10a },
        .tcg_features = ~0U,
    },
    [FEAT_1_ECX] = {
        .feat_names = { "pni" /* sse3 */, NULL, NULL, NULL, NULL, "vmx", [28] = "avx" },
        .cpuid = { .eax = 1, .reg = R_ECX, },
#ifdef TARGET_X86_64
        .tcg_features = ONE_AVX,
#else
        .tcg_features = 0,
#endif
    },
    [FEAT_7_0_EBX] = {
        .cpuid = { .eax = 7, .needs_ecx = true, .ecx = 0, .reg = R_EBX, },
        .migratable_flags = 1 << 31,
    },
};
static FeatureDep feature_dependencies[] = {
    { .from = { FEAT_1_ECX, ONE_VMX }, .to = { FEAT_CAPS, ~0ull } },
    { .from = { FEAT_1_ECX, ONE_AVX }, .to = { FEAT_7_0_EBX, 0xffff0000 }, },
};
static const X86CPUDefinition builtin_x86_defs[] = {
    {
        .name = "Small", .level = 0xd, .vendor = VENDOR, .family = 6, .model = 60, .stepping = 4,
        .features[FEAT_1_ECX] = ONE_AVX | ONE_VMX | 1,
        .features[FEAT_7_0_EBX] = SEVEN_TOP | 7,
        .features[FEAT_CAPS] = CAPS_HIGH,
        .xlevel = 0x80000008,
        .model_id = "Small, with a comma {",
        .versions = (X86CPUVersionDefinition[]) {
            { .version = 1 },
            { .version = 2, .alias = "Small-IBRS", .note = "with caches", .cache_info = &big_cache_info,
              .props = (PropValue[]) { { "avx", "off" }, { "model-id", "Small (IBRS)" }, { /* end of list */ } } },
            { /* end of list */ }
        },
    },
    { .name = "tiny", .vendor = VENDOR, .model_id = "" },
};
static PropValue kvm_default_props[] = { { "svm", "off" }, { "x2apic", "on" }, { NULL, NULL }, };
static PropValue tcg_default_props[] = { { "vme", "off" }, { NULL, NULL }, };
"#;

const PC: &str = r#"
GlobalProperty pc_compat_3_0[] = {
    { TYPE_X86_CPU, "x-a", "on" },
    { "Small" "-" TYPE_X86_CPU, "avx", "off" },
    { "e1000", "mitigation", "off" },
};
GlobalProperty pc_compat_2_12[] = { PC_CPU_MODEL_IDS("2.12.0") };
GlobalProperty pc_compat_4_0[] = {};
"#;

const KVM: &str = r#"
} kvm_hyperv_properties[] = {
    [HYPERV_FEAT_TIME] = { .desc = "clocks (hv-time)",
        .flags = { {.func = 0x40000003, .reg = R_EAX, .bits = (1u << 1) | (1u << 9)} } },
    [HYPERV_FEAT_TIMER] = { .desc = "timers (hv-stimer/hv-timer)", .skip_passthrough = true,
        .flags = { {.fw = FEAT_HYPERV_EDX, .bits = 8} }, .dependencies = BIT(HYPERV_FEAT_TIME) },
};
"#;

fn tree(cpu: &str) -> impl Fn(&str) -> Option<String> {
    let cpu = cpu.to_owned();
    move |path: &str| match path {
        "VERSION" => Some("12.0.1\n".to_owned()),
        "target/i386/cpu.h" => Some(HEADER.to_owned()),
        "target/i386/cpu.c" => Some(cpu.clone()),
        "target/i386/kvm/kvm.c" => Some(KVM.to_owned()),
        "hw/i386/pc.c" => Some(PC.to_owned()),
        _ => None,
    }
}

#[test]
fn tables_are_read() {
    let facts = QemuFacts::read(&tree(CPU)).unwrap();
    let registers: Vec<String> = facts.words.iter().map(|word| word.register.to_string()).collect();
    assert_eq!(registers, ["1.ECX", "7.0.EBX", "MSR 10A"], "in the order of the enumeration");
    assert_eq!(facts.words[0].names, [(0, "pni".to_owned()), (5, "vmx".to_owned()), (28, "avx".to_owned())]);
    assert_eq!((facts.words[0].tcg, facts.words[2].tcg), (1 << 28, 0xffff_ffff));
    assert_eq!(facts.words[1].migratable, 1 << 31, "as wide as the register");
    let small = &facts.models[0];
    assert_eq!((small.level, small.xlevel, small.vendor.as_str()), (0xd, 0x8000_0008, "GenuineIntel"));
    assert_eq!(small.words, [(0, 1 << 28 | 1 << 5 | 1), (1, 1 << 31 | 7), (2, 1 << 62)]);
    assert_eq!(small.model_id, "Small, with a comma {");
    assert_eq!(small.versions.len(), 2);
    assert_eq!(small.versions[1].properties[1], ("model-id".to_owned(), "Small (IBRS)".to_owned()));
    assert_eq!(facts.models[1].versions.len(), 1, "a model without versions has the first");
    assert_eq!(facts.dependencies[1].to, (1, 0xffff_0000));
    assert_eq!(facts.defaults.len(), 3);
    let compat: Vec<String> = facts.compat.iter().map(|cells| cells.join(" ")).collect();
    assert_eq!(compat[..2], ["3.0 * x-a on", "3.0 Small avx off"], "and nothing of the network card");
    assert_eq!(compat[2], "2.12 qemu32 model-id QEMU Virtual CPU version 2.12.0");
    assert_eq!(compat.len(), 5);
    assert_eq!(facts.descriptors[1].cells.join(" "), "unified 3 1536K 12 64");
    assert_eq!(facts.hyperv[0].cells.join(" "), "hv-time 40000003.EAX[1] 40000003.EAX[9] - yes clocks (hv-time)");
    assert_eq!(facts.hyperv[1].cells[..4].join(" "), "hv-stimer 40000003.EDX[3] hv-time -");
    let cells = |at: usize| facts.caches[0].caches[at].1.join(" ");
    assert_eq!(cells(0), "48K 64 12 1 64 0 core self-init,no-invd-sharing");
    assert_eq!(cells(3), "30M 0 0 0 0 0 die complex-indexing");
}

#[test]
fn errors_name_what_was_looked_for() {
    let error = |cpu: &str| QemuFacts::read(&tree(cpu)).unwrap_err().to_string();
    assert_eq!(error(""), "target/i386/cpu.c: no table feature_word_info[FEATURE_WORDS] =");
    let unknown = CPU.replace(".family = 6", ".sockets = 6");
    assert_eq!(error(&unknown), "target/i386/cpu.c: model Small: cannot read `.sockets = 6`");
    let unknown = CPU.replace("ONE_AVX | ONE_VMX", "ONE_AVX | UNKNOWN");
    assert!(error(&unknown).contains("ONE_AVX | UNKNOWN"));
    assert_eq!(qemu::version(&|_: &str| None), Err(QemuError::Missing("VERSION")));
}

#[test]
fn broken_text_is_an_error_and_never_a_panic() {
    for (end, _) in CPU.char_indices().step_by(7) {
        let _ = QemuFacts::read(&tree(&CPU[..end]));
        let _ = QemuFacts::read(&tree(&format!("{}é{}", &CPU[..end], CPU.get(end + 5..).unwrap_or(""))));
    }
}

#[allow(clippy::disallowed_methods, reason = "the test reads the tables of this repository")]
fn stored(file: &str) -> Result<String, TableError> {
    let path = format!("{}/../../knowledge/qemu/{file}", env!("CARGO_MANIFEST_DIR"));
    Ok(std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_stored_tables_are_canonical() {
    for (file, text) in QemuTables::parse(stored).unwrap().print() {
        assert_eq!(text, stored(file).unwrap(), "{file}");
    }
}

/// Empty tables with one release.
fn empty(file: &str) -> Result<String, TableError> {
    Ok(match file {
        "releases.tsv" => "# releases\n11.0  11.0.0  here\n".to_owned(),
        _ => format!("# {file}\n"),
    })
}

fn release(label: &str) -> Tree {
    Tree { label: label.to_owned(), version: format!("{label}.1"), source: "a test".to_owned() }
}

fn text(tables: &QemuTables, file: &str) -> String {
    tables.print().into_iter().find(|(known, _)| *known == file).unwrap().1
}

#[test]
fn a_release_is_put_in_and_found_again() {
    let mut tables = QemuTables::parse(empty).unwrap();
    let facts = QemuFacts::read(&tree(CPU)).unwrap();
    tables.import(release("12.0"), &facts).unwrap();
    assert_eq!(text(&tables, "releases.tsv"), "# releases\n11.0  11.0.0  here\n12.0  12.0.1  \"a test\"\n");
    assert_eq!(text(&tables, "words.tsv"), "# words.tsv\n1.ECX      12.0..\n7.0.EBX    12.0..\n\"MSR 10A\"  12.0..\n");
    let words = text(&tables, "model-words.tsv");
    assert!(words.contains("Small  1.ECX      12.0..  \"pni vmx avx\"\n"), "{words}");
    assert!(words.contains("Small  7.0.EBX    12.0..  \"[0..2] [31]\"\n"), "{words}");
    let dependencies = text(&tables, "dependencies.tsv");
    assert!(dependencies.contains("1.ECX  avx  7.0.EBX    [16..31]  12.0..\n"), "{dependencies}");
    let bits = text(&tables, "bits.tsv");
    let cells = |place: &str| -> Vec<&str> {
        bits.lines().find(|line| line.starts_with(place)).unwrap().split_whitespace().collect()
    };
    assert_eq!(cells("1.ECX[28]"), ["1.ECX[28]", "avx", "12.0..", "-", "-", "-", "12.0.."]);
    assert_eq!(cells("7.0.EBX[31]"), ["7.0.EBX[31]", "-", "-", "-", "12.0..", "-", "-"]);

    // Again, it changes nothing; nor does a release that says the same, apart from the sets.
    let before = tables.clone();
    tables.import(release("12.0"), &facts).unwrap();
    assert_eq!(tables, before);
    tables.import(release("11.0"), &facts).unwrap();
    assert_eq!(text(&tables, "words.tsv"), "# words.tsv\n1.ECX      *\n7.0.EBX    *\n\"MSR 10A\"  *\n");

    // A changed row stands by its elder, and a release that is put in between takes the sets along.
    let newer = QemuFacts::read(&tree(&CPU.replace(".model = 60", ".model = 61"))).unwrap();
    tables.import(release("11.1"), &newer).unwrap();
    let models = text(&tables, "models.tsv");
    let rows: Vec<Vec<&str>> = models.lines().skip(1).map(|line| line.split_whitespace().take(5).collect()).collect();
    assert_eq!(rows[0][..2], ["Small", "11.0,12.0.."]);
    assert_eq!((rows[1][1], rows[1][4]), ("11.1", "61"));
    assert_eq!(rows[2][..2], ["tiny", "*"]);
    let again = |file: &str| Ok::<_, TableError>(text(&tables, file));
    assert_eq!(QemuTables::parse(again).unwrap(), tables, "what is written is read back");
}

#[test]
fn contradictions_are_refused() {
    let mut tables = QemuTables::parse(empty).unwrap();
    tables.import(release("12.0"), &QemuFacts::read(&tree(CPU)).unwrap()).unwrap();
    let renamed = QemuFacts::read(&tree(&CPU.replace("\"vmx\"", "\"vtx\""))).unwrap();
    let error = tables.clone().import(release("12.1"), &renamed).unwrap_err();
    let (place, new, old) = ("1.ECX[5]".to_owned(), "vtx".to_owned(), "vmx".to_owned());
    assert_eq!(error, QemuImportError::Renamed { place, new, old });
    let mut swapped = QemuFacts::read(&tree(CPU)).unwrap();
    swapped.models.swap(0, 1);
    assert_eq!(tables.import(release("12.1"), &swapped), Err(QemuImportError::Order("models.tsv")));
}
