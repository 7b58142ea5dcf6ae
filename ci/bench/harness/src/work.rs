//! What every driver does, and what is measured while it does.
//!
//! `DRIVER each|multi 0|1 TIMES FUNCTION...` loads a program that returns 0 or 1. So often it
//! attaches the program to the functions, by a link to each or by one link to all, and detaches it.
//!
//! The marks: twice 0 at the start, 1 when the program is loaded, 2 when it is attached, 3 when it
//! is detached. A driver that cannot do its work ends with another status than 0.
//!
//! `DRIVER lookup` is this crate's alone: it finds functions in `/proc/kallsyms`, from mark 1 to 2.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::trace::{Interval, Watch, run};

const LOADED: u64 = 1;
const ATTACHED: u64 = 2;
const DETACHED: u64 = 3;

/// Runs in every machine, and in none on its own. Its system call does nothing.
const FUNCTION: &str = "__x64_sys_getppid";
const HITS: u32 = 20_000;

/// The figures of a driver on a kernel. What it cannot do is absent.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Figures {
    pub first: Cost,
    pub steady_attach: Cost,
    pub steady_detach: Cost,
    /// Loading the program, from an object where the driver has one.
    pub load: Cost,
    /// Descriptors of a link.
    pub fds: usize,
    /// KiB at the peak.
    pub peak: u64,
    pub hits: Hits,
    pub many: Vec<Many>,
    pub lookups: Vec<Lookup>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Cost {
    pub calls: u64,
    pub instructions: u64,
    pub allocations: u64,
    pub nanoseconds: u64,
}

/// Nanoseconds of a call of the function.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Hits {
    pub unprobed: f64,
    pub returning_0: f64,
    pub returning_1: f64,
}

/// The cost of attaching to many functions, and detaching from them.
#[derive(Debug, Deserialize, Serialize)]
pub struct Many {
    pub functions: usize,
    /// `multi`, or `each`.
    pub way: String,
    pub fds: usize,
    pub attach: u64,
    pub detach: u64,
}

/// Nanoseconds of finding functions, and of reading `/proc/kallsyms`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Lookup {
    pub functions: usize,
    pub lookup: u64,
    pub reading: u64,
}

/// Measures all of a driver.
pub fn measure(
    driver: &str,
    functions: &[&str],
    counts: &[usize],
) -> Result<Figures, Box<dyn Error>> {
    let mut figures = Figures::default();
    let one = ["each", "0", "5", FUNCTION];
    let count = |watch| run(driver, &one, watch, |_| ());
    let (calls, steps) = (count(Watch::Calls)?, count(Watch::Steps)?);
    let timed = ["each", "0", "31", FUNCTION];
    let mut hits = Hits::default();
    let times = run(driver, &timed, Watch::Time, |mark| match mark {
        LOADED => hits.unprobed = hit(),
        ATTACHED => hits.returning_0 = hit(),
        _ => (),
    })?;
    run(driver, &["each", "1", "1", FUNCTION], Watch::Time, |mark| {
        if mark == ATTACHED {
            hits.returning_1 = hit();
        }
    })?;
    figures.hits = hits;

    let cost = |mark, first| {
        let steady = |intervals: &[Interval]| of(intervals, mark, first);
        let (calls, steps, times) = (steady(&calls), steady(&steps), steady(&times));
        Cost {
            calls: calls.calls,
            instructions: steps.steps,
            allocations: steps.allocations,
            nanoseconds: times.nanoseconds,
        }
    };
    figures.load = cost(LOADED, true);
    figures.first = cost(ATTACHED, true);
    figures.steady_attach = cost(ATTACHED, false);
    figures.steady_detach = cost(DETACHED, false);
    figures.fds = of(&calls, ATTACHED, false).fds - of(&calls, DETACHED, false).fds;
    figures.peak = times
        .iter()
        .map(|interval| interval.peak)
        .max()
        .unwrap_or(0);

    for &count in counts {
        let chosen = functions
            .iter()
            .step_by(functions.len() / count)
            .take(count);
        let chosen: Vec<_> = chosen.copied().collect();
        figures.many.extend(many(driver, &chosen));
    }
    let counts: &[usize] = if driver == "kprobe-attach" {
        &[1, 1000]
    } else {
        &[]
    };
    for &count in counts {
        figures.lookups.extend(lookup(driver, &functions[..count]));
    }
    Ok(figures)
}

/// The interval before a mark: the first one, or else the last one, with the median time of all but
/// the first. The wait for a grace period of the kernel has jumps, which would shift a mean.
fn of(intervals: &[Interval], mark: u64, first: bool) -> Interval {
    let mut found = intervals.iter().filter(|interval| interval.mark == mark);
    let start = found.next().cloned().unwrap_or_default();
    let later: Vec<_> = found.collect();
    let (false, Some(last)) = (first, later.last()) else {
        return start;
    };
    let mut times: Vec<_> = later.iter().map(|interval| interval.nanoseconds).collect();
    times.sort_unstable();
    Interval {
        nanoseconds: times[times.len() / 2],
        ..(*last).clone()
    }
}

/// Attaches to many functions by one link, or else by a link to each.
fn many(driver: &str, functions: &[&str]) -> Option<Many> {
    ["multi", "each"].into_iter().find_map(|way| {
        let arguments = [&[way, "0", "1"], functions].concat();
        let intervals = run(driver, &arguments, Watch::Time, |_| ())
            .inspect_err(|error| eprintln!("{error}"))
            .ok()?;
        let (attached, detached) = (
            of(&intervals, ATTACHED, true),
            of(&intervals, DETACHED, true),
        );
        Some(Many {
            functions: functions.len(),
            way: way.to_owned(),
            fds: attached.fds - detached.fds,
            attach: attached.nanoseconds,
            detach: detached.nanoseconds,
        })
    })
}

fn lookup(driver: &str, functions: &[&str]) -> Option<Lookup> {
    let arguments = [&["lookup", "0", "1"], functions].concat();
    let intervals = run(driver, &arguments, Watch::Time, |_| ()).ok()?;
    let start = Instant::now();
    black_box(fs::read("/proc/kallsyms").ok()?);
    Some(Lookup {
        functions: functions.len(),
        reading: u64::try_from(start.elapsed().as_nanos()).ok()?,
        lookup: of(&intervals, ATTACHED, true).nanoseconds,
    })
}

/// The nanoseconds of a call of the function, the mean of many.
fn hit() -> f64 {
    let start = Instant::now();
    for _ in 0..HITS {
        nix::unistd::getppid();
    }
    start.elapsed().as_nanos() as f64 / f64::from(HITS)
}
