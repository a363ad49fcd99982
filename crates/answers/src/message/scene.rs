//! What surrounds the messages: accelerator, management, a named CPU, a `-cpu` argument.

use cpusieve_formats::message::Paste;
use cpusieve_knowledge::messages::{self, Brand, Found, Spot};

/// What a paste tells about itself.
pub(super) struct Scene {
    tags: Vec<&'static str>,
    /// Sentences to be said beside the answer.
    pub(super) hints: Vec<String>,
    /// The CPU that is named.
    pub(super) brand: Option<&'static Brand>,
    /// The argument of `-cpu`.
    pub(super) cpu: Option<String>,
    /// The flags line of `/proc/cpuinfo` or `lscpu`, if one is there.
    pub(super) flags: Vec<String>,
    /// Registers that hints name.
    pub(super) spots: Vec<Spot>,
    /// The lines that tell all this.
    pub(super) lines: Vec<u32>,
}

impl Scene {
    pub(super) fn of(paste: &Paste, found: &[Found]) -> Self {
        let brand = messages::find_brand(&paste.lower);
        let mut scene = Self {
            tags: Vec::new(),
            hints: Vec::new(),
            brand: brand.map(|(brand, _)| brand),
            cpu: cpu_argument(&paste.flow),
            flags: flags_line(paste),
            spots: Vec::new(),
            lines: brand.map(|(_, at)| paste.line_at(at)).into_iter().collect(),
        };
        for one in found {
            let Some(tag) = one.message.tag else { continue };
            scene.tags.push(tag);
            if !one.message.cause.is_empty() {
                let whole = paste.piece((one.start, one.end));
                scene.hints.push(one.message.cause.replace("{0}", whole));
                scene.lines.push(paste.line_at(one.start));
            }
            if tag == "rdmsr-fails" {
                let index =
                    one.taken.iter().flat_map(|taken| &taken.ranges).find_map(|&range| hexadecimal(paste.piece(range)));
                scene.spots.extend(
                    index.and_then(|index| u32::try_from(index).ok()).map(|index| Spot::Msr { index, bits: None }),
                );
            }
        }
        scene
    }

    pub(super) fn is(&self, tag: &str) -> bool {
        self.tags.contains(&tag)
    }

    /// Whether what complains runs inside a virtual machine, as far as the paste says.
    pub(super) fn in_vm(&self) -> bool {
        self.flags.iter().any(|flag| flag == "hypervisor")
            || ["vm", "qemu-guest", "kvm-guest", "proxmox", "vmware", "virtualbox", "hyper-v", "kubevirt"]
                .iter()
                .any(|tag| self.is(tag))
    }

    /// What stands in KVM's place: another accelerator, or the TDX module, which has the last word on CPUID.
    pub(super) fn other_accelerator(&self) -> Option<&'static str> {
        [("tcg", "TCG"), ("hvf", "HVF"), ("whpx", "WHPX"), ("tdx", "TDX")]
            .into_iter()
            .find(|(tag, _)| self.is(tag))
            .map(|(_, name)| name)
    }
}

/// A number with or without `0x`.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x").trim_start_matches("0X"), 16).ok()
}

/// Flags of a line `flags : fpu vme ...` that are looked at; kernels print fewer than 200.
const MAX_FLAGS: usize = 400;

/// The words of the first flags line, and of the lines that `lscpu` breaks it into.
fn flags_line(paste: &Paste) -> Vec<String> {
    let Some((_, rest)) = paste.lower.split_once("flags: ").or_else(|| paste.lower.split_once("flags : ")) else {
        return Vec::new();
    };
    let is_flag =
        |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let words: Vec<String> = rest.split(' ').take(MAX_FLAGS).take_while(is_flag).map(str::to_owned).collect();
    // A line of flags begins with the oldest ones.
    if words.first().is_some_and(|first| first == "fpu") && words.len() >= 8 { words } else { Vec::new() }
}

/// The word after `-cpu`.
fn cpu_argument(flow: &str) -> Option<String> {
    let (_, rest) = flow.split_once("-cpu ")?;
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | ';')).unwrap_or(rest.len());
    let word = rest.get(..end)?.trim_end_matches(['.', ',']);
    let is_model = word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.len() <= 200 && !word.contains("...");
    is_model.then(|| word.to_owned())
}
