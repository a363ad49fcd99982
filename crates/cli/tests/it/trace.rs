//! `trace` as its users meet it. What needs tracefs or ptrace is skipped, with the reason printed, where they are missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cpusieve_trace::tracefs::{Files, Mounted};
use serde_json::Value;

use crate::common::{read, run, start};

#[test]
fn a_recorded_trace_is_compared_with_the_host_that_it_is_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/guests-kvm");
    let trace = read("guests-kvm/trace/k6.1-max-trace-supported.txt.gz");
    let host = root.join("k6.1-max.json");
    let arguments = ["trace", "--from", "-", "--host", host.to_str().unwrap()];
    let output = run(&[&arguments[..], &["--json"]].concat(), &trace);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["format"], &found["watched"]), (&1.into(), &"host".into()));
    assert_eq!(found["host"]["calls"], 58);
    assert_eq!(found["host"]["predicted"]["complete"], 1);
    let text = run(&arguments, &trace);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("1 complete KVM_GET_SUPPORTED_CPUID of 58 calls as predicted"), "{text}");
    // Another host's trace, and one that is cut off.
    let other = read("guests-kvm/trace/k7.3-EPYC-Milan-trace-supported.txt.gz");
    assert_eq!(run(&arguments, &other).status.code(), Some(1));
    let lines: Vec<_> = trace.split_inclusive(|&byte| byte == b'\n').collect();
    let short = run(&[&arguments[..], &["--json"]].concat(), lines[..lines.len() - 5].concat());
    let found: Value = serde_json::from_slice(&short.stdout).unwrap();
    assert_eq!(found["host"]["predicted"]["short"], serde_json::json!([53]));
}

#[test]
fn guests_in_other_programs_output() {
    let output = run(&["trace", "--from", "-"], read("../fuzz/seeds/trace/perf-script.txt"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "events were lost: {text}");
    for part in ["1 CPUIDs of guests", "CPU 0/KVM 208 (vCPU 0)", "40000000", "0xffffffff81001234", "4 events were lost"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn wrong_usage_is_said() {
    for (arguments, words) in [
        (&["trace", "exec"][..], "which program?"),
        (&["trace", "guests", "--", "true"][..], "trace exec -- CMD"),
        (&["trace", "--for", "10h"][..], "10s, 500ms or 2m"),
        (&["trace", "--for", "0"][..], "10s, 500ms or 2m"),
        (&["trace", "exec", "--for", "1s", "--", "true"][..], "until the program ends"),
        (&["trace", "exec", "--", "/does/not/exist"][..], "/does/not/exist: No such file"),
        (&["trace", "--from", "/does/not/exist"][..], "/does/not/exist"),
        (&["trace", "--from", "-"][..], "standard input: neither a trace"),
    ] {
        let output = run(arguments, b"nothing\n");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn a_program_is_counted_and_its_output_kept_apart() {
    let output = run(&["trace", "--json", "exec", "--", "/bin/sh", "-c", "echo hello; exit 5"], b"");
    let error = String::from_utf8(output.stderr).unwrap();
    if error.contains("ptrace") {
        eprintln!("skipped: {error}");
        return;
    }
    assert!(error.contains("hello"));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["status"], 5);
    assert_eq!(found["processes"], 1);
    assert!(found["cpuid"].as_u64().unwrap() > 10, "{found:#}");
}

/// The instances and probes in tracefs that are ours, as far as they belong to these processes; `None`, with the reason
/// printed, where nobody may look.
fn left_by(pids: &BTreeSet<u32>) -> Option<Vec<String>> {
    let files = match Mounted::find() {
        Ok(files) => files,
        Err(refusal) => {
            eprintln!("skipped: {refusal}");
            return None;
        }
    };
    let mut names = files.names("instances").unwrap();
    names.extend(files.read("kprobe_events").unwrap_or_default().lines().map(str::to_owned));
    let ours = |name: &String| {
        let rest = name.trim_start_matches("p:").strip_prefix("cpusieve");
        let pid = rest.and_then(|rest| rest.split(['-', '_']).nth(1)).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some(names.into_iter().filter(ours).collect())
}

#[test]
fn a_hundred_kills_leave_tracefs_as_it_was() {
    if left_by(&BTreeSet::new()).is_none() {
        return;
    }
    let first = run(&["trace", "guests", "--for", "20ms", "--json"], b"");
    let found: Value = serde_json::from_slice(&first.stdout).unwrap();
    if let Some(refused) = found.get("refused") {
        eprintln!("skipped: {refused}");
        return;
    }
    let (mut pids, mut random, mut left_behind) = (BTreeSet::new(), 88_172_645_463_325_252_u64, 0);
    for round in 0..100 {
        let whose = if round % 2 == 0 { &["trace", "guests"][..] } else { &["trace", "guests", "--events"] };
        let mut victim = start(whose);
        pids.insert(victim.id());
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(1000 + random % 60_000));
        victim.kill().unwrap();
        victim.wait().unwrap();
        left_behind += usize::from(!left_by(&pids).unwrap().is_empty());
    }
    let last = start(&["trace", "guests", "--for", "20ms"]);
    pids.insert(last.id());
    assert!(last.wait_with_output().unwrap().status.code().is_some());
    assert_eq!(left_by(&pids).unwrap(), Vec::<String>::new());
    eprintln!("100 kills; something was there to be removed after {left_behind}");
}

#[test]
fn ctrl_c_and_its_like_end_the_watch_and_remove_it() {
    for signal in ["INT", "TERM", "HUP"] {
        let child = start(&["trace", "guests", "--json"]);
        let pids = BTreeSet::from([child.id()]);
        let deadline = Instant::now() + Duration::from_secs(10);
        // Until it has begun, or was refused.
        while left_by(&pids).is_some_and(|left| left.is_empty()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            if std::fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z ")) {
                break;
            }
        }
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        let Ok(found) = serde_json::from_slice::<Value>(&output.stdout) else {
            eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return;
        };
        if found.get("refused").is_some() {
            eprintln!("skipped: {}", found["refused"]);
            return;
        }
        assert!(sent.success());
        assert!(found["guests"]["cpuid"].is_u64(), "{signal}: {found:#}");
        assert_eq!(left_by(&pids).unwrap(), Vec::<String>::new(), "{signal}");
    }
}
