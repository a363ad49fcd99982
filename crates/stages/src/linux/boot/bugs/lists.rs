//! Which CPUs have which weakness, and which do not (`arch/x86/kernel/cpu/common.c:cpu_vuln_whitelist`,
//! `cpu_vuln_blacklist`).
//!
//! Both lists were read in 5.10.223, 5.10.262, 6.1.176, 6.1.192, 6.12.107, 6.12.117, 7.1.13, 7.2.12 and 7.3.4. A row names
//! the releases from which it holds where these differ; a weakness that a tree has no name for is left out there by that,
//! so rows that gained only such a weakness stand as the newest of them does.

use cpusieve_model::Vendor;

/// Weaknesses that a CPU does not have (whitelist).
pub(super) mod no {
    pub(in super::super) const SPECULATION: u32 = 1 << 0;
    pub(in super::super) const MELTDOWN: u32 = 1 << 1;
    pub(in super::super) const SSB: u32 = 1 << 2;
    pub(in super::super) const L1TF: u32 = 1 << 3;
    pub(in super::super) const MDS: u32 = 1 << 4;
    pub(in super::super) const MSBDS_ONLY: u32 = 1 << 5;
    pub(in super::super) const SWAPGS: u32 = 1 << 6;
    pub(in super::super) const ITLB_MULTIHIT: u32 = 1 << 7;
    pub(in super::super) const SPECTRE_V2: u32 = 1 << 8;
    pub(in super::super) const MMIO: u32 = 1 << 9;
    pub(in super::super) const EIBRS_PBRSB: u32 = 1 << 10;
    pub(in super::super) const BHI: u32 = 1 << 11;
}

/// Weaknesses that a CPU has (blacklist).
pub(super) mod has {
    pub(in super::super) const SRBDS: u32 = 1 << 0;
    pub(in super::super) const MMIO: u32 = 1 << 1;
    pub(in super::super) const MMIO_SBDS: u32 = 1 << 2;
    pub(in super::super) const RETBLEED: u32 = 1 << 3;
    pub(in super::super) const SMT_RSB: u32 = 1 << 4;
    pub(in super::super) const SRSO: u32 = 1 << 5;
    pub(in super::super) const GDS: u32 = 1 << 6;
    pub(in super::super) const RFDS: u32 = 1 << 7;
    pub(in super::super) const ITS: u32 = 1 << 8;
    pub(in super::super) const ITS_NATIVE_ONLY: u32 = 1 << 9;
    pub(in super::super) const TSA: u32 = 1 << 10;
    pub(in super::super) const VMSCAPE: u32 = 1 << 11;
}

/// A row of either list.
pub(super) struct Row {
    vendor: Option<Vendor>,
    /// The family; `None` for any.
    family: Option<u32>,
    /// The model; `None` for any.
    model: Option<u32>,
    /// Steppings, ends included.
    steppings: (u32, u32),
    /// Where it holds.
    since: Since,
    pub(super) what: u32,
}

/// From when on a row holds.
#[derive(Clone, Copy)]
enum Since {
    Ever,
    Release(u16, u16),
    /// Where TSA by fills is known: 7.3, and stable trees to which it was backported.
    Fills,
}

const ALWAYS: Since = Since::Ever;

const fn intel(model: u32, what: u32) -> Row {
    intel_steppings(model, (0, 15), what)
}

const fn intel_steppings(model: u32, steppings: (u32, u32), what: u32) -> Row {
    Row { vendor: Some(Vendor::Intel), family: Some(6), model: Some(model), steppings, since: ALWAYS, what }
}

const fn family(vendor: Vendor, family: u32, what: u32) -> Row {
    Row { vendor: Some(vendor), family: Some(family), model: None, steppings: (0, 15), since: ALWAYS, what }
}

const fn since(since: Since, row: Row) -> Row {
    Row { since, ..row }
}

/// The CPU in question.
#[derive(Clone, Copy)]
pub(super) struct Cpu {
    pub(super) vendor: Vendor,
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
    pub(super) release: (u16, u16),
    /// Whether the tree knows TSA by fills.
    pub(super) fills: bool,
}

/// `x86_match_cpu`: the first row that matches decides.
pub(super) fn first_match(rows: &'static [Row], cpu: Cpu) -> u32 {
    let matches = |row: &&Row| {
        row.vendor.is_none_or(|vendor| vendor == cpu.vendor)
            && row.family.is_none_or(|family| family == cpu.family)
            && row.model.is_none_or(|model| model == cpu.model)
            && (row.steppings.0..=row.steppings.1).contains(&cpu.stepping)
            && match row.since {
                Since::Ever => true,
                Since::Release(major, minor) => cpu.release >= (major, minor),
                Since::Fills => cpu.fills,
            }
    };
    rows.iter().find(matches).map_or(0, |row| row.what)
}

