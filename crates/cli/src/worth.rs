//! What a feature is worth, beside its name: from a measurement that was given (`--price FILE`), else from the table that
//! ships with cpusieve.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use cpusieve_formats::price;
use cpusieve_knowledge::price::MACHINES;
use serde_json::{Map, Value, json};

use crate::input::{self, InputError};
use crate::page;

/// Features of a line at most.
const MOST: usize = 8;

/// Below this a feature makes no difference that is worth a word.
const NOTABLE: f64 = 1.1;

/// One work of one feature.
struct Price {
    feature: Cow<'static, str>,
    work: Cow<'static, str>,
    title: Cow<'static, str>,
    /// Median, lower end, upper end.
    ratio: [f64; 3],
    /// The index of the source.
    source: usize,
}

/// Where numbers come from.
struct Source {
    machine: String,
    date: String,
    table: bool,
}

/// All that is known of features' worth.
pub(crate) struct Worths {
    prices: Vec<Price>,
    sources: Vec<Source>,
}

impl Worths {
    /// What the file holds, which goes first, and what the table holds of other features.
    pub(crate) fn known(file: Option<&Path>) -> Result<Self, InputError> {
        let mut known = Self { prices: Vec::new(), sources: Vec::new() };
        if let Some(path) = file {
            let name = input::name(path);
            let (measured, diagnostics) = price::parse(&name, &input::bytes(path, &name)?);
            input::show(&diagnostics);
            if measured.rows.is_empty() {
                return Err(InputError::Empty { name });
            }
            known.add_measured(measured);
        }
        let given = known.prices.len();
        known.prices.reserve(MACHINES.iter().map(|machine| machine.prices.len()).sum());
        for machine in MACHINES {
            let source = known.sources.len();
            let (name, date) = (machine.name.to_owned(), machine.date.to_owned());
            known.sources.push(Source { machine: name, date, table: true });
            for row in machine.prices {
                let measured = known.prices.iter().take(given).any(|price| price.feature == row.feature);
                let elsewhere = known.prices.iter().skip(given);
                let newer = elsewhere.filter(|price| price.source != source).any(|price| price.feature == row.feature);
                if !measured && !newer {
                    let (feature, work, title) = (row.feature.into(), row.work.into(), row.title.into());
                    let ratio = [row.ratio.median, row.ratio.low, row.ratio.high];
                    known.prices.push(Price { feature, work, title, ratio, source });
                }
            }
        }
        Ok(known)
    }

    fn add_measured(&mut self, measured: price::Prices) {
        let source = self.sources.len();
        let machine = measured.machine.generation.or(measured.machine.brand).unwrap_or_else(|| "given".to_owned());
        self.sources.push(Source { machine, date: measured.machine.date.unwrap_or_default(), table: false });
        self.prices.extend(measured.rows.into_iter().map(|row| {
            let ratio = [row.ratio.median, row.ratio.low, row.ratio.high];
            Price { feature: row.feature.into(), work: row.work.into(), title: row.title.into(), ratio, source }
        }));
    }

    /// The work in which a feature is worth most.
    fn best(&self, feature: &str) -> Option<&Price> {
        let all = self.prices.iter().filter(|price| price.feature == feature);
        all.max_by(|a, b| a.ratio[0].total_cmp(&b.ratio[0]))
    }

