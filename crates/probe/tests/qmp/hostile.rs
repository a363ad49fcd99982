//! Programs that are no QEMU, or no good one: each is an error that says what happened, in time, and nothing is left
//! running.

use std::path::Path;
use std::time::{Duration, Instant};

use cpusieve_probe::qmp::{QmpError, Session, Start};

use crate::fake::Fake;

/// For programs that will not answer: long enough for a shell to start on a busy machine.
const SHORT: Duration = Duration::from_millis(1500);

/// For programs that do what they do at once.
const LONG: Duration = Duration::from_secs(20);

/// `open` of a QEMU that is a script.
fn opened(script: &str, limit: Duration) -> (Result<Session, QmpError>, Fake) {
    let fake = Fake::script(script);
    (Start::new(fake.program(), "tcg").limit(limit).open(), fake)
}

fn refusal(script: &str, limit: Duration) -> String {
    let begin = Instant::now();
    let (outcome, fake) = opened(script, limit);
    let error = outcome.map(|_| ()).unwrap_err().to_string();
    assert!(begin.elapsed() < LONG, "{script}: {:?}", begin.elapsed());
    let (name, rest) = error.split_once(": ").unwrap();
    assert_eq!(Path::new(name), fake.program(), "{error}");
    assert!(!rest.contains(char::is_control), "{rest:?}");
    rest.to_owned()
}

/// A program that greets, takes capabilities, and then does as `script` says.
fn greeting(script: &str) -> String {
    let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 9}}, "capabilities": []}}"#;
    format!("#!/bin/sh\necho '{greeting}'\nread -r line\necho '{{\"return\": {{}}, \"id\": 1}}'\n{script}\n")
}

#[test]
fn what_is_no_qemu_is_refused_in_one_line() {
    assert_eq!(refusal("#!/bin/sh\nexit 3\n", LONG), "ended (exit status: 3) before its greeting");
    let gone = "#!/bin/sh\nprintf 'a\\nb\\033[1m\\n\\nc\\nd\\ne\\nf' >&2\nkill -ABRT $$\n";
    let said = refusal(gone, LONG);
    let (status, lines) = said.split_once(" before its greeting: ").unwrap();
    assert!(status.starts_with("ended (signal: 6 (SIGABRT)"), "{status}");
    assert_eq!(lines, "b?[1m; c; d; e; f", "the last five lines");
    assert_eq!(refusal("#!/bin/sh\nexec sleep 60\n", SHORT), "no answer to its greeting within 1.5s");
    let garbage = refusal("#!/bin/sh\necho 'hello\u{1b}'\nexec sleep 60\n", LONG);
    assert_eq!(garbage, "its greeting: not a QMP message: \"hello?\"");
    let early = refusal("#!/bin/sh\necho '{\"return\": {}}'\nexec sleep 60\n", LONG);
    assert_eq!(early, "its greeting: the reply without a number is not a greeting");
}

#[test]
fn a_program_that_is_not_there_or_is_none_is_refused() {
    let missing = Start::new("/nowhere/qemu", "tcg").open().map(|_| ()).unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/qemu: No such file"), "{missing}");
    // A file without a magic number is handed to the shell, which does not know what to do with it either.
    assert!(refusal("\u{7f}no-script", LONG).starts_with("ended (exit status: "));
}

#[test]
fn endless_output_is_bounded() {
    let endless = refusal("#!/bin/sh\nexec tr '\\0' x </dev/zero\n", LONG);
    assert_eq!(endless, "its greeting: a message longer than 4194304 bytes");
    let deep = refusal("#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' '['\necho\nexec sleep 60\n", LONG);
    assert!(deep.starts_with("its greeting: not a QMP message: \"[[["), "{deep}");
    let errors = refusal("#!/bin/sh\nyes >&2\n", SHORT);
    assert_eq!(errors, "no answer to its greeting within 1.5s: y; y; y; y; y");
    let closed = refusal("#!/bin/sh\nexec yes >&2\n", LONG);
    assert_eq!(closed, "its greeting: it closed its output and did not end: y; y; y; y; y");
    let events = greeting("exec yes '{\"event\": \"RESET\"}'");
    let (session, _fake) = opened(&events, SHORT);
    let begin = Instant::now();
    let error = session.unwrap().machines().unwrap_err();
    assert!(matches!(error, QmpError::Late { .. }), "{error}");
    assert!(begin.elapsed() < LONG);
}

