//! `kprobe-attach explain`: would a probe attach; if not, the cause and what to do.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};

use kprobe_attach::{Error, Evidence, Explanation, Kernel};

use crate::FAILURE;
use crate::cli::Args;
use crate::out::{Json, Lossy, OrNull, Output};

/// Explains every probe. Answers 1 if one of them would not attach.
///
/// # Errors
///
/// Nobody takes the output.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(args: &Args<'_>, out: &mut Output) -> Result<u8, fmt::Error> {
    let kernel = Kernel::probe();
    let mut status = 0;
    for text in args.probes() {
        let would_attach = match args.read(text) {
            Ok(probe) => {
                let explanation = kernel.explain(probe.target, &probe.opts);
                print(args, out, text, &explanation)?;
                explanation.refusal().is_none()
            }
            Err(error) if args.json => {
                let allowed = error.invalid.allowed();
                let evidence = [&error as &dyn Display, &allowed as &dyn Display];
                let refusal = error.into();
                let verdict = Verdict {
                    mode: &OrNull(None::<u32>),
                    refusal: Some(&refusal),
                };
                verdict.print_json(out, text, &mut evidence.into_iter(), &mut [].into_iter())?;
                false
            }
            Err(error) => {
                let cause = Error::from(error).cause();
                let shown = error.in_text(text.to_bytes());
                writeln!(out, "{}: would not attach: {cause}\n{shown}", Lossy(text))?;
                false
            }
        };
        if !would_attach {
            status = FAILURE;
        }
    }
    out.flush()?;
    Ok(status)
}

fn print(args: &Args<'_>, out: &mut Output, text: &CStr, explanation: &Explanation) -> fmt::Result {
    let mode = explanation.mode();
    let refusal = explanation.refusal();
    let evidence = explanation
        .evidence()
        .map(|evidence| evidence as &dyn Display);
    let suggestions = explanation
        .suggestions()
        .map(|suggestion| suggestion as &dyn Display);
    if args.json {
        // The kernel's own word comes first.
        let said = refusal.map(|error| error as &dyn Display);
        let verdict = Verdict {
            mode: &OrNull(mode.map(Json)),
            refusal,
        };
        let mut evidence = said.into_iter().chain(evidence);
        return verdict.print_json(out, text, &mut evidence, &mut { suggestions });
    }
    let text = Lossy(text);
    match (refusal, mode) {
        (None, mode) => {
            write!(out, "{text}: would attach")?;
            if let Some(mode) = mode {
                write!(out, ", mode {mode}")?;
            }
            let catch = explanation.evidence().any(Evidence::is_catch);
            writeln!(out, "{}", if catch { ", but not as it seems:" } else { "" })?;
        }
        (Some(error), _) => writeln!(
            out,
            "{text}: would not attach: {}\n  {error}",
            error.cause()
        )?,
    }
    for line in evidence {
        writeln!(out, "  {line}")?;
    }
    for suggestion in suggestions {
        writeln!(out, "  try: {suggestion}")?;
    }
    Ok(())
}

/// The fields of JSON that say whether it would attach.
struct Verdict<'a> {
    mode: &'a dyn Display,
    refusal: Option<&'a Error>,
}

impl Verdict<'_> {
    fn print_json(
        &self,
        out: &mut Output,
        text: &CStr,
        evidence: &mut dyn Iterator<Item = &dyn Display>,
        suggestions: &mut dyn Iterator<Item = &dyn Display>,
    ) -> fmt::Result {
        let Self { mode, refusal } = self;
        let cause = refusal.map(|error| Json(error.cause()));
        write!(
            out,
            r#"{{"probe":{},"would_attach":{},"mode":{mode},"cause":{},"evidence":"#,
            Json(Lossy(text)),
            refusal.is_none(),
            OrNull(cause)
        )?;
        strings(out, evidence)?;
        write!(out, r#","suggestions":"#)?;
        strings(out, suggestions)?;
        writeln!(out, "}}")
    }
}

/// An array of strings of JSON.
fn strings(out: &mut Output, items: &mut dyn Iterator<Item = &dyn Display>) -> fmt::Result {
    out.write_char('[')?;
    for (index, item) in items.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{}", Json(item))?;
    }
    out.write_char(']')
}
