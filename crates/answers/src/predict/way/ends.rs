//! A predicted host and a predicted guest, as if both had been captured: what one lacks of the other is [`diff`](crate::diff::diff)'s answer.

use cpusieve_knowledge::linux::release_of;
use cpusieve_knowledge::qemu::RELEASES;
use cpusieve_model::{Cpu, CpuidTable, Cpuinfo, KvmView, LinuxView, MsrReading, QemuBinary, Snapshot};
use cpusieve_stages::qemu::Command;

use super::{GuestPrediction, VcpuPrediction};
use crate::diff::{Diff, diff_under};
use crate::predict::Prediction;

impl GuestPrediction {
    /// What the guest's flags lack of its host's and have beyond them, and who took or added each; `None` under TCG, where
    /// there is no host.
    ///
    /// `host` is the input that the prediction was made from.
    #[must_use]
    pub fn against_host(&self, host: &Snapshot) -> Option<Diff> {
        let kvm = self.vcpu.kvm.as_ref()?;
        let silicon = host.first_cpuid()?;
        let version = RELEASES.get(self.vcpu.release).map_or("", |release| release.version).to_owned();
        let first = Snapshot {
            kvm: Some(kvm.view.clone()),
            qemu: vec![QemuBinary { version, ..QemuBinary::default() }],
            ..end(silicon.cpuid.clone(), silicon.clone(), &kvm.host)
        };
        let mut cpu = Cpu::default();
        for (&index, &value) in &self.vcpu.qemu.msrs {
            cpu.msrs.insert(index, MsrReading::Value(value));
        }
        let second = Snapshot { kvm: None::<KvmView>, ..end(self.cpuid.clone(), cpu, &self.guest) };
        let VcpuPrediction { smp, cpu_pm, machine, irqchip, release, ref cpu, .. } = self.vcpu;
        diff_under(&first, &second, release, Command { machine, irqchip, cpu, smp, cpu_pm }).ok()
    }
}

/// A machine with this CPUID, on which that kernel runs.
fn end(cpuid: CpuidTable, cpu: Cpu, kernel: &Prediction) -> Snapshot {
    let flags = Some(kernel.boot.flags.iter().copied().collect());
    let vmx_flags = Some(kernel.boot.vmx_flags.iter().copied().collect());
    let bugs = Some(kernel.boot.bugs.iter().copied().collect());
    let identity = cpu.cpuinfo.map(|cpuinfo| cpuinfo.identity).unwrap_or_default();
    let cpuinfo = Some(Cpuinfo { identity, flags, vmx_flags, bugs, ..Cpuinfo::default() });
    let release = Some(release_of(kernel.tree).to_owned()).filter(|release| !release.is_empty());
    Snapshot {
        cpus: vec![Cpu { cpuid, cpuinfo, ..Cpu { cpuinfo: None, ..cpu } }],
        linux: Some(LinuxView { release, ..LinuxView::default() }),
        ..Snapshot::default()
    }
}
