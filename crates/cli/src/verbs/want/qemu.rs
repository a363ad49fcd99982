//! A part of QEMU's command line.

use cpusieve_answers::predict::way::Accel;
use cpusieve_answers::want::change::Change;

use super::paste::Target;

/// All that decides the CPU: accelerator, machine type, `-cpu`, `-smp`, `-overcommit`.
pub(super) fn command(target: &Target<'_>) -> String {
    let settings = target.settings;
    let mut words = vec![format!("-accel {}", if settings.accel == Accel::Kvm { "kvm" } else { "tcg" })];
    words.push(format!("-machine {}", quoted(settings.machine.as_deref().unwrap_or(target.guest.vcpu.machine.name))));
    words.push(format!("-cpu {}", quoted(&settings.cpu().to_string())));
    words.extend(settings.smp.as_ref().map(|smp| format!("-smp {}", quoted(smp))));
    words.extend(settings.cpu_pm.then(|| "-overcommit cpu-pm=on".to_owned()));
    words.join(" ")
}

/// What of it a solution changes.
pub(super) fn changed(settings: &cpusieve_answers::want::Settings, changes: &[Change]) -> String {
    let any = |is: fn(&Change) -> bool| changes.iter().any(is);
    let mut words = Vec::new();
    if any(|change| matches!(change, Change::Kvm)) {
        words.push("-accel kvm".to_owned());
    }
    if let Some(machine) = settings.machine.as_ref().filter(|_| any(|change| matches!(change, Change::Machine { .. })))
    {
        words.push(format!("-machine {}", quoted(machine)));
    }
    if any(|change| matches!(change, Change::Model { .. } | Change::Property { .. } | Change::Kvm)) {
        words.push(format!("-cpu {}", quoted(&settings.cpu().to_string())));
    }
    if let Some(smp) = settings.smp.as_ref().filter(|_| any(|change| matches!(change, Change::Smp(_)))) {
        words.push(format!("-smp {}", quoted(smp)));
    }
    if any(|change| matches!(change, Change::CpuPm)) {
        words.push("-overcommit cpu-pm=on".to_owned());
    }
    words.join(" ")
}

/// A word as a POSIX shell takes it for one word.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.,=+:/@%-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("host,+invtsc,tsc-frequency=2000000000"), "host,+invtsc,tsc-frequency=2000000000");
        assert_eq!(quoted("host,model-id=It's; rm"), r"'host,model-id=It'\''s; rm'");
        assert_eq!(quoted(""), "''");
    }
}
