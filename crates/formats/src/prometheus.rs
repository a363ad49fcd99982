//! Metrics of one machine, for Prometheus' textfile collector.
//!
//! The text format 0.0.4: `# HELP`, `# TYPE`, then one line a sample; backslash, quote and line feed are escaped in label
//! values. Counts of features stay small: a sample for each flag that is shown or offered, none for the others.
//!
//! ```
//! use cpusieve_formats::prometheus;
//! use cpusieve_model::{Cpu, Cpuinfo, FlagList, Snapshot};
//!
//! let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line("fpu aes")), ..Cpuinfo::default() };
//! let snapshot = Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() };
//! let text = prometheus::print(&snapshot, "0.1.0");
//! assert!(text.contains("cpusieve_flag{flag=\"aes\"} 1\n"));
//! ```

use std::fmt::Write as _;

use cpusieve_model::Snapshot;

/// The metrics of a machine, recorded by this version of cpusieve.
#[must_use]
pub fn print(snapshot: &Snapshot, version: &str) -> String {
    let mut text = String::new();
    head(&mut text, "cpusieve_info", "The machine and what recorded it; always 1.");
    let identity = snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()).map(|cpuinfo| &cpuinfo.identity);
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let signature = snapshot.first_cpuid().and_then(|cpu| cpu.cpuid.signature());
    let signature = signature.or_else(|| identity.and_then(|id| Some((id.family?, id.model?, id.stepping?))));
    let microcode = identity.and_then(|identity| identity.microcode);
    let release = snapshot.linux.as_ref().and_then(|linux| linux.release.clone());
    let vendor = snapshot.first_cpuid().and_then(|cpu| cpu.cpuid.vendor_string());
    let labels = [
        ("version", version.to_owned()),
        ("vendor", vendor.or_else(|| identity.and_then(|identity| identity.vendor.clone())).unwrap_or_default()),
        ("family", number(signature.map(|signature| signature.0))),
        ("model", number(signature.map(|signature| signature.1))),
        ("stepping", number(signature.map(|signature| signature.2))),
        ("microcode", microcode.map(|revision| format!("{revision:#x}")).unwrap_or_default()),
        ("kernel", release.unwrap_or_default()),
        ("qemu", snapshot.qemu.first().map(|binary| binary.version.clone()).unwrap_or_default()),
    ];
    sample(&mut text, "cpusieve_info", &labels, 1);
    head(&mut text, "cpusieve_cpus", "CPUs that were seen.");
    sample(&mut text, "cpusieve_cpus", &[], snapshot.cpus.len());
    head(&mut text, "cpusieve_flag", "Flags that the kernel prints.");
    for flag in snapshot.flags().into_iter().flat_map(|flags| flags.iter()) {
        sample(&mut text, "cpusieve_flag", &[("flag", flag.to_owned())], 1);
    }
    head(&mut text, "cpusieve_bug", "Bugs that the kernel prints.");
    let bugs = snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()?.bugs.as_ref());
    for bug in bugs.into_iter().flat_map(|bugs| bugs.iter()) {
        sample(&mut text, "cpusieve_bug", &[("bug", bug.to_owned())], 1);
    }
    head(&mut text, "cpusieve_kvm_parameter", "Parameters of KVM's modules; always 1.");
    for (name, value) in snapshot.kvm.iter().flat_map(|kvm| &kvm.params) {
        let labels = [("parameter", name.clone()), ("value", value.clone())];
        sample(&mut text, "cpusieve_kvm_parameter", &labels, 1);
    }
    head(&mut text, "cpusieve_kvm_cpuid_register", "Registers of KVM_GET_SUPPORTED_CPUID.");
    let offered = snapshot.kvm.iter().filter_map(|kvm| kvm.supported.as_ref()).flatten();
    for entry in offered {
        let registers = entry.registers;
        for (register, value) in
            [("eax", registers.eax), ("ebx", registers.ebx), ("ecx", registers.ecx), ("edx", registers.edx)]
        {
            let labels = [
                ("leaf", format!("{:#010x}", entry.leaf)),
                ("subleaf", entry.subleaf.to_string()),
                ("register", register.to_owned()),
            ];
            sample(&mut text, "cpusieve_kvm_cpuid_register", &labels, value);
        }
    }
    head(&mut text, "cpusieve_missing_part", "Parts of the machine that could not be seen.");
    for part in &snapshot.missing {
        sample(&mut text, "cpusieve_missing_part", &[("part", part.what.clone())], 1);
    }
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, String)], value: impl std::fmt::Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cpusieve_model::{KvmCpuidEntry, KvmView, Registers};

    use super::*;

    /// One sample: name, labels in braces or nothing, a number.
    fn is_sample(line: &str) -> bool {
        let Some((series, value)) = line.rsplit_once(' ') else { return false };
        let name = series.split('{').next().unwrap_or_default();
        let labels = &series[name.len()..];
        let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        named
            && value.parse::<f64>().is_ok()
            && (labels.is_empty() || labels.starts_with('{') && labels.ends_with("\"}"))
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let mut params = BTreeMap::new();
        params.insert("kvm.odd".to_owned(), "a\"b\\c\nd".to_owned());
        let entry = KvmCpuidEntry {
            leaf: 7,
            subleaf: 1,
            flags: 1,
            registers: Registers { eax: u32::MAX, ..Registers::default() },
        };
        let kvm = KvmView { params, supported: Some(vec![entry]), ..KvmView::default() };
        let text = print(&Snapshot { kvm: Some(kvm), ..Snapshot::default() }, "0.1.0");
        for line in text.lines() {
            assert!(line.starts_with("# ") || is_sample(line), "{line}");
        }
        assert!(text.contains(r#"{parameter="kvm.odd",value="a\"b\\c\nd"} 1"#), "{text}");
        let register = r#"cpusieve_kvm_cpuid_register{leaf="0x00000007",subleaf="1",register="eax"} 4294967295"#;
        assert!(text.contains(register), "{text}");
    }

    #[test]
    fn each_metric_is_announced_once() {
        let text = print(&Snapshot::default(), "0.1.0");
        let mut types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = types.len();
        types.dedup();
        assert_eq!(types.len(), all);
    }
}