    /// The features that make a difference, the most worth first: `aes 11x AES-256-GCM, ... (Zen 4, 2026-11)`.
    pub(crate) fn line<'a>(&self, features: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let mut best: Vec<&Price> = features.into_iter().filter_map(|feature| self.best(feature)).collect();
        best.retain(|price| price.ratio[1] >= NOTABLE);
        best.sort_by(|a, b| b.ratio[0].total_cmp(&a.ratio[0]).then_with(|| a.feature.cmp(&b.feature)));
        best.dedup_by(|a, b| a.feature == b.feature);
        let mut parts = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let of_source = best.iter().take(MOST).filter(|price| price.source == index);
            let words: Vec<String> = of_source.map(|price| word(price)).collect();
            if !words.is_empty() {
                let month = source.date.get(..7).unwrap_or(&source.date);
                parts.push(format!("{} ({}, {month})", words.join(", "), source.machine));
            }
        }
        let more = match best.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!parts.is_empty()).then(|| page::tame(&(parts.join("; ") + &more)))
    }

    /// What each feature weighs beside one of no known worth, by feature: how many times faster its best work is, rounded.
    /// Features that make no difference, and those that would weigh 1, are left out.
    pub(crate) fn weights(&self) -> BTreeMap<&str, u64> {
        let mut weights = BTreeMap::new();
        for price in self.prices.iter().filter(|price| price.ratio[1] >= NOTABLE) {
            let known: &mut u64 = weights.entry(&*price.feature).or_default();
            *known = (*known).max(price.ratio[0].clamp(0.0, 1e6).round() as u64);
        }
        weights.retain(|_, weight| *weight > 1);
        weights
    }

    /// Where the numbers come from: `Zen 4, 2026-11`.
    pub(crate) fn origin(&self) -> String {
        let month = |date: &str| date.get(..7).unwrap_or(date).to_owned();
        let used = |(at, _): &(usize, &Source)| self.prices.iter().any(|price| price.source == *at);
        let sources = self.sources.iter().enumerate().filter(used);
        let all: Vec<String> =
            sources.map(|(_, source)| format!("{}, {}", source.machine, month(&source.date))).collect();
        page::tame(&all.join("; "))
    }

    /// Every work of these features, by feature; features without one are left out.
    pub(crate) fn value<'a>(&self, features: impl IntoIterator<Item = &'a str>) -> Value {
        let priced = features.into_iter().filter_map(|feature| Some((feature.to_owned(), self.of(feature)?)));
        Value::Object(priced.collect::<Map<_, _>>())
    }

    /// Every work of one feature, the best first.
    pub(crate) fn of(&self, feature: &str) -> Option<Value> {
        let mut all: Vec<&Price> = self.prices.iter().filter(|price| price.feature == feature).collect();
        all.sort_by(|a, b| b.ratio[0].total_cmp(&a.ratio[0]));
        let each = all.iter().map(|price| {
            let source = self.sources.get(price.source);
            let [ratio, low, high] = price.ratio;
            json!({
                "work": price.work, "title": price.title, "ratio": ratio, "low": low, "high": high,
                "machine": source.map(|source| source.machine.as_str()),
                "date": source.map(|source| source.date.as_str()),
                "from": source.map(|source| if source.table { "table" } else { "file" }),
            })
        });
        (!all.is_empty()).then(|| Value::Array(each.collect()))
    }
}

/// `aes 11x AES-256-GCM`; the size of the work is left to the JSON.
fn word(price: &Price) -> String {
    let ratio = price.ratio[0];
    let digits = usize::from(ratio < 9.95);
    let title = price.title.split(',').next().unwrap_or(&price.title);
    format!("{} {ratio:.digits$}x {title}", price.feature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worths() -> Worths {
        let price = |feature: &str, title: &str, median: f64, source| Price {
            feature: feature.to_owned().into(),
            work: title.to_lowercase().into(),
            title: title.to_owned().into(),
            ratio: [median, median * 0.95, median * 1.05],
            source,
        };
        let source =
            |machine: &str, table| Source { machine: machine.to_owned(), date: "2026-11-22".to_owned(), table };
        Worths {
            prices: vec![
                price("aes", "AES-256-GCM, 16 KiB", 11.2, 0),
                price("aes", "AES-256-CBC, 16 KiB", 3.7, 0),
                price("sha_ni", "SHA-256, 16 KiB", 3.24, 1),
                price("popcnt", "counting", 1.02, 1),
            ],
            sources: vec![source("Zen 4", false), source("Zen 3", true)],
        }
    }

    #[test]
    fn the_best_work_is_told_with_its_machine_and_month() {
        let line = worths().line(["fpu", "sha_ni", "aes", "popcnt", "aes"]).unwrap();
        assert_eq!(line, "aes 11x AES-256-GCM (Zen 4, 2026-11); sha_ni 3.2x SHA-256 (Zen 3, 2026-11)");
        assert_eq!(worths().line(["popcnt", "fpu"]), None, "what makes no difference is no news");
    }

    #[test]
    fn a_feature_weighs_as_much_as_its_best_work() {
        let worths = worths();
        assert_eq!(worths.weights().into_iter().collect::<Vec<_>>(), [("aes", 11), ("sha_ni", 3)]);
        assert_eq!(worths.origin(), "Zen 4, 2026-11; Zen 3, 2026-11");
    }

    #[test]
    fn the_json_has_every_work() {
        let value = worths().value(["aes", "fpu"]);
        assert_eq!(value["aes"][0]["ratio"], 11.2);
        assert_eq!((&value["aes"][1]["from"], value.get("fpu")), (&json!("file"), None));
    }
}
