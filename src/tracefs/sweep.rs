//! Sweeping: removing the events that dead processes left in tracefs.
//!
//! When a process dies, the kernel closes its perf events and detaches its programs. It does not
//! remove a definition from `kprobe_events`, which stays there, disarmed.

use linux_raw_sys::general::TRACEFS_MAGIC;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::event::EventLine;
use super::kprobe_events::{open_kprobe_events, remove_listed};
use crate::diagnose::{kprobe_events_cause, remove_cause};
use crate::error::{Cause, Error, Step};
use crate::mount::{Mount, open_read};
use crate::sys::{is_byte_locked, lock_byte, unlock_byte};
use crate::text::{LINE_LEN, for_each_line};

/// Counts the events of this crate that a sweep has seen.
///
/// An event with several probes counts once for each. This crate does not make such events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// The events that had no owner and no user, and are now removed. For a [dry
    /// run](sweep_dry_run), the events that a sweep would remove.
    pub removed: usize,
    /// The events that have an owner, or that something else uses.
    pub in_use: usize,
}

/// Removes the trace events that processes of this crate defined, and could not remove because they
/// were killed.
///
/// It calls `each` with every event that it has removed. It looks only at the events in this
/// crate's groups ([`EventLine::is_ours`]).
///
/// An event that has an owner is never removed, whatever else happens at the same time. Before a
/// process defines an event, it locks a byte of `kprobe_events` that stands for this event. It
/// keeps the lock until the event is removed. The lock belongs to the open file (`F_OFD_SETLK` of
/// [`fcntl(2)`]). The kernel drops it when the process dies, and shows it to every process, in
/// whatever namespaces. No process id is involved. A sweep holds the same lock while it removes the
/// event.
///
/// An event without an owner can still be in use, by tracefs's `enable`, by perf, or by a perf
/// event that was passed on. The kernel refuses to remove it, with `EBUSY`, and it counts as in
/// use.
///
/// This function [looks for a tracefs](crate::Mount::find_tracefs) that is mounted, which can wake
/// an automount. [`Kernel::sweep`](crate::Kernel::sweep) uses the tracefs of a `Kernel`.
///
/// A sweep and an attach never wait for each other, and several sweeps can run at once. An event
/// that one sweep is removing is in use to another. A sweep can miss an event while others are
/// defined or removed; the next sweep sees it.
///
/// A sweep ends even if others keep defining events: it looks at as many events as there were when
/// it began.
///
/// Whoever may read `kprobe_events` can hold a shared lock on it (`F_RDLCK`), which keeps owners
/// from locking. No owner holds a shared lock, so it protects no event. While another process holds
/// one, a sweep can remove an event between its definition and its opening. That attach then fails
/// with [`Step::PerfEventOpen`].
///
/// # Errors
///
/// Returns an error with the step [`Step::RemoveEvent`] in one of these cases:
///
/// * No tracefs is mounted.
/// * This process may not write its `kprobe_events`.
/// * A removal failed. It is the error of the first one; the sweep goes on with the others.
///
/// # Minimum kernel
///
/// Linux 4.1, as for the tracefs modes. The other modes leave nothing behind.
///
/// [`fcntl(2)`]: https://man7.org/linux/man-pages/man2/fcntl.2.html
///
/// ```no_run
/// use kprobe_attach::tracefs::sweep;
///
/// let swept = sweep(|event| println!("removed {}/{}", event.group, event.event))?;
/// println!("{} removed, {} in use", swept.removed, swept.in_use);
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
pub fn sweep(mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
    let tracefs = find_tracefs()?;
    sweep_in(tracefs.as_fd(), false, &mut removed_only(&mut each))
}

