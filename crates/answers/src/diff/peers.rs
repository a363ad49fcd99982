//! Two ends of which neither is the other's guest: two machines, or one under two kernels.
//!
//! What a machine lacks is asked of every kernel that its flags line allows; the explanation that holds for most of them
//! is the answer.

use cpusieve_knowledge::linux;
use cpusieve_knowledge::rules::{self, Rule, RuleEffect, Software};
use cpusieve_knowledge::x86::{self, Scope};
use cpusieve_model::{Cite, Effect, Evidence, Grounds, Place, RuleId, Stage, State, Step, Vendor};
use cpusieve_stages::linux::booted::Exact;
use cpusieve_stages::linux::conditions::{self, Observed};
use cpusieve_stages::linux::kernel;
use cpusieve_stages::linux::setup::{self, Ruling};
use cpusieve_stages::{Hypervisor, Machine};

use super::relation::never_given;
use super::{Assumption, Diff, Group, Item, Other, Relation, split, undecided};
use crate::reason::{self, Confidence, Remedy};

pub(super) fn diff(relation: Relation, first: &Machine<'_>, second: &Machine<'_>) -> Diff {
    let (lost, gained, kept) = split(first, second);
    let unknown = first.kernel.unknown.iter().chain(&second.kernel.unknown).cloned().collect::<Vec<_>>();
    let assumed = [first, second].into_iter().filter(|_| relation != Relation::Equal).map(assumption).collect();
    let lacking = |flag: &str, machine, peer| Lack { relation, flag, machine, peer }.item();
    Diff {
        relation,
        assumed,
        lost: lost.iter().map(|flag| lacking(flag, second, first)).collect(),
        gained: gained.iter().map(|flag| lacking(flag, first, second)).collect(),
        kept,
        unknown,
        undecided: undecided(first, second),
    }
}

fn assumption(machine: &Machine<'_>) -> Assumption {
    if let Some(concluded) = super::concluded(machine) {
        return concluded;
    }
    let because = match &machine.kernel.because {
        kernel::Because::Release(_) => "the input names it",
        kernel::Because::NearRelease(_) => "the input names it; the nearest known tree stands for it",
        kernel::Because::Flags => "the names in its flags line and their order",
        kernel::Because::Nothing => "nothing tells the release",
    };
    Assumption {
        what: format!("{} kernel", machine.role),
        value: machine.kernel.describe(),
        because: because.to_owned(),
    }
}

/// A flag that one machine lacks and its peer shows.
#[derive(Clone, Copy)]
struct Lack<'a> {
    relation: Relation,
    flag: &'a str,
    machine: &'a Machine<'a>,
    peer: &'a Machine<'a>,
}

/// How a kernel of one tree comes to lack a flag.
enum Way {
    /// It does not print it.
    Unnamed,
    /// CPUID does not announce it. If the register was not seen, some rules may have cleared it instead.
    Unannounced { seen: Option<Evidence>, perhaps: Vec<&'static Rule> },
    /// One of its rules decided, or may have.
    Ruled(Ruling),
    /// The peer's kernel sets it by a rule that this kernel does not have. Then the rule that comes nearest here.
    OnlyThere(&'static Rule, Option<&'static Rule>),
    /// CPUID announces it, and no rule says why the line lacks it.
    Announced(Evidence),
}

impl Way {
    /// What makes two ways the same explanation.
    fn identity(&self) -> (u8, &'static str) {
        match self {
            Self::Unnamed => (0, ""),
            Self::Unannounced { .. } => (1, ""),
            Self::Ruled(ruling) => (2, named(ruling).map_or("", |rule| rule.id.0)),
            Self::OnlyThere(rule, _) => (3, rule.id.0),
            Self::Announced(_) => (4, ""),
        }
    }
}

/// The rule that a ruling is about.
fn named(ruling: &Ruling) -> Option<&'static Rule> {
    ruling.rule.or_else(|| ruling.perhaps.first().copied())
}

