//! The sieves' columns in the picture, and which groups stand in each.

use cpusieve_model::Stage;

use super::layout::{LEAD, LEFT, RIGHT, WIDTH};
use crate::way::{Fate, Group, Side, Ways};

/// The narrowest column of a sieve.
const COLUMN: f64 = 97.0;
/// Groups that one sieve takes and that are named one by one; of more, the smallest are told together.
const NAMED: usize = 16;
/// Groups that one sieve adds and that are named one by one; more are told together, but for what a guest gains.
const MADE: usize = 4;

/// What happens at one sieve.
pub(super) struct Column {
    pub(super) stage: Stage,
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) lost: Vec<(usize, Group)>,
    pub(super) added: Vec<(usize, Group)>,
}

impl Column {
    /// How many ways are in some groups.
    pub(super) fn count(groups: &[(usize, Group)]) -> usize {
        groups.iter().map(|(_, group)| group.members.len()).sum()
    }
}

/// The sieves' columns: those with more to say are wider.
pub(super) fn columns(ways: &Ways) -> Vec<Column> {
    let mut lost: Vec<(usize, Group)> = ways.groups(Side::Leaves).into_iter().enumerate().collect();
    let mut added: Vec<(usize, Group)> = ways.groups(Side::Enters).into_iter().enumerate().collect();
    // What nobody explains is missing at the end.
    let at = |group: &Group| group.at.unwrap_or(ways.until).min(ways.until);
    let mut columns: Vec<Column> = Stage::ALL
        .into_iter()
        .filter(|&stage| stage <= ways.until)
        .map(|stage| Column {
            stage,
            x: 0.0,
            width: 0.0,
            lost: fewer(lost.extract_if(.., |(_, group)| at(group) == stage).collect(), (NAMED, NAMED - 1), |_| true),
            added: fewer(added.extract_if(.., |(_, group)| at(group) == stage).collect(), (MADE, 0), |group| {
                group.members.iter().filter_map(|&at| ways.ways.get(at)).all(|way| way.fate != Fate::Gained)
            }),
        })
        .collect();
    let need = |column: &Column| {
        let said = |groups: &[(usize, Group)]| {
            let letters: usize = groups
                .iter()
                .flat_map(|(_, group)| group.members.iter().take(60).filter_map(|&at| ways.ways.get(at)))
                .map(|way| way.feature.len() + 1)
                .sum();
            letters + 45 * groups.len()
        };
        (said(&column.lost).max(said(&column.added)) as f64).powf(0.85)
    };
    let all: f64 = columns.iter().map(need).sum();
    let spare = WIDTH - LEFT - LEAD - RIGHT - COLUMN * columns.len() as f64;
    let mut x = LEFT + LEAD;
    for column in &mut columns {
        let share = if all > 0.0 { need(column) / all } else { 0.0 };
        (column.x, column.width) = (x, COLUMN + spare * share);
        x += column.width;
    }
    if all == 0.0 {
        let width = (WIDTH - LEFT - LEAD - RIGHT) / columns.len().max(1) as f64;
        for (number, column) in columns.iter_mut().enumerate() {
            (column.x, column.width) = (LEFT + LEAD + width * number as f64, width);
        }
    }
    columns
}

/// At most so many groups of those that `small` allows to be told together; of more, the largest are kept and the rest
/// becomes one.
fn fewer(
    groups: Vec<(usize, Group)>,
    (most, kept): (usize, usize),
    small: impl Fn(&Group) -> bool,
) -> Vec<(usize, Group)> {
    let (mut small, mut alone): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, group)| small(group));
    if small.len() > most {
        let mut rest = small.split_off(kept);
        if let Some((number, mut first)) = (!rest.is_empty()).then(|| rest.remove(0)) {
            first.rules += rest.len();
            first.members.extend(rest.into_iter().flat_map(|(_, group)| group.members));
            small.push((number, first));
        }
    }
    alone.extend(small);
    alone
}
