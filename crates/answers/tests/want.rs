//! `want` on captured hosts: hand-checked answers, and the laws that every answer obeys.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::io::Read as _;
use std::path::Path;

use cpusieve_answers::predict::way::{Accel, Route, Vm, until_guest};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_answers::want::{Answer, Settings, Wish, want};
use cpusieve_formats::{lab, record};
use cpusieve_knowledge::{linux, x86};
use cpusieve_model::{LinuxView, Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;

/// A host of the QEMU oracle, whose records name no kernel.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn oracle(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../corpus/qemu-oracle/hosts/{name}.json.gz"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::read(path).unwrap().as_slice()).read_to_end(&mut bytes).unwrap();
    let mut host = record::parse(name, &bytes).snapshot;
    let release = name.rsplit('-').next().unwrap().to_owned();
    host.linux = Some(LinuxView { release: Some(release), ..LinuxView::default() });
    host
}

/// An emulated machine that ran a KVM of its own.
#[allow(clippy::disallowed_methods, reason = "a test reads the corpus")]
fn outer(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../corpus/guests-kvm/{name}.json"));
    lab::capture(name, &fs::read(path).unwrap()).parsed.snapshot
}

/// A question: the QEMU, `-cpu`, and what else is not as usual.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    qemu: &'a str,
    cpu: &'a str,
    machine: Option<&'a str>,
    guest_cmdline: Option<&'a str>,
    host_cmdline: Option<&'a str>,
    guest_kernel: Option<&'a str>,
    host_kernel: Option<&'a str>,
    params: &'a [(String, String)],
    accel: Accel,
    emulated: bool,
}

impl<'a> Asked<'a> {
    fn new(qemu: &'a str, cpu: &'a str) -> Self {
        Self { qemu, cpu, ..Self::default() }
    }

    fn route(&self) -> Route<'a> {
        let unlisted = if self.emulated { Unlisted::Zero } else { Unlisted::NotSeen };
        let host =
            Kernel { release: self.host_kernel, cmdline: self.host_cmdline, unlisted, ..Kernel::new(Stage::Host) };
        Route {
            kvm: kvm::Question { params: self.params, ..kvm::Question::new(host) },
            vm: Vm {
                accel: self.accel,
                qemu: Some(self.qemu),
                machine: Some(self.machine.unwrap_or("q35")),
                cpu: Some(self.cpu),
                ..Vm::default()
            },
            guest: Kernel {
                release: Some(self.guest_kernel.unwrap_or("6.12")),
                cmdline: self.guest_cmdline,
                ..Kernel::new(Stage::Guest)
            },
        }
    }
}

/// `avx2` or `-avx2`.
fn wishes(words: &str) -> Vec<Wish> {
    let one = |word: &str| match word.strip_prefix('-') {
        Some(name) => Wish { feature: x86::resolve(name)[0], present: false },
        None => Wish { feature: x86::resolve(word)[0], present: true },
    };
    words.split(' ').map(one).collect()
}

fn ask(host: &Snapshot, asked: Asked<'_>, words: &str) -> Answer {
    let wishes = wishes(words);
    let answer = want(host, &asked.route(), &wishes).unwrap();
    lawful(host, &answer, &wishes);
    answer
}

/// Whether a wish is granted, asked without `want`.
fn granted(host: &Snapshot, settings: &Settings, wishes: &[Wish]) -> bool {
    let Ok(found) = until_guest(host, &settings.route()) else { return false };
    wishes.iter().all(|wish| {
        let id = wish.feature.id;
        let printed = linux::by_id(id).any(|row| row.shown.is_some());
        let shown = found.guest.boot.flags.contains(&id)
            || found.guest.boot.hidden.contains(&id)
            || !printed && found.vcpu.qemu.properties().get(id.replace('_', "-").as_str()).is_some_and(|on| *on);
        shown == wish.present
    })
}

/// Every solution is proven, needs each of its changes, and is no cheaper than the one before.
fn lawful(host: &Snapshot, answer: &Answer, wishes: &[Wish]) {
    assert!(answer.solutions.is_sorted_by_key(|solution| solution.cost));
    assert!(answer.solutions.len() <= 3);
    for solution in &answer.solutions {
        assert!(granted(host, &solution.settings, wishes), "{:?}", solution.changes);
        for left_out in &solution.changes {
            let rest = solution.changes.iter().filter(|change| *change != left_out);
            assert!(!granted(host, &answer.settings.with(rest, host), wishes), "{left_out} is not needed");
        }
    }
    assert_eq!(answer.solutions.is_empty(), answer.nothing_to_do() || !answer.hindrances.is_empty());
}

