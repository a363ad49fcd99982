//! This machine's kernel: what it must print of its own CPUs, and what it prints.

use std::collections::BTreeMap;

use cpusieve_knowledge::linux::TREES;
use cpusieve_model::{Snapshot, Stage};
use cpusieve_stages::linux::boot::Unlisted;

use super::words::{self, Odd, Others};
use super::{Part, Proof};
use crate::predict::{Kernel, NoPrediction, predict, predict_each};

/// Boots the snapshot's kernel on the CPUID and MSRs of each of its CPUs and compares with each CPU's lines.
///
/// # Errors
/// If nothing can be predicted: the snapshot shows no CPUID.
pub fn host(snapshot: &Snapshot, unlisted: Unlisted) -> Result<Proof, NoPrediction> {
    let kernel = Kernel { unlisted, ..Kernel::new(Stage::Host) };
    let first = predict(snapshot, &kernel)?;
    let label = TREES.get(first.tree).map_or("", |tree| tree.label);
    let mut odd: BTreeMap<Odd, Vec<u32>> = BTreeMap::new();
    let mut proof = Proof::new(Part::Host, format!("Linux {label} on this machine"), "word");
    let mut cpus = 0;
    for (id, output) in predict_each(snapshot, &kernel)? {
        let cpuinfo = snapshot.cpus.iter().find(|cpu| cpu.id == id).and_then(|cpu| cpu.cpuinfo.as_ref());
        let Some(cpuinfo) = cpuinfo.filter(|cpuinfo| cpuinfo.flags.is_some()) else { continue };
        cpus += 1;
        proof.compared += words::count(cpuinfo);
        for word in words::odd(&output, cpuinfo) {
            odd.entry(word).or_default().push(id);
        }
    }
    if cpus == 0 {
        proof.unseen.push("/proc/cpuinfo: no CPU has both CPUID and a flags line".to_owned());
    }
    if !odd.is_empty() {
        let others = Others::of(snapshot, &kernel, first.tree);
        proof.mismatches = words::mismatches(&odd, cpus, |odd| others.cause(odd, &first.assumed));
    }
    proof.of.push_str(&format!(", {cpus} CPU{}", if cpus == 1 { "" } else { "s" }));
    proof.findings = first.odd;
    proof.assumed = first.assumed;
    Ok(proof)
}
