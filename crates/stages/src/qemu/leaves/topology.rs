//! How QEMU cuts an APIC id into threads, cores, modules, dies and packages, and the leaves that say so (0BH, 1FH,
//! 8000001EH).
//!
//! An APIC id is a row of bit fields, lowest first: thread, core, module, die, package. Each field is just wide enough
//! for the number of its kind in the next larger one, so a package of three cores leaves ids unused
//! (`include/hw/i386/topology.h:apicid_bitwidth_for_count`).

use cpusieve_model::Registers;

use super::View;
use crate::qemu::cpu::Smp;
use crate::qemu::release::V10_0;

/// What shares something: the levels of the topology that QEMU knows, smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Thread,
    Core,
    Module,
    Die,
    Socket,
}

/// One package of the guest (`X86CPUTopoInfo`); every count is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// Threads in a core.
    pub threads: u32,
    /// Cores in a module.
    pub cores: u32,
    /// Modules in a die.
    pub modules: u32,
    /// Dies in a package.
    pub dies: u32,
}

impl Topology {
    /// The package of `-smp`.
    pub(super) fn of(smp: &Smp) -> Self {
        Self {
            threads: smp.threads.max(1),
            cores: smp.cores.max(1),
            modules: smp.modules.max(1),
            dies: smp.dies.max(1),
        }
    }

    /// The lowest bit of the APIC id that tells two of this level apart (`apicid_core_offset` and its relatives).
    pub(super) fn offset(&self, level: Level) -> u32 {
        let widths = [self.threads, self.cores, self.modules, self.dies].map(bitwidth_for_count);
        let below = match level {
            Level::Thread => 0,
            Level::Core => 1,
            Level::Module => 2,
            Level::Die => 3,
            Level::Socket => 4,
        };
        widths.iter().take(below).sum::<u32>().min(31)
    }

    /// Threads in one of this level (`num_threads_by_topo_level`).
    pub(super) fn threads_in(&self, level: Level) -> u32 {
        let counts = [self.threads, self.cores, self.modules, self.dies];
        let below = match level {
            Level::Thread => 0,
            Level::Core => 1,
            Level::Module => 2,
            Level::Die => 3,
            Level::Socket => 4,
        };
        counts.iter().take(below).fold(1, |product: u32, &count| product.saturating_mul(count))
    }

    /// Threads in a package.
    pub(super) fn threads_per_package(&self) -> u32 {
        self.threads_in(Level::Socket)
    }

    /// Threads in a die, which releases before 10.0 take for the package in most leaves (`cs->nr_cores * nr_threads`).
    pub(super) fn threads_per_die(&self) -> u32 {
        self.threads_in(Level::Die)
    }

    /// Highest APIC id, counted from 0, within one of this level (`max_thread_ids_for_cache`).
    pub(super) fn max_thread_ids(&self, level: Level) -> u32 {
        (1 << self.offset(level)) - 1
    }

    /// Highest core id, counted from 0, within a package (`max_core_ids_in_package`).
    pub(super) fn max_core_ids(&self) -> u32 {
        (1 << (self.offset(Level::Socket) - self.offset(Level::Core))) - 1
    }

    /// The APIC id of the last thread of the first package.
    pub(super) fn last_in_package(&self) -> u32 {
        let fields = [
            (self.threads, Level::Thread),
            (self.cores, Level::Core),
            (self.modules, Level::Module),
            (self.dies, Level::Die),
        ];
        fields.into_iter().fold(0, |id, (count, level)| id | count.saturating_sub(1) << self.offset(level))
    }

    /// Whether dies or modules are in use (`x86_has_extended_topo`).
    pub(super) fn is_extended(&self) -> bool {
        self.dies > 1 || self.modules > 1
    }

    /// The core id within an APIC id (`x86_topo_ids_from_apicid`).
    fn core_id(&self, apic_id: u32) -> u32 {
        apic_id >> self.offset(Level::Core) & ((1 << bitwidth_for_count(self.cores).min(31)) - 1)
    }
}

