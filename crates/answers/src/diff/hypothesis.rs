//! Which kernels, which QEMU, which `-cpu`? Those under which the least remains unexplained.

use cpusieve_knowledge::kvm;
use cpusieve_knowledge::rules::{self, Software};
use cpusieve_knowledge::{TreeSet, linux, own, qemu};
use cpusieve_model::{CpuidBit, FlagList, Place, Stage, State, Step};
use cpusieve_stages::linux::kernel;
use cpusieve_stages::qemu::{Command, CpuArgument};
use cpusieve_stages::{Machine, Passage, World, vcpu};

use super::Assumption;

/// From this many flags on that `-cpu host` would have kept, something else than `host` was asked for.
const OTHER_MODEL: usize = 4;

/// The world that fits best.
pub(super) struct Chosen<'a> {
    pub(super) world: World<'a>,
    /// Whether one of several host kernels fits better than all others.
    host_decided: bool,
    /// The host kernels that fit equally well.
    tied: TreeSet,
    qemu_told: Option<String>,
    qemu_fits: TreeSet,
}

/// Tries every combination of kernels and QEMU that the two ends leave open.
///
/// The host's kernel and QEMU decide what reaches the vCPU, the guest's kernel what it makes of that: the two choices are
/// made one after the other. Of a QEMU that is known with its command line nothing has to be chosen.
pub(super) fn choose<'a>(
    host: &'a Machine<'a>,
    guest: &'a Machine<'a>,
    (lost, gained): (&[&'a str], &[&'a str]),
    started: Option<(usize, Command<'a>)>,
) -> Chosen<'a> {
    // Flags that were concluded are those of one kernel, whichever may really run there.
    let guest_trees = guest.concluded_for.map_or_else(|| guest.trees(), |tree| TreeSet(1 << tree));
    let guest_tree = guest_trees.last().unwrap_or(linux::TREES.len() - 1);
    let told = host.snapshot.qemu.first().map(|binary| binary.version.clone());
    let releases: Vec<usize> = match told.as_deref().map(qemu::nearest) {
        Some(nearest) => vec![nearest.release],
        None => (0..qemu::RELEASES.len()).rev().collect(),
    };
    let trees = host.trees();
    let newest = releases.first().copied().unwrap_or(qemu::RELEASES.len() - 1);
    let first = World {
        guest: Some(guest),
        guest_tree,
        qemu: newest,
        guest_proves: false,
        whole: false,
        ..World::of_host(host)
    };
    if let (Some((release, command)), true) = (started, trees.is_single() && guest_trees.is_single()) {
        // Nothing is left to choose.
        let qemu_fits = TreeSet(1 << release);
        let mut chosen = Chosen { world: first, host_decided: false, tied: trees, qemu_told: told, qemu_fits };
        chosen.start(release, command);
        return chosen;
    }
    let subjects = subjects(host, guest, lost, gained);
    let only =
        |holds: &dyn Fn(&Subject<'a>) -> bool| subjects.iter().filter(|subject| holds(subject)).collect::<Vec<_>>();
    // A named model may lack what was lost, whichever the kernel, and a captured CPUID does not tell the two apart; but
    // what arrived cannot have come by a KVM that does not offer it.
    let arrived_only = guest.cpuid().is_some();
    let tells_trees = only(&|subject| {
        let counts = subject.fate != Fate::Lost || !arrived_only;
        counts && subject.bit.is_some_and(|bit| differs_by_tree(trees, subject.name, bit))
    });
    let tells_guest = only(&|subject| subject.bit.is_none() && kernel::differs(guest_trees, subject.name));
    let by_tree: Vec<(usize, World<'a>)> = trees
        .iter()
        .map(|host_tree| World { host_tree, ..first })
        .map(|world| (misfits(&tells_trees, &world), world))
        .collect();
    let fewest = by_tree.iter().map(|(cost, _)| *cost).min().unwrap_or(0);
    let best: Vec<World<'a>> = by_tree.iter().filter(|(cost, _)| *cost == fewest).map(|(_, world)| *world).collect();
    let of_tree = best.first().copied().unwrap_or(first);
    let tied = TreeSet(best.iter().fold(0, |set, world| set | 1 << world.host_tree));
    let host_decided = best.len() == 1 && by_tree.len() > 1;
    if let Some((release, command)) = started.filter(|_| guest_trees.iter().count() <= 1) {
        let qemu_fits = TreeSet(1 << release);
        let mut chosen = Chosen { world: of_tree, host_decided, tied, qemu_told: told, qemu_fits };
        chosen.start(release, command);
        return chosen;
    }
    let tells_qemu =
        only(&|subject| subject.bit.is_some_and(|bit| vcpu::mirrored(bit).is_none() && differs_by_qemu(bit)));
    let worlds = [true, false].into_iter().flat_map(|migratable| {
        let cpu = CpuArgument::Host { migratable };
        releases.iter().map(move |&qemu| World { qemu, cpu, ..of_tree })
    });
    // KVM's part is the same in all of these worlds.
    let offers = tells_qemu.iter().filter_map(|subject| Some((*subject, subject.bit?)));
    let offers: Vec<_> = offers.map(|(subject, bit)| (subject, bit, of_tree.offered(subject.name, bit))).collect();
    let price = |world: &World<'_>| -> usize {
        offers.iter().map(|&(subject, bit, offered)| subject.misfit(world.given(subject.name, bit, offered))).sum()
    };
    let priced: Vec<(usize, World<'a>)> = worlds.map(|world| (price(&world), world)).collect();
    let least = priced.iter().map(|(cost, _)| *cost).min().unwrap_or(0);
    let mut world = priced.iter().find(|(cost, _)| *cost == least).map_or(of_tree, |(_, world)| *world);
    let fits = priced.iter().filter(|(cost, other)| *cost == least && other.cpu == world.cpu);
    let qemu_fits = TreeSet(fits.fold(0, |set, (_, world)| set | 1 << world.qemu));
    let lost = subjects.iter().filter(|subject| subject.fate == Fate::Lost);
    let proved = World { guest_proves: guest.cpuid().is_some(), ..world };
    let unexplained = lost.filter(|subject| left_out(&proved.pass(subject.name))).count();
    if unexplained >= OTHER_MODEL {
        world.cpu = CpuArgument::Other;
    }
    if guest_trees.iter().count() > 1 {
        let trees = guest_trees.iter().map(|guest_tree| World { guest_tree, ..world });
        world = cheapest(trees, |world| misfits(&tells_guest, world)).unwrap_or(world);
    }
    (world.guest_proves, world.whole) = (true, true);
    let mut chosen = Chosen { world, host_decided, tied, qemu_told: told, qemu_fits };
    started.into_iter().for_each(|(release, command)| chosen.start(release, command));
    chosen
}

/// Whether `-cpu host` would have kept a flag that is lost, or the guest's CPUID shows that QEMU left it out.
fn left_out(passage: &Passage) -> bool {
    let by_model =
        |step: &Step| step.at == Stage::Qemu && rules::rule(step.rule.0).is_some_and(|rule| rule.when == Some("model"));
    passage.outcome == State::Present || passage.culprit().is_some_and(by_model)
}

/// The first of the worlds that cost least.
fn cheapest<'a>(worlds: impl Iterator<Item = World<'a>>, cost: impl Fn(&World<'_>) -> usize) -> Option<World<'a>> {
    worlds.min_by_key(|world| cost(world))
}

/// The CPUID bit that a flag is, in some of these trees.
fn bit_of(trees: TreeSet, flag: &str) -> Option<CpuidBit> {
    trees.iter().find_map(|tree| linux::feature_by_id(tree, flag).and_then(|row| linux::place(tree, row))?.cpuid())
}

/// Whether every hypothesis drops a bit: no KVM offers it, and no QEMU adds it.
fn never_offered(bit: CpuidBit) -> bool {
    let added = |release| qemu::fixups(release, Place::Cpuid(bit)).next().is_some();
    kvm::trees_offering(bit).is_empty() && !(0..qemu::RELEASES.len()).any(added)
}

/// Whether KVM treats a bit differently from tree to tree.
fn differs_by_tree(trees: TreeSet, flag: &str, bit: CpuidBit) -> bool {
    let mut caps = trees.iter().map(|tree| kvm::cap(tree, bit).map(|cap| (cap.kind, cap.conditional)));
    let first = caps.next();
    let some = |set: TreeSet| !set.intersection(trees).is_empty() && set.intersection(trees) != trees;
    caps.any(|cap| Some(cap) != first) || rules::of_feature(Software::Kvm, flag).any(|rule| some(*rule.trees))
}

/// Whether QEMU treats a bit differently from release to release, or by `migratable`.
fn differs_by_qemu(bit: CpuidBit) -> bool {
    let place = Place::Cpuid(bit);
    let newest = qemu::RELEASES.len() - 1;
    let fixed_up_otherwise = |release| !qemu::fixups(release, place).eq(qemu::fixups(newest, place));
    let everywhere = qemu::bit(place).is_some_and(|bit| {
        bit.named.iter().count() == qemu::RELEASES.len() && bit.unmigratable.is_empty() && bit.no_autoenable.is_empty()
    });
    !everywhere || (0..newest).any(fixed_up_otherwise)
}

/// What became of a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Gained,
    Kept,
}

/// A flag by which hypotheses are told apart.
struct Subject<'a> {
    name: &'a str,
    /// The bit that it is, unless Linux invents it.
    bit: Option<CpuidBit>,
    fate: Fate,
}

