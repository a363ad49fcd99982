//! Watches in a tracefs made of files: what they count, and that all is as it was, however they end.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they skip"
)]

mod simulator;

use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use cpusieve_trace::count::Asked;
use cpusieve_trace::tracefs::{Files, Refusal, Session, stale};
use cpusieve_trace::watch::{Source, Watch};
use simulator::Simulated;

const SOON: Duration = Duration::from_millis(1);

#[test]
fn guests_are_counted_in_the_kernel_and_nothing_stays() {
    let files = Rc::new(Simulated::new(true));
    let before = files.tree();
    let mut watch = Watch::guests(files.clone(), false).unwrap();
    assert_eq!(watch.source(), Source::Histograms);
    watch.turn(SOON).unwrap();
    watch.turn(SOON).unwrap();
    let guests = &watch.counts().guests;
    assert_eq!(guests.cpuid.get(&(Some(208), Asked { leaf: 0x1a, subleaf: None })), 5);
    assert_eq!(guests.cpuid.get(&(Some(209), Asked { leaf: 4, subleaf: Some(2) })), 70);
    assert_eq!(guests.not_found.rows().collect::<Vec<_>>(), [(&Asked { leaf: 0x1a, subleaf: None }, 2)]);
    assert_eq!(guests.exit_count(), Some(300));
    assert_eq!(guests.rips.get(&0xffff_ffff_8100_1234), 75);
    assert_eq!(watch.counts().tasks[&209].comm, "CPU 1/KVM");
    assert_eq!(watch.counts().lost.events, 1);
    let (counts, ended) = watch.end();
    ended.unwrap();
    assert_eq!(counts.guests.cpuid.total(), 75);
    assert_eq!(files.tree(), before);
}

#[test]
fn guests_are_counted_event_by_event_where_the_kernel_does_not() {
    let files = Rc::new(Simulated::new(false));
    let before = files.tree();
    let mut watch = Watch::guests(files.clone(), false).unwrap();
    assert_eq!(watch.source(), Source::Events);
    let filter = files.tree().into_iter().find(|(path, text)| path.ends_with("kvm_exit/filter") && text != "none");
    assert!(filter.unwrap().1.contains("exit_reason == 114"));
    watch.turn(SOON).unwrap();
    let (counts, ended) = watch.end();
    ended.unwrap();
    assert_eq!(counts.guests.by_task().into_iter().collect::<Vec<_>>(), [(Some(208), 1), (Some(209), 1)]);
    assert_eq!(counts.guests.not_found.total(), 1);
    assert_eq!(counts.guests.exit_count(), Some(308), "entries, overrun and dropped");
    assert_eq!(counts.guests.rips.get(&0xffff_ffff_8100_1234), 1);
    assert_eq!(counts.tasks[&208].vcpu, Some(0));
    assert_eq!(counts.lost.events, 12);
    assert_eq!(files.tree(), before);
}

#[test]
fn kvms_own_calls_come_with_their_stacks() {
    let files = Rc::new(Simulated::new(false));
    let before = files.tree();
    let mut watch = Watch::host(files.clone(), false).unwrap();
    assert_eq!(watch.source(), Source::Probe);
    watch.turn(SOON).unwrap();
    let (counts, ended) = watch.end();
    ended.unwrap();
    assert_eq!(counts.host.calls.total(), 1);
    let stack = ["do_host_cpuid", "__do_cpuid_func", "kvm_dev_ioctl_get_cpuid"].map(str::to_owned).to_vec();
    assert_eq!(counts.host.stacks.get(&(stack, Some(180))), 1);
    assert_eq!(files.tree(), before);
}

#[test]
fn the_function_tracer_is_taken_by_choice_and_where_there_are_no_kprobes() {
    let files = Rc::new(Simulated::new(false));
    for by_choice in [true, false] {
        if !by_choice {
            std::fs::remove_file(files.root().join("kprobe_events")).unwrap();
        }
        let before = files.tree();
        let watch = Watch::host(files.clone(), by_choice).unwrap();
        assert_eq!(watch.source(), Source::Functions);
        let of = |end: &str| {
            let own = |path: &Path| path.starts_with("instances") && !path.starts_with("instances/mine");
            files.tree().into_iter().find(|(path, _)| own(path) && path.ends_with(end)).unwrap().1
        };
        assert_eq!((of("set_ftrace_filter").as_str(), of("current_tracer").as_str()), ("do_host_cpuid", "function"));
        assert_eq!(of("trace_options"), "func_stack_trace");
        watch.end().1.unwrap();
        assert_eq!(files.tree(), before);
    }
}

#[test]
fn a_refusal_anywhere_leaves_nothing() {
    for hist in [true, false] {
        for count in 0..20 {
            let files = Rc::new(Simulated::new(hist));
            let before = files.tree();
            for watch in
                [|files| Watch::guests(files, false), (|files| Watch::host(files, false)) as fn(Rc<dyn Files>) -> _]
            {
                files.refuse_after(count);
                let watch = watch(files.clone());
                files.refuse_nothing();
                match watch {
                    Ok(watch) => watch.end().1.unwrap(),
                    Err(refusal) => assert!(matches!(refusal, Refusal::NotPermitted { .. }), "{refusal}"),
                }
            }
            assert_eq!(files.tree(), before, "refused after {count}");
        }
    }
}

