//! Prices for people: bars, intervals, rates, and the doubts below.

use std::fmt::Write as _;

use cpusieve_price::report::{Fate, Lacking, Machine, Price, Report, Unpriced, Why};
use cpusieve_price::stats::Interval;
use cpusieve_price::work::Unit;

use crate::page::{self, DOUBT, GAINED, HEAD, LOST, QUIET, styled};

/// The longest bar.
const BAR: usize = 10;

/// From which widths on bars and rates are shown.
const WITH_BARS: usize = 72;
const WITH_RATES: usize = 96;

/// The machine in one line.
pub(super) fn machine(machine: &Machine, ghz: Option<f64>) -> String {
    let cpus = page::counted(machine.cpus, "CPU");
    let signature = machine.signature.map(|(family, model, stepping)| format!("{family:X}h.{model:X}h.{stepping}"));
    let kernel = machine.kernel.as_ref().map(|release| format!("Linux {release}"));
    let generation = match (machine.generation, signature) {
        (Some(name), Some(signature)) => Some(format!("{name} {signature}")),
        (name, signature) => name.map(str::to_owned).or(signature),
    };
    let speed = ghz.map(|ghz| format!("{ghz:.2} GHz"));
    let parts = [machine.brand.clone(), generation, Some(machine.place.clone()), kernel, Some(cpus), speed];
    let date = Some(machine.date.clone());
    page::tame(&parts.into_iter().chain([date]).flatten().collect::<Vec<_>>().join(" · "))
}

pub(super) fn report(report: &Report, width: usize) -> String {
    let mut text = page::wrap(&machine(&report.machine, report.ghz), "", "  ", width);
    text.push('\n');
    text.push_str(&table(&report.prices, width));
    text.push_str(&unpriced(&report.unpriced, width));
    for doubt in &report.doubts {
        let line = page::wrap(&page::tame(&doubt.to_string()), "doubt: ", "       ", width);
        let _ = writeln!(text, "{}", styled(DOUBT, line.trim_end()));
    }
    text.push_str(&styled(QUIET, page::wrap(&summary(report), "", "", width).trim_end()));
    text.push('\n');
    text
}

fn summary(report: &Report) -> String {
    let sum = |of: fn(&Price) -> usize| report.prices.iter().map(of).sum::<usize>();
    format!(
        "{} in {:.0} s; {} blocks, {} of them outliers, {} dropped because others had the CPU; intervals of 95 %",
        page::counted(report.prices.len(), "price"),
        report.time.as_secs_f64(),
        sum(|price| price.blocks),
        sum(|price| price.outliers),
        sum(|price| price.dropped),
    )
}

