//! Removing the events that dead processes left in tracefs.
//!
//! The kernel takes back what a dead process had open, the perf event and the program with it, but
//! not a definition in `kprobe_events`: that stays, disarmed, until somebody removes it.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::event::EventLine;
use super::kprobe_events::{open_kprobe_events, remove_listed};
use crate::diagnose::{kprobe_events_cause, out_of, remove_cause};
use crate::error::{Cause, Error, Step};
use crate::mount::{Mount, open_read};
use crate::sys::{is_byte_locked, lock_byte, unlock_byte};
use crate::text::{LINE_LEN, for_each_line};

/// How many events of this crate's a sweep has met; one with several probes, which this crate does
/// not make, more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Those that nobody owned or used, and that are removed now; of a [dry run](sweep_dry_run),
    /// those that would be.
    pub removed: usize,
    /// Those that have an owner, or that something else uses.
    pub in_use: usize,
}

/// Removes the trace events that processes of this crate's have defined and not removed, because
/// they were killed; calls `each` with every event that it has removed.
///
/// Only events in a group of this crate's are looked at ([`EventLine::is_ours`]), and of those none
/// that has an owner is removed, whatever else happens at the same time. Before a process defines
/// an event, it locks a byte of `kprobe_events` that stands for the event, and it keeps the lock
/// until the event is removed. The lock belongs to the open file (`F_OFD_SETLK` of `fcntl(2)`): the
/// kernel drops it when the process dies, and shows it to every process, whatever namespaces the
/// two are in. No process id is asked for. A sweep takes that lock itself for as long as it removes
/// the event.
///
/// An event that nobody owns, but something uses (`enable` of tracefs, perf, a perf event that was
/// passed on), the kernel refuses to remove, with `EBUSY`; it counts as in use.
///
/// It [looks for a tracefs](crate::Mount::find_tracefs) that is mounted, which may wake an
/// automount; [`Kernel::sweep`](crate::Kernel::sweep) uses that of a `Kernel`.
///
/// Sweeping and attaching do not wait for each other. Several may sweep at once: what one is about
/// to remove is in use to another. What is defined or removed by others meanwhile may be passed
/// over; the next sweep sees it.
///
/// # Errors
///
/// [`Step::RemoveEvent`]: no tracefs is mounted, or its `kprobe_events` may not be written; or the
/// first removal that failed, after all the others have been tried.
///
/// # Minimum kernel
///
/// Linux 4.1, as for the tracefs modes. Not needed by the others, which leave nothing.
///
/// ```no_run
/// let swept = kprobe_attach::tracefs::sweep(|event| println!("removed {}/{}", event.group, event.event))?;
/// println!("{} removed, {} in use", swept.removed, swept.in_use);
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
pub fn sweep(mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
    sweep_in(find_tracefs()?.as_fd(), false, &mut each)
}

/// Sweeps this tracefs, or, if it is a dry run, only says what would be removed.
pub(crate) fn sweep_in(
    tracefs: BorrowedFd<'_>,
    dry_run: bool,
    each: &mut dyn FnMut(&EventLine<'_>),
) -> Result<Swept, Error> {
    let refused = |errno| failed(errno, kprobe_events_cause(errno));
    let kprobe_events = if dry_run {
        None
    } else {
        Some(open_kprobe_events(tracefs).map_err(refused)?)
    };
    let mut removed = 0;
    loop {
        let before = removed;
        let mut in_use = 0;
        let mut failure = None;
        for_each_of_ours(tracefs, &mut |event, file| {
            let removable = match &kprobe_events {
                Some(kprobe_events) => remove_ownerless(kprobe_events, event),
                None => check_ownerless(file, event),
            };
            match removable {
                Ok(()) => {
                    removed += 1;
                    each(event);
                }
                // It has an owner, or something uses it.
                Err(Errno::AGAIN | Errno::BUSY) => in_use += 1,
                // Somebody else has removed it just now.
                Err(Errno::NOENT) => {}
                Err(errno) => failure = failure.or(Some(errno)),
            }
        })?;
        // What is read after a removal has moved up, so that some of it is passed over: once more,
        // then.
        if removed == before || dry_run {
            return match failure {
                Some(errno) => Err(failed(errno, remove_cause(errno))),
                None => Ok(Swept { removed, in_use }),
            };
        }
    }
}

/// Checks that an event has no owner: `EAGAIN` if it has one.
fn check_ownerless(file: BorrowedFd<'_>, event: &EventLine<'_>) -> rustix::io::Result<()> {
    match event.owner_byte() {
        Some(byte) if is_byte_locked(file, byte)? => Err(Errno::AGAIN),
        _ => Ok(()),
    }
}

/// Removes an event as its owner, which it becomes for the time: `EAGAIN` if it has one.
fn remove_ownerless(kprobe_events: &OwnedFd, event: &EventLine<'_>) -> rustix::io::Result<()> {
    // A name in our group that we did not give has no owner.
    let byte = event.owner_byte();
    if let Some(byte) = byte {
        lock_byte(kprobe_events.as_fd(), byte)?;
    }
    let removed = remove_listed(kprobe_events, event.group, event.event);
    if let Some(byte) = byte {
        // Else it is given up with the file.
        let _ = unlock_byte(kprobe_events.as_fd(), byte);
    }
    removed
}

/// Calls `each` with every event that [`sweep`] would try to remove, and removes none. It needs no
/// more than to read `kprobe_events`, and does not see whether something else than an owner uses an
/// event.
///
/// # Errors
///
/// [`Step::RemoveEvent`]: there is no tracefs, or its `kprobe_events` may not be read.
pub fn sweep_dry_run(mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
    sweep_in(find_tracefs()?.as_fd(), true, &mut each)
}

fn find_tracefs() -> Result<Mount, Error> {
    Mount::find_tracefs().map_err(no_tracefs)
}

/// Makes the error of a sweep without tracefs.
pub(crate) fn no_tracefs(errno: Errno) -> Error {
    failed(errno, out_of(errno).unwrap_or(Cause::NoTracefs))
}

/// Calls `each` with every event in this crate's groups, and the file that lists it.
fn for_each_of_ours(
    tracefs: BorrowedFd<'_>,
    each: &mut dyn FnMut(&EventLine<'_>, BorrowedFd<'_>),
) -> Result<(), Error> {
    let file = open_read(tracefs, c"kprobe_events")
        .map_err(|errno| failed(errno, kprobe_events_cause(errno)))?;
    for_each_line::<LINE_LEN>(&file, &mut |line| {
        if let Some(event) = EventLine::parse(line).filter(EventLine::is_ours) {
            each(&event, file.as_fd());
        }
    })
    .map_err(|errno| failed(errno, out_of(errno).unwrap_or(Cause::Unknown)))
}

fn failed(errno: Errno, cause: Cause) -> Error {
    Error::new(Step::RemoveEvent, errno, cause)
}
