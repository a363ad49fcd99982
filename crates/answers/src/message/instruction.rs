//! Instructions that faulted: which features they need.

use cpusieve_formats::message::Shown;
use cpusieve_knowledge::x86::{self, Feature};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, Mnemonic};

/// What an instruction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its mnemonic in lower case, and its operands if they were shown.
    pub text: String,
    /// How it is encoded, in words: `VEX (c4)`.
    pub encoding: String,
    /// The features that it needs, the rarest last; empty for what every CPU has had since the 486.
    pub features: Vec<&'static Feature>,
    /// What it is, if it is no instruction that a missing feature could stop.
    pub special: Option<Special>,
}

/// Bytes that fault on every CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// UD0, UD1 or UD2: the program meant it.
    Undefined,
    /// The bytes are no instruction.
    NotOne,
    /// An instruction that only kernels may execute.
    Privileged,
}

/// Decodes an instruction from its bytes, else finds it by its text. `None` if neither says enough.
pub(super) fn decode(shown: &Shown) -> Option<Instruction> {
    if shown.bytes.is_empty() { by_text(&shown.text) } else { by_bytes(shown) }
}

/// The bytes of the longest instruction.
const LONGEST: usize = 15;
/// So many bytes hold prefix, opcode and registers of nearly every instruction.
const ENOUGH: usize = 4;

fn by_bytes(shown: &Shown) -> Option<Instruction> {
    let mut found = Decoder::new(64, &shown.bytes, DecoderOptions::NONE).decode();
    if found.is_invalid() && (ENOUGH..LONGEST).contains(&shown.bytes.len()) {
        // Dumps end in the middle of an instruction: what is cut off is a displacement or a constant.
        let padded: Vec<u8> = shown.bytes.iter().copied().chain([0; LONGEST]).take(LONGEST).collect();
        found = Decoder::new(64, &padded, DecoderOptions::NONE).decode();
    }
    if found.is_invalid() {
        // Too few bytes tell nothing; enough of them tell that they are no instruction.
        let by_text = by_text(&shown.text);
        return by_text.or_else(|| (shown.bytes.len() >= LONGEST).then(|| special(hex(&shown.bytes), Special::NotOne)));
    }
    let name = name(found.mnemonic());
    let text = if shown.text.is_empty() { name.clone() } else { shown.text.clone() };
    if matches!(found.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2) {
        return Some(special(text, Special::Undefined));
    }
    let first = shown.bytes.iter().find(|byte| !matches!(byte, 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f));
    let encoding = match (encoding(found.code().encoding()), first) {
        (words, Some(byte)) if found.code().encoding() != EncodingKind::Legacy => format!("{words} ({byte:02x})"),
        (words, _) => words.to_owned(),
    };
    let special = found.is_privileged().then_some(Special::Privileged);
    Some(Instruction { text, encoding, features: features(found.cpuid_features()), special })
}

fn special(text: String, special: Special) -> Instruction {
    Instruction { text, encoding: String::new(), features: Vec::new(), special: Some(special) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(15).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn encoding(kind: EncodingKind) -> &'static str {
    match kind {
        EncodingKind::VEX => "VEX",
        EncodingKind::EVEX => "EVEX",
        EncodingKind::XOP => "XOP",
        EncodingKind::D3NOW => "3DNow!",
        _ => "legacy",
    }
}

fn name(mnemonic: Mnemonic) -> String {
    format!("{mnemonic:?}").to_ascii_lowercase()
}

/// Prefixes that disassemblers print as words of their own.
const PREFIXES: [&str; 12] =
    ["rep", "repz", "repnz", "repe", "repne", "lock", "notrack", "bnd", "data16", "xacquire", "xrelease", "{evex}"];
/// Letters that AT&T's syntax puts behind a mnemonic for the size of the operands.
const SIZES: [char; 4] = ['b', 'w', 'l', 'q'];

/// The instruction that a disassembler's text names.
fn by_text(text: &str) -> Option<Instruction> {
    let mut words = text.trim();
    while let Some((first, rest)) = words.split_once(' ').filter(|(first, _)| PREFIXES.contains(first)) {
        let _ = first;
        words = rest.trim_start();
    }
    let (name, operands) = words.split_once(' ').unwrap_or((words, ""));
    let mnemonic = mnemonic(name)?;
    if matches!(mnemonic, Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2) {
        return Some(special(text.to_owned(), Special::Undefined));
    }
    let wanted = kinds(operands);
    let masked = operands.contains("{k") || operands.contains("{%k") || operands.contains("{z}");
    let score = |code: Code| -> Option<(usize, usize, usize)> {
        let had = kinds_of(code)?;
        let evex = code.encoding() == EncodingKind::EVEX;
        let fits = wanted.iter().filter(|kind| !had.contains(*kind)).count() + had.len().abs_diff(wanted.len());
        Some((fits + usize::from(masked && !evex), usize::from(evex), features(code.cpuid_features()).len()))
    };
    let best = Code::values()
        .filter(|code| code.mnemonic() == mnemonic)
        .filter_map(|code| Some((score(code)?, code)))
        .min_by_key(|(score, code)| (*score, *code as usize))?
        .1;
    let special = matches!(best.encoding(), EncodingKind::MVEX).then_some(Special::NotOne);
    let encoding = encoding(best.encoding()).to_owned();
    Some(Instruction { text: words.to_owned(), encoding, features: features(best.cpuid_features()), special })
}

fn mnemonic(name: &str) -> Option<Mnemonic> {
    let called = |wanted: &str| Mnemonic::values().find(|mnemonic| self::name(*mnemonic) == wanted);
    let name = name.to_ascii_lowercase();
    called(&name).or_else(|| called(name.strip_suffix(SIZES)?))
}

/// What an operand may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zmm,
    Ymm,
    Xmm,
    Mm,
    Mask,
    Tile,
    General,
    Memory,
    Immediate,
}

