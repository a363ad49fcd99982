//! From libvirt's domain to what QEMU is told (libvirt's `src/qemu/qemu_command.c:qemuBuildCpuCommandLine`,
//! `qemuBuildSmpCommandLine`).

use std::borrow::Cow;

use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_knowledge::x86;
use cpusieve_model::{Domain, DomainCpu, DomainPolicy, DomainTopology};

use super::guest::{Check, Guest};
use crate::predict::way::Accel;

/// Hyper-V's features that have another name in QEMU than `hv-` and libvirt's.
const HYPERV: [(&str, &str); 3] = [
    ("hyperv/stimer/direct", "hv-stimer-direct"),
    ("hyperv/tlbflush/direct", "hv-tlbflush-direct"),
    ("hyperv/tlbflush/extended", "hv-tlbflush-ext"),
];

/// Elements outside of `<cpu>` that are properties of `-cpu`: the path, the property, and whether it means the opposite.
const ELEMENTS: [(&str, &str, bool); 7] = [
    ("pmu", "pmu", false),
    ("pvspinlock", "kvm-pv-unhalt", false),
    ("apic", "kvm-pv-eoi", false),
    ("kvm/hidden", "kvm", true),
    ("kvm/hint-dedicated", "kvm-hint-dedicated", false),
    ("kvm/poll-control", "kvm-poll-control", false),
    ("kvm/pv-ipi", "kvm-pv-ipi", false),
];

/// The guest that libvirt makes of a domain; `name` is what it is called if it does not say so itself.
#[must_use]
pub fn guest(domain: &Domain, name: &str) -> Guest {
    let mut guest = Guest {
        name: domain.name.clone().unwrap_or_else(|| name.to_owned()),
        accel: if domain.kind.as_deref() == Some("qemu") { Accel::Tcg } else { Accel::Kvm },
        machine: domain.machine.clone(),
        smp: smp(domain),
        libvirt: true,
        ..Guest::default()
    };
    let mut parts = Vec::new();
    let model = match &domain.cpu {
        Some(cpu) => cpu_of(cpu, &mut guest, &mut parts),
        None => "qemu64".to_owned(),
    };
    beside(domain, &mut parts, &mut guest.notes);
    guest.cpu = Some(std::iter::once(model).chain(parts).collect::<Vec<_>>().join(","));
    if domain.arguments.iter().any(|argument| matches!(argument.as_str(), "-cpu" | "-machine" | "-global" | "-smp")) {
        guest.notes.push("<qemu:commandline> says more of the CPU; that is not looked at".to_owned());
    }
    guest
}

/// The model, with what belongs to it, and what libvirt checks.
fn cpu_of(cpu: &DomainCpu, guest: &mut Guest, parts: &mut Vec<String>) -> String {
    let mode = cpu.mode.as_deref().unwrap_or("custom");
    let check = |default| match cpu.check.as_deref() {
        Some("none") => Check::Nothing,
        Some("full") => Check::Full,
        Some("partial") => Check::Partial,
        _ => default,
    };
    let model = match (mode, &cpu.model) {
        ("host-passthrough" | "maximum", _) => {
            guest.check = check(Check::Nothing);
            // Of such a CPU libvirt compares nothing unless it is told to.
            guest.check_running = if guest.check == Check::Full { Check::Full } else { Check::Nothing };
            // Unlike QEMU's own, libvirt's default is said out loud.
            let migratable = if cpu.migratable == Some(false) { "off" } else { "on" };
            parts.push(format!("migratable={migratable}"));
            if mode == "maximum" { "max" } else { "host" }.to_owned()
        }
        ("host-model", _) => {
            (guest.check, guest.check_running) = (check(Check::Partial), Check::Full);
            guest.host_model = true;
            guest.notes.push(
                "host-model: libvirt writes the host's model and features out at the start, by its own CPU map; what \
                 -cpu host has stands for that"
                    .to_owned(),
            );
            "host".to_owned()
        }
        (_, Some(model)) => {
            (guest.check, guest.check_running) = (check(Check::Partial), Check::Full);
            model.clone()
        }
        (_, None) => {
            guest.notes.push("<cpu> names no model; QEMU's default stands for it".to_owned());
            "qemu64".to_owned()
        }
    };
    for (name, policy) in &cpu.features {
        let on = matches!(policy, DomainPolicy::Force | DomainPolicy::Require | DomainPolicy::Optional);
        match property(name) {
            Some(property) => parts.push(format!("{property}={}", if on { "on" } else { "off" })),
            None => guest.notes.push(format!("no QEMU known has the feature {name}; it is left out")),
        }
    }
    no_features(cpu, parts);
    model
}

