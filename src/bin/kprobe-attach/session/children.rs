//! The processes that a process starts, followed while probes are held.

use kprobe_attach::error::Cause;
use kprobe_attach::fd::AsFd;
use kprobe_attach::{Error, Kernel, KprobeLink, Target};
use rustix::process::Pid;

use crate::cli::Args;
use crate::out::{Decimal, Output, notice};
use crate::programs::{Children, Follow, load};
use crate::rt::Start;

/// The tasks that a process starts, and the links of the programs that follow them.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) children: Children,
    made: KprobeLink,
    gone: KprobeLink,
}

impl Followed {
    /// Follows a process from now on. Its PID is that in the initial PID namespace.
    ///
    /// # Errors
    ///
    /// A program could not be attached, and it has been reported. Nothing is left attached.
    #[inline(never)]
    pub(crate) fn begin(
        start: &Start,
        args: &Args<'_>,
        kernel: &Kernel,
        out: &mut Output,
        pid: Pid,
    ) -> Result<Self, ()> {
        let begin = || {
            let children = Children::of(pid)?;
            // A task is forgotten whenever it ends.
            let gone = attach(start, kernel, &children, Follow::Gone)?;
            let made = attach(start, kernel, &children, Follow::New)?;
            Ok(Self {
                children,
                made,
                gone,
            })
        };
        begin().map_err(|error| args.report.error(out, None, &error))
    }

    /// Ends it, and says if not every task was followed, or if that is unknown.
    ///
    /// # Errors
    ///
    /// Something was left behind, and it has been reported.
    #[inline(never)]
    pub(crate) fn end(self, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<(), ()> {
        let Self {
            children,
            made,
            gone,
        } = self;
        let missed = kernel.missed(&made).ok().flatten();
        let lost = children.lost().ok();
        let detached = made.detach().and(gone.detach());
        let known = missed.unwrap_or_default() + lost.unwrap_or_default();
        if known > 0 {
            notice(format_args!(
                "--children: {} processes or threads were missed",
                Decimal(known)
            ));
        } else if missed.is_none() || lost.is_none() {
            notice(format_args!(
                "--children: it is unknown whether each process was followed"
            ));
        }
        detached.map_err(|error| args.report.error(out, None, &error))
    }
}

/// Attaches a program that follows.
#[inline(never)]
fn attach(
    start: &Start,
    kernel: &Kernel,
    children: &Children,
    follow: Follow,
) -> Result<KprobeLink, Error> {
    let program = load(start, &|version| children.load(follow, version))?;
    let (name, opts) = follow.probe();
    let target = Target::symbol(name)?;
    // The compiler may have changed the function, and with it the name.
    let attach = |target| kernel.attach_kprobe(program.as_fd(), target, &opts);
    match attach(target) {
        Err(error) if error.cause() == Cause::NoSuchFunction => attach(target.base()),
        attached => attached,
    }
}