#[test]
fn what_is_missing_is_said() {
    let files = Rc::new(Simulated::new(false));
    std::fs::remove_dir_all(files.root().join("events/kvm")).unwrap();
    let refusal = Watch::guests(files.clone(), false).unwrap_err();
    assert!(refusal.to_string().contains("needed: KVM's module, loaded"), "{refusal}");
    std::fs::remove_file(files.root().join("kprobe_events")).unwrap();
    std::fs::write(files.root().join("available_tracers"), "nop\n").unwrap();
    let refusal = Watch::host(files.clone(), false).unwrap_err().to_string();
    for part in ["no kprobes, and it has no function tracer", "CONFIG_KPROBE_EVENTS", "CONFIG_FUNCTION_TRACER"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    std::fs::write(files.root().join("available_tracers"), "function nop\n").unwrap();
    let before = files.tree();
    // An instance and the size of its buffer pass, then the filter is refused.
    files.refuse_after(2);
    let refusal = Watch::host(files.clone(), false).unwrap_err().to_string();
    let expected =
        "no kprobes, and its function tracer cannot be pointed at do_host_cpuid (set_ftrace_filter: permission";
    assert!(refusal.contains(expected), "{refusal}");
    files.refuse_nothing();
    assert_eq!(files.tree(), before);
}

#[test]
fn a_tracefs_that_vanishes_is_an_error_and_no_more() {
    for hist in [true, false] {
        let files = Rc::new(Simulated::new(hist));
        let mut watch = Watch::guests(files.clone(), false).unwrap();
        std::fs::remove_dir_all(files.root()).unwrap();
        assert!(matches!(watch.turn(SOON), Err(Refusal::Gone { .. })));
        let (_, ended) = watch.end();
        assert!(ended.unwrap_err().to_string().contains("not there any more"));
        std::fs::create_dir_all(files.root()).unwrap();
    }
}

#[test]
fn a_session_that_runs_is_left_alone() {
    let files = Rc::new(Simulated::new(false));
    let first = Session::begin(files.clone()).unwrap();
    let running = files.tree();
    assert_eq!(stale::sweep(&*files), stale::Swept::default());
    assert_eq!(files.tree(), running);
    first.end().unwrap();
    // The same number, but a process that was started at another moment, is gone.
    let stale = stale::Owner { started: 1, ..stale::Owner::this() };
    files.make(&format!("instances/{}", stale.instance())).unwrap();
    let elsewhere = stale::Owner { namespace: 1, ..stale };
    files.make(&format!("instances/{}", elsewhere.instance())).unwrap();
    assert_eq!(stale::sweep(&*files).removed, [format!("instance {}", stale.instance())]);
    assert!(files.exists(&format!("instances/{}", elsewhere.instance())), "nobody here can tell");
}

/// Set for the process that is to be killed: the tracefs in which it works.
const VICTIM: &str = "CPUSIEVE_TRACE_VICTIM";

#[test]
fn after_a_hundred_kills_the_next_start_leaves_all_as_it_was() {
    if let Some(root) = std::env::var_os(VICTIM) {
        let files = Rc::new(Simulated::at(Path::new(&root)));
        loop {
            let mut guests = Watch::guests(files.clone(), false).unwrap();
            guests.turn(SOON).unwrap();
            drop(guests);
            let mut host = Watch::host(files.clone(), false).unwrap();
            host.turn(SOON).unwrap();
            host.end().1.unwrap();
        }
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left_behind = 0;
    for hist in [true, false] {
        let files = Rc::new(Simulated::new(hist));
        let before = files.tree();
        for _ in 0..50 {
            let own = std::env::current_exe().unwrap();
            let name = "after_a_hundred_kills_the_next_start_leaves_all_as_it_was";
            let mut victim = Command::new(own)
                .args(["--exact", name])
                .env(VICTIM, files.root())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            std::thread::sleep(Duration::from_micros(5_000 + random % 40_000));
            // Not reaped yet when it is looked for: it counts as gone all the same.
            victim.kill().unwrap();
            let (mut swept, mut tries) = (stale::sweep(&*files), 0);
            while files.tree() != before && tries < 100 {
                // The kill takes a moment.
                std::thread::sleep(SOON);
                let more = stale::sweep(&*files);
                swept.removed.extend(more.removed);
                tries += 1;
            }
            left_behind += usize::from(!swept.removed.is_empty());
            assert!(files.tree() == before, "{:#?}", files.tree());
            assert!(victim.wait().unwrap().code().is_none(), "it did not end by itself");
        }
    }
    eprintln!("100 kills, {left_behind} of them left something behind");
    assert!(left_behind > 20);
}
