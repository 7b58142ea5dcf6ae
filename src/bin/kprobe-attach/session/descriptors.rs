//! File descriptors, of which every probe takes some: they are what limits how many there can be.

use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::fd::AsRawFd;
use kprobe_attach::{AttachMode, Errno};
use rustix::process::{Resource, Rlimit};

use crate::cli::Args;
use crate::out::{Decimal, Lossy, Output};
use crate::rt::standard_fd;

/// How many descriptors a link holds.
pub(super) const fn of_link(mode: AttachMode) -> u64 {
    if mode.uses_tracefs() { 2 } else { 1 }
}

/// How many more are open for a moment, while a probe is attached.
const PASSING: u64 = 2;

/// Refuses what needs more descriptors than this process may have, for which its limit is raised as
/// far as it may be.
///
/// # Errors
///
/// There are too few, and that has been reported.
pub(super) fn check_descriptors(args: &Args<'_>, out: &mut Output, needed: u64) -> Result<(), ()> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let limit = maximum.unwrap_or(u64::MAX);
    let total = needed + PASSING + open();
    if total > limit {
        let (name, probes) = (ErrnoName(Errno::MFILE), Decimal(args.probe_count as u64));
        let (needed, limit) = (Decimal(needed), Decimal(limit));
        let first = args.probes().next();
        args.report.other(
            out,
            first.filter(|_| args.probe_count == 1),
            (Step::Request, Errno::MFILE, Cause::OutOfFds),
            format_args!(
                "{}: {name}: {probes} probes take {needed} file descriptors of {limit} \
                 (RLIMIT_NOFILE)",
                Lossy(first.unwrap_or_default())
            ),
        );
        return Err(());
    }
    if total > current.unwrap_or(u64::MAX) {
        // It may always be raised so far.
        let current = maximum;
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    Ok(())
}

/// How many descriptors are open, as far as the lowest free one tells.
fn open() -> u64 {
    let lowest_free = rustix::io::dup(standard_fd(0));
    lowest_free.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()))
}
