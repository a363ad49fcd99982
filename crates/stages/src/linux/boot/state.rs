//! The boot CPU's capabilities while the kernel boots.

use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::rules::RuleEffect;
use cpusieve_model::{CpuidBit, Registers, Vendor};

use super::Input;
use super::assume::Register as Assumptions;
use super::bugs::Bugs;
use super::cmdline::Cmdline;
use super::program::{CAPS, Compiled, NO_FEATURE, Program, WORDS};

/// Capability words.
#[derive(Clone, Copy)]
pub(super) struct Caps(pub(super) [u32; WORDS]);

impl Caps {
    const NONE: Self = Self([0; WORDS]);

    pub(super) fn has(&self, number: u16) -> bool {
        self.0.get(usize::from(number) / 32).is_some_and(|word| word >> (number % 32) & 1 == 1)
    }

    pub(super) fn put(&mut self, number: u16, set: bool) {
        if let Some(word) = self.0.get_mut(usize::from(number) / 32) {
            let bit = 1 << (number % 32);
            *word = if set { *word | bit } else { *word & !bit };
        }
    }
}

/// What decided a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing so far.
    #[default]
    None,
    /// A capability word holds the CPUID register.
    Word,
    /// The kernel copied the bit by itself.
    Scattered,
    /// The rule at this position of the table.
    Rule(u16),
    /// It went together with this feature.
    With(u16),
    /// Its leaf lies above the announced maximum.
    Level,
    /// `clearcpuid=` names it.
    ClearCpuid,
    /// `setcpuid=` names it.
    SetCpuid,
}

/// How long a set or a clear lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasts {
    /// Until CPUID is read again.
    Pass,
    /// For ever.
    ForEver,
}

/// A boot in progress.
pub(super) struct Boot<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) tree: usize,
    pub(super) program: &'static Program,
    pub(super) cmdline: Cmdline<'a>,
    pub(super) vendor: Vendor,
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
    /// The highest basic leaf, and the highest extended one (0 if there is none).
    pub(super) levels: (u32, u32),
    /// Where KVM's leaves begin, once the kernel has found them.
    pub(super) kvm_base: Option<u32>,
    /// `boot_cpu_data.x86_capability`.
    pub(super) caps: Caps,
    /// `cpu_caps_cleared` and `cpu_caps_set`.
    pub(super) cleared: Caps,
    pub(super) forced: Caps,
    /// What CPUID announced.
    pub(super) announced: Caps,
    /// Who decided what, by number of the capability.
    pub(super) marks: Vec<Marks>,
    pub(super) bugs: Bugs,
    /// Bugs that hang on assumptions.
    pub(super) bug_hangs: Vec<(u64, u64)>,
    pub(super) vmx: [u32; 5],
    pub(super) assumptions: Assumptions,
    /// Whether the kernel chooses its mitigations by itself, once somebody asked.
    pub(super) chooses: Option<Option<bool>>,
    /// Whether the rule that is being decided has a condition that nothing decides.
    pub(super) open: bool,
}

/// Who decided what of one capability.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) now: Mark,
    cleared: Mark,
    forced: Mark,
    /// The rule of which it is not known whether it sets the capability.
    pub(super) open: Mark,
    /// The assumptions on which it hangs.
    pub(super) hangs: u64,
    /// The assumptions on which it would hang if it were set later.
    latent: u64,
}

impl Marks {
    pub(super) const NONE: Self =
        Self { now: Mark::None, cleared: Mark::None, forced: Mark::None, open: Mark::None, hangs: 0, latent: 0 };
}

/// `common.c:get_cpu_vendor`: the vendors whose set-up code a 64-bit kernel of this tree has.
fn known_vendor(vendor: Option<Vendor>, tree: usize) -> Vendor {
    let release = TREES.get(tree).map_or((0, 0), |tree| tree.release);
    match vendor {
        // Hygon came in 4.20, Zhaoxin in 5.3; the code for Transmeta is only in 32-bit kernels.
        Some(Vendor::Hygon) if release < (4, 20) => Vendor::Other,
        Some(Vendor::Zhaoxin) if release < (5, 3) => Vendor::Other,
        Some(Vendor::Transmeta) | None => Vendor::Other,
        Some(vendor) => vendor,
    }
}