/// The solutions, a line each.
fn lines(answer: &Answer) -> Vec<String> {
    let line = |changes: &[cpusieve_answers::want::change::Change]| {
        changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    answer.solutions.iter().map(|solution| format!("{} {}", solution.cost, line(&solution.changes))).collect()
}

/// The changes of all solutions, in words.
#[track_caller]
fn ways(host: &Snapshot, asked: Asked<'_>, words: &str, expected: &[&str]) -> Answer {
    let answer = ask(host, asked, words);
    assert_eq!(lines(&answer), expected, "{words} with -cpu {} on QEMU {}", asked.cpu, asked.qemu);
    answer
}

/// The stage and the rule that stand in the way.
#[track_caller]
fn cannot(host: &Snapshot, asked: Asked<'_>, words: &str) -> (Option<Stage>, &'static str) {
    let answer = ask(host, asked, words);
    assert_eq!(lines(&answer), [""; 0], "{words}");
    (answer.hindrances[0].at, answer.hindrances[0].reason.rule.0)
}

#[test]
fn an_invariant_tsc_costs_migration_unless_its_frequency_is_fixed() {
    let mut host = oracle("milan-6.18");
    let ten = Asked::new("10.0", "host");
    let answer = ways(&host, ten, "nonstop_tsc", &["20 set invtsc=on in -cpu", "30 set migratable=off in -cpu"]);
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host,+invtsc"));
    assert_eq!(answer.solutions[0].price.gained, ["constant_tsc", "nonstop_tsc"]);
    assert!(answer.solutions[0].price.migration[0].contains("unless tsc-frequency= is given"));
    // Where the frequency is known, it is offered; 7.2 keeps the bit from `host` all the same.
    host.kvm.as_mut().unwrap().tsc_khz = Some(2_450_000);
    let answer = ask(&host, ten, "nonstop_tsc");
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host,tsc-frequency=2450000000"));
    assert!(answer.solutions[0].price.migration[0].starts_with("it migrates only to hosts with this TSC frequency"));
    let seven = ask(&host, Asked::new("7.2", "host"), "nonstop_tsc");
    assert_eq!(seven.solutions[0].settings.cpu.as_deref(), Some("host,+invtsc"));
}

#[test]
fn a_bit_without_a_name_needs_another_qemu_or_no_migration() {
    let spr = oracle("spr-6.18");
    let expected = ["30 set migratable=off in -cpu", "70 take QEMU 10.0"];
    let answer = ways(&spr, Asked::new("7.2", "host"), "flush_l1d", &expected);
    assert!(answer.solutions[0].price.gained.contains(&"ibt"), "what else has no name comes along");
    assert_eq!(answer.solutions[1].price.lost, [""; 0]);
}

#[test]
fn chains_are_walked_to_their_end() {
    // KVM before 6.4 does not offer it, QEMU before 10.0 does not name it.
    let expected = [
        "120 set migratable=off in -cpu; boot the host with Linux 6.4 or newer (tried: 6.6)",
        "160 take QEMU 10.0; boot the host with Linux 6.4 or newer (tried: 6.6)",
    ];
    ways(&oracle("icx-6.1"), Asked::new("7.2", "host"), "flush_l1d", &expected);
    // A parent that is off, a child that must be asked for besides.
    let answer = ask(&oracle("spr-6.18"), Asked::new("11.1", "Skylake-Server-v1"), "rdctl_no");
    let cpu = answer.solutions[0].settings.cpu.as_deref();
    assert_eq!(cpu, Some("Skylake-Server-v1,+arch-capabilities,+rdctl-no"));
}

#[test]
fn what_was_switched_off_is_left_out() {
    let spr = oracle("spr-6.18");
    let answer = ways(&spr, Asked::new("7.2", "host,-avx"), "avx", &["8 leave out what -cpu says of avx"]);
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host"));
    ways(&spr, Asked::new("7.2", "host,level=6"), "avx2", &["8 leave out what -cpu says of level"]);
    let both = ask(&spr, Asked::new("7.2", "host,avx2=off,-aes"), "avx2 aes");
    assert_eq!(both.solutions[0].settings.cpu.as_deref(), Some("host"));
}

#[test]
fn named_models_get_what_they_lack_by_name_version_or_another_model() {
    let (clx, spr, milan) = (oracle("clx-5.10"), oracle("spr-6.18"), oracle("milan-6.18"));
    let answer = ask(&clx, Asked::new("7.2", "Cascadelake-Server-v1"), "arch_capabilities");
    let cpus: Vec<_> = answer.solutions.iter().map(|solution| solution.settings.cpu.as_deref().unwrap()).collect();
    assert_eq!(cpus[..2], ["Cascadelake-Server-v1,+arch-capabilities", "Cascadelake-Server-v2"]);
    assert_eq!(answer.solutions[1].price.lost, ["pti"], "v2 says that it is safe from Meltdown");
    ways(
        &clx,
        Asked::new("7.2", "Cascadelake-Server"),
        "md_clear",
        &["10 set md-clear=on in -cpu", "28 take the CPU model host"],
    );
    let answer = ask(&spr, Asked::new("10.0", "Skylake-Server"), "la57");
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("Skylake-Server,+la57"));
    let answer = ask(&milan, Asked::new("11.1", "EPYC"), "pku vaes");
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("EPYC,+pku,+vaes"));
}

