//! `kprobe-attach`: BPF programs attached to kernel functions, from a static program without libc.
//!
//! What it does is the library's; what is here is the command line, holding the probes, and
//! printing.

#![no_std]
#![no_main]

mod cli;
mod commands;
mod out;
mod programs;
mod rt;
mod session;

use core::fmt::Write;

use kprobe_attach::Kernel;

use cli::{Args, Command, FAILURE, HELP, USAGE};
use out::{Output, message};
use rt::Start;

/// The program, from its first argument to its exit status.
fn main(start: &Start) -> u8 {
    let mut args = Args::new(start);
    if let Err(usage) = args.parse() {
        message(format_args!("{usage}\nTry 'kprobe-attach --help'."));
        return USAGE;
    }
    let mut out = Output::stdout(start);
    let run: Run = match args.command {
        Command::Help => |_, _, _, out| print(out, HELP),
        Command::Version => |_, _, _, out| print(out, VERSION),
        Command::Features => commands::features::run,
        Command::Plan => commands::plan::run,
        Command::Attach => commands::attach::run,
        Command::Count if args.probe_count == 0 => commands::pinned::run,
        Command::Count => commands::count::run,
        Command::Explain if Command::Explain.is_built() => commands::explain::run,
        Command::Sweep if Command::Sweep.is_built() => commands::sweep::run,
        // `Args` has refused it.
        Command::Explain | Command::Sweep => |_, _, _, _| Err(()),
    };
    // What is not mounted may be mounted where no mount table shows it.
    let kernel = Kernel::with_detached_mounts();
    run(start, &args, &kernel, &mut out).unwrap_or(FAILURE)
}

/// A command: answers the exit status, or has reported what failed.
type Run = fn(&Start, &Args<'_>, &Kernel, &mut Output) -> Result<u8, ()>;

const VERSION: &str = concat!("kprobe-attach ", env!("CARGO_PKG_VERSION"), "\n");

fn print(out: &mut Output, text: &str) -> Result<u8, ()> {
    out.write_str(text)
        .and_then(|()| out.flush())
        .map(|()| 0)
        .map_err(drop)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    out::bug(info);
    rt::exit(FAILURE)
}
