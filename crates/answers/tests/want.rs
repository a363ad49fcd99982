//! `want` on captured hosts: hand-checked answers, and the laws that every answer obeys.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its corpus has failed")]

use std::fs;
use std::io::Read as _;
use std::path::Path;

use cpusieve_answers::predict::way::{Accel, Route, Vm, until_guest};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_answers::want::{Answer, Settings, Wish, want};
use cpusieve_formats::{lab, record};
use cpusieve_knowledge::x86;
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
        let shown = found.guest.boot.flags.contains(&id)
            || found.guest.boot.hidden.contains(&id)
            || found.vcpu.qemu.properties().get(id).is_some_and(|on| *on);
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

#[test]
fn explore() {
    let show = |what: &str, answer: &Answer| {
        println!(
            "== {what} (tried {}, doubted {}, early {})",
            answer.tried, answer.below_qemu_doubted, answer.ended_early
        );
        for (line, solution) in lines(answer).iter().zip(&answer.solutions) {
            println!("   {line}");
            println!("      cpu {:?} {:?}", solution.settings.cpu, solution.price);
        }
        for hindrance in &answer.hindrances {
            println!(
                "   ! {} {:?} {:?} {:?}",
                hindrance.wish.feature.id, hindrance.at, hindrance.reason, hindrance.generations
            );
        }
    };
    let (milan, icx, clx, spr) = (oracle("milan-6.18"), oracle("icx-6.1"), oracle("clx-5.10"), oracle("spr-6.18"));
    let cases: Vec<(&Snapshot, Asked<'_>, &str)> = vec![
        (&milan, Asked::new("7.2", "host"), "nonstop_tsc"),
        (&milan, Asked::new("10.0", "host"), "nonstop_tsc"),
        (&spr, Asked::new("7.2", "host"), "flush_l1d"),
        (&icx, Asked::new("7.2", "host"), "flush_l1d"),
        (&spr, Asked::new("7.2", "host,-avx"), "avx"),
        (&milan, Asked::new("7.2", "EPYC-Milan"), "svm"),
        (&spr, Asked::new("7.2", "host"), "acpi"),
        (&spr, Asked::new("7.2", "host"), "monitor"),
        (&spr, Asked::new("10.0", "Skylake-Server"), "la57"),
        (&clx, Asked::new("10.0", "host"), "la57"),
        (&spr, Asked { guest_cmdline: Some("quiet nopcid"), ..Asked::new("10.0", "host") }, "pcid"),
        (&spr, Asked { guest_cmdline: Some("quiet clearcpuid=xsave,smep"), ..Asked::new("10.0", "host") }, "avx2"),
        (&clx, Asked::new("7.2", "Cascadelake-Server"), "md_clear"),
        (&clx, Asked::new("7.2", "Cascadelake-Server-v1"), "arch_capabilities"),
        (&milan, Asked::new("11.1", "host"), "arch_capabilities"),
        (&milan, Asked::new("11.1", "host"), "-hypervisor"),
        (&milan, Asked::new("11.1", "host"), "-kvmclock"),
        (&milan, Asked::new("11.1", "host"), "-avx2 -svm"),
        (&milan, Asked::new("11.1", "EPYC"), "avx2 pku vaes"),
        (&spr, Asked::new("11.1", "qemu64"), "x2apic avx512f"),
        (&spr, Asked { accel: Accel::Tcg, ..Asked::new("7.2", "max") }, "avx512f"),
        (&spr, Asked::new("7.2", "host,level=6"), "avx2"),
        (&spr, Asked { machine: Some("pc-i440fx-2.3"), ..Asked::new("7.2", "host") }, "arat"),
        (&spr, Asked::new("7.2", "host,-xsave"), "avx512f"),
        (&spr, Asked::new("7.2", "host"), "ibt"),
        (&spr, Asked::new("7.2", "Icelake-Server"), "arch_perfmon"),
        (&spr, Asked::new("7.2", "host,kvm=off"), "kvmclock"),
    ];
    for (host, asked, words) in cases {
        let start = std::time::Instant::now();
        let answer = want(host, &asked.route(), &wishes(words)).unwrap();
        show(&format!("{} {} {words} {:?}", asked.qemu, asked.cpu, start.elapsed()), &answer);
    }
    for name in ["d-k6.12-max-nested0", "k6.12-max", "d-k6.1-max-clear", "k7.3-EPYC-Milan"] {
        let host = outer(name);
        for words in ["svm", "vmx", "pku", "arat", "nonstop_tsc", "ibt", "smap", "smep", "x2apic", "rdrand"] {
            let asked = Asked { emulated: true, ..Asked::new("7.2", "host") };
            match want(&host, &asked.route(), &wishes(words)) {
                Ok(answer) => show(&format!("{name} {words}"), &answer),
                Err(error) => println!("== {name} {words}: {error}"),
            }
        }
    }
}
