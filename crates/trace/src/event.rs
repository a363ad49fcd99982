//! One event, whatever program printed it, and the words behind its name.

/// One event of a trace. It borrows from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The thread's name; empty where the source does not say.
    pub comm: &'a str,
    /// The thread's number.
    pub pid: Option<u32>,
    /// What happened.
    pub what: What<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// A guest executed CPUID (`kvm:kvm_cpuid`, `arch/x86/kvm/trace.h`).
    Cpuid {
        /// The leaf.
        leaf: u32,
        /// The subleaf; `None` before 5.6, which did not print it.
        subleaf: Option<u32>,
        /// Whether the vCPU's table has an entry.
        found: Option<bool>,
    },
    /// A guest executed CPUID and the vCPU's table has no entry, where these were counted apart.
    NotFound {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
    /// A guest left to KVM (`kvm:kvm_exit`).
    Exit {
        /// The number of the vCPU in its guest; printed from 5.10 on.
        vcpu: Option<u32>,
        /// Why, in the module's words.
        reason: &'a str,
        /// The guest's instruction pointer.
        rip: Option<u64>,
    },
    /// The guest's instruction pointer at an exit for CPUID, where it was counted apart.
    Rip(u64),
    /// KVM called `do_host_cpuid`.
    HostCpuid {
        /// The leaf, and the subleaf if it was printed; `None` if the source shows no arguments.
        asked: Option<(u32, Option<u32>)>,
        /// The kernel's stack, innermost function first, where the source gives it with the call.
        stack: &'a [String],
    },
    /// The stack of the last `do_host_cpuid` of this thread, where the source gives it by itself.
    Stack(&'a [String]),
    /// So many events were lost here; `None` if nobody counted them.
    Lost(Option<u64>),
    /// Anything else.
    Other,
}

/// The functions through which KVM asks the CPU: before 5.4 it was `do_cpuid_1_ent`.
pub(crate) const HOST_CPUID: [&str; 2] = ["do_host_cpuid", "do_cpuid_1_ent"];

/// Arguments of a probe on [`HOST_CPUID`] that name the leaf and the subleaf: ours, the function's own, and those of a
/// probe that counts its arguments.
const LEAF: [&str; 4] = ["leaf", "function", "a2", "arg2"];
const SUBLEAF: [&str; 4] = ["subleaf", "index", "a3", "arg3"];

/// What `name: text` says. `name` may have a group before it (`kvm:kvm_cpuid`).
pub(crate) fn what<'a>(name: &str, text: &'a str) -> What<'a> {
    match name.rsplit(':').next().unwrap_or(name) {
        "kvm_cpuid" => cpuid(text).unwrap_or(What::Other),
        "kvm_exit" => exit(text).unwrap_or(What::Other),
        name => probe(name, text).unwrap_or(What::Other),
    }
}

/// `func 40000000 idx 6 rax 40000001 ..., cpuid entry found`; all numbers are hexadecimal.
fn cpuid(text: &str) -> Option<What<'_>> {
    let leaf = u32::from_str_radix(word_after(text, "func")?, 16).ok()?;
    let subleaf = word_after(text, "idx").and_then(|word| u32::from_str_radix(word, 16).ok());
    let found = text.contains("cpuid entry ").then(|| !text.contains("cpuid entry not found"));
    Some(What::Cpuid { leaf, subleaf, found })
}

/// `vcpu 0 reason CPUID rip 0xfff0 info1 ...`; a reason may have several words.
fn exit(text: &str) -> Option<What<'_>> {
    let (before, rest) = text.split_once("reason ")?;
    let (reason, rest) = rest.split_once(" rip ")?;
    let vcpu = word_after(before, "vcpu").and_then(|word| word.parse().ok());
    let rip = rest.split_whitespace().next().and_then(hexadecimal);
    Some(What::Exit { vcpu, reason: reason.trim(), rip })
}

/// A kprobe's `(do_host_cpuid+0x0/0x140 [kvm]) leaf=0x1 subleaf=0x0`, or the function tracer's
/// `do_host_cpuid <-__do_cpuid_func`, which has no name before it.
fn probe<'a>(name: &str, text: &'a str) -> Option<What<'a>> {
    if text.contains("<- ") {
        // A return probe sees each call a second time.
        return None;
    }
    let inside = text.strip_prefix('(').unwrap_or("");
    let at = inside.find(['+', ' ', ')']).and_then(|end| inside.get(..end)).unwrap_or("");
    if !HOST_CPUID.contains(&at) && !HOST_CPUID.contains(&name) {
        return None;
    }
    let argument = |names: &[&str]| text.split([' ', ',', '(', ')']).find_map(|word| value(word, names));
    let asked = argument(&LEAF).map(|leaf| (leaf, argument(&SUBLEAF)));
    Some(What::HostCpuid { asked, stack: &[] })
}

/// The function tracer's line: `do_host_cpuid <-__do_cpuid_func`, with arguments in brackets from 6.15 on.
pub(crate) fn function(text: &str) -> Option<What<'_>> {
    let (called, _) = text.split_once(" <-")?;
    let name = called.split(['(', ' ']).next()?;
    probe(name, called)
}

fn value(word: &str, names: &[&str]) -> Option<u32> {
    let (name, value) = word.split_once('=')?;
    if !names.contains(&name) {
        return None;
    }
    let number = hexadecimal(value).filter(|_| value.starts_with("0x")).or_else(|| value.parse().ok())?;
    u32::try_from(number).ok()
}

/// A number with or without `0x`.
pub(crate) fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The word that follows `name`.
fn word_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|&word| word == name)?;
    words.next().map(|word| word.trim_end_matches(','))
}
