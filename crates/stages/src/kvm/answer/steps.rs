//! One step for each feature bit that goes in or comes out, by the rules that also decide single bits
//! ([`crate::kvm::offer`]).

use std::borrow::Cow;
use std::sync::OnceLock;

use cpusieve_knowledge::kvm::{self, By, Cap, CapKind, Handling};
use cpusieve_knowledge::rules::{self, Condition, KvmCondition, Rule, RuleEffect, Software};
use cpusieve_knowledge::{linux, x86};
use cpusieve_model::{
    Cite, CpuidBit, Effect, Evidence, Grounds, KvmCpuidEntry, Place, Register, Registers, RuleId, Stage, Step,
};

use super::module::Module;
use super::plan::Row;
use crate::kvm::home::home;
use crate::kvm::{PARAVIRTUAL, offered_later, vendor_home};

/// By which rule something is done, and where that stands in this tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) rule: Option<RuleId>,
    pub(super) cite: Option<Cite>,
}

impl Why {
    fn rule(rule: Option<&Rule>, tree: usize) -> Self {
        Self { rule: rule.map(|rule| rule.id), cite: rule.map(|rule| home(rule.cite, tree)) }
    }

    pub(super) fn condition(condition: &KvmCondition, by: By, tree: usize) -> Self {
        Self { rule: Some(condition.id), cite: Some(home(vendor_home(condition.cite, by, tree), tree)) }
    }
}

/// A feature whose way through KVM is told.
#[derive(Debug)]
pub(super) struct Told {
    id: &'static str,
    place: CpuidBit,
    /// The kernel's capability; `u16::MAX` if it has none.
    kernel: u16,
    /// Position in the plan's rows; `u16::MAX` if no list of the tree has it.
    row: u16,
    /// What the tables say of it, looked up when a host first has it: no host has half of what is known.
    known: OnceLock<Box<Known>>,
}

/// What the tables of a tree say of a feature.
#[derive(Debug)]
struct Known {
    /// Rules that speak of it by name.
    own: Vec<&'static Rule>,
    /// What becomes of it by its register's kind, or by its kind in KVM's lists.
    usual: Why,
}

impl Told {
    fn known(&self, module: &Module<'_>) -> &Known {
        let tree = module.tree;
        let row = module.plan.rows.get(usize::from(self.row));
        self.known.get_or_init(|| {
            let own = rules::of_feature(Software::Kvm, self.id).filter(|rule| rule.trees.contains(tree)).collect();
            Box::new(Known { own, usual: usual(tree, self.place, row.map(|row| row.cap), &module.plan.generic) })
        })
    }
}

/// The generic rules of one tree.
#[derive(Debug)]
pub(super) struct Generic {
    pub(super) emulated: Why,
    above_limit: Why,
    gated_leaf: Why,
    /// A leaf that the function does not hand on to any case.
    skipped_leaf: Why,
    zero_leaf: Why,
    constant_leaf: Why,
    raw_leaf: Why,
    computed_leaf: Why,
    masked_here: Why,
    masked_always: Why,
    listed: Why,
    runtime: Why,
    synthesized: Why,
    set_by_condition: Why,
}

impl Generic {
    pub(super) fn new(tree: usize) -> Self {
        let of = |when: &str| Why::rule(rules::generic(Software::Kvm, when), tree);
        Self {
            emulated: of("emulated"),
            above_limit: of("above-limit"),
            gated_leaf: of("gated-leaf"),
            skipped_leaf: Why { cite: Some(Cite("arch/x86/kvm/cpuid.c:get_cpuid_func")), ..of("zero-leaf") },
            zero_leaf: of("zero-leaf"),
            constant_leaf: of("constant-leaf"),
            raw_leaf: of("raw-leaf"),
            computed_leaf: of("computed-leaf"),
            masked_here: of("masked-here"),
            masked_always: of("masked-always"),
            listed: of("listed"),
            runtime: of("runtime"),
            synthesized: of("synthesized"),
            set_by_condition: of("set-by-condition"),
        }
    }
}

/// The features of one entry.
#[derive(Debug)]
pub(super) struct Group {
    leaf: u32,
    subleaf: u32,
    told: Vec<Told>,
}

/// The features of KVM's lists, of the tree's kernel and of the register of names, each at the place in CPUID where a guest
/// would find it, in the order of places.
pub(super) fn told(tree: usize, rows: &[Row]) -> Vec<Group> {
    let listed = rows.iter().enumerate().map(|(index, row)| (row.id, row.cap.place, row.kernel, index as u16));
    let known = linux::features(tree).filter_map(|feature| {
        let place = linux::place(tree, feature).and_then(Place::cpuid)?;
        Some((feature.id(), place, feature.number() as u16, u16::MAX))
    });
    let named = x86::places().filter_map(|(place, feature)| Some((feature.id, place.cpuid()?, u16::MAX, u16::MAX)));
    let mut all: Vec<_> = listed.chain(known).chain(named).collect();
    // The sort keeps the order of equals: lists first, then the kernel, then other names.
    all.sort_by_key(|(_, place, ..)| *place);
    all.dedup_by_key(|(_, place, ..)| *place);
    let mut groups: Vec<Group> = Vec::new();
    for feature in all {
        let (id, place, kernel, row) = feature;
        let told = Told { id, place, kernel, row, known: OnceLock::new() };
        let CpuidBit { leaf, subleaf, .. } = place;
        match groups.last_mut().filter(|group| (group.leaf, group.subleaf) == (leaf, subleaf)) {
            Some(group) => group.told.push(told),
            None => groups.push(Group { leaf, subleaf, told: vec![told] }),
        }
    }
    groups
}

