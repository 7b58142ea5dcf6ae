//! File descriptors: every probe takes some, and they limit the number of probes.

use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::fd::AsRawFd;
use kprobe_attach::{AttachMode, Errno};
use rustix::process::{Resource, Rlimit};

use crate::cli::Args;
use crate::out::{Decimal, Lossy, Output};
use crate::rt::standard_fd;

/// Returns the number of file descriptors that a link holds.
pub(super) const fn of_link(mode: AttachMode) -> u64 {
    if mode.uses_tracefs() { 2 } else { 1 }
}

/// The number of further file descriptors that are open for a moment while a probe is attached.
const PASSING: u64 = 2;

/// Checks that this process may have so many file descriptors. Raises its limit as far as that is
/// allowed.
///
/// # Errors
///
/// The limit is too low, and it has been reported.
pub(super) fn check_descriptors(
    args: &Args<'_>,
    out: &mut Output,
    probes: usize,
    needed: u64,
) -> Result<(), ()> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let limit = maximum.unwrap_or(u64::MAX);
    let others = PASSING + open();
    let total = needed + others;
    if total > limit {
        let (name, probes) = (ErrnoName(Errno::MFILE), probes as u64);
        let left = limit.saturating_sub(others);
        let fit = Decimal(left.saturating_mul(probes) / needed.max(1));
        let (probes, needed, left) = (Decimal(probes), Decimal(needed), Decimal(left));
        let first = args.probes().next();
        args.report.other(
            out,
            first.filter(|_| args.probe_count == 1),
            (Step::Request, Errno::MFILE, Cause::OutOfFds),
            format_args!(
                "{}: {name}: {probes} probes take {needed} file descriptors; {left} are left, for \
                 {fit} of them (RLIMIT_NOFILE)",
                Lossy(first.unwrap_or_default())
            ),
        );
        return Err(());
    }
    if total > current.unwrap_or(u64::MAX) {
        // A process may always raise the limit to its maximum.
        let current = maximum;
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    Ok(())
}

/// Returns the number of open file descriptors, as the lowest free number shows it.
fn open() -> u64 {
    let lowest_free = rustix::io::dup(standard_fd(0));
    lowest_free.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()))
}