/// Bits that are needed to number `count` things (`apicid_bitwidth_for_count`).
const fn bitwidth_for_count(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

/// What leaf 0BH calls a level, in ECX\[15:8\].
const TYPE_SMT: u32 = 1;
const TYPE_CORE: u32 = 2;
const TYPE_MODULE: u32 = 3;
const TYPE_DIE: u32 = 5;

/// ECX of a subleaf: its number, and the type of the level.
const fn level_ecx(subleaf: u32, level_type: u32) -> u32 {
    subleaf & 0xff | level_type << 8
}

/// Leaf 0BH: thread and package. The count of the second level is that of a die before 10.0.
pub(super) fn leaf_b(view: &View<'_>, subleaf: u32) -> Registers {
    if !view.cpu.properties.cpuid_0xb {
        return Registers::default();
    }
    let topology = &view.topology;
    let per_package = if view.since(V10_0) { topology.threads_per_package() } else { topology.threads_per_die() };
    let (eax, threads, level_type) = match subleaf {
        0 => (topology.offset(Level::Core), topology.threads, TYPE_SMT),
        1 => (topology.offset(Level::Socket), per_package, TYPE_CORE),
        _ => (0, 0, 0),
    };
    Registers { eax, ebx: threads & 0xffff, ecx: level_ecx(subleaf, level_type), edx: view.running.apic_id }
}

/// Whether leaf 1FH describes anything (`x86_has_cpuid_0x1f`; before 10.0, more than one die).
pub(super) fn has_leaf_1f(view: &View<'_>) -> bool {
    match view.since(V10_0) {
        false => view.topology.dies > 1,
        true => view.topology.is_extended() || view.cpu.properties.force_cpuid_0x1f,
    }
}

/// Leaf 1FH: the levels that are in use, each with the offset of the next one (`encode_topo_cpuid1f`).
///
/// 10.0 and later abort on a subleaf above 5; the answer of the subleaves before it is given here.
pub(super) fn leaf_1f(view: &View<'_>, subleaf: u32) -> Registers {
    if !has_leaf_1f(view) {
        return Registers::default();
    }
    let topology = &view.topology;
    let old = !view.since(V10_0);
    let levels = [
        (true, Level::Thread, TYPE_SMT),
        (true, Level::Core, TYPE_CORE),
        (topology.modules > 1, Level::Module, TYPE_MODULE),
        // Before 10.0 the subleaves are fixed: there always is a die.
        (old || topology.dies > 1, Level::Die, TYPE_DIE),
        (true, Level::Socket, 0),
    ];
    let mut used = levels.into_iter().filter(|(used, ..)| *used);
    let level = used.nth(usize::try_from(subleaf).unwrap_or(usize::MAX));
    let (eax, threads, level_type) = match (level, used.next()) {
        (Some((.., level_type)), Some((_, next, _))) => (topology.offset(next), topology.threads_in(next), level_type),
        _ => (0, 0, 0),
    };
    Registers { eax, ebx: threads & 0xffff, ecx: level_ecx(subleaf, level_type), edx: view.running.apic_id }
}

/// Leaf 8000001EH: core and node (`encode_topo_cpuid8000001e`). With `legacy-multi-node`, and before 9.1, a die is a
/// node; later a package is.
pub(super) fn leaf_8000001e(view: &View<'_>) -> Registers {
    let topology = &view.topology;
    let apic_id = view.running.apic_id;
    if view.running.core_id > 0xff {
        return Registers::default();
    }
    let ecx = if !view.since(V10_0) || view.cpu.properties.legacy_multi_node {
        (topology.dies - 1) << 8 | apic_id >> topology.offset(Level::Die) & 0xff
    } else {
        apic_id >> topology.offset(Level::Socket) & 0xff
    };
    let ebx = (topology.threads - 1) << 8 | topology.core_id(apic_id) & 0xff;
    Registers { eax: apic_id, ebx, ecx, edx: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(dies: u32, modules: u32, cores: u32, threads: u32) -> Topology {
        Topology { threads, cores, modules, dies }
    }

    #[test]
    fn fields_of_the_apic_id_are_as_wide_as_needed() {
        let three_cores = topology(1, 1, 3, 2);
        assert_eq!(
            [Level::Thread, Level::Core, Level::Module, Level::Socket].map(|at| three_cores.offset(at)),
            [0, 1, 3, 3]
        );
        assert_eq!(three_cores.threads_per_package(), 6);
        assert_eq!(three_cores.max_core_ids(), 3);
        assert_eq!(three_cores.max_thread_ids(Level::Die), 7);
        assert_eq!(topology(2, 2, 1, 1).offset(Level::Socket), 2);
        assert_eq!(bitwidth_for_count(0), 0);
        assert_eq!(bitwidth_for_count(1), 0);
        assert_eq!(bitwidth_for_count(4), 2);
        assert_eq!(bitwidth_for_count(5), 3);
    }

    #[test]
    fn absurd_counts_do_not_overflow() {
        let absurd = topology(u32::MAX, u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(absurd.offset(Level::Socket), 31);
        assert_eq!(absurd.threads_per_package(), u32::MAX);
        assert_eq!(absurd.max_core_ids(), 0);
    }
}
