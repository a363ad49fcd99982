//! What a nested capture holds beside what is predicted of it: the host's boot, KVM's answers and what it asked the CPU
//! for, and each guest's boot.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use cpusieve_answers::predict::way::{Route, Vm, until_guest};
use cpusieve_answers::predict::{Kernel, kvm};
use cpusieve_formats::lab::{Capture, Guest};
use cpusieve_model::{KvmCpuidEntry, KvmView, Registers, Snapshot, Stage};
use cpusieve_stages::kvm::answer::{self, answer, load};
use cpusieve_stages::kvm::msrs::feature_msrs;
use cpusieve_stages::linux::boot::{self, Unlisted, boot};

use super::super::capture::{Comparison, compare_lines, tree};
use super::super::guest;
use super::capture;

/// One comparison of a capture.
pub(super) struct Verdict {
    /// What was compared: `host`, `KVM_GET_SUPPORTED_CPUID`, `guest -cpu host`.
    pub(super) what: String,
    /// How much of it there was.
    pub(super) said: String,
    /// A line for each difference; none if it is as predicted.
    pub(super) differences: Vec<String>,
    /// Whether there was anything to compare; if not, the differences say why.
    pub(super) compared: bool,
    /// Whether there was nothing because a guest took too long.
    pub(super) late: bool,
}

impl Verdict {
    pub(super) fn new(what: &str, said: String, differences: Vec<String>) -> Self {
        Self { what: what.to_owned(), said, differences, compared: true, late: false }
    }

    /// What cannot be compared is no agreement.
    pub(super) fn failed(what: &str, why: impl ToString) -> Self {
        Self { compared: false, ..Self::new(what, "not compared".to_owned(), vec![why.to_string()]) }
    }
}

/// Compares all of a capture, stage by stage. All its kernels were built with the same options.
pub(super) fn compare(capture: &Capture, config: &BTreeMap<String, String>) -> Vec<Verdict> {
    let host = with_config(&capture.parsed.snapshot, config);
    // The emulator answers zero for MSRs that it does not know; KVM, under which the guests are, faults.
    let mut verdicts = vec![lines("host", compare_lines(&host, Unlisted::Zero))];
    match answers(&host, &capture.host_cpuid_calls) {
        Ok(compared) => verdicts.extend(compared),
        Err(error) => verdicts.push(Verdict::failed("KVM", error)),
    }
    for guest in &capture.nested {
        verdicts.push(inner(guest, config));
        if guest.setup.status == "ok" {
            verdicts.push(way(&host, guest));
        }
    }
    verdicts
}

fn with_config(snapshot: &Snapshot, config: &BTreeMap<String, String>) -> Snapshot {
    let mut snapshot = snapshot.clone();
    if let Some(linux) = &mut snapshot.linux {
        linux.config = Some(config.clone());
    }
    snapshot
}

fn lines(what: &str, compared: Result<Comparison, Box<dyn Error>>) -> Verdict {
    match compared {
        Ok(Comparison { tree, flags, differences }) => {
            Verdict::new(what, format!("{flags} flags, tree {tree}"), differences)
        }
        Err(error) => Verdict::failed(what, error),
    }
}

/// A guest's boot, from the CPUID and the MSRs of its vCPU.
fn inner(inner: &Guest, config: &BTreeMap<String, String>) -> Verdict {
    let what = format!("guest -cpu {}", inner.setup.cpu);
    let status = inner.setup.status.as_str();
    if status != "ok" {
        let why = format!("{status} {}", inner.setup.warnings.join("; "));
        // A guest that was never started is the host's failure, which is told with the host.
        let late = [guest::LATE, capture::NOT_STARTED].contains(&status);
        return Verdict { late, ..Verdict::failed(&what, why.trim_end()) };
    }
    lines(&what, compare_lines(&with_config(&inner.snapshot, config), Unlisted::NotSeen))
}

