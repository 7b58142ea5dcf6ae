//! Makes Markdown of the results: a table for each kernel, a column for each driver.

use std::fmt::Write;

use crate::Results;

/// Makes the table of the drivers, and the section of each kernel.
pub fn page(all: &[Results]) -> String {
    let mut text = "| driver | version | static program |\n|---|---|---|\n".to_owned();
    for driver in all.first().map_or(&[][..], |results| &results.drivers) {
        let size = number(driver.size as f64);
        let _ = writeln!(
            text,
            "| {} | {} | {size} bytes |",
            driver.name, driver.version
        );
    }
    for results in all {
        let _ = write!(text, "\n{}", section(results));
    }
    text
}

/// Makes the section of a kernel.
fn section(results: &Results) -> String {
    let mut text = format!("## Linux {}\n\n", results.release);
    let there = results
        .drivers
        .iter()
        .filter(|driver| driver.missing.is_none());
    let names: Vec<_> = there.map(|driver| driver.name.as_str()).collect();
    let _ = writeln!(text, "Measured on {}.\n", results.date);
    let _ = writeln!(text, "| | {} | ratio |", names.join(" | "));
    let _ = writeln!(text, "|---|{}---|", "---|".repeat(names.len()));
    for line in &results.lines {
        let figures = names.iter().map(|name| line.figures.get(*name));
        let cells = figures.map(|figure| figure.map_or("-".to_owned(), |figure| number(*figure)));
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let ratio = match line.ratio {
            Some(worse) if worse > 1.02 => format!("**{worse:.2}**"),
            Some(ratio) => format!("{ratio:.2}"),
            None => "-".to_owned(),
        };
        let _ = writeln!(text, "| {} | {cells} | {ratio} |", line.name);
    }
    for driver in &results.drivers {
        if let Some(reason) = &driver.missing {
            let _ = writeln!(text, "\n{}: {reason}.", driver.name);
        }
    }
    text
}

/// Writes a number with a comma behind each thousand, and with tenths where it is small and has
/// some.
fn number(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let groups = groups.iter().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}
