//! `price --cpu A --cpu B`: two guests under KVM that measure themselves.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use cpusieve_formats::price::Prices;
use cpusieve_price::guests::{self, Asked, Compared, Got};
use cpusieve_price::stats::Interval;
use cpusieve_price::work::Unit;
use cpusieve_probe::guest as boots;
use serde_json::{Value, json};

use super::exits::{percent, time};
use super::json::interval;
use super::text::rate;
use crate::args::PriceGuestOptions;
use crate::json::pretty;
use crate::page::{self, GAINED, HEAD, LOST, QUIET, styled};
use crate::verbs::{Done, Failure};

/// The type of machine that all releases have.
const MACHINE: &str = "pc";

/// How long a guest may take for all but measuring.
const LIMIT: Duration = Duration::from_secs(60);

/// Below this the two are told to be alike.
const ALIKE: f64 = 0.03;

/// Boots each guest twice and compares.
pub(super) fn run(options: &PriceGuestOptions, seconds: u64, as_json: bool) -> Result<Done, Failure> {
    let [a, b] = &options.cpu[..] else {
        return Err("two guests are compared: --cpu A --cpu B".into());
    };
    let cpuid = cpusieve_probe::cpuid::enumerate_here().table;
    if let Some(why) = guests::hindrance(&cpuid) {
        return not_here(&why, (a, b), as_json);
    }
    let kernel = boots::find(options.kernel.as_deref())
        .map_err(|refusal| format!("no kernel to boot: {refusal}; --kernel FILE names an image that can be read"))?;
    let binary = match &options.qemu {
        Some(path) => path.display().to_string(),
        None => qemu()?,
    };
    let program = boots::this_program()?;
    let initramfs = boots::build(&program, None);
    let asked = |cpu| Asked {
        binary: Path::new(&binary),
        accelerator: "kvm",
        machine: MACHINE,
        cpu,
        kernel: &kernel.image,
        initramfs: &initramfs,
        seconds,
        limit: LIMIT,
    };
    let mut told: [Vec<Prices>; 2] = [Vec::new(), Vec::new()];
    for (number, which) in [0, 1, 1, 0].into_iter().enumerate() {
        let cpu = if which == 0 { a } else { b };
        progress(&format!("guest {} of 4: -cpu {cpu}", number + 1));
        let prices = guests::boot(&asked(cpu))?;
        if let Some(boots) = told.get_mut(which) {
            boots.push(prices);
        }
    }
    progress("");
    let [of_a, of_b] = &told;
    let rows = guests::compare(of_a, of_b);
    page::print(&if as_json { as_text(&rows, (a, b)) } else { text(&rows, (a, b), page::width()) })?;
    Ok(Done::Same)
}

/// How far it has come, in place of what was told before; on a terminal alone.
fn progress(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // Whoever cannot see it misses nothing.
        let _unseen = write!(stderr, "\r\x1b[K{}", page::tame(text)).and_then(|()| stderr.flush());
    }
}

/// What cannot be measured here is not made up.
fn not_here(why: &str, (a, b): (&str, &str), as_json: bool) -> Result<Done, Failure> {
    if as_json {
        page::print(&pretty(&json!({"format": 1, "cpus": [a, b], "rows": [], "refused": why})))?;
    } else {
        let remedy = "Run it on a host whose /dev/kvm is served by kvm_intel or kvm_amd; what single features are worth \
                      on this CPU, `cpusieve price` tells here and now.";
        page::print(
            &(page::wrap(why, &styled(HEAD, "Guests cannot be priced here: "), "  ", page::width())
                + &page::wrap(remedy, "  > ", "    ", page::width())),
        )?;
    }
    Ok(Done::InPart)
}

/// The first QEMU on the search path.
fn qemu() -> Result<String, Failure> {
    let found = cpusieve_probe::qemu::find(&mut Vec::new()).into_iter().next();
    Ok(found.ok_or("no qemu-system-x86_64 is on the search path; --qemu PATH names one")?.path)
}

fn text(rows: &[Compared], (a, b): (&str, &str), width: usize) -> String {
    let heading = format!("-cpu {b} against -cpu {a}, two boots each");
    let mut page = page::wrap(&styled(HEAD, page::tame(&heading)), "", "  ", width);
    let mut sorted: Vec<&Compared> = rows.iter().collect();
    let gain = |row: &Compared| row.better.map_or(1.0, |better| better.median);
    sorted.sort_by(|x, y| gain(y).total_cmp(&gain(x)));
    let mut alike: Vec<&str> = Vec::new();
    for row in sorted {
        let Some(better) = row.better else { continue };
        if (better.median - 1.0).abs() < ALIKE || (better.low <= 1.0 && better.high >= 1.0) {
            alike.push(&row.title);
            continue;
        }
        let style = if better.median > 1.0 { GAINED } else { LOST };
        let ratio = styled(style, format!("{:6.2}x", better.median));
        let line =
            format!("{} ± {}: {} against {}", row.title, percent(better), shown(row, &row.b), shown(row, &row.a));
        page.push_str(&page::wrap(&page::tame(&line), &format!("  {ratio}  "), "           ", width));
    }
    if !alike.is_empty() {
        let _ = writeln!(page);
        let line = styled(QUIET, page::tame(&alike.join("; ")));
        page.push_str(&page::wrap(&line, "alike: ", "  ", width));
    }
    page
}

fn shown(row: &Compared, got: &Got) -> String {
    match got {
        Got::Measured(Interval { median, .. }) => match row.unit.as_str() {
            "ns" => time(*median),
            "bytes" => rate(*median, Unit::Bytes),
            unit => format!("{median:.3e} {unit}/s"),
        },
        Got::Lacks(features) => format!("none (it lacks {})", features.join(" ")),
        Got::Nothing => "nothing".to_owned(),
    }
}

fn as_text(rows: &[Compared], (a, b): (&str, &str)) -> String {
    let got = |got: &Got| match got {
        Got::Measured(range) => interval(range),
        Got::Lacks(features) => json!({"lacking": features}),
        Got::Nothing => Value::Null,
    };
    let rows = rows.iter().map(|row| {
        json!({"id": row.id, "title": row.title, "unit": row.unit, "a": got(&row.a), "b": got(&row.b),
            "better": row.better.as_ref().map(interval)})
    });
    pretty(&json!({"format": 1, "cpus": [a, b], "rows": rows.collect::<Vec<_>>()}))
}
