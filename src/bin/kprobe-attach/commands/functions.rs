//! `kprobe-attach functions`: what can be probed, and why not for what cannot.

use core::fmt::{self, Write};

use kprobe_attach::error::ErrnoName;
use kprobe_attach::symbols::{Function, Functions, Refusal};
use kprobe_attach::{Errno, Kernel};

use crate::cli::{Args, FAILURE, Opt};
use crate::out::{Decimal, Hex, Json, OrNull, Output, message, notice};
use crate::rt::Start;
use crate::session::{function_memory, read_functions};

/// Prints the functions that can be probed. In JSON, and with `--all`, it prints the others too.
/// Returns 1 if it prints none.
///
/// # Errors
///
/// The functions cannot be read, or the output cannot be written, and it has been reported.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let mut memory = function_memory().map_err(|errno| {
        message(format_args!("{} for the functions", ErrnoName(errno)));
    })?;
    let functions = read_functions(args, kernel, &mut [], &mut memory, &mut |_, _| {});
    let functions = functions.map_err(|error| args.report.error(out, None, &error))?;
    print_all(args, out, &functions).map_err(|fmt::Error| ())
}

fn print_all(
    args: &Args<'_>,
    out: &mut Output,
    functions: &Functions<'_>,
) -> Result<u8, fmt::Error> {
    let all = args.report.json || args.has(Opt::All);
    let unknown = functions.filter().and(functions.blacklist()).err();
    let (mut printed, mut refused) = (0, 0);
    for function in functions.iter() {
        let Some(is_pattern) = wanted(args, &function) else {
            continue;
        };
        match function.refusal() {
            Some(why) if !all => {
                refused += 1;
                // Who names a function wants to know.
                if !is_pattern {
                    message(format_args!("{function}: {why}"));
                }
            }
            _ => {
                printed += 1;
                print(args, out, &function, unknown)?;
            }
        }
    }
    out.flush()?;
    if printed == 0 && refused == 0 {
        message(format_args!("no function matches"));
    } else if !all && !args.has(Opt::Quiet) {
        let (printed, refused) = (Decimal(printed), Decimal(refused));
        let can = if unknown.is_none() { "can" } else { "may" };
        notice(format_args!(
            "{printed} {can} be probed, {refused} cannot (--all shows why)"
        ));
    }
    Ok(if printed == 0 { FAILURE } else { 0 })
}

/// Returns whether an argument means a function, and if so, whether it is a pattern. Without an
/// argument, every function is meant.
#[inline(never)]
fn wanted(args: &Args<'_>, function: &Function<'_>) -> Option<bool> {
    if args.probe_count == 0 {
        return Some(true);
    }
    // All arguments have been read before.
    let mut targets = args
        .probes()
        .filter_map(|text| Some(args.read(text).ok()?.target));
    let target = targets.find(|target| function.is(target))?;
    Some(target.is_pattern())
}

// In a frame of its own: there, each offset takes 3 bytes less.
#[inline(never)]
fn print(
    args: &Args<'_>,
    out: &mut Output,
    function: &Function<'_>,
    unknown: Option<Errno>,
) -> fmt::Result {
    let address = function.address().map(Hex);
    let refusal = function.refusal();
    if args.report.json {
        let (word, reason) = match (refusal, unknown) {
            (None, None) => ("yes", None),
            (None, Some(errno)) => {
                let why = "a list cannot be read";
                ("unknown", Some((errno, "unread-list", why)))
            }
            (Some(why), _) => {
                let errno = match why {
                    Refusal::AddressHidden => Errno::PERM,
                    _ => Errno::INVAL,
                };
                ("no", Some((errno, why.name(), why.meaning())))
            }
        };
        write!(
            out,
            r#"{{"probe":{},"symbol":{},"module":{},"address":{},"probeable":"{word}""#,
            Json(function),
            Json(function.name()),
            OrNull(function.module().map(Json)),
            OrNull(address.map(Json)),
        )?;
        if let Some((errno, refusal, why)) = reason {
            let errno = ErrnoName(errno);
            write!(
                out,
                r#","errno":"{errno}","refusal":"{refusal}","why":"{why}""#
            )?;
        }
        return out.write_str("}\n");
    }
    if !args.has(Opt::All) {
        return writeln!(out, "{function}");
    }
    match address {
        Some(address) => write!(out, "{address}")?,
        None => write!(out, "{:18}", "-")?,
    }
    write!(out, "  {function}")?;
    match refusal {
        Some(refusal) => writeln!(out, "  {refusal}"),
        None => out.write_char('\n'),
    }
}
