//! The probes of a command line, read and planned.

use core::ffi::CStr;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::request::{AttachType, Functions, Probe};
use kprobe_attach::{Errno, Error, Kernel};

use super::descriptors::{check_descriptors, of_link};
use super::found::{ANY_ADDRESS, Found, Known};
use super::shared::Kind;
use crate::cli::{Args, Opt};
use crate::out::{Lossy, Output};
use crate::rt::pending_end;

/// Reads every probe, before it asks the kernel anything.
///
/// # Errors
///
/// One or more texts are not probes, and each has been reported.
pub(crate) fn check(args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
    let mut all = Ok(());
    for text in args.probes() {
        match args.read(text) {
            Err(error) => args.report.text(out, text, error),
            // One map has the counts of all its functions.
            Ok(probe)
                if probe.attach_type != AttachType::Kprobe
                    && args.has(Opt::Pin)
                    && args.counts() =>
            {
                refuse(args, out, text, "is not pinned by count, only by attach");
            }
            Ok(_) => continue,
        }
        all = Err(());
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
    if of_probe > 0 {
        check_cookies(args, out)?;
    }
    let mut needed = 0;
    let mut plan = |known: &Known<'_>| {
        let Known { probe, .. } = known;
        if let Some(kind) = Kind::of(known) {
            // Its name is checked when it is attached.
            let address = [known.address.unwrap_or(ANY_ADDRESS)];
            let functions = Functions::addresses(&address);
            return kernel.plan_multi(functions, &kind.opts()).map(drop);
        }
        let plan = kernel.plan(probe.target, &probe.opts)?;
        needed += of_probe + of_link(plan.mode());
        if args.has(Opt::Pin) {
            plan.can_pin()
        } else {
            Ok(())
        }
    };
    if args.has(Opt::KeepGoing) || args.has(Opt::AnyOf) {
        // Those that fail are reported when they are attached.
        found.try_for_each(args, &mut |_, known| {
            let _ = known.and_then(&mut plan);
            Ok(())
        })?;
    } else {
        for_all(args, out, found, &mut |_, known| plan(known))?;
    }
    Kind::for_each(args, found, &mut |_| {
        needed += of_probe + 1;
        Ok(())
    })?;
    check_descriptors(args, out, found.count, needed)
}

/// Refuses a cookie of a link to many functions that are counted: each has its own, by which it is
/// counted.
///
/// # Errors
///
/// It has been reported.
fn check_cookies(args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
    let mut all = Ok(());
    for text in args.probes() {
        // All probes have been read before.
        let Ok(Probe {
            opts, attach_type, ..
        }) = args.read(text)
        else {
            continue;
        };
        if attach_type != AttachType::Kprobe && opts.bpf_cookie != 0 {
            refuse(args, out, text, "is not counted with a cookie");
            all = Err(());
        }
    }
    all
}

/// Reports that a link to many functions is not that.
fn refuse(args: &Args<'_>, out: &mut Output, text: &CStr, why: &str) {
    let kind = (Step::Request, Errno::OPNOTSUPP, Cause::InvalidRequest);
    let probe = Lossy(text);
    args.report.other(
        out,
        Some(text),
        kind,
        format_args!("{probe}: a link to many functions {why}"),
    );
}

/// Does something with a probe.
type Attempt<'t, 'f> = dyn FnMut(&mut Output, &Known<'f>) -> Result<(), Error> + 't;

/// Tries every probe, and reports those that fail, which is an error without `--keep-going`. With
/// `--any-of` it tries them up to the first that succeeds. If none does, the first error is
/// reported. A signal that is held back ends it.
pub(crate) fn for_all<'f, 'a: 'f>(
    args: &'f Args<'a>,
    out: &mut Output,
    found: &'f Found<'a>,
    attempt: &mut Attempt<'_, 'f>,
) -> Result<(), ()> {
    let mut all = Ok(());
    let any_of = args.has(Opt::AnyOf);
    let (mut any, mut first_error) = (false, None);
    let ended = found.try_for_each(args, &mut |text, known| {
        if pending_end().is_some() {
            args.report
                .run(out, Errno::INTR, "interrupted while attaching");
            return Err(());
        }
        match known.and_then(|known| attempt(out, known)) {
            Err(error) if any_of => {
                first_error.get_or_insert((text, error));
            }
            Err(error) => {
                args.report.error(out, Some(text), &error);
                if !args.has(Opt::KeepGoing) {
                    all = Err(());
                }
            }
            Ok(()) if any_of => {
                any = true;
                return Err(());
            }
            Ok(()) => {}
        }
        Ok(())
    });
    if any {
        return Ok(());
    }
    ended?;
    if let Some((text, error)) = first_error {
        args.report.error(out, Some(text), &error);
        return Err(());
    }
    all
}
