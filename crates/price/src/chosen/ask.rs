//! Running a program that may not be there, and reading what it prints, within limits.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: u64 = 1 << 20;

/// How often it is looked whether the program has ended.
const PATIENCE: Duration = Duration::from_millis(2);

/// What the program prints on standard output, if it ends well within `limit`; else why not.
pub(super) fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env("LC_ALL", "C");
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("{name}: {error}"),
    })?;
    let mut stdout = child.stdout.take().ok_or_else(|| format!("{name}: no output"))?.take(ANSWER_LIMIT);
    // A thread of its own, so that a program that prints much does not wait for room.
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is an answer too.
        let _partial = stdout.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(|error| format!("{name}: {error}"))? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => break None,
            None => std::thread::sleep(PATIENCE),
        }
    };
    if status.is_none() {
        // That it has just ended by itself is no matter.
        let _gone = child.kill();
        let _reaped = child.wait();
    }
    let text = reader.join().map_err(|_| format!("{name}: what it prints could not be read"))?;
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(format!("{name} ended with {status}")),
        None => Err(format!("{name} did not end within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_answer_fail_hang_or_are_not_there() {
        let second = Duration::from_secs(20);
        let shell = |script: &str, limit| output(Command::new("/bin/sh").args(["-c", script]), limit);
        assert_eq!(shell("echo $LC_ALL", second).unwrap(), "C\n");
        assert!(shell("exit 3", second).unwrap_err().contains("exit status: 3"));
        assert!(shell("exec sleep 60", Duration::from_millis(50)).unwrap_err().contains("did not end"));
        let absent = output(&mut Command::new("no-such-program-of-cpusieve"), second).unwrap_err();
        assert_eq!(absent, "no-such-program-of-cpusieve is not installed");
    }
}