#[test]
fn nesting_in_a_named_model() {
    // The answer of this KVM lacks SVM, and nobody saw its parameters.
    let answer = ask(&oracle("milan-6.18"), Asked::new("7.2", "EPYC-Milan"), "svm");
    assert_eq!(lines(&answer)[0], "60 set svm=on in -cpu; load kvm_amd with nested=1");
    assert_eq!(answer.solutions[0].supposed.len(), 1);
    // With a parameter that says no, nothing is supposed.
    let params = [("nested".to_owned(), "0".to_owned())];
    let asked = Asked { params: &params, ..Asked::new("7.2", "EPYC-Milan") };
    let answer = ask(&oracle("milan-6.18"), asked, "svm");
    assert_eq!(lines(&answer)[0], "60 set svm=on in -cpu; load kvm_amd with nested=1");
    assert_eq!(answer.solutions[0].supposed, []);
    assert_eq!(answer.solutions[0].settings.kvm_params, [("kvm_amd.nested".to_owned(), "1".to_owned())]);
}

#[test]
fn a_real_kvm_without_nesting() {
    let asked = Asked { emulated: true, ..Asked::new("7.2", "host") };
    let answer = ways(&outer("d-k6.12-max-nested0"), asked, "svm", &["50 load kvm_amd with nested=1"]);
    assert!(answer.solutions[0].price.safety[0].starts_with("guests may run guests"));
    assert_eq!(answer.solutions[0].supposed, [], "the parameter was recorded");
}

#[test]
fn a_flag_that_the_hosts_command_line_takes() {
    let asked = Asked { emulated: true, ..Asked::new("7.2", "host") };
    let expected = ["65 remove `pku` from `clearcpuid=` on the host kernel's command line"];
    ways(&outer("d-k6.1-max-clear"), asked, "pku", &expected);
}

#[test]
fn the_guests_own_kernel() {
    let spr = oracle("spr-6.18");
    let asked = |cmdline| Asked { guest_cmdline: Some(cmdline), ..Asked::new("10.0", "host") };
    let expected = ["45 remove `nopcid` from the guest kernel's command line"];
    ways(&spr, asked("quiet nopcid"), "pcid", &expected);
    let expected = ["45 remove `xsave` from `clearcpuid=` on the guest kernel's command line"];
    let answer = ways(&spr, asked("quiet clearcpuid=xsave,smep"), "avx2", &expected);
    assert_eq!(answer.solutions[0].settings.guest_cmdline.as_deref(), Some("quiet clearcpuid=smep"));
    // 6.1 has no user shadow stacks.
    let old = Asked { guest_kernel: Some("6.1"), ..Asked::new("11.1", "host") };
    assert_eq!(lines(&ask(&spr, old, "user_shstk"))[0], "60 boot Linux 6.6 or newer in the guest");
}

