//! The way through a VMM that hands on what KVM offers: Firecracker, Cloud Hypervisor.

use cpusieve_knowledge::qemu::Fit;
use cpusieve_knowledge::vmm::Vmm;
use cpusieve_model::{CpuidTable, KvmCpuidEntry, Snapshot};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_stages::vcpu::guest;
use cpusieve_stages::vmm::{self, Options, Output, configure};

use super::kvm::{self, KvmPrediction};
use super::way::{Given, NoWay, boot_guest, ignores_msrs, of};
use super::{Assumption, Kernel, NoPrediction, Prediction};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The host's kernel and its KVM.
    pub kvm: kvm::Question<'a>,
    /// Which VMM, and what is asked of it.
    pub options: Options<'a>,
    /// The VMM's version; `None` for the newest known.
    pub version: Option<&'a str>,
    /// The number of vCPUs.
    pub cpus: u32,
    /// The guest's kernel; without a release, it is the host's.
    pub guest: Kernel<'a>,
}

/// What the VMM gives to the first vCPU.
#[derive(Clone, Debug)]
pub struct VcpuPrediction {
    /// The host's kernel and KVM.
    pub kvm: KvmPrediction,
    /// Which VMM.
    pub vmm: Vmm,
    /// Its release: a position in [`Vmm::releases`].
    pub release: usize,
    /// Its table, its warnings, its error.
    pub output: Output,
    /// What was assumed, of the host first.
    pub assumed: Vec<Assumption>,
}

impl VcpuPrediction {
    /// The release's label: `1.12`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.vmm.releases().get(self.release).map_or("", |release| release.label)
    }

    /// The table that the VMM gives to `KVM_SET_CPUID2`.
    #[must_use]
    pub fn cpuid(&self) -> &[KvmCpuidEntry] {
        &self.output.cpuid
    }
}

/// The first vCPU that the VMM makes on the machine that an input shows.
///
/// # Errors
/// If there is no prediction of the host, KVM offers nothing, or the VMM's version is none. An error of the VMM's is an
/// answer: [`Output::error`].
pub fn until_vcpu(snapshot: &Snapshot, route: &Route<'_>) -> Result<VcpuPrediction, NoWay> {
    let found = kvm::predict(snapshot, &route.kvm)?;
    if found.view.supported.is_none() {
        let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        return Err(NoWay::NoKvm(findings.join("; ")));
    }
    let vmm = route.options.vmm();
    let mut assumed = found.assumed.clone();
    let release = release(vmm, route.version, &mut assumed)?;
    let host = snapshot.first_cpuid().map(|cpu| &cpu.cpuid);
    let question = vmm::Question { release, options: route.options, host, kvm: &found.view, cpus: route.cpus, cpu: 0 };
    let output = configure(&question);
    let of_vmm = output.assumed.iter().map(|assumed| of(&assumed.what, &assumed.value, assumed.because));
    assumed.extend(of_vmm);
    Ok(VcpuPrediction { kvm: found, vmm, release, output, assumed })
}

/// What the guest's kernel prints on a vCPU that [`until_vcpu`] found for the same input and route, and what CPUID returns
/// to it.
///
/// # Errors
/// If the guest's kernel release is none.
pub fn guest_of(
    snapshot: &Snapshot,
    route: &Route<'_>,
    vcpu: &VcpuPrediction,
) -> Result<(CpuidTable, Prediction), NoPrediction> {
    let msrs = guest::msrs(&vcpu.output.msrs, ignores_msrs(&vcpu.kvm));
    let given = Given { table: guest::table(&vcpu.output.cpuid), msrs, unlisted: Unlisted::NotSeen, config: None };
    boot_guest(snapshot, route.kvm.kernel, route.guest, &given, vcpu.kvm.host.tree, &vcpu.assumed)
}

fn release(vmm: Vmm, asked: Option<&str>, assumed: &mut Vec<Assumption>) -> Result<usize, NoWay> {
    let label = |release: usize| vmm.releases().get(release).map_or("", |release| release.label);
    let Some(version) = asked else {
        let newest = vmm.newest();
        assumed.push(of(vmm.name(), label(newest), "no version was named; this is the newest known"));
        return Ok(newest);
    };
    let nearest = vmm.nearest(version);
    let because = match nearest.fit {
        Fit::Unreadable => return Err(NoWay::NoVersion { vmm: vmm.name(), version: version.to_owned() }),
        Fit::Same => return Ok(nearest.release),
        Fit::Older => format!("the nearest known release that is older than {version}"),
        Fit::Oldest => format!("no known release is as old as {version}; this is the oldest"),
    };
    assumed.push(of(vmm.name(), label(nearest.release), &because));
    Ok(nearest.release)
}
