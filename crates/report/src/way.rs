//! One feature's way through the sieves, and ways grouped by what ended or began them.

use cpusieve_answers::diff::{Item, Other};
use cpusieve_answers::reason::{self, Confidence, Remedy};
use cpusieve_model::{Effect, Place, Stage, Step};

/// All features of a page, on their ways.
#[derive(Clone, Debug)]
pub struct Ways {
    /// The features, each once.
    pub ways: Vec<Way>,
    /// What stands in each sieve's place: `Linux 6.0`, `QEMU 10.0, -cpu host`; empty where nothing is known.
    pub sieves: [String; 6],
    /// The last sieve of the picture.
    pub until: Stage,
    /// Where the picture begins and where it ends, in machine order: `host`, `guest`.
    pub from_to: (String, String),
    /// What is compared, the first end first; at most two.
    pub ends: Vec<End>,
}

/// One end of a comparison.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// What it is: `host`, `guest`, a file's name.
    pub name: String,
    /// What is known of it.
    pub facts: Vec<(String, String)>,
    /// The flags that it shows, in its order.
    pub flags: Vec<String>,
}

/// What the two ends show of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The first shows it, the second does not.
    Lost,
    /// What is known does not decide it.
    Open,
    /// The second shows it, the first does not.
    Gained,
    /// Both show it.
    Kept,
    /// Neither line shows it: it has no word there.
    Unprinted,
}

impl Fate {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] = [Self::Lost, Self::Open, Self::Gained, Self::Kept, Self::Unprinted];

    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Open => "open",
            Self::Gained => "gained",
            Self::Kept => "kept",
            Self::Unprinted => "unprinted",
        }
    }
}

/// Why a way begins or ends where it does.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The sieve; `None` if nothing explains it.
    pub at: Option<Stage>,
    /// The rule's identity; empty if none is known.
    pub rule: String,
    /// What the rule is about, in a few words.
    pub title: String,
    /// Why, in one or two sentences.
    pub text: String,
    /// Where it stands in the real software; empty if nowhere.
    pub cite: String,
    /// How sure it is; `None` where a prediction leaves no choice.
    pub confidence: Option<Confidence>,
    /// What brings the feature back, or takes it away.
    pub remedy: Option<Remedy>,
    /// The flag from whose loss this one follows.
    pub follows: Option<String>,
    /// Other ways in which it may have happened.
    pub others: Vec<Other>,
}

impl Cause {
    pub(crate) fn of_item(item: &Item) -> Self {
        Self {
            at: item.at,
            rule: item.rule.0.to_owned(),
            title: item.title.clone(),
            text: item.cause.clone(),
            cite: item.cite.0.to_owned(),
            confidence: Some(item.confidence),
            remedy: Some(item.remedy.clone()),
            follows: item.follows.clone(),
            others: item.others.clone(),
        }
    }

    /// The words of a step that was taken under a kernel tree.
    pub(crate) fn of_step(step: &Step, tree: usize) -> Self {
        let words = reason::of_step(step, tree);
        Self {
            at: Some(step.at),
            rule: step.rule.0.to_owned(),
            title: words.title,
            text: words.cause,
            cite: step.cite.0.to_owned(),
            confidence: None,
            remedy: (step.effect == Effect::Dropped).then_some(words.remedy),
            follows: None,
            others: Vec::new(),
        }
    }
}

/// One feature.
#[derive(Clone, Debug)]
pub struct Way {
    /// The kernel's name, or whatever the input called it.
    pub feature: String,
    /// Where it lives.
    pub place: Option<Place>,
    /// What the ends show of it.
    pub fate: Fate,
    /// What each sieve did.
    pub steps: Vec<Step>,
    /// Who added it; `None` if it came out of the silicon, or from before the picture.
    pub enters: Option<Cause>,
    /// Who took it, or left it open; `None` if it goes through.
    pub leaves: Option<Cause>,
    /// What it is worth in performance, in words, where somebody measured.
    pub price: Option<String>,
}

