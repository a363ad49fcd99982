//! The leaves that describe caches: 2, 4, 80000005H, 80000006H, 8000001DH.

use cpusieve_knowledge::qemu::{
    Cache, CacheKind, Caches, LEGACY_AMD_CACHES, LEGACY_INTEL_CACHES, LEGACY_INTEL_CPUID2_CACHES, ShareLevel,
    cache_descriptors,
};
use cpusieve_model::Registers;

use super::View;
use super::topology::Level;
use crate::qemu::release::{V7_2, V10_0, V11_1};

/// The tables that the leaves read. Until 10.0 a CPU with `legacy-cache` shows Intel's caches in Intel's leaves and
/// AMD's in AMD's; later those of its own vendor in all, unless `x-vendor-cpuid-only-v2` is off.
struct Tables {
    leaf_2: &'static Caches,
    leaf_4: &'static Caches,
    /// 80000005H and 80000006H.
    amd: &'static Caches,
    leaf_8000001d: &'static Caches,
}

impl Tables {
    /// The end of `target/i386/cpu.c:x86_cpu_realizefn`; from 11.1 also `cpu_x86_cpuid`.
    fn of(view: &View<'_>) -> Self {
        let properties = &view.cpu.properties;
        if let Some(table) = view.cpu.caches.filter(|_| !properties.legacy_cache) {
            return Self { leaf_2: table, leaf_4: table, amd: table, leaf_8000001d: table };
        }
        if !view.since(V11_1) {
            return Self {
                leaf_2: LEGACY_INTEL_CPUID2_CACHES,
                leaf_4: LEGACY_INTEL_CACHES,
                amd: LEGACY_AMD_CACHES,
                leaf_8000001d: LEGACY_AMD_CACHES,
            };
        }
        let own = if view.cpu.is_amd() { LEGACY_AMD_CACHES } else { LEGACY_INTEL_CACHES };
        let (leaf_4, amd) =
            if properties.vendor_cpuid_only_v2 { (own, own) } else { (LEGACY_INTEL_CACHES, LEGACY_AMD_CACHES) };
        let leaf_2 = if properties.consistent_cache { leaf_4 } else { LEGACY_INTEL_CPUID2_CACHES };
        Self { leaf_2, leaf_4, amd, leaf_8000001d: own }
    }
}

impl View<'_> {
    /// `x86_cpu_get_cache_cpuid`: the host's own leaf for `host-cache-info`; zeros above the host's highest leaf, which
    /// 5.2 does not look at.
    fn host_cache(&self, leaf: u32, subleaf: u32) -> Registers {
        if self.since(V7_2) && leaf > self.host.cpuid(leaf & 0x8000_0000, 0).eax {
            return Registers::default();
        }
        self.host.cpuid(leaf, subleaf)
    }

    /// Whether Intel's cache leaves are kept from AMD's guests (`x-vendor-cpuid-only`, since 6.1).
    fn hides_from_amd(&self) -> bool {
        self.since(V7_2) && self.cpu.properties.vendor_cpuid_only && self.cpu.is_amd()
    }
}

/// The descriptor that sends the reader to leaf 4.
const DESCRIPTOR_UNAVAILABLE: u32 = 0xff;

/// `cpuid2_cache_descriptor`: the byte that stands for a cache in leaf 2.
fn descriptor(view: &View<'_>, cache: &Cache) -> u32 {
    let fitting = cache_descriptors(view.cpu.question.release).find(|descriptor| descriptor.fits(cache));
    fitting.map_or(DESCRIPTOR_UNAVAILABLE, |descriptor| u32::from(descriptor.code))
}

/// Leaf 2: descriptors.
pub(super) fn leaf_2(view: &View<'_>) -> Registers {
    let properties = &view.cpu.properties;
    if properties.host_cache_info {
        return view.host_cache(2, 0);
    }
    if view.hides_from_amd() {
        return Registers::default();
    }
    let Caches { l1d, l1i, l2, l3, .. } = Tables::of(view).leaf_2;
    let [l1d, l1i, l2, l3] = [l1d, l1i, l2, l3].map(|cache| descriptor(view, cache));
    let all_known = [l1d, l1i, l2, l3].iter().all(|&code| code != DESCRIPTOR_UNAVAILABLE);
    // `encode_cache_cpuid2`: only a CPU that cannot have leaf 4 still gets descriptors.
    if view.since(V11_1) && properties.consistent_cache && !(properties.min_level < 4 && all_known) {
        return Registers { eax: 1, ebx: 0, ecx: 0, edx: DESCRIPTOR_UNAVAILABLE };
    }
    let ecx = if properties.l3_cache { l3 } else { 0 };
    Registers { eax: 1, ebx: 0, ecx, edx: l1d << 16 | l1i << 8 | l2 }
}