/// The kinds of the operands of a text, in either syntax.
fn kinds(operands: &str) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut depth = 0_i32;
    let pieces = operands.split(|c: char| {
        depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
        c == ',' && depth == 0
    });
    for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
        let register = piece.trim_start_matches('%');
        kinds.push(if piece.contains(['(', '[']) || piece.contains(" ptr ") {
            Kind::Memory
        } else if register.starts_with("zmm") {
            Kind::Zmm
        } else if register.starts_with("ymm") {
            Kind::Ymm
        } else if register.starts_with("xmm") {
            Kind::Xmm
        } else if register.starts_with("tmm") {
            Kind::Tile
        } else if register.starts_with("mm") {
            Kind::Mm
        } else if register.starts_with('k') {
            Kind::Mask
        } else if piece.starts_with(['$', '-']) || register.starts_with(|c: char| c.is_ascii_digit()) {
            Kind::Immediate
        } else {
            Kind::General
        });
    }
    kinds
}

/// The kinds of the operands of an encoding, from its name: `EVEX_Vpbroadcastb_zmm_k1z_r32`. A `…m…` operand may be in
/// memory too: it counts as both.
fn kinds_of(code: Code) -> Option<Vec<Kind>> {
    let name = format!("{code:?}");
    let mut parts = name.split('_').peekable();
    if parts.peek().is_some_and(|part| matches!(*part, "VEX" | "EVEX" | "XOP" | "D3NOW" | "MVEX")) {
        parts.next();
    }
    parts.next()?;
    let mut kinds = Vec::new();
    for part in parts {
        let kind = match part {
            "k1" | "k1z" | "er" | "sae" | "b" | "k2" => continue,
            part if part.starts_with("zmm") => Kind::Zmm,
            part if part.starts_with("ymm") => Kind::Ymm,
            part if part.starts_with("xmm") => Kind::Xmm,
            part if part.starts_with("tmm") => Kind::Tile,
            part if part.starts_with("mm") => Kind::Mm,
            part if part.starts_with("kr") || part.starts_with("kp") => Kind::Mask,
            part if part.starts_with("imm") || part == "1" => Kind::Immediate,
            part if part.starts_with('m') => Kind::Memory,
            _ => Kind::General,
        };
        kinds.push(kind);
        if kind != Kind::Memory
            && part.len() > 3
            && part.get(2..).is_some_and(|rest| rest.contains('m') && !part.ends_with("mm"))
        {
            kinds.push(Kind::Memory);
        }
    }
    Some(kinds)
}

/// Names of the decoder that no system calls so.
const RENAMED: [(CpuidFeature, &str); 12] = [
    (CpuidFeature::SHA, "sha_ni"),
    (CpuidFeature::CMPXCHG16B, "cx16"),
    (CpuidFeature::CET_SS, "shstk"),
    (CpuidFeature::CET_IBT, "ibt"),
    (CpuidFeature::CLFSH, "clflush"),
    (CpuidFeature::D3NOW, "3dnow"),
    (CpuidFeature::D3NOWEXT, "3dnowext"),
    (CpuidFeature::PREFETCHW, "3dnowprefetch"),
    (CpuidFeature::HLE_or_RTM, "rtm"),
    (CpuidFeature::MONITORX, "mwaitx"),
    (CpuidFeature::SGX1, "sgx"),
    (CpuidFeature::SKINIT_or_SVM, "svm"),
];
/// What every CPU has that runs a 64-bit kernel, or what CPUID does not tell.
const BASELINE: [CpuidFeature; 14] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CPUID,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::TSC,
    CpuidFeature::MSR,
];