/// Sweeps this tracefs. In a dry run, it removes nothing.
///
/// It calls `each` with every event, and with whether the event is removed, or would be. Otherwise
/// the event is in use.
pub(crate) fn sweep_in(
    tracefs: BorrowedFd<'_>,
    dry_run: bool,
    each: &mut dyn FnMut(&EventLine<'_>, bool),
) -> Result<Swept, Error> {
    let refused = |errno| failed(errno, kprobe_events_cause(errno));
    let kprobe_events = if dry_run {
        None
    } else {
        Some(open_kprobe_events(tracefs).map_err(refused)?)
    };
    // Others may define events faster than this removes them. So the first pass only counts, and
    // the next ones look at no more events than there were.
    let mut limit = None;
    let mut swept = Swept::default();
    let mut is_last = false;
    loop {
        let before = swept.removed;
        let mut seen = 0;
        let mut failure = None;
        swept.in_use = 0;
        for_each_of_ours(tracefs, &mut |event, file| {
            seen += 1;
            if seen > limit.unwrap_or_default() {
                return;
            }
            let removable = match &kprobe_events {
                Some(kprobe_events) => remove_ownerless(kprobe_events, event),
                None => check_ownerless(file, event),
            };
            match removable {
                Ok(()) => {
                    swept.removed += 1;
                    each(event, true);
                }
                // It has an owner, or something uses it.
                Err(Errno::AGAIN | Errno::BUSY) => {
                    swept.in_use += 1;
                    if is_last {
                        each(event, false);
                    }
                }
                // Another process has just removed it.
                Err(Errno::NOENT) => {}
                Err(errno) => failure = failure.or(Some(errno)),
            }
        })?;
        if is_last {
            return match failure {
                Some(errno) => Err(failed(errno, remove_cause(errno))),
                None => Ok(swept),
            };
        }
        // After a removal, the rest of the file moves up, and some of it is skipped. Therefore the
        // file is read again. The last pass lists what is in use.
        let removed = swept.removed - before;
        is_last = dry_run || (limit.is_some() && removed == 0);
        limit = Some(limit.map_or(seen, |limit| limit - removed));
    }
}

/// Makes a function that is called with every event of one that is called with the removed ones.
pub(crate) fn removed_only(
    each: &mut impl FnMut(&EventLine<'_>),
) -> impl FnMut(&EventLine<'_>, bool) {
    |event, removed| {
        if removed {
            each(event);
        }
    }
}

/// Checks that an event has no owner. Returns `EAGAIN` if it has one.
fn check_ownerless(file: BorrowedFd<'_>, event: &EventLine<'_>) -> rustix::io::Result<()> {
    match event.owner_byte() {
        Some(byte) if is_byte_locked(file, byte)? => Err(Errno::AGAIN),
        _ => Ok(()),
    }
}

/// Becomes the owner of an event, and removes it. Returns `EAGAIN` if it has another owner.
fn remove_ownerless(kprobe_events: &OwnedFd, event: &EventLine<'_>) -> rustix::io::Result<()> {
    // A name in this crate's groups that this crate does not give has no owner.
    let byte = event.owner_byte();
    if let Some(byte) = byte {
        lock_byte(kprobe_events.as_fd(), byte)?;
    }
    let removed = remove_listed(kprobe_events, event.group, event.event);
    if let Some(byte) = byte {
        // If this fails, closing the file drops the lock.
        let _ = unlock_byte(kprobe_events.as_fd(), byte);
    }
    removed
}

/// Calls `each` with every event that [`sweep`] would try to remove, and removes none.
///
/// It only has to read `kprobe_events`. It does not see whether something other than an owner uses
/// an event.
///
/// # Errors
///
/// Returns an error with the step [`Step::RemoveEvent`] if no tracefs is mounted, or if this
/// process may not read its `kprobe_events`.
pub fn sweep_dry_run(mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
    let tracefs = find_tracefs()?;
    sweep_in(tracefs.as_fd(), true, &mut removed_only(&mut each))
}

fn find_tracefs() -> Result<Mount, Error> {
    Mount::find_tracefs().map_err(no_tracefs)
}

/// Makes the error of a sweep without tracefs.
pub(crate) fn no_tracefs(errno: Errno) -> Error {
    failed(errno, Cause::out_of(errno).unwrap_or(Cause::NoTracefs))
}

/// Calls `each` with every event in this crate's groups, and with the file that lists it.
fn for_each_of_ours(
    tracefs: BorrowedFd<'_>,
    each: &mut dyn FnMut(&EventLine<'_>, BorrowedFd<'_>),
) -> Result<(), Error> {
    let file = open_read(tracefs, c"kprobe_events", TRACEFS_MAGIC)
        .map_err(|errno| failed(errno, kprobe_events_cause(errno)))?;
    for_each_line::<LINE_LEN>(&file, &mut |line| {
        if let Some(event) = EventLine::parse(line).filter(EventLine::is_ours) {
            each(&event, file.as_fd());
        }
    })
    .map_err(|errno| failed(errno, Cause::out_of(errno).unwrap_or(Cause::Unknown)))
}

fn failed(errno: Errno, cause: Cause) -> Error {
    Error::new(Step::RemoveEvent, errno, cause)
}
