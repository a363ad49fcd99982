//! The KVM importer on hand-made kernel trees, one for each shape of the code, and the stored tables.

use std::collections::BTreeMap;

use cpusieve_import::kvm::{
    AdjustOp, AdjustSite, Bound, CapKind, KvmApi, KvmCap, KvmError, KvmFacts, LeafCap, PvFeature,
};
use cpusieve_import::tables::kvm::{FILES, KvmTables};
use cpusieve_import::tables::linux::print_bit;
use cpusieve_import::tables::{TableError, TreeList};

const CPUFEATURE_H: &str = "enum cpuid_leafs\n{\n\tCPUID_1_EDX = 0,\n\tCPUID_8000_0001_EDX,\n\tCPUID_LNX_1,\n\tCPUID_1_ECX,\n\
                            \tCPUID_7_0_EBX,\n\tCPUID_7_ECX,\n\tCPUID_6_EAX,\n\tCPUID_8000_0001_ECX,\n\tCPUID_7_1_EAX,\n\
                            \tCPUID_8000_0021_EAX,\n\tCPUID_8000_000A_EDX,\n\tNR_CPUID_WORDS,\n};\n";
const CPUFEATURES_H: &str = "#define X86_FEATURE_FPU ( 0*32+ 0) /* \"fpu\" */\n#define X86_FEATURE_NX ( 1*32+20)\n\
                             #define X86_FEATURE_LM (1*32+29)\n#define X86_FEATURE_ONE ( 3*32+ 1)\n\
                             #define X86_FEATURE_TWO (3*32+ 2)\n#define X86_FEATURE_UMIP (5*32+ 2)\n\
                             #define X86_FEATURE_LA57 (5*32+16)\n#define X86_FEATURE_ARAT (6*32+ 2)\n\
                             #define X86_FEATURE_SVM (7*32+ 2)\n#define X86_FEATURE_BF16 (8*32+ 5)\n\
                             #define X86_FEATURE_ADJUST (4*32+ 1)\n#define X86_FEATURE_PT (4*32+25)\n\
                             #define X86_FEATURE_SYNTH (9*32+27)\n#define X86_FEATURE_NRIPS (10*32+ 3)\n\
                             #define X86_FEATURE_NAMES_BUG(x) (x)\n";
const REVERSE: &str = "static const struct cpuid_reg reverse_cpuid[] = {\n\t[CPUID_1_EDX] = { 1, 0, CPUID_EDX},\n\
                       \t[CPUID_8000_0001_EDX] = {0x80000001, 0, CPUID_EDX},\n\t[CPUID_1_ECX] = { 1, 0, CPUID_ECX},\n\
                       \t[CPUID_7_0_EBX] = { 7, 0, CPUID_EBX},\n\t[CPUID_7_ECX] = { 7, 0, CPUID_ECX},\n\
                       \t[CPUID_6_EAX] = { 6, 0, CPUID_EAX},\n\t[CPUID_8000_0001_ECX] = {0x80000001, 0, CPUID_ECX},\n\
                       \t[CPUID_8000_0021_EAX] = {0x80000021, 0, CPUID_EAX},\n\
                       \t[CPUID_8000_000A_EDX] = {0x8000000a, 0, CPUID_EDX},\n\
                       \t[CPUID_7_2_EDX] = { 7, 2, CPUID_EDX},\n};\n\
                       #define X86_FEATURE_ONLY_KVM KVM_X86_FEATURE(CPUID_7_2_EDX, 4)\n\
                       #define KVM_X86_FEATURE_SPREAD KVM_X86_FEATURE(CPUID_7_2_EDX, 5)\n";
const PARA_H: &str = "#define KVM_FEATURE_CLOCK 0\n#define KVM_FEATURE_STEAL\t5\n";

fn facts(cpuid: &str, vmx: &str, svm: &str, x86: &str) -> Result<KvmFacts, KvmError> {
    let files: BTreeMap<&str, &str> = [
        ("arch/x86/include/asm/cpufeature.h", CPUFEATURE_H),
        ("arch/x86/include/asm/cpufeatures.h", CPUFEATURES_H),
        ("arch/x86/include/uapi/asm/kvm_para.h", PARA_H),
        ("arch/x86/kvm/cpuid.h", REVERSE),
        ("arch/x86/kvm/cpuid.c", cpuid),
        ("arch/x86/kvm/vmx/vmx.c", vmx),
        ("arch/x86/kvm/svm.c", svm),
        ("arch/x86/kvm/x86.c", x86),
    ]
    .into();
    KvmFacts::read(&|path: &str| files.get(path).map(|&text| text.to_owned()))
}