const SILVERMONT: u32 = no::SSB | no::L1TF | no::MSBDS_ONLY | no::SWAPGS | no::ITLB_MULTIHIT;
const GOLDMONT: u32 = no::MDS | no::L1TF | no::SWAPGS | no::ITLB_MULTIHIT | no::MMIO;
const AMD: u32 = no::MELTDOWN | no::L1TF | no::MDS | no::SWAPGS | no::ITLB_MULTIHIT | no::MMIO | no::BHI;
const ZHAOXIN: u32 = no::SPECTRE_V2 | no::SWAPGS | no::MMIO | no::BHI;
/// Before 6.12 the list does not say that model 5AH and 75H are safe from speculative store bypass.
const SAFE_FROM_SSB: Since = Since::Release(6, 12);

/// `cpu_vuln_whitelist`.
pub(super) const WHITELIST: &[Row] = &[
    Row { vendor: None, family: Some(4), model: None, steppings: (0, 15), since: ALWAYS, what: no::SPECULATION },
    family(Vendor::Centaur, 5, no::SPECULATION),
    family(Vendor::Intel, 5, no::SPECULATION),
    intel(0x8d, no::MMIO),
    intel(0x8c, no::MMIO),
    intel(0x97, no::MMIO),
    intel(0x9a, no::MMIO),
    intel(0x36, no::SPECULATION | no::ITLB_MULTIHIT),
    intel(0x35, no::SPECULATION | no::ITLB_MULTIHIT),
    intel(0x27, no::SPECULATION | no::ITLB_MULTIHIT),
    intel(0x1c, no::SPECULATION | no::ITLB_MULTIHIT),
    intel(0x26, no::SPECULATION | no::ITLB_MULTIHIT),
    intel(0x37, SILVERMONT),
    intel(0x4d, SILVERMONT),
    intel(0x4a, SILVERMONT),
    intel(0x4c, SILVERMONT),
    intel(0x57, SILVERMONT),
    intel(0x85, SILVERMONT),
    intel(0x0e, no::SSB),
    since(SAFE_FROM_SSB, intel(0x5a, SILVERMONT)),
    since(SAFE_FROM_SSB, intel(0x75, no::SSB | no::L1TF | no::SWAPGS | no::ITLB_MULTIHIT)),
    intel(0x5a, no::L1TF | no::MSBDS_ONLY | no::SWAPGS | no::ITLB_MULTIHIT),
    intel(0x75, no::L1TF | no::SWAPGS | no::ITLB_MULTIHIT),
    intel(0x5c, GOLDMONT),
    intel(0x5f, GOLDMONT),
    intel(0x7a, GOLDMONT | no::EIBRS_PBRSB),
    intel(0x96, no::EIBRS_PBRSB),
    intel(0x9c, no::EIBRS_PBRSB),
    intel(0x86, no::ITLB_MULTIHIT | no::EIBRS_PBRSB),
    family(Vendor::Amd, 0x0f, AMD | no::SSB),
    family(Vendor::Amd, 0x10, AMD | no::SSB),
    family(Vendor::Amd, 0x11, AMD | no::SSB),
    family(Vendor::Amd, 0x12, AMD | no::SSB),
    Row { family: None, ..family(Vendor::Amd, 0, AMD | no::EIBRS_PBRSB) },
    Row { family: None, ..family(Vendor::Hygon, 0, AMD | no::EIBRS_PBRSB) },
    family(Vendor::Centaur, 7, ZHAOXIN),
    family(Vendor::Zhaoxin, 7, ZHAOXIN),
];

const SKYLAKE: u32 = has::MMIO | has::RETBLEED | has::GDS | has::VMSCAPE;
const ICELAKE: u32 = has::MMIO | has::GDS | has::ITS | has::ITS_NATIVE_ONLY;
const COMETLAKE: u32 = has::MMIO | has::MMIO_SBDS | has::RETBLEED | has::GDS | has::ITS | has::VMSCAPE;
/// 5.10.262 lists none of the servers and clients that are younger than Sapphire Rapids, nor Meteor Lake.
const AFTER_5_10: Since = Since::Release(5, 15);
const ZEN: u32 = has::RETBLEED | has::SMT_RSB | has::SRSO | has::VMSCAPE;

