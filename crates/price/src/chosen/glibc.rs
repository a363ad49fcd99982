//! The dynamic linker of glibc: which `glibc-hwcaps` folders it takes libraries from, by the flags and by its own word.
//!
//! glibc counts a feature as usable if CPUID has it and, where there is state to be saved, XCR0 has the state
//! (`sysdeps/x86/cpu-features.c:update_active`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::ask::output;
use crate::flags::Flags;

/// The dynamic linker of 64-bit x86 programs (System V psABI, x86-64 supplement, 5.2.1).
pub const LINKER: &str = "/lib64/ld-linux-x86-64.so.2";

/// What each level needs beside those before it (glibc, `sysdeps/x86_64/dl-hwcaps_subdirs.c:_dl_hwcaps_subdirs_active`),
/// by the names that Linux prints.
pub const LEVELS: [(&str, &[&str]); 3] = [
    ("x86-64-v2", &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
    ("x86-64-v3", &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]),
    ("x86-64-v4", &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"]),
];

/// How long the linker may take to say what it chose.
const LIMIT: Duration = Duration::from_secs(10);

/// What the dynamic linker chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// glibc's release: `2.36`.
    pub release: Option<String>,
    /// The levels that the flags allow, the lowest first.
    pub allowed: Vec<&'static str>,
    /// What keeps the next level away: the features that are missing. Empty if the highest is reached.
    pub missing: Vec<&'static str>,
    /// The folders that the linker searches by its own word, the lowest first.
    pub searched: Vec<String>,
    /// Sizes from which on its copying changes its way, by glibc's names, in bytes.
    pub thresholds: Vec<(String, u64)>,
}

impl Linker {
    /// Whether the linker searches what the flags allow.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.searched == self.allowed
    }
}

/// Which levels the flags allow, and what the next one misses.
#[must_use]
pub fn allowed(has: impl Fn(&str) -> bool) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut levels = Vec::new();
    for (level, needs) in LEVELS {
        let missing: Vec<&'static str> = needs.iter().copied().filter(|id| !has(id)).collect();
        if !missing.is_empty() {
            return (levels, missing);
        }
        levels.push(level);
    }
    (levels, Vec::new())
}

/// Asks the linker of this machine.
///
/// # Errors
///
/// Why there is no answer: another C library, an old release.
pub fn ask(flags: &Flags) -> Result<Linker, String> {
    let text = diagnostics(None)?;
    let (allowed, missing) = allowed(|id| flags.has(id));
    Ok(Linker { allowed, missing, ..parse(&text).ok_or("its diagnostics name no folders")? })
}

/// What the linker says of itself, with `GLIBC_TUNABLES` if given.
pub(super) fn diagnostics(tunables: Option<&str>) -> Result<String, String> {
    if !Path::new(LINKER).exists() {
        return Err(format!("{LINKER} is not there: no glibc"));
    }
    let mut command = Command::new(LINKER);
    command.arg("--list-diagnostics").env_remove("GLIBC_TUNABLES").envs(tunables.map(|text| ("GLIBC_TUNABLES", text)));
    let old = |why| format!("{why}; glibc 2.33 and newer tell what they chose (ld.so --list-diagnostics)");
    output(&mut command, LIMIT).map_err(old)
}

/// Reads `ld.so --list-diagnostics`; what the flags allow is left empty.
#[must_use]
pub fn parse(text: &str) -> Option<Linker> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| u64::from_str_radix(value(name)?.strip_prefix("0x")?, 16).ok();
    let folders = value("dl_hwcaps_subdirs")?.trim_matches('"');
    let active = number("dl_hwcaps_subdirs_active")?;
    // Bit n stands for the n-th folder of the list, which begins with the highest level.
    let is_active = |&(index, _): &(usize, &str)| index < 64 && active >> index & 1 == 1;
    let mut searched: Vec<String> =
        folders.split(':').enumerate().filter(is_active).map(|(_, name)| name.to_owned()).collect();
    searched.reverse();
    let prefix = "x86.cpu_features.";
    let thresholds = ["non_temporal_threshold", "rep_movsb_threshold", "rep_stosb_threshold"];
    let thresholds =
        thresholds.iter().filter_map(|name| Some(((*name).to_owned(), number(&format!("{prefix}{name}"))?)));
    let release = value("version.version").map(|text| text.trim_matches('"').to_owned());
    Some(Linker { release, allowed: Vec::new(), missing: Vec::new(), searched, thresholds: thresholds.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_build_on_each_other_and_every_feature_is_known() {
        for id in LEVELS.iter().flat_map(|(_, needs)| *needs) {
            assert!(cpusieve_knowledge::x86::feature(id).is_some(), "{id}");
        }
        assert_eq!(allowed(|_| true).0, ["x86-64-v2", "x86-64-v3", "x86-64-v4"]);
        assert_eq!(allowed(|id| id != "movbe"), (vec!["x86-64-v2"], vec!["movbe"]));
        assert_eq!(allowed(|id| id.starts_with("avx512")).0, Vec::<&str>::new());
    }

    #[test]
    fn diagnostics_are_read() {
        let text = "dl_hwcaps_subdirs=\"x86-64-v4:x86-64-v3:x86-64-v2\"\ndl_hwcaps_subdirs_active=0x6\n\
                    version.version=\"2.36\"\nx86.cpu_features.non_temporal_threshold=0xc0000\n";
        let linker = parse(text).unwrap();
        assert_eq!(linker.searched, ["x86-64-v2", "x86-64-v3"]);
        assert_eq!(linker.release.as_deref(), Some("2.36"));
        assert_eq!(linker.thresholds, [("non_temporal_threshold".to_owned(), 0xc0000)]);
        assert_eq!(parse("dl_pagesize=0x1000\n"), None);
        // A number that is not one, and a bit beyond the list.
        assert_eq!(parse("dl_hwcaps_subdirs=\"a\"\ndl_hwcaps_subdirs_active=0x\n"), None);
        assert!(parse("dl_hwcaps_subdirs=\"a\"\ndl_hwcaps_subdirs_active=0x10\n").unwrap().searched.is_empty());
    }

    #[test]
    fn the_linker_of_this_machine_searches_what_the_flags_allow() {
        match ask(&Flags::here()) {
            Ok(linker) if std::env::var_os("GLIBC_TUNABLES").is_none() => assert!(linker.agrees(), "{linker:?}"),
            Ok(_) => println!("skipped: GLIBC_TUNABLES is set"),
            Err(why) => println!("skipped: {why}"),
        }
    }
}
