//! Records an exchange with a QEMU as `tests/qmp` holds them, for a fake QEMU to replay:
//!
//! ```text
//! cargo run -p cpusieve-probe --example record_qmp -- survey /usr/bin/qemu-system-x86_64 | gzip -9n > 7.2-survey.gz
//! cargo run -p cpusieve-probe --example record_qmp -- vcpu /usr/bin/qemu-system-x86_64 | gzip -9n > 7.2-vcpu.gz
//! ```
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, reason = "an example with a main")]

use std::process::ExitCode;

use cpusieve_probe::qmp::{Start, survey, vcpu};

#[path = "../tests/qmp/asked.rs"]
mod asked;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let transcript = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["survey", binary] => {
            let start = Start::new(binary, asked::ACCELERATOR).transcript();
            survey(&start, Some(&asked::MODELS)).map(|survey| survey.transcript)
        }
        ["vcpu", binary] => {
            let start = Start::new(binary, asked::ACCELERATOR).machine(asked::MACHINE).cpu(asked::CPU).transcript();
            vcpu(&start).map(|view| view.transcript)
        }
        _ => {
            eprintln!("usage: record_qmp survey|vcpu BINARY");
            return ExitCode::from(2);
        }
    };
    match transcript {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
