//! The QMP client: on recorded exchanges with four releases, on programs that are no QEMU, and on the QEMUs that this
//! machine has.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests start programs and say why they are skipped"
)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what is expected is what is tested")]

#[path = "qmp/asked.rs"]
mod asked;
#[path = "qmp/facts.rs"]
mod facts;
#[path = "qmp/fake.rs"]
mod fake;
#[path = "qmp/hostile.rs"]
mod hostile;
#[path = "qmp/live.rs"]
mod live;
#[path = "qmp/recorded.rs"]
mod recorded;
