//! Whether the program runs on a kernel from 2017: with every system call refused that Linux 4.14 does not have.

use std::error::Error;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::root;

/// `statx`, the last one of Linux 4.14 on x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`).
const LAST: u32 = 332;

/// Runs verbs with and without the newer system calls; what they print must be the same.
pub(super) fn prove(program: &Path) -> Result<String, Box<dyn Error>> {
    let sample = |name: &str| root().join("corpus/examples").join(name).into_os_string();
    let record = root().join("corpus/guests-kvm/k6.12-max.json").into_os_string();
    let word = |word: &str| OsStr::new(word).to_owned();
    let verbs = [
        vec![word("--version")],
        vec![word("diff"), sample("hybrid-host.flags"), sample("hybrid-guest.flags")],
        vec![word("predict"), word("--until"), word("guest"), record],
        vec![word("record"), word("--only"), word("cpuid")],
        vec![word("doctor")],
        vec![word("name"), word("aes"), word("--json")],
    ];
    for arguments in &verbs {
        let run = |old: bool| -> io::Result<Output> {
            let mut command = Command::new(program);
            command.args(arguments);
            if old {
                // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
                unsafe { command.pre_exec(refuse_newer_calls) };
            }
            command.output()
        };
        let (old, new) = (run(true)?, run(false)?);
        if (old.status, &old.stdout) != (new.status, &new.stdout) {
            let told = String::from_utf8_lossy(&old.stderr);
            return Err(format!("{arguments:?} differs without the system calls after 4.14: {told}").into());
        }
    }
    Ok(format!("{} verbs print the same where every system call after Linux 4.14 answers ENOSYS", verbs.len()))
}

/// Installs a filter by which every call after [`LAST`] answers ENOSYS.
fn refuse_newer_calls() -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let newer = libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, LAST) };
    let mut filter = [load_number, newer, refuse, allow];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid while prctl reads it.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}
