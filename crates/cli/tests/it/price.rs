//! `price` as a program: what it says, never how fast anything is.

use std::process::Output;

use serde_json::Value;

use crate::common::{errors, run, text};

fn price(arguments: &[&str]) -> Output {
    run(&[&["price"], arguments].concat(), "")
}

#[test]
fn a_price_has_its_interval_its_ways_and_its_machine() {
    let output = price(&["sse4_1", "popcnt", "--for", "2", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["format"], 1);
    assert!(value["machine"]["date"].as_str().unwrap().len() == 10);
    assert!(value["clock"]["step_ns"].as_f64().unwrap() > 0.0);
    let prices = value["prices"].as_array().unwrap();
    let unpriced = value["unpriced"].as_array().unwrap();
    for feature in ["sse4_1", "popcnt"] {
        let about = |row: &&Value| row["feature"] == feature;
        assert!(prices.iter().find(about).or(unpriced.iter().find(about)).is_some(), "{feature}");
    }
    for price in prices {
        let ratio = |key: &str| price["ratio"][key].as_f64().unwrap();
        assert!(ratio("low") <= ratio("median") && ratio("median") <= ratio("high"));
        assert!(price["with"]["needs"].as_array().unwrap().contains(&price["feature"]));
        assert!(!price["without"]["needs"].as_array().unwrap().contains(&price["feature"]));
        assert!(price["with"]["rate"]["median"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(output.status.code(), Some(if unpriced.is_empty() { 0 } else { 3 }));
}

#[test]
fn a_table_fits_its_width_and_names_the_machine() {
    let output = price(&["popcnt", "sse4_1", "--for", "1"]);
    let text = text(&output);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains("intervals of 95 %"), "{text}");
    assert!(output.stderr.is_empty(), "progress is for terminals alone");
}

#[test]
fn names_are_understood_in_every_spelling_and_near_ones_are_suggested() {
    let listed = text(&price(&["SHA-NI", "lzcnt", "--list"]));
    assert!(listed.contains("SHA-256") && listed.contains("LZCNT") && !listed.contains("GCM"), "{listed}");
    let wrong = price(&["aess"]);
    assert_eq!((wrong.status.code(), text(&wrong).as_str()), (Some(2), ""));
    assert!(errors(&wrong).contains("near it: aes"), "{}", errors(&wrong));
    let without_work = price(&["fpu"]);
    assert_eq!(without_work.status.code(), Some(2));
    assert!(errors(&without_work).contains("no work here uses fpu"));
}

#[test]
fn what_no_program_can_see_is_said_to_be_so() {
    let output = price(&["pcid", "--for", "1", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["prices"], Value::Array(Vec::new()));
    assert_eq!(value["unpriced"][0]["why"], "unseen");
}

#[test]
fn the_list_names_what_each_way_needs() {
    let value: Value = serde_json::from_slice(&price(&["--list", "--json"]).stdout).unwrap();
    let works = value["works"].as_array().unwrap();
    assert!(works.len() > 40);
    assert!(works.iter().all(|work| work["with"]["way"] != work["without"]["way"]));
}
