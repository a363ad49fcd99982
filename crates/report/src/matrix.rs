//! The picture of a fleet: a row for each kind of host, a column for each set of features that go together.

use std::collections::HashMap;
use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use crate::hosts::Hosts;

const WIDTH: f64 = 1240.0;
const LEFT: f64 = 216.0;
const RIGHT: f64 = 30.0;
/// Room for the columns' names, which stand aslant.
const TOP: f64 = 128.0;
/// Columns' names stand at least so far apart; one between them is told by the pointer, and by the list of features.
const NAMED: f64 = 11.0;
/// Between two pools.
const POOL: f64 = 8.0;
/// The longest name of a host or a column.
const LONGEST: usize = 34;

/// Where rows and columns stand.
pub(crate) struct Grid {
    /// The left edges of the columns, and the right edge of the last.
    pub(crate) edges: Vec<f64>,
    /// The height of a row, and the rows' middles.
    pub(crate) row: f64,
    pub(crate) rows: Vec<f64>,
    /// The positions of the kinds, from top to bottom.
    pub(crate) order: Vec<usize>,
    /// Of each column the positions of its features.
    pub(crate) columns: Vec<Vec<usize>>,
}

impl Grid {
    pub(crate) fn of(fleet: &Hosts) -> Self {
        let (order, breaks) = order(fleet);
        let columns = columns(fleet, &order);
        let weight: f64 = columns.iter().map(|column| width_of(column)).sum();
        let scale = if weight > 0.0 { (WIDTH - LEFT - RIGHT) / weight } else { 1.0 };
        // A handful of columns shall not become barn doors.
        let scale = scale.min(34.0);
        let mut edges = vec![LEFT];
        for column in &columns {
            let last = edges.last().copied().unwrap_or(LEFT);
            edges.push((10.0 * (last + scale * width_of(column))).round() / 10.0);
        }
        let row = match order.len() {
            0..=30 => 18.0,
            31..=90 => 13.0,
            _ => 10.0,
        };
        let mut y = TOP + row / 2.0;
        let mut rows = Vec::with_capacity(order.len());
        for number in 0..order.len() {
            if breaks.contains(&number) {
                y += POOL;
            }
            rows.push(y);
            y += row;
        }
        Self { edges, row, rows, order, columns }
    }
}

/// Features that go together need less room than as many that do not.
fn width_of(column: &[usize]) -> f64 {
    1.0 + 0.35 * (column.len().max(1) as f64).log2()
}

/// Kinds by pool, those that offer most first; and where pools begin.
fn order(fleet: &Hosts) -> (Vec<usize>, Vec<usize>) {
    let mut pool = vec![0; fleet.kinds.len()];
    for (number, (kinds, ..)) in fleet.pools.last().iter().flat_map(|split| &split.pools).enumerate() {
        for &kind in kinds {
            if let Some(of_kind) = pool.get_mut(kind) {
                *of_kind = number;
            }
        }
    }
    let key = |&at: &usize| {
        let offers = fleet.kinds.get(at).map_or(0, |kind| kind.has.iter().filter(|&&has| has).count());
        (pool.get(at).copied().unwrap_or(0), std::cmp::Reverse(offers), at)
    };
    let mut order: Vec<usize> = (0..fleet.kinds.len()).collect();
    order.sort_by_key(key);
    let of = |row: usize| order.get(row).and_then(|&at| pool.get(at));
    let breaks = (1..order.len()).filter(|&row| of(row) != of(row - 1)).collect();
    (order, breaks)
}

/// Features with the same hosts in one column; the most widespread first.
fn columns(fleet: &Hosts, order: &[usize]) -> Vec<Vec<usize>> {
    let mut columns: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<Vec<bool>, usize> = HashMap::new();
    for feature in 0..fleet.features.len() {
        let pattern: Vec<bool> =
            order.iter().map(|&at| fleet.kinds.get(at).and_then(|kind| kind.has.get(feature)) == Some(&true)).collect();
        let next = columns.len();
        match columns.get_mut(*known.entry(pattern).or_insert(next)) {
            Some(column) => column.push(feature),
            None => columns.push(vec![feature]),
        }
    }
    columns
}

