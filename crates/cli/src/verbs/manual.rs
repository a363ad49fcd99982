//! `manual`: completions and man pages, made from the table of arguments.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Done, Failure};
use crate::args::{Arguments, ManualKind, ManualOptions};
use crate::page;

/// The program's name in completions and pages.
const NAME: &str = "cpusieve";

pub(crate) fn run(options: &ManualOptions) -> Result<Done, Failure> {
    let mut command = Arguments::command();
    let shell = match options.what {
        ManualKind::Bash => Shell::Bash,
        ManualKind::Zsh => Shell::Zsh,
        ManualKind::Fish => Shell::Fish,
        ManualKind::Man => return pages(command, options),
    };
    match &options.to {
        Some(folder) => {
            clap_complete::generate_to(shell, &mut command, NAME, folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        None => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, NAME, &mut text);
            page::print(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(Done::Same)
}

fn pages(command: clap::Command, options: &ManualOptions) -> Result<Done, Failure> {
    match &options.to {
        Some(folder) => {
            clap_mangen::generate_to(command, folder).map_err(|error| format!("{}: {error}", folder.display()))?
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            page::print(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(Done::Same)
}
