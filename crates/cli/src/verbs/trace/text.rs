//! The tables of `trace`.

use std::fmt::Write as _;

use cpusieve_trace::count::{Asked, Guests, Host, Pid};

use super::Seen;
use crate::args::Whose;
use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled};

/// Home, and everything below is erased.
pub(super) const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Rows of a table of instruction pointers and of stacks, and of one of vCPUs or leaves.
const ROWS: usize = 10;
const MANY_ROWS: usize = 24;

/// The answer of `trace guests` and `trace host`.
pub(super) fn counts(seen: &Seen, width: usize) -> String {
    let mut page = String::new();
    if seen.whose == Whose::Guests {
        guests(&mut page, seen, &seen.counts.guests, width);
    }
    if seen.whose == Whose::Host || !seen.counts.host.calls.is_empty() {
        host(&mut page, seen, &seen.counts.host, width);
    }
    for doubt in &seen.doubts {
        page.push_str(&page::wrap(&page::tame(doubt), &styled(DOUBT, "! "), "  ", width));
    }
    page
}

/// A leaf and its subleaf, as everywhere: `7.0`, `80000008`.
pub(super) fn question(asked: Asked) -> String {
    asked.subleaf.map_or_else(|| format!("{:x}", asked.leaf), |subleaf| format!("{:x}.{subleaf:x}", asked.leaf))
}

/// In hundredths.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn name(seen: &Seen, pid: Pid) -> String {
    let Some(pid) = pid else { return "unknown thread".to_owned() };
    let task = seen.counts.tasks.get(&pid);
    let vcpu = task.and_then(|task| task.vcpu).map_or_else(String::new, |vcpu| format!(" (vCPU {vcpu})"));
    page::tame(&format!("{} {pid}{vcpu}", task.map_or("", |task| &task.comm)))
}

fn after(seen: &Seen) -> String {
    seen.time.map_or_else(String::new, |time| format!(" in {:.1} s", time.as_secs_f64()))
}

fn guests(page: &mut String, seen: &Seen, guests: &Guests, width: usize) {
    let total = guests.cpuid.total();
    let mut head = format!("{total} CPUIDs of guests{}", after(seen));
    if let Some(time) = seen.time {
        let _ = write!(head, ", {:.0} a second", total as f64 / time.as_secs_f64().max(0.001));
    }
    if let Some(exits) = guests.exit_count().filter(|&exits| exits > 0) {
        let _ = write!(head, ", {} of {exits} exits", percent(total, exits));
    }
    let source = page::tame(&seen.source);
    page.push_str(&page::wrap(
        &format!("{} {}", styled(HEAD, head), styled(QUIET, format!("({source})"))),
        "",
        "  ",
        width,
    ));
    if total == 0 {
        return;
    }
    let _ = writeln!(page, "\n{}", styled(HEAD, "     count  share  by vCPU"));
    let mut tasks: Vec<_> = guests.by_task().into_iter().collect();
    tasks.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    for &(pid, count) in tasks.iter().take(MANY_ROWS) {
        let _ = writeln!(page, "{count:10} {:>6}  {}", percent(count, total), name(seen, pid));
    }
    more(page, tasks.len(), MANY_ROWS);
    let _ = writeln!(page, "\n{}", styled(HEAD, "     count  share  by leaf"));
    let by_question = guests.by_question();
    let leaves = by_question.most();
    for &(&asked, count) in leaves.iter().take(MANY_ROWS) {
        let missing = match guests.not_found.get(&asked) {
            0 => "",
            missing if missing == count => "  not in the vCPU's table",
            _ => "  partly not in the vCPU's table",
        };
        let _ = writeln!(page, "{count:10} {:>6}  {}{missing}", percent(count, total), question(asked));
    }
    more(page, leaves.len(), MANY_ROWS);
    if !guests.rips.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, "     count  share  from guest RIP"));
        let rips = guests.rips.most();
        for (rip, count) in rips.iter().take(ROWS) {
            let _ = writeln!(page, "{count:10} {:>6}  {rip:#x}", percent(*count, guests.rips.total()));
        }
        more(page, rips.len(), ROWS);
    }
}

fn host(page: &mut String, seen: &Seen, host: &Host, width: usize) {
    let calls = host.calls.total().saturating_add(host.without_leaf);
    let head = styled(HEAD, format!("{calls} calls of do_host_cpuid{}", after(seen)));
    let source = page::tame(&seen.source);
    page.push_str(&page::wrap(&format!("{head} {}", styled(QUIET, format!("({source})"))), "", "  ", width));
    if let Some((compared, calls)) = &seen.compared {
        let tries = compared.short.len();
        let line = format!(
            "{} of {calls} calls as predicted{}",
            page::counted(compared.complete, "complete KVM_GET_SUPPORTED_CPUID"),
            if tries == 0 { String::new() } else { format!(", {tries} that stopped early: room for too few entries") },
        );
        page.push_str(&page::wrap(
            &styled(if compared.other.is_empty() { GAINED } else { QUIET }, line),
            "  ",
            "    ",
            width,
        ));
        for (ioctl, same) in &compared.other {
            let next =
                ioctl.calls.get(*same).map_or_else(String::new, |(leaf, subleaf)| format!(": {leaf:x}.{subleaf:x}"));
            let line = format!("{}: not as predicted from call {} on{next}", name(seen, ioctl.pid), same + 1);
            page.push_str(&page::wrap(&styled(LOST, line), "  ", "    ", width));
        }
    }
    if !host.calls.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, "     count  by leaf"));
        for (&asked, count) in host.calls.rows() {
            let _ = writeln!(page, "{count:10}  {}", question(asked));
        }
    }
    let stacks = host.stacks.most();
    if !stacks.is_empty() {
        let _ = writeln!(page, "\n{}", styled(HEAD, "     count  by stack"));
    }
    for ((stack, pid), count) in stacks.iter().take(ROWS) {
        let _ = writeln!(page, "{count:10}  {}", if pid.is_some() { name(seen, *pid) } else { String::new() });
        for frame in stack {
            let _ = writeln!(page, "{:12}{}", "", page::tame(frame));
        }
    }
    more(page, stacks.len(), ROWS);
}

fn more(page: &mut String, rows: usize, shown: usize) {
    if let Some(left) = rows.checked_sub(shown).filter(|&left| left > 0) {
        let _ = writeln!(page, "{}", styled(QUIET, format!("            and {left} more; --json has them all")));
    }
}
