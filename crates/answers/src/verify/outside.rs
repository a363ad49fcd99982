//! What was taken outside: a guest sees what reached it, and its family and model say what its CPU must have.

use std::collections::HashSet;

use cpusieve_knowledge::linux;
use cpusieve_model::{Cpu, CpuIdentity, Cpuinfo, FlagList, Snapshot, State};
use cpusieve_stages::Machine;

use crate::diff::{Assumption, Diff, Item, Relation, diff};

/// What the sieves outside a guest most likely took.
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// The CPU's generation, by family and model, and by the flags that are left.
    pub generation: &'static str,
    /// Flags that every CPU of this generation has and the guest does not show, with the sieve that most likely took each.
    pub lost: Vec<Item>,
    /// What was assumed of the software outside.
    pub assumed: Vec<Assumption>,
}

/// Supposes a host of the same CPU and kernel with all that the CPU's generation has, and asks what a guest of it would
/// have lost. `None` if this is no guest, or its CPU's generation is not known.
///
/// What the generation's CPUs have but firmware may switch off counts as lost too: from inside nobody can tell.
#[must_use]
pub fn outside(snapshot: &Snapshot) -> Option<Outside> {
    let guest = Machine::new("guest", snapshot);
    let generation = guest.generation().filter(|_| guest.is_guest() == State::Present)?;
    let flags = guest.flags()?;
    let tree = guest.trees().last()?;
    let missing: HashSet<&str> = generation.has().filter(|name| guest.prints(name) == Some(false)).collect();
    if missing.is_empty() {
        return Some(Outside { generation: generation.name, lost: Vec::new(), assumed: Vec::new() });
    }
    let had = |name: &str| name != "hypervisor" && flags.contains(name) || missing.contains(name);
    let line: FlagList = linux::features(tree).filter_map(|row| row.shown).filter(|name| had(name)).collect();
    let identity = identity(snapshot)?;
    let cpuinfo = Cpuinfo { identity, flags: Some(line), ..Cpuinfo::default() };
    let host = Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() };
    // Whoever looks like a host is asked no more: what took its flags is no sieve that is known here.
    let Diff { lost, assumed, .. } =
        diff(&host, snapshot).ok().filter(|found| found.relation == Relation::HostAndGuest)?;
    let lost = lost.into_iter().filter(|item| missing.contains(item.flag.as_str())).collect();
    Some(Outside { generation: generation.name, lost, assumed })
}

/// Who the first CPU says it is.
fn identity(snapshot: &Snapshot) -> Option<CpuIdentity> {
    snapshot.cpus.iter().find_map(|cpu| cpu.cpuinfo.as_ref()).map(|cpuinfo| cpuinfo.identity.clone())
}
