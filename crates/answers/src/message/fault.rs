//! Programs that died of an illegal instruction: the instruction, or what is left of it.

use cpusieve_formats::message::{Paste, Shown};
use cpusieve_knowledge::messages::{At, Found, Severity, Take};
use cpusieve_knowledge::x86::{self, Feature};

use super::feature::{self, Subject};
use super::instruction::{self, Instruction, Special};
use super::loss::{Loss, of_brand, of_flags};
use super::scene::{self, Scene};
use crate::models::level::{self, Level};

/// The instructions that faulted, as one message.
pub(super) fn of_instructions(paste: &Paste, scene: &Scene) -> Vec<Loss> {
    let decoded: Vec<(&Shown, Instruction)> = paste
        .shown
        .iter()
        .filter(|shown| shown.faulting)
        .filter_map(|shown| Some((shown, instruction::decode(shown)?)))
        .collect();
    let only_bytes = paste.lines.len() <= 2;
    if decoded.is_empty() {
        return of_function(paste, scene).into_iter().collect();
    }
    if !(scene.is("sigill") || only_bytes || decoded.iter().any(|(shown, _)| !shown.bytes.is_empty())) {
        return Vec::new();
    }
    let lines = decoded.iter().map(|(shown, _)| shown.line).collect();
    let mut loss = Loss::fault("MSG0606", "an illegal instruction", lines);
    let mut features: Vec<&'static Feature> = Vec::new();
    for (_, found) in &decoded {
        features.extend(found.features.iter().filter(|_| found.special.is_none()));
    }
    let features = super::distinct(features.into_iter());
    loss.subjects = features.iter().map(|feature| Subject::of(feature)).collect();
    loss.what_it_is(&decoded);
    if features.is_empty() {
        return loss.without_feature(&decoded, scene.is("kernel-bug"));
    }
    loss.of_program(paste, scene, &decoded, &features);
    vec![loss]
}

/// Where the address of a line `trap invalid opcode ip:7f12 sp:7ffc error:0 in libc.so.6[7f00+178000]` lies: behind it the
/// kernel names the file, from some release on with the offset in it (`mm/memory.c:print_vma_addr`).
pub(super) fn module(paste: &Paste, found: &Found) -> Option<String> {
    let ip = found.taken.iter().filter(|taken| taken.take == Take::Hex).flat_map(|taken| &taken.ranges).next_back()?;
    let ip = scene::hexadecimal(paste.piece(*ip))?;
    let rest: String = paste.flow.get(found.end..)?.chars().take(200).collect();
    let (before, rest) = rest.split_once(" in ")?;
    let (name, rest) = rest.split_once('[')?;
    let same_line = !before.contains("ip:") && !name.is_empty() && !name.contains(' ');
    let (inside, _) = rest.split_once(']').filter(|_| same_line)?;
    let (offset, mapping) = inside.split_once(',').map_or((None, inside), |(offset, rest)| (Some(offset), rest));
    match offset.map(scene::hexadecimal) {
        Some(offset) => Some(format!("The address lies in {name}, at offset {:#x} of the file.", offset?)),
        None => {
            let start = scene::hexadecimal(mapping.split_once('+')?.0)?;
            let offset = ip.checked_sub(start)?;
            Some(format!("The address lies in {name}, {offset:#x} behind the beginning of this mapping."))
        }
    }
}

/// Ends of functions' names that say which instructions they are made of.
const SUFFIXES: [(&str, &str); 16] = [
    ("avx512vbmi", "avx512vbmi"),
    ("avx512bw", "avx512bw"),
    ("avx512", "avx512f"),
    ("avx2", "avx2"),
    ("avx", "avx"),
    ("sse42", "sse4_2"),
    ("sse4_2", "sse4_2"),
    ("sse41", "sse4_1"),
    ("sse4_1", "sse4_1"),
    ("ssse3", "ssse3"),
    ("fma3", "fma"),
    ("fma", "fma"),
    ("bmi2", "bmi2"),
    ("popcnt", "popcnt"),
    ("aesni", "aes"),
    ("pclmul", "pclmulqdq"),
];

