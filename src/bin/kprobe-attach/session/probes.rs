//! The probes of a command line, read and planned.

use kprobe_attach::{Errno, Error, Kernel};

use super::descriptors::{check_descriptors, of_link};
use super::found::{Found, Known};
use crate::cli::{Args, Opt};
use crate::out::Output;
use crate::rt::pending_end;

/// Reads every probe, before it asks the kernel anything.
///
/// # Errors
///
/// One or more texts are not probes, and each has been reported.
pub(crate) fn check(args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
    let mut all = Ok(());
    for text in args.probes() {
        if let Err(error) = args.read(text) {
            args.report.text(out, text, error);
            all = Err(());
        }
    }
    all
}

/// Plans every probe, so that a request which this kernel does not support is refused before
/// anything is made. It also refuses more file descriptors than this process may have: each probe
/// takes `of_probe`, and those of its link.
///
/// # Errors
///
/// One or more probes have no plan, or there are too many probes, and it has been reported.
pub(crate) fn plan(
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
    found: &Found<'_>,
    of_probe: u64,
) -> Result<(), ()> {
    let mut needed = 0;
    let mut plan = |Known { probe, .. }: &Known<'_>| {
        let plan = kernel.plan(probe.target, &probe.opts)?;
        needed += of_probe + of_link(plan.mode());
        if args.has(Opt::Pin) {
            plan.can_pin()
        } else {
            Ok(())
        }
    };
    if args.has(Opt::KeepGoing) {
        // Those that fail are reported when they are attached.
        found.try_for_each(args, &mut |_, known| {
            let _ = known.and_then(&mut plan);
            Ok(())
        })?;
    } else {
        for_all(args, out, found, &mut |_, known| plan(known))?;
    }
    check_descriptors(args, out, found.count, needed)
}

/// Does something with a probe.
type Attempt<'t, 'f> = dyn FnMut(&mut Output, &Known<'f>) -> Result<(), Error> + 't;

/// Tries every probe, and reports those that fail, which is an error without `--keep-going`. A
/// signal that is held back ends it.
pub(crate) fn for_all<'f, 'a: 'f>(
    args: &'f Args<'a>,
    out: &mut Output,
    found: &'f Found<'a>,
    attempt: &mut Attempt<'_, 'f>,
) -> Result<(), ()> {
    let mut all = Ok(());
    found.try_for_each(args, &mut |text, known| {
        if pending_end().is_some() {
            args.report
                .run(out, Errno::INTR, "interrupted while attaching");
            return Err(());
        }
        if let Err(error) = known.and_then(|known| attempt(out, known)) {
            args.report.error(out, Some(text), &error);
            if !args.has(Opt::KeepGoing) {
                all = Err(());
            }
        }
        Ok(())
    })?;
    all
}
