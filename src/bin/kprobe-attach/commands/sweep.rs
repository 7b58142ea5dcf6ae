//! `kprobe-attach sweep`: removes the trace events that processes of this crate's left when they
//! were killed.

use core::fmt::{self, Write};

use kprobe_attach::Kernel;
use kprobe_attach::tracefs::EventLine;

use crate::cli::{Args, Opt};
use crate::out::{Decimal, Json, Output, message};
use crate::rt::Start;

/// Removes the events, or says which ones would be.
///
/// # Errors
///
/// Something failed, and has been reported; what could be removed is.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let mut printed = Ok(());
    let each = |event: &EventLine<'_>| {
        printed = printed.and_then(|()| print(args, out, event));
    };
    let swept = if args.has(Opt::DryRun) {
        kernel.sweep_dry_run(each)
    } else {
        kernel.sweep(each)
    };
    let printed = printed.and_then(|()| out.flush());
    let swept = swept.map_err(|error| args.report.error(out, None, &error))?;
    if !args.has(Opt::Quiet) {
        let to_be = if args.has(Opt::DryRun) { "to be " } else { "" };
        message(format_args!(
            "{} {to_be}removed, {} in use",
            Decimal(swept.removed as u64),
            Decimal(swept.in_use as u64)
        ));
    }
    printed.map(|()| 0).map_err(|fmt::Error| ())
}

/// One line for an event.
fn print(args: &Args<'_>, out: &mut Output, event: &EventLine<'_>) -> fmt::Result {
    let EventLine {
        group, event: name, ..
    } = event;
    let kind = if event.retprobe {
        "kretprobe"
    } else {
        "kprobe"
    };
    let place = &event.place;
    if args.report.json {
        let removed = !args.has(Opt::DryRun);
        return writeln!(
            out,
            r#"{{"event":{},"probe":{},"removed":{removed}}}"#,
            Json(format_args!("{group}/{name}")),
            Json(format_args!("{kind}/{place}"))
        );
    }
    let done = if args.has(Opt::DryRun) {
        "would remove"
    } else {
        "removed"
    };
    writeln!(out, "{done} {group}/{name} ({kind}/{place})")
}