/// All flags of both ends but those that every hypothesis drops.
fn subjects<'a>(
    host: &'a Machine<'a>,
    guest: &'a Machine<'a>,
    lost: &[&'a str],
    gained: &[&'a str],
) -> Vec<Subject<'a>> {
    let kept = host.flags().into_iter().flat_map(FlagList::iter).filter(|name| guest.prints(name) == Some(true));
    let with = |fate: Fate| move |name: &'a str| Subject { name, bit: bit_of(host.trees(), name), fate };
    let lost = lost.iter().copied().map(with(Fate::Lost)).filter(|subject| !subject.bit.is_some_and(never_offered));
    lost.chain(gained.iter().copied().map(with(Fate::Gained))).chain(kept.map(with(Fate::Kept))).collect()
}

impl Subject<'_> {
    /// What it costs a hypothesis to predict this. A flag that is there must be accounted for; one that is missing may
    /// have been taken out by hand.
    fn misfit(&self, predicted: State) -> usize {
        let (seen, weight) = if self.fate == Fate::Lost { (State::Absent, 1) } else { (State::Present, 2) };
        if contradicts(predicted, seen) { weight } else { 0 }
    }
}

/// How much a world predicts otherwise than it was seen.
fn misfits(subjects: &[&Subject<'_>], world: &World<'_>) -> usize {
    let predicted = |subject: &Subject<'_>| match subject.bit {
        Some(bit) => world.delivered(subject.name, bit),
        None => world.pass(subject.name).outcome,
    };
    subjects.iter().map(|subject| subject.misfit(predicted(subject))).sum()
}

