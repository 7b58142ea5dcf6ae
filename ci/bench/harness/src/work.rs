//! What every driver does, and what is measured while it does.
//!
//! `DRIVER each|multi 0|1 TIMES FUNCTION...` loads a program that returns 0 or 1. So often it
//! attaches the program to the functions, by a link to each or by one link to all, and detaches it.
//!
//! The marks: twice 0 at the start, 1 when the program is loaded, 2 when it is attached, 3 when it
//! is detached. A driver that cannot do its work ends with another status than 0.
//!
//! `DRIVER object 0 1 FUNCTION` loads the programs of an object, from mark 0 to 1, and attaches
//! none. `raw` has no loader.
//!
//! `DRIVER lookup` is this crate's alone: it finds functions in `/proc/kallsyms`, from mark 1 to 2.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::trace::{Interval, Watch, run};

const LOADED: u64 = 1;
const ATTACHED: u64 = 2;
const DETACHED: u64 = 3;

/// Runs in every machine, and in none on its own. Its system call does nothing.
const FUNCTION: &str = "__x64_sys_getppid";
const HITS: u32 = 20_000;

/// How often the driver attaches when times are taken. The first time is not like the others.
const TIMES: &str = "9";

/// The figures of a driver, each with its name. A figure is absent if the driver cannot do that
/// work.
#[derive(Default)]
pub struct Figures(pub Vec<(String, f64)>);

impl Figures {
    fn count(&mut self, name: &str, number: u64) {
        self.0.push((name.to_owned(), number as f64));
    }

    fn ms(&mut self, name: &str, nanoseconds: u64) {
        self.0.push((name.to_owned(), nanoseconds as f64 / 1e6));
    }

    fn us(&mut self, name: &str, nanoseconds: u64) {
        self.0.push((name.to_owned(), nanoseconds as f64 / 1e3));
    }
}

/// Measures all of a driver.
pub fn measure(
    driver: &str,
    size: u64,
    functions: &[&str],
    counts: &[usize],
) -> Result<Figures, Box<dyn Error>> {
    let mut figures = Figures::default();
    one(driver, size, &mut figures)?;
    if let Err(error) = object(driver, &mut figures) {
        eprintln!("{error}");
    }
    for &count in counts {
        eprintln!("{driver}: {count} functions");
        let step = functions.len() / count;
        let chosen: Vec<_> = functions
            .iter()
            .step_by(step)
            .take(count)
            .copied()
            .collect();
        many(driver, &chosen, &mut figures)?;
        if driver == "kprobe-attach" {
            lookup(driver, &chosen, &mut figures)?;
        }
    }
    Ok(figures)
}

/// Attaches to one function.
fn one(driver: &str, size: u64, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let work = ["each", "0", "2", FUNCTION];
    let calls = run(driver, &work, Watch::Calls, |_| ())?;
    let steps = run(driver, &work, Watch::Steps, |_| ());
    let steps = steps.inspect_err(|error| eprintln!("{error}"));
    let [mut unprobed, mut returning_0, mut returning_1] = [0.0; 3];
    let times = timed(
        driver,
        &["each", "0", TIMES, FUNCTION],
        |mark, is_first| match (mark, is_first) {
            (LOADED, _) => unprobed = hit(),
            (ATTACHED, true) => returning_0 = hit(),
            _ => (),
        },
    )?;
    run(driver, &["each", "1", "1", FUNCTION], Watch::Time, |mark| {
        if mark == ATTACHED {
            returning_1 = hit();
        }
    })?;

    let of_calls = |mark| (first(&calls, mark), later(&calls, mark));
    let ((first_attach, attach), (_, detach)) = (of_calls(ATTACHED), of_calls(DETACHED));
    figures.count("system calls: first attach", first_attach.calls);
    figures.count("system calls: attach", attach.calls);
    figures.count("system calls: detach", detach.calls);
    figures.count(
        "system calls: attach and detach",
        attach.calls + detach.calls,
    );
    figures.count("file descriptors of a link", attach.fds - detach.fds);

    if let Ok(steps) = steps {
        let of_steps = |mark| (first(&steps, mark), later(&steps, mark));
        let ((first_attach, attach), (_, detach)) = (of_steps(ATTACHED), of_steps(DETACHED));
        figures.count("instructions: first attach", first_attach.steps);
        figures.count("instructions: attach", attach.steps);
        figures.count("instructions: detach", detach.steps);
        figures.count("allocations: first attach", first_attach.allocations);
        let allocations = attach.allocations + detach.allocations;
        figures.count("allocations: attach and detach", allocations);
    }

    figures
        .0
        .push(("static program, KB".to_owned(), size as f64 / 1e3));
    let peak = times.iter().map(|interval| interval.peak).max();
    figures.count("memory at the peak, KiB", peak.unwrap_or(0));

    figures.us("first attach, µs", first(&times, ATTACHED).nanoseconds);
    figures.us("attach, µs", later(&times, ATTACHED).nanoseconds);
    figures.us("detach, µs", later(&times, DETACHED).nanoseconds);
    for (name, figure) in [
        ("a call that is not probed, ns", unprobed),
        ("a hit that returns 0, ns", returning_0),
        ("a hit that returns 1, ns", returning_1),
        ("probed to unprobed, returns 0", returning_0 / unprobed),
        ("probed to unprobed, returns 1", returning_1 / unprobed),
    ] {
        figures.0.push((name.to_owned(), figure));
    }
    figures.count("load: system calls", first(&calls, LOADED).calls);
    figures.us("load, µs", first(&times, LOADED).nanoseconds);
    Ok(())
}