/// Leaf 4: a cache a subleaf, with who shares it.
pub(super) fn leaf_4(view: &View<'_>, subleaf: u32) -> Registers {
    let properties = &view.cpu.properties;
    if properties.host_cache_info {
        return host_leaf_4(view, subleaf);
    }
    if view.hides_from_amd() {
        return Registers::default();
    }
    let caches = Tables::of(view).leaf_4;
    match subleaf {
        0 => level_1(view, &caches.l1d),
        1 => level_1(view, &caches.l1i),
        2 => encode_cpuid4(view, &caches.l2, view.topology.threads),
        3 if properties.l3_cache => encode_cpuid4(view, &caches.l3, 1 << view.topology.offset(Level::Die)),
        _ => Registers::default(),
    }
}

/// EAX\[25:14\] of leaves 4 and 8000001DH: threads that share the cache.
const SHARING: u32 = 0xfff << 14;
/// EAX\[31:26\] of leaf 4: cores of the package.
const CORES: u32 = 0x3f << 26;

/// A first-level cache; `x-l1-cache-per-thread=off` (machines until 9.0) and older releases give it to one thread.
fn level_1(view: &View<'_>, cache: &Cache) -> Registers {
    let mut leaf = encode_cpuid4(view, cache, 1);
    if view.since(V10_0) && !view.cpu.properties.l1_cache_per_core {
        leaf.eax &= !SHARING;
    }
    leaf
}

/// The host's leaf 4, with the guest's cores, and no cache shared by more threads than the package has.
fn host_leaf_4(view: &View<'_>, subleaf: u32) -> Registers {
    let topology = &view.topology;
    let mut leaf = view.host_cache(4, subleaf);
    if !view.since(V7_2) {
        leaf.eax &= !CORES;
        if leaf.eax & 0x1f != 0 && topology.cores > 1 {
            leaf.eax |= (topology.cores - 1) << 26;
        }
        return leaf;
    }
    if leaf.eax & 0x1f == 0 {
        return leaf;
    }
    let host_threads = 1 + ((leaf.eax & SHARING) >> 14);
    let package = topology.threads_per_package();
    if view.since(V10_0) {
        leaf.eax = leaf.eax & !CORES | topology.max_core_ids().min(63) << 26;
        if host_threads > package {
            leaf.eax = leaf.eax & !SHARING | topology.max_thread_ids(Level::Socket).min(4095) << 14;
        }
        return leaf;
    }
    leaf.eax = leaf.eax & !CORES | (power_of_two(topology.cores) - 1) << 26;
    if host_threads > package {
        leaf.eax = leaf.eax & !SHARING | (power_of_two(package) - 1) << 14;
    }
    leaf
}

/// `pow2ceil`.
fn power_of_two(count: u32) -> u32 {
    count.checked_next_power_of_two().unwrap_or(1 << 31)
}

/// The level of the topology that a table names.
const fn level(share: ShareLevel) -> Level {
    match share {
        ShareLevel::Thread => Level::Thread,
        ShareLevel::Core => Level::Core,
        ShareLevel::Module => Level::Module,
        ShareLevel::Die => Level::Die,
        ShareLevel::Socket => Level::Socket,
    }
}

/// Type, level and self-initialization of a cache: EAX of leaves 4 and 8000001DH without sharing.
fn kind_and_level(cache: &Cache) -> u32 {
    let kind = match cache.kind {
        CacheKind::Data => 1,
        CacheKind::Instruction => 2,
        CacheKind::Unified => 3,
    };
    kind | u32::from(cache.level) << 5 | u32::from(cache.self_init) << 8
}

/// EBX, ECX and EDX of leaves 4 and 8000001DH: geometry and properties.
fn geometry(cache: &Cache, eax: u32) -> Registers {
    let less_one = |value: u32| value.saturating_sub(1);
    let ebx = less_one(cache.line_size) | less_one(cache.partitions) << 12 | less_one(cache.associativity) << 22;
    let edx =
        u32::from(cache.no_invd_sharing) | u32::from(cache.inclusive) << 1 | u32::from(cache.complex_indexing) << 2;
    Registers { eax, ebx, ecx: less_one(cache.sets), edx }
}