/// A guest's flags, from the host's CPU and QEMU's command line.
fn way(host: &Snapshot, inner: &Guest) -> Verdict {
    let what = format!("way to -cpu {}", inner.setup.cpu);
    let (Some(linux), Some(seen)) = (&inner.snapshot.linux, inner.snapshot.flags()) else {
        return Verdict::failed(&what, "the capture holds no flags");
    };
    let version = inner.setup.emulator.split(' ').next();
    let kernel = Kernel { unlisted: Unlisted::Zero, ..Kernel::new(Stage::Host) };
    let route = Route {
        kvm: kvm::Question { predicted: true, ..kvm::Question::new(kernel) },
        vm: Vm {
            qemu: version,
            machine: Some("pc"),
            cpu: Some(&inner.setup.cpu),
            smp: Some(&inner.setup.smp),
            ..Vm::default()
        },
        guest: Kernel {
            release: linux.release.as_deref(),
            cmdline: linux.cmdline.as_deref(),
            ..Kernel::new(Stage::Guest)
        },
    };
    let found = match until_guest(host, &route) {
        Ok(found) => found.guest.boot.flags,
        Err(error) => return Verdict::failed(&what, error),
    };
    let lacks = seen.iter().filter(|flag| !found.contains(flag)).map(|flag| format!("{flag}: not predicted"));
    let has = found.iter().filter(|&&flag| !seen.contains(flag)).map(|flag| format!("{flag}: not there"));
    Verdict::new(&what, format!("{} flags", found.len()), lacks.chain(has).collect())
}

/// What KVM must ask the CPU for one `KVM_GET_SUPPORTED_CPUID` on a captured host, and the entries of its answer; none if
/// nothing can be predicted.
pub(super) fn predicted_calls(capture: &Capture, config: &BTreeMap<String, String>) -> Option<Asking> {
    let host = with_config(&capture.parsed.snapshot, config);
    let (predicted, _, tree) = predict(&host).ok()?;
    let entries = predicted.view.supported.as_deref().unwrap_or_default().len();
    Some(Asking { calls: predicted.calls, entries, tree })
}

/// What KVM asks the CPU.
pub(super) struct Asking {
    pub(super) calls: Vec<answer::Call>,
    pub(super) entries: usize,
    pub(super) tree: usize,
}

type Features = BTreeMap<u32, u64>;

fn predict(host: &Snapshot) -> Result<(answer::Output, Features, usize), Box<dyn Error>> {
    let seen = host.kvm.as_ref().ok_or("KVM did not answer")?;
    let tree = tree(host)?;
    let kernel = boot::Input::of_snapshot("host", Stage::Host, host).ok_or("the capture holds no CPUID")?;
    let kernel = boot::Input { unlisted: Unlisted::Zero, ..kernel };
    let kernels = [boot(&kernel, tree)];
    let input = answer::Input {
        of: "host",
        cpuid: kernel.cpuid,
        msrs: kernel.msrs,
        unlisted: kernel.unlisted,
        kernels: &kernels,
        cmdline: kernel.cmdline,
        config: kernel.config,
        params: &seen.params,
        permitted: 0,
    };
    let features = feature_msrs(&load(&input, tree).map_err(|finding| finding.to_string())?, None).known();
    Ok((answer(&input, tree), features, tree))
}

/// What KVM answered and asked for.
fn answers(host: &Snapshot, calls: &[(u32, u32)]) -> Result<Vec<Verdict>, Box<dyn Error>> {
    let (predicted, features, _) = predict(host)?;
    let seen = host.kvm.as_ref().ok_or("KVM did not answer")?;
    let view = &predicted.view;
    let calls_predicted: Vec<_> = predicted.calls.iter().map(|call| (call.leaf, call.subleaf)).collect();
    let mut verdicts = vec![
        entries("KVM_GET_SUPPORTED_CPUID", seen, view, |view| &view.supported),
        entries("KVM_GET_EMULATED_CPUID", seen, view, |view| &view.emulated),
        values("feature MSRs", seen.msr_features.as_ref(), &features),
    ];
    let what = "do_host_cpuid";
    verdicts.push(if calls.is_empty() {
        Verdict::failed(what, "nobody counted")
    } else {
        let differences = order("call", calls, &calls_predicted, |(leaf, subleaf)| format!("{leaf:#x}/{subleaf}"));
        Verdict::new(what, format!("{} calls", calls.len()), differences)
    });
    Ok(verdicts)
}