/// `cpu_vuln_blacklist`.
pub(super) const BLACKLIST: &[Row] = &[
    intel(0x2d, has::VMSCAPE),
    intel(0x2a, has::VMSCAPE),
    intel(0x3e, has::VMSCAPE),
    intel(0x3a, has::SRBDS | has::VMSCAPE),
    intel(0x3c, has::SRBDS | has::VMSCAPE),
    intel(0x45, has::SRBDS | has::VMSCAPE),
    intel(0x46, has::SRBDS | has::VMSCAPE),
    intel(0x3f, has::MMIO | has::VMSCAPE),
    intel(0x56, has::MMIO | has::VMSCAPE),
    intel(0x4f, has::MMIO | has::VMSCAPE),
    intel(0x47, has::SRBDS | has::VMSCAPE),
    intel(0x3d, has::SRBDS | has::VMSCAPE),
    intel_steppings(0x55, (0, 5), SKYLAKE),
    intel(0x55, SKYLAKE | has::ITS),
    intel(0x4e, SKYLAKE | has::SRBDS),
    intel(0x5e, SKYLAKE | has::SRBDS),
    intel_steppings(0x8e, (0, 0xb), SKYLAKE | has::SRBDS),
    intel(0x8e, SKYLAKE | has::SRBDS | has::ITS),
    intel_steppings(0x9e, (0, 0xc), SKYLAKE | has::SRBDS),
    intel(0x9e, SKYLAKE | has::SRBDS | has::ITS),
    intel(0x66, has::RETBLEED | has::VMSCAPE),
    intel(0x7e, ICELAKE | has::MMIO_SBDS | has::RETBLEED),
    intel(0x6c, ICELAKE),
    intel(0x6a, ICELAKE),
    intel(0xa5, COMETLAKE),
    intel_steppings(0xa6, (0, 0), has::MMIO | has::RETBLEED | has::ITS | has::VMSCAPE),
    intel(0xa6, COMETLAKE),
    intel(0x8c, has::GDS | has::ITS | has::ITS_NATIVE_ONLY),
    intel(0x8d, has::GDS | has::ITS | has::ITS_NATIVE_ONLY),
    intel(0x8a, has::MMIO | has::MMIO_SBDS | has::RETBLEED),
    intel(0xa7, ICELAKE | has::RETBLEED),
    intel(0x97, has::RFDS | has::VMSCAPE),
    intel(0x9a, has::RFDS | has::VMSCAPE),
    intel(0xb7, has::RFDS | has::VMSCAPE),
    intel(0xba, has::RFDS | has::VMSCAPE),
    intel(0xbf, has::RFDS | has::VMSCAPE),
    since(AFTER_5_10, intel(0xaa, has::VMSCAPE)),
    since(AFTER_5_10, intel(0xc5, has::VMSCAPE)),
    since(AFTER_5_10, intel(0xc6, has::VMSCAPE)),
    since(Since::Release(6, 12), intel(0xb5, has::VMSCAPE)),
    since(AFTER_5_10, intel(0xbd, has::VMSCAPE)),
    intel(0x8f, has::VMSCAPE),
    since(AFTER_5_10, intel(0xad, has::VMSCAPE)),
    since(AFTER_5_10, intel(0xcf, has::VMSCAPE)),
    intel(0xbe, has::RFDS | has::VMSCAPE),
    intel(0x96, has::MMIO | has::MMIO_SBDS | has::RFDS),
    intel(0x86, has::MMIO | has::RFDS),
    intel(0x9c, has::MMIO | has::MMIO_SBDS | has::RFDS),
    intel(0x5c, has::RFDS),
    intel(0x5f, has::RFDS),
    intel(0x7a, has::RFDS),
    since(Since::Release(6, 12), intel(0xaf, has::VMSCAPE)),
    family(Vendor::Amd, 0x15, has::RETBLEED),
    family(Vendor::Amd, 0x16, has::RETBLEED),
    family(Vendor::Amd, 0x17, ZEN),
    family(Vendor::Hygon, 0x18, ZEN),
    family(Vendor::Amd, 0x19, has::SRSO | has::TSA | has::VMSCAPE),
    since(Since::Fills, family(Vendor::Amd, 0x1a, has::SRSO | has::TSA | has::VMSCAPE)),
    since(Since::Release(6, 12), family(Vendor::Amd, 0x1a, has::SRSO | has::VMSCAPE)),
];
