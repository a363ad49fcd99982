//! How to get flags: the smallest changes that give a guest all that is wanted and nothing that is not, each proven.
//!
//! A search by rising cost over changes of settings. Which changes are tried is read off the steps: the stage and the
//! rule that took a flag say what may help ([`change::Change`] lists the kinds and what each costs). Every solution was
//! put to the stages, the whole way from silicon to the guest's flags, and so was every part of it left out: nothing is
//! told that was not proven, and nothing that is not needed.
//!
//! ```
//! use cpusieve_answers::predict::way::{Route, Vm};
//! use cpusieve_answers::want::{Wish, want};
//! use cpusieve_knowledge::x86;
//! use cpusieve_model::{Cpu, Registers, Snapshot};
//!
//! // AuthenticAMD, family 19H, with FPU, CMOV, SVM and an invariant TSC.
//! let mut cpu = Cpu::default();
//! cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
//! cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, edx: 0x0000_8001, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0007, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
//! cpu.cpuid.insert(0x8000_0007, 0, Registers { edx: 1 << 8, ..Registers::default() });
//! let machine = Snapshot { cpus: vec![cpu], ..Snapshot::default() };
//!
//! let wish = Wish { feature: x86::feature("nonstop_tsc").unwrap(), present: true };
//! let route = Route { vm: Vm { qemu: Some("7.2"), ..Vm::default() }, ..Route::default() };
//! let answer = want(&machine, &route, &[wish]).unwrap();
//! assert_eq!(answer.solutions[0].settings.cpu.as_deref(), Some("host,+invtsc"));
//! assert!(!answer.solutions[0].price.migration.is_empty());
//! ```

mod bits;
pub mod change;
mod cpu_text;
mod hindrance;
mod price;
mod propose;
mod search;
mod settings;
mod view;

use cpusieve_knowledge::x86::Feature;
use cpusieve_model::Snapshot;

use crate::predict::way::{GuestPrediction, NoWay, Route};
pub use bits::bits;
use change::{Change, Disturbance};
pub use cpu_text::CpuText;
pub use hindrance::Hindrance;
pub use price::Price;
pub use settings::Settings;
use view::View;

/// A feature that the guest should show, or should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The feature.
    pub feature: &'static Feature,
    /// Whether it is wanted.
    pub present: bool,
}

/// How the wishes can be granted, or why they cannot.
#[derive(Debug)]
pub struct Answer {
    /// The settings at the start, with the guest's kernel named.
    pub settings: Settings,
    /// The guest at the start.
    pub start: GuestPrediction,
    /// The wishes that are not granted at the start; empty if there is nothing to do.
    pub unmet: Vec<Wish>,
    /// At most three different ways, the cheapest first; empty if there is nothing to do, or nothing that can be done.
    pub solutions: Vec<Solution>,
    /// Why wishes cannot be granted; empty if there is a solution, or nothing to do.
    pub hindrances: Vec<Hindrance>,
    /// Whether a way was left out because this host's own KVM answers otherwise than is predicted of it, so that nobody
    /// can say what it would answer then.
    pub doubted: bool,
    /// Whether the search was ended before all that it had in mind was tried.
    pub ended_early: bool,
    /// How many virtual machines were put to the stages.
    pub tried: usize,
}

/// One way to grant all wishes.
#[derive(Debug)]
pub struct Solution {
    /// What is changed, the cheapest first; without any one of them a wish is not granted.
    pub changes: Vec<Change>,
    /// The sum of the changes' costs.
    pub cost: u32,
    /// The most disturbing of what must happen.
    pub disturbance: Disturbance,
    /// All settings then.
    pub settings: Settings,
    /// The guest then.
    pub guest: GuestPrediction,
    /// What it gives up, and what comes along.
    pub price: Price,
    /// Changes of module parameters whose value nobody saw: that they have another one now is supposed, because KVM's
    /// own answer looks so.
    pub supposed: Vec<Change>,
}

impl Answer {
    /// Whether the wishes are granted at the start.
    #[must_use]
    pub fn nothing_to_do(&self) -> bool {
        self.unmet.is_empty()
    }
}

/// Looks for the smallest changes of a route under which the guest is as wished.
///
/// # Errors
/// If there is no guest at the start.
pub fn want(snapshot: &Snapshot, route: &Route<'_>, wishes: &[Wish]) -> Result<Answer, NoWay> {
    let mut settings = Settings::from(route);
    let view = View::of(snapshot, &settings)?;
    // Another host kernel must not change the guest's with it.
    if settings.guest_kernel.is_none() {
        settings.guest_kernel = Some(change::kernel(view.found.guest.tree).to_owned());
    }
    let unmet: Vec<Wish> = wishes.iter().copied().filter(|wish| !view.grants(*wish)).collect();
    let mut answer = Answer {
        settings,
        start: view.found.clone(),
        unmet,
        solutions: Vec::new(),
        hindrances: Vec::new(),
        doubted: false,
        ended_early: false,
        tried: 1,
    };
    if answer.nothing_to_do() {
        return Ok(answer);
    }
    let ground = search::Ground { snapshot, start: &answer.settings, wishes, boots: view.boots() };
    let search::Found { reached, ended_early, tried, doubted } = search::search(&ground);
    if reached.is_empty() {
        answer.hindrances = hindrance::hindrances(&ground, &view, &answer.unmet);
    }
    let baseline = reached.iter().flat_map(|one| &one.changes).any(Change::is_below_qemu);
    let baseline = if baseline { predicted(snapshot, &answer) } else { None };
    (answer.ended_early, answer.doubted) = (ended_early, doubted);
    answer.tried += tried;
    for search::Reached { changes, settings, view: reached, supposed } in reached {
        let below = changes.iter().any(Change::is_below_qemu);
        let before = baseline.as_ref().filter(|_| below).unwrap_or(&view);
        let price = price::price(before, &reached, &changes, &settings, wishes);
        if answer.solutions.iter().any(|cheaper| cheaper.price.is_better_than(&price)) {
            continue;
        }
        answer.solutions.push(Solution {
            cost: changes.iter().map(Change::cost).sum(),
            disturbance: changes.iter().map(Change::disturbance).max().unwrap_or(Disturbance::GuestRestart),
            changes,
            settings,
            guest: reached.found,
            price,
            supposed,
        });
    }
    Ok(answer)
}

/// The start as it is predicted where KVM's own answer is used: what changes below QEMU are compared with. None if it
/// is predicted anyway.
fn predicted(snapshot: &Snapshot, answer: &Answer) -> Option<View> {
    answer.start.vcpu.kvm.as_ref().filter(|kvm| kvm.seen.supported)?;
    View::of(snapshot, &Settings { kvm_predicted: true, ..answer.settings.clone() }).ok()
}
