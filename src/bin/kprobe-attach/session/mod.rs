//! All the probes of a command line: attached together or not at all, and detached together.

pub(crate) mod hold;
pub(crate) mod pin;

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::fd::{AsFd, BorrowedFd};
use kprobe_attach::prog::Program;
use kprobe_attach::{AttachMode, Error, Kernel, KprobeLink, Probe};

use crate::cli::{Args, MAX_PROBES};
use crate::commands::count::Counter;
use crate::out::{Json, OrNull, Output, message, report, report_text};
use crate::session::hold::Hold;

/// A probe that is attached.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    /// As it was given.
    pub(crate) text: &'a CStr,
    pub(crate) probe: Probe,
    pub(crate) link: KprobeLink,
    pub(crate) source: Source<'a>,
}

/// The program that is attached to a probe.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Somebody else's, the same for every probe.
    Given(&'a Program),
    /// The built-in one, each probe's own.
    BuiltIn(Counter),
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Given(program) => program.as_fd(),
            Source::BuiltIn(counter) => counter.program.as_fd(),
        }
    }
}

impl Attached<'_> {
    /// What is counted, by the built-in program.
    pub(crate) const fn counter(&self) -> Option<&Counter> {
        match &self.source {
            Source::Given(_) => None,
            Source::BuiltIn(counter) => Some(counter),
        }
    }
}

/// The probes that are attached, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    attached: [Option<Attached<'a>>; MAX_PROBES],
}

impl<'a> Session<'a> {
    /// Attaches a program to every probe; `load` makes it.
    ///
    /// # Errors
    ///
    /// One or more probes failed, and each has been reported; nothing is left attached.
    pub(crate) fn attach(
        args: &Args<'a>,
        kernel: &Kernel,
        out: &mut Output,
        mut load: impl FnMut(&CStr, &Probe) -> Result<Source<'a>, Error>,
    ) -> Result<Self, ()> {
        #[allow(
            clippy::large_stack_arrays,
            reason = "there is no heap, and one such array"
        )]
        let mut session = Self {
            attached: [const { None }; MAX_PROBES],
        };
        for_all(args, out, &mut |_, index, probe| {
            let text = args.probe(index);
            let source = load(text, probe)?;
            if let Some(slot) = session.attached.get_mut(index) {
                *slot = Some(Attached {
                    text,
                    probe: *probe,
                    link: attach(kernel, source.as_fd(), probe)?,
                    source,
                });
            }
            Ok(())
        })?;
        Ok(session)
    }

    /// The probes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attached<'a>> {
        self.attached.iter().filter_map(Option::as_ref)
    }

    /// Detaches every probe, says so, and ends the command. Answers its exit status.
    ///
    /// # Errors
    ///
    /// One or more probes left something behind, and each has been reported.
    pub(crate) fn end(
        mut self,
        args: &Args<'_>,
        out: &mut Output,
        hold: Hold<'_>,
    ) -> Result<u8, ()> {
        let mut all = Ok(());
        for slot in &mut self.attached {
            if let Some(Attached { text, link, .. }) = slot.take() {
                if let Err(error) = link.detach() {
                    report(out, Some(text), args, &error);
                    all = Err(());
                }
            }
        }
        if !args.quiet {
            message(format_args!("detached"));
        }
        let status = hold.finish();
        all.map(|()| status)
    }
}

fn attach(kernel: &Kernel, program: BorrowedFd<'_>, probe: &Probe) -> Result<KprobeLink, Error> {
    kernel.attach_kprobe(program, probe.target, &probe.opts)
}

/// Reads every probe, so that what is wrong with the request is refused before the kernel is asked anything.
///
/// # Errors
///
/// One or more are no probes, and each has been reported.
pub(crate) fn check(args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
    for_all(args, out, &mut |_, _, _| Ok(()))
}

/// Plans every probe, so that what this kernel does not serve is refused before anything is made.
///
/// # Errors
///
/// One or more have no plan, and each has been reported.
pub(crate) fn plan(args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<(), ()> {
    for_all(args, out, &mut |_, _, probe| {
        let plan = kernel.plan(probe.target, &probe.opts)?;
        if args.pin.is_some() {
            plan.can_pin()
        } else {
            Ok(())
        }
    })
}

/// What is done with each probe; it is given the output, the probe's index, and the probe.
type Attempt<'a> = dyn FnMut(&mut Output, usize, &Probe) -> Result<(), Error> + 'a;

/// Tries every probe, and reports those that fail.
pub(crate) fn for_all(
    args: &Args<'_>,
    out: &mut Output,
    attempt: &mut Attempt<'_>,
) -> Result<(), ()> {
    let mut all = Ok(());
    for (index, text) in args.probes().iter().enumerate() {
        match args.read(text) {
            Ok(probe) => {
                if let Err(error) = attempt(out, index, &probe) {
                    report(out, Some(text), args, &error);
                    all = Err(());
                }
            }
            Err(error) => {
                report_text(out, text, args.json, error);
                all = Err(());
            }
        }
    }
    all
}

/// Says that the probes are attached, and how to end it.
pub(crate) fn announce(args: &Args<'_>) {
    let count = args.probes().len();
    let plural = if count == 1 { "" } else { "s" };
    if !args.quiet {
        message(format_args!(
            "{count} probe{plural} attached; Ctrl-C detaches"
        ));
    }
}

/// The fields of JSON that describe a probe; one that is not attached any more has no mode.
pub(crate) fn probe_fields(
    out: &mut Output,
    probe: &Probe,
    mode: Option<AttachMode>,
) -> fmt::Result {
    let Probe { target, opts } = probe;
    write!(
        out,
        r#""function":{},"offset":{},"retprobe":{},"mode":{},"cookie":{}"#,
        Json(target),
        opts.offset,
        opts.retprobe,
        OrNull(mode.map(Json)),
        opts.bpf_cookie
    )
}