#[test]
fn qemus_own_policy() {
    let (spr, milan) = (oracle("spr-6.18"), oracle("milan-6.18"));
    let answer = ways(&spr, Asked::new("7.2", "host"), "monitor", &["32 add -overcommit cpu-pm=on"]);
    assert!(answer.solutions[0].settings.cpu_pm);
    // From 10.2 on `host` does not pass it on AMD.
    let host = Kernel { release: Some("6.18"), ..Kernel::new(Stage::Host) };
    let kvm = kvm::Question { predicted: true, ..kvm::Question::new(host) };
    let route = Route { kvm, ..Asked::new("11.1", "host").route() };
    let wishes = wishes("arch_capabilities");
    let answer = want(&milan, &route, &wishes).unwrap();
    lawful(&milan, &answer, &wishes);
    assert_eq!(lines(&answer), ["10 set arch-capabilities=on in -cpu", "38 take the machine type pc-q35-10.0"]);
    let old = Asked { machine: Some("pc-i440fx-2.3"), ..Asked::new("7.2", "host") };
    ways(&spr, old, "arat", &["10 set arat=on in -cpu", "35 take the machine type pc-i440fx-2.4"]);
    let tcg = Asked { accel: Accel::Tcg, ..Asked::new("7.2", "max") };
    ways(&spr, tcg, "avx512f", &["40 run the guest with KVM"]);
    let old = ask(&oracle("clx-5.10"), Asked::new("11.1", "Conroe"), "xtopology");
    assert_eq!(old.solutions[0].settings.cpu.as_deref(), Some("Conroe,min-level=0xb"));
}

#[test]
fn flags_that_are_not_wanted() {
    let milan = oracle("milan-6.18");
    let host = Asked::new("11.1", "host");
    let answer = ask(&milan, host, "-hypervisor");
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host,hypervisor=off"));
    assert!(answer.solutions[0].price.lost.contains(&"hypervisor"));
    let answer = ask(&milan, host, "-kvmclock");
    assert_eq!(lines(&answer)[..2], ["10 set kvmclock=off in -cpu", "24 set kvm=off in -cpu"]);
    let answer = ask(&milan, Asked::new("11.1", "host,kvm=off"), "kvmclock");
    assert_eq!(lines(&answer)[0], "8 leave out what -cpu says of kvm");
    let answer = ask(&milan, host, "nonstop_tsc -avx2");
    assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host,avx2=off,+invtsc"));
    assert_eq!(cannot(&milan, host, "-fpu").0, Some(Stage::Guest), "no kernel boots without it");
}

#[test]
fn what_cannot_be_had_has_a_reason() {
    let (clx, spr) = (oracle("clx-5.10"), oracle("spr-6.18"));
    assert_eq!(cannot(&spr, Asked::new("7.2", "host"), "acpi"), (Some(Stage::Kvm), "KVM0105"));
    assert_eq!(cannot(&clx, Asked::new("11.1", "host"), "la57"), (Some(Stage::Silicon), "SIL0001"));
    let answer = ask(&clx, Asked::new("11.1", "host"), "amx_tile");
    assert!(answer.hindrances[0].generations.iter().any(|name| name.starts_with("Sapphire Rapids")));
}

#[test]
fn a_kvm_that_answers_otherwise_than_it_should_is_believed() {
    // KVM of this release emulates it; the captured answer lacks it all the same, and no change below QEMU explains that.
    let answer = ask(&oracle("milan-6.18"), Asked::new("10.0", "host"), "arch_capabilities");
    assert_eq!(answer.solutions.len(), 0);
    assert_eq!(answer.hindrances[0].reason.rule.0, "KVM0011");
}

#[test]
fn threads_make_the_flag_of_threads() {
    let spr = oracle("spr-6.18");
    let answer = ask(&spr, Asked::new("7.2", "host"), "ht");
    assert_eq!(lines(&answer)[0], "36 start the guest with -smp 2,sockets=1");
}

#[test]
fn nothing_to_do_is_said() {
    let answer = ask(&oracle("spr-6.18"), Asked::new("11.1", "host"), "avx2 -3dnow");
    assert!(answer.nothing_to_do());
    assert_eq!(answer.tried, 1);
}

#[test]
fn the_laws_hold_for_every_flag_that_a_model_lacks() {
    let (milan, icx) = (oracle("milan-6.18"), oracle("icx-6.1"));
    for (host, cpu, words) in [
        (&milan, "EPYC-Rome-v1", ["pcid", "ssbd", "vaes", "erms", "topoext", "npt", "ibrs", "-svm", "-pku", "clzero"]),
        (
            &icx,
            "Haswell-v2",
            ["avx512f", "sha_ni", "pti", "md_clear", "arch_perfmon", "vmx", "-rtm", "-pti", "ss", "umip"],
        ),
    ] {
        for (qemu, word) in ["7.2", "11.1"].into_iter().flat_map(|qemu| words.map(|word| (qemu, word))) {
            ask(host, Asked::new(qemu, cpu), word);
        }
    }
}
