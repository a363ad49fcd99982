//! Asking this machine: a vCPU, every QEMU, a guest.

use std::path::Path;
use std::time::{Duration, Instant};

use cpusieve_answers::verify::{self, VcpuQuestion};
use cpusieve_formats::lab::{self, Setup};
use cpusieve_formats::qmp::{Notice, NoticeKind};
use cpusieve_model::{GuestCapture, MachineCapture, QemuBinary, Snapshot, SurveyCapture, VcpuCapture};
use cpusieve_probe::qmp::{self, Start};
use cpusieve_probe::{guest as boots, machine, vcpu as vcpus};

/// How long the program of a vCPU may take; it takes a millisecond.
const VCPU_LIMIT: Duration = Duration::from_secs(3);

/// What helps where there is no kernel to boot.
const NAME_A_KERNEL: &str = "--kernel FILE names an image that can be read (Debian's linux-image-cloud-amd64 has one)";

/// The first type of machine that all releases have.
const MACHINE: &str = "pc";

/// Makes a vCPU, lets it execute CPUID, and tries the MSRs; what was asked of it, and how long that took.
pub(super) fn vcpu(snapshot: &Snapshot) -> Result<(VcpuCapture, VcpuQuestion, Duration), String> {
    if snapshot.kvm.as_ref().is_none_or(|kvm| kvm.supported.is_none()) {
        let missing = snapshot.missing.iter().find(|part| part.what == "kvm");
        return Err(missing.map_or_else(|| "KVM does not answer".to_owned(), super::record::missing));
    }
    let question = verify::vcpu_question(snapshot).map_err(|error| error.to_string())?;
    let (table, pairs, msrs) = (question.table.clone(), question.pairs.clone(), question.msrs.clone());
    let trial = vcpus::Trial { table, pairs, msrs };
    let clock = Instant::now();
    let outcome = vcpus::run(&trial, VCPU_LIMIT).map_err(|refusal| refusal.to_string())?;
    let (answers, failed) = match outcome.answers {
        Ok(answers) => (answers, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let capture = VcpuCapture { table: trial.table, refused: outcome.table.err(), answers, failed, msrs: outcome.msrs };
    Ok((capture, question, clock.elapsed()))
}

/// Why there is no QEMU to ask: one that did not answer is another thing than none.
fn no_qemu(snapshot: &Snapshot) -> String {
    let none = "no qemu-system-x86_64 is on the search path (Debian: apt-get install qemu-system-x86)";
    let silent = snapshot.missing.iter().find(|part| part.what == "qemu");
    silent.map_or_else(|| none.to_owned(), super::record::missing)
}

/// Asks every QEMU that is installed, with each accelerator that works here.
pub(super) fn surveys(
    snapshot: &Snapshot,
    tried: Option<&VcpuCapture>,
    limit: Duration,
) -> Vec<Result<(SurveyCapture, Duration), String>> {
    if snapshot.qemu.is_empty() {
        return vec![Err(no_qemu(snapshot))];
    }
    let kvm = snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some());
    let accelerators = [(false, true), (true, kvm)].into_iter().filter(|(_, works)| *works).map(|(kvm, _)| kvm);
    let asked = snapshot.qemu.iter().flat_map(|binary| accelerators.clone().map(move |kvm| (binary, kvm)));
    asked.map(|(binary, kvm)| survey(binary, kvm, tried, limit)).collect()
}

fn survey(
    binary: &QemuBinary,
    kvm: bool,
    tried: Option<&VcpuCapture>,
    limit: Duration,
) -> Result<(SurveyCapture, Duration), String> {
    let clock = Instant::now();
    let start = Start::new(&binary.path, if kvm { "kvm" } else { "tcg" }).limit(limit);
    let seen = qmp::survey(&start, None).map_err(|error| error.to_string())?;
    // A name's second form is the same model.
    let expansions = seen.full.into_iter().filter_map(|(name, model)| {
        let model = model.ok()?;
        Some(cpusieve_model::ModelExpansion { name, ..model })
    });
    let mut cpus = vec![if kvm { "host".to_owned() } else { "max".to_owned() }];
    let remedy = verify::foretold(tried);
    if kvm && !cpus.contains(&remedy) {
        cpus.push(remedy);
    }
    let machines = cpus.into_iter().map(|cpu| paused(&start, cpu)).collect();
    let capture = SurveyCapture { version: binary.version.clone(), kvm, expansions: expansions.collect(), machines };
    Ok((capture, clock.elapsed()))
}

/// A machine that is paused before its first instruction.
fn paused(start: &Start, cpu: String) -> MachineCapture {
    let seen = qmp::vcpu(&start.clone().machine(MACHINE).cpu(cpu.as_str()));
    let mut capture = MachineCapture { machine: MACHINE.to_owned(), cpu, ..MachineCapture::default() };
    match seen {
        Ok(seen) => {
            let switch = |(name, text): (&String, &String)| Some((name.clone(), text.parse().ok()?));
            capture.properties = seen.properties.iter().filter_map(switch).collect();
            capture.lines = seen.notices.iter().map(line).collect();
        }
        Err(error) => capture.failed = Some(error.to_string()),
    }
    capture
}

/// A line as QEMU wrote it, without the program's name.
fn line(notice: &Notice) -> String {
    match notice.kind {
        NoticeKind::Warning => format!("warning: {}", notice.text),
        NoticeKind::Info => format!("info: {}", notice.text),
        NoticeKind::Error | NoticeKind::Other => notice.text.clone(),
    }
}

/// Boots a guest with the newest QEMU: under KVM where a stock kernel can run there, else under TCG.
pub(super) fn guest(
    snapshot: &Snapshot,
    kernel: Option<&Path>,
    tried: Option<&VcpuCapture>,
    limit: Duration,
) -> Result<(GuestCapture, Duration), String> {
    let binary = verify::newest_qemu(snapshot);
    let binary = binary.ok_or_else(|| no_qemu(snapshot))?;
    let kernel = boots::find(kernel).map_err(|refusal| format!("no kernel to boot: {refusal}; {NAME_A_KERNEL}"))?;
    let program = boots::this_program().map_err(|refusal| refusal.to_string())?;
    let initramfs = boots::build(&program, kernel.msr.as_deref());
    let mut failures = Vec::new();
    for kvm in [true, false] {
        if kvm && !runs_kernels(snapshot) {
            continue;
        }
        let cpu = if kvm { verify::foretold(tried) } else { "max".to_owned() };
        let start = boots::Start {
            binary: Path::new(&binary.path),
            accelerator: if kvm { "kvm" } else { "tcg" },
            machine: MACHINE,
            cpu: &cpu,
            kernel: &kernel.image,
            initramfs: &initramfs,
            append: "",
            limit,
        };
        match boots::boot(&start) {
            Ok(boot) => match told(&boot, &start, &binary.version, &kernel) {
                Ok(capture) => return Ok((capture, boot.took)),
                Err(why) => failures.push(why),
            },
            Err(refusal) => failures.push(refusal.to_string()),
        }
    }
    Err(failures.join("; "))
}

/// Whether KVM runs kernels that do not know of it: its usual backends do, others need a guest that is made for them.
fn runs_kernels(snapshot: &Snapshot) -> bool {
    let Some(cpu) = snapshot.first_cpuid() else { return false };
    let seen = machine::look(&cpu.cpuid).kvm;
    let usual = |backend: &machine::Backend| matches!(backend.module.as_str(), "kvm_intel" | "kvm_amd");
    seen.refusal.is_none() && !seen.backends.is_empty() && seen.backends.iter().all(usual)
}

/// What a guest reported.
fn told(
    boot: &boots::Boot,
    start: &boots::Start<'_>,
    version: &str,
    kernel: &boots::Kernel,
) -> Result<GuestCapture, String> {
    let report = boot.report.as_ref().map_err(|why| {
        let last: Vec<&str> = boot.console.iter().chain(&boot.stderr).rev().take(4).map(String::as_str).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
        let image = kernel.image.display();
        format!("{image} under {}: {why}; its last lines: {last}", start.accelerator)
    })?;
    let setup = Setup { emulator: version.to_owned(), accel: start.accelerator.to_owned(), ..Setup::default() };
    let text = lab::print(&setup, Some(report));
    let mut snapshot = lab::capture("guest", text.as_bytes()).parsed.snapshot;
    if let Some(linux) = &mut snapshot.linux {
        linux.config = linux.config.take().or_else(|| kernel.config.clone());
    }
    snapshot.title = None;
    let (machine, cpu) = (start.machine.to_owned(), start.cpu.to_owned());
    Ok(GuestCapture { version: version.to_owned(), kvm: start.accelerator == "kvm", machine, cpu, snapshot })
}
