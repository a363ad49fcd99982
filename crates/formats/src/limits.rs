//! How much of an input is read. Input is untrusted: each of these bounds memory or time, and going over it is reported.

/// The size of a file, in bytes: what lies beyond is not read. The largest dump known (384 CPUs) has 3 MB.
pub const MAX_FILE: usize = 64 << 20;

/// The length of one line of a text format, in bytes: longer lines are skipped. `flags` lines reach 2 KB.
pub const MAX_LINE: usize = 64 << 10;

/// CPUs in one input. Linux has at most 8192 (`arch/x86/Kconfig:NR_CPUS`).
pub const MAX_CPUS: usize = 8192;

/// CPUID entries of one CPU. Real CPUs have fewer than 200.
pub const MAX_ENTRIES: usize = 4096;

/// MSR readings of one CPU. Real dumps have fewer than 600.
pub const MAX_MSRS: usize = 4096;

/// Fields in one CPU's block of `/proc/cpuinfo`. Linux prints 28.
pub const MAX_FIELDS: usize = 256;

/// Flags in one input, each distinct line of flags counted once: `/proc/cpuinfo` repeats one line for every CPU.
pub const MAX_FLAGS: usize = 1 << 18;

/// Bytes of diagnostics' quotations: a longer quotation of the input is cut off.
pub const MAX_QUOTE: usize = 60;

/// Diagnostics that are kept for one input; the others are counted.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Levels of arrays and objects in one another in JSON. The deepest format known has 8.
pub const MAX_JSON_DEPTH: usize = 64;

/// Values in one JSON input, keys counted too. A record of 8192 CPUs with 70 entries each has 8 million.
pub const MAX_JSON_VALUES: usize = 1 << 23;

/// Strings that are kept of one JSON input. A record of a host has fewer than 20,000, most of them of its kernel's
/// configuration.
pub const MAX_JSON_STRINGS: usize = 1 << 19;

/// Members of one JSON object with keys of the input's own choice (options, parameters, properties). A kernel has about
/// 12,000 options.
pub const MAX_JSON_MEMBERS: usize = 1 << 16;

/// Elements and texts in one XML input. libvirt's largest CPUID dump has 200.
pub const MAX_XML_NODES: u32 = 1 << 20;

/// Attributes of one XML element. libvirt's CPUID elements have six.
pub const MAX_XML_ATTRIBUTES: usize = 64;

/// Bytes of one QMP message. The longest of QEMU 11.1 (`query-qmp-schema`) has 300,000; an expansion has 20,000.
pub const MAX_QMP_MESSAGE: usize = 4 << 20;

/// Arguments of QEMU that a libvirt domain passes on by itself. Hardly any has more than ten.
pub const MAX_DOMAIN_ARGUMENTS: usize = 1024;
