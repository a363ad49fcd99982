//! The hosts that are booted if nothing is named, and the guests in each of them.

/// One emulated host with a real KVM, and the guests in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job<'a> {
    /// The host kernel: a series or a release.
    pub(super) kernel: &'a str,
    /// The host's `-cpu`.
    pub(super) cpu: &'a str,
    /// What is added to the host kernel's command line.
    pub(super) append: &'a str,
    /// Parameters of `kvm_amd`; with the prefix `kvm.`, of `kvm`.
    pub(super) options: &'a str,
    /// `-cpu` of each guest, which boots the host's own kernel.
    pub(super) guests: Vec<&'a str>,
    /// Whether the program itself is run there: every part of `verify`, and `trace` of KVM, of QEMU, and of the first
    /// guest's whole boot.
    pub(super) proofs: bool,
    /// The parts of `verify` that are run.
    pub(super) parts: &'static [&'static str],
    /// How often `trace` is killed.
    pub(super) kills: u32,
}

impl Job<'_> {
    /// Whether this guest's boot is watched.
    pub(super) fn watches(&self, number: usize) -> bool {
        self.proofs && number == 0
    }
}

/// All parts of `verify`.
pub(super) const PARTS: &[&str] = &["host", "kvm", "vcpu", "qemu", "guest"];

/// How often `trace` is killed where it is killed.
pub(super) const KILLS: u32 = 100;

/// One whose leaves go as far as those of `corpus/guests-kvm`, so that KVM makes the calls of `do_host_cpuid` that stand there.
pub(super) const LONG: &str = "max,+svm,xlevel=0x80000021";

/// The host's `-cpu` if none is named.
pub(super) const CPU: &str = "max,+svm";

/// The job of `--quick`.
pub(super) fn quick() -> Vec<Job<'static>> {
    // QEMU's models and a second guest would take a minute more.
    vec![Job { kills: 8, parts: &["host", "kvm", "vcpu"], ..proofs(job("6.1", LONG, "", "", &["host"])) }]
}

/// Every job. The emulator's guests do not start without nested paging, so hosts with `npt=0` have none.
pub(super) fn all() -> Vec<Job<'static>> {
    vec![
        // The whole way.
        proofs(job("6.1", LONG, "", "", &["host", "host,migratable=off", "max,-xsave", "qemu64"])),
        proofs(job("6.12", LONG, "", "", &["host", "EPYC", "max,-avx,+invtsc"])),
        job("5.10", CPU, "", "nested=0", &["host", "qemu64,+svm"]),
        job("6.17", "EPYC,+svm,+npt", "", "vgif=0", &["host", "EPYC,xlevel=0x80000008"]),
        proofs(job("7.3", "EPYC-Rome,+svm,+npt", "", "nested=0", &["host", "max,level=7"])),
        job("6.18", CPU, "mitigations=off", "nested=0", &["host,-kvm"]),
        job("6.1", "qemu64,+svm,+npt,+abm", "", "kvm.enable_vmware_backdoor=1", &["host", "Opteron_G3"]),
        // KVM's answers alone: other processors, features taken from the host, parameters.
        job("6.12", CPU, "clearcpuid=sse4_2 nopcid", "npt=0", &[]),
        job("7.3", CPU, "clearcpuid=rdrand,xsaveopt", "vgif=0 nrips=0", &[]),
        job("6.1", "EPYC,+svm,+npt", "mitigations=off", "npt=0 nested=0", &[]),
        job("6.12", "EPYC-Milan,+svm,+npt", "", "", &[]),
        job("6.18", "EPYC-Genoa,+svm,+npt,-la57", "nosmap", "nested=0 npt=0", &[]),
        job("5.10", "EPYC-Rome,+svm,+npt,xlevel=0x80000008", "", "", &[]),
        job("6.17", "max,+svm,vendor=HygonGenuine", "", "", &[]),
        job("6.12", "phenom,+svm,+npt", "", "", &[]),
        job("6.1", "max,+svm,-xsave,level=7", "noxsave", "", &[]),
        job("7.3", "Opteron_G3,+svm,+npt", "nosmep", "kvm.tdp_mmu=0", &[]),
        job("5.10", "max,+svm,-nx,-rdtscp", "", "", &[]),
    ]
}

fn job(
    kernel: &'static str,
    cpu: &'static str,
    append: &'static str,
    options: &'static str,
    guests: &[&'static str],
) -> Job<'static> {
    Job { kernel, cpu, append, options, guests: guests.to_vec(), proofs: false, parts: &[], kills: 0 }
}

/// The same with the program's own proofs.
fn proofs(job: Job<'static>) -> Job<'static> {
    Job { proofs: true, parts: PARTS, kills: KILLS, ..job }
}
