//! The lines that are printed for attached probes.

use core::fmt::{self, Write};

use kprobe_attach::request::Probe;
use linux_raw_sys::general::SIGINT;

use super::attached::{Attached, Link, Session, Way};
use super::found::{Choice, Known};
use super::pin_names::{LinkName, PinPath};
use crate::cli::{Args, Opt};
use crate::out::{Decimal, Hex, Json, Lossy, Now, OrNull, Output, Shown, function_fields, notice};
use crate::rt::is_ignored;

/// Prints that the probes are attached, and how to detach them.
pub(crate) fn announce(args: &Args<'_>, session: &Session<'_>) {
    let plural = if session.len() == 1 { "" } else { "s" };
    let count = Decimal(session.len() as u64);
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
    let printed = lines.try_for_each(|attached| print(args, out, attached, session));
    printed.and_then(|()| out.flush()).map_err(|fmt::Error| ())
}

/// Prints one line for a probe that is attached.
fn print(
    args: &Args<'_>,
    out: &mut Output,
    attached: &Attached<'_>,
    session: &Session<'_>,
) -> fmt::Result {
    let known = &attached.known;
    // If the kernel does not report the id, none is printed.
    let (way, id) = match &attached.link {
        Link::Own(None, _) => return Ok(()),
        Link::Own(Some(link), _) => (Way::One(link.mode()), link.link_id().unwrap_or(None)),
        Link::Shared(shared, index) => {
            let shared = session.shared().get(*shared);
            let id = shared.and_then(|shared| shared.link_id(*index));
            (Way::of(known.probe.attach_type), id)
        }
    };
    let id = id.map(|id| Decimal(id.into()));
    let dir = args.value(Opt::Pin);
    let pinned = dir.map(|dir| PinPath(dir, LinkName::of(args, session, attached)));
    let program = args.program_name(known.program).map(Lossy);
    if args.report.json {
        probe_fields(out, known, Some(way))?;
        write!(
            out,
            r#","time":{Now},"link_id":{},"pinned":{}"#,
            OrNull(id),
            OrNull(pinned.map(Json))
        )?;
        if let Some(program) = program {
            write!(out, r#","program":{}"#, Json(program))?;
        }
        return out.write_str("}\n");
    }
    write!(out, "{}: attached, mode {way}", Shown(Lossy(known.text)))?;
    if let Some(id) = id {
        write!(out, ", link id {id}")?;
    }
    if let Some(path) = pinned {
        write!(out, ", pinned at {}", Shown(path))?;
    }
    if let Some(program) = program {
        write!(out, ", program {}", Shown(program))?;
    }
    print_choice(out, ", ", known)?;
    out.write_char('\n')
}

/// Prints the function that was chosen, if one was, after some text.
pub(crate) fn print_choice(out: &mut Output, before: &str, known: &Known<'_>) -> fmt::Result {
    let Some(Choice {
        function, address, ..
    }) = known.choice
    else {
        return Ok(());
    };
    write!(out, "{before}function {function}")?;
    match address {
        Some(address) => write!(out, " at {}", Hex(address)),
        None => Ok(()),
    }
}

/// Prints the start of a line of JSON: the fields that describe a probe. A probe that is no longer
/// attached has no mode.
pub(crate) fn probe_fields(out: &mut Output, known: &Known<'_>, way: Option<Way>) -> fmt::Result {
    let Known {
        text,
        probe: Probe { target, opts, .. },
        choice,
        ..
    } = known;
    write!(
        out,
        r#"{{"probe":{},"function":{},"offset":{},"retprobe":{},"mode":{},"cookie":{}"#,
        Json(Lossy(text)),
        Json(target),
        Decimal(opts.offset),
        opts.retprobe,
        OrNull(way.map(Json)),
        Decimal(opts.bpf_cookie)
    )?;
    let Some(Choice {
        function,
        address,
        of,
        is_copy,
        ..
    }) = choice
    else {
        return Ok(());
    };
    out.write_str(",\"resolved\":{")?;
    function_fields(out, function, address.unwrap_or_default())?;
    let of = Decimal((*of).into());
    write!(out, r#","of":{of},"copy":{is_copy}}}"#)
}
