//! Cache tables of CPU models, and the descriptors of leaf 2.

use super::DESCRIPTORS;
use crate::TreeSet;

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// The level of the topology whose threads share a cache (`include/hw/i386/topology.h:CpuTopologyLevel`).
///
/// Before 9.0 the tables do not say it; the code then takes [`ShareLevel::Core`] for L1 and L2, and [`ShareLevel::Die`]
/// for L3, which is what the tables say here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareLevel {
    /// A thread of its own.
    Thread,
    /// The threads of a core.
    Core,
    /// The threads of a module.
    Module,
    /// The threads of a die.
    Die,
    /// The threads of a socket.
    Socket,
}

/// One cache (`target/i386/cpu.h:CPUCacheInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// What it holds.
    pub kind: CacheKind,
    /// 1 to 3.
    pub level: u8,
    /// Bytes.
    pub size: u32,
    /// Bytes of a line.
    pub line_size: u32,
    /// Ways.
    pub associativity: u32,
    /// Physical line partitions.
    pub partitions: u32,
    /// Sets.
    pub sets: u32,
    /// Lines per tag, for AMD's leaves.
    pub lines_per_tag: u32,
    /// Initializes itself.
    pub self_init: bool,
    /// WBINVD and INVD are not guaranteed to reach the lower levels of threads that share it.
    pub no_invd_sharing: bool,
    /// Holds what the lower levels hold.
    pub inclusive: bool,
    /// Is indexed by a function of all address bits.
    pub complex_indexing: bool,
    /// Whose threads share it.
    pub share_level: ShareLevel,
}

/// The caches of a CPU model (`target/i386/cpu.h:CPUCaches`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// The table's name in QEMU's source, or that of the model which brought it.
    pub name: &'static str,
    /// The releases whose models use it.
    pub releases: TreeSet,
    /// Level 1, data.
    pub l1d: Cache,
    /// Level 1, instructions.
    pub l1i: Cache,
    /// Level 2.
    pub l2: Cache,
    /// Level 3.
    pub l3: Cache,
}

/// A descriptor of leaf 2 (`target/i386/cpu.c:cpuid2_cache_descriptors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDescriptor {
    /// The descriptor byte.
    pub code: u8,
    /// What the cache holds.
    pub kind: CacheKind,
    /// 1 to 3.
    pub level: u8,
    /// Bytes.
    pub size: u32,
    /// Ways.
    pub associativity: u32,
    /// Bytes of a line.
    pub line_size: u32,
    /// The releases that know it.
    pub releases: TreeSet,
}

impl CacheDescriptor {
    /// Whether it says of this cache what it is.
    #[must_use]
    pub fn fits(&self, cache: &Cache) -> bool {
        (self.kind, self.level, self.size) == (cache.kind, cache.level, cache.size)
            && (self.associativity, self.line_size) == (cache.associativity, cache.line_size)
    }
}

/// The descriptors that a release knows, in rising order, which is the order in which it looks for one that fits.
pub fn cache_descriptors(release: usize) -> impl Iterator<Item = &'static CacheDescriptor> {
    DESCRIPTORS.iter().filter(move |descriptor| descriptor.releases.contains(release))
}
