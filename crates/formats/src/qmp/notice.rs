//! What QEMU says on stderr.

/// One line of QEMU's stderr.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// How QEMU calls it.
    pub kind: NoticeKind,
    /// The words after the program's name and `warning:`, without control characters.
    pub text: String,
}

/// How bad a [`Notice`] is (QEMU `util/error-report.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeKind {
    /// `error_report`: the program's name stands before it, and no word of a kind.
    Error,
    /// `warn_report`.
    Warning,
    /// `info_report`.
    Info,
    /// A line without the program's name: the continuation of another, a library's words, or a failed assertion.
    Other,
}

/// The lines of a stderr, in their order. Lines without text are left out.
#[must_use]
pub fn notices(stderr: &str) -> Vec<Notice> {
    stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(notice).collect()
}

/// `qemu-system-x86_64: warning: host doesn't support requested feature: ...`
fn notice(line: &str) -> Notice {
    let text = |text: &str| text.replace(char::is_control, "?");
    let after_name = line.split_once(": ").filter(|(name, _)| is_program(name)).map(|(_, rest)| rest);
    let Some(rest) = after_name else { return Notice { kind: NoticeKind::Other, text: text(line) } };
    let kinds = [("warning: ", NoticeKind::Warning), ("info: ", NoticeKind::Info)];
    let named = kinds.iter().find_map(|&(word, kind)| Some((kind, rest.strip_prefix(word)?)));
    let (kind, rest) = named.unwrap_or((NoticeKind::Error, rest));
    Notice { kind, text: text(rest) }
}

/// Whether this can be the name under which QEMU was started. An assertion's line begins the same, but goes on with a
/// source file: `qemu-system-x86_64: ../../target/i386/kvm/kvm.c:3183: ...`; it is an error too.
fn is_program(name: &str) -> bool {
    name.contains("qemu") && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_warnings_errors_or_neither() {
        let stderr = "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]\n\
                      qemu-kvm: -accel kvm: failed to initialize kvm\x1b[0m: Permission denied\r\n\
                      \n  try again\nqemu-system-x86_64: info: it is\n/lib/ld.so: warning: none of QEMU's\n";
        let seen: Vec<_> = notices(stderr).into_iter().map(|notice| (notice.kind, notice.text)).collect();
        let expected = [
            (NoticeKind::Warning, "TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]"),
            (NoticeKind::Error, "-accel kvm: failed to initialize kvm?[0m: Permission denied"),
            (NoticeKind::Other, "  try again"),
            (NoticeKind::Info, "it is"),
            (NoticeKind::Other, "/lib/ld.so: warning: none of QEMU's"),
        ];
        assert_eq!(seen, expected.map(|(kind, text)| (kind, text.to_owned())));
    }
}