/// An illegal instruction that is not shown, in a function whose name tells.
fn of_function(paste: &Paste, scene: &Scene) -> Option<Loss> {
    if !scene.is("sigill") {
        return None;
    }
    let (line, function) = paste.lines.iter().find_map(|line| {
        let (before, after) = line.text.split_once(" in ")?;
        let at_address = before.trim_end().ends_with(|c: char| c.is_ascii_hexdigit()) && before.contains("0x");
        let name: String =
            after.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')).take(80).collect();
        (at_address && !name.is_empty()).then_some((line.number, name))
    })?;
    let lower = function.to_ascii_lowercase();
    let part = |suffix: &str| {
        lower.match_indices(suffix).any(|(at, _)| {
            let before = lower.get(..at).is_some_and(|before| before.ends_with(['_', ':']));
            let after =
                lower.get(at + suffix.len()..).is_some_and(|after| after.is_empty() || after.starts_with(['_', ':']));
            before && after
        })
    };
    let feature = SUFFIXES.iter().find(|(suffix, _)| part(suffix)).and_then(|(_, id)| x86::feature(id))?;
    let mut loss = Loss::fault("MSG0607", "an illegal instruction in a function made for certain CPUs", vec![line]);
    loss.subjects = vec![Subject::of(feature)];
    loss.stage = feature::stage_of_program(&[feature], scene.brand, scene.in_vm());
    loss.why.push(format!("No instruction is shown, but the name of the function, {function}, says that it is made of {} instructions: this CPU, or the VM it is in (kvm64, qemu64), does not show them, and the program did not check, or checked wrongly.", feature.id));
    loss.why.extend(scene.brand.map(|brand| of_brand(brand, &[feature])).filter(|said| !said.is_empty()));
    loss.why.extend(of_flags(&scene.flags, &[feature]));
    loss.remedies.push(format!("confirm with x/i $rip in gdb or the bytes in dmesg; in a VM the CPU type host or a model with {}; else a build of the program for an older baseline", feature.id));
    loss.cpu = Some("host".to_owned());
    Some(loss)
}

impl Loss {
    /// A program that died; nothing is said of it yet.
    fn fault(id: &'static str, title: &str, lines: Vec<u32>) -> Self {
        Self {
            id,
            weak: false,
            title: title.to_owned(),
            class: None,
            stage: At::Silicon,
            severity: Severity::Fatal,
            lines,
            subjects: Vec::new(),
            spots: Vec::new(),
            why: Vec::new(),
            remedies: Vec::new(),
            cpu: None,
            cite: None,
        }
    }

    fn what_it_is(&mut self, decoded: &[(&Shown, Instruction)]) {
        let said: Vec<String> = super::distinct(decoded.iter().map(|(_, found)| {
            let needs: Vec<&str> = found.features.iter().map(|feature| feature.id).collect();
            let encoding = if found.encoding.is_empty() { String::new() } else { format!(", {} encoding", found.encoding) };
            match found.special {
                None if needs.is_empty() => format!("`{}` is an instruction of every CPU", found.text),
                None => format!("`{}` needs {}{encoding}", found.text, needs.join(" and ")),
                Some(Special::Undefined) => format!("`{}` (ud2 is 0f 0b) is undefined on purpose: the program ends itself with it, an intentional abort", found.text),
                Some(Special::NotOne) => format!("`{}` is no instruction: a jump into data, or damaged code", found.text),
                Some(Special::Privileged) => format!("`{}` is for kernels alone", found.text),
            }
        }));
        let count = match said.len() {
            1 => String::new(),
            2 => "Two instructions: ".to_owned(),
            more => format!("{more} instructions: "),
        };
        self.why.push(format!("{count}{}.", said.join("; ")));
    }

    /// Nothing that a CPU could lack.
    fn without_feature(mut self, decoded: &[(&Shown, Instruction)], kernel: bool) -> Vec<Self> {
        let special = decoded.iter().find_map(|(_, found)| found.special);
        if special.is_none() && decoded.iter().all(|(shown, _)| shown.bytes.is_empty()) {
            return Vec::new();
        }
        self.stage = if kernel { At::GuestKernel } else { At::Userspace };
        self.severity = Severity::Harmless;
        self.title = "an illegal instruction that is no matter of CPU features".to_owned();
        self.remedies.push("look at the program: an assertion or a panic of its own, damaged memory, or a wrong jump; no CPU setting helps".to_owned());
        vec![self]
    }

