//! `kprobe-attach sweep`: removes this crate's events that killed processes left.

use core::fmt::{self, Write};

use kprobe_attach::Kernel;
use kprobe_attach::tracefs::EventLine;

use crate::cli::{Args, Opt};
use crate::out::{Decimal, Json, Output, Shown, message};
use crate::rt::Start;

/// Removes the events, or prints those that it would remove.
///
/// # Errors
///
/// Something failed, and it has been reported. The other events are removed.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let mut printed = Ok(());
    let swept = kernel.sweep_each(args.has(Opt::DryRun), |event, removed| {
        printed = printed.and_then(|()| print(args, out, event, removed));
    });
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

/// Prints one line for an event, which is removed or in use.
fn print(args: &Args<'_>, out: &mut Output, event: &EventLine<'_>, removed: bool) -> fmt::Result {
    let EventLine {
        group, event: name, ..
    } = event;
    let kind = if event.retprobe {
        "kretprobe"
    } else {
        "kprobe"
    };
    let place = &event.place;
    let dry_run = args.has(Opt::DryRun);
    if args.report.json {
        return writeln!(
            out,
            r#"{{"event":{},"probe":{},"removed":{},"in_use":{}}}"#,
            Json(format_args!("{group}/{name}")),
            Json(format_args!("{kind}/{place}")),
            removed && !dry_run,
            !removed
        );
    }
    let done = match (removed, dry_run) {
        (false, _) => "in use",
        (true, false) => "removed",
        (true, true) => "would remove",
    };
    writeln!(
        out,
        "{done} {}",
        Shown(format_args!("{group}/{name} ({kind}/{place})"))
    )
}
