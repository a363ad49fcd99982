//! `knowledge/price/*.toml`: what features were worth on machines that were measured.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::{Result, Tables};

pub(crate) fn generate(tables: &Tables) -> Result<String> {
    let mut machines = Vec::new();
    for file in tables.list("price", "toml")? {
        let table: Table = tables.read(&file)?.parse().map_err(|error| format!("{file}: {error}"))?;
        machines.push(machine(&table).map_err(|error| format!("{file}: {error}"))?);
    }
    // The newest first.
    machines.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut out = "/// The machines that were measured, the newest measurement first.\n".to_owned();
    writeln!(out, "pub static MACHINES: &[Machine] = &[")?;
    for (_, machine) in machines {
        writeln!(out, "{machine},")?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

/// The date, and the machine as a Rust expression.
fn machine(table: &Table) -> Result<(String, String)> {
    let about = table.get("machine").and_then(Value::as_table).ok_or("no [machine]")?;
    let date = text(about, "date")?;
    if date.len() != 10 || !date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(format!("`{date}` is no date such as 2026-11-22").into());
    }
    let mut out = "Machine { ".to_owned();
    for key in ["name", "brand", "signature", "place", "kernel", "date"] {
        write!(out, "{key}: {:?}, ", text(about, key)?)?;
    }
    let mut rows = Vec::new();
    for row in table.get("price").and_then(Value::as_array).ok_or("no [[price]]")? {
        let row = row.as_table().ok_or("a [[price]] is a table")?;
        rows.push((text(row, "feature")?, text(row, "work")?, price(row)?));
    }
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    if let Some(twice) = rows.windows(2).find(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        return Err(format!("{} {} stands twice", twice[0].0, twice[0].1).into());
    }
    let rows: Vec<String> = rows.into_iter().map(|(.., row)| row).collect();
    write!(out, "prices: &[{}] }}", rows.join(", "))?;
    Ok((date.to_owned(), out))
}

fn price(row: &Table) -> Result<String> {
    let mut out = "Price { ".to_owned();
    for key in ["feature", "work", "title", "with", "without", "unit"] {
        write!(out, "{key}: {:?}, ", text(row, key)?)?;
    }
    for key in ["ratio", "rate_with", "rate_without"] {
        let [median, low, high] = numbers(row, key)?;
        if !(0.0 < low && low <= median && median <= high && high.is_finite()) {
            return Err(format!("{key} = [{median}, {low}, {high}] is not median, lower end, upper end").into());
        }
        write!(out, "{key}: Range {{ median: {median:?}, low: {low:?}, high: {high:?} }}, ")?;
    }
    let n = row.get("n").and_then(Value::as_integer).ok_or("no n")?;
    write!(out, "n: {} }}", u32::try_from(n)?)?;
    Ok(out)
}

fn text<'t>(table: &'t Table, key: &str) -> Result<&'t str> {
    table.get(key).and_then(Value::as_str).ok_or_else(|| format!("no text `{key}`").into())
}

fn numbers(row: &Table, key: &str) -> Result<[f64; 3]> {
    let wrong = || format!("`{key}` is not three numbers");
    let list = row.get(key).and_then(Value::as_array).ok_or_else(wrong)?;
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
    let numbers: Vec<f64> = list.iter().filter_map(number).collect();
    numbers.try_into().map_err(|_| wrong().into())
}