impl<'a> Boot<'a> {
    pub(super) fn new(input: &'a Input<'a>, tree: usize) -> Self {
        let (family, model, stepping) = input.cpuid.signature().unwrap_or((4, 0, 0));
        let basic = input.cpuid.get(0, 0).map_or(0, |registers| registers.eax);
        let extended = input.cpuid.get(0x8000_0000, 0).map_or(0, |registers| registers.eax);
        let extended = if extended & 0xffff_0000 == 0x8000_0000 { extended } else { 0 };
        Self {
            input,
            tree,
            program: Program::of(tree),
            cmdline: Cmdline::new(input.cmdline),
            vendor: known_vendor(input.cpuid.vendor(), tree),
            family,
            model,
            stepping,
            levels: (basic, extended),
            kvm_base: None,
            caps: Caps::NONE,
            cleared: Caps::NONE,
            forced: Caps::NONE,
            announced: Caps::NONE,
            marks: vec![Marks::NONE; CAPS],
            bugs: Bugs::default(),
            bug_hangs: Vec::new(),
            vmx: [0; 5],
            assumptions: Assumptions::default(),
            chooses: None,
            open: false,
        }
    }

    /// `kvm.c:kvm_cpuid_base`: KVM's leaves begin at the first multiple of 100H from 40000000H on that has its signature.
    pub(super) fn find_kvm(&mut self) {
        const SIGNATURE: (u32, u32, u32) = (0x4b4d_564b, 0x564b_4d56, 0x4d);
        let bases = (0x4000_0000..0x4001_0000).step_by(0x100);
        let is_kvm = |&base: &u32| {
            let leaf = self.input.cpuid.get(base, 0);
            leaf.is_some_and(|leaf| (leaf.ebx, leaf.ecx, leaf.edx) == SIGNATURE)
        };
        // `nopv` keeps the kernel from looking for a hypervisor.
        let looks = self.is_vm() && !self.cmdline.given("nopv");
        self.kvm_base = if looks { bases.into_iter().find(is_kvm) } else { None };
    }

