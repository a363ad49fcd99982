//! Instructions in a paste: a kernel's `Code:` line, gdb, objdump, lldb, WinDbg, x64dbg, Valgrind, and bare bytes.

use super::Line;

/// One instruction that a paste shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The line's number.
    pub line: u32,
    /// Its address, if there is one.
    pub address: Option<u64>,
    /// The bytes from the instruction on; empty if only text is shown.
    pub bytes: Vec<u8>,
    /// The disassembler's text, mnemonic first; empty if only bytes are shown.
    pub text: String,
    /// The function around it.
    pub function: Option<String>,
    /// Whether it is the one that faulted: by a mark, by its address, or because nothing else is shown.
    pub faulting: bool,
}

/// How many instructions of one paste are looked at.
const MAX_SHOWN: usize = 512;
/// How many bytes of one instruction are kept; the longest has 15.
const MAX_BYTES: usize = 64;
/// Addresses are compared by their place in the page: relocation keeps that.
const IN_PAGE: u64 = 0xfff;

/// The instructions of a paste, those that faulted marked.
pub(super) fn all(lines: &[Line]) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut named = Vec::new();
    let mut function = None;
    for line in lines {
        if shown.len() >= MAX_SHOWN {
            break;
        }
        match bytes_of(&line.text).or_else(|| disassembled(&line.text)) {
            Some(found) => shown.push(Shown { line: line.number, ..found }),
            None => {
                addresses(&line.text, &mut named);
                function = in_function(&line.text).or(function);
            }
        }
    }
    if shown.is_empty() && lines.len() <= 2 {
        shown.extend(lines.iter().filter_map(bare));
    }
    for one in &mut shown {
        one.faulting |= one.address.is_some_and(|address| named.iter().any(|ip| ip & IN_PAGE == address & IN_PAGE));
        if one.function.is_none() {
            one.function.clone_from(&function);
        }
    }
    if shown.iter().all(|one| !one.faulting) {
        shown.iter_mut().for_each(|one| one.faulting = true);
    }
    shown
}

/// A line of bytes: `Code: ... <62> f1 ...`, `unhandled instruction bytes: 0x62 0xF1`, `illegal instruction at 0x1: f2 0f`.
fn bytes_of(line: &str) -> Option<Shown> {
    let lower = line.to_ascii_lowercase();
    let after = |words: &str| lower.find(words).and_then(|at| lower.get(at + words.len()..));
    let code = after("code: ").filter(|rest| rest.split_whitespace().take(4).all(|word| byte(word).is_some()));
    let said =
        ["instruction bytes:", "opcode bytes:", "instruction stream:", "bytes at rip:", "opcode:", "bytes at ip:"];
    let rest = code.or_else(|| said.into_iter().find_map(after)).or_else(|| {
        let rest = after("illegal instruction at ").or_else(|| after("invalid opcode at "))?;
        rest.split_once(": ").map(|(_, rest)| rest)
    });
    let stream = || {
        // A line of a crash report that is nothing but bytes, one of them marked.
        let mut words = lower.split_whitespace();
        (lower.contains(['[', '<']) && words.clone().count() >= 4 && words.all(|word| byte(word).is_some()))
            .then_some(lower.as_str())
    };
    let rest = rest.or_else(stream)?;
    let mut bytes = Vec::new();
    let mut marked = false;
    for word in rest.split_whitespace() {
        let Some(value) = byte(word) else { break };
        if word.starts_with(['<', '[', '(']) {
            bytes.clear();
            marked = true;
        }
        if bytes.len() < MAX_BYTES || !marked {
            bytes.push(value);
        }
    }
    // Without a mark a kernel's line does not tell where the instruction begins.
    (bytes.len() >= 2 && (marked || code.is_none())).then(|| {
        bytes.truncate(MAX_BYTES);
        Shown { line: 0, address: None, bytes, text: String::new(), function: None, faulting: true }
    })
}