fn table(prices: &[Price], width: usize) -> String {
    if prices.is_empty() {
        return String::new();
    }
    let longest = |of: fn(&Price) -> &str| prices.iter().map(|price| of(price).chars().count()).max().unwrap_or(0);
    let feature = longest(|price| price.feature).max(7);
    let bars = width >= WITH_BARS;
    let rates = width >= WITH_RATES;
    let used = 8 + 8 + if bars { BAR + 1 } else { 0 } + feature + 1 + if rates { 24 } else { 0 };
    let title = longest(|price| price.title).clamp(4, width.saturating_sub(used).max(4));
    let widest = prices.iter().map(|price| price.ratio.median.ln().abs()).fold(1.0_f64.exp().ln(), f64::max);
    let mut head = format!("{:>7} ", "worth");
    if bars {
        let _ = write!(head, "{:BAR$} ", "");
    }
    let _ = write!(head, "{:>6}  {:feature$} {:title$}", "±", "feature", "work");
    if rates {
        let _ = write!(head, " {:>11} {:>11}", "with", "without");
    }
    let mut text = format!("{}\n", styled(HEAD, head.trim_end()));
    for price in prices {
        let style = if is_nothing(&price.ratio) {
            QUIET
        } else if price.ratio.median < 1.0 {
            LOST
        } else {
            GAINED
        };
        let _ = write!(text, "{} ", styled(style, format!("{:>7}", ratio(price.ratio.median))));
        if bars {
            let _ = write!(text, "{} ", styled(style, format!("{:BAR$}", bar(price.ratio.median.ln().abs() / widest))));
        }
        let spread = format!("{:.1} %", price.ratio.spread() * 100.0);
        let _ = write!(text, "{} ", styled(QUIET, format!("{spread:>6} ")));
        let shown: String = price.title.chars().take(title).collect();
        let mut rest = format!("{:feature$} {shown:title$}", price.feature);
        if rates {
            let rate = |interval: Interval| rate(interval.median, price.unit);
            let _ = write!(rest, " {:>11} {:>11}", rate(price.rate_with), rate(price.rate_without));
        }
        text.push_str(rest.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Whether the interval holds 1: no difference was seen.
fn is_nothing(ratio: &Interval) -> bool {
    ratio.low <= 1.0 && 1.0 <= ratio.high
}

/// `15.8x`, `1.21x`, `0.97x`.
pub(super) fn ratio(ratio: f64) -> String {
    if ratio >= 9.95 { format!("{ratio:.1}x") } else { format!("{ratio:.2}x") }
}

/// A bar of a share of the longest, in eighths.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let last = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = "█".repeat(eighths / 8);
    bar.extend((eighths % 8).checked_sub(1).and_then(|place| last.get(place)));
    bar
}

/// How much a second: `7.80 GB/s`, `1.20 M/s`.
pub(super) fn rate(rate: f64, unit: Unit) -> String {
    let (value, prefix) = match rate {
        rate if rate >= 1e9 => (rate / 1e9, "G"),
        rate if rate >= 1e6 => (rate / 1e6, "M"),
        rate if rate >= 1e3 => (rate / 1e3, "k"),
        rate => (rate, ""),
    };
    let digits = if value >= 99.5 { 0 } else { usize::from(value < 9.95) + 1 };
    match unit {
        Unit::Bytes => format!("{value:.digits$} {prefix}B/s"),
        Unit::Operations(_) => format!("{value:.digits$} {prefix}/s"),
    }
}

/// What was not priced, those that lack the same together.
fn unpriced(unpriced: &[Unpriced], width: usize) -> String {
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for left in unpriced {
        let why = why(&left.why);
        let name = left.work.unwrap_or(left.feature);
        match said.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(name),
            None => said.push((why, vec![name])),
        }
    }
    let mut text = String::new();
    for (why, names) in said {
        text.push_str(&page::wrap(&format!("{}: {why}", names.join(", ")), "not run: ", "         ", width));
    }
    text
}

/// Why something was not priced, as one sentence without an end.
pub(super) fn why(why: &Why) -> String {
    match why {
        Why::Lacking(lacking) => lacking.iter().map(fate).collect::<Vec<_>>().join("; "),
        Why::Refused(reason) | Why::Unseen(reason) => (*reason).to_owned(),
        Why::Wrong(way) => format!("{way} gave a wrong result, so nothing was timed"),
        Why::NoTime => "the time was up, or others always had the CPU".to_owned(),
    }
}

fn fate(lacking: &Lacking) -> String {
    let feature = lacking.feature;
    match lacking.fate {
        Fate::Silicon => format!("this CPU lacks {feature}: its generation never had it"),
        Fate::Sieve => {
            format!("a sieve took {feature}: all CPUs of this generation have it (`cpusieve why {feature}`)")
        }
        Fate::State => format!("the CPU has {feature}, but its registers are not enabled in XCR0"),
        Fate::Unknown => format!("no {feature} here; whether a sieve took it cannot be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(median: f64) -> Price {
        let ratio = Interval { median, low: median * 0.99, high: median * 1.01, n: 10 };
        let way = cpusieve_price::work::Way { name: "a way", needs: &[] };
        Price {
            feature: "avx512_vpopcntdq",
            work: "work",
            title: "AES-256-GCM, no pclmulqdq either",
            with: way,
            without: way,
            unit: Unit::Bytes,
            ratio,
            rate_with: ratio.scaled(1e9),
            rate_without: ratio.scaled(1e8),
            outliers: 0,
            dropped: 0,
            blocks: 9,
        }
    }

    #[test]
    fn tables_fit_every_width() {
        let prices = [price(104.6), price(1.0), price(0.43)];
        for width in 40..=110 {
            let table = table(&prices, width);
            assert!(table.lines().all(|line| page::columns(line) <= width), "{width}\n{table}");
            assert_eq!(table.lines().count(), 5, "{width}");
        }
        // At a hundred columns nothing is cut off.
        assert!(table(&prices, 100).contains("no pclmulqdq either"));
        assert_eq!(table(&[], 100), "");
    }

    #[test]
    fn numbers_have_three_figures() {
        assert_eq!([ratio(15.83), ratio(1.214), ratio(0.971)], ["15.8x", "1.21x", "0.97x"]);
        assert_eq!(rate(7.8e9, Unit::Bytes), "7.80 GB/s");
        assert_eq!(rate(39.2e9, Unit::Bytes), "39.2 GB/s");
        assert_eq!(rate(512_300.0, Unit::Operations("switches")), "512 k/s");
        assert_eq!(rate(0.0, Unit::Bytes), "0.00 B/s");
    }

    #[test]
    fn bars_fill_by_eighths() {
        assert_eq!(bar(1.0).chars().count(), BAR);
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0 / (BAR * 8) as f64), "▏");
    }
}
