//! `kprobe-attach attach`: a program that somebody else loaded, held attached or pinned.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::prog::Program;
use kprobe_attach::{Error, Kernel};

use crate::cli::Args;
use crate::out::{Json, Lossy, OrNull, Output, report};
use crate::session::hold::Hold;
use crate::session::pin::{of_link, pin_all};
use crate::session::{self, Attached, Session, Source, announce, probe_fields};

/// Attaches the program to every probe, and holds or pins the links. Answers the exit status of the command.
///
/// # Errors
///
/// Something failed, and has been reported; nothing is left behind.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(args: &Args<'_>, out: &mut Output, mut hold: Hold<'_>) -> Result<u8, ()> {
    session::check(args, out)?;
    let program = open(args.program.unwrap_or_default()).map_err(|error| {
        // One message for a person; a line for each probe that was not attached for a script.
        let probes = if args.json {
            args.probes()
        } else {
            args.probes().get(..1).unwrap_or_default()
        };
        for probe in probes {
            report(out, Some(probe), args, &error);
        }
    })?;
    let kernel = Kernel::probe_with(&program);
    session::plan(args, &kernel, out)?;
    let session = Session::attach(args, &kernel, out, |_, _| Ok(Source::Given(&program)))?;
    if let Some(dir) = args.pin {
        // The pins keep what closing the file descriptors would have detached.
        return pin_all(args, out, dir, &session).map(|()| 0);
    }
    let waited = print_all(args, out, &session).and_then(|()| {
        announce(args);
        hold.wait(args, None, || true)
    });
    let ended = session.end(args, out, hold);
    waited.and(ended)
}

/// `id:N`, or the path of a pin.
fn open(program: &CStr) -> Result<Program, Error> {
    let id = program.to_bytes().strip_prefix(b"id:");
    let id = id.and_then(|id| core::str::from_utf8(id).ok()?.parse().ok());
    match id {
        Some(id) => Program::open_id(id),
        None => Program::open_pinned(program),
    }
}

/// Prints a line for each probe that is attached.
pub(crate) fn print_all(
    args: &Args<'_>,
    out: &mut Output,
    session: &Session<'_>,
) -> Result<(), ()> {
    let mut lines = session.iter();
    let printed = lines.try_for_each(|attached| print(args, out, attached));
    printed.and_then(|()| out.flush()).map_err(|fmt::Error| ())
}

/// One line for a probe that is attached.
// Its locals are not to be in the frame of its callers.
#[inline(never)]
fn print(args: &Args<'_>, out: &mut Output, attached: &Attached<'_>) -> fmt::Result {
    let Attached {
        text,
        probe,
        link,
        source: _,
    } = attached;
    let mode = link.mode();
    // Where the kernel does not tell the id there is none to print.
    let id = link.info().ok().and_then(|info| info.link_id);
    let pin = args.pin.map(|dir| of_link(dir, probe));
    let pinned = pin.as_ref().map(|pin| Lossy(pin.as_c_str()));
    if args.json {
        write!(out, r#"{{"probe":{},"#, Json(Lossy(text)))?;
        probe_fields(out, probe, Some(mode))?;
        return writeln!(
            out,
            r#","link_id":{},"pinned":{}}}"#,
            OrNull(id),
            OrNull(pinned.map(Json))
        );
    }
    write!(out, "{}: attached, mode {mode}", Lossy(text))?;
    if let Some(id) = id {
        write!(out, ", link id {id}")?;
    }
    match pinned {
        Some(path) => writeln!(out, ", pinned at {path}"),
        None => writeln!(out),
    }
}