impl Lack<'_> {
    /// Why this machine does not show the flag.
    fn item(self) -> Item {
        let trees = self.machine.kernels();
        let (tree, way) = self.likeliest();
        let place = place(self.flag, tree);
        let base = Item {
            flag: self.flag.to_owned(),
            place,
            at: None,
            rule: RuleId(""),
            title: format!("no kernel that cpusieve knows prints `{}`", self.flag),
            cause: format!("No kernel that cpusieve knows prints `{}`.", self.flag),
            cite: Cite(""),
            confidence: Confidence::Possible,
            remedy: Remedy { kind: rules::RemedyKind::None, text: "none is known".to_owned(), cpu: None },
            others: Vec::new(),
            group: Group::Unexplained,
            follows: None,
            steps: Vec::new(),
        };
        if super::item::unheard_of(self.flag) {
            return base;
        }
        if trees.iter().all(|tree| !kernel::prints(tree, self.flag)) {
            return self.nameless(base);
        }
        if self.flag == "hypervisor" {
            return self.no_guest(base);
        }
        if self.relation == Relation::DifferentVendors && !makes(self.machine.vendor(), self.flag) {
            return self.other_vendor(base);
        }
        match way {
            Some(Way::Unnamed) => self.nameless(base),
            Some(Way::Unannounced { seen, perhaps }) => self.unannounced(base, seen, &perhaps),
            Some(Way::Ruled(ruling)) => self.by_ruling(base, ruling),
            Some(Way::OnlyThere(rule, nearest)) => self.only_there(base, rule, nearest),
            Some(Way::Announced(evidence)) => self.cleared(base, Some(evidence)),
            None => self.cleared(base, None),
        }
    }

    /// The way that holds for most of the kernels that may run here, and the oldest of these. No way, if every kernel
    /// would show the flag.
    fn likeliest(&self) -> (usize, Option<Way>) {
        let trees = self.machine.kernels();
        let ways: Vec<(usize, Way)> =
            trees.iter().filter_map(|tree| self.in_tree(tree).map(|way| (tree, way))).collect();
        let holders = |way: &Way| ways.iter().filter(|(_, other)| other.identity() == way.identity()).count();
        let counts: Vec<usize> = ways.iter().map(|(_, way)| holders(way)).collect();
        let most = counts.iter().max().copied().unwrap_or(0);
        let best = ways.into_iter().zip(counts).find(|(_, count)| *count == most);
        best.map_or((trees.first().unwrap_or(linux::TREES.len() - 1), None), |((tree, way), _)| (tree, Some(way)))
    }

    /// How a kernel of this tree comes to lack the flag; `None` if by all that is known it would show it.
    fn in_tree(&self, tree: usize) -> Option<Way> {
        if !kernel::prints(tree, self.flag) {
            return Some(Way::Unnamed);
        }
        let observed = Observed { machine: self.machine, tree };
        let Some(Place::Cpuid(bit)) = place(self.flag, tree) else { return self.invented(&observed, tree) };
        let table = self.machine.cpuid();
        let state = table.map_or(State::Unknown, |table| table.state(bit));
        let evidence = table.map(|table| self.machine.register_evidence("CPUID", table, bit));
        let ruling = setup::announced(&observed, tree, self.flag, State::Present);
        match (state.known(), ruling.state.known()) {
            (Some(false), _) => Some(match self.only_on_peer(tree) {
                Some(rule) => Way::OnlyThere(rule, None),
                None => Way::Unannounced { seen: evidence, perhaps: Vec::new() },
            }),
            (_, Some(false)) => Some(Way::Ruled(ruling)),
            (Some(true), _) if named(&ruling).is_some() => Some(Way::Ruled(ruling)),
            (Some(true), _) => evidence.map(Way::Announced),
            (None, _) if ruling.rule.is_some() => None,
            (None, _) if self.kernel_is_likelier(&ruling.perhaps) => Some(Way::Ruled(ruling)),
            (None, _) => Some(Way::Unannounced { seen: None, perhaps: ruling.perhaps }),
        }
    }

    /// A flag that Linux invents.
    fn invented(&self, observed: &Observed<'_>, tree: usize) -> Option<Way> {
        let there = Observed { machine: self.peer, tree: self.peer.kernels().first().unwrap_or(tree) };
        let ruling = setup::invented(observed, Some(&there), tree, self.flag);
        if ruling.state == State::Present {
            return (!ruling.perhaps.is_empty()).then_some(Way::Ruled(Ruling { rule: None, verdict: None, ..ruling }));
        }
        match (self.only_on_peer(tree), ruling.rule) {
            (Some(rule), nearest) => Some(Way::OnlyThere(rule, nearest)),
            (None, Some(_)) => Some(Way::Ruled(ruling)),
            (None, None) => Some(Way::Unannounced { seen: None, perhaps: Vec::new() }),
        }
    }

    /// The rule by which the peer's kernel set the flag, if this tree does not have it and would set the flag by it.
    fn only_on_peer(&self, tree: usize) -> Option<&'static Rule> {
        let there = self.peer.kernels();
        let sets = rules::of_feature(Software::Linux, self.flag).filter(|rule| rule.effect != RuleEffect::Clears);
        let ways: Vec<(&Rule, State)> = sets
            .filter_map(|rule| {
                let peer_tree = rule.trees.intersection(there).first()?;
                let state = conditions::all(&Observed { machine: self.peer, tree: peer_tree }, rule.needs).state;
                let fits = state == State::Present || state == State::Unknown && self.set_together(rule, peer_tree);
                fits.then_some((rule, state))
            })
            .collect();
        let seen = ways.iter().any(|(_, state)| *state == State::Present);
        let mut may_be = ways.iter().filter(|(_, state)| !seen || *state == State::Present).map(|(rule, _)| *rule);
        let rule = may_be.clone().next()?;
        let here = Observed { machine: self.machine, tree };
        let would_set = conditions::all(&here, rule.needs).state != State::Absent;
        (would_set && may_be.all(|rule| !rule.trees.contains(tree))).then_some(rule)
    }

    /// Whether the peer shows all other flags that a rule sets along with this one.
    fn set_together(&self, rule: &Rule, peer_tree: usize) -> bool {
        let others = rule.features.iter().filter(|name| **name != self.flag && kernel::prints(peer_tree, name));
        others.into_iter().all(|name| self.peer.prints(name) != Some(false))
    }

    /// Whether rules of this kernel are a better guess than CPUID for a bit that nobody saw: two machines with one CPU,
    /// or two guests with one CPU and a rule that the peer's kernel does not have.
    fn kernel_is_likelier(&self, perhaps: &[&'static Rule]) -> bool {
        if perhaps.is_empty() || !self.same_cpu() {
            return false;
        }
        let there = self.peer.kernels();
        !self.is_guest() || perhaps.iter().any(|rule| rule.trees.intersection(there).is_empty())
    }

    /// Whether vendor, family, model and stepping are known on both ends and equal.
    fn same_cpu(&self) -> bool {
        let of = |machine: &Machine<'_>| Some((machine.vendor()?, machine.family_model()?, machine.stepping()?));
        of(self.machine).is_some() && of(self.machine) == of(self.peer)
    }

    fn is_guest(&self) -> bool {
        self.machine.is_guest() == State::Present
    }

    /// The stage at which this machine's kernel stands.
    fn kernel_stage(&self) -> Stage {
        if self.is_guest() { Stage::Guest } else { Stage::Host }
    }

    /// Its kernel has no name for the feature.
    fn nameless(&self, item: Item) -> Item {
        let trees = self.machine.kernels();
        let known = trees.iter().any(|tree| linux::feature_by_id(tree, &item.flag).is_some());
        let rule = rules::generic(Software::Linux, if known { "hidden" } else { "no-name" });
        let mut item = self.worded(item, rule, self.kernel_stage(), Effect::Dropped, Grounds::NONE);
        item.group = Group::Naming;
        item.confidence = if trees.iter().count() == 1 { Confidence::Certain } else { Confidence::Likely };
        item
    }

    /// It runs on the CPU itself, or its hypervisor hides.
    fn no_guest(&self, item: Item) -> Item {
        let rule = rules::of_feature(Software::Qemu, &item.flag).find(|rule| rule.effect != RuleEffect::Clears);
        let evidence = self.machine.cpuid().zip(item.place.and_then(Place::cpuid));
        let because = evidence.map(|(table, bit)| self.machine.register_evidence("CPUID", table, bit));
        let mut item = self.worded(item, rule, Stage::Qemu, Effect::Added, because.into_iter().collect());
        item.group = Group::Added;
        item.confidence = Confidence::Certain;
        item
    }

    fn other_vendor(&self, item: Item) -> Item {
        let vendor = self.machine.vendor().map_or("this vendor", Vendor::name);
        let rule = rules::generic(Software::Silicon, "not-in-silicon");
        let mut item = self.worded(item, rule, Stage::Silicon, Effect::Dropped, Grounds::NONE);
        item.cause = format!(
            "{vendor} does not make CPUs with this feature, or its kernel code does not set the flag for them."
        );
        item.group = Group::Silicon;
        item.confidence = Confidence::Certain;
        item
    }

    /// CPUID does not announce it: the CPU lacks it, or in a guest the software below hides it.
    fn unannounced(&self, item: Item, seen: Option<Evidence>, perhaps: &[&'static Rule]) -> Item {
        let silicon = rules::generic(Software::Silicon, "not-in-silicon");
        let known = seen.is_some();
        let because = seen.into_iter().collect();
        let perhaps = perhaps.iter().map(|rule| other(rule, self.kernel_stage()));
        if self.is_guest() {
            let mut item = self.not_given(item, because);
            item.others = silicon.map(|rule| other(rule, Stage::Silicon)).into_iter().chain(perhaps).collect();
            return item;
        }
        let same = self.same_cpu();
        let rule = if same { rules::generic(Software::Silicon, "hidden-by-firmware") } else { silicon };
        let mut item = self.worded(item, rule, Stage::Silicon, Effect::Dropped, because);
        item.group = Group::Silicon;
        item.confidence = match (known, same) {
            (true, false) => Confidence::Certain,
            (true, true) | (false, false) => Confidence::Likely,
            (false, true) => Confidence::Possible,
        };
        let cleared = rules::generic(Software::Linux, "clearcpuid").filter(|_| same && !known);
        item.others = perhaps.chain(cleared.map(|rule| other(rule, self.kernel_stage()))).collect();
        item
    }

    /// A guest lacks what its VMM or host does not give it; or what KVM gives to nobody.
    fn not_given(&self, item: Item, because: Grounds) -> Item {
        let emulated = self.machine.hypervisor() == Some(Hypervisor::Other);
        if !emulated && item.place.and_then(Place::cpuid).is_some_and(never_given) {
            let rule = rules::generic(Software::Kvm, "masked-always");
            let mut item = self.worded(item, rule, Stage::Kvm, Effect::Dropped, because);
            item.group = Group::MaskedAlways;
            item.confidence = Confidence::Likely;
            return item;
        }
        let rule = rules::generic(Software::Qemu, "model");
        let mut item = self.worded(item, rule, Stage::Qemu, Effect::Dropped, because);
        item.title = "its VMM or host does not give it".to_owned();
        item.cause =
            "This machine is a guest: the CPU model that was asked for lacks the feature, it was taken out by \
             hand, or the guest's host does not have it."
                .to_owned();
        item.group = Group::QemuPolicy;
        item.confidence = Confidence::Possible;
        item
    }

    /// A rule of its kernel decided, or may have.
    fn by_ruling(&self, item: Item, ruling: Ruling) -> Item {
        let decided = ruling.state == State::Absent && ruling.rule.is_some();
        let effect = if decided { Effect::Dropped } else { Effect::Unknown };
        let rule = named(&ruling);
        let because = ruling.verdict.map(|verdict| verdict.because).unwrap_or_default();
        let mut item = self.worded(item, rule, self.kernel_stage(), effect, because);
        item.group = Group::GuestKernel;
        if let Some(parent) = ruling.exact.as_ref().and_then(Exact::cleared_with) {
            item.cause = format!("It follows from {parent}. {}", item.cause);
            item.remedy = self.of_parent(&parent).unwrap_or(item.remedy);
            item.follows = Some(parent.into_owned());
            item.group = Group::Follows;
        }
        item.confidence = if decided { Confidence::Likely } else { Confidence::Possible };
        let perhaps = ruling.perhaps.iter().filter(|other| Some(other.id) != rule.map(|rule| rule.id));
        item.others = perhaps.map(|rule| other(rule, self.kernel_stage())).collect();
        let unseen = !decided && self.machine.cpuid().is_none() && item.place.and_then(Place::cpuid).is_some();
        if unseen && self.is_guest() {
            item.others.extend(rules::generic(Software::Qemu, "model").map(|rule| other(rule, Stage::Qemu)));
        } else if unseen {
            let firmware = rules::generic(Software::Silicon, "hidden-by-firmware");
            item.others.extend(firmware.map(|rule| other(rule, Stage::Silicon)));
        }
        item
    }

    /// What brings the parent back, together with which a feature was cleared.
    fn of_parent(&self, parent: &str) -> Option<Remedy> {
        let Lack { relation, machine, peer, .. } = *self;
        let (tree, way) = Lack { relation, flag: parent, machine, peer }.likeliest();
        let rule = match &way {
            Some(Way::Ruled(ruling)) => named(ruling)?,
            _ => return None,
        };
        let feature = parent.to_owned().into();
        let (effect, at) = (Effect::Dropped, self.kernel_stage());
        let step = Step {
            feature,
            place: place(parent, tree),
            at,
            effect,
            rule: rule.id,
            cite: rule.cite,
            because: Grounds::NONE,
        };
        Some(reason::of_step(&step, tree).remedy)
    }

    /// The two kernels go by different rules.
    fn only_there(&self, item: Item, rule: &'static Rule, nearest: Option<&'static Rule>) -> Item {
        let mut item = self.worded(item, Some(rule), self.kernel_stage(), Effect::Dropped, Grounds::NONE);
        item.cause = format!("The kernel that shows it goes by a rule that the other does not have. {}", item.cause);
        item.group = Group::GuestKernel;
        item.confidence = Confidence::Likely;
        item.others = nearest.map(|rule| other(rule, self.kernel_stage())).into_iter().collect();
        item
    }

    /// By all that is known the kernel would show it: somebody asked it not to, or a feature that it hangs on is gone.
    fn cleared(&self, item: Item, seen: Option<Evidence>) -> Item {
        let rule = rules::generic(Software::Linux, "clearcpuid");
        let because = seen.into_iter().collect();
        let mut item = self.worded(item, rule, self.kernel_stage(), Effect::Unknown, because);
        item.group = Group::GuestKernel;
        item.confidence = Confidence::Possible;
        let others =
            ["dependency", "not-on-all-cpus"].into_iter().filter_map(|when| rules::generic(Software::Linux, when));
        item.others = others.map(|rule| other(rule, self.kernel_stage())).collect();
        item
    }

    /// Puts a rule's words and its step into an answer.
    fn worded(&self, mut item: Item, rule: Option<&'static Rule>, at: Stage, effect: Effect, because: Grounds) -> Item {
        let Some(rule) = rule else { return item };
        let feature = item.flag.clone().into();
        let step = Step { feature, place: item.place, at, effect, rule: rule.id, cite: rule.cite, because };
        let words = reason::of_step(&step, self.machine.kernels().last().unwrap_or(0));
        item.at = Some(at);
        item.rule = words.rule;
        item.title = words.title;
        item.cause = words.cause;
        item.cite = words.cite;
        item.remedy = words.remedy;
        item.steps.push(step);
        item
    }
}

/// Where a tree takes the flag from, or, if it does not know it, the newest tree that does.
fn place(flag: &str, tree: usize) -> Option<Place> {
    if let Some(row) = linux::feature_by_id(tree, flag) {
        return linux::place(tree, row);
    }
    let row = linux::by_id(flag).last()?;
    linux::place(row.trees.last().unwrap_or(tree), row)
}

/// Whether a vendor makes CPUs with this feature.
fn makes(vendor: Option<Vendor>, flag: &str) -> bool {
    let (Some(vendor), Some(feature)) = (vendor, x86::feature(flag)) else { return true };
    match feature.vendor {
        Scope::Intel => matches!(vendor, Vendor::Intel | Vendor::Zhaoxin | Vendor::Centaur),
        Scope::Amd => matches!(vendor, Vendor::Amd | Vendor::Hygon),
        Scope::Via => matches!(vendor, Vendor::Zhaoxin | Vendor::Centaur),
        _ => true,
    }
}

fn other(rule: &'static Rule, at: Stage) -> Other {
    Other { at, rule: rule.id, cause: rule.cause.to_owned(), cite: rule.cite }
}
