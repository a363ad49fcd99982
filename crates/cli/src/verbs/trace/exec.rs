//! `trace exec -- CMD`: the CPUIDs of one program.

use std::fmt::Write as _;
use std::io::stderr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use cpusieve_probe::signals;
use cpusieve_trace::count::Tally;
use cpusieve_trace::exec::{Executed, run as watch};
use serde_json::json;

use super::super::{Done, Failure};
use super::{json as fields, text};
use crate::args::TraceOptions;
use crate::json::pretty;
use crate::page::{self, DOUBT, HEAD, QUIET, styled};

pub(super) fn run(options: &TraceOptions, as_json: bool) -> Result<Done, Failure> {
    let Some((program, arguments)) = options.command.split_first() else {
        return Err("which program? `trace exec -- CMD`".into());
    };
    if options.duration.is_some()
        || options.from.is_some()
        || options.host.is_some()
        || options.events
        || options.functions
    {
        return Err("trace exec watches until the program ends and takes no options".into());
    }
    signals::catch()?;
    // Standard output is the report's.
    let output = stderr().as_fd().try_clone_to_owned()?;
    let executed = watch(Command::new(program).args(arguments).stdout(Stdio::from(output)))?;
    page::print(&if as_json { as_text(&executed) } else { table(&executed, page::width()) })?;
    Ok(if executed.unseen.is_empty() { Done::Same } else { Done::InPart })
}

fn as_text(executed: &Executed) -> String {
    let rows = executed.counts.rows().map(|((file, asked), count)| {
        let mut row = fields::question(*asked);
        row.insert("file".to_owned(), json!(file));
        row.insert("count".to_owned(), json!(count));
        row
    });
    pretty(&json!({
        "format": 1,
        "watched": "exec",
        "source": executed.method.name(),
        "status": executed.status,
        "processes": executed.processes,
        "cpuid": executed.counts.total(),
        "rows": rows.collect::<Vec<_>>(),
        "other": executed.counts.other(),
        "unseen": executed.unseen,
    }))
}

fn table(executed: &Executed, width: usize) -> String {
    let mut page = String::new();
    let processes = usize::try_from(executed.processes).unwrap_or(usize::MAX);
    let ended = match executed.status {
        0 => String::new(),
        signal @ ..0 => format!("; killed by signal {}", -signal),
        status => format!("; exit status {status}"),
    };
    let processes = match processes {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    };
    let head = styled(HEAD, format!("{} CPUIDs of {processes}", executed.counts.total()));
    let how = styled(QUIET, format!("({}{ended})", executed.method.name()));
    page.push_str(&page::wrap(&format!("{head} {how}"), "", "  ", width));
    let mut files: Tally<&str> = Tally::default();
    executed.counts.rows().for_each(|((file, _), count)| files.add(file, count));
    for (file, count) in files.most() {
        let _ = writeln!(page, "\n{}", styled(HEAD, format!("{count:10}  {}", page::tame(file))));
        let mut rows: Vec<_> = executed.counts.rows().filter(|((of, _), _)| of == file).collect();
        rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        for ((_, asked), count) in rows {
            let _ = writeln!(page, "{count:10}  {}", text::question(*asked));
        }
    }
    for (file, why) in &executed.unseen {
        let line = page::tame(&format!("not counted in {file}: {why}"));
        page.push_str(&page::wrap(&line, &styled(DOUBT, "! "), "  ", width));
    }
    page
}
