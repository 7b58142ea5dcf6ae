//! `kprobe-attach attach`: a program that somebody else loaded, or those of an object, held
//! attached or pinned.

use kprobe_attach::Kernel;

use crate::cli::{Args, Opt};
use crate::out::Output;
use crate::rt::Start;
use crate::session::{
    self, Found, Hold, Known, Programs, Session, Source, announce, pin_all, print_all,
};

/// Attaches the programs to their probes, and holds or pins the links. Returns the exit status of
/// the command.
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
    let programs = Programs::open(start, args, kernel, out)?;
    let found = Found::of(args, kernel, out, false)?;
    session::plan(args, kernel, out, &found, 0)?;
    let mut given = |known: &Known<'_>, _| Ok(Source::Given(programs.get(known.program)));
    let mut session = Session::attach(args, kernel, out, &found, &mut given)?;
    if let Some(dir) = args.value(Opt::Pin) {
        // The pins hold the links when the file descriptors are closed.
        pin_all(args, out, dir, &session, &mut |out| {
            programs.pin_maps(args, out, dir)
        })?;
        // The end of the program reports what is lost.
        let _ = programs.print_maps(args, out);
        return Ok(0);
    }
    hold.begin(args, out);
    let printed = print_all(args, out, &session);
    let printed = printed.and_then(|()| programs.print_maps(args, out));
    if printed.is_ok() {
        announce(args, &session);
        hold.wait(out, None, &mut |_| true);
    }
    let detached = session.detach(args, out);
    let status = hold.finish(args);
    printed.and(detached).map(|()| status)
}
