//! The file `kprobe_events` of tracefs: one line defines an event, and another removes it.

use core::ffi::CStr;
use core::fmt;

use linux_raw_sys::general::TRACEFS_MAGIC;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, OFlags};
use rustix::io::{Errno, Result};
use rustix::time::Timespec;

use super::event::{
    Definition, ErrorLogLine, EventName, EventPath, ID_LEN, IdPath, Removal, WRITTEN_LEN,
    error_log_errno, error_log_line, parse_id, profile_missed, readme_has_maxactive,
};
use crate::diagnose::{attach_error, kprobe_events_cause, remove_cause};
use crate::error::{Cause, Error, Step};
use crate::mount::{FILES, for_each_entry, open_any, open_file, open_read};
use crate::request::AttachMode;
use crate::sys;
use crate::text::{Buf, LINE_LEN, contains, for_each_line};

/// The file, and how it is opened for one line at a time. `O_TRUNC` would delete every event of the
/// system.
const KPROBE_EVENTS: &CStr = c"kprobe_events";
const FOR_LINES: OFlags = OFlags::WRONLY.union(OFlags::APPEND);

/// Opens `kprobe_events` for writing, and checks that nothing is mounted over it.
pub(crate) fn open_kprobe_events(tracefs: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_file(tracefs, KPROBE_EVENTS, FOR_LINES, TRACEFS_MAGIC)
}

/// Returns whether `kprobe_events` takes a maxactive, as the file `README` of tracefs shows.
///
/// A kernel that does not (before Linux 4.12) would take `r64:GROUP/EVENT` for a definition without
/// a name, and give the event a name of its own.
pub(crate) fn takes_maxactive(tracefs: BorrowedFd<'_>) -> Result<bool> {
    let mut takes = false;
    for_each_entry(tracefs, c"README", TRACEFS_MAGIC, &mut |line| {
        takes |= readme_has_maxactive(line);
        !line.is_empty()
    })?;
    Ok(takes)
}

/// Owns an event in `kprobe_events`, and removes it when dropped. Everything that uses the event
/// must be closed before, or the kernel returns `EBUSY`.
#[derive(Debug)]
pub(crate) struct TraceEvent {
    /// It stays open so that the removal cannot fail for lack of a file descriptor. It stays locked
    /// at the event's [`owner_byte`](EventName::owner_byte), so that a sweep sees that the event
    /// has an owner.
    kprobe_events: OwnedFd,
    name: EventName,
    defined: bool,
}

impl TraceEvent {
    /// Defines the event by one write, because the kernel does not take a line in pieces.
    ///
    /// The lock comes first, so that the event has an owner from its first moment on. Until a perf
    /// event is opened on it, the kernel would let anyone remove it.
    // This has its own frame, which an attach without a trace event does not need.
    #[inline(never)]
    pub(crate) fn define(
        tracefs: BorrowedFd<'_>,
        definition: &Definition<'_>,
        mode: AttachMode,
    ) -> core::result::Result<Self, Error> {
        let Definition { name, target, opts } = definition;
        let refused =
            |errno, told| attach_error(Step::CreateEvent, errno, told, mode, target, opts);
        let mut event = Self {
            // The `Kernel` has checked once what it is.
            kprobe_events: open_any(tracefs, KPROBE_EVENTS, FOR_LINES).map_err(|errno| {
                let cause = kprobe_events_cause(errno);
                Error::new(Step::CreateEvent, errno, cause).about(target, opts)
            })?,
            name: *name,
            defined: false,
        };
        sys::lock_byte(event.kprobe_events.as_fd(), event.name.owner_byte())
            .and_then(|()| event.is_new(tracefs))
            .map_err(|errno| refused(errno, errno))?;
        event.defined = true;
        if let Err(errno) = write_line(&event.kprobe_events, &|line| definition.put(line)) {
            event.defined = errno == SHORT_WRITE;
            // Since Linux 6.12, EINVAL has several reasons, and only the log tells them apart.
            let (errno, told) = match error_log(tracefs, name) {
                Ok(Some(told)) => (errno, told),
                Err(shortage) if Cause::out_of(shortage).is_some() => (shortage, shortage),
                _ => (errno, errno),
            };
            return Err(refused(errno, told));
        }
        Ok(event)
    }

