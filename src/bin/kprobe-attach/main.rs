//! `kprobe-attach`: BPF programs attached to kernel functions, from a static program without libc.
//!
//! What it does is the library's; what is here is the command line, holding the probes, and printing.

#![no_std]
#![no_main]

mod cli;
mod commands;
mod out;
mod rt;
mod session;

use core::fmt::Write;

use cli::{Args, Command};
use out::{Output, message};
use rt::Start;
use session::hold::Hold;

const HELP: &str = "\
Attach BPF programs to kernel functions, with libbpf's semantics, without libc.

kprobe-attach features [--json]            what this kernel allows, or why not
kprobe-attach plan   [OPTIONS] PROBE...    the system calls; none is made
kprobe-attach attach [OPTIONS] PROBE... [-- COMMAND...]  attach a loaded program
kprobe-attach count  [OPTIONS] PROBE... [-- COMMAND...]  count hits and misses
kprobe-attach explain [OPTIONS] PROBE...   would it attach; if not, why
kprobe-attach sweep  [--dry-run] [--json]  remove what killed processes left

PROBE: [kprobe/|kretprobe/][module:]function[+offset][,key=value]...
  or 0xADDRESS; keys offset, cookie, mode, maxactive; flag retprobe
OPTIONS, for all probes:
  --mode MODE         link, perf, legacy-link, legacy; else the first that fits
  --cookie N          what bpf_get_attach_cookie() gives (link modes)
  --maxactive N       returns awaited at once, 1 to 4096 (legacy modes)
  --program WHAT      attach: the path of a pinned program, or id:N
  --pin DIR           attach, count: pin below DIR and leave, attached
                      count without PROBE: the counts of what is pinned there
  --for SECONDS       detach after this time
  --interval SECONDS  count: print so often
  --json, --quiet     one object a line; no messages
Probes are detached when COMMAND ends, the time is up, or a signal comes; a
COMMAND that still runs is sent SIGTERM and waited for. Exit status: COMMAND's
if there is one (128+N if signal N ended it), else 0; 1 failure; 2 usage.
";

/// The exit status of a failure.
const FAILURE: u8 = 1;

/// The exit status of a wrong command line.
const USAGE: u8 = 2;

/// The program, from its first argument to its exit status.
fn main(start: &Start) -> u8 {
    let args = match Args::parse(start) {
        Ok(args) => args,
        Err(usage) => {
            message(format_args!("{usage}\nTry 'kprobe-attach --help'."));
            return USAGE;
        }
    };
    let mut out = Output::stdout(start);
    let out = &mut out;
    let answer = match args.command {
        Command::Help => print(out, HELP),
        Command::Version => print(
            out,
            concat!("kprobe-attach ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
        Command::Features => commands::features::run(out, args.json).map_err(drop),
        Command::Plan => commands::plan::run(&args, out),
        Command::Attach => commands::attach::run(&args, out, Hold::new(start)),
        Command::Count => {
            let kern_version = start.vdso().and_then(kprobe_attach::prog::kern_version);
            commands::count::run(&args, out, Hold::new(start), kern_version)
        }
        Command::Explain if Command::Explain.is_built() => {
            commands::explain::run(&args, out).map_err(drop)
        }
        Command::Sweep if Command::Sweep.is_built() => commands::sweep::run(&args, out),
        // `Args` has refused it.
        Command::Explain | Command::Sweep => Err(()),
    };
    answer.unwrap_or(FAILURE)
}

fn print(out: &mut Output, text: &str) -> Result<u8, ()> {
    out.write_str(text)
        .and_then(|()| out.flush())
        .map(|()| 0)
        .map_err(drop)
}