fn short(name: &str, most: usize) -> String {
    if name.chars().count() <= most { name.to_owned() } else { name.chars().take(most - 1).chain(['…']).collect() }
}

/// The picture.
pub(crate) fn picture(fleet: &Hosts, title: &str, standalone: bool) -> Markup {
    let grid = Grid::of(fleet);
    let bottom = grid.rows.last().map_or(TOP, |last| last + grid.row / 2.0);
    let height = bottom + 16.0;
    html! {
        svg #picture .matrix xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}"))
            width=(WIDTH) height=(height)
            role="group" aria-label=(format!("Hosts and features: {title}. The table of hosts says the same in words.")) {
            @if standalone {
                title { (title) }
                style { (PreEscaped(crate::assets::PICTURE_CSS)) }
                rect .paper width="100%" height="100%" {}
            }
            g #scene {
                @for (number, (column, named)) in grid.columns.iter().zip(named(&grid.edges)).enumerate() {
                    (heading((number, named), column, &grid, fleet, bottom))
                }
                @for (row, &at) in grid.order.iter().enumerate() { (line(row, at, &grid, fleet)) }
                rect #cross .cross width="0" height="0" {}
            }
        }
    }
}

/// Which columns have room for a name.
fn named(edges: &[f64]) -> Vec<bool> {
    let mut last = f64::NEG_INFINITY;
    let middles = edges.iter().zip(edges.iter().skip(1)).map(|(&from, &to)| f64::midpoint(from, to));
    middles
        .map(|middle| {
            let room = middle - last >= NAMED;
            last = if room { middle } else { last };
            room
        })
        .collect()
}

fn heading((number, named): (usize, bool), column: &[usize], grid: &Grid, fleet: &Hosts, bottom: f64) -> Markup {
    let edge = |at: usize| grid.edges.get(at).copied().unwrap_or(LEFT);
    let (from, to) = (edge(number), edge(number + 1));
    let middle = f64::midpoint(from, to);
    let first = column.first().and_then(|&at| fleet.features.get(at)).map_or("", String::as_str);
    let more = if column.len() > 1 { format!(" +{}", column.len() - 1) } else { String::new() };
    html! {
        g .column data-b=(number) {
            rect .lane x=(from) y=(TOP) width=(format!("{:.1}", to - from)) height=(format!("{:.1}", bottom - TOP)) {}
            @if named {
                text .flags transform=(format!("translate({:.1} {}) rotate(-58)", middle + 3.0, TOP - 6.0)) {
                    (short(first, LONGEST - 16)) (more)
                }
            }
        }
    }
}

fn line(row: usize, at: usize, grid: &Grid, fleet: &Hosts) -> Markup {
    let Some(kind) = fleet.kinds.get(at) else { return html! {} };
    let middle = grid.rows.get(row).copied().unwrap_or(TOP);
    let has = |column: &&Vec<usize>| column.first().and_then(|&at| kind.has.get(at)) == Some(&true);
    let alone = |column: &&Vec<usize>| {
        column.first().and_then(|&at| fleet.features.get(at)).is_some_and(|id| kind.alone.contains(id))
    };
    html! {
        g .host tabindex="-1" data-k=(at) {
            text .name x=(LEFT - 10.0) y=(format!("{:.1}", middle + 3.5)) { (short(&kind.name(), LONGEST)) }
            path .has d=(runs(grid, middle, has)) style=(format!("stroke-width:{}", grid.row - 1.5)) {}
            path .alone d=(runs(grid, middle, alone)) style=(format!("stroke-width:{}", grid.row - 1.5)) {}
        }
    }
}

/// Columns for which something holds, as horizontal strokes.
fn runs(grid: &Grid, y: f64, holds: impl Fn(&&Vec<usize>) -> bool) -> String {
    let mut path = String::new();
    let edge = |at: usize| grid.edges.get(at).copied().unwrap_or(LEFT);
    for (number, column) in grid.columns.iter().enumerate() {
        if holds(&column) {
            let _ = write!(
                path,
                "M{:.1} {y:.1}h{:.1}",
                edge(number) + 0.5,
                (edge(number + 1) - edge(number) - 1.0).max(0.5)
            );
        }
    }
    path
}
