//! What other programs print of the same events, and what an enemy might.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read files and fail where one is missing")]

use std::path::Path;

use cpusieve_trace::count::{Asked, Counts};
use cpusieve_trace::fuzz;
use cpusieve_trace::read::{Form, MAX_LINE, Text, read};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/trace")
}

fn sample(name: &str) -> Text {
    read(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn stack(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn asked(counts: &Counts, leaf: u32, subleaf: Option<u32>) -> u64 {
    counts.host.calls.get(&Asked { leaf, subleaf })
}

#[test]
fn tracefs() {
    let Text { form, counts, ignored, .. } = sample("trace_pipe.txt");
    assert_eq!((form, ignored), (Form::Events, 0));
    let by_task: Vec<_> = counts.guests.by_task().into_iter().collect();
    assert_eq!(by_task, [(Some(208), 1), (Some(209), 1), (Some(210), 1)]);
    assert_eq!(counts.tasks[&209].comm, "CPU 1/KVM", "the process stands beside the thread");
    assert_eq!(counts.tasks[&210].comm, "[7] a-b: c", "a name may hold anything");
    assert_eq!(counts.tasks[&208].vcpu, Some(3));
    assert_eq!(counts.guests.exits.get(&(Some(209), "DE excp".to_owned())), 1);
    assert_eq!(counts.guests.exit_count(), None, "two exits for three CPUIDs are not all exits");
    assert_eq!(counts.guests.rips.rows().collect::<Vec<_>>(), [(&0xffff_ffff_8100_1234, 1)]);
    assert_eq!(counts.guests.not_found.total(), 1);
    assert_eq!((counts.lost.events, counts.lost.more), (5 + 31, true), "5 were written over before the file was read");
    assert_eq!((asked(&counts, 0, None), counts.host.without_leaf), (1, 1));
    let frames = stack(&["do_host_cpuid", "__do_cpuid_func", "kvm_dev_ioctl_get_cpuid"]);
    assert_eq!(counts.host.stacks.get(&(frames, Some(180))), 1);
    assert_eq!(counts.others, 1);
}

/// The text of a Debian 6.1 in which a kprobe looks at the same function, so that the tracer's own functions are seen.
#[test]
fn function_tracer() {
    let Text { form, counts, ignored, .. } = sample("functions-6.1.txt");
    assert_eq!((form, ignored), (Form::Events, 0));
    assert_eq!((counts.host.without_leaf, counts.others), (2, 0));
    let frames = ["do_host_cpuid", "__do_cpuid_func", "kvm_dev_ioctl_get_cpuid", "kvm_arch_dev_ioctl"];
    let frames = [&frames[..], &["__x64_sys_ioctl", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]].concat();
    assert_eq!(counts.host.stacks.get(&(stack(&frames), Some(1))), 2);
}

#[test]
fn histograms() {
    let Text { form, counts, ignored, .. } = sample("hist.txt");
    assert_eq!((form, ignored), (Form::Histogram, 0));
    let guests = &counts.guests;
    assert_eq!(
        guests.cpuid.get(&(Some(208), Asked { leaf: 0x1a, subleaf: None })),
        1,
        "hexadecimal, as the trigger says"
    );
    assert_eq!(guests.cpuid.get(&(Some(208), Asked { leaf: 7, subleaf: Some(1) })), 20);
    assert_eq!(guests.cpuid.get(&(Some(209), Asked { leaf: 0x8000_0000, subleaf: None })), 9);
    assert_eq!(counts.lost.events, 3);
    assert_eq!(asked(&counts, 7, None), 58);
    assert_eq!(counts.host.stacks.total(), 58);
}

/// The text of a Debian 6.1 whose guest executed CPUID 2001 times: 1000 times leaf 0, 1000 times 4.1, once 34120000H.
#[test]
fn real_histograms() {
    let Text { form, counts, ignored, .. } = sample("hist-6.1.txt");
    assert_eq!((form, ignored), (Form::Histogram, 0));
    let by_question = counts.guests.by_question();
    let rows: Vec<_> = by_question.rows().map(|(asked, count)| (asked.leaf, asked.subleaf, count)).collect();
    assert_eq!(rows, [(0, None, 1000), (4, Some(1), 1000), (0x3412_0000, None, 1)]);
    assert_eq!(counts.guests.exit_count(), Some(2015));
    let rips: Vec<_> = counts.guests.rips.rows().map(|(&rip, count)| (rip, count)).collect();
    assert_eq!(rips, [(0x1009, 1000), (0x1017, 1000), (0x1022, 1)]);
    assert!(!counts.lost.any());
}

#[test]
fn stackcount() {
    let Text { form, counts, ignored, .. } = sample("stackcount.txt");
    assert_eq!((form, ignored), (Form::Stacks, 0));
    assert_eq!((counts.host.without_leaf, counts.others), (58, 9), "another function's stack is another event");
    let addresses = stack(&["do_host_cpuid", "__do_cpuid_func"]);
    assert_eq!(counts.host.stacks.get(&(addresses, Some(1234))), 56);
    let folded = sample("folded.txt");
    let frames = ["do_host_cpuid", "__do_cpuid_func", "kvm_dev_ioctl_get_cpuid", "ioctl", "kvmdump"];
    assert_eq!(folded.counts.host.stacks.get(&(stack(&frames), None)), 58);
}

#[test]
fn bpftrace() {
    let Text { form, counts, ignored, .. } = sample("bpftrace.txt");
    assert_eq!((form, ignored), (Form::Maps, 0));
    assert_eq!((asked(&counts, 0, None), asked(&counts, 7, Some(1))), (7, 1));
    assert_eq!(counts.guests.by_question().get(&Asked { leaf: 0x4000_0000, subleaf: None }), 12);
    let frames = stack(&["do_host_cpuid", "__do_cpuid_func", "kvm_dev_ioctl_get_cpuid"]);
    assert_eq!(counts.host.stacks.get(&(frames, None)), 58);
    assert_eq!(counts.host.without_leaf, 58 + 3);
}

#[test]
fn perf_and_trace_cmd() {
    for (name, lost, frames) in [
        ("perf-script.txt", 4, &["do_host_cpuid", "__do_cpuid_func", "ioctl"][..]),
        ("trace-cmd.txt", 12, &["do_host_cpuid", "__do_cpuid_func"][..]),
    ] {
        let Text { form, counts, ignored, .. } = sample(name);
        assert_eq!((form, ignored), (Form::Events, 0), "{name}");
        assert_eq!(counts.guests.by_task().into_iter().collect::<Vec<_>>(), [(Some(208), 1)], "{name}");
        assert_eq!(counts.tasks[&208].comm, "CPU 0/KVM", "{name}");
        assert_eq!(counts.guests.rips.total(), 1, "{name}");
        assert_eq!(counts.guests.exit_count(), None, "{name}: only exits for CPUID are in it");
        assert_eq!(asked(&counts, 4, Some(1)), 1, "{name}");
        assert_eq!(counts.host.calls.total(), 1, "{name}");
        assert_eq!(counts.host.stacks.get(&(stack(frames), Some(180))), 1, "{name}: {:?}", counts.host.stacks);
        assert_eq!(counts.lost.events, lost, "{name}");
    }
}

/// As Debian's 6.1 and 7.3 print it.
#[test]
fn the_function_tracer() {
    let old = "\
        cpusieve-79      [000] ...1.     4.380051: do_host_cpuid <-__do_cpuid_func
        cpusieve-79      [000] ...1.     4.381560: <stack trace>
 => 0xffffffffc0737083
 => do_host_cpuid
 => __do_cpuid_func
";
    let counts = read(old.as_bytes()).unwrap().counts;
    assert_eq!((counts.host.without_leaf, counts.host.calls.total(), counts.others), (1, 0, 0));
    assert_eq!(counts.host.stacks.get(&(stack(&["do_host_cpuid", "__do_cpuid_func"]), Some(79))), 1);
    let new = "\
        cpusieve-92      [000] .B.2.     5.129581: do_host_cpuid(array=0xff8f69e0c05f3bd8, function=0x0, index=0x0) <-__do_cpuid_func
        cpusieve-92      [000] ...2.     5.130989: do_host_cpuid(array=0xff8f69e0c05f3bd8, function=0xd, index=0x2) <-__do_cpuid_func
";
    let counts = read(new.as_bytes()).unwrap().counts;
    assert_eq!((counts.host.without_leaf, asked(&counts, 0xd, Some(2))), (0, 1));
    assert_eq!(counts.host.against(&[(0, 0), (0xd, 2)]).complete, 1);
    // A stack of something else is something else.
    let other = old.replace("do_host_cpuid", "vcpu_enter_guest");
    let counts = read(other.as_bytes()).unwrap().counts;
    assert_eq!((counts.others, counts.host.stacks.is_empty()), (2, true));
}

#[test]
fn what_is_no_trace_is_refused_and_long_lines_are_left_out() {
    for text in ["", "fpu vme de pse", "processor\t: 0\nflags\t\t: fpu\n", "{\"format\": 1}\n", "\0\0\0"] {
        assert_eq!(read(text.as_bytes()), None, "{text:?}");
    }
    let line = "a-1 [000] ..... 1.5: kvm_cpuid: func 1 idx 0 rax 0 rbx 0 rcx 0 rdx 0, cpuid entry found\n";
    let text = format!("{line}{}\n{line}", "x".repeat(3 * MAX_LINE));
    let found = read(text.as_bytes()).unwrap();
    assert_eq!((found.counts.guests.cpuid.total(), found.ignored, found.first_ignored), (2, 1, Some(2)));
}

#[test]
fn mutated_samples_keep_the_invariants() {
    let files = std::fs::read_dir(folder()).unwrap();
    let samples: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound.max(1) as u64).unwrap()
    };
    for _ in 0..4000 {
        let mut bytes = samples[below(samples.len())].clone();
        for _ in 0..=below(6) {
            let at = below(bytes.len());
            let end = (at + below(80)).min(bytes.len());
            let other = &samples[below(samples.len())];
            let from = below(other.len());
            let to = (from + below(200)).min(other.len());
            match below(6) {
                0 => bytes[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(13)),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, other[from..to].iter().copied())),
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..end, *b"99999999999999999999")),
                _ => drop(bytes.splice(at..at, [b"\n[", b"]:", b"=>", b"@[", b"{ ", b"} "][below(6)].iter().copied())),
            }
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        if let Err(broken) = fuzz::check(&bytes) {
            panic!("{broken}\n{}", String::from_utf8_lossy(&bytes));
        }
    }
}