/// What a sieve did to a feature, as the table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A step says it.
    Did(Effect),
    /// It went through: no rule speaks of it.
    Passed,
    /// It is not there, or is no bit that this sieve sees.
    Nothing,
}

impl Cell {
    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Did(effect) => effect.name(),
            Self::Passed => "passed",
            Self::Nothing => "not there",
        }
    }
}

impl Way {
    /// What each sieve did, in machine order.
    #[must_use]
    pub fn cells(&self) -> [Cell; 6] {
        let came_in = self.fate != Fate::Gained
            && self.steps.first().map_or(self.fate == Fate::Kept, |step| {
                matches!(step.effect, Effect::Kept | Effect::Dropped | Effect::Unknown)
            });
        // What Linux invents is no bit, so neither KVM nor QEMU sees it.
        let invented = matches!(self.place, Some(Place::Linux(_)));
        let mut present = came_in && !invented;
        Stage::ALL.map(|stage| match self.steps.iter().rev().find(|step| step.at == stage) {
            Some(step) => {
                present = !matches!(step.effect, Effect::Dropped | Effect::Unknown);
                Cell::Did(step.effect)
            }
            None if present && !(invented && stage > Stage::Host) => Cell::Passed,
            None => Cell::Nothing,
        })
    }

    /// Why it begins, or ends.
    #[must_use]
    pub fn cause(&self, side: Side) -> Option<&Cause> {
        match side {
            Side::Enters => self.enters.as_ref(),
            Side::Leaves => self.leaves.as_ref(),
        }
    }

    /// The step with which it came into being on the way.
    pub(crate) fn first_added(steps: &[Step]) -> Option<&Step> {
        steps.first().filter(|step| matches!(step.effect, Effect::Added | Effect::Forced))
    }

    /// The step that ended it, or that left it open; `None` if it is there in the end.
    pub(crate) fn ended_by(steps: &[Step]) -> Option<&Step> {
        let mut end = None;
        for step in steps {
            match step.effect {
                Effect::Dropped | Effect::Unknown => end = end.or(Some(step)),
                Effect::Kept | Effect::Added | Effect::Forced => end = None,
            }
        }
        end
    }
}

/// Which end of a way a group is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where ways begin.
    Enters,
    /// Where they end.
    Leaves,
}

/// Ways that begin or end by one rule at one sieve.
#[derive(Clone, Debug)]
pub struct Group {
    /// Whether they begin or end.
    pub side: Side,
    /// The sieve.
    pub at: Option<Stage>,
    /// Whether what is known does not decide it.
    pub open: bool,
    /// By how many rules: one, unless groups were joined to be told together.
    pub rules: usize,
    /// The positions of the ways.
    pub members: Vec<usize>,
}

impl Ways {
    /// The groups of one side, by sieve, the largest first.
    #[must_use]
    pub fn groups(&self, side: Side) -> Vec<Group> {
        let mut keys = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (index, way) in self.ways.iter().enumerate() {
            let Some(cause) = way.cause(side) else { continue };
            let open = side == Side::Leaves && way.fate == Fate::Open;
            let doubt = cause.confidence.filter(|&confidence| confidence != Confidence::Certain);
            let gained = side == Side::Enters && way.fate == Fate::Gained;
            let key = (cause.at, cause.rule.as_str(), cause.title.as_str(), doubt, open, gained);
            match keys.iter().position(|known| *known == key).and_then(|at| groups.get_mut(at)) {
                Some(group) => group.members.push(index),
                None => {
                    keys.push(key);
                    groups.push(Group { side, at: cause.at, open, rules: 1, members: vec![index] });
                }
            }
        }
        groups.sort_by_key(|group| (group.at.is_none(), group.at, std::cmp::Reverse(group.members.len())));
        groups
    }

    /// How many features have a fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.ways.iter().filter(|way| way.fate == fate).count()
    }
}
