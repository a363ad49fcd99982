//! `cargo xtask book`: docs/book with a page for each rule of the knowledge, ready for mdBook.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use cpusieve_knowledge::rules::{Condition, KVM_CONDITIONS, Need, RULES, Remedy, Rule, RuleEffect, Software};
use cpusieve_knowledge::vmm::Vmm;
use cpusieve_knowledge::{TreeSet, linux, qemu};

use crate::{Outcome, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    if let Some(argument) = arguments.first() {
        return Err(format!("`{argument}`: book takes no arguments").into());
    }
    let (from, to) = (root().join("docs/book"), root().join("target/book"));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    copy(&from, &to)?;
    let rules = to.join("src/rules");
    fs::create_dir_all(&rules)?;
    let mut summary = fs::read_to_string(from.join("src/SUMMARY.md"))?;
    summary.push_str("# Rules\n");
    for software in ALL {
        let _ = write!(summary, "\n- [{}]()\n", title(software));
        for rule in RULES.iter().filter(|rule| rule.software == software) {
            fs::write(rules.join(format!("{}.md", rule.id.0)), page(rule))?;
            let _ = writeln!(summary, "  - [{} {}](rules/{}.md)", rule.id.0, escaped(rule.title), rule.id.0);
        }
    }
    let _ = write!(summary, "\n- [Conditions of KVM]()\n");
    for condition in KVM_CONDITIONS {
        let id = condition.id.0;
        let mut text = head(id, condition.title, condition.cite.0, &span(Software::Kvm, *condition.trees));
        let _ = writeln!(text, "\n{}", escaped(condition.cause));
        tell_remedy(&mut text, condition.remedy);
        fs::write(rules.join(format!("{id}.md")), text)?;
        let _ = writeln!(summary, "  - [{id} {}](rules/{id}.md)", escaped(condition.title));
    }
    fs::write(to.join("src/SUMMARY.md"), summary)?;
    println!("{}: {} rules and {} conditions of KVM, a page each", to.display(), RULES.len(), KVM_CONDITIONS.len());
    match Command::new("mdbook").arg("build").arg(&to).status() {
        Ok(built) if built.success() => Ok(ExitCode::SUCCESS),
        Ok(_) => Err("mdbook failed".into()),
        Err(_) => {
            println!(
                "mdbook is not installed: the pages are Markdown, and mdbook build {} makes HTML of them",
                to.display()
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// In the order of the sieves.
const ALL: [Software; 6] = [
    Software::Silicon,
    Software::Linux,
    Software::Kvm,
    Software::Qemu,
    Software::Firecracker,
    Software::CloudHypervisor,
];

const fn title(software: Software) -> &'static str {
    match software {
        Software::Silicon => "Silicon",
        Software::Linux => "Linux, on the host and in the guest",
        Software::Kvm => "KVM",
        Software::Qemu => "QEMU",
        Software::Firecracker => "Firecracker",
        Software::CloudHypervisor => "Cloud Hypervisor",
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn head(id: &str, title: &str, cite: &str, releases: &str) -> String {
    format!("# {id}: {}\n\n| | |\n|---|---|\n| stands in | `{cite}` |\n| holds for | {releases} |\n", escaped(title))
}

fn page(rule: &Rule) -> String {
    let mut text = head(rule.id.0, rule.title, rule.cite.0, &span(rule.software, *rule.trees));
    let effect = match rule.effect {
        RuleEffect::Sets => "sets",
        RuleEffect::Clears => "clears, with all that depends on it",
        RuleEffect::Forces => "sets, and nothing clears it any more",
    };
    let features: Vec<String> = rule.features.iter().map(|feature| format!("`{feature}`")).collect();
    let about = match rule.when {
        _ if !features.is_empty() => features.join(", "),
        Some(when) => format!("whatever is in the situation `{when}`"),
        None => "whatever it applies to".to_owned(),
    };
    let _ = writeln!(text, "| {effect} | {about} |");
    if let Some(only) = rule.only {
        let _ = writeln!(text, "| only where | {only} |");
    }
    for need in rule.needs {
        let _ = writeln!(text, "| if | {} |", needed(*need));
    }
    let _ = writeln!(text, "\n{}", escaped(rule.cause));
    tell_remedy(&mut text, rule.remedy);
    text
}

fn tell_remedy(text: &mut String, remedy: Option<Remedy>) {
    let Some(remedy) = remedy else { return };
    let _ = writeln!(text, "\n**What brings it back** ({}): {}", remedy.kind.name(), escaped(remedy.text));
    if let Some(cpu) = remedy.cpu {
        let _ = writeln!(text, "\n```text\n-cpu {cpu}\n```");
    }
}

/// A condition, in words.
fn needed(need: Need) -> String {
    let words = match need.condition {
        Condition::Cpuid(bit) => format!("{bit} is set"),
        Condition::Flag(flag) => format!("the kernel has `{flag}`"),
        Condition::Msr(bit) => format!("{bit} is set"),
        Condition::Vendor(vendors) => {
            let names: Vec<String> = vendors.iter().map(|vendor| format!("{vendor:?}")).collect();
            format!("the vendor is {}", names.join(" or "))
        }
        Condition::Vm => "the kernel runs under a hypervisor".to_owned(),
        Condition::Hypervisor(name) => format!("the hypervisor is {name}"),
        Condition::Family(first, last) if first == last => format!("the family is {first}"),
        Condition::Family(first, u32::MAX) => format!("the family is {first} or higher"),
        Condition::Family(first, last) => format!("the family is {first} to {last}"),
        Condition::Signature(signatures) => {
            let one = |signature: &cpusieve_knowledge::rules::Signature| {
                let (first, last) = signature.models;
                let models = if first == last { format!("{first:#x}") } else { format!("{first:#x} to {last:#x}") };
                format!("family {:#x} model {models}", signature.family)
            };
            signatures.iter().map(one).collect::<Vec<_>>().join(", or ")
        }
        Condition::Field(field) => {
            let last = field.low.bit + field.width - 1;
            let than = if field.exactly { "is" } else { "is at least" };
            format!("the field up to bit {last} from {} {than} {}", field.low, field.number)
        }
        Condition::MsrReadable(index) => format!("MSR {index:X}H can be read"),
        Condition::MicrocodeBelow(revision) => format!("the microcode is older than {revision:#x}"),
        Condition::Bug(bug) => format!("the kernel has the bug `{bug}`"),
        Condition::Param(param) => format!("the parameter `{param}` was given"),
        Condition::Config(config) => format!("the kernel was built with `CONFIG_{config}`"),
        Condition::Model(words) | Condition::Other(words) => words.to_owned(),
    };
    let words = escaped(&words);
    if need.negated { format!("not: {words}") } else { words }
}

/// Releases, as ranges of what is known.
fn span(software: Software, trees: TreeSet) -> String {
    let labels: Vec<&str> = match software {
        Software::Silicon => return "every CPU".to_owned(),
        Software::Linux | Software::Kvm => linux::TREES.iter().map(|tree| tree.label).collect(),
        Software::Qemu => qemu::RELEASES.iter().map(|release| release.label).collect(),
        Software::Firecracker => Vmm::Firecracker.releases().iter().map(|release| release.label).collect(),
        Software::CloudHypervisor => Vmm::CloudHypervisor.releases().iter().map(|release| release.label).collect(),
    };
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for index in trees.iter().filter(|&index| index < labels.len()) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let name = |&(first, last): &(usize, usize)| {
        if first == last { labels[first].to_owned() } else { format!("{} to {}", labels[first], labels[last]) }
    };
    let runs: Vec<String> = runs.iter().map(name).collect();
    format!("{} {}", title(software).split(',').next().unwrap_or_default(), runs.join(", "))
}

/// Characters that Markdown and HTML take for their own.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut code = false;
    for character in text.chars() {
        code ^= character == '`';
        match character {
            '<' if !code => escaped.push_str("&lt;"),
            '|' => escaped.push_str("\\|"),
            '*' | '_' | '[' | ']' if !code => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_page_with_its_cite_and_its_reason() {
        for rule in RULES {
            let text = page(rule);
            assert!(text.contains(rule.cite.0) && text.contains("| holds for |"), "{text}");
            assert!(text.lines().count() > 6, "{text}");
        }
    }

    #[test]
    fn the_summary_names_every_page_of_the_book() {
        let source = root().join("docs/book/src");
        let summary = fs::read_to_string(source.join("SUMMARY.md")).unwrap();
        for folder in ["stages", "questions"] {
            for page in fs::read_dir(source.join(folder)).unwrap().flatten() {
                let name = format!("{folder}/{}", page.file_name().to_string_lossy());
                assert!(summary.contains(&format!("({name})")), "{name}");
            }
        }
    }

    #[test]
    fn markup_is_escaped_outside_code() {
        assert_eq!(escaped("a_b `c_d` <e> x|y"), "a\\_b `c_d` &lt;e> x\\|y");
    }
}