/// Loads an object.
fn object(driver: &str, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let work = ["object", "0", "1", FUNCTION];
    let calls = run(driver, &work, Watch::Calls, |_| ())?;
    let times = run(driver, &work, Watch::Time, |_| ())?;
    figures.count("load an object: system calls", first(&calls, LOADED).calls);
    figures.us("load an object, µs", first(&times, LOADED).nanoseconds);
    let peak = times.iter().map(|interval| interval.peak).max();
    figures.count("load an object: memory, KiB", peak.unwrap_or(0));
    Ok(())
}

/// Attaches to many functions by one link, or else by a link to each.
fn many(driver: &str, functions: &[&str], figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let count = functions.len();
    let times = |way, times| {
        let work = [&[way, "0", times], functions].concat();
        timed(driver, &work, |_, _| ())
    };
    let times = match times("multi", TIMES) {
        Ok(times) => times,
        Err(_) => times("each", "1")?,
    };
    let (attach, detach) = (later(&times, ATTACHED), later(&times, DETACHED));
    figures.ms(
        &format!("{count} functions: attach, ms"),
        attach.nanoseconds,
    );
    figures.ms(
        &format!("{count} functions: detach, ms"),
        detach.nanoseconds,
    );
    let fds = attach.fds - detach.fds;
    figures.count(&format!("{count} functions: file descriptors"), fds);
    Ok(())
}

/// Finds functions in `/proc/kallsyms`.
fn lookup(driver: &str, functions: &[&str], figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let work = [&["lookup", "0", "1"], functions].concat();
    let times = run(driver, &work, Watch::Time, |_| ())?;
    let start = Instant::now();
    black_box(fs::read("/proc/kallsyms")?);
    let reading = u64::try_from(start.elapsed().as_nanos())?;
    let count = functions.len();
    figures.ms(
        &format!("{count} names: find, ms"),
        first(&times, ATTACHED).nanoseconds,
    );
    figures.ms(
        &format!("{count} names: read /proc/kallsyms alone, ms"),
        reading,
    );
    Ok(())
}

/// The first interval before a mark.
fn first(intervals: &[Interval], mark: u64) -> Interval {
    let found = intervals.iter().find(|interval| interval.mark == mark);
    found.cloned().unwrap_or_default()
}

/// The last interval before a mark, with the least time of all but the first, if there are several.
fn later(intervals: &[Interval], mark: u64) -> Interval {
    let found: Vec<_> = intervals.iter().filter(|one| one.mark == mark).collect();
    let [_, later @ ..] = &found[..] else {
        return first(intervals, mark);
    };
    let least = later.iter().map(|interval| interval.nanoseconds).min();
    match (later.last(), least) {
        (Some(last), Some(nanoseconds)) => Interval {
            nanoseconds,
            ..(*last).clone()
        },
        _ => first(intervals, mark),
    }
}

/// Measures times. Detaching waits for ticks of the kernel, of 4 ms, so it takes longer or shorter
/// by chance. So it begins at another part of a tick each time.
fn timed(
    driver: &str,
    work: &[&str],
    mut at_mark: impl FnMut(u64, bool),
) -> Result<Vec<Interval>, Box<dyn Error>> {
    let mut part = Duration::ZERO;
    run(driver, work, Watch::Time, |mark| {
        at_mark(mark, part.is_zero());
        if mark == ATTACHED {
            part += Duration::from_micros(500);
            thread::sleep(part);
        }
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
