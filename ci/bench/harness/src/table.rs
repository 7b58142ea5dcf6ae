//! Makes Markdown of the results: a table for each kernel, a column for each driver.

use std::fmt::Write;

use crate::work::{Figures, Many};
use crate::{Peer, Results};

/// Writes a figure of a driver as text.
type Show = fn(f64) -> String;

/// A line of a table: what is measured, the figure of a driver, and how it is written.
struct Line(&'static str, fn(&Peer, &Figures) -> Option<f64>, Show);

const LINES: [Line; 27] = [
    Line(
        "system calls: first attach",
        |_, f| count(f.first.calls),
        whole,
    ),
    Line(
        "system calls: attach",
        |_, f| count(f.steady_attach.calls),
        whole,
    ),
    Line(
        "system calls: detach",
        |_, f| count(f.steady_detach.calls),
        whole,
    ),
    Line(
        "system calls: attach and detach",
        |_, f| both(f, |cost| cost.calls),
        whole,
    ),
    Line("file descriptors", |_, f| count(f.fds as u64), whole),
    Line(
        "instructions: first attach",
        |_, f| count(f.first.instructions),
        whole,
    ),
    Line(
        "instructions: attach",
        |_, f| count(f.steady_attach.instructions),
        whole,
    ),
    Line(
        "instructions: detach",
        |_, f| count(f.steady_detach.instructions),
        whole,
    ),
    Line(
        "allocations: first attach",
        |_, f| count(f.first.allocations),
        whole,
    ),
    Line(
        "allocations: attach and detach",
        |_, f| both(f, |cost| cost.allocations),
        whole,
    ),
    Line(
        "static program, KB",
        |peer, _| Some(peer.size as f64 / 1e3),
        whole,
    ),
    Line("memory at the peak, KiB", |_, f| count(f.peak), whole),
    Line(
        "attach, µs",
        |_, f| Some(f.steady_attach.nanoseconds as f64 / 1e3),
        whole,
    ),
    Line(
        "detach, µs",
        |_, f| Some(f.steady_detach.nanoseconds as f64 / 1e3),
        whole,
    ),
    Line(
        "a hit that returns 0, ns",
        |_, f| Some(f.hits.returning_0),
        whole,
    ),
    Line(
        "a hit that returns 1, ns",
        |_, f| Some(f.hits.returning_1),
        whole,
    ),
    Line(
        "probed to unprobed, 0",
        |_, f| Some(f.hits.returning_0 / f.hits.unprobed),
        tenths,
    ),
    Line(
        "probed to unprobed, 1",
        |_, f| Some(f.hits.returning_1 / f.hits.unprobed),
        tenths,
    ),
    Line("load: system calls", |_, f| count(f.load.calls), whole),
    Line(
        "load, µs",
        |_, f| Some(f.load.nanoseconds as f64 / 1e3),
        whole,
    ),
    Line(
        "100 functions: attach, ms",
        |_, f| many(f, 100, |many| many.attach),
        whole,
    ),
    Line(
        "100 functions: detach, ms",
        |_, f| many(f, 100, |many| many.detach),
        whole,
    ),
    Line(
        "1,000 functions: attach, ms",
        |_, f| many(f, 1000, |many| many.attach),
        whole,
    ),
    Line(
        "1,000 functions: detach, ms",
        |_, f| many(f, 1000, |many| many.detach),
        whole,
    ),
    Line(
        "1,000 functions: descriptors",
        |_, f| {
            let found = f.many.iter().find(|many| many.functions == 1000)?;
            count(found.fds as u64)
        },
        whole,
    ),
    Line(
        "1,000 names: find, ms",
        |_, f| {
            let found = f.lookups.iter().find(|lookup| lookup.functions == 1000)?;
            Some(found.lookup as f64 / 1e6)
        },
        whole,
    ),
    Line(
        "/proc/kallsyms: read, ms",
        |_, f| {
            let found = f.lookups.iter().find(|lookup| lookup.functions == 1000)?;
            Some(found.reading as f64 / 1e6)
        },
        whole,
    ),
];

fn count(number: u64) -> Option<f64> {
    Some(number as f64)
}

fn both(figures: &Figures, of: fn(&crate::work::Cost) -> u64) -> Option<f64> {
    count(of(&figures.steady_attach) + of(&figures.steady_detach))
}

fn many(figures: &Figures, functions: usize, of: fn(&Many) -> u64) -> Option<f64> {
    let many = figures
        .many
        .iter()
        .find(|many| many.functions == functions)?;
    Some(of(many) as f64 / 1e6)
}

/// Writes a whole number, with a comma behind each thousand.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let groups = groups
        .iter()
        .map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// Makes the table of the drivers, and the section of each kernel.
pub fn page(all: &[Results]) -> String {
    let mut text = "| driver | version | static program |\n|---|---|---|\n".to_owned();
    for peer in all.first().map_or(&[][..], |results| &results.peers) {
        let size = whole(peer.size as f64);
        let _ = writeln!(
            text,
            "| {} | {} | {size} bytes |",
            peer.driver, peer.version
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
    let (there, missing): (Vec<_>, Vec<_>) = results
        .peers
        .iter()
        .partition(|peer| peer.figures.is_some());
    let names: Vec<_> = there.iter().map(|peer| peer.driver.as_str()).collect();
    let _ = writeln!(text, "| | {} | ratio |", names.join(" | "));
    let _ = writeln!(text, "|---|{}---|", "---|".repeat(there.len()));
    for Line(name, figure, show) in &LINES {
        let figures = there
            .iter()
            .map(|peer| figure(peer, peer.figures.as_ref()?));
        let figures: Vec<_> = figures.collect();
        if figures.iter().all(Option::is_none) {
            continue;
        }
        let cells = figures
            .iter()
            .map(|figure| figure.map_or("-".to_owned(), show));
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let _ = writeln!(text, "| {name} | {cells} | {} |", ratio(&figures));
    }
    for peer in missing {
        let reason = peer.missing.as_deref().unwrap_or_default();
        let _ = writeln!(text, "\n{}: {reason}.", peer.driver);
    }
    text
}

/// The first figure in relation to the least of the others.
fn ratio(figures: &[Option<f64>]) -> String {
    let others = figures.iter().skip(1).copied().flatten();
    match (
        figures.first().copied().flatten(),
        others.min_by(f64::total_cmp),
    ) {
        (Some(ours), Some(best)) if best > 0.0 => match ours / best {
            worse if worse > 1.02 => format!("**{worse:.2}**"),
            ratio => format!("{ratio:.2}"),
        },
        _ => "-".to_owned(),
    }
}