#[test]
fn a_qemu_that_does_not_read_is_late() {
    let (session, _fake) = opened(&greeting("exec sleep 60"), SHORT);
    let mut session = session.unwrap();
    let name = "x".repeat(1 << 20);
    let error = session.device_properties(&name).unwrap_err();
    assert!(matches!(error, QmpError::Late { during: "device-list-properties", .. }), "{error}");
    let after = session.machines().unwrap_err().to_string();
    assert!(after.contains("ended (signal: 9 (SIGKILL)) before query-machines"), "{after}");
}

#[test]
fn events_and_refusals_do_not_end_a_session() {
    let script = greeting(
        "read -r line\necho '{\"event\": \"STOP\", \"data\": {}}'\n\
         echo '{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007such\"}, \"id\": 2}'\n\
         read -r line\necho '{\"return\": [{\"name\": \"m\", \"is-default\": 7, \"new\": [1, 2]}], \"id\": 3}'\n\
         read -r line\necho '{\"return\": [{\"no\": \"name\"}], \"id\": 4}'\nexec sleep 60",
    );
    let (session, _fake) = opened(&script, LONG);
    let mut session = session.unwrap();
    assert_eq!(session.version().to_string(), "9.2.1");
    let refused = session.type_properties("t").unwrap_err();
    assert!(matches!(&refused, QmpError::Refused { class, .. } if class == "GenericError"), "{refused}");
    assert!(refused.to_string().ends_with("qom-list-properties: no?such"), "{refused}");
    let machines = session.machines().unwrap();
    assert_eq!((machines[0].name.as_str(), machines[0].is_default), ("m", false));
    assert_eq!((machines[0].other["new"].as_str(), machines[0].other["is-default"].as_str()), ("[1,2]", "7"));
    let wrong = session.cpu_definitions().unwrap_err().to_string();
    assert!(wrong.contains("is not a list of CPU models"), "{wrong}");
    assert!(matches!(session.vcpus(), Err(QmpError::Ended { .. })), "who does not speak QMP is not asked again");
}

#[test]
fn replies_out_of_turn_are_refused() {
    let (session, _fake) = opened(&greeting("read -r line\necho '{\"return\": [], \"id\": 1}'\nexec sleep 60"), LONG);
    let error = session.unwrap().machines().unwrap_err().to_string();
    assert!(error.contains("the reply to command 1 is not the reply to this command"), "{error}");
}

#[test]
fn nothing_is_left_running() {
    // The program leaves a child behind that it does not wait for, as wrappers do.
    let fake = Fake::script(&greeting("sleep 600 & echo $! > \"$0.pid\"\nexec sleep 600"));
    let session = Start::new(fake.program(), "tcg").open().unwrap();
    let begin = Instant::now();
    let pid = loop {
        match std::fs::read_to_string(fake.file("qemu.pid")) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => assert!(begin.elapsed() < Duration::from_secs(20)),
        }
    };
    let running = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(running());
    drop(session);
    while running() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it still runs");
    }
}

#[test]
fn a_qemu_ends_when_it_is_asked_to() {
    let quits = greeting("read -r line\necho '{\"return\": {}, \"id\": 2}'\nexit 5");
    let (session, _fake) = opened(&quits, LONG);
    assert_eq!(session.unwrap().close().unwrap().code(), Some(5));
    let lingers = greeting("read -r line\necho '{\"return\": {}, \"id\": 2}'\nexec sleep 60");
    let (session, _fake) = opened(&lingers, LONG);
    assert_eq!(session.unwrap().close().unwrap().code(), None, "killed");
}
