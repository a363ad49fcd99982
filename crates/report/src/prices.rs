//! From the JSON of `price` to a page: what each feature is worth, as bars with their intervals.
//!
//! Prices come as their JSON, format 1, so that those of another machine, or kept ones, can be looked at too.

use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use crate::page::{Body, Figure, Holds, Mark, Page, Sheet, Tone};

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPrices {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    NoJson(String),
    /// It is JSON of something else.
    #[error("it is no answer of `cpusieve price --json`, format 1")]
    SomethingElse,
}

/// Bars that begin at 1, where a feature is worth nothing.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The bars, in their order.
    pub bars: Vec<Bar>,
}

/// One work with and without a feature.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The feature.
    pub feature: String,
    /// The work.
    pub work: String,
    /// The time without divided by the time with: lower end, median, upper end.
    pub ratio: [f64; 3],
}

/// Works that one page shows at most.
const MOST: usize = 512;

/// Below this a bar could not be drawn.
const SMALLEST: f64 = 1.0 / 1024.0;

/// The page of prices, of the answer of `price --json`.
///
/// # Errors
/// If the text is something else.
pub fn of_prices(json: String) -> Result<Page, NotPrices> {
    let answer: Value = serde_json::from_str(&json).map_err(|error| NotPrices::NoJson(error.to_string()))?;
    let prices = answer["prices"].as_array().filter(|_| answer["format"] == 1 && answer["machine"].is_object());
    let prices = prices.ok_or(NotPrices::SomethingElse)?;
    let bars: Vec<Bar> = prices.iter().take(MOST).filter_map(bar).collect();
    let machine = &answer["machine"];
    let known = |key: &str| machine[key].as_str().map(str::to_owned);
    let name = known("generation").or_else(|| known("brand")).unwrap_or_else(|| "a CPU".to_owned());
    let facts = [("machine", known("place")), ("kernel", known("kernel")), ("measured", known("date"))];
    let figure = |count, what: &str, tone| Figure { count, what: what.to_owned(), tone };
    let worth = bars.iter().filter(|bar| bar.ratio[0] > 1.0).count();
    let cost = bars.iter().filter(|bar| bar.ratio[2] < 1.0).count();
    let texts = |key: &str| -> Vec<String> {
        answer[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|each| each["text"].as_str().map(str::to_owned))
            .collect()
    };
    Ok(Page {
        title: format!("What CPU features are worth on {name}"),
        lead: "The same work with a feature and without it, on one CPU in turn.".to_owned(),
        figures: vec![
            figure(bars.len(), "works", Tone::Plain),
            figure(worth, "faster with the feature", Tone::Gained),
            figure(cost, "slower", Tone::Lost),
        ],
        facts: facts.into_iter().filter_map(|(what, value)| Some((what.to_owned(), value?))).collect(),
        sheets: vec![rates(prices), left_out(&texts("unpriced"))].into_iter().flatten().collect(),
        body: Body::Chart(Chart { bars }),
        assumed: Vec::new(),
        doubts: texts("doubts"),
        json: ("cpusieve-price.json".to_owned(), json),
    })
}

fn bar(price: &Value) -> Option<Bar> {
    let number = |key: &str| price["ratio"][key].as_f64().filter(|number| number.is_finite() && *number > 0.0);
    let ratio = [number("low")?, number("median")?, number("high")?];
    let text = |key: &str| price[key].as_str().map(str::to_owned);
    Some(Bar { feature: text("feature")?, work: text("title").or_else(|| text("work"))?, ratio })
}

/// The rates behind the ratios.
fn rates(prices: &[Value]) -> Option<Sheet> {
    let cell = |text: String, tone| Mark { text, tone };
    let rows = prices.iter().take(MOST).filter_map(|price| {
        let bar = bar(price)?;
        let spread = (bar.ratio[2] - bar.ratio[0]) / 2.0 / bar.ratio[1] * 100.0;
        let rate = |side: &str| {
            let rate =
                price[side]["rate"]["median"].as_f64().map_or_else(String::new, |rate| amount(rate, &price["unit"]));
            cell(rate, Tone::Plain)
        };
        let way = price["without"]["way"].as_str().unwrap_or_default().to_owned();
        let tone = match bar.ratio {
            [low, ..] if low > 1.0 => Tone::Gained,
            [.., high] if high < 1.0 => Tone::Lost,
            _ => Tone::Plain,
        };
        Some(vec![
            cell(bar.feature, Tone::Plain),
            cell(bar.work, Tone::Plain),
            cell(format!("{:.2}×", bar.ratio[1]), tone),
            cell(format!("± {spread:.1} %"), Tone::Plain),
            rate("with"),
            rate("without"),
            cell(way, Tone::Plain),
        ])
    });
    let rows: Vec<Vec<Mark>> = rows.collect();
    let columns = ["feature", "work", "worth", "interval", "with", "without", "the way without"].map(str::to_owned);
    let hint = "Medians; in 95 of 100 runs the true one lies within the interval.".to_owned();
    (!rows.is_empty()).then(|| Sheet {
        title: "Every work".to_owned(),
        hint,
        holds: Holds::Table(columns.into(), rows),
    })
}

fn left_out(texts: &[String]) -> Option<Sheet> {
    let rows = texts.iter().map(|text| vec![Mark { text: text.clone(), tone: Tone::Plain }]).collect();
    let holds = Holds::Table(vec!["why".to_owned()], rows);
    (!texts.is_empty()).then(|| Sheet { title: "Not priced".to_owned(), hint: String::new(), holds })
}

