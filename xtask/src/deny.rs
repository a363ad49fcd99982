//! Licences, duplicates and sources of all dependencies: by `cargo deny` if it is installed, by `cargo metadata` always.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::{Outcome, cargo, root};

/// Licences that may be in the program; `deny.toml` lists the same.
const ALLOWED: [&str; 6] =
    ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-3-Clause", "Unicode-3.0", "Zlib"];

/// What the program is built for; what other machines would need is not in it. `deny.toml` says the same.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run() -> Outcome {
    let output = cargo().args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let mut faults = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let built = built()?;
    let is_built = |package: &&Value| {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        built.contains(&format!("{} v{}", text("name"), text("version")))
    };
    for package in packages.iter().filter(is_built) {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version) = (text("name"), text("version"));
        if !may_be_used(text("license")) {
            faults.push(format!("{name} {version}: the licence `{}` is not allowed", text("license")));
        }
        let source = text("source");
        if !source.is_empty() && !source.starts_with("registry+") {
            faults.push(format!("{name} {version}: comes from {source}, not from a registry"));
        }
        versions.entry(name).or_default().push(version);
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        println!("note: {name} is built in {} versions: {}", versions.len(), versions.join(", "));
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} packages, {} faults", built.len(), faults.len());
    let mut passed = faults.is_empty();
    let installed = Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    if installed {
        let check =
            Command::new("cargo-deny").args(["check", "bans", "licenses", "sources"]).current_dir(root()).status()?;
        passed &= check.success();
    } else {
        println!("cargo-deny is not installed: the check by cargo metadata stands alone");
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The packages that are built for this platform, with their versions: `cargo metadata` has those of all platforms, and
/// features that only others turn on.
fn built() -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let arguments = ["tree", "--locked", "--workspace", "--target", PLATFORM, "--edges", "all", "--prefix", "none"];
    let output = cargo().args(arguments).args(["--format", "{p}"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(text.lines().filter(|line| line.contains(" v")).map(name).collect())
}

/// Whether an SPDX expression of the kinds that crates use can be met with the allowed licences.
fn may_be_used(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    expression.split(" AND ").all(|term| {
        term.trim_matches(['(', ')', ' '])
            .split(" OR ")
            .any(|licence| ALLOWED.contains(&licence.trim_matches(['(', ')', ' '])))
    })
}

#[cfg(test)]
mod tests {
    use super::may_be_used;

    #[test]
    fn an_expression_is_met_by_any_of_its_choices_and_all_of_its_terms() {
        assert!(may_be_used("MIT OR Apache-2.0"));
        assert!(may_be_used("MIT/Apache-2.0"));
        assert!(may_be_used("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!may_be_used("GPL-3.0"));
        assert!(!may_be_used("MIT AND GPL-3.0"));
        assert!(!may_be_used(""));
    }
}
