//! A guest's report to a capture.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Setup;

/// What a guest reported, section by section, as a capture that [`capture`](super::capture) reads.
///
/// The sections `release`, `version`, `cmdline`, `cpuinfo`, `cpuid`, `msrs`, `msrs_failed`, `vulnerabilities`, `config` and
/// `dmesg` are known; one that is missing was not seen. `None` as a report stands for a guest that did not report.
#[must_use]
pub fn print(setup: &Setup, report: Option<&BTreeMap<String, String>>) -> String {
    format!("{:#}\n", value(setup, report))
}

/// As [`print()`], as JSON to which more can be added.
#[must_use]
pub fn value(setup: &Setup, report: Option<&BTreeMap<String, String>>) -> Value {
    let mut capture = json!({
        "id": setup.id,
        "qemu_version": setup.emulator,
        "accel": setup.accel,
        "machine": setup.machine,
        "smp": setup.smp,
        "cpu_arg": setup.cpu,
        "cmdline": setup.cmdline,
        "extra_args": setup.extra,
        "kernel": setup.kernel,
        "qemu_warnings": setup.warnings,
        "status": setup.status,
    });
    if let (Some(fields), Some(report)) = (capture.as_object_mut(), report) {
        fields.extend(seen(report, ""));
    }
    capture
}

/// What a guest reported, as the fields of a capture, from the sections whose names begin so.
#[must_use]
pub fn seen(report: &BTreeMap<String, String>, prefix: &str) -> Map<String, Value> {
    let section = |name: &str| report.get(&format!("{prefix}{name}")).map(String::as_str).unwrap_or_default();
    let pairs = |name: &str| -> Value {
        let lines = section(name).lines().filter_map(|line| line.split_once(' '));
        lines.map(|(key, value)| (key.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
    };
    let lines = |name: &str| json!(section(name).lines().filter(|line| !line.is_empty()).collect::<Vec<_>>());
    let mut seen = Map::new();
    let mut put = |name: &str, value: Value| seen.insert(name.to_owned(), value);
    put("kernel_release", json!(section("release").trim()));
    put("kernel_version", json!(section("version").trim()));
    put("proc_cmdline", json!(section("cmdline").trim()));
    put("cpuinfo", json!(section("cpuinfo").trim_end().to_owned() + "\n"));
    put("cpuid", lines("cpuid"));
    put("msrs", pairs("msrs"));
    put("msrs_failed", lines("msrs_failed"));
    put("vulnerabilities", pairs("vulnerabilities"));
    // A kernel that does not show its configuration has not none.
    if !section("config").trim().is_empty() {
        put("config", pairs("config"));
    }
    put("dmesg", lines("dmesg"));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab;

    #[test]
    fn what_is_written_is_read_without_complaint() {
        let section = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let report = BTreeMap::from([
            section("release", "6.1.0-56-cloud-amd64\n"),
            section("cmdline", "quiet\n"),
            section("cpuinfo", "processor\t: 0\nflags\t\t: fpu\n"),
            section("cpuid", "0x00000000 0x00: eax=0x00000001 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69\n"),
            section("msrs", "0x0000001b 0x00000000fee00900\n"),
            section("msrs_failed", "0x00000033\n"),
            section("config", "CONFIG_X86_5LEVEL y\n"),
        ]);
        let setup = Setup { cpu: "max".to_owned(), accel: "tcg".to_owned(), ..Setup::default() };
        let capture = lab::capture("sample", print(&setup, Some(&report)).as_bytes());
        assert_eq!(capture.parsed.diagnostics, []);
        assert_eq!(capture.setup, setup);
        let snapshot = capture.parsed.snapshot;
        assert_eq!((snapshot.cpus[0].cpuid.len(), snapshot.cpus[0].msrs.len()), (1, 2));
        let linux = snapshot.linux.unwrap();
        assert_eq!(linux.config.unwrap()["CONFIG_X86_5LEVEL"], "y");
        assert_eq!(linux.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
    }
}
