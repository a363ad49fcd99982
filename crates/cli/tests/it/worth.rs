//! What features are worth, beside their names: from a file that `price --json` wrote, or from the table that ships.

use cpusieve_knowledge::price::MACHINES;
use serde_json::Value;

use crate::common::{Folder, errors, host as oracle, run as program, text};

const PRICES: &str = r#"{"format":1,"machine":{"generation":"Zen 9","date":"2031-02-03"},"prices":[
    {"feature":"aes","work":"gcm","title":"AES-256-GCM, 16 KiB","ratio":{"median":11.24,"low":11,"high":11.5,"n":20}},
    {"feature":"sha_ni","work":"sha","title":"SHA-256, 16 KiB","ratio":{"median":3.24,"low":3.2,"high":3.3,"n":20}},
    {"feature":"popcnt","work":"count","title":"counting","ratio":{"median":1.0,"low":0.9,"high":1.1,"n":20}}]}"#;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = program(arguments, "");
    (output.status.code().unwrap(), text(&output), errors(&output))
}

#[test]
fn a_lost_flag_stands_with_its_price() {
    let folder = Folder::new("diff");
    let host = folder.file("host", "flags\t\t: fpu sse2 aes popcnt sha_ni avx\n");
    let guest = folder.file("guest", "flags\t\t: fpu sse2 avx\n");
    let prices = folder.file("price.json", PRICES);
    let (status, text, errors) = run(&["diff", "--price", &prices, &host, &guest]);
    assert_eq!((status, errors.as_str()), (1, ""));
    let line = "worth  aes 11x AES-256-GCM, sha_ni 3.2x SHA-256 (Zen 9, 2031-02)";
    assert!(text.contains(line), "{text}");
    let (_, json, _) = run(&["diff", "--price", &prices, &host, &guest, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let lost = json["lost"].as_array().unwrap();
    let aes = lost.iter().find(|item| item["flag"] == "aes").unwrap();
    let expected = serde_json::json!([{"work": "gcm", "title": "AES-256-GCM, 16 KiB", "ratio": 11.24, "low": 11.0,
        "high": 11.5, "machine": "Zen 9", "date": "2031-02-03", "from": "file"}]);
    assert_eq!(aes["price"], expected);
}

#[test]
fn what_a_table_says_is_used_where_no_file_is_given() {
    let folder = Folder::new("table");
    let host = folder.file("host", "flags\t\t: fpu sse2 aes sha_ni\n");
    let guest = folder.file("guest", "flags\t\t: fpu sse2\n");
    let (_, json, _) = run(&["diff", &host, &guest, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    for item in json["lost"].as_array().unwrap() {
        let id = item["flag"].as_str().unwrap();
        let best = MACHINES.first().and_then(|machine| machine.best(id));
        assert_eq!(item["price"][0]["ratio"].as_f64(), best.map(|price| price.ratio.median), "{id}");
    }
}

#[test]
fn predict_and_want_know_it_too() {
    let folder = Folder::new("predict");
    let prices = folder.file("price.json", PRICES);
    let record = folder.file("here.json", program(&["record", "--only", "cpuid"], "").stdout);
    let predict = ["predict", "--until", "host", "--host-kernel", "6.12", "--price", &prices, &record];
    let (_, json, errors) = run(&[&predict[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap_or_else(|_| unreachable!("{errors}"));
    let has_aes = json["host"]["flags"].as_array().unwrap().iter().any(|flag| flag == "aes");
    assert_eq!(json["price"]["aes"].is_array(), has_aes);
    let (_, text, _) = run(&predict);
    assert_eq!(text.contains("aes 11x AES-256-GCM"), has_aes, "{text}");
    let host = folder.file("host.json", oracle("spr-6.18"));
    let want = ["want", "aes", "--host-kernel", "6.18", "--guest-kernel", "6.12", "--price", &prices, &host];
    let (_, text, errors) = run(&want);
    assert!(text.contains("worth: aes 11x AES-256-GCM (Zen 9, 2031-02)"), "{text}{errors}");
    let (_, json, _) = run(&[&want[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["price"]["aes"][0]["ratio"], 11.24);
}

#[test]
fn a_fleet_is_told_what_its_weakest_host_costs() {
    let folder = Folder::new("fleet");
    let prices = folder.file("price.json", PRICES);
    let hosts = ["spr-6.18", "milan-6.18"].map(|host| folder.file(&format!("{host}.json"), oracle(host)));
    let arguments =
        ["fleet", "baseline", "--host-kernel", "6.18", "--nested", "--price", &prices, &hosts[0], &hosts[1]];
    let (status, text, errors) = run(&arguments);
    assert_eq!(status, 0, "{errors}");
    assert!(text.contains("worth: aes 11x AES-256-GCM, sha_ni 3.2x SHA-256 (Zen 9, 2031-02)"), "{text}");
    let (_, json, _) = run(&[&arguments[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["price"]["aes"][0]["ratio"], 11.24);
}

#[test]
fn a_file_that_holds_no_prices_is_refused() {
    let folder = Folder::new("bad");
    let flags = folder.file("flags", "flags\t\t: fpu aes\n");
    for (name, bad) in [("none", "{\"format\":1}"), ("text", "flags: aes"), ("cut", "{\"prices\":[{\"feature\"")] {
        let (status, text, errors) = run(&["diff", "--price", &folder.file(name, bad), &flags, &flags]);
        assert_eq!((status, text.as_str()), (2, ""));
        assert!(errors.contains(name), "{errors}");
    }
    let (status, _, errors) = run(&["diff", "--price", "/none/price.json", &flags, &flags]);
    assert!(status == 2 && errors.contains("/none/price.json"), "{errors}");
}
