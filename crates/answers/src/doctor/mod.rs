//! Is this machine a good host? A list of checks, each with one line of reason and, where something helps, a remedy.
//!
//! A check that does not concern the machine (Intel's parameters on an AMD host) is not in the list. What a record does
//! not show is `Unknown`, with what would show it; nothing is guessed.

mod guests;
mod kvm;
mod machine;

use cpusieve_knowledge::kvm::parameters;
use cpusieve_knowledge::linux;
use cpusieve_model::{Cite, CpuidBit, Register, Snapshot, State, Vendor};
use cpusieve_stages::kvm::home;

/// What only the machine itself can tell, beside its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Why `/dev/kvm` did not answer; `None` if it did.
    pub refusal: Option<String>,
    /// The modules that may serve `/dev/kvm`: `kvm_amd`.
    pub backends: Vec<String>,
    /// `/sys/devices/system/clocksource/clocksource0/current_clocksource`.
    pub clocksource: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Guests run, but slower or with less than they could have.
    Less,
    /// Guests cannot run, or a thing that was asked for cannot work.
    Bad,
    /// It was not seen.
    Unknown,
}

impl Verdict {
    /// The word for it, as text and JSON have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Less => "less",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, which stays: `firmware-lock`.
    pub id: &'static str,
    /// What was looked at, for people.
    pub what: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, with the value that was seen.
    pub reason: String,
    /// What helps, if something does.
    pub remedy: Option<&'static str>,
    /// Where the host's kernel decides it; `None` if nothing of it decides, or if its release was not read.
    pub cite: Option<Cite>,
}

/// All checks that concern this machine, in the order of the sieves.
#[must_use]
pub fn examine(snapshot: &Snapshot, live: Option<&Live>) -> Vec<Check> {
    let host = Host::of(snapshot, live);
    let mut checks = Vec::new();
    machine::examine(&host, &mut checks);
    kvm::examine(&host, &mut checks);
    guests::examine(&host, &mut checks);
    for check in &mut checks {
        check.cite = check.cite.and_then(|cite| host.cited(cite));
    }
    checks
}

/// 1.ECX\[31\].
const HYPERVISOR: CpuidBit = CpuidBit::new(1, 0, Register::Ecx, 31);

/// A machine as the checks read it.
struct Host<'a> {
    snapshot: &'a Snapshot,
    live: Option<&'a Live>,
    vendor: Option<Vendor>,
    /// Whether it runs under a hypervisor.
    nested: State,
}

impl<'a> Host<'a> {
    fn of(snapshot: &'a Snapshot, live: Option<&'a Live>) -> Self {
        let mut host = Self { snapshot, live, vendor: snapshot.vendor(), nested: State::Unknown };
        host.nested = match host.cpuid(HYPERVISOR) {
            State::Unknown => host.flag("hypervisor"),
            seen => seen,
        };
        host
    }

    fn is_amd(&self) -> bool {
        matches!(self.vendor, Some(Vendor::Amd | Vendor::Hygon))
    }

    fn is_intel(&self) -> bool {
        matches!(self.vendor, Some(Vendor::Intel | Vendor::Centaur | Vendor::Zhaoxin))
    }

    fn is_nested(&self) -> bool {
        self.nested == State::Present
    }

    /// One bit of the first CPU's CPUID.
    fn cpuid(&self, bit: CpuidBit) -> State {
        self.snapshot.first_cpuid().map_or(State::Unknown, |cpu| cpu.cpuid.state(bit))
    }

    /// An MSR of the first CPU that has it.
    fn msr(&self, index: u32) -> Option<u64> {
        self.snapshot.cpus.iter().find_map(|cpu| cpu.msrs.get(index))
    }

    /// A name in the `flags` line.
    fn flag(&self, name: &str) -> State {
        self.snapshot.flags().map_or(State::Unknown, |flags| State::from_bit(flags.contains(name)))
    }

    /// A name in the `bugs` line.
    fn bug(&self, name: &str) -> bool {
        let bugs = |cpu: &'a cpusieve_model::Cpu| cpu.cpuinfo.as_ref()?.bugs.as_ref();
        self.snapshot.cpus.iter().find_map(bugs).is_some_and(|bugs| bugs.contains(name))
    }

    /// A module's parameter, as sysfs shows it.
    fn param(&self, name: &str) -> Option<&'a str> {
        self.snapshot.kvm.as_ref()?.params.get(name).map(String::as_str)
    }

    /// The tree that stands for the host's kernel; the newest where its release was not seen.
    fn tree(&self) -> usize {
        let release = self.snapshot.linux.as_ref().and_then(|linux| linux.release.as_deref());
        release.map_or(linux::TREES.len() - 1, |release| linux::nearest(release).tree)
    }

    /// Whether the host's kernel has a parameter at all.
    fn has_param(&self, module: &str, name: &str) -> bool {
        parameters::of_tree(self.tree()).any(|parameter| parameter.module == module && parameter.name == name)
    }

    /// Where this kernel has the function. The checks' functions were looked up in 5.10 and newer.
    fn cited(&self, cite: Cite) -> Option<Cite> {
        let tree = self.tree();
        linux::TREES.get(tree).filter(|tree| tree.release >= (5, 10)).map(|_| home(cite, tree))
    }

    /// Whether `KVM_GET_SUPPORTED_CPUID` was answered.
    fn kvm_answers(&self) -> bool {
        self.snapshot.kvm.as_ref().is_some_and(|kvm| kvm.supported.is_some())
    }

    /// The module that serves `/dev/kvm`, as far as the machine or the parameters in its record tell.
    fn backend(&self) -> Option<&'a str> {
        if let Some(backend) = self.live.and_then(|live| live.backends.first()) {
            return Some(backend);
        }
        let params = &self.snapshot.kvm.as_ref()?.params;
        let module = |name: &'a String| name.split_once('.').map(|(module, _)| module);
        params.keys().filter_map(module).find(|module| *module != "kvm")
    }
}