fn caps(facts: &KvmFacts) -> Vec<(String, &str, CapKind, Option<&str>)> {
    let row = |cap: &KvmCap| print_bit(cap.place);
    facts.caps.iter().map(|cap| (row(cap), cap.macro_name.as_str(), cap.kind, cap.condition.as_deref())).collect()
}

fn adjusts(facts: &KvmFacts) -> Vec<(AdjustSite, AdjustOp, &str, Vec<&str>)> {
    let all = facts.adjusts.iter();
    all.map(|a| (a.site, a.op, a.macro_name.as_str(), a.conditions.iter().map(String::as_str).collect())).collect()
}

const ANSWERS: &str = "static int __do_cpuid_func(u32 function)\n{\n\tswitch (function) {\n\tcase 0:\n\
                       \t\tentry->eax = min(entry->eax, 0x1fU); /* cap */\n\t\tbreak;\n\tcase 6:\n\t\tentry->eax = 0x4;\n\
                       \t\tentry->ebx = 0;\n\t\tbreak;\n\tcase KVM_CPUID_FEATURES:\n\
                       \t\tentry->eax = (1 << KVM_FEATURE_CLOCK);\n\t\tif (sched_info_on())\n\
                       \t\t\tentry->eax |= (1 << KVM_FEATURE_STEAL);\n\t\tbreak;\n\tcase 0x80000000:\n\
                       \t\tif (entry->eax >= 0x8000001d)\n\t\t\tentry->eax = max(entry->eax, 0x80000021);\n\t\tbreak;\n\
                       \tcase 0x80000007:\n\t\tentry->edx &= (1 << 8);\n\t\tbreak;\n\tcase 3:\n\tcase 5:\n\tdefault:\n\
                       \t\tentry->eax = 0;\n\t}\n}\n";

#[test]
fn lists_over_the_kernels_capabilities() {
    let cpuid = format!(
        "void kvm_set_cpu_caps(void)\n{{\n\tunsigned int f_nx = is_efer_nx() ? F(NX) : 0;\n#ifdef CONFIG_X86_64\n\
         \tunsigned int f_lm = F(LM);\n#else\n\tunsigned int f_lm = 0;\n#endif\n\
         \tkvm_cpu_cap_mask(CPUID_1_ECX,\n\t\tF(ONE) | 0 /* F(TWO) */\n\t);\n\
         \tkvm_cpu_cap_mask(CPUID_8000_0001_EDX, F(FPU) | f_nx | f_lm);\n\
         \tkvm_cpu_cap_init_kvm_defined(CPUID_7_2_EDX,\n\t\tF(ONLY_KVM) | SF(SPREAD)\n\t);\n\
         \tkvm_cpu_cap_mask(CPUID_8000_000A_EDX, 0);\n\
         \tkvm_cpu_cap_mask(CPUID_8000_0021_EAX, BIT(6) | F(SYNTH));\n\
         \tif (cpuid_ecx(7) & F(LA57))\n\t\tkvm_cpu_cap_set(X86_FEATURE_LA57);\n\
         \tkvm_cpu_caps[CPUID_8000_0021_EAX] |= BIT(9);\n}}\n{ANSWERS}"
    );
    let vmx = "static __init void vmx_set_cpu_caps(void)\n{\n\tif (a &&\n\t    b) {\n\t\tif (c)\n\
               \t\t\tkvm_cpu_cap_check_and_set(X86_FEATURE_PT);\n\t\telse\n\t\t\tkvm_cpu_cap_clear(X86_FEATURE_ONE);\n\
               \t}\n}\n";
    let svm = "static void svm_set_cpu_caps(void)\n{\n\tif (nested)\n\t\tkvm_cpu_cap_set(X86_FEATURE_SVM);\n}\n";
    let x86 = "void late(void)\n{\n\tif (!d)\n\t\tkvm_cpu_cap_clear(X86_FEATURE_TWO);\n}\n";
    let facts = facts(&cpuid, vmx, svm, x86).unwrap();
    assert_eq!(facts.api, KvmApi::CapMask);
    let row = |place: &str, name, kind, condition| (place.to_owned(), name, kind, condition);
    assert_eq!(
        caps(&facts),
        [
            row("1.ECX[1]", "ONE", CapKind::Plain, None),
            row("1.ECX[2]", "TWO", CapKind::AdjustOnly, None),
            row("6.EAX[2]", "ARAT", CapKind::Emulated, None),
            row("7.0.EBX[25]", "PT", CapKind::AdjustOnly, None),
            row("7.0.ECX[16]", "LA57", CapKind::AdjustOnly, None),
            row("7.2.EDX[4]", "ONLY_KVM", CapKind::Raw, None),
            row("7.2.EDX[5]", "SPREAD", CapKind::Scattered, None),
            row("80000001.ECX[2]", "SVM", CapKind::AdjustOnly, None),
            row("80000001.EDX[0]", "FPU", CapKind::Alias1Edx, None),
            row("80000001.EDX[20]", "NX", CapKind::Plain, Some("is_efer_nx()")),
            row("80000001.EDX[29]", "LM", CapKind::X86_64, None),
            row("80000007.EDX[8]", "CONSTANT_TSC", CapKind::Raw, None),
            row("80000021.EAX[6]", "NULL_SEL_CLR_BASE", CapKind::Plain, None),
            row("80000021.EAX[9]", "NO_SMM_CTL_MSR", CapKind::AdjustOnly, None),
            row("80000021.EAX[27]", "SYNTH", CapKind::Plain, None),
        ]
    );
    assert_eq!(
        adjusts(&facts),
        [
            (AdjustSite::Common, AdjustOp::Set, "LA57", vec!["cpuid_ecx(7) & F(LA57)"]),
            (AdjustSite::Common, AdjustOp::Set, "NO_SMM_CTL_MSR", vec![]),
            (AdjustSite::Intel, AdjustOp::CheckAndSet, "PT", vec!["a && b", "c"]),
            (AdjustSite::Intel, AdjustOp::Clear, "ONE", vec!["a && b", "!(c)"]),
            (AdjustSite::Amd, AdjustOp::Set, "SVM", vec!["nested"]),
            (AdjustSite::CommonLate, AdjustOp::Clear, "TWO", vec!["!d"]),
        ]
    );
    let limit = |leaf, bound, value| LeafCap { leaf, bound, value };
    assert_eq!(facts.leaf_caps, [limit(0, Bound::AtMost, 0x1f), limit(0x8000_0000, Bound::AtLeast, 0x8000_0021)]);
    let pv = |bit, name: &str, condition: Option<&str>| PvFeature {
        bit,
        name: name.to_owned(),
        condition: condition.map(str::to_owned),
    };
    assert_eq!(facts.pv, [pv(0, "CLOCK", None), pv(5, "STEAL", Some("sched_info_on()"))]);
    assert_eq!(facts.handled, [0, 3, 5, 6, 0x4000_0001, 0x8000_0000, 0x8000_0007]);
}