/// The name of a feature of KVM's lists: the kernel's id where it knows the bit, else the macro's.
pub(super) fn name_of(tree: usize, cap: &Cap) -> &'static str {
    let place = Place::Cpuid(cap.place);
    let known = linux::at(tree, place).or_else(|| linux::by_macro(cap.macro_name).next()).map(|feature| feature.id());
    let named = || x86::by_place(place).map(|feature| feature.id);
    known.or_else(named).unwrap_or(cap.macro_name)
}

/// What the tables say of a place, before anything is known of the host.
fn usual(tree: usize, place: CpuidBit, cap: Option<&Cap>, generic: &Generic) -> Why {
    if (place.leaf, place.register) == (PARAVIRTUAL, Register::Eax) {
        let offered = kvm::pv_features(tree).any(|feature| feature.bit == place.bit);
        return if offered { generic.emulated } else { generic.masked_here };
    }
    match (kvm::handling(tree, place), cap.map(|cap| cap.kind)) {
        (Handling::Constant(_), _) => generic.constant_leaf,
        (Handling::Zero, _) if offered_later(tree, place) => generic.masked_here,
        (Handling::Zero, _) => generic.zero_leaf,
        (Handling::Raw, _) => generic.raw_leaf,
        (Handling::Computed, None) => generic.computed_leaf,
        (Handling::Masked, None) if offered_later(tree, place) => generic.masked_here,
        (Handling::Masked, None) => generic.masked_always,
        (_, Some(CapKind::Runtime)) => generic.runtime,
        (_, Some(CapKind::Emulated | CapKind::SynthesizedUnconditional)) => generic.emulated,
        (_, Some(CapKind::Synthesized)) => generic.synthesized,
        (_, Some(CapKind::AdjustOnly | CapKind::Vendor)) => generic.set_by_condition,
        (_, Some(_)) => generic.listed,
    }
}

/// The steps of one answer.
pub(super) fn steps(module: &Module<'_>, entries: &[KvmCpuidEntry]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(512);
    for group in &module.plan.told {
        let came = seen(module, group.leaf, group.subleaf);
        let entry = entries.iter().find(|entry| (entry.leaf, entry.subleaf) == (group.leaf, group.subleaf));
        let goes = entry.map(|entry| entry.registers).unwrap_or_default();
        for told in &group.told {
            let (register, bit) = (told.place.register, told.place.bit);
            let value = came.map(|came| came.get(register));
            let kernel = module.kernel.bit(told.kernel);
            let came = value.is_some_and(|value| value >> bit & 1 == 1);
            let goes = goes.get(register) >> bit & 1 == 1;
            if came || kernel || goes {
                push_step(module, told, value, (came, kernel, goes), &mut steps);
            }
        }
    }
    steps
}

/// The registers of an entry of the CPU; none if its leaf lies above the maximum or was not seen.
fn seen(module: &Module<'_>, leaf: u32, subleaf: u32) -> Option<Registers> {
    let table = module.input.cpuid;
    let range = if leaf >> 16 == 0x4000 { 0xffff_ff00 } else { 0xffff_0000 };
    let within = table.get(leaf & range, 0).is_some_and(|first| first.eax >= leaf);
    table.get(leaf, subleaf).filter(|_| within)
}

/// Adds a step with the captured values: the CPU's register, and the kernel's flag where it differs from CPUID's bit. It is
/// written where it stays, for moving it would take longer than deciding it.
fn push_step(
    module: &Module<'_>,
    told: &Told,
    value: Option<u32>,
    (came, kernel, goes): (bool, bool, bool),
    steps: &mut Vec<Step>,
) {
    let why = why(module, told, goes);
    let of = module.input.of;
    steps.push(Step {
        feature: Cow::Borrowed(told.id),
        place: Some(Place::Cpuid(told.place)),
        at: Stage::Kvm,
        effect: match (came, goes) {
            (_, false) => Effect::Dropped,
            (true, true) => Effect::Kept,
            (false, true) => Effect::Added,
        },
        rule: why.rule.unwrap_or(RuleId("")),
        cite: why.cite.unwrap_or(Cite("")),
        because: Grounds::one(Evidence::Register { of, answer: "CPUID", bit: told.place, value }),
    });
    let differs = came != kernel && told.kernel != u16::MAX;
    if let Some(step) = steps.last_mut().filter(|_| differs) {
        step.because.push(Evidence::Flag { of, name: Cow::Borrowed(told.id), printed: kernel });
    }
}

/// Which rule decided.
fn why(module: &Module<'_>, told: &Told, goes: bool) -> Why {
    let Known { own, usual } = told.known(module);
    if let Some(rule) = own.iter().find(|rule| speaks(module, rule, goes)) {
        return Why::rule(Some(rule), module.tree);
    }
    let generic = &module.plan.generic;
    if told.place.leaf >> 16 == 0xc000 && !module.asks_centaur_leaves() {
        return generic.skipped_leaf;
    }
    let Some(row) = module.plan.rows.get(usize::from(told.row)) else { return *usual };
    let decided = module.marks.get(usize::from(told.row)).copied().flatten().unwrap_or(*usual);
    if goes || !row.slot.is_set(&module.caps) {
        return decided;
    }
    // Offered, but its leaf is not answered.
    if module.is_answered(told.place.leaf) { generic.above_limit } else { generic.gated_leaf }
}

/// Whether a rule that names the feature speaks of this host, and says what happened.
fn speaks(module: &Module<'_>, rule: &Rule, goes: bool) -> bool {
    let vendor = module.vendor();
    let here = rule.only != Some("hybrid") || module.is_hybrid();
    let holds = rule.needs.iter().all(|need| match need.condition {
        Condition::Vendor(vendors) => vendors.contains(&vendor) != need.negated,
        _ => false,
    });
    here && holds && (rule.effect == RuleEffect::Clears) != goes
}