/// A rate, such as `4.05 GB/s`.
fn amount(rate: f64, unit: &Value) -> String {
    let unit = if unit == "bytes" { "B/s" } else { "/s" };
    let (scaled, prefix) = match rate {
        rate if rate >= 1e12 => (rate / 1e12, "T"),
        rate if rate >= 1e9 => (rate / 1e9, "G"),
        rate if rate >= 1e6 => (rate / 1e6, "M"),
        rate if rate >= 1e3 => (rate / 1e3, "k"),
        rate => (rate, ""),
    };
    format!("{scaled:.3} {prefix}{unit}")
}

/// The section with the chart.
pub(crate) fn section(page: &Page, chart: &Chart) -> Markup {
    html! {
        section aria-labelledby="h-chart" {
            h2 #h-chart { "Worth" }
            p .hint { "How many times as fast with the feature as without it, on a scale of doublings; the line across is the interval." }
            figure .frame #features aria-label="Worth of features" {
                div .canvas { (picture(chart, &page.title, false)) }
            }
        }
    }
}

/// Columns of the picture: where the names end, where bars begin and end.
const NAMES: f64 = 330.0;
const FIRST: f64 = 345.0;
const LAST: f64 = 960.0;
const ROW: f64 = 20.0;
const TOP: f64 = 34.0;

/// The picture.
pub(crate) fn picture(chart: &Chart, title: &str, standalone: bool) -> Markup {
    let all = || chart.bars.iter().flat_map(|bar| bar.ratio).map(|ratio| ratio.max(SMALLEST).log2());
    let (least, most) = (all().fold(0.0, f64::min).floor(), all().fold(1.0, f64::max).ceil());
    let x = |ratio: f64| FIRST + (ratio.max(SMALLEST).log2() - least) / (most - least) * (LAST - FIRST);
    let bottom = TOP + ROW * chart.bars.len() as f64;
    let ticks = (least as i32..=most as i32).map(|power| 2_f64.powi(power));
    let view = format!("0 0 1040 {}", bottom + 14.0);
    html! {
        svg #picture .chart role="img" aria-label=(title) xmlns="http://www.w3.org/2000/svg" viewBox=(view) {
            title { (title) }
            @if standalone {
                style { (PreEscaped(crate::assets::PICTURE_CSS)) }
                rect .paper width="100%" height="100%" {}
            }
            @for tick in ticks {
                line .grid x1=(place(x(tick))) x2=(place(x(tick))) y1=(TOP - 8.0) y2=(bottom) {}
                text .tick x=(place(x(tick))) y=(TOP - 14.0) { (times(tick)) }
            }
            @for (row, bar) in chart.bars.iter().enumerate() {
                @let y = TOP + ROW * row as f64 + ROW / 2.0;
                @let (one, median) = (x(1.0), x(bar.ratio[1]));
                g .(if bar.ratio[0] > 1.0 { "gained" } else if bar.ratio[2] < 1.0 { "lost" } else { "even" }) {
                    text .name x=(place(NAMES)) y=(place(y + 4.0)) {
                        tspan .work { (bar.work) } " " tspan .feature { (bar.feature) }
                    }
                    rect .bar x=(place(one.min(median))) width=(place((median - one).abs().max(1.0))) y=(place(y - 6.0)) height="12" rx="2" {}
                    line .reach x1=(place(x(bar.ratio[0]))) x2=(place(x(bar.ratio[2]))) y1=(place(y)) y2=(place(y)) {}
                    text .worth x=(place(x(bar.ratio[2]).max(one) + 8.0)) y=(place(y + 4.0)) { (times(bar.ratio[1])) }
                }
            }
        }
    }
}

fn place(at: f64) -> String {
    format!("{at:.1}")
}

/// `8.75×`, `115×`.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0}×"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}×"),
        ratio => format!("{ratio:.2}×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"format": 1, "machine": {"generation": "Zen 4", "place": "bare metal", "date": "2026-11-22"},
        "prices": [{"feature": "aes", "work": "cbc", "title": "AES <b>", "unit": "bytes",
            "ratio": {"median": 8.0, "low": 7.9, "high": 8.1}, "with": {"rate": {"median": 4.05e9}},
            "without": {"way": "SSSE3", "rate": {"median": 5e8}}},
            {"feature": "erms", "work": "copy", "title": "copy", "unit": "bytes",
            "ratio": {"median": 0.5, "low": 0.4, "high": 0.6}, "with": {}, "without": {}}],
        "unpriced": [{"text": "no tiles"}], "doubts": [{"text": "shared"}]}"#;

    #[test]
    fn every_price_is_a_bar_and_a_row() {
        let page = of_prices(ANSWER.to_owned()).unwrap();
        let Body::Chart(chart) = &page.body else { panic!("no chart") };
        assert_eq!(chart.bars.len(), 2);
        let html = crate::html(&page);
        for text in ["AES &lt;b&gt;", "8.00×", "0.50×", "4.050 GB/s", "no tiles", "shared", "Zen 4"] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!html.contains("AES <b>"));
        assert!(crate::svg(&page).starts_with("<svg"));
    }

    #[test]
    fn other_json_is_refused() {
        assert_eq!(of_prices("{}".to_owned()).unwrap_err(), NotPrices::SomethingElse);
        assert!(matches!(of_prices("x".to_owned()).unwrap_err(), NotPrices::NoJson(_)));
        // A ratio that is no ratio has no bar.
        let page = of_prices(ANSWER.replace("\"low\": 0.4", "\"low\": -1")).unwrap();
        assert!(matches!(&page.body, Body::Chart(chart) if chart.bars.len() == 1));
    }
}