#[test]
fn lists_that_say_how_each_feature_is_offered() {
    let cpuid = |asks: &str| {
        format!(
            "#define SYNTHESIZED_F(name)\t\\\n({{\t\\\n\t{asks}\tF(name);\t\\\n}})\n\
             void kvm_initialize_cpu_caps(void)\n{{\n\tkvm_cpu_cap_init(CPUID_1_ECX,\n\t\tF(ONE),\n\
             \t\t/* F(NOT) */\n\t\tVENDOR_F(TWO),\n\t);\n\tkvm_cpu_cap_init(CPUID_7_ECX,\n\t\tEMULATED_F(UMIP),\n\
             \t\tPASSTHROUGH_F(LA57),\n\t);\n\tkvm_cpu_cap_init(CPUID_7_2_EDX,\n\t\tSYNTHESIZED_F(ONLY_KVM),\n\
             \t\tSCATTERED_F(SPREAD),\n\t);\n\tkvm_cpu_cap_init(CPUID_8000_0021_EAX,\n\t\tSYNTHESIZED_F(SYNTH),\n\t);\n\
             \tkvm_cpu_cap_init(CPUID_8000_0001_EDX,\n\t\tALIASED_1_EDX_F(FPU),\n\t\tX86_64_F(LM),\n\t);\n\
             \tkvm_cpu_cap_init(CPUID_7_0_EBX,\n\t\tRUNTIME_F(ADJUST),\n\t);\n}}\n{ANSWERS}"
        )
    };
    let kinds = |asks: &str| {
        let facts = facts(&cpuid(asks), "", "", "").unwrap();
        assert_eq!(facts.api, KvmApi::CapInit);
        facts.caps.iter().map(|cap| (cap.macro_name.clone(), cap.kind)).collect::<BTreeMap<_, _>>()
    };
    let seen = kinds("");
    let expected = [
        ("ONE", CapKind::Plain),
        ("TWO", CapKind::Vendor),
        ("UMIP", CapKind::Emulated),
        ("LA57", CapKind::Passthrough),
        ("ONLY_KVM", CapKind::SynthesizedUnconditional),
        ("SPREAD", CapKind::Scattered),
        ("SYNTH", CapKind::Synthesized),
        ("FPU", CapKind::Alias1Edx),
        ("LM", CapKind::X86_64),
        ("ADJUST", CapKind::Runtime),
        ("ARAT", CapKind::Emulated),
        ("CONSTANT_TSC", CapKind::Raw),
    ];
    assert_eq!(seen, expected.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect());
    // From 7.2 on the macro itself asks the host kernel.
    assert_eq!(kinds("if (boot_cpu_has(X86_FEATURE_##name))\t\\\n")["ONLY_KVM"], CapKind::Synthesized);
}