fn features(needed: &[CpuidFeature]) -> Vec<&'static Feature> {
    let feature = |needed: &CpuidFeature| {
        if BASELINE.contains(needed) {
            return None;
        }
        match RENAMED.iter().find(|(known, _)| known == needed) {
            Some((_, id)) => x86::feature(id),
            None => x86::resolve(&format!("{needed:?}")).first().copied(),
        }
    };
    needed.iter().filter_map(feature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(bytes: &[u8], text: &str) -> Vec<&'static str> {
        let shown = Shown {
            line: 1,
            address: None,
            bytes: bytes.to_vec(),
            text: text.to_owned(),
            function: None,
            faulting: true,
        };
        decode(&shown).map_or(vec!["?"], |found| found.features.iter().map(|feature| feature.id).collect())
    }

    #[test]
    fn every_name_of_the_decoder_is_a_feature_or_baseline() {
        let known = |feature: CpuidFeature| BASELINE.contains(&feature) || !features(&[feature]).is_empty();
        for name in [
            CpuidFeature::AVX512BW,
            CpuidFeature::SSE3,
            CpuidFeature::LZCNT,
            CpuidFeature::PCLMULQDQ,
            CpuidFeature::SHA,
            CpuidFeature::BMI1,
            CpuidFeature::AVX_VNNI,
            CpuidFeature::AMX_TILE,
            CpuidFeature::WAITPKG,
            CpuidFeature::SSE4A,
            CpuidFeature::AVX512_VPOPCNTDQ,
            CpuidFeature::GFNI,
            CpuidFeature::VAES,
            CpuidFeature::F16C,
            CpuidFeature::RDRAND,
        ] {
            assert!(known(name), "{name:?}");
        }
    }

    #[test]
    fn bytes_tell_their_features() {
        assert_eq!(needs(&[0xc4, 0xe2, 0x7d, 0x78, 0xc0], ""), ["avx2"]);
        assert_eq!(needs(&[0x62, 0xf2, 0x7d, 0x48, 0x7a, 0xc2], ""), ["avx512bw"]);
        assert_eq!(needs(&[0xf2, 0x0f, 0x10, 0x80, 0x80, 0x27, 0xdf, 0xff], ""), ["sse2"]);
        assert_eq!(needs(&[0xf3, 0x48, 0x0f, 0xb8, 0xc7], ""), ["popcnt"]);
        assert_eq!(needs(&[0x0f, 0x0b], ""), [""; 0]);
        assert_eq!(needs(&[0x62, 0xf2], ""), ["?"]);
    }

    #[test]
    fn text_tells_its_features_in_either_syntax() {
        for (text, expected) in [
            ("vpbroadcastb zmm0,edx", vec!["avx512bw"]),
            ("vpbroadcastb %xmm0,%ymm0", vec!["avx2"]),
            ("popcnt 0x28(%rsp),%rcx", vec!["popcnt"]),
            ("vmovsd 0xb017de(%rip),%xmm4", vec!["avx"]),
            ("vfmadd213sd 0x1130fd0(%rip),%xmm4,%xmm3", vec!["fma"]),
            ("vmovdqu64 %zmm0,(%rdi)", vec!["avx512f"]),
            ("vpxor  ymm0,ymm0,ymm0", vec!["avx2"]),
            ("vxorps ymm0,ymm0,ymm0", vec!["avx"]),
            ("shlx rax,rdi,rcx", vec!["bmi2"]),
            ("andn rax,rdi,rcx", vec!["bmi1"]),
            ("crc32q %rax,%rbx", vec!["sse4_2"]),
            ("pshufb xmm0,xmm1", vec!["ssse3"]),
            ("lzcnt eax,edi", vec!["abm"]),
            ("vmovdqu8 (%rsi),%ymm16{%k1}{z}", vec!["avx512vl", "avx512bw"]),
            ("ud2", vec![]),
            ("lock add %eax,(%rdi)", vec![]),
        ] {
            assert_eq!(needs(&[], text), expected, "{text}");
        }
        assert_eq!(needs(&[], "frobnicate eax"), ["?"]);
    }
}
