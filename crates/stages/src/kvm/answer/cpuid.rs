//! The two ioctls: `kvm_dev_ioctl_get_cpuid` and `__do_cpuid_func`, one function here for each case that has subleaves.

use cpusieve_knowledge::kvm::{self, Shape};
use cpusieve_model::{KvmCpuidEntry, KvmView, Registers};

use super::calls::Call;
use super::finding::Finding;
use super::module::Module;
use super::{Output, steps};

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`, `..._STATEFUL_FUNC`, `..._STATE_READ_NEXT`.
const SIGNIFICANT_INDEX: u32 = 1;
const STATEFUL: u32 = 2;
const READ_NEXT: u32 = 4;

/// Where KVM begins: basic, extended, Centaur's, its own.
const RANGES: [u32; 4] = [0, 0x8000_0000, CENTAUR, 0x4000_0000];
const CENTAUR: u32 = 0xc000_0000;

/// The entries so far.
struct Array<'m, 'a> {
    module: &'m Module<'a>,
    entries: Vec<KvmCpuidEntry>,
    calls: Vec<Call>,
    most: usize,
}

/// More entries than `KVM_MAX_CPUID_ENTRIES`: the ioctl fails with `E2BIG`.
struct TooBig;

/// Runs both ioctls on a loaded module.
#[must_use]
pub fn answers(module: &Module<'_>) -> Output {
    let mut array = Array::new(module);
    let done = RANGES.into_iter().try_for_each(|range| array.get_cpuid_func(range));
    let (entries, calls) = (array.entries, array.calls);
    let mut output = Output { findings: module.findings.clone(), ..Output::default() };
    match done {
        Ok(()) => {
            output.steps = steps::steps(module, &entries);
            output.view = KvmView { supported: Some(entries), emulated: Some(emulated(module)), ..KvmView::default() };
            output.calls = calls;
        }
        Err(TooBig) => output.findings.push(Finding::TooManyEntries),
    }
    output.assumed = module.assumed.borrow().clone();
    output
}

/// `__do_cpuid_func_emulated`: what KVM emulates beyond what it offers, slowly.
fn emulated(module: &Module<'_>) -> Vec<KvmCpuidEntry> {
    const MOVBE: u32 = 1 << 22;
    const RDPID: u32 = 1 << 22;
    // RDPID is RDTSCP's counter under another name; from 5.10 on KVM asks whether it has that one.
    let rdpid = module.release() < (5, 10) || module.has("RDTSCP");
    let entry = |leaf: u32, flags: u32, eax: u32, ecx: u32| KvmCpuidEntry {
        leaf,
        subleaf: 0,
        flags,
        registers: Registers { eax, ecx, ..Registers::default() },
    };
    vec![entry(0, 0, 7, 0), entry(1, 0, 0, MOVBE), entry(7, SIGNIFICANT_INDEX, 0, if rdpid { RDPID } else { 0 })]
}

impl<'m, 'a> Array<'m, 'a> {
    fn new(module: &'m Module<'a>) -> Self {
        let most = if module.release() < (5, 10) { 80 } else { 256 };
        Self { module, entries: Vec::with_capacity(80), calls: Vec::with_capacity(80), most }
    }

    /// `cpuid.c:get_cpuid_func`: a range, as far as its first leaf announces.
    fn get_cpuid_func(&mut self, first: u32) -> Result<(), TooBig> {
        if first == CENTAUR && !self.module.asks_centaur_leaves() {
            return Ok(());
        }
        self.do_cpuid_func(first)?;
        let limit = self.entries.last().map_or(0, |entry| entry.registers.eax);
        (first + 1..=limit).try_for_each(|leaf| self.do_cpuid_func(leaf))
    }

    /// `cpuid.c:__do_cpuid_func`.
    fn do_cpuid_func(&mut self, leaf: u32) -> Result<(), TooBig> {
        let raw = self.next(leaf, 0)?;
        match leaf {
            2 => self.descriptors(raw),
            4 | 0x8000_001d => self.caches(leaf, raw),
            0xb | 0x1f => self.topology(leaf, raw),
            0xd => self.state_components(),
            0x12 if self.module.is_answered(leaf) => self.next(leaf, 1).map(drop),
            0x14 if self.module.has("INTEL_PT") => self.counted(leaf, raw.eax),
            0x1d if self.module.is_answered(leaf) => self.counted(leaf, raw.eax),
            7 | 0x1e | 0x24 if self.module.is_answered(leaf) => self.limited(leaf),
            _ => Ok(()),
        }
    }

    /// Leaf 2 up to 5.4: AL says how often it is to be asked, and KVM asks as often.
    fn descriptors(&mut self, raw: Registers) -> Result<(), TooBig> {
        if kvm::shape(self.module.tree) != Some(Shape::ConstMasks) {
            return Ok(());
        }
        if let Some(first) = self.entries.last_mut() {
            first.flags |= STATEFUL | READ_NEXT;
        }
        for _ in 1..raw.eax & 0xff {
            self.next(2, 0)?;
            if let Some(entry) = self.entries.last_mut() {
                entry.flags |= STATEFUL;
            }
        }
        Ok(())
    }

    /// Leaves 4 and 8000001DH: until a cache of type 0, which is handed on too.
    fn caches(&mut self, leaf: u32, first: Registers) -> Result<(), TooBig> {
        if !self.module.has_many(leaf) {
            return Ok(());
        }
        let mut last = first;
        let mut subleaf = 0;
        while last.eax & 0x1f != 0 {
            subleaf += 1;
            last = self.next(leaf, subleaf)?;
        }
        Ok(())
    }

    /// Leaves 0BH and 1FH in the releases that hand the host's topology on: until a level of type 0.
    fn topology(&mut self, leaf: u32, first: Registers) -> Result<(), TooBig> {
        if !self.module.has_many(leaf) {
            return Ok(());
        }
        let mut last = first;
        let mut subleaf = 0;
        while last.ecx & 0xff00 != 0 {
            subleaf += 1;
            last = self.next(leaf, subleaf)?;
        }
        Ok(())
    }

    /// Leaf 0DH: subleaf 1, and one for each permitted state component; without any, neither.
    fn state_components(&mut self) -> Result<(), TooBig> {
        let module = self.module;
        let (user, supervisor) = (module.permitted_xcr0(), module.supported_xss);
        if user == 0 {
            return Ok(());
        }
        self.next(0xd, 1)?;
        // Up to 5.4 KVM asks for every component and throws away what it does not want.
        let asks_all = kvm::shape(module.tree) == Some(Shape::ConstMasks);
        for component in 2..64 {
            let permitted = (user | supervisor) >> component & 1 == 1;
            if !permitted && !asks_all {
                continue;
            }
            let raw = self.next(0xd, component)?;
            let is_supervisor = user >> component & 1 == 0;
            if !permitted || raw.eax == 0 || (raw.ecx & 1 == 1) != is_supervisor {
                self.entries.pop();
            }
        }
        Ok(())
    }

    /// Subleaves up to what EAX of the first says.
    fn counted(&mut self, leaf: u32, count: u32) -> Result<(), TooBig> {
        (1..=count).try_for_each(|subleaf| self.next(leaf, subleaf).map(drop))
    }

    /// Subleaves up to what EAX of the first says after KVM limited it.
    fn limited(&mut self, leaf: u32) -> Result<(), TooBig> {
        let count = self.entries.last().map_or(0, |entry| entry.registers.eax);
        self.counted(leaf, count)
    }

    /// `cpuid.c:do_host_cpuid`, and what the case makes of the new entry. Returns the raw registers.
    fn next(&mut self, leaf: u32, subleaf: u32) -> Result<Registers, TooBig> {
        if self.entries.len() >= self.most {
            return Err(TooBig);
        }
        let module = self.module;
        let blindly = module.release() < (6, 0);
        let executes = match leaf >> 30 {
            1 => blindly,
            2 => blindly || leaf <= module.cpuid(0x8000_0000, 0).eax,
            _ => true,
        };
        self.calls.push(Call { leaf, subleaf, executes, before: self.entries.len() });
        let raw = if executes { module.cpuid(leaf, subleaf) } else { Registers::default() };
        let registers = module.registers(leaf, subleaf, raw);
        let flags = if executes && is_indexed(module.tree, leaf) { SIGNIFICANT_INDEX } else { 0 };
        self.entries.push(KvmCpuidEntry { leaf, subleaf, flags, registers });
        Ok(raw)
    }
}

/// `asm/cpuid.h:cpuid_function_is_indexed`, up to 5.15 the list in `do_host_cpuid`, up to 5.2 the cases one by one: whether
/// a leaf is flagged as one with subleaves.
fn is_indexed(tree: usize, leaf: u32) -> bool {
    /// Leaves, and the release from which on they are in the list.
    const LISTED: [(u32, (u16, u16)); 16] = [
        (0x4, (0, 0)),
        (0x7, (0, 0)),
        (0xb, (0, 0)),
        (0xd, (0, 0)),
        (0xf, (5, 3)),
        (0x10, (5, 3)),
        (0x12, (5, 3)),
        (0x14, (5, 0)),
        (0x17, (5, 3)),
        (0x18, (5, 3)),
        (0x1d, (5, 17)),
        (0x1e, (5, 17)),
        (0x1f, (5, 3)),
        (0x23, (7, 3)),
        (0x24, (6, 12)),
        (0x8000_001d, (5, 1)),
    ];
    let release = super::plan::release(tree);
    LISTED.iter().any(|(listed, from)| *listed == leaf && release >= *from)
}
