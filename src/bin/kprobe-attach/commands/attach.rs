//! `kprobe-attach attach`: a program that somebody else loaded, held attached or pinned.

use core::ffi::CStr;

use kprobe_attach::bpf::Program;
use kprobe_attach::request::Probe;
use kprobe_attach::{Error, Kernel};

use crate::cli::{Args, Opt, decimal};
use crate::out::Output;
use crate::rt::Start;
use crate::session::{self, Found, Hold, Session, Source, announce, pin_all, print_all};

/// Attaches the program to every probe, and holds or pins the links. Returns the exit status of the
/// command.
///
/// # Errors
///
/// Something failed, and it has been reported. Nothing is left behind.
pub(crate) fn run(
    start: &Start,
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
) -> Result<u8, ()> {
    let mut hold = Hold::new(start, args, out)?;
    let program = open(args.value(Opt::Program).unwrap_or_default()).map_err(|error| {
        // A person gets one message, and a script gets a line for each probe.
        let reports = if args.report.json {
            args.probe_count
        } else {
            1
        };
        for probe in args.probes().take(reports) {
            args.report.error(out, Some(probe), &error);
        }
    })?;
    kernel.ask_perf_link(&program);
    // One program serves all probes.
    let found = Found::of(args, kernel, out, false)?;
    session::plan(args, kernel, out, &found, 0)?;
    let mut given = |_: &CStr, _: &Probe<'_>, _| Ok(Source::Given(&program));
    let mut session = Session::attach(args, kernel, out, &found, &mut given)?;
    if let Some(dir) = args.value(Opt::Pin) {
        // The pins hold the links when the file descriptors are closed.
        return pin_all(args, out, dir, &session).map(|()| 0);
    }
    hold.begin(args, out);
    let printed = print_all(args, out, &session);
    if printed.is_ok() {
        announce(args, &session);
        hold.wait(out, None, &mut |_| true);
    }
    let detached = session.detach(args, out);
    let status = hold.finish(args);
    printed.and(detached).map(|()| status)
}

/// Opens a program by `id:N`, or by the path of its pin.
fn open(program: &CStr) -> Result<Program, Error> {
    let id = program.to_bytes().strip_prefix(b"id:");
    let id = id.and_then(|id| u32::try_from(decimal(id)?).ok());
    match id {
        Some(id) => Program::open_id(id),
        None => Program::open_pinned(program),
    }
}
