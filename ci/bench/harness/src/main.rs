//! `harness KERNEL DATE COUNT...`, in the machine: measures every driver that the file `peers`
//! names, also with so many of the functions that the file `functions` names; prints JSON.
//! `harness table FILE...`, on the host: makes Markdown of that.

mod table;
mod trace;
mod work;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use work::{Figures, measure};

/// The results on one kernel.
#[derive(Debug, Deserialize, Serialize)]
struct Results {
    kernel: String,
    release: String,
    date: String,
    /// The first one is this crate's.
    drivers: Vec<Driver>,
    lines: Vec<Line>,
}

/// A line of the file `peers`. A driver that was not built has a size of 0.
#[derive(Debug, Deserialize, Serialize)]
struct Driver {
    name: String,
    size: u64,
    version: String,
    /// Why there are no figures.
    missing: Option<String>,
}

/// One thing that was measured, for each driver that can do it.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    name: String,
    figures: BTreeMap<String, f64>,
    /// The figure of this crate, divided by the least of the others.
    ratio: Option<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["table", ..] => print_tables(&arguments[1..]),
        [kernel, date, ..] => {
            let counts = arguments[2..].iter().map(|word| word.parse());
            bench(kernel, date, &counts.collect::<Result<Vec<_>, _>>()?)
        }
        _ => Err("usage: harness KERNEL DATE COUNT... | harness table FILE...".into()),
    }
}

fn print_tables(files: &[String]) -> Result<(), Box<dyn Error>> {
    let mut all = Vec::new();
    for file in files {
        all.push(serde_json::from_str(&fs::read_to_string(file)?)?);
    }
    print!("{}", table::page(&all));
    Ok(())
}

fn bench(kernel: &str, date: &str, counts: &[usize]) -> Result<(), Box<dyn Error>> {
    // On one CPU: no wakeup then takes an interrupt of another.
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192)?;
    let functions = fs::read_to_string("functions")?;
    let functions: Vec<_> = functions.lines().collect();
    let mut results = Results {
        kernel: kernel.to_owned(),
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        date: date.to_owned(),
        drivers: Vec::new(),
        lines: Vec::new(),
    };
    for line in fs::read_to_string("peers")?.lines() {
        let mut driver = Driver::of_line(line).ok_or("peers: a bad line")?;
        if driver.missing.is_none() {
            eprintln!("{}", driver.name);
            match measure(&driver.name, driver.size, &functions, counts) {
                Ok(figures) => results.add(&driver.name, figures),
                Err(error) => driver.missing = Some(error.to_string()),
            }
        }
        results.drivers.push(driver);
    }
    results.compare();
    println!("{}", serde_json::to_string_pretty(&results)?);
    Ok(())
}

impl Driver {
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (name, size, version) = (words.next()?, words.next()?, words.next()?);
        let size = size.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            size,
            version: version.to_owned(),
            missing: (size == 0).then(|| version.to_owned()),
        })
    }
}

impl Results {
    /// Adds the figures of a driver to the lines.
    fn add(&mut self, driver: &str, figures: Figures) {
        for (name, figure) in figures.0 {
            let at = self.lines.iter().position(|line| line.name == name);
            let at = at.unwrap_or_else(|| {
                self.lines.push(Line {
                    name,
                    figures: BTreeMap::new(),
                    ratio: None,
                });
                self.lines.len() - 1
            });
            self.lines[at].figures.insert(driver.to_owned(), figure);
        }
    }

    /// Computes the ratios.
    fn compare(&mut self) {
        let Some(ours) = self.drivers.first().map(|driver| &driver.name) else {
            return;
        };
        for line in &mut self.lines {
            let others = line.figures.iter().filter(|(name, _)| *name != ours);
            let best = others.map(|(_, figure)| *figure).min_by(f64::total_cmp);
            let ratio = line.figures.get(ours).zip(best.filter(|best| *best > 0.0));
            line.ratio = ratio.map(|(figure, best)| figure / best);
        }
    }
}