    fn of_program(
        &mut self,
        paste: &Paste,
        scene: &Scene,
        decoded: &[(&Shown, Instruction)],
        features: &[&'static Feature],
    ) {
        let has = |prefix: &str| features.iter().any(|feature| feature.id.starts_with(prefix));
        let baseline = features.iter().all(|feature| level::that_adds(feature.id) == Some(Level::V1));
        let function =
            decoded.iter().find_map(|(shown, _)| shown.function.as_deref()).unwrap_or_default().to_ascii_lowercase();
        let chosen = ["avx", "sse", "simd", "ifunc", "hwcap"].iter().any(|word| function.contains(word));
        let translated = scene.is("emulator");
        self.stage = if baseline || translated {
            At::Vmm
        } else if scene.in_vm() || (has("avx512") && chosen) {
            At::Management
        } else {
            At::Silicon
        };
        if translated && !baseline {
            self.why.push("An emulator or translator executes the program (Valgrind, qemu-user, box64), and it may lack the instruction even where the CPU has it.".to_owned());
            self.remedies.push(
                "a newer release of the emulator, or a build of the program for an older baseline (-march=x86-64-v2)"
                    .to_owned(),
            );
            return;
        }
        if baseline {
            self.why.push("Every x86-64 CPU has it: what executes the program (an emulator or translator) lacks the instruction, not the silicon.".to_owned());
            self.remedies.push("a newer release of the emulator, or a build of the program without it".to_owned());
            return;
        }
        if let Some(said) = claimed(paste, features) {
            self.why.push(said);
        }
        if has("avx512") {
            self.why.push("Programs that choose at run time (dispatch) look at CPUID and at XCR0 (xgetbv): either this one's check is wrong, or a hypervisor shows its guest (a VPS, a VM) the CPUID bit without the state of zmm and mask registers.".to_owned());
        }
        self.why.extend(scene.brand.map(|brand| of_brand(brand, features)).filter(|said| !said.is_empty()));
        let before: Vec<&str> = passed(paste, features);
        if !before.is_empty() {
            self.why.push(format!(
                "The instructions before it passed, so that the CPU has {} but not {}.",
                before.join(", "),
                ids(features)
            ));
        }
        self.why.push(format!("The program is built for CPUs with {} (-march=native or a higher level), and this CPU, or the VM it runs in (kvm64, qemu64), does not show it.", ids(features)));
        self.remedies.push(format!("in a VM give the guest the CPU type host or a model with {}; else another CPU, a rebuild for an older baseline (-march=x86-64), or an older build of the program; compare the flags in /proc/cpuinfo", ids(features)));
        self.cpu = Some("host".to_owned());
    }
}

fn ids(features: &[&'static Feature]) -> String {
    features.iter().map(|feature| feature.id).collect::<Vec<_>>().join(", ")
}

/// Families that people name, by the beginning of the ids of their features.
const FAMILIES: [(&str, &str, &str); 5] = [
    ("avx-512", "avx512", "AVX-512"),
    ("avx512", "avx512", "AVX-512"),
    ("avx2", "avx2", "AVX2"),
    ("sse4", "sse4", "SSE4"),
    ("avx ", "avx", "AVX"),
];

/// The paste says that the instruction belongs elsewhere.
fn claimed(paste: &Paste, features: &[&'static Feature]) -> Option<String> {
    let prose = paste.lines.iter().map(|line| line.text.to_ascii_lowercase());
    let mut sayings = prose.filter(|line| line.contains("instruction set") || line.contains("instruction is"));
    let wrong = |line: String| {
        let (_, _, name) = FAMILIES.iter().find(|(word, prefix, _)| {
            line.contains(word) && !features.iter().any(|feature| feature.id.starts_with(prefix))
        })?;
        Some(format!("The paste says {name}, and that is wrong: the instruction is {}, not {name}.", ids(features)))
    };
    sayings.find_map(wrong)
}

/// What instructions before the one that faulted needed.
fn passed(paste: &Paste, features: &[&'static Feature]) -> Vec<&'static str> {
    let fault = paste.shown.iter().position(|shown| shown.faulting).unwrap_or(0);
    let before = paste.shown.iter().take(fault).filter_map(instruction::decode).flat_map(|found| found.features);
    let new = before.filter(|feature| !features.contains(feature) && level::that_adds(feature.id) != Some(Level::V1));
    super::distinct(new.map(|feature| feature.id))
}
