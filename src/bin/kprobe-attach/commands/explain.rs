//! `kprobe-attach explain`: whether a probe would attach, and if not, the cause and what to try.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};

use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::explain::{Case, Explanation};
use kprobe_attach::{AttachMode, Errno, Error, Kernel};

use crate::cli::{Args, FAILURE};
use crate::out::{Json, Lossy, OrNull, Output, Shown, message};
use crate::rt::{Slots, Start, hold_signals, restore_signals};

/// Explains every probe. Returns 1 if one of them would not attach.
///
/// # Errors
///
/// The output cannot be written, or there is not enough memory for so many probes.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let memory = Slots::map(args.probe_count);
    let mut cases = memory.map_err(|errno| {
        message(format_args!("{} for so many probes", ErrnoName(errno)));
    })?;
    for text in args.probes() {
        // All probes have been read before.
        let Ok(probe) = args.read(text) else { continue };
        if !probe.target.is_pattern() {
            cases.push(Case::new(probe.target, &probe.opts));
        }
    }
    let explained = print_all(args, kernel, out, cases.as_mut_slice());
    explained.map_err(|fmt::Error| ())
}

fn print_all(
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
    cases: &mut [Case<'_>],
) -> Result<u8, fmt::Error> {
    let mut status = 0;
    let mut explanations = kernel.explain_all(cases);
    for text in args.probes() {
        let Ok(probe) = args.read(text) else { continue };
        if probe.target.is_pattern() {
            let kind = (Step::Request, Errno::INVAL, Cause::InvalidRequest);
            let pattern = Lossy(text);
            args.report.other(
                out,
                Some(text),
                kind,
                format_args!(
                    "{pattern}: only one function can be explained: \
                     'kprobe-attach functions --all' shows each of a pattern"
                ),
            );
            status = FAILURE;
            continue;
        }
        // The trial attaches a probe for a moment. A signal must not end the program meanwhile.
        let mask = hold_signals();
        let explanation = explanations.next();
        restore_signals(mask);
        let Some(explanation) = explanation else {
            break;
        };
        print(args, out, text, &explanation)?;
        if explanation.refusal().is_some() {
            status = FAILURE;
        }
    }
    out.flush()?;
    Ok(status)
}

// In a frame of its own, as `All::next`.
#[inline(never)]
fn print(args: &Args<'_>, out: &mut Output, text: &CStr, explanation: &Explanation) -> fmt::Result {
    let mode = explanation.mode();
    let refusal = explanation.refusal();
    if args.report.json {
        verdict_json(out, text, mode, refusal)?;
        // The kernel's own answer comes first.
        let mut evidence = Strings::begin(out);
        refusal.map_or(Ok(()), |error| evidence.push(error))?;
        explanation
            .evidence()
            .try_for_each(|found| evidence.push(&found))?;
        evidence.end()?;
        out.write_str(",\"suggestions\":")?;
        let mut suggestions = Strings::begin(out);
        explanation
            .suggestions()
            .try_for_each(|suggestion| suggestions.push(suggestion))?;
        suggestions.end()?;
        return out.write_str("}\n");
    }
    let text = Shown(Lossy(text));
    match (refusal, mode) {
        (None, mode) => {
            write!(out, "{text}: would attach")?;
            if let Some(mode) = mode {
                write!(out, ", mode {mode}")?;
            }
            let warns = explanation.evidence().any(|evidence| evidence.is_warning());
            writeln!(out, "{}", if warns { ", but not as it seems:" } else { "" })?;
        }
        (Some(error), _) => writeln!(
            out,
            "{text}: would not attach: {}\n  {error}",
            error.cause()
        )?,
    }
    for line in explanation.evidence() {
        writeln!(out, "  {line}")?;
    }
    for suggestion in explanation.suggestions() {
        writeln!(out, "  try: {suggestion}")?;
    }
    Ok(())
}

/// Prints the start of a line of JSON, up to the evidence.
fn verdict_json(
    out: &mut Output,
    text: &CStr,
    mode: Option<AttachMode>,
    refusal: Option<&Error>,
) -> fmt::Result {
    write!(
        out,
        r#"{{"probe":{},"would_attach":{},"mode":{},"cause":{},"evidence":"#,
        Json(Lossy(text)),
        refusal.is_none(),
        OrNull(mode.map(Json)),
        OrNull(refusal.map(|error| Json(error.cause())))
    )
}

/// Prints a JSON array of strings.
struct Strings<'o> {
    out: &'o mut Output,
    before: &'static str,
}

impl<'o> Strings<'o> {
    const fn begin(out: &'o mut Output) -> Self {
        Self { out, before: "[" }
    }

    fn push(&mut self, text: &dyn Display) -> fmt::Result {
        self.out.write_str(self.before)?;
        self.before = ",";
        write!(self.out, "{}", Json(text))
    }

    fn end(self) -> fmt::Result {
        let rest = if self.before == "[" { "[]" } else { "]" };
        self.out.write_str(rest)
    }
}
