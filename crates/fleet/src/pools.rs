//! The best split of a fleet into pools: each host runs guests with what its whole pool has.

use std::collections::BTreeMap;

use crate::baseline::{features, once};
use crate::catalogue::{Catalogue, Property};
use crate::fleet::{Fleet, Kind};
use crate::host::Setting;
use crate::naming::{self, Hosts, Named};
use crate::offer::{Offer, closed};

/// Kinds of hosts up to which all splits are looked at; beyond, pools are merged step by step, and single kinds moved.
const EXACT: usize = 12;

/// Kinds of hosts beyond which the most alike are not looked for: memory and time grow with their square and cube.
pub const MOST_KINDS: usize = 256;

/// What a feature is worth, by id; 1 where it is not named.
pub type Weights = BTreeMap<String, u64>;

/// A split into pools.
#[derive(Clone, Debug)]
pub struct Split {
    /// The pools, the largest first.
    pub pools: Vec<Pool>,
    /// The sum, over all hosts, of the weights of the features of their pools.
    pub value: u64,
    /// Whether no split into as many pools has a higher value.
    pub best: bool,
    /// The features that some hosts have beyond the baseline of all, and how many hosts.
    pub gained: Vec<(&'static str, usize)>,
}

/// Hosts that share a CPU.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The positions of its hosts in [`Fleet::members`].
    pub hosts: Vec<usize>,
    /// How many hosts there are, those without a member among them.
    pub count: usize,
    /// The ids of the features that run on all of them.
    pub features: Vec<&'static str>,
    /// The model with its differences; `None` if no model runs unfiltered.
    pub model: Option<Named>,
}

/// Too many kinds of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kinds} kinds of hosts; pools are looked for among at most {MOST_KINDS}")]
pub struct TooManyKinds {
    /// How many there are.
    pub kinds: usize,
}

/// A pool on the way: kinds, what they offer together, and what that is worth.
#[derive(Clone)]
struct Group {
    kinds: Vec<usize>,
    offer: Offer,
    value: u64,
}

struct Scale<'a> {
    catalogue: &'a Catalogue,
    /// The weight of each feature, and its properties: two where two vendors have bits of their own.
    weights: Vec<(u64, Vec<&'a Property>)>,
    migratable: bool,
    kinds: &'a [Kind],
}

impl<'a> Scale<'a> {
    fn new(catalogue: &'a Catalogue, weights: &Weights, migratable: bool, kinds: &'a [Kind]) -> Self {
        let mut by_id: BTreeMap<&str, (u64, Vec<&Property>)> = BTreeMap::new();
        for property in catalogue.properties() {
            let weight = weights.get(property.id).copied().unwrap_or(1);
            by_id.entry(property.id).or_insert_with(|| (weight, Vec::new())).1.push(property);
        }
        Self { catalogue, weights: by_id.into_values().collect(), migratable, kinds }
    }

    fn group(&self, kinds: Vec<usize>, offer: Offer) -> Group {
        let words = features(&offer, self.catalogue, self.migratable);
        let there = self.weights.iter().filter(|(_, bits)| bits.iter().any(|property| property.is_in(&words)));
        let sum = there.fold(0_u64, |sum, (weight, _)| sum.saturating_add(*weight));
        let hosts: usize = kinds.iter().filter_map(|&kind| self.kinds.get(kind)).map(|kind| kind.hosts).sum();
        Group { value: sum.saturating_mul(hosts as u64), kinds, offer }
    }

    fn merged(&self, one: &Group, other: &Group) -> Group {
        let kinds = one.kinds.iter().chain(&other.kinds).copied().collect();
        self.group(kinds, one.offer.and(&other.offer))
    }
}

/// The best splits into 1 to `most` pools, fewest pools first: the frontier between pools and features. A number of pools
/// beyond the number of kinds is not in it.
///
/// # Errors
/// If there are more kinds of hosts than [`MOST_KINDS`].
pub fn pools(
    fleet: &Fleet,
    setting: &Setting<'_>,
    migratable: bool,
    weights: &Weights,
    most: usize,
) -> Result<Vec<Split>, TooManyKinds> {
    let kinds = fleet.kinds();
    let all = kinds.len().saturating_add(fleet.rest().map_or(0, |rest| rest.rows));
    if all > MOST_KINDS {
        return Err(TooManyKinds { kinds: all });
    }
    let catalogue = Catalogue::of(setting.release);
    let scale = Scale::new(&catalogue, weights, migratable, kinds);
    let most = most.min(kinds.len());
    let best = kinds.len() <= EXACT;
    let splits = if best { every(&scale, most) } else { step_by_step(&scale, most) };
    let mut all = Vec::new();
    for groups in splits {
        let groups = if best { groups } else { improved(&scale, groups) };
        all.push(split(fleet, setting, &scale, groups, best));
    }
    let base = all.first().and_then(|split| split.pools.first()).map(|pool| pool.features.clone()).unwrap_or_default();
    for split in &mut all {
        split.gained = gained(split, &base);
    }
    Ok(all)
}

