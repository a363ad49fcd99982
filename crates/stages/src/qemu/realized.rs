//! What the whole QEMU gives on a host whose KVM is known, looked up by the bit.

use std::collections::HashMap;

use cpusieve_knowledge::qemu::{self, Machine};
use cpusieve_model::{CpuidBit, CpuidTable, Effect, Grounds, KvmView, Place, Stage, State, Step};

use super::{Accelerator, CpuArgument, Irqchip, Output, Protected, Question, Smp, realize};
use crate::kvm::Decision;
use crate::machine::known_name;
use crate::vcpu::guest;

/// The machine type that QEMU takes if none is given.
const DEFAULT_MACHINE: &str = "pc";

/// What stands on QEMU's command line, as far as CPUID hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// `-machine`
    pub machine: &'static Machine,
    /// `-machine kernel-irqchip=`
    pub irqchip: Irqchip,
    /// `-cpu`
    pub cpu: &'a str,
    /// `-smp`
    pub smp: Smp,
    /// Whether `-overcommit cpu-pm=on` is given.
    pub cpu_pm: bool,
}

impl<'a> Command<'a> {
    /// The default machine type with one CPU, and `-cpu host` with or without `migratable=off`; `None` for a named model,
    /// and for a release without that machine type.
    #[must_use]
    pub fn supposed(release: usize, cpu: CpuArgument) -> Option<Self> {
        let cpu = match cpu {
            CpuArgument::Host { migratable: true } => "host",
            CpuArgument::Host { migratable: false } => "host,migratable=off",
            CpuArgument::Other => return None,
        };
        let machine = qemu::machine(release, DEFAULT_MACHINE).ok()?;
        Some(Self { machine, irqchip: Irqchip::of(machine), cpu, smp: Smp::default(), cpu_pm: false })
    }

    /// What is asked for with `-cpu`.
    #[must_use]
    pub fn argument(&self) -> CpuArgument {
        match self.cpu {
            "host" | "max" => CpuArgument::Host { migratable: true },
            "host,migratable=off" | "max,migratable=off" => CpuArgument::Host { migratable: false },
            _ => CpuArgument::Other,
        }
    }

    /// Whether this is the command line that was run before.
    fn is(&self, key: &Key) -> bool {
        let same_machine = key.machine.name == self.machine.name && key.irqchip == self.irqchip;
        same_machine && key.cpu == self.cpu && key.smp == self.smp && key.cpu_pm == self.cpu_pm
    }
}

/// What decided a QEMU's table.
#[derive(Clone, Debug)]
struct Key {
    release: usize,
    /// The host's kernel tree.
    tree: usize,
    machine: &'static Machine,
    irqchip: Irqchip,
    cpu: String,
    smp: Smp,
    cpu_pm: bool,
}

/// One QEMU on one host.
#[derive(Clone, Debug)]
pub struct Realized {
    key: Key,
    /// What it gives to the first vCPU.
    pub output: Output,
    /// Its table, as KVM looks entries up; empty where QEMU ends before.
    pub table: CpuidTable,
    steps: Vec<Step>,
    by_bit: HashMap<CpuidBit, usize, foldhash::fast::RandomState>,
}

impl Realized {
    /// Runs a QEMU release on the answers of the host's KVM.
    #[must_use]
    pub fn new(host: &CpuidTable, kvm: &KvmView, (release, tree): (usize, usize), command: &Command<'_>) -> Self {
        let &Command { machine, irqchip, cpu, smp, cpu_pm } = command;
        let output = realize(Question {
            release,
            machine,
            accelerator: Accelerator::Kvm { host, kvm },
            cpu,
            smp,
            cpu_pm,
            irqchip,
            protected: Protected::default(),
        });
        let steps = output.steps();
        let bits = steps.iter().enumerate();
        let by_bit = bits.filter_map(|(index, step)| Some((step.place.and_then(Place::cpuid)?, index))).collect();
        let key = Key { release, tree, machine, irqchip, cpu: cpu.to_owned(), smp, cpu_pm };
        Self { key, table: guest::table(&output.cpuid), output, steps, by_bit }
    }

    /// Whether this is that release, on KVM of that tree, with that command line.
    #[must_use]
    pub fn is(&self, (release, tree): (usize, usize), command: &Command<'_>) -> bool {
        (self.key.release, self.key.tree) == (release, tree) && command.is(&self.key)
    }

    /// What QEMU gives of a bit; `None` where it ends before it has a table. `feature` is the kernel's id.
    #[must_use]
    pub fn decision(&self, feature: &str, bit: CpuidBit) -> Option<Decision> {
        if self.output.error.is_some() {
            return None;
        }
        let known = self.by_bit.get(&bit).and_then(|&index| self.steps.get(index));
        let state = State::from_bit(self.table.state(bit) == State::Present);
        let feature = known_name(feature);
        // Of what is neither offered nor asked for nor told there is no step.
        let step = match known {
            Some(step) => Step { feature, ..step.clone() },
            None => {
                let rule = super::generic("not-offered").filter(|_| state == State::Absent)?;
                let (place, because) = (Some(Place::Cpuid(bit)), Grounds::NONE);
                let (rule, cite) = (rule.id, super::home::home(rule.cite, self.key.release));
                Step { feature, place, at: Stage::Qemu, effect: Effect::Dropped, rule, cite, because }
            }
        };
        Some(Decision { state, step, open: false })
    }
}