/// What of `<cpu>` is no feature: bits of an address, caches.
fn no_features(cpu: &DomainCpu, parts: &mut Vec<String>) {
    match &cpu.phys_bits {
        Some((mode, limit)) if mode == "passthrough" => {
            parts.push("host-phys-bits=on".to_owned());
            parts.extend(limit.map(|limit| format!("host-phys-bits-limit={limit}")));
        }
        Some((_, Some(bits))) => parts.push(format!("phys-bits={bits}")),
        _ => {}
    }
    let cache = cpu.cache.as_ref().map(|(mode, level)| (mode.as_str(), *level));
    parts.extend(match cache {
        Some(("passthrough", _)) => vec!["host-cache-info=on".to_owned(), "l3-cache=off".to_owned()],
        Some(("emulate", Some(3))) => vec!["l3-cache=on".to_owned()],
        Some(("disable", _)) => vec!["host-cache-info=off".to_owned(), "l3-cache=off".to_owned()],
        _ => Vec::new(),
    });
}

/// What stands outside of `<cpu>`.
fn beside(domain: &Domain, parts: &mut Vec<String>, notes: &mut Vec<String>) {
    let on = |on: bool| if on { "on" } else { "off" };
    for (path, property, opposite) in ELEMENTS {
        if let Some(state) = domain.features.get(path).and_then(|feature| feature.state) {
            parts.push(format!("{property}={}", on(state != opposite)));
        }
    }
    if domain.features.get("hyperv").and_then(|feature| feature.value.as_deref()) == Some("passthrough") {
        parts.push("hv-passthrough=on".to_owned());
    }
    for (path, feature) in &domain.features {
        let Some(name) = path.strip_prefix("hyperv/").filter(|_| feature.state == Some(true)) else { continue };
        let special = HYPERV.iter().find(|(known, _)| known == path).map(|(_, property)| (*property).to_owned());
        let property = special.unwrap_or_else(|| format!("hv-{}", name.replace('_', "-")));
        parts.push(match (name, &feature.value) {
            ("spinlocks", Some(retries)) => format!("hv-spinlocks={retries}"),
            ("vendor_id", Some(value)) => format!("hv-vendor-id={value}"),
            ("spinlocks" | "vendor_id", None) => continue,
            _ => format!("{property}=on"),
        });
    }
    for (name, timer) in &domain.timers {
        match (name.as_str(), timer.present, timer.frequency) {
            ("kvmclock", Some(present), _) => parts.push(format!("kvmclock={}", on(present))),
            ("hypervclock", Some(true), _) => parts.push("hv-time=on".to_owned()),
            ("tsc", _, Some(frequency)) => parts.push(format!("tsc-frequency={frequency}")),
            _ => {}
        }
    }
    if domain.features.contains_key("ioapic") {
        notes.push("the place of the IOAPIC is not looked at".to_owned());
    }
}

/// `-smp`, all parts written as libvirt does: without a topology every vCPU is a package.
fn smp(domain: &Domain) -> Option<String> {
    let most = domain.vcpus?;
    let whole = DomainTopology { sockets: most, dies: 1, clusters: 1, cores: 1, threads: 1 };
    let DomainTopology { sockets, dies, clusters, cores, threads } =
        domain.cpu.as_ref().and_then(|cpu| cpu.topology).unwrap_or(whole);
    let current = domain.current.unwrap_or(most);
    let more = if current == most { String::new() } else { format!(",maxcpus={most}") };
    let finer = [("dies", dies), ("clusters", clusters)].into_iter().filter(|(_, count)| *count > 1);
    let finer: String = finer.map(|(name, count)| format!(",{name}={count}")).collect();
    Some(format!("{current}{more},sockets={sockets}{finer},cores={cores},threads={threads}"))
}

/// QEMU's property for a feature by libvirt's name of it.
fn property(name: &str) -> Option<String> {
    let known = |name: &str| qemu::by_name(name).next().is_some().then(|| qemu::canonical(name).to_owned());
    let by_feature = || {
        let places = x86::resolve(name).into_iter().flat_map(|feature| feature.places);
        let newest = RELEASES.len().checked_sub(1)?;
        places.copied().find_map(|place| qemu::name(newest, place)).map(str::to_owned)
    };
    known(name).or_else(|| known(&name.replace('_', "-"))).or_else(by_feature)
}

