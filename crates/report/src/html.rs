//! The page around the picture.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;

use crate::page::{Assumed, Body, Holds, Page, Sheet};
use crate::way::{End, Fate, Ways};
use crate::{assets, embed, hosts, matrix, panel, prices, sieve, table};

/// The page as one HTML file, which loads nothing.
#[must_use]
pub fn html(page: &Page) -> String {
    let (kind, answer) = embed::answer(&page.json.1);
    let data = match &page.body {
        Body::Ways(ways) => panel::of_ways(ways),
        Body::Hosts(hosts) => hosts::data(hosts),
        Body::Chart(_) => json!({"kind": "chart"}),
    };
    // A chart stands before its numbers.
    let first = usize::from(!matches!(page.body, Body::Chart(_)));
    let data = embed::script_json(&json!({"file": page.json.0, "page": data}));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(embed::policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content="cpusieve";
                title { (page.title) " · cpusieve" }
                style { (PreEscaped(assets::PICTURE_CSS)) (PreEscaped(assets::PAGE_CSS)) }
            }
            body {
                a .skip href="#features" { "To the table" }
                (header(page))
                main {
                    @for sheet in page.sheets.iter().take(first) { (sheet_of(sheet)) }
                    @match &page.body {
                        Body::Ways(ways) => (of_ways(page, ways)),
                        Body::Hosts(fleet) => (hosts::sections(page, fleet)),
                        Body::Chart(chart) => (prices::section(page, chart)),
                    }
                    @for sheet in page.sheets.iter().skip(first) { (sheet_of(sheet)) }
                    (beneath(page))
                }
                aside #panel aria-live="polite" aria-label="The chosen feature" hidden="" {}
                script #data type="application/json" { (PreEscaped(data)) }
                script #answer type=(kind) { (PreEscaped(answer)) }
                script { (PreEscaped(assets::SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// The picture alone, as a file of its own.
#[must_use]
pub fn svg(page: &Page) -> String {
    match &page.body {
        Body::Ways(ways) => sieve::picture(ways, &page.title, true),
        Body::Hosts(hosts) => matrix::picture(hosts, &page.title, true),
        Body::Chart(chart) => prices::picture(chart, &page.title, true),
    }
    .into_string()
}

fn header(page: &Page) -> Markup {
    html! {
        header .top {
            div .bar {
                span .brand { "cpusieve" }
                div .actions {
                    button #save type="button" { "JSON" }
                    button #print type="button" { "Print" }
                    button #theme type="button" aria-label="Switch between light and dark" { "Theme" }
                }
            }
            h1 { (page.title) }
            p .lead { (page.lead) }
            ul .figures {
                @for figure in &page.figures {
                    li .(figure.tone.class()) { b { (figure.count) } " " (figure.what) }
                }
            }
            @if !page.facts.is_empty() {
                dl .facts { @for (what, value) in &page.facts { div { dt { (what) } dd { (value) } } } }
            }
        }
    }
}

/// A picture that can be zoomed and dragged.
pub(crate) fn frame(picture: Markup, what: &str) -> Markup {
    html! {
        figure .frame aria-label=(what) {
            div .zoom role="group" aria-label="Zoom" {
                button type="button" data-zoom="in" aria-label="Zoom in" { "+" }
                button type="button" data-zoom="out" aria-label="Zoom out" { "−" }
                button type="button" data-zoom="all" aria-label="Show all" { "⤢" }
            }
            div .canvas tabindex="-1" { (picture) }
        }
    }
}

fn of_ways(page: &Page, ways: &Ways) -> Markup {
    html! {
        section aria-labelledby="h-picture" {
            h2 #h-picture { "The way through the sieves" }
            p .hint { "Widths are numbers of features. Choose a ribbon to see who took it and why, or a flag." }
            (frame(sieve::picture(ways, &page.title, false), "Sieve picture"))
        }
        section aria-labelledby="h-features" {
            h2 #h-features { "Every feature" }
            (search(ways))
            div .scroll { (table::table(ways)) }
            p .legend aria-hidden="true" {
                @for (mark, word) in
                    [("k", "kept"), ("d", "dropped"), ("a", "added"), ("f", "forced"), ("u", "unknown"), ("p", "passed")] {
                    span { i .(mark) {} " " (word) }
                }
            }
        }
        (causes(ways))
        @if ways.ends.iter().any(|end| !end.flags.is_empty()) {
            section aria-labelledby="h-ends" {
                h2 #h-ends { "Side by side" }
                div .ends { @for (number, end) in ways.ends.iter().enumerate() { (side(number, end, ways)) } }
            }
        }
    }
}

fn search(ways: &Ways) -> Markup {
    html! {
        div .tools role="search" {
            label .find {
                span .hidden { "Search features" }
                input #find type="search" placeholder="Search: flag, bit, rule, any name" autocomplete="off" spellcheck="false";
                kbd { "/" }
            }
            div .chips role="group" aria-label="Show" {
                button type="button" data-fate="" aria-pressed="true" { "all " b { (ways.ways.len()) } }
                @for fate in Fate::ALL.into_iter().filter(|&fate| ways.count(fate) > 0) {
                    button type="button" data-fate=(fate.name()) aria-pressed="false" {
                        (fate.name()) " " b { (ways.count(fate)) }
                    }
                }
            }
            p #shown .shown role="status" { (ways.ways.len()) " features" }
        }
    }
}

/// Each cause with its sentence and remedy: what the panel says, for paper and for readers without the script.
fn causes(ways: &Ways) -> Markup {
    let sections = table::sections(ways);
    html! {
        section .causes aria-labelledby="h-causes" {
            h2 #h-causes { "Causes and remedies" }
            @for section in sections.iter().filter(|section| section.fate != Fate::Unprinted) {
                @if let Some((way, cause)) =
                    section.members.first().and_then(|&at| ways.ways.get(at)).and_then(|way| Some((way, table::cause(way)?))) {
                    article .(sieve::class(cause.at)) .(way.fate.name()) {
                        h3 { (cause.title) }
                        p .flags {
                            @for &at in &section.members {
                                @if let Some(way) = ways.ways.get(at) { code data-f=(at) { (way.feature) } " " }
                            }
                        }
                        p { (marked(&cause.text)) }
                        @if let Some(remedy) = &cause.remedy { p .remedy { (marked(&remedy.text)) } }
                        p .cite {
                            @if let Some(sure) = cause.confidence { (sure.name()) " · " }
                            (cause.rule) " " code { (cause.cite) }
                        }
                    }
                }
            }
        }
    }
}

/// A sentence in which what stands between backticks is code.
fn marked(text: &str) -> Markup {
    let whole = text.matches('`').count().is_multiple_of(2);
    html! {
        @for (number, part) in text.split(|letter| whole && letter == '`').enumerate() {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn side(number: usize, end: &End, ways: &Ways) -> Markup {
    let position = |flag: &str| ways.ways.iter().position(|way| way.feature == flag);
    let other = if number == 0 { Fate::Lost } else { Fate::Gained };
    html! {
        div .end {
            h3 { (end.name) " " span .quiet { (end.flags.len()) " flags" } }
            @if !end.facts.is_empty() {
                dl { @for (what, value) in &end.facts { div { dt { (what) } dd { (value) } } } }
            }
            p .words {
                @for flag in &end.flags {
                    @match position(flag).and_then(|at| Some((at, ways.ways.get(at)?))) {
                        Some((at, way)) => code data-f=(at) .(if way.fate == other { other.name() } else { "same" }) { (flag) },
                        None => code { (flag) },
                    }
                    " "
                }
            }
        }
    }
}

fn sheet_of(sheet: &Sheet) -> Markup {
    html! {
        section {
            h2 { (sheet.title) }
            @if !sheet.hint.is_empty() { p .hint { (sheet.hint) } }
            @match &sheet.holds {
                Holds::Table(columns, rows) => div .scroll {
                    table .sheet {
                        thead { tr { @for column in columns { th scope="col" { (column) } } } }
                        tbody {
                            @for row in rows {
                                tr {
                                    @for (at, cell) in row.iter().enumerate() {
                                        @if at == 0 { th scope="row" { (cell.text) } }
                                        @else { td .(cell.tone.class()) { (cell.text) } }
                                    }
                                }
                            }
                        }
                    }
                },
                Holds::Pastes(texts) => @for (what, text) in texts {
                    p { (what) }
                    @if !text.is_empty() { pre .paste { code { (text) } } }
                },
            }
        }
    }
}

/// What the answer rests on.
fn beneath(page: &Page) -> Markup {
    html! {
        @if !page.doubts.is_empty() {
            section aria-labelledby="h-doubts" {
                h2 #h-doubts { "Before you believe it" }
                ul .doubts { @for doubt in &page.doubts { li { (doubt) } } }
            }
        }
        @if !page.assumed.is_empty() {
            section aria-labelledby="h-assumed" {
                h2 #h-assumed { "Assumed" }
                dl .assumed { @for each in &page.assumed { (assumption(each)) } }
            }
        }
        footer {
            p { "Made by cpusieve. This file holds everything it shows: the answer's JSON too, and loads nothing." }
            p .keys { kbd { "/" } " search " kbd { "↑" } kbd { "↓" } " move " kbd { "Enter" } " choose " kbd { "Esc" } " close" }
        }
    }
}

fn assumption(assumed: &Assumed) -> Markup {
    html! {
        div {
            dt { (assumed.what) }
            dd {
                b { (assumed.value) } " " span .quiet { (assumed.because) }
                @if let Some(hosts) = assumed.hosts { span .quiet { ", of " (hosts) " hosts" } }
                @if !assumed.hangs.is_empty() {
                    details {
                        summary { (assumed.hangs.len()) " hang on it" }
                        p .flags { @for name in &assumed.hangs { code { (name) } " " } }
                    }
                }
            }
        }
    }
}