/// Two hexadecimal digits, with or without `0x`, marked or not.
fn byte(word: &str) -> Option<u8> {
    let word = word.trim_matches(['<', '>', '[', ']', '(', ')', ',']);
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    let whole = digits.len() == 2 || (digits.len() == 1 && digits.len() < word.len());
    whole.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// A line of a disassembler or of a memory dump: an address, then bytes, text or both.
fn disassembled(line: &str) -> Option<Shown> {
    let line = line.trim_start_matches(['|', '>', ' ', '*']);
    let (faulting, line) = match ["=>", "->", "-->", "==>"].iter().find_map(|mark| line.strip_prefix(mark)) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, line),
    };
    let (address, rest) = address(line)?;
    let rest = rest.trim_start();
    let (function, rest) = match rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((function, rest)) => (Some(function), rest.trim_start()),
        None => (None, rest),
    };
    let separated = rest.starts_with([':', '|']);
    let rest = rest.trim_start_matches([':', '|']).trim_start();
    let (bytes, text) = leading_bytes(rest);
    let text = text.trim_start_matches(['|', ' ']);
    let text = text.split(['#', ';', '|']).next().unwrap_or_default().trim();
    let mnemonic = text.split_whitespace().next().is_some_and(|word| {
        word.len() >= 2
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    // A number and a colon before words are a date or a counter as well.
    let placed = faulting || function.is_some() || (separated && address > 0xf_ffff);
    if bytes.len() < 2 && !(mnemonic && placed) {
        return None;
    }
    // Where a file of bytes alone is disassembled, addresses begin at 0: as short as times of day.
    if !mnemonic && (!separated || address <= 0xfff) {
        return None;
    }
    Some(Shown {
        line: 0,
        address: Some(address),
        bytes,
        text: if mnemonic { text.chars().take(120).collect() } else { String::new() },
        function: function.map(name).filter(|name| !name.is_empty()),
        faulting,
    })
}

/// `measure_off_avx+18` without what follows the name.
fn name(function: &str) -> String {
    function.split('+').next().unwrap_or_default().chars().take(80).collect()
}

/// Hexadecimal digits at the beginning, at least four, or fewer before a colon; WinDbg puts a grave accent into them.
fn address(line: &str) -> Option<(u64, &str)> {
    let digits = line.strip_prefix("0x").unwrap_or(line);
    let end = digits.find(|c: char| !c.is_ascii_hexdigit() && c != '`').unwrap_or(digits.len());
    let (found, rest) = digits.split_at(end);
    let plain: String = found.chars().filter(|c| *c != '`').collect();
    let ends = rest.starts_with([':', ' ', '|', '<']);
    let long = plain.len() >= 4 || (!plain.is_empty() && rest.starts_with(':'));
    (long && ends).then(|| u64::from_str_radix(&plain, 16).ok()).flatten().map(|address| (address, rest))
}

/// Bytes at the beginning: pairs of digits with blanks between, or without.
fn leading_bytes(text: &str) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut rest = text;
    while bytes.len() < MAX_BYTES {
        let trimmed = rest.trim_start();
        let end = trimmed.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(trimmed.len());
        let (word, tail) = trimmed.split_at(end);
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let even = digits.len() >= 2 && digits.len() % 2 == 0 && digits.len() <= 2 * MAX_BYTES;
        // `add` and `dec` are words as well as digits: they are bytes only beside others.
        if !even
            || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            || (word.len() > 2 && !tail.starts_with(|c: char| c.is_whitespace() || c == '|') && !tail.is_empty())
        {
            break;
        }
        bytes
            .extend((0..digits.len()).step_by(2).filter_map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()));
        rest = tail;
    }
    (bytes, rest)
}

/// A paste that is nothing but bytes.
fn bare(line: &Line) -> Option<Shown> {
    let (bytes, rest) = leading_bytes(line.text.trim());
    (bytes.len() >= 2 && rest.trim().is_empty()).then_some(Shown {
        line: line.number,
        address: None,
        bytes,
        text: String::new(),
        function: None,
        faulting: true,
    })
}

