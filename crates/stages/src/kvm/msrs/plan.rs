//! One tree's rows of feature MSRs, with what they name looked up once.

use std::ops::Range;
use std::sync::OnceLock;

use cpusieve_knowledge::kvm::msrs::{self, FeatureBits, MsrEffect, Need};
use cpusieve_model::{Cite, MsrBit};

use super::conditions::{self, VMX_SWITCHES, VmxSwitch};
use super::steps;
use crate::kvm::answer::{Backend, Module, Slot, Switch, slot_of};
use crate::linux::boot::capabilities;

/// What must hold, ready to be asked of a loaded module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// The host kernel has the capability with this number.
    Flag(u16),
    /// The host kernel has this bug.
    Bug(u64),
    /// KVM offers a feature; none if this tree has none of the name.
    Cap(Option<Slot>),
    /// A parameter of the loaded module is on; none if no module has one of the name.
    Switch(Option<Switch>),
    /// The same of one that `vmx_hardware_setup` clears by what VMX has.
    Vmx(&'static VmxSwitch),
    /// This vendor module is loaded.
    Module(Backend),
    /// This bit of the hardware's MSR is set.
    Hardware(MsrBit),
    /// This bit of the feature MSR is set so far.
    SoFar(MsrBit),
    /// Reading this MSR of the hardware does not fault.
    Readable(u32),
    /// Something else that the loaded module tells.
    Is(fn(&Module<'_>) -> bool),
}

impl Ask {
    fn of(tree: usize, need: Need) -> Self {
        match need {
            Need::Flag(name) => Self::Flag(capabilities::number(tree, name)),
            Need::Bug(name) => Self::Bug(capabilities::bug(tree, name)),
            Need::Cap(name) => Self::Cap(slot_of(tree, name)),
            Need::Param(name) => match VMX_SWITCHES.iter().find(|switch| switch.name == name) {
                Some(switch) => Self::Vmx(switch),
                None => Self::Switch(Switch::of_parameter(name)),
            },
            Need::IntelModule => Self::Module(Backend::Intel),
            Need::AmdModule => Self::Module(Backend::Amd),
            Need::Hardware(bit) => Self::Hardware(bit),
            Need::SoFar(bit) => Self::SoFar(bit),
            Need::Readable(index) => Self::Readable(index),
            Need::L1dFlush => Self::Is(conditions::flushes_l1d),
            Need::GdsMicrocode => Self::Is(conditions::gds_ucode_mitigated),
            Need::Lbr => Self::Is(conditions::knows_branch_records),
            Need::LbrCallStack => Self::Is(conditions::knows_call_stacks),
        }
    }
}

/// What is done to some bits of a register, and the conditions.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) bits: &'static FeatureBits,
    pub(super) needs: Range<usize>,
}

/// How a register is made.
#[derive(Debug)]
struct Register {
    index: u32,
    rows: Range<usize>,
}

/// A register that KVM lists.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) index: u32,
    pub(super) needs: Range<usize>,
    /// The bits that are set on any machine.
    pub(super) forced: u64,
    /// Where it is made in this tree.
    pub(super) cite: Cite,
}

/// The feature MSRs of one tree.
#[derive(Debug)]
pub(super) struct Plan {
    /// Those that KVM lists, in its order.
    pub(super) listed: Vec<Listed>,
    /// The MSRs of which it is known whether `KVM_GET_MSR_INDEX_LIST` has them, and the conditions of which one suffices.
    pub(super) indexed: Vec<(u32, Vec<Range<usize>>)>,
    registers: Vec<Register>,
    rows: Vec<Row>,
    /// All conditions, one list after the other, with what is to come out.
    asks: Vec<(Ask, bool)>,
}

impl Plan {
    /// The plan of a tree, made when it is first asked for.
    pub(super) fn of(tree: usize) -> &'static Self {
        static PLANS: [OnceLock<Plan>; 64] = [const { OnceLock::new() }; 64];
        PLANS[tree % PLANS.len()].get_or_init(|| Self::new(tree))
    }

    fn new(tree: usize) -> Self {
        let mut asks = Vec::with_capacity(256);
        let mut take = |needs: &[(Need, bool)]| {
            let first = asks.len();
            asks.extend(needs.iter().map(|&(need, wanted)| (Ask::of(tree, need), wanted)));
            first..asks.len()
        };
        let mut rows: Vec<Row> = Vec::with_capacity(256);
        let mut registers: Vec<Register> = Vec::new();
        for bits in msrs::all_feature_bits(tree) {
            let at = rows.len();
            match registers.last_mut().filter(|register| register.index == bits.index) {
                Some(register) => register.rows.end = at + 1,
                None => registers.push(Register { index: bits.index, rows: at..at + 1 }),
            }
            rows.push(Row { bits, needs: take(bits.needs) });
        }
        let forced = |index: u32| {
            let always = |bits: &&FeatureBits| bits.effect == MsrEffect::Set && bits.needs.is_empty();
            msrs::feature_bits(tree, index).filter(always).fold(0, |all, bits| all | bits.mask)
        };
        let listed = msrs::feature_msrs(tree).map(|msr| Listed {
            index: msr.index,
            needs: take(msr.needs),
            forced: forced(msr.index),
            cite: steps::cite(tree, msr.index),
        });
        let listed = listed.collect();
        let mut alternatives = |index| msrs::indexed_by(tree, index).map(|row| take(row.needs)).collect();
        let indexed = msrs::indexed_msrs().map(|index| (index, alternatives(index))).collect();
        Self { listed, indexed, registers, rows, asks }
    }

    /// What is done to a register, in order.
    pub(super) fn rows(&self, index: u32) -> &[Row] {
        let found = self.registers.binary_search_by_key(&index, |register| register.index).ok();
        let register = found.and_then(|position| self.registers.get(position));
        register.and_then(|register| self.rows.get(register.rows.clone())).unwrap_or(&[])
    }

    /// The conditions of something.
    pub(super) fn asks(&self, needs: &Range<usize>) -> &[(Ask, bool)] {
        self.asks.get(needs.clone()).unwrap_or(&[])
    }
}