/// The features whose `-` is a `_` in libvirt's CPU map
/// (libvirt's `src/qemu/qemu_capabilities.c:virQEMUCapsCPUFeaturesX86`).
const UNDERSCORED: [&str; 10] = [
    "cmp-legacy",
    "ds-cpl",
    "fxsr-opt",
    "kvm-pv-eoi",
    "kvm-pv-unhalt",
    "lahf-lm",
    "nodeid-msr",
    "perfctr-core",
    "perfctr-nb",
    "tsc-adjust",
];

/// libvirt's name of a feature property.
#[must_use]
pub fn in_libvirt(property: &str) -> Cow<'_, str> {
    match property {
        "pclmulqdq" => Cow::Borrowed("pclmuldq"),
        // QEMU's name is a slip: the bit is INVVPID's.
        "vmx-invept-single-context-noglobals" => Cow::Borrowed("vmx-invvpid-single-context-noglobals"),
        _ if UNDERSCORED.contains(&property) => Cow::Owned(property.replace('-', "_")),
        _ => Cow::Borrowed(property),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cpusieve_model::{DomainFeature, DomainTimer};

    use super::*;

    fn state(state: bool) -> DomainFeature {
        DomainFeature { state: Some(state), value: None }
    }

    #[test]
    fn a_domain_becomes_a_command_line() {
        let cpu = DomainCpu {
            model: Some("EPYC-Rome".to_owned()),
            check: Some("full".to_owned()),
            features: vec![
                ("pclmuldq".to_owned(), DomainPolicy::Require),
                ("lahf_lm".to_owned(), DomainPolicy::Disable),
                ("nosuch".to_owned(), DomainPolicy::Require),
            ],
            phys_bits: Some(("emulate".to_owned(), Some(42))),
            ..DomainCpu::default()
        };
        let spinlocks = DomainFeature { state: Some(true), value: Some("8191".to_owned()) };
        let features = [
            ("kvm/hidden", state(true)),
            ("pmu", state(false)),
            ("hyperv/relaxed", state(true)),
            ("hyperv/spinlocks", spinlocks),
            ("hyperv/vapic", state(false)),
            ("hyperv/stimer/direct", state(true)),
        ];
        let domain = Domain {
            kind: Some("kvm".to_owned()),
            machine: Some("pc-q35-7.2".to_owned()),
            vcpus: Some(4),
            current: Some(2),
            cpu: Some(cpu),
            features: features.map(|(path, feature)| (path.to_owned(), feature)).into_iter().collect(),
            timers: BTreeMap::from([("tsc".to_owned(), DomainTimer { present: None, frequency: Some(2_000_000_000) })]),
            ..Domain::default()
        };
        let guest = guest(&domain, "web1.xml");
        assert_eq!(
            guest.cpu(),
            "EPYC-Rome,pclmulqdq=on,lahf-lm=off,phys-bits=42,pmu=off,kvm=off,hv-relaxed=on,hv-spinlocks=8191,\
             hv-stimer-direct=on,tsc-frequency=2000000000"
        );
        assert_eq!(guest.smp.as_deref(), Some("2,maxcpus=4,sockets=4,cores=1,threads=1"));
        assert_eq!((guest.check, guest.check_running), (Check::Full, Check::Full));
        assert_eq!((guest.name.as_str(), guest.notes.len()), ("web1.xml", 1));
    }

    #[test]
    fn modes_decide_what_is_checked() {
        let of = |mode: &str| {
            let cpu = DomainCpu { mode: Some(mode.to_owned()), ..DomainCpu::default() };
            guest(&Domain { cpu: Some(cpu), ..Domain::default() }, "x")
        };
        assert_eq!(of("host-passthrough").cpu(), "host,migratable=on");
        assert_eq!(of("host-passthrough").check_running, Check::Nothing);
        assert_eq!((of("host-model").cpu(), of("host-model").check_running), ("host", Check::Full));
        assert_eq!(guest(&Domain::default(), "x").cpu(), "qemu64");
    }

    #[test]
    fn names_go_to_libvirt_and_back() {
        for (qemu, libvirt) in [
            ("pclmulqdq", "pclmuldq"),
            ("pni", "pni"),
            ("cmp-legacy", "cmp_legacy"),
            ("ht", "ht"),
            ("svm", "svm"),
            ("spec-ctrl", "spec-ctrl"),
        ] {
            assert_eq!(in_libvirt(qemu), libvirt);
            assert_eq!(property(libvirt).as_deref(), Some(qemu));
        }
    }
}
