//! Where everything in the sieve picture stands.

use cpusieve_model::Stage;

use super::columns::{Column, columns};
use super::label::{LETTER, LINE, Line, class, heading, lines, said, title, wrap};
use super::n;
use crate::way::{Fate, Group, Side, Ways};

/// The picture's width, in pixels at its natural size.
pub(super) const WIDTH: f64 = 1240.0;
pub(super) const LEFT: f64 = 92.0;
pub(super) const RIGHT: f64 = 112.0;
/// Before the first sieve, the band is seen coming.
pub(super) const LEAD: f64 = 26.0;
/// The band is at most so high, and a feature in it.
const BAND: f64 = 250.0;
const FEATURE: f64 = 2.4;
/// Below the headings.
const HEADER: f64 = 88.0;
/// The inner radius of the bend out of the band.
const BEND: f64 = 12.0;
const GAP: f64 = 13.0;

/// A stroke.
pub(super) struct Ribbon {
    pub(super) path: String,
    pub(super) width: f64,
    pub(super) class: &'static str,
    /// Of [`Layout::gradients`].
    pub(super) gradient: Option<usize>,
}

/// A group: its ribbon and what is said beside it.
pub(super) struct Block {
    pub(super) id: String,
    pub(super) class: &'static str,
    pub(super) open: bool,
    pub(super) title: String,
    pub(super) members: Vec<usize>,
    pub(super) ribbons: Vec<Ribbon>,
    /// Where the ribbon ends: x, y and height.
    pub(super) cap: Option<(f64, f64, f64)>,
    pub(super) lines: Vec<Line>,
}

/// A sieve.
pub(super) struct Bar {
    pub(super) x: f64,
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) notes: Vec<String>,
    /// How many it takes and adds.
    pub(super) change: String,
    pub(super) sieve: bool,
    /// The band's edges where it crosses.
    pub(super) top: f64,
    pub(super) base: f64,
    pub(super) bottom: f64,
}

/// The whole picture.
pub(super) struct Layout {
    pub(super) height: f64,
    pub(super) bars: Vec<Bar>,
    pub(super) band: Vec<Ribbon>,
    pub(super) blocks: Vec<Block>,
    /// From, to, and the class of the colour at the end.
    pub(super) gradients: Vec<(f64, f64, &'static str)>,
}

impl Layout {
    /// Lays out all ways.
    pub(super) fn of(ways: &Ways) -> Self {
        let columns = columns(ways);
        let from_start = ways.ways.iter().filter(|way| way.enters.is_none()).count();
        let (most, _) = columns.iter().fold((from_start, from_start), |(most, now), column| {
            let now = (now + Column::count(&column.added)).saturating_sub(Column::count(&column.lost));
            (most.max(now + Column::count(&column.lost)), now)
        });
        let unit = (BAND / most.max(1) as f64).min(FEATURE);
        let above = columns.iter().map(|column| fountain_height(column, ways, unit)).fold(0.0, f64::max);
        let band = Band { top: HEADER + above + 14.0, base: 0.0, unit };
        let mut drawing = Drawing {
            ways,
            layout: Self { height: 0.0, bars: Vec::new(), band: Vec::new(), blocks: Vec::new(), gradients: Vec::new() },
            band: Band { base: band.top + from_start as f64 * unit, ..band },
        };
        drawing.start(from_start);
        let end = WIDTH - RIGHT;
        let last = columns.len();
        for (number, column) in columns.iter().enumerate() {
            let next = columns.get(number + 1).map_or(end, |next| next.x);
            let before = if number == 0 { LEFT } else { columns.get(number - 1).map_or(LEFT, |before| before.x) };
            drawing.column(column, before, next, number + 1 == last);
        }
        drawing.finish(end);
        drawing.layout
    }
}

/// How high the added groups of a column stand above the band.
fn fountain_height(column: &Column, ways: &Ways, unit: f64) -> f64 {
    let total = Column::count(&column.added) as f64 * unit;
    let width = column.width - total - BEND - 18.0;
    let lines: usize = column.added.iter().map(|(_, group)| said(group, ways, width).len()).sum();
    if lines == 0 { 0.0 } else { lines as f64 * LINE + GAP * column.added.len() as f64 + BEND + total }
}

/// The band: its edges, and the height of a feature.
#[derive(Clone, Copy)]
struct Band {
    top: f64,
    base: f64,
    unit: f64,
}

struct Drawing<'a> {
    ways: &'a Ways,
    layout: Layout,
    band: Band,
}

