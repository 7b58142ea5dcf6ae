//! `kprobe-attach`: BPF programs attached to kernel functions, from a static program without libc.
//!
//! The library does the work. This program reads the command line, holds the probes and prints.

#![no_std]
#![no_main]

mod cli;
mod commands;
mod out;
mod programs;
mod rt;
mod session;

use core::fmt::{Display, Write};

use kprobe_attach::Kernel;

#[cfg(feature = "object")]
use cli::Opt;
use cli::{Args, Command, FAILURE, Help, Request, USAGE};
use out::{Output, message};
use rt::Start;

/// Runs the program, from its first argument to its exit status.
fn main(start: &Start) -> u8 {
    let mut out = Output::stdout();
    let status = run(start, &mut out);
    out.check().map_or(FAILURE, |()| status)
}

fn run(start: &Start, out: &mut Output) -> u8 {
    let mut args = Args::new(start);
    let entry = match args.parse() {
        Ok(Request::Help(about)) => {
            out.break_lines();
            return print(out, &Help(about));
        }
        Ok(Request::Version) => return print(out, &VERSION),
        Ok(Request::Run(entry)) => entry,
        Err((usage, about)) => {
            let (name, blank) = about.map_or(("", ""), |entry| (entry.name, " "));
            message(format_args!(
                "{usage}\nTry 'kprobe-attach {name}{blank}--help'."
            ));
            return USAGE;
        }
    };
    if args.report.json {
        out.keep_lines();
    }
    #[cfg(feature = "object")]
    if args.has(Opt::Object) && session::read_object(&mut args, out).is_err() {
        return FAILURE;
    }
    if entry.words.are_probes() && session::check(&args, out).is_err() {
        return USAGE;
    }
    let run: Run = match entry.command {
        Command::Features => commands::features::run,
        Command::Plan => commands::plan::run,
        Command::Attach => commands::attach::run,
        Command::Count if args.probe_count == 0 => commands::pinned::run,
        Command::Count => commands::count::run,
        Command::Explain if cfg!(feature = "explain") => commands::explain::run,
        Command::Functions if cfg!(feature = "files") => commands::functions::run,
        Command::Sweep if cfg!(feature = "files") => commands::sweep::run,
        #[cfg(feature = "object")]
        Command::Maps => commands::maps::run,
        // `Args` has refused it.
        #[cfg(not(feature = "object"))]
        Command::Maps => return USAGE,
        Command::Explain | Command::Functions | Command::Sweep => return USAGE,
    };
    // A file system that is not mounted is used as a detached mount.
    let kernel = Kernel::with_detached_mounts();
    run(start, &args, &kernel, out).unwrap_or_else(|()| {
        let interrupted = rt::pending_end();
        interrupted.map_or(FAILURE, |signal| 128 + signal)
    })
}

/// Runs a command. Returns the exit status, or an error that it has reported.
type Run = fn(&Start, &Args<'_>, &Kernel, &mut Output) -> Result<u8, ()>;

const VERSION: &str = concat!("kprobe-attach ", env!("CARGO_PKG_VERSION"), "\n");

fn print(out: &mut Output, text: &dyn Display) -> u8 {
    let printed = write!(out, "{text}").and_then(|()| out.flush());
    printed.map_or(FAILURE, |()| 0)
}
