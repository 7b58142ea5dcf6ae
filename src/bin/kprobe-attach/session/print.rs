//! The lines that are printed for attached probes.

use core::fmt::{self, Write};

use kprobe_attach::AttachMode;
use kprobe_attach::request::Probe;
use linux_raw_sys::general::SIGINT;

use super::attached::{Attached, Session};
use super::pin_names::LinkPath;
use crate::cli::{Args, Opt};
use crate::out::{Decimal, Json, Lossy, OrNull, Output, Shown, notice};
use crate::rt::is_ignored;

/// Prints that the probes are attached, and how to detach them.
pub(crate) fn announce(args: &Args<'_>) {
    let plural = if args.probe_count == 1 { "" } else { "s" };
    let count = Decimal(args.probe_count as u64);
    if !args.has(Opt::Quiet) {
        // A script makes what it starts with `&` ignore this signal.
        let key = if is_ignored(SIGINT) {
            "SIGTERM"
        } else {
            "Ctrl-C"
        };
        notice(format_args!(
            "{count} probe{plural} attached; {key} detaches"
        ));
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

/// Prints one line for a probe that is attached.
fn print(args: &Args<'_>, out: &mut Output, attached: &Attached<'_>) -> fmt::Result {
    let Attached {
        text,
        probe,
        link: Some(link),
        ..
    } = attached
    else {
        return Ok(());
    };
    let mode = link.mode();
    // If the kernel does not report the id, none is printed.
    let id = link
        .info()
        .ok()
        .and_then(|info| Some(Decimal(info.link_id?.into())));
    let pinned = args.value(Opt::Pin).map(|dir| LinkPath(dir, probe));
    if args.report.json {
        write!(out, r#"{{"probe":{},"#, Json(Lossy(text)))?;
        probe_fields(out, probe, Some(mode))?;
        return writeln!(
            out,
            r#","link_id":{},"pinned":{}}}"#,
            OrNull(id),
            OrNull(pinned.map(Json))
        );
    }
    write!(out, "{}: attached, mode {mode}", Shown(Lossy(text)))?;
    if let Some(id) = id {
        write!(out, ", link id {id}")?;
    }
    match pinned {
        Some(path) => writeln!(out, ", pinned at {}", Shown(path)),
        None => writeln!(out),
    }
}

/// Prints the JSON fields that describe a probe. A probe that is no longer attached has no mode.
pub(crate) fn probe_fields(
    out: &mut Output,
    probe: &Probe<'_>,
    mode: Option<AttachMode>,
) -> fmt::Result {
    let Probe { target, opts } = probe;
    write!(
        out,
        r#""function":{},"offset":{},"retprobe":{},"mode":{},"cookie":{}"#,
        Json(target),
        Decimal(opts.offset),
        opts.retprobe,
        OrNull(mode.map(Json)),
        Decimal(opts.bpf_cookie)
    )
}
