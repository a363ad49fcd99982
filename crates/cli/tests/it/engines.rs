//! Other engines over packed files, with the queries of `fleet sql`: DuckDB and Spark say what we say.
//!
//! Both are Python packages (`pip install duckdb pyspark`, and Java for Spark), looked for with `CPUSIEVE_PYTHON`, or
//! `python3`. What is missing is said, and its part left out.

use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::common::{Folder, corpus, errors, read, run, text};

/// Answers each query with its first row, as JSON, in `duckdb`.
const DUCKDB: &str = "
import duckdb, json, sys
for path in sys.argv[1:]:
    answer = duckdb.execute(open(path).read())
    names = [column[0] for column in answer.description]
    print(json.dumps([{name: v if isinstance(v, str) else int(v) for name, v in zip(names, row)} for row in answer.fetchall()]))
";

/// The same on Spark in local mode.
const SPARK: &str = "
import json, sys
from pyspark.sql import SparkSession
session = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').config('spark.sql.shuffle.partitions', '1').getOrCreate()
for path in sys.argv[1:]:
    rows = session.sql(open(path).read().rstrip().rstrip(';')).collect()
    print(json.dumps([{name: v if isinstance(v, str) else int(v) for name, v in row.asDict().items()} for row in rows]))
";

fn ours(arguments: &[&str]) -> String {
    let output = run(arguments, "");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", errors(&output));
    text(&output)
}

/// The rows that an engine answers each query with; `None` if it is not there.
fn answers(engine: &str, module: &str, script: &str, queries: &[String]) -> Option<Vec<Vec<Value>>> {
    let python = env::var_os("CPUSIEVE_PYTHON").unwrap_or_else(|| "python3".into());
    let there = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !there.is_ok_and(|there| there.status.success()) {
        eprintln!("skipped: {engine} is not there (pip install {module}; CPUSIEVE_PYTHON names another Python)");
        return None;
    }
    if module == "pyspark" && !Command::new("java").arg("-version").output().is_ok_and(|java| java.status.success()) {
        eprintln!("skipped: Spark needs Java, and there is none");
        return None;
    }
    let output = Command::new(&python).args(["-c", script]).args(queries).output().unwrap();
    assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A fleet of the corpus's hosts, packed.
fn packed(folder: &Folder) -> String {
    for entry in fs::read_dir(corpus("qemu-oracle/hosts")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let record = read(&format!("qemu-oracle/hosts/{name}"));
        let name = name.trim_end_matches(".gz");
        folder.file(&format!("hosts/{name}"), &record);
        folder.file(&format!("hosts/again-{name}"), &record);
    }
    let file = folder.at("fleet.parquet");
    ours(&["fleet", "pack", "--parquet", &file, &folder.at("hosts")]);
    file
}

fn compare(engine: &str, module: &str, script: &str) {
    let folder = Folder::new(engine);
    let file = packed(&folder);
    let questions = [("baseline", None), ("features", None), ("kinds", None), ("who", Some("avx512f"))];
    let mut queries = Vec::new();
    for (question, feature) in questions {
        let mut arguments = vec!["fleet", "sql", question, "--engine", engine, &file];
        arguments.extend(feature.iter().flat_map(|feature| ["--feature", feature]));
        queries.push(folder.file(question, ours(&arguments)));
    }
    let Some(found) = answers(engine, module, script, &queries) else { return };
    let [baseline, features, kinds, who] = found.as_slice() else { panic!("{found:?}") };
    let known: Value = serde_json::from_str(&ours(&["fleet", "baseline", &file, "--json"])).unwrap();
    assert_eq!((&baseline[0]["hosts"], &baseline[0]["phys_bits"]), (&known["hosts"], &known["phys_bits"]));
    // Every column of the query, against every word of ours.
    let mut words = 0;
    for (column, value) in baseline[0].as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_all")) {
        let name = column.trim_end_matches("_all");
        let (word, shift) = match name.rsplit_once('_') {
            Some((word, "lo")) => (word, 0),
            Some((word, "hi")) => (word, 32),
            _ => (name, 0),
        };
        let ours = known["words"][word].as_str().map_or(0, |hex| u64::from_str_radix(&hex[2..], 16).unwrap());
        assert_eq!(value.as_u64().unwrap(), ours >> shift & u64::from(u32::MAX), "{engine}: {column}");
        words += 1;
    }
    assert!(words > 150, "{words}");
    assert_eq!(features[0]["hosts"], known["hosts"]);
    assert_eq!(features[0]["avx512f"], who[0]["having_it"]);
    let by_kind: u64 = kinds.iter().map(|kind| kind["hosts"].as_u64().unwrap()).sum();
    assert_eq!(Some(by_kind), known["hosts"].as_u64());
    let ours: Value = serde_json::from_str(&ours(&["fleet", "who", "avx512f", &file, "--json"])).unwrap();
    assert_eq!((&who[0]["hosts"], &who[0]["having_it"]), (&ours["hosts"], &ours["having"]));
    eprintln!(
        "{engine}: {words} words, {} features, {} kinds the same",
        features[0].as_object().unwrap().len(),
        kinds.len()
    );
}

#[test]
fn duckdb_says_the_same() {
    compare("duckdb", "duckdb", DUCKDB);
}

#[test]
fn spark_says_the_same() {
    compare("spark", "pyspark", SPARK);
}