#[test]
fn constant_masks() {
    let cpuid = "static void do_cpuid_7_mask(struct kvm_cpuid_entry2 *entry, int index)\n{\n\tunsigned f_la57;\n\
                 \tunsigned f_umip = ops->umip_emulated() ? F(UMIP) : 0;\n\
                 \tconst u32 kvm_cpuid_7_0_ecx_x86_features =\n\t\tF(LA57) | F(UMIP);\n\
                 \tconst u32 kvm_cpuid_7_1_eax_x86_features = F(BF16);\n\tswitch (index) {\n\tcase 0:\n\
                 \t\tentry->eax = min(entry->eax, 1u);\n\t\tentry->ebx |= F(ADJUST);\n\
                 \t\tentry->ecx &= kvm_cpuid_7_0_ecx_x86_features;\n\t\tf_la57 = entry->ecx & F(LA57);\n\
                 \t\tcpuid_mask(&entry->ecx, CPUID_7_ECX);\n\t\tentry->ecx |= f_la57;\n\t\tentry->ecx |= f_umip;\n\
                 \t\tbreak;\n\tcase 1:\n\t\tentry->eax &= kvm_cpuid_7_1_eax_x86_features;\n\t\tentry->ebx = 0;\n\t}\n}\n\
                 static int __do_cpuid_func(u32 function)\n{\n\
                 \tconst u32 kvm_cpuid_1_ecx_x86_features = F(ONE);\n\tswitch (function) {\n\tcase 1:\n\
                 \t\tentry->ecx &= kvm_cpuid_1_ecx_x86_features;\n\t\tcpuid_mask(&entry->ecx, CPUID_1_ECX);\n\
                 \t\tif (!tdp)\n\t\t\tentry->ecx &= ~F(ONE);\n\t\tbreak;\n\tcase KVM_CPUID_FEATURES:\n\
                 \t\tentry->eax |= (1 << KVM_FEATURE_STEAL);\n\t}\n}\n";
    let vmx = "static void vmx_set_supported_cpuid(u32 func)\n{\n\tif (func == 1 && nested)\n\
               \t\tentry->ecx |= feature_bit(TWO);\n}\n";
    let svm = "static void svm_set_supported_cpuid(u32 func)\n{\n\tswitch (func) {\n\tcase 0x80000001:\n\t\tif (nested)\n\
               \t\t\tentry->ecx |= (1 << 2);\n\t\tbreak;\n\tcase 0x8000000A:\n\t\tif (has)\n\
               \t\t\tentry->edx |= SVM_FEATURE_NRIP;\n\t}\n}\n";
    let facts = facts(cpuid, vmx, svm, "").unwrap();
    assert_eq!(facts.api, KvmApi::ConstMasks);
    let row = |place: &str, name, kind| (place.to_owned(), name, kind, None);
    assert_eq!(
        caps(&facts),
        [
            row("1.ECX[1]", "ONE", CapKind::Plain),
            row("1.ECX[2]", "TWO", CapKind::AdjustOnly),
            row("7.0.EBX[1]", "ADJUST", CapKind::AdjustOnly),
            row("7.0.ECX[2]", "UMIP", CapKind::Plain),
            row("7.0.ECX[16]", "LA57", CapKind::Plain),
            row("7.1.EAX[5]", "BF16", CapKind::Raw),
            row("80000001.ECX[2]", "SVM", CapKind::AdjustOnly),
            row("8000000A.EDX[3]", "NRIPS", CapKind::AdjustOnly),
        ]
    );
    assert_eq!(
        adjusts(&facts),
        [
            (AdjustSite::Common, AdjustOp::Set, "ADJUST", vec![]),
            (AdjustSite::Common, AdjustOp::SetFromRaw, "LA57", vec![]),
            (AdjustSite::Common, AdjustOp::Set, "UMIP", vec!["ops->umip_emulated()"]),
            (AdjustSite::Common, AdjustOp::Clear, "ONE", vec!["!tdp"]),
            (AdjustSite::Intel, AdjustOp::Set, "TWO", vec!["nested"]),
            (AdjustSite::Amd, AdjustOp::Set, "SVM", vec!["nested"]),
            (AdjustSite::Amd, AdjustOp::Set, "NRIPS", vec!["has"]),
        ]
    );
    assert_eq!(facts.leaf_caps, [LeafCap { leaf: 7, bound: Bound::AtMost, value: 1 }]);
}