/// `encode_cache_cpuid4`. Since 10.0 the table says who shares the cache; before, the caller does, in threads.
fn encode_cpuid4(view: &View<'_>, cache: &Cache, sharing_before_10: u32) -> Registers {
    let topology = &view.topology;
    let (cores, threads) = if view.since(V10_0) {
        (topology.max_core_ids().min(63), topology.max_thread_ids(level(cache.share_level)).min(4095))
    } else {
        (topology.cores - 1, sharing_before_10 - 1)
    };
    geometry(cache, kind_and_level(cache) | cores << 26 | threads << 14)
}

/// First-level TLBs: one way, 255 entries, for data and instructions, 4-KiB and larger pages.
const L1_TLB: u32 = 0x01ff_01ff;
/// Second-level TLBs for 4-KiB pages: 4 ways, 512 entries, for data and instructions.
const L2_TLB: u32 = 0x4200_4200;

/// Leaf 80000005H: first-level caches and TLBs.
pub(super) fn leaf_80000005(view: &View<'_>) -> Registers {
    if view.cpu.properties.host_cache_info {
        return view.host_cache(0x8000_0005, 0);
    }
    if view.hides_from_intel() {
        return Registers::default();
    }
    let caches = Tables::of(view).amd;
    let encode = |cache: &Cache| {
        (cache.size / 1024) << 24 | cache.associativity << 16 | cache.lines_per_tag << 8 | cache.line_size
    };
    Registers { eax: L1_TLB, ebx: L1_TLB, ecx: encode(&caches.l1d), edx: encode(&caches.l1i) }
}

/// Leaf 80000006H: the larger caches and TLBs; of Intel's and Zhaoxin's guests since 10.1 the second level alone.
pub(super) fn leaf_80000006(view: &View<'_>) -> Registers {
    if view.cpu.properties.host_cache_info {
        return view.host_cache(0x8000_0006, 0);
    }
    let Caches { l2, l3, .. } = Tables::of(view).amd;
    let tail =
        |cache: &Cache| encode_associativity(cache.associativity) << 12 | cache.lines_per_tag << 8 | cache.line_size;
    let ecx = (l2.size / 1024) << 16 | tail(l2);
    if view.hides_from_intel_and_zhaoxin() {
        return Registers { ecx, ..Registers::default() };
    }
    let edx = if view.cpu.properties.l3_cache { (l3.size / (512 * 1024)) << 18 | tail(l3) } else { 0 };
    Registers { eax: 0, ebx: L2_TLB, ecx, edx }
}

/// `AMD_ENC_ASSOC`: the code of a number of ways; 0 for those that have none.
const fn encode_associativity(ways: u32) -> u32 {
    match ways {
        0 | 1 | 2 | 4 => ways,
        8 => 0x6,
        16 => 0x8,
        32 => 0xa,
        48 => 0xb,
        64 => 0xc,
        96 => 0xd,
        128 => 0xe,
        // Fully associative.
        255 => 0xf,
        _ => 0,
    }
}

/// Properties that AMD's manual has in EDX of 8000001DH; the third is Intel's.
const AMD_PROPERTIES: u32 = 0x3;

/// Leaf 8000001DH: a cache a subleaf, for AMD.
pub(super) fn leaf_8000001d(view: &View<'_>, subleaf: u32) -> Registers {
    if view.cpu.properties.host_cache_info {
        return view.host_cache(0x8000_001d, subleaf);
    }
    let caches = Tables::of(view).leaf_8000001d;
    let cache = match subleaf {
        0 => &caches.l1d,
        1 => &caches.l1i,
        2 => &caches.l2,
        3 => &caches.l3,
        _ => return Registers::default(),
    };
    let mut leaf = encode_cpuid8000001d(view, cache);
    if view.since(V10_0) && view.cpu.properties.amd_topoext_features_only {
        leaf.edx &= AMD_PROPERTIES;
    }
    leaf
}

/// `encode_cache_cpuid8000001d`. Before 10.0 the third level belongs to the die, the others to a core.
fn encode_cpuid8000001d(view: &View<'_>, cache: &Cache) -> Registers {
    let topology = &view.topology;
    let threads = if view.since(V10_0) {
        topology.max_thread_ids(level(cache.share_level)).min(4095)
    } else if cache.level == 3 {
        topology.threads_per_die() - 1
    } else {
        topology.threads - 1
    };
    geometry(cache, kind_and_level(cache) | threads << 14)
}
