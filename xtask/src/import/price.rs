//! `cargo xtask import price FILE`: what `cpusieve price --json` printed, as a table of `knowledge/price/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cpusieve_formats::price::{self, Prices, Range, Row};
use cpusieve_knowledge::x86;

use super::Result;

/// Digits that are kept of a number: more would be noise.
const DIGITS: i32 = 4;

/// Writes the table of the machine that was measured, over an older one of the same machine.
pub(super) fn import(root: &Path, file: &str) -> Result<ExitCode> {
    let (prices, diagnostics) = price::parse(file, &fs::read(file)?);
    diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    let (name, text) = table(&prices)?;
    let path = root.join("price").join(format!("{name}.toml"));
    fs::create_dir_all(root.join("price"))?;
    fs::write(&path, text)?;
    println!("{}: {} rows", path.display(), prices.rows.len());
    Ok(ExitCode::SUCCESS)
}

/// The file's name without its ending, and the table.
fn table(prices: &Prices) -> Result<(String, String)> {
    let machine = &prices.machine;
    let said = |part: &Option<String>, what: &str| {
        part.clone().ok_or_else(|| format!("the file does not tell the machine's {what}"))
    };
    let brand = said(&machine.brand, "brand").or_else(|error| machine.generation.clone().ok_or(error))?;
    let name = machine.generation.clone().unwrap_or_else(|| brand.clone());
    let mut out = "# Written by `cargo xtask import price` from `cpusieve price --json`; measured by us on this machine.\n\
                   # Intervals are [median, lower end, upper end]; the ends hold the true median with 95 %.\n\n[machine]\n"
        .to_owned();
    let fields = [
        ("name", name.clone()),
        ("brand", brand),
        ("signature", said(&machine.signature, "signature")?),
        ("place", said(&machine.place, "place")?),
        ("kernel", said(&machine.kernel, "kernel")?),
        ("date", said(&machine.date, "date")?),
    ];
    for (key, value) in fields {
        writeln!(out, "{key} = {}", quoted(&value))?;
    }
    let mut rows: Vec<&Row> = prices.rows.iter().collect();
    rows.sort_by(|a, b| (&a.feature, &a.work).cmp(&(&b.feature, &b.work)));
    for row in rows {
        if x86::feature(&row.feature).is_none() {
            return Err(format!("nobody knows a feature `{}`", row.feature).into());
        }
        let (Some(with), Some(without)) = (row.rate_with, row.rate_without) else {
            return Err(format!("{} has no rates", row.work).into());
        };
        writeln!(out, "\n[[price]]")?;
        let texts = [&row.feature, &row.work, &row.title, &row.with, &row.without, &row.unit];
        for (key, value) in ["feature", "work", "title", "with", "without", "unit"].iter().zip(texts) {
            writeln!(out, "{key} = {}", quoted(value))?;
        }
        for (key, range) in [("ratio", row.ratio), ("rate_with", with), ("rate_without", without)] {
            writeln!(out, "{key} = {}", list(range))?;
        }
        writeln!(out, "n = {}", row.ratio.n)?;
    }
    Ok((slug(&name), out))
}

/// A basic string of TOML; the texts have no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(range: Range) -> String {
    let [median, low, high] = [range.median, range.low, range.high].map(rounded);
    format!("[{median}, {low}, {high}]")
}

/// To so many digits, as TOML writes a float.
fn rounded(number: f64) -> String {
    let magnitude = if number > 0.0 { number.log10().floor() as i32 } else { 0 };
    let decimals = DIGITS - 1 - magnitude;
    if decimals > 0 {
        return format!("{number:.*}", usize::try_from(decimals).unwrap_or(0));
    }
    let unit = 10_f64.powi(-decimals);
    format!("{:.1}", (number / unit).round() * unit)
}

/// Letters and digits in lower case, with hyphens between.
fn slug(name: &str) -> String {
    let words = name.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits_and_stay_in_order() {
        assert_eq!(rounded(11.523_7), "11.52");
        assert_eq!(rounded(0.987_654), "0.9877");
        assert_eq!(rounded(2_345_678_901.0), "2346000000.0");
        assert_eq!(rounded(1234.4), "1234.0");
        assert_eq!(slug("Zen 4 (EPYC)"), "zen-4-epyc");
    }

    #[test]
    fn a_file_that_does_not_tell_its_machine_is_no_knowledge() {
        let error = table(&Prices::default()).unwrap_err().to_string();
        assert!(error.contains("does not tell"), "{error}");
    }
}
