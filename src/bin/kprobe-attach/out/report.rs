//! Reports of failures.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::request::{ParseError, Probe};
use kprobe_attach::symbols::for_each_function;
use kprobe_attach::{Errno, Error, KprobeOpts, Target};

use super::format::{Json, Lossy, Now, OrNull};
use super::numbers::{Decimal, Hex};
use super::stream::{Output, message, message_of_names};

/// Reports failures, as lines of JSON or as messages.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) json: bool,
    /// The options that apply to all probes, as they were given.
    pub(crate) options: KprobeOpts,
}

impl Report {
    pub(crate) const fn new() -> Self {
        Self {
            json: false,
            options: KprobeOpts::new(),
        }
    }

    /// Reports an error, of one probe or of none.
    pub(crate) fn error(&self, out: &mut Output, probe: Option<&CStr>, error: &Error) {
        if self.json {
            return report_json(out, probe, kind(error), error, self.several(probe, error));
        }
        // A map or a program does not know the probe that it is for, and a link to many functions
        // knows its address.
        let knows_probe = match error.step() {
            Step::Map | Step::LoadProgram => false,
            Step::LinkCreate => error.address().is_none(),
            _ => true,
        };
        match probe.filter(|_| !knows_probe) {
            Some(probe) => message(format_args!("{}: {error}", Lossy(probe))),
            None => message(format_args!("{error}")),
        }
        if let Some(target) = self.several(probe, error) {
            let mut number = 0;
            // If the list cannot be read, the error says all that is known.
            let _ = for_each_function(&target, |symbol| {
                number += 1;
                if let Some(found) = symbol.found() {
                    let (target, address) = (target.nth(number), Hex(symbol.address));
                    message(format_args!("{target}: {found} at {address}"));
                }
            });
        }
        let probe = probe.filter(|_| cfg!(feature = "explain") && has_more_to_explain(error));
        if let Some(probe) = probe {
            let (options, probe) = (SharedOptions(&self.options), Lossy(probe));
            message_of_names(format_args!("try: kprobe-attach explain{options} {probe}"));
        }
    }

    /// Returns the target of a probe, if the error is that several functions have its name.
    fn several<'p>(&self, probe: Option<&'p CStr>, error: &Error) -> Option<Target<'p>> {
        let probe = probe.filter(|_| error.cause() == Cause::NotUnique)?;
        let probe = Probe::with_defaults(probe.to_bytes(), &self.options);
        probe.ok().map(|probe| probe.target)
    }

    /// Reports an error of a pin, by its directory and its name.
    pub(crate) fn pin(
        &self,
        out: &mut Output,
        probe: Option<&CStr>,
        (dir, name): (&CStr, &CStr),
        error: &Error,
    ) {
        let (dir, name) = (Lossy(dir), Lossy(name));
        self.other(
            out,
            probe,
            kind(error),
            format_args!("{dir}/{name}: {error}"),
        );
    }

    /// Reports a failure that is not an [`Error`] of the library.
    pub(crate) fn other(
        &self,
        out: &mut Output,
        probe: Option<&CStr>,
        kind: Kind,
        text: fmt::Arguments<'_>,
    ) {
        if self.json {
            report_json(out, probe, kind, &text, None);
        } else {
            message_of_names(text);
        }
    }

    /// Reports a failure of the whole run.
    pub(crate) fn run(&self, out: &mut Output, errno: Errno, why: &str) {
        let cause = Cause::out_of(errno).unwrap_or(Cause::Unknown);
        let (kind, name) = ((Step::Request, errno, cause), ErrnoName(errno));
        self.other(out, None, kind, format_args!("{name}: {why}"));
    }

    /// Reports that a text is not a probe. The message shows the place.
    pub(crate) fn text(&self, out: &mut Output, probe: &CStr, error: ParseError) {
        if self.json {
            let (kind, allowed) = (kind(&error.into()), error.invalid.allowed());
            report_json(
                out,
                Some(probe),
                kind,
                &format_args!("{error}; allowed: {allowed}"),
                None,
            );
        } else {
            let shown = error.in_text(probe.to_bytes());
            message(format_args!("not a probe:\n{shown}"));
        }
    }
}

/// Prints the options that are set: ` --mode MODE --cookie N --maxactive N`.
struct SharedOptions<'a>(&'a KprobeOpts);

impl fmt::Display for SharedOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mode) = self.0.attach_mode {
            write!(f, " --mode {mode}")?;
        }
        if self.0.bpf_cookie != 0 {
            write!(f, " --cookie {}", Decimal(self.0.bpf_cookie))?;
        }
        if self.0.maxactive != 0 {
            write!(f, " --maxactive {}", Decimal(self.0.maxactive.into()))?;
        }
        Ok(())
    }
}

/// Returns whether `explain` may find out more than the error says, about the place or the denial.
fn has_more_to_explain(error: &Error) -> bool {
    let of_attach = matches!(
        error.step(),
        Step::ProbeKernel | Step::PerfEventOpen | Step::CreateEvent | Step::ReadEventId
    );
    let is_clear = matches!(
        error.cause(),
        Cause::OutOfFds | Cause::OutOfMemory | Cause::MemlockLimit | Cause::EventExists
    );
    of_attach && !is_clear
}

/// The words by which a script recognises an error.
pub(crate) type Kind = (Step, Errno, Cause);

const fn kind(error: &Error) -> Kind {
    (error.step(), error.errno(), error.cause())
}

/// Prints a line of JSON. It has the functions that a target may mean, if there is one.
fn report_json(
    out: &mut Output,
    probe: Option<&CStr>,
    (step, errno, cause): Kind,
    message: &dyn fmt::Display,
    several: Option<Target<'_>>,
) {
    let probe = OrNull(probe.map(|probe| Json(Lossy(probe))));
    let (errno, message) = (ErrnoName(errno), Json(message));
    let mut line = write!(
        out,
        r#"{{"probe":{probe},"time":{Now},"error":{{"step":"{step}","errno":"{errno}""#
    )
    .and_then(|()| write!(out, r#","cause":"{cause}","message":{message}"#));
    if let Some(target) = several {
        let mut before = ",\"functions\":[{";
        let _ = for_each_function(&target, |symbol| {
            let Some(function) = symbol.target() else {
                return;
            };
            line = line
                .and_then(|()| out.write_str(before))
                .and_then(|()| function_fields(out, &function, symbol.address))
                .and_then(|()| out.write_str("}"));
            before = ",{";
        });
        let end = if before == ",{" { "]" } else { "" };
        line = line.and_then(|()| out.write_str(end));
    }
    // If nobody reads the output, the exit status still reports it.
    let _ = line
        .and_then(|()| out.write_str("}}\n"))
        .and_then(|()| out.flush());
}

/// Prints the JSON fields of a function: its name, its module, and its address unless it is hidden.
pub(crate) fn function_fields(
    out: &mut Output,
    function: &Target<'_>,
    address: u64,
) -> fmt::Result {
    let address = Some(address).filter(|address| *address != 0);
    write!(
        out,
        r#""symbol":{},"module":{},"address":{}"#,
        Json(function.function().unwrap_or_default()),
        OrNull(function.module().map(Json)),
        OrNull(address.map(|address| Json(Hex(address))))
    )
}