#[test]
fn bits_that_the_answering_function_lets_through_by_number() {
    let answers = ANSWERS.replace(
        "\tcase 3:\n",
        "\tcase 0x80000021:\n\t\tentry->eax &= BIT(0) | BIT(2);\n\t\tif (x)\n\t\t\tentry->eax |= BIT(2);\n\t\tbreak;\n\
         \tcase 3:\n",
    );
    let cpuid = format!("void kvm_set_cpu_caps(void)\n{{\n\tkvm_cpu_cap_mask(CPUID_1_ECX, F(ONE));\n}}\n{answers}");
    let facts = facts(&cpuid, "", "", "").unwrap();
    let raw: Vec<&str> =
        facts.caps.iter().filter(|cap| cap.place.leaf == 0x8000_0021).map(|cap| cap.macro_name.as_str()).collect();
    assert_eq!(raw, ["NO_NESTED_DATA_BP", "LFENCE_RDTSC"]);
    assert_eq!(adjusts(&facts), [(AdjustSite::Common, AdjustOp::Set, "LFENCE_RDTSC", vec!["x"])]);
}

#[test]
fn errors_name_the_file_the_line_and_what_was_found() {
    let error = |list: &str| {
        let cpuid = format!("void kvm_set_cpu_caps(void)\n{{\n\tkvm_cpu_cap_mask({list});\n}}\n{ANSWERS}");
        facts(&cpuid, "", "", "").unwrap_err().to_string()
    };
    let line = "arch/x86/kvm/cpuid.c:3: ";
    assert_eq!(error("CPUID_1_ECX, F(NEW)"), format!("{line}X86_FEATURE_NEW is not defined"));
    assert_eq!(error("CPUID_1_ECX, ODD_F(ONE)"), format!("{line}ODD_F(ONE): not a known kind of feature"));
    assert_eq!(error("CPUID_9, F(ONE)"), format!("{line}CPUID_9 is not in reverse_cpuid[]"));
    assert_eq!(
        error("CPUID_7_ECX, F(ONE)"),
        format!("{line}X86_FEATURE_ONE is of CPUID_1_ECX, but listed in CPUID_7_ECX")
    );
    assert_eq!(error("CPUID_1_ECX, f_x"), format!("{line}f_x is not set in this function"));
    let unknown = facts("int main;", "", "", "").unwrap_err().to_string();
    assert_eq!(unknown, "arch/x86/kvm/cpuid.c:0: no list of features of any known shape");
    let empty = KvmFacts::read(&|_: &str| None).unwrap_err();
    assert_eq!(empty, KvmError::MissingFile("arch/x86/kvm/cpuid.c".to_owned()));
}

#[test]
fn broken_text_is_an_error_and_never_a_panic() {
    let cpuid = format!("void kvm_set_cpu_caps(void)\n{{\n\tkvm_cpu_cap_mask(CPUID_1_ECX, F(ONE) | é);\n}}\n{ANSWERS}");
    for (end, _) in cpuid.char_indices() {
        let _ = facts(&cpuid[..end], "\n{\n kvm_cpu_cap_set(", "\n{\n kvm_cpu_cap_set(X86_FEATURE_ONE\n}", "{");
    }
}

#[allow(clippy::disallowed_methods, reason = "the test reads the tables of this repository")]
fn stored(path: &str) -> Option<String> {
    std::fs::read_to_string(format!("{}/../../knowledge/{path}", env!("CARGO_MANIFEST_DIR"))).ok()
}

#[test]
fn the_stored_tables_are_canonical() {
    let trees = TreeList::parse("trees.tsv", &stored("linux/trees.tsv").unwrap()).unwrap();
    let tables = KvmTables::parse(&trees, |file| Ok::<_, TableError>(stored(&format!("kvm/{file}")).unwrap())).unwrap();
    let facts: Vec<_> = (0..trees.trees.len()).map(|tree| tables.facts(tree)).collect();
    assert!(facts.iter().all(Option::is_some));
    let again = KvmTables::of(&facts);
    assert_eq!(again, tables);
    let texts = again.print(&trees);
    assert_eq!(texts.iter().map(|(file, _)| *file).collect::<Vec<_>>(), FILES);
    for (file, text) in texts {
        assert_eq!(Some(text), stored(&format!("kvm/{file}")), "{file}");
    }
}
