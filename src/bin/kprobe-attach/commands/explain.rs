//! `kprobe-attach explain`: whether a probe would attach, and if not, the cause and what to try.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};
use core::ptr;

use kprobe_attach::bpf::{Load, insn};
use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::explain::{Case, Explanation};
use kprobe_attach::request::{AttachType, Probe};
use kprobe_attach::symbols::{Resolution, resolve};
use kprobe_attach::{Errno, Error, Kernel};

use crate::cli::{Args, FAILURE};
use crate::out::{Json, Lossy, OrNull, Output, Shown, message};
use crate::rt::{Slots, Start, hold_signals, restore_signals};
use crate::session::{Kind, Known, Members, Source, Way};

/// Explains every probe. Returns 1 if one of them would not attach.
///
/// # Errors
///
/// The output cannot be written, or there is not enough memory for so many probes.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let memory = |errno| message(format_args!("{} for so many probes", ErrnoName(errno)));
    let mut cases = Slots::map(args.probe_count).map_err(memory)?;
    for text in args.probes() {
        // All probes have been read before.
        let Ok(probe) = args.read(text) else { continue };
        if !probe.target.is_pattern() && !is_shared(&probe) {
            cases.push(Case::new(probe.target, &probe.opts));
        }
    }
    // The trial attaches for a moment. A signal must not end the program meanwhile.
    let mask = hold_signals();
    let refused = refused_of_shared(args, kernel);
    restore_signals(mask);
    let refused = refused.map_err(memory)?;
    let explained = print_all(args, kernel, out, cases.as_mut_slice(), refused.as_slice());
    explained.map_err(|fmt::Error| ())
}

fn print_all(
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
    cases: &mut [Case<'_>],
    refused: &[(*const CStr, Error)],
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
        if is_shared(&probe) {
            let mut refused = refused.iter();
            let refusal = refused.find(|(of, _)| ptr::eq(*of, text));
            let refusal = refusal.map(|(_, error)| error);
            print_shared(args, out, text, &probe, refusal)?;
            if refusal.is_some() {
                status = FAILURE;
            }
            continue;
        }
        // This trial attaches for a moment too.
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

/// Returns whether a probe is of a link to many functions.
fn is_shared(probe: &Probe<'_>) -> bool {
    probe.attach_type != AttachType::Kprobe
}

/// The probes that cannot be attached, by their texts, and why.
type Refused = Slots<(*const CStr, Error)>;

/// Attaches a program that does nothing to the functions of all probes of such links, for a moment,
/// by one link to those of a kind. Returns the probes that cannot be attached.
///
/// # Errors
///
/// `ENOMEM` if there is not enough memory.
#[inline(never)]
fn refused_of_shared(args: &Args<'_>, kernel: &Kernel) -> Result<Refused, Errno> {
    let mut refused = Slots::map(args.probe_count)?;
    let mut targets = Slots::map(args.probe_count)?;
    let mut found = Slots::map(args.probe_count)?;
    for text in args.probes() {
        let Ok(probe) = args.read(text) else { continue };
        let target = probe.target;
        if is_shared(&probe) && !target.is_pattern() {
            let is_searched = !target.is_resolved();
            targets.push(Resolution::new(if is_searched {
                target
            } else {
                target.unique()
            }));
            found.push(Known::new(text, probe));
        }
    }
    let read = resolve(targets.as_mut_slice(), |_, _| {});
    for (known, target) in found.as_mut_slice().iter_mut().zip(targets.as_slice()) {
        match read.and_then(|()| target.target()) {
            Ok(planned) => {
                known.probe.target = planned;
                known.address = target.address().or(planned.known_address());
            }
            Err(error) => {
                refused.push((ptr::from_ref(known.text), error));
                // It is of no link.
                known.probe.attach_type = AttachType::Kprobe;
            }
        }
    }
    for kind in Kind::all(0) {
        let mut members = Slots::map(args.probe_count)?;
        let of_kind = found.as_slice().iter();
        for known in of_kind.filter(|known| Kind::of(known) == Some(kind)) {
            members.push(*known);
        }
        if members.as_slice().is_empty() {
            continue;
        }
        let mut load = |known: &Known<'_>, _| {
            let nothing = [insn::mov_imm(insn::R0, 0), insn::exit()];
            let program = Load::new(&nothing, c"Dual MIT/GPL").attach_type(known.probe.attach_type);
            program.load().map(Source::Nothing)
        };
        let mut failed = |known: &Known<'_>, error: &Error| {
            refused.push((ptr::from_ref(known.text), *error));
        };
        let members = Members::new(members, kind, false)?;
        drop(members.attach(kernel, kind, &mut load, &mut failed));
    }
    Ok(refused)
}

/// Prints the verdict on a probe of such a link.
fn print_shared(
    args: &Args<'_>,
    out: &mut Output,
    text: &CStr,
    probe: &Probe<'_>,
    refusal: Option<&Error>,
) -> fmt::Result {
    let way = refusal.is_none().then(|| Way::of(probe.attach_type));
    if args.report.json {
        verdict_json(out, text, way, refusal)?;
        let mut evidence = Strings::begin(out);
        refusal.map_or(Ok(()), |error| evidence.push(error))?;
        evidence.end()?;
        return out.write_str(",\"suggestions\":[]}\n");
    }
    let text = Shown(Lossy(text));
    match (refusal, way) {
        (Some(error), _) => print_refusal(out, &text, error),
        (None, Some(way)) => writeln!(out, "{text}: would attach, mode {way}"),
        (None, None) => Ok(()),
    }
}

fn print_refusal(out: &mut Output, text: &dyn Display, error: &Error) -> fmt::Result {
    writeln!(
        out,
        "{text}: would not attach: {}\n  {error}",
        error.cause()
    )
}

// In a frame of its own, as `All::next`.
#[inline(never)]
fn print(args: &Args<'_>, out: &mut Output, text: &CStr, explanation: &Explanation) -> fmt::Result {
    let mode = explanation.mode();
    let refusal = explanation.refusal();
    if args.report.json {
        verdict_json(out, text, mode.map(Way::One), refusal)?;
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
        (Some(error), _) => print_refusal(out, &text, error)?,
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
    way: Option<Way>,
    refusal: Option<&Error>,
) -> fmt::Result {
    write!(
        out,
        r#"{{"probe":{},"would_attach":{},"mode":{},"cause":{},"evidence":"#,
        Json(Lossy(text)),
        refusal.is_none(),
        OrNull(way.map(Json)),
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