fn gained(split: &Split, base: &[&'static str]) -> Vec<(&'static str, usize)> {
    let mut gained: BTreeMap<&'static str, usize> = BTreeMap::new();
    for pool in &split.pools {
        for &id in pool.features.iter().filter(|id| !base.contains(id)) {
            *gained.entry(id).or_default() += pool.count;
        }
    }
    let mut gained: Vec<_> = gained.into_iter().collect();
    gained.sort_by_key(|&(id, hosts)| (std::cmp::Reverse(hosts), id));
    gained
}

/// All splits of few kinds: the best into one pool, two, and so on, by what the best splits of fewer kinds are.
fn every(scale: &Scale<'_>, most: usize) -> Vec<Vec<Group>> {
    let count = scale.kinds.len();
    let all = (1_usize << count) - 1;
    let members = |mask: usize| (0..count).filter(move |kind| mask >> kind & 1 == 1);
    let group = |mask: usize| {
        let offer = Fleet::common(members(mask).filter_map(|kind| scale.kinds.get(kind)))?;
        Some(scale.group(members(mask).collect(), offer))
    };
    let groups: Vec<Option<Group>> = (0..=all).map(group).collect();
    let value = |mask: usize| groups.get(mask).and_then(Option::as_ref).map_or(0, |group| group.value);
    // For each set of kinds: the best value of exactly so many pools, and the pool of its lowest kind there.
    let mut before: Vec<Option<(u64, usize)>> =
        (0..=all).map(|mask| (mask != 0).then(|| (value(mask), mask))).collect();
    let mut tables = vec![before.clone()];
    for _ in 1..most {
        let next = (0..=all).map(|mask| best_of(mask, &before, &value)).collect();
        before = next;
        tables.push(before.clone());
    }
    let read = |pools: usize| {
        let (mut mask, mut found) = (all, Vec::new());
        for table in tables.iter().take(pools).rev() {
            let &(_, pool) = table.get(mask)?.as_ref()?;
            found.push(groups.get(pool)?.clone()?);
            mask &= !pool;
        }
        Some(found)
    };
    (1..=most).filter_map(read).collect()
}

/// The best pool of the lowest kind of a set, with the best split of the others.
fn best_of(mask: usize, before: &[Option<(u64, usize)>], value: &impl Fn(usize) -> u64) -> Option<(u64, usize)> {
    let lowest = mask & mask.wrapping_neg();
    let mut best = None;
    let mut pool = mask;
    while pool != 0 {
        if pool & lowest != 0
            && let Some((rest, _)) = before.get(mask & !pool).copied().flatten()
        {
            let sum = value(pool).saturating_add(rest);
            if best.is_none_or(|(highest, _)| sum > highest) {
                best = Some((sum, pool));
            }
        }
        pool = (pool - 1) & mask;
    }
    best
}

/// Merges, again and again, the two pools whose union costs least.
fn step_by_step(scale: &Scale<'_>, most: usize) -> Vec<Vec<Group>> {
    let single = |(at, kind): (usize, &Kind)| scale.group(vec![at], kind.offer.clone());
    let mut groups: Vec<Group> = scale.kinds.iter().enumerate().map(single).collect();
    let mut unions: BTreeMap<(usize, usize), (u64, Group)> = BTreeMap::new();
    // Groups are known by their first kind, which no other has.
    let key = |group: &Group| group.kinds.first().copied().unwrap_or_default();
    let mut splits = Vec::new();
    while !groups.is_empty() {
        if groups.len() <= most {
            splits.push(groups.clone());
        }
        for (at, one) in groups.iter().enumerate() {
            for other in groups.iter().skip(at + 1) {
                unions.entry((key(one), key(other))).or_insert_with(|| {
                    let union = scale.merged(one, other);
                    (one.value.saturating_add(other.value).saturating_sub(union.value), union)
                });
            }
        }
        let Some((&(one, other), _)) = unions.iter().min_by_key(|(_, (loss, _))| *loss) else { break };
        let Some((_, union)) = unions.remove(&(one, other)) else { break };
        unions.retain(|&(a, b), _| ![a, b].iter().any(|key| [one, other].contains(key)));
        groups.retain(|group| ![one, other].contains(&key(group)));
        groups.insert(0, union);
        groups.sort_by_key(key);
    }
    splits.reverse();
    splits
}

/// Moves single kinds into other pools as long as that is worth something.
fn improved(scale: &Scale<'_>, mut groups: Vec<Group>) -> Vec<Group> {
    const ROUNDS: usize = 4;
    for _ in 0..ROUNDS {
        let mut moved = false;
        for kind in 0..scale.kinds.len() {
            moved |= moves(scale, &mut groups, kind).is_some();
        }
        if !moved {
            break;
        }
    }
    groups
}

/// Moves one kind to where it is worth most; `None` if that is where it is, or its pool would be empty.
fn moves(scale: &Scale<'_>, groups: &mut [Group], kind: usize) -> Option<()> {
    let from = groups.iter().position(|group| group.kinds.contains(&kind))?;
    let own = groups.get(from)?;
    let left: Vec<usize> = own.kinds.iter().copied().filter(|&other| other != kind).collect();
    let offer = Fleet::common(left.iter().filter_map(|&other| scale.kinds.get(other)))?;
    let left = scale.group(left, offer);
    let gain = i128::from(left.value) - i128::from(own.value);
    let alone = scale.group(vec![kind], scale.kinds.get(kind)?.offer.clone());
    let others = groups.iter().enumerate().filter(|(at, _)| *at != from);
    let grown = others.map(|(at, group)| {
        let union = scale.merged(group, &alone);
        (i128::from(union.value) - i128::from(group.value), at, union)
    });
    let (gained, to, union) = grown.max_by_key(|(gained, ..)| *gained)?;
    if gain + gained <= 0 {
        return None;
    }
    *groups.get_mut(from)? = left;
    *groups.get_mut(to)? = union;
    Some(())
}

fn split(fleet: &Fleet, setting: &Setting<'_>, scale: &Scale<'_>, groups: Vec<Group>, best: bool) -> Split {
    let value = groups.iter().fold(0_u64, |sum, group| sum.saturating_add(group.value));
    let pool = |group: Group| {
        let of_pool = |&(_, member): &(usize, &crate::Member)| group.kinds.contains(&member.kind);
        let hosts = fleet.members().iter().enumerate().filter(of_pool).map(|(at, _)| at).collect();
        let words = features(&group.offer, scale.catalogue, scale.migratable);
        let kinds: Vec<&Kind> = group.kinds.iter().filter_map(|&kind| scale.kinds.get(kind)).collect();
        let offered = closed(group.offer.words, setting.release);
        let model = naming::name(&Hosts::of_kinds(&kinds), scale.catalogue, setting, &words, &offered);
        let count = kinds.iter().map(|kind| kind.hosts).sum();
        let features = once(scale.catalogue.in_words(&words).map(|property| property.id).collect());
        Pool { hosts, count, features, model }
    };
    let mut pools: Vec<Pool> = groups.into_iter().map(pool).collect();
    pools.sort_by_key(|pool| (std::cmp::Reverse(pool.count), pool.hosts.first().copied()));
    Split { pools, value, best, gained: Vec::new() }
}

#[cfg(test)]
mod tests {
    use cpusieve_knowledge::qemu::{RELEASES, WORD_COUNT};
    use cpusieve_model::Vendor;

    use super::*;

    /// Kinds whose words come from a counter: alike, and not the same.
    fn kinds(count: u64) -> Vec<Kind> {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 8) | (state >> 16) | (state << 40)
        };
        let kind = |hosts| {
            let words = [(); WORD_COUNT].map(|()| next() | next());
            let offer = Offer { words, own: words, kvm: words, phys_bits: 46 };
            Kind { offer, vendor: Vendor::Other, signature: 0, ground: None, hosts }
        };
        (1..=usize::try_from(count).unwrap()).map(kind).collect()
    }

    fn sum(groups: &[Group]) -> u64 {
        groups.iter().map(|group| group.value).sum()
    }

    #[test]
    fn merging_is_never_better_than_looking_at_every_split() {
        let kinds = kinds(7);
        let catalogue = Catalogue::of(RELEASES.len() - 1);
        let weights = Weights::from([("avx512f".to_owned(), 7)]);
        let scale = Scale::new(&catalogue, &weights, true, &kinds);
        let (best, merged) = (every(&scale, 7), step_by_step(&scale, 7));
        assert_eq!((best.len(), merged.len()), (7, 7));
        for (number, (best, merged)) in best.iter().zip(&merged).enumerate() {
            for groups in [best, merged] {
                assert_eq!(groups.len(), number + 1);
                let mut of_all: Vec<usize> = groups.iter().flat_map(|group| group.kinds.clone()).collect();
                of_all.sort_unstable();
                assert_eq!(of_all, (0..7).collect::<Vec<_>>());
            }
            assert!(sum(best) >= sum(merged), "{number}");
            let improved = improved(&scale, merged.clone());
            assert!(sum(best) >= sum(&improved) && sum(&improved) >= sum(merged), "{number}");
            assert_eq!(improved.iter().map(|group| group.kinds.len()).sum::<usize>(), 7);
        }
        // A further pool never costs anything, and alone each kind has all that it offers.
        assert!(best.windows(2).all(|pair| sum(&pair[0]) <= sum(&pair[1])));
        assert_eq!(sum(&best[0]), sum(&merged[0]));
        assert_eq!(sum(&best[6]), sum(&merged[6]));
    }
}
