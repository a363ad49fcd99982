//! `price --list`: the work, and what this CPU lacks for it.

use std::fmt::Write as _;

use cpusieve_price::features::UNSEEN;
use cpusieve_price::flags::Flags;
use cpusieve_price::survey::wanted;
use serde_json::json;

use super::json::unit;
use crate::json::pretty;
use crate::page::{self, HEAD, LOST, QUIET, styled};

pub(super) fn text(features: &[&str], width: usize) -> String {
    let flags = Flags::here();
    let mut text = String::new();
    let mut feature = "";
    let mut works = wanted(features);
    works.sort_by_key(|work| work.feature);
    for work in works {
        if work.feature != feature {
            feature = work.feature;
            let _ = writeln!(text, "{}", styled(HEAD, feature));
        }
        let missing = work.missing(&flags);
        let lacks = if missing.is_empty() { String::new() } else { format!("  (lacks {})", missing.join(", ")) };
        let _ = writeln!(text, "  {}{}", work.title, styled(LOST, lacks));
        let ways = format!("{}; without: {}", work.with.name, work.without.name);
        let _ = writeln!(text, "{}", styled(QUIET, page::wrap(&ways, "    ", "    ", width).trim_end()));
    }
    for (name, why) in UNSEEN.iter().filter(|(name, _)| features.is_empty() || features.contains(name)) {
        text.push_str(&page::wrap(&format!("{name}: {why}"), "no price: ", "          ", width));
    }
    text
}

pub(super) fn json(features: &[&str]) -> String {
    let flags = Flags::here();
    let works = wanted(features).into_iter().map(|work| {
        json!({
            "feature": work.feature,
            "work": work.id,
            "title": work.title,
            "unit": unit(work.unit),
            "with": {"way": work.with.name, "needs": work.with.needs},
            "without": {"way": work.without.name, "needs": work.without.needs},
            "missing": work.missing(&flags),
        })
    });
    let unseen = UNSEEN.iter().filter(|(name, _)| features.is_empty() || features.contains(name));
    let unseen: Vec<_> = unseen.map(|(feature, why)| json!({"feature": feature, "text": why})).collect();
    pretty(&json!({"format": 1, "works": works.collect::<Vec<_>>(), "unpriced": unseen}))
}
