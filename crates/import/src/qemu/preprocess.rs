//! Which lines of a file count when QEMU's x86 system emulator is built for a 64-bit Linux host.

use crate::c;

/// What is defined in such a build, as far as QEMU's tables ask.
const DEFINED: [&str; 8] = [
    "TARGET_X86_64",
    "CONFIG_KVM",
    "CONFIG_TCG",
    "CONFIG_LINUX",
    "CONFIG_SOFTMMU",
    "CONFIG_SYNDBG",
    "CONFIG_XEN",
    "__x86_64__",
];

/// The text without comments and without lines that a build leaves out; line breaks stay. Conditions that are neither
/// `#ifdef` nor made of `defined`, `!`, `&&` and `||` count as false.
pub(super) fn active(text: &str) -> String {
    let text = c::without_comments(text);
    // For every open `#if`: whether its branch is active, and whether one of its branches has been.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match c::directive(line) {
            Some(("ifdef", name)) => push(&mut open, defined(name)),
            Some(("ifndef", name)) => push(&mut open, !defined(name)),
            Some(("if", condition)) => push(&mut open, holds(condition)),
            Some(("elif", condition)) => {
                if let Some((active, done)) = open.last_mut() {
                    *active = !*done && holds(condition);
                    *done |= *active;
                }
            }
            Some(("else", _)) => {
                if let Some((active, done)) = open.last_mut() {
                    *active = !*done;
                    *done = true;
                }
            }
            Some(("endif", _)) => drop(open.pop()),
            _ if open.iter().all(|(active, _)| *active) => out.push_str(line),
            _ => {}
        }
        out.push('\n');
    }
    out
}

fn push(open: &mut Vec<(bool, bool)>, holds: bool) {
    open.push((holds, holds));
}

fn defined(name: &str) -> bool {
    // What guards a header against being read twice is not defined yet; so `#ifndef` of it holds.
    DEFINED.contains(&name)
}

fn holds(condition: &str) -> bool {
    condition.split("||").any(|all| all.split("&&").all(|part| term(part.trim())))
}

fn term(text: &str) -> bool {
    if let Some(inside) = text.strip_prefix('!') {
        return !term(inside.trim());
    }
    match text.strip_prefix("defined") {
        Some(name) => defined(name.trim_matches(|c: char| c.is_whitespace() || c == '(' || c == ')')),
        None => text.trim_matches(['(', ')']) == "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches() {
        let lines = |text: &str| active(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines("#ifdef TARGET_X86_64\na\n#else\nb\n#endif\nc"), ["a", "c"]);
        assert_eq!(lines("#if defined(CONFIG_TCG) && !defined(CONFIG_USER_ONLY)\na\n#elif 1\nb\n#endif"), ["a"]);
        assert_eq!(lines("#if defined X\n#if 1\na\n#endif\nb\n#elif 1\nc\n#else\nd\n#endif"), ["c"]);
        assert_eq!(lines("#endif\na"), ["a"]);
    }
}
