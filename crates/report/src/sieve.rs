//! The sieve picture: a band of features flows from left to right; what a sieve takes bends down out of it, what a sieve
//! adds comes from above. Widths are numbers of features.

mod columns;
mod label;
mod layout;

pub(crate) use label::{class, heading};

use maud::{Markup, PreEscaped, html};

use crate::way::Ways;
use label::Line;
use layout::{Block, Layout, Ribbon, WIDTH};

/// The picture, as the inside of a page; `standalone` adds what a file of its own needs.
pub(crate) fn picture(ways: &Ways, title: &str, standalone: bool) -> Markup {
    let layout = Layout::of(ways);
    let height = layout.height;
    html! {
        svg #picture .sieve xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height:.0}"))
            width=(WIDTH) height=(format!("{height:.0}"))
            role="group" aria-label=(format!("Sieve picture: {title}. The table of features says the same in words.")) {
            @if standalone {
                title { (title) }
                style { (PreEscaped(crate::assets::PICTURE_CSS)) }
                rect .paper width="100%" height="100%" {}
            }
            defs { @for (index, gradient) in layout.gradients.iter().enumerate() { (fade(index, gradient)) } }
            g #scene {
                @for bar in &layout.bars { (bar_of(bar)) }
                @for ribbon in &layout.band { (ribbon_of(ribbon, &layout)) }
                @for block in &layout.blocks { (block_of(block, ways, &layout)) }
                @for bar in &layout.bars { (teeth(bar)) }
            }
        }
    }
}

fn fade(index: usize, (from, to, class): &(f64, f64, &'static str)) -> Markup {
    html! {
        linearGradient id=(format!("fade{index}")) gradientUnits="userSpaceOnUse" x1=(n(*from)) x2=(n(*to)) y1="0" y2="0" {
            stop .from offset="0" {}
            stop class=(class) offset="1" {}
        }
    }
}

/// A number with a tenth of a pixel.
fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn bar_of(bar: &layout::Bar) -> Markup {
    html! {
        g .stage .(bar.class) {
            line .rule x1=(n(bar.x)) x2=(n(bar.x)) y1="72" y2=(n(bar.bottom)) {}
            text .name x=(n(bar.x)) y="20" {
                (bar.name)
                @if !bar.change.is_empty() { tspan .change dx="7" { (bar.change) } }
            }
            @for (row, note) in bar.notes.iter().enumerate() {
                text .note x=(n(bar.x)) y=(n(37.0 + 14.0 * row as f64)) { (note) }
            }
        }
    }
}

/// The sieve itself: a bar with holes, across the band.
fn teeth(bar: &layout::Bar) -> Markup {
    html! {
        @if bar.sieve {
            line .teeth .(bar.class) x1=(n(bar.x)) x2=(n(bar.x)) y1=(n(bar.top - 7.0)) y2=(n(bar.base + 7.0)) {}
        }
    }
}

fn ribbon_of(ribbon: &Ribbon, layout: &Layout) -> Markup {
    let width = format!("stroke-width:{}", n(ribbon.width));
    let paint = ribbon.gradient.filter(|&index| index < layout.gradients.len());
    let style = paint.map_or(width.clone(), |index| format!("{width};stroke:url(#fade{index})"));
    html! { path .flow .(ribbon.class) d=(ribbon.path) style=(style) {} }
}

fn block_of(block: &Block, ways: &Ways, layout: &Layout) -> Markup {
    let names: Vec<&str> =
        block.members.iter().filter_map(|&at| ways.ways.get(at)).map(|way| way.feature.as_str()).collect();
    let label = format!("{}: {}", block.title, names.join(" "));
    if block.members.is_empty() {
        return html! { g .(block.class) { @for line in &block.lines { (line_of(line, ways)) } } };
    }
    html! {
        g .group .(block.class) .open[block.open] tabindex="0" role="button" aria-label=(label)
            data-g=(block.id) data-m=(format!("{:?}", block.members)) {
            title { (label) }
            @for ribbon in &block.ribbons { (ribbon_of(ribbon, layout)) }
            @if let Some((x, y, height)) = block.cap {
                line .cap x1=(n(x)) x2=(n(x)) y1=(n(y)) y2=(n(y + height)) {}
            }
            @for line in &block.lines { (line_of(line, ways)) }
        }
    }
}

fn line_of(line: &Line, ways: &Ways) -> Markup {
    html! {
        text .(line.class) x=(n(line.x)) y=(n(line.y)) {
            @if line.flags.is_empty() { (line.text) }
            @for (index, &at) in line.flags.iter().enumerate() {
                @if let Some(way) = ways.ways.get(at) {
                    @if index > 0 { " " }
                    tspan .flag data-f=(at) { (label::short(&way.feature)) }
                }
            }
            @if !line.flags.is_empty() && !line.text.is_empty() { tspan .title dx="8" { (line.text) } }
        }
    }
}