impl Drawing<'_> {
    /// The band as it comes, and what is said of it.
    fn start(&mut self, count: usize) {
        let Band { top, base, .. } = self.band;
        let middle = f64::midpoint(top, base);
        let line = |y, class, text| Line { x: LEFT - 12.0, y, class, text, flags: Vec::new() };
        let lines = vec![
            line(middle - 1.0, "figure", count.to_string()),
            line(middle + 15.0, "end", self.ways.from_to.0.clone()),
        ];
        self.layout.blocks.push(Block {
            id: "start".to_owned(),
            class: "start",
            open: false,
            title: format!("{count} features come out of {}", self.ways.from_to.0),
            members: Vec::new(),
            ribbons: Vec::new(),
            cap: None,
            lines,
        });
        self.segment(LEFT, LEFT + LEAD);
    }

    /// A piece of the band.
    fn segment(&mut self, from: f64, to: f64) {
        let Band { top, base, .. } = self.band;
        if base - top > 0.05 {
            let path = format!("M{} {}H{}", n(from), n(f64::midpoint(top, base)), n(to + 0.5));
            self.layout.band.push(Ribbon { path, width: base - top, class: "kept", gradient: None });
        }
    }

    fn column(&mut self, column: &Column, before: f64, next: f64, last: bool) {
        let entering = self.band;
        let (lost, added) = (Column::count(&column.lost), Column::count(&column.added));
        let joined = self.fountain(column, next, last);
        let bottom = self.delta(column, before, next);
        let unit = self.band.unit;
        self.band.base -= lost as f64 * unit;
        if added > 0 {
            self.segment(column.x, joined);
            self.band.top -= added as f64 * unit;
            self.segment(joined, next);
        } else {
            self.segment(column.x, next);
        }
        let change = match (lost, added) {
            (0, 0) => String::new(),
            (lost, 0) => format!("−{lost}"),
            (0, added) => format!("+{added}"),
            (lost, added) => format!("−{lost} +{added}"),
        };
        let index = Stage::ALL.iter().position(|&stage| stage == column.stage).unwrap_or(0);
        let note = self.ways.sieves.get(index).filter(|note| !note.is_empty());
        let room = (column.width / LETTER) as usize;
        let mut notes: Vec<String> = note.map(|note| wrap(note, room)).unwrap_or_default();
        notes.truncate(2);
        self.layout.bars.push(Bar {
            x: column.x,
            class: class(Some(column.stage)),
            name: heading(column.stage),
            notes,
            change,
            sieve: lost + added > 0,
            top: entering.top - added as f64 * unit,
            base: entering.base,
            bottom: bottom.max(entering.base + 10.0),
        });
    }

    /// What a sieve adds comes from above and turns into the band; says where all of it has joined.
    fn fountain(&mut self, column: &Column, next: f64, last: bool) -> f64 {
        let Band { top, unit, .. } = self.band;
        let total = Column::count(&column.added) as f64 * unit;
        let turn = column.x + BEND + total;
        let text = column.x + total + 10.0;
        let width = column.width - total - BEND - 18.0;
        let mut y = top - total - BEND;
        // The rightmost strip is the innermost: it turns first, and its label stands lowest.
        let mut inner = 0.0;
        for (number, group) in &column.added {
            let size = group.members.len() as f64 * unit;
            let radius = BEND + inner + size / 2.0;
            let x = turn - radius;
            let said = said(group, self.ways, width);
            y -= said.len() as f64 * LINE + GAP;
            let land = top - total - BEND + radius;
            let gained =
                group.members.iter().filter_map(|&at| self.ways.ways.get(at)).all(|way| way.fate == Fate::Gained);
            let end = if gained && last { next } else { turn };
            let path = format!(
                "M{} {}V{}A{r} {r} 0 0 0 {} {}H{}",
                n(x),
                n(y + 2.0),
                n(top - total - BEND),
                n(turn),
                n(land),
                n(end),
                r = n(radius)
            );
            let class = if gained { "gained" } else { "made" };
            let ribbon = Ribbon { path, width: (size - 0.4).max(0.6), class, gradient: None };
            let lines = lines(said, text, y + 11.0);
            self.push(*number, group, class, vec![ribbon], None, lines);
            inner += size;
        }
        turn
    }

    /// What a sieve takes turns down out of the band and ends beside its label; says how deep that goes.
    fn delta(&mut self, column: &Column, before: f64, next: f64) -> f64 {
        let Band { base, unit, .. } = self.band;
        let total = Column::count(&column.lost) as f64 * unit;
        let bend = |size: f64| size / 2.0 + 9.0;
        let mut right: f64 = 0.0;
        let mut outer = total;
        for (_, group) in &column.lost {
            let size = group.members.len() as f64 * unit;
            right = right.max(outer - size / 2.0 + bend(size));
            outer -= size;
        }
        let start = column.x + BEND;
        let text = start + right + 18.0;
        let width = next - text - 14.0;
        let mut y = base + BEND + 10.0;
        let mut outer = total;
        let fade = (column.x - 120.0).max(before + 4.0);
        for (number, group) in &column.lost {
            let size = group.members.len() as f64 * unit;
            let said = said(group, self.ways, width.max(90.0));
            let high = (said.len() as f64 * LINE).max(size);
            let offset = outer - size / 2.0;
            let (radius, turn) = (BEND + offset, bend(size));
            let middle = (y + (size / 2.0).max(7.0)).max(base + BEND + turn);
            y = middle - (size / 2.0).max(7.0);
            let x = start + offset;
            let path = format!(
                "M{} {}H{}A{a} {a} 0 0 1 {} {}V{}A{t} {t} 0 0 0 {} {}H{}",
                n(fade),
                n(base - offset),
                n(column.x),
                n(x),
                n(base + BEND),
                n(middle - turn),
                n(x + turn),
                n(middle),
                n(text - 10.0),
                a = n(radius),
                t = n(turn)
            );
            let class = class(group.at);
            self.layout.gradients.push((fade, column.x, class));
            let gradient = Some(self.layout.gradients.len() - 1);
            let ribbon = Ribbon { path, width: (size - 0.4).max(0.6), class, gradient };
            let cap = Some((text - 9.0, middle - size / 2.0, size.max(1.5)));
            let lines = lines(said, text, y + 11.0);
            self.push(*number, group, class, vec![ribbon], cap, lines);
            y += high + GAP;
            outer -= size;
        }
        self.layout.height = self.layout.height.max(y);
        y
    }

    fn push(
        &mut self,
        number: usize,
        group: &Group,
        class: &'static str,
        ribbons: Vec<Ribbon>,
        cap: Option<(f64, f64, f64)>,
        lines: Vec<Line>,
    ) {
        let id = format!("{}{number}", if group.side == Side::Leaves { "l" } else { "e" });
        let title = title(group, self.ways);
        let members = group.members.clone();
        self.layout.blocks.push(Block { id, class, open: group.open, title, members, ribbons, cap, lines });
    }

    /// What comes out at the end, by fate.
    fn finish(&mut self, end: f64) {
        let Band { top, base, unit } = self.band;
        let mut y = top;
        let mut floor = top - 20.0;
        for fate in [Fate::Gained, Fate::Kept, Fate::Unprinted, Fate::Open, Fate::Lost] {
            let through =
                |index: &usize| self.ways.ways.get(*index).is_some_and(|way| way.fate == fate && way.leaves.is_none());
            let members: Vec<usize> = (0..self.ways.ways.len()).filter(through).collect();
            if members.is_empty() {
                continue;
            }
            let size = members.len() as f64 * unit;
            let text = (y + size / 2.0 + 1.0).max(floor + 20.0);
            let line = |y, class, text| Line { x: end + 14.0, y, class, text, flags: Vec::new() };
            let word = match fate {
                Fate::Gained => "gained",
                Fate::Kept => "kept",
                Fate::Unprinted => "unprinted",
                Fate::Open => "open",
                Fate::Lost => "lost",
            };
            let class = if fate == Fate::Gained { "gained" } else { "through" };
            self.layout.blocks.push(Block {
                id: word.to_owned(),
                class,
                open: false,
                title: format!("{} {word}, to {}", members.len(), self.ways.from_to.1),
                cap: Some((end + 5.0, y + 0.5, (size - 1.0).max(1.5))),
                lines: vec![line(text, "figure", members.len().to_string()), line(text + 15.0, "end", word.to_owned())],
                members,
                ribbons: Vec::new(),
            });
            y += size;
            floor = text + 15.0;
        }
        self.layout.bars.push(Bar {
            x: end + 5.0,
            class: "s-end",
            name: "",
            notes: vec![self.ways.from_to.1.clone()],
            change: String::new(),
            sieve: false,
            top,
            base,
            bottom: 64.0,
        });
        self.layout.height = self.layout.height.max(base + 24.0).max(floor + 12.0).ceil();
    }
}