/// Addresses that prose names: `0x0000000000ae6c8a in f ()`, `ip:47ed19`, `disas 0x4c479f,+8`, `at 23a8d77`.
fn addresses(line: &str, named: &mut Vec<u64>) {
    for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '`') {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let digits: String = digits.chars().filter(|c| *c != '`').collect();
        let long = digits.len() >= 4 && digits.bytes().any(|byte| byte.is_ascii_digit());
        if long && named.len() < MAX_SHOWN {
            named.extend(u64::from_str_radix(&digits, 16).ok());
        }
    }
}

/// `0x000000000040c854 in hash_crc32.lto_priv ()`
fn in_function(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" in ")?;
    before
        .trim_end()
        .ends_with(|c: char| c.is_ascii_hexdigit())
        .then(|| name(after.split([' ', '(']).next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Shown> {
        all(&text.lines().zip(1..).map(|(text, number)| Line { number, text: text.to_owned() }).collect::<Vec<_>>())
    }

    fn faulting(text: &str) -> Vec<(Vec<u8>, String)> {
        read(text).into_iter().filter(|one| one.faulting).map(|one| (one.bytes, one.text)).collect()
    }

    #[test]
    fn every_tool_is_read() {
        let avx2 = vec![0xc4, 0xe2, 0x7d, 0x78, 0xc0];
        for (text, bytes, mnemonic) in [
            ("Code: 48 89 e5 <c4> e2 7d 78 c0", avx2.clone(), ""),
            ("vex amd64->IR: unhandled instruction bytes: 0xC4 0xE2 0x7D 0x78 0xC0", avx2.clone(), ""),
            ("16 illegal instruction at 0xf25c778d: c4 e2 7d 78 c0", avx2.clone(), ""),
            (
                "23a8d77:       c4 e2 7d 78 c0          vpbroadcastb %xmm0,%ymm0",
                avx2.clone(),
                "vpbroadcastb %xmm0,%ymm0",
            ),
            ("=> 0x5753b7 <+23>:\tvpbroadcastb zmm0,edx", vec![], "vpbroadcastb zmm0,edx"),
            ("->  0x100003f4c <+12>: popcnt rax, rdi", vec![], "popcnt rax, rdi"),
            ("00007ff6`57352ab0 c4e27d78c0      vpbroadcastb ymm0,xmm0", avx2.clone(), "vpbroadcastb ymm0,xmm0"),
            ("00007FF657352AB0 | C4E27D78 C0 | vpbroadcastb ymm0,xmm0 |", avx2.clone(), "vpbroadcastb ymm0,xmm0"),
            ("0x401000:\t0xc4\t0xe2\t0x7d\t0x78\t0xc0", avx2.clone(), ""),
            ("   0:\tc4 e2 7d 78 c0       \tvpbroadcastb %xmm0,%ymm0", avx2.clone(), "vpbroadcastb %xmm0,%ymm0"),
            ("c4 e2 7d 78 c0", avx2.clone(), ""),
            ("c4e27d78c0", avx2, ""),
        ] {
            assert_eq!(faulting(text), [(bytes, mnemonic.to_owned())], "{text}");
        }
        for text in [
            "Code: Bad RIP value.",
            "plain words",
            "2020: words and more",
            "12:34:56 words and more",
            "10: 20 30 40",
            "Code: 48 89 e5 c4 e2 7d 78",
            "dead beef cafe x",
        ] {
            assert_eq!(faulting(text), [], "{text}");
        }
    }

    #[test]
    fn the_one_that_faulted_is_found_by_mark_or_address() {
        let text = "Error offset: 0x0000000000512ab0.\n00007FF657352AAC | C5F96EC9 | vmovd xmm1,ecx |\n00007FF657352AB0 | C4E27D78C9 | vpbroadcastb ymm1,xmm1 |";
        assert_eq!(faulting(text).len(), 1);
        assert_eq!(faulting(text)[0].1, "vpbroadcastb ymm1,xmm1");
        let text = "0x5 in f_avx ()\n   0x5753b2 <+18>: mov edx,1\n=> 0x5753b7 <+23>: vpbroadcastb zmm0,edx";
        assert_eq!(faulting(text), [(vec![], "vpbroadcastb zmm0,edx".to_owned())]);
    }
}
