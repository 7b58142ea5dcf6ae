//! `harness KERNEL COUNT...`, in the machine: measures every driver that the file `peers` names,
//! also with so many of the functions that the file `functions` names; prints JSON.
//! `harness table FILE...`, on the host: makes Markdown of that.

mod table;
mod trace;
mod work;

use std::env;
use std::error::Error;
use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use work::{Figures, measure};

#[derive(Debug, Deserialize, Serialize)]
struct Results {
    kernel: String,
    release: String,
    peers: Vec<Peer>,
}

/// A line of the file `peers`, with what was measured. A peer that was not built has a size of 0.
#[derive(Debug, Deserialize, Serialize)]
struct Peer {
    driver: String,
    version: String,
    size: u64,
    /// Why there are no figures.
    missing: Option<String>,
    figures: Option<Figures>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["table", ..] => print_tables(&arguments[1..]),
        [kernel, ..] => {
            let counts: Result<Vec<_>, _> =
                arguments[1..].iter().map(|word| word.parse()).collect();
            bench(kernel, &counts?)
        }
        [] => Err("usage: harness KERNEL COUNT... | harness table FILE...".into()),
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

fn bench(kernel: &str, counts: &[usize]) -> Result<(), Box<dyn Error>> {
    // On one CPU: no wakeup then takes an interrupt of another.
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192)?;
    let functions = fs::read_to_string("functions")?;
    let functions: Vec<_> = functions.lines().collect();
    let mut peers = Vec::new();
    for line in fs::read_to_string("peers")?.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || {
            words
                .next()
                .map(str::to_owned)
                .ok_or("peers: a line is short")
        };
        let (driver, size, version) = (word()?, word()?.parse()?, word()?);
        let mut peer = Peer {
            driver,
            version,
            size,
            missing: None,
            figures: None,
        };
        if peer.size == 0 {
            peer.missing = Some(peer.version.clone());
            peers.push(peer);
            continue;
        }
        eprintln!("{}", peer.driver);
        match measure(&peer.driver, &functions, counts) {
            Ok(figures) => peer.figures = Some(figures),
            Err(error) => peer.missing = Some(error.to_string()),
        }
        peers.push(peer);
    }
    let results = Results {
        kernel: kernel.to_owned(),
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        peers,
    };
    println!("{}", serde_json::to_string_pretty(&results)?);
    Ok(())
}