    /// The registers of a leaf; zeros if it was not captured.
    pub(super) fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
        self.input.cpuid.get(leaf, subleaf).unwrap_or_default()
    }

    /// Whether a leaf lies within the maximum of its range.
    pub(super) fn has_leaf(&self, leaf: u32) -> bool {
        match leaf >> 16 {
            0 => leaf <= self.levels.0,
            0x8000 => leaf <= self.levels.1,
            _ => self.cpuid(leaf & 0xffff_0000, 0).eax >= leaf,
        }
    }

    /// A CPUID bit, as set-up code reads it: not above the maximum.
    pub(super) fn cpuid_bit(&self, mut bit: CpuidBit) -> bool {
        if bit.leaf >> 8 == 0x40_0000 {
            bit.leaf += self.kvm_base.map_or(0, |base| base - 0x4000_0000);
        }
        self.has_leaf(bit.leaf) && self.cpuid(bit.leaf, bit.subleaf).get(bit.register) >> bit.bit & 1 == 1
    }

    /// `cpu_has`, by macro.
    pub(super) fn has(&self, macro_name: &str) -> bool {
        self.caps.has(self.program.number(macro_name))
    }

    /// Whether the kernel takes this for a guest: 1.ECX\[31\], unless the command line cleared it.
    pub(super) fn is_vm(&self) -> bool {
        self.caps.has(self.program.hypervisor)
    }

    /// `set_cpu_cap`.
    fn set_cpu_cap(&mut self, number: u16, mark: Mark) {
        if self.caps.has(number) {
            return;
        }
        if let Some(marks) = self.marks.get_mut(usize::from(number)) {
            self.caps.put(number, true);
            marks.now = mark;
            marks.hangs |= marks.latent;
        }
    }

    /// `setup_force_cpu_cap`.
    pub(super) fn setup_force_cpu_cap(&mut self, number: u16, mark: Mark) {
        if self.forced.has(number) {
            return;
        }
        let Some(marks) = self.marks.get_mut(usize::from(number)) else { return };
        marks.forced = mark;
        self.forced.put(number, true);
        self.set_cpu_cap(number, mark);
    }

    /// `clear_cpu_cap` and `setup_clear_cpu_cap`: the feature and all that depends on it.
    pub(super) fn clear(&mut self, number: u16, mark: Mark, lasts: Lasts) {
        self.clear_feature(number, mark, lasts);
        let program = self.program;
        for dependent in program.dependents(number) {
            self.clear_feature(dependent, Mark::With(number), lasts);
        }
    }

    fn clear_feature(&mut self, number: u16, mark: Mark, lasts: Lasts) {
        let inherited = if let Mark::With(parent) = mark { self.hangs(parent) } else { 0 };
        let Some(marks) = self.marks.get_mut(usize::from(number)) else { return };
        if lasts == Lasts::ForEver && !self.cleared.has(number) {
            self.cleared.put(number, true);
            marks.cleared = mark;
        }
        if self.caps.has(number) {
            self.caps.put(number, false);
            marks.now = mark;
        }
        marks.hangs |= inherited;
    }

    /// The assumptions on which a capability hangs.
    pub(super) fn hangs(&self, number: u16) -> u64 {
        self.marks.get(usize::from(number)).map_or(0, |marks| marks.hangs)
    }

    /// Runs the rules that cite a function, in order of identity; what they set or clear lasts for one pass.
    pub(super) fn run(&mut self, function: &str) {
        self.run_rules(function, Lasts::Pass);
    }

    /// Runs the rules of a function that clears for ever.
    pub(super) fn run_for_ever(&mut self, function: &str) {
        self.run_rules(function, Lasts::ForEver);
    }

    fn run_rules(&mut self, function: &str, lasts: Lasts) {
        let program = self.program;
        for compiled in program.rules(function) {
            self.apply(compiled, lasts);
        }
    }

    /// Applies one rule if its conditions hold; notes which assumptions decided.
    pub(super) fn apply(&mut self, compiled: &'static Compiled, lasts: Lasts) {
        let clears = compiled.effect == RuleEffect::Clears;
        // What would change nothing needs no decision, unless it lasts longer than the bit does.
        let idle = |boot: &Self| match compiled.effect {
            RuleEffect::Sets => compiled.features.iter().all(|&number| boot.caps.has(number)),
            RuleEffect::Forces => compiled.features.iter().all(|&number| boot.forced.has(number)),
            RuleEffect::Clears => {
                lasts == Lasts::Pass && !compiled.features.iter().any(|&number| boot.caps.has(number))
            }
        };
        if idle(self) {
            return;
        }
        let truth = self.all(&compiled.needs);
        if !truth.holds && truth.on == 0 {
            return;
        }
        let mark = Mark::Rule(compiled.index);
        if self.open {
            if truth.holds && !clears {
                for &number in &compiled.features {
                    if let Some(marks) = self.marks.get_mut(usize::from(number)) {
                        marks.open = mark;
                    }
                }
            }
            return;
        }
        for &number in &compiled.features {
            let matters = self.caps.has(number) == clears;
            match self.marks.get_mut(usize::from(number)) {
                Some(marks) if matters => marks.hangs |= truth.on,
                Some(marks) if clears && lasts == Lasts::ForEver => marks.latent |= truth.on,
                _ => {}
            }
            match (truth.holds, compiled.effect) {
                (false, _) => {}
                (true, RuleEffect::Sets) => self.set_cpu_cap(number, mark),
                (true, RuleEffect::Forces) => self.setup_force_cpu_cap(number, mark),
                (true, RuleEffect::Clears) => self.clear(number, mark, lasts),
            }
        }
    }

    /// `apply_forced_caps`: what was cleared for ever goes, and then what was forced comes.
    pub(super) fn apply_forced_caps(&mut self) {
        for word in 0..WORDS {
            let before = self.caps.0[word];
            let after = before & !self.cleared.0[word] | self.forced.0[word];
            self.caps.0[word] = after;
            let mut changed = before ^ after;
            while changed != 0 {
                let bit = changed.trailing_zeros();
                changed &= changed - 1;
                let index = word * 32 + bit as usize;
                let set = after >> bit & 1 == 1;
                if let Some(marks) = self.marks.get_mut(index) {
                    marks.now = if set { marks.forced } else { marks.cleared };
                }
            }
        }
    }

    /// Empties the capability words before CPUID is read again.
    pub(super) fn begin_pass(&mut self) {
        self.caps = Caps::NONE;
        self.marks.iter_mut().for_each(|marks| marks.now = Mark::None);
    }

    /// Puts a CPUID register into its word.
    pub(super) fn fill_word(&mut self, word: usize, value: u32) {
        let (Some(slot), Some(announced)) = (self.caps.0.get_mut(word), self.announced.0.get_mut(word)) else { return };
        *slot = value;
        *announced |= value;
        let mut rest = value;
        while rest != 0 {
            if let Some(marks) = self.marks.get_mut(word * 32 + rest.trailing_zeros() as usize) {
                marks.now = Mark::Word;
            }
            rest &= rest - 1;
        }
    }

    /// Copies a scattered bit.
    pub(super) fn copy_bit(&mut self, number: u16) {
        if number != NO_FEATURE {
            self.announced.put(number, true);
            self.set_cpu_cap(number, Mark::Scattered);
        }
    }
}
