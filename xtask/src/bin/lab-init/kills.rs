//! Whether tracefs is as it was, whatever happens to the program that watches.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{Means, Running};
use crate::raw;

/// What there is to be switched on, apart from instances.
const SWITCHES: [&str; 16] = [
    "buffer_size_kb",
    "current_tracer",
    "dynamic_events",
    "events/enable",
    "events/kvm/kvm_cpuid/enable",
    "events/kvm/kvm_cpuid/filter",
    "events/kvm/kvm_cpuid/trigger",
    "events/kvm/kvm_exit/enable",
    "events/kvm/kvm_exit/filter",
    "events/kvm/kvm_exit/trigger",
    "kprobe_events",
    "set_event",
    "set_ftrace_filter",
    "trace_options",
    "tracing_on",
    "uprobe_events",
];

/// Every switch and every instance of tracefs.
fn state() -> io::Result<BTreeMap<String, String>> {
    let mut state = BTreeMap::new();
    for file in SWITCHES {
        state.insert(file.to_owned(), fs::read_to_string(raw::path(file))?);
    }
    for instance in fs::read_dir(raw::path("instances"))?.flatten() {
        state.insert(format!("instance {}", instance.file_name().to_string_lossy()), String::new());
    }
    Ok(state)
}

/// What is otherwise than before, a line each.
fn otherwise(before: &BTreeMap<String, String>) -> io::Result<String> {
    let after = state()?;
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let changed = names.filter(|name| before.get(*name) != after.get(*name));
    Ok(changed.map(|name| format!("{name}: {:?}, before {:?}\n", after.get(name), before.get(name))).collect())
}

/// Kills a watch of each kind in turn, at a random moment between its start and a little after it is on, so often; then
/// starts one more. `killed N`, `left N` (how often something was there to be removed), and what is otherwise at the end.
pub(crate) fn kills(program: &str, rounds: u32) -> io::Result<String> {
    let mut until_on = Vec::new();
    for means in Means::ALL {
        let clock = Instant::now();
        let mut watch = Running::start(program, "kills", means.arguments())?;
        watch.on(means)?;
        until_on.push((means, clock.elapsed()));
        watch.interrupt()?;
    }
    let before = state()?;
    let (mut random, mut left) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for (&(means, time), _) in until_on.iter().cycle().zip(0..rounds) {
        let mut watch = Running::start(program, "kills", means.arguments())?;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(time.mul_f64((random % 1000) as f64 / 800.0));
        watch.kill()?;
        left += u32::from(state()? != before);
    }
    Running::start(program, "kills", &["trace", "guests", "--for", "50ms"])?.wait(Duration::from_secs(60))?;
    Ok(format!("killed {rounds}\nleft {left}\n{}", otherwise(&before)?))
}

/// Takes the mount of tracefs away while a watch of each kind is on, and ends the watch; then removes a watch's instance:
/// what is otherwise then, and what did not end as it should.
pub(crate) fn vanishes(program: &str) -> io::Result<String> {
    let before = state()?;
    let mut told = String::new();
    for means in Means::ALL {
        let name = means.arguments().join(" ");
        let mut watch = Running::start(program, "vanishes", means.arguments())?;
        watch.on(means)?;
        raw::unmount()?;
        thread::sleep(Duration::from_millis(300));
        let ended = watch.interrupt();
        raw::mount()?;
        let ended = ended?;
        if ended.status != "0" {
            told += &format!("{name}: exit status {}: {}\n", ended.status, ended.stderr.trim());
        }
        told.extend(otherwise(&before)?.lines().map(|line| format!("{name}: {line}\n")));
    }
    told += &removed(program)?;
    told.extend(otherwise(&before)?.lines().map(|line| format!("instance removed: {line}\n")));
    Ok(told)
}

/// Removes the instance in which a watch counts, as root may: the watch has to end by itself, done in part.
fn removed(program: &str) -> io::Result<String> {
    let mut watch = Running::start(program, "removed", Means::Histograms.arguments())?;
    if let Err(error) = fs::remove_dir(watch.on(Means::Histograms)?) {
        // A kernel may find it in use.
        watch.interrupt()?;
        return if error.kind() == io::ErrorKind::ResourceBusy { Ok(String::new()) } else { Err(error) };
    }
    let ended = watch.wait(Duration::from_secs(30))?;
    let is_said = ended.status == "3" && ended.stdout.contains("not there any more");
    Ok(if is_said {
        String::new()
    } else {
        format!("instance removed: exit status {}: {} {}\n", ended.status, ended.stderr.trim(), ended.stdout.trim())
    })
}