    /// Checks that the name is free. Since Linux 5.5 (commit ca89bc071d5e), the kernel adds a
    /// second definition to an event that has the name, and would then remove both.
    fn is_new(&self, tracefs: BorrowedFd<'_>) -> Result<()> {
        let mut path = Buf::new();
        EventPath(&self.name).put(&mut path).map_err(too_long)?;
        // access(2) would check the real user, and ignore the capabilities.
        match rustix::fs::statat(tracefs, path.as_c_str()?, AtFlags::empty()) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Returns the id by which `perf_event_open(2)` finds the event.
    pub(crate) fn id(&self, tracefs: BorrowedFd<'_>) -> Result<u64> {
        let mut path = Buf::new();
        IdPath(&self.name).put(&mut path).map_err(too_long)?;
        // The kernel has just made it.
        let file = open_any(tracefs, path.as_c_str()?, OFlags::RDONLY)?;
        let mut text = [0; ID_LEN];
        let len = rustix::io::read(&file, &mut text)?;
        text.get(..len).and_then(parse_id).ok_or(Errno::IO)
    }

    /// Removes the event, and returns an error if that fails.
    // This has its own frame, which a detach without a trace event does not need.
    #[cold]
    #[inline(never)]
    pub(crate) fn remove(mut self) -> core::result::Result<(), Error> {
        self.defined = false;
        self.write_removal().map_err(|errno| {
            let mut name = Buf::new();
            let fits = self.name.put(&mut name);
            debug_assert!(fits.is_ok());
            Error::new(Step::RemoveEvent, errno, remove_cause(errno)).about_event(name.as_bytes())
        })
    }

    /// Writes the removal. If that fails, tries again after a pause: a child of another thread may
    /// use the event until it calls execve(2), and the kernel may lack memory for a moment.
    fn write_removal(&self) -> Result<()> {
        let mut pauses = 0;
        loop {
            match write_line(&self.kprobe_events, &|line| Removal(&self.name).put(line)) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(errno) if pauses == REMOVAL_PAUSES => return Err(errno),
                Err(_) => pauses += 1,
            }
            // A signal can cut the pause short, which does no harm.
            let _ = rustix::thread::nanosleep(&REMOVAL_PAUSE);
        }
    }

    /// Returns how many hits the event's probe missed, from `kprobe_profile`.
    pub(crate) fn missed(&self, tracefs: BorrowedFd<'_>) -> Result<Option<u64>> {
        let profile = open_read(tracefs, c"kprobe_profile", TRACEFS_MAGIC)?;
        let event = self.name.event();
        let mut missed = None;
        for_each_line::<LINE_LEN>(&profile, &mut |line| {
            missed = missed.or_else(|| profile_missed(line, event.as_str()));
        })?;
        Ok(missed)
    }
}

impl Drop for TraceEvent {
    fn drop(&mut self) {
        if FILES && self.defined {
            // A caller who needs the error calls `KprobeLink::detach`.
            let _ = self.write_removal();
        }
    }
}

/// Removes an event that `kprobe_events` lists.
pub(crate) fn remove_listed(kprobe_events: &OwnedFd, group: &str, event: &str) -> Result<()> {
    write_line(kprobe_events, &|line| {
        line.push_all(b"-:")?;
        line.push_all(group.as_bytes())?;
        line.push(b'/')?;
        line.push_all(event.as_bytes())
    })
}

/// Writes a text into a buffer.
type Put<'a> = &'a dyn Fn(&mut Buf<WRITTEN_LEN>) -> fmt::Result;

/// Returns the errno of a text that does not fit.
const fn too_long(_: fmt::Error) -> Errno {
    Errno::NAMETOOLONG
}

/// Writes one line.
fn write_line(kprobe_events: &OwnedFd, put: Put<'_>) -> Result<()> {
    let mut line = Buf::new();
    put(&mut line).map_err(too_long)?;
    let line = line.as_bytes();
    match rustix::io::write(kprobe_events, line)? {
        written if written == line.len() => Ok(()),
        _ => Err(SHORT_WRITE),
    }
}

/// How often a removal is tried again, and the pause before each try.
const REMOVAL_PAUSES: usize = 10;
const REMOVAL_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// The errno of a line that the kernel took only in part, which it never does.
const SHORT_WRITE: Errno = Errno::IO;

/// Finds the reason in `error_log` for which the kernel refused this definition (Linux 5.2, commit
/// 8a062902be72).
fn error_log(tracefs: BorrowedFd<'_>, name: &EventName) -> Result<Option<Errno>> {
    let file = open_read(tracefs, c"error_log", TRACEFS_MAGIC)?;
    let event = Buf::<128>::of(name)?;
    let mut above = None;
    let mut found = None;
    for_each_line::<LINE_LEN>(&file, &mut |line| match error_log_line(line) {
        Some(ErrorLogLine::Error(text)) => above = error_log_errno(text),
        Some(ErrorLogLine::Command(command)) if contains(command, event.as_bytes()) => {
            found = above;
        }
        _ => {}
    })?;
    Ok(found)
}
