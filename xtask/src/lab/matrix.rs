//! What is booted if nothing is named: strings that take the kernel off its common path.

/// One machine: `-cpu`, and what is added to the kernel's command line.
pub(super) type Row = (&'static str, &'static str);

/// Series of Debian's cloud kernels, over which the rows are dealt out in turn.
pub(super) const KERNELS: [&str; 6] = ["5.10", "6.1", "6.12", "6.17", "6.18", "7.3"];

/// The rows of `--quick`: a clear by number, an AMD CPU with leaves cut off, an Intel one under AMD's name. They
/// may meet a kernel that is newer than every tree; bare metal would then differ by the newest bugs.
pub(super) const QUICK: [Row; 3] = [
    ("max,+invtsc", "clearcpuid=156 nosmap"),
    ("EPYC-Rome,xlevel=0x80000008", "mitigations=off"),
    ("Skylake-Client,vendor=AuthenticAMD", "nopcid"),
];

/// Every row.
pub(super) const ROWS: [Row; 48] = [
    // Vendors: the CPU of one under the name of another, and of none.
    ("max,vendor=AuthenticAMD", ""),
    ("max,vendor=HygonGenuine", ""),
    ("Skylake-Client,vendor=AuthenticAMD", ""),
    ("Haswell,vendor=CentaurHauls", ""),
    ("EPYC-Rome,vendor=HygonGenuine", ""),
    ("Icelake-Server,vendor=__Shanghai__", ""),
    ("EPYC-Milan,vendor=NobodysCPUs_", ""),
    ("Penryn,vendor=NobodysCPUs_", ""),
    // No hypervisor bit: the paths of bare metal.
    ("EPYC-Milan,hypervisor=off", ""),
    ("Skylake-Client,hypervisor=off", ""),
    ("Icelake-Server,hypervisor=off", "mitigations=auto"),
    ("Denverton,hypervisor=off", ""),
    ("Snowridge,hypervisor=off", "spectre_v2=on"),
    ("Opteron_G3,hypervisor=off", ""),
    // Limits of leaves.
    ("max,level=4", ""),
    ("max,level=0xb", ""),
    ("Haswell,level=1", ""),
    ("EPYC,level=7", ""),
    ("EPYC-Rome,xlevel=0x80000008", ""),
    ("max,xlevel=0x80000001", ""),
    // Family, model and stepping of CPUs that have errata or quirks of their own.
    ("EPYC,family=26,model=2,stepping=1", ""),
    ("EPYC,family=16,model=10,stepping=0", ""),
    ("EPYC,family=15,model=72,stepping=2", ""),
    ("Skylake-Client,family=6,model=151,stepping=2", ""),
    ("Skylake-Client,family=6,model=55,stepping=8", ""),
    ("Haswell,family=6,model=61,stepping=4,+invtsc", ""),
    // Single features.
    ("Westmere,-xsave,+pclmulqdq", ""),
    ("EPYC-Milan,-xsave", ""),
    ("Icelake-Server,-xsave", ""),
    ("EPYC-Rome,-xsaves,-xsavec", ""),
    ("max,-fsgsbase,-smep", ""),
    ("max,-erms,-rdrand,-rdseed", ""),
    ("max,+la57,phys-bits=52,-pku", ""),
    ("Nehalem,+la57,+pku,+smap", ""),
    ("qemu64,+svm,+npt,+abm,+smap", ""),
    // The command line.
    ("Haswell", "clearcpuid=156"),
    ("EPYC-Rome", "clearcpuid=sse4_2"),
    ("max", "clearcpuid=xsave"),
    ("max", "clearcpuid=smep,pge"),
    ("Skylake-Client", "nopcid"),
    ("max", "nopcid nosmap"),
    ("EPYC-Milan", "nosmap nosmep"),
    ("EPYC-Milan", "mitigations=off"),
    ("Skylake-Server,hypervisor=off", "mitigations=off"),
    ("Penryn", "mitigations=off pti=on"),
    ("max", "noxsave"),
    ("Skylake-Client", "noxsaves noxsaveopt"),
    ("Nehalem", "nox2apic notsc"),
];