/// A boolean parameter: `Y` or `1`, `N` or `0`.
fn switched(value: &str) -> Option<bool> {
    match value {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cpusieve_model::{Cpu, CpuidTable, KvmView, MsrReading, MsrTable, Registers};

    use super::*;

    /// A CPU of a vendor, with these bits.
    fn cpu(vendor: [u32; 3], leaves: &[(u32, Registers)]) -> Cpu {
        let mut cpuid = CpuidTable::default();
        let [ebx, edx, ecx] = vendor;
        cpuid.insert(0, 0, Registers { eax: 0x16, ebx, ecx, edx });
        cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0021, ..Registers::default() });
        for &(leaf, registers) in leaves {
            cpuid.insert(leaf, 0, registers);
        }
        Cpu { cpuid, ..Cpu::default() }
    }

    const INTEL: [u32; 3] = [0x756e_6547, 0x4965_6e69, 0x6c65_746e];
    const AMD: [u32; 3] = [0x6874_7541, 0x6974_6e65, 0x444d_4163];

    fn of<'a>(checks: &'a [Check], id: &str) -> Option<&'a Check> {
        checks.iter().find(|check| check.id == id)
    }

    #[test]
    fn a_locked_firmware_is_found_and_named() {
        let vmx = (1, Registers { ecx: 1 << 5, ..Registers::default() });
        let mut host = cpu(INTEL, &[vmx]);
        let mut msrs = MsrTable::default();
        msrs.insert(0x3a, MsrReading::Value(1));
        host.msrs = msrs;
        let snapshot = Snapshot { cpus: vec![host], ..Snapshot::default() };
        let checks = examine(&snapshot, None);
        let lock = of(&checks, "firmware-lock").unwrap();
        assert_eq!(lock.verdict, Verdict::Bad);
        assert!(lock.reason.contains("3AH") && lock.remedy.unwrap().contains("firmware"), "{lock:?}");
        assert_eq!(of(&checks, "virtualization").unwrap().verdict, Verdict::Good);
        // Not locked: the kernel writes it.
        let mut open = snapshot.clone();
        open.cpus[0].msrs.insert(0x3a, MsrReading::Value(0));
        assert_eq!(of(&examine(&open, None), "firmware-lock").unwrap().verdict, Verdict::Good);
        // Not read.
        open.cpus[0].msrs = MsrTable::default();
        assert_eq!(of(&examine(&open, None), "firmware-lock").unwrap().verdict, Verdict::Unknown);
    }

    #[test]
    fn parameters_concern_their_vendor_alone() {
        let svm = (0x8000_0001, Registers { ecx: 1 << 2, ..Registers::default() });
        let mut params = BTreeMap::new();
        params.insert("kvm_amd.npt".to_owned(), "N".to_owned());
        params.insert("kvm_amd.nested".to_owned(), "1".to_owned());
        let kvm = KvmView { params, ..KvmView::default() };
        let snapshot = Snapshot { cpus: vec![cpu(AMD, &[svm])], kvm: Some(kvm), ..Snapshot::default() };
        let checks = examine(&snapshot, None);
        assert_eq!(of(&checks, "two-stage-paging").unwrap().verdict, Verdict::Less);
        assert_eq!(of(&checks, "nested").unwrap().verdict, Verdict::Good);
        assert!(of(&checks, "unrestricted-guest").is_none());
        assert!(checks.iter().all(|check| !check.reason.contains("kvm_intel")), "{checks:#?}");
    }

    #[test]
    fn nothing_is_said_to_be_good_of_an_empty_record() {
        let checks = examine(&Snapshot::default(), None);
        let said: Vec<_> = checks.iter().filter(|check| check.verdict != Verdict::Unknown).collect();
        assert!(said.is_empty(), "{said:#?}");
    }

    #[test]
    fn ids_are_unique() {
        let svm = (0x8000_0001, Registers { ecx: 1 << 2, ..Registers::default() });
        let vmx = (1, Registers { ecx: 1 << 5, ..Registers::default() });
        for cpu in [cpu(AMD, &[svm]), cpu(INTEL, &[vmx])] {
            let snapshot = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
            let checks = examine(&snapshot, Some(&Live::default()));
            let mut ids: Vec<_> = checks.iter().map(|check| check.id).collect();
            ids.sort_unstable();
            let all = ids.len();
            ids.dedup();
            assert_eq!(ids.len(), all);
        }
    }
}