fn entries<'v>(
    what: &str,
    seen: &'v KvmView,
    predicted: &'v KvmView,
    of: impl Fn(&'v KvmView) -> &'v Option<Vec<KvmCpuidEntry>>,
) -> Verdict {
    match (of(seen), of(predicted)) {
        (Some(seen), Some(predicted)) => {
            Verdict::new(what, format!("{} entries", seen.len()), order("entry", seen, predicted, entry))
        }
        (None, _) => Verdict::failed(what, "KVM did not answer"),
        (_, None) => Verdict::failed(what, "there is no prediction"),
    }
}

fn entry(entry: &KvmCpuidEntry) -> String {
    let KvmCpuidEntry { leaf, subleaf, flags, registers: Registers { eax, ebx, ecx, edx } } = *entry;
    format!("{leaf:#010x} {subleaf:#04x} flags={flags:#x} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}")
}

/// What only one of two lists has; a line too if they hold the same in another order.
fn order<T: PartialEq>(what: &str, seen: &[T], predicted: &[T], show: impl Fn(&T) -> String) -> Vec<String> {
    if seen == predicted {
        return Vec::new();
    }
    let alone = |these: &[T], those: &[T], who: &str| -> Vec<String> {
        these
            .iter()
            .filter(|one| !those.contains(one))
            .map(|one| format!("{who} alone: {what} {}", show(one)))
            .collect()
    };
    let mut lines = alone(seen, predicted, "KVM");
    lines.extend(alone(predicted, seen, "prediction"));
    if lines.is_empty() {
        lines.push("the same in another order, or another number of times".to_owned());
    }
    lines
}

fn values(what: &str, seen: Option<&BTreeMap<u32, u64>>, predicted: &BTreeMap<u32, u64>) -> Verdict {
    let Some(seen) = seen else { return Verdict::failed(what, "KVM did not answer") };
    let indices: BTreeSet<u32> = seen.keys().chain(predicted.keys()).copied().collect();
    let hex = |value: Option<&u64>| value.map_or("none".to_owned(), |value| format!("{value:#018x}"));
    let differing = indices.into_iter().filter(|index| seen.get(index) != predicted.get(index));
    let differences = differing
        .map(|index| format!("{index:X}H: KVM {}, prediction {}", hex(seen.get(&index)), hex(predicted.get(&index))))
        .collect();
    Verdict::new(what, format!("{} registers", seen.len()), differences)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::PathBuf;

    use cpusieve_formats::lab;

    use super::super::known::{KNOWN, why};
    use super::*;

    fn folder() -> PathBuf {
        crate::root().join("corpus/guests-lab-nested")
    }

    /// What a captured kernel was built with.
    fn config(release: &str) -> BTreeMap<String, String> {
        let text = fs::read_to_string(folder().join(format!("configs/{release}.config"))).unwrap();
        let options = text.lines().filter_map(|line| line.split_once('='));
        options.map(|(option, value)| (option.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn captured_hosts_and_their_guests_are_as_predicted() {
        let mut wrong = Vec::new();
        let (mut compared, mut known) = (0, 0);
        for entry in fs::read_dir(folder()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(fs::File::open(entry.path()).unwrap()).read_to_end(&mut text).unwrap();
            let capture = lab::capture(&name, &text);
            assert_eq!(capture.parsed.diagnostics, [], "{name}");
            assert!(!capture.host_cpuid_calls.is_empty() && !capture.qemu.is_empty(), "{name}");
            let id = name.trim_end_matches(".json.gz");
            for Verdict { what, differences, .. } in compare(&capture, &config(&capture.setup.kernel)) {
                compared += 1;
                if let Some(why) = why(id, &what, &differences) {
                    eprintln!("{id}: known: {what}: {why}");
                    known += 1;
                } else {
                    wrong.extend(differences.iter().map(|line| format!("{id}: {what}: {line}")));
                }
            }
        }
        eprintln!("{compared} comparisons, {known} differ as known, {} lines otherwise", wrong.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // The day that it is predicted, the row has to go.
        assert!(compared >= 60 && known == KNOWN.len());
    }
}
