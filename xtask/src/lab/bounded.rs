//! Other programs, each with a time limit.

use std::error::Error;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a program ended.
pub(super) struct Ended {
    /// Its exit status; `None` if it was stopped at its time limit.
    pub(super) status: Option<ExitStatus>,
    /// What it wrote to stdout.
    pub(super) stdout: String,
    /// What it wrote to stderr.
    pub(super) stderr: String,
}

/// Runs a program without input for at most `limit`.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<Ended, Box<dyn Error>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let mut running = Running(child);
    let child = &mut running.0;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // Both are drained while the program runs, lest it wait for a full pipe.
        let stdout = scope.spawn(move || drained(stdout.as_mut()));
        let stderr = scope.spawn(move || drained(stderr.as_mut()));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        Ok(Ended { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
    })
}

/// A program that does not outlive its caller's interest, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and that is well.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// As [`run`], for a program that must succeed: what it wrote to stdout.
pub(super) fn must(command: &mut Command, limit: Duration) -> Result<String, Box<dyn Error>> {
    let ended = run(command, limit)?;
    let name = command.get_program().to_string_lossy();
    match ended.status {
        Some(status) if status.success() => Ok(ended.stdout),
        Some(status) => {
            let last = ended.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
            Err(format!("{name}: {status}: {last}").into())
        }
        None => Err(format!("{name} did not end within {} s", limit.as_secs()).into()),
    }
}

fn drained(pipe: Option<&mut impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is worth more than the error.
    let _partial = pipe.map(|pipe| pipe.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