fn contradicts(predicted: State, seen: State) -> bool {
    predicted.known().is_some_and(|predicted| Some(predicted) != seen.known())
}

impl<'a> Chosen<'a> {
    /// Takes QEMU and its command line for known.
    fn start(&mut self, release: usize, command: Command<'a>) {
        let (cpu, command) = (command.argument(), Some(command));
        self.world = World { qemu: release, cpu, command, guest_proves: true, whole: true, ..self.world };
    }

    /// The worlds that may answer differently for a flag: one, unless KVM's treatment of it tells the tied kernels apart.
    pub(super) fn worlds(&self, flag: &str) -> Vec<World<'a>> {
        match bit_of(self.tied, flag) {
            Some(bit) if differs_by_tree(self.tied, flag, bit) => {
                self.tied.iter().map(|host_tree| World { host_tree, ..self.world }).collect()
            }
            _ => vec![self.world],
        }
    }

    /// What the answer rests on and neither input says.
    pub(super) fn assumptions(&self) -> Vec<Assumption> {
        let World { host, guest, host_tree, guest_tree, cpu, command, .. } = self.world;
        let mut assumed = Vec::new();
        let add = &mut |what: &str, value: String, because: String| {
            assumed.push(Assumption { what: what.to_owned(), value, because });
        };
        if let Some(guess) = host.generations().first() {
            let told = host.family_model().is_some();
            let because = if told {
                "family, model and flags".to_owned()
            } else {
                format!("its flags; probability {:.2}", guess.score)
            };
            add("CPU", guess.generation.name.to_owned(), because);
        }
        assumed_kernel("host kernel", host, host_tree, self.host_decided, add);
        if let Some(guest) = guest {
            assumed_kernel("guest kernel", guest, guest_tree, false, add);
        }
        if command.is_some() {
            return assumed;
        }
        let value = match cpu {
            CpuArgument::Host { migratable: true } => "host",
            CpuArgument::Host { migratable: false } => "host,migratable=off (or +invtsc)",
            CpuArgument::Other => "not plain host: a named model, or features taken out",
        };
        add("-cpu", value.to_owned(), "fits what was lost and kept".to_owned());
        let because = if self.qemu_told.is_some() { "the record names it" } else { "fits what was lost and kept" };
        add("QEMU", self.qemu(), because.to_owned());
        assumed
    }

    fn qemu(&self) -> String {
        let label = |release: usize| qemu::RELEASES[release].label;
        match (&self.qemu_told, self.qemu_fits.first(), self.qemu_fits.last()) {
            (Some(told), ..) => told.clone(),
            (None, Some(first), Some(last)) if first != last => format!("{} to {}", label(first), label(last)),
            _ => label(self.world.qemu).to_owned(),
        }
    }
}

/// Which kernel was assumed; `decided` if the comparison chose between several that the flags allow.
fn assumed_kernel(
    what: &str,
    machine: &Machine<'_>,
    tree: usize,
    decided: bool,
    add: &mut impl FnMut(&str, String, String),
) {
    use kernel::Because;
    let label = linux::TREES[tree].label;
    let (value, because) = match &machine.kernel.because {
        Because::Release(_) if own::is_own(tree) => (label.to_owned(), crate::predict::imported(tree)),
        Because::Release(_) => return,
        Because::NearRelease(release) => (label.to_owned(), format!("the nearest release that is known to {release}")),
        Because::Flags if decided => {
            let range = machine.kernel.describe();
            (label.to_owned(), format!("the names in its flags line and their order allow {range}; this fits best"))
        }
        Because::Flags => (machine.kernel.describe(), "the names in its flags line and their order".to_owned()),
        Because::Nothing => (label.to_owned(), "nothing tells the release".to_owned()),
    };
    add(what, value, because);
}
