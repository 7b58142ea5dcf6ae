//! The file `kprobe_events` of tracefs: events are defined in it by a line, and removed by another.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::time::Timespec;

use crate::error::{Cause, Error, Step, out_of, place_cause};
use crate::event::{
    DEFINITION_LEN, Definition, ErrorLogLine, EventName, ID_LEN, IdPath, Removal, error_log_errno,
    error_log_line, parse_id, profile_missed,
};
use crate::text::{Buf, LINE_LEN, contains, for_each_line};
use crate::tracefs::open_read;

/// Opens `kprobe_events` for one line at a time. Never with `O_TRUNC`: that deletes every event of the machine.
const KPROBE_EVENTS_FLAGS: OFlags = OFlags::WRONLY.union(OFlags::APPEND).union(OFlags::CLOEXEC);

pub(crate) fn open_kprobe_events(tracefs: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::fs::openat(tracefs, "kprobe_events", KPROBE_EVENTS_FLAGS, Mode::empty())
}

/// An event in `kprobe_events`, removed when dropped. What uses it must be closed before, or the kernel says `EBUSY`.
#[derive(Debug)]
pub(crate) struct TraceEvent {
    /// Kept open: to remove an event must not fail for want of a file descriptor.
    kprobe_events: OwnedFd,
    name: EventName,
    defined: bool,
}

impl TraceEvent {
    /// Defines the event by one write: the kernel cannot take a line in pieces.
    pub(crate) fn define(
        tracefs: BorrowedFd<'_>,
        definition: &Definition,
    ) -> core::result::Result<Self, Error> {
        let failed = |errno, cause| {
            Error::new(Step::CreateEvent, errno, cause).of(definition.target, &definition.opts)
        };
        let mut event = Self {
            kprobe_events: open_kprobe_events(tracefs)
                .map_err(|errno| failed(errno, open_cause(errno)))?,
            name: definition.name,
            defined: false,
        };
        let line = Buf::<DEFINITION_LEN>::of(definition)
            .map_err(|_| failed(Errno::NAMETOOLONG, Cause::InvalidRequest))?;
        event.defined = true;
        if let Err(errno) = event.write(line.as_bytes()) {
            event.defined = errno == SHORT_WRITE;
            let told = error_log(tracefs, definition).unwrap_or(errno);
            return Err(failed(errno, define_cause(told, definition)));
        }
        Ok(event)
    }

    /// The id by which `perf_event_open(2)` knows the event.
    pub(crate) fn id(&self, tracefs: BorrowedFd<'_>) -> Result<u64> {
        let path = Buf::<128>::of(IdPath(&self.name)).map_err(|_| Errno::NAMETOOLONG)?;
        let file = open_read(tracefs, path.as_str())?;
        let mut text = [0; ID_LEN];
        let len = rustix::io::read(&file, &mut text)?;
        text.get(..len).and_then(parse_id).ok_or(Errno::IO)
    }

    /// Removes the event.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.defined = false;
        self.write_removal()
    }

    /// Writes the removal, again after a pause for as long as something uses the event: a child that another thread has
    /// forked holds it until it becomes another program.
    fn write_removal(&self) -> Result<()> {
        let line = Buf::<128>::of(Removal(&self.name)).map_err(|_| Errno::NAMETOOLONG)?;
        for _ in 0..REMOVAL_PAUSES {
            match self.write(line.as_bytes()) {
                Err(Errno::BUSY) => {}
                written => return written,
            }
            // A pause cut short by a signal is one all the same.
            let _ = rustix::thread::nanosleep(&REMOVAL_PAUSE);
        }
        self.write(line.as_bytes())
    }

    fn write(&self, line: &[u8]) -> Result<()> {
        match rustix::io::write(&self.kprobe_events, line)? {
            written if written == line.len() => Ok(()),
            _ => Err(SHORT_WRITE),
        }
    }

    /// How often the event's probe was missed, from `kprobe_profile`.
    pub(crate) fn missed(&self, tracefs: BorrowedFd<'_>) -> Result<Option<u64>> {
        let profile = open_read(tracefs, "kprobe_profile")?;
        let mut missed = None;
        for_each_line::<LINE_LEN>(&profile, &mut |line| {
            missed = missed.or_else(|| profile_missed(line, self.name.event()));
        })?;
        Ok(missed)
    }
}

impl Drop for TraceEvent {
    fn drop(&mut self) {
        if self.defined {
            // Who wants to know calls `KprobeLink::detach`.
            let _ = self.write_removal();
        }
    }
}

/// How often, and after how long, a removal is tried again.
const REMOVAL_PAUSES: usize = 10;
const REMOVAL_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// The kernel took a part of a line, which it never does.
const SHORT_WRITE: Errno = Errno::IO;

/// What it means that `kprobe_events` cannot be opened.
pub(crate) const fn open_cause(errno: Errno) -> Cause {
    match errno {
        Errno::PERM => Cause::Lockdown,
        errno => match out_of(errno) {
            Some(cause) => cause,
            None => Cause::NoKprobeEvents,
        },
    }
}

/// What it means that a definition is refused, as far as the errno tells. Since Linux 6.12 it is EINVAL for more than one
/// reason, and only `error_log` knows.
fn define_cause(errno: Errno, definition: &Definition) -> Cause {
    match errno {
        Errno::EXIST => Cause::EventExists,
        Errno::BUSY => Cause::EventBusy,
        Errno::PERM => Cause::Lockdown,
        errno => place_cause(errno, &definition.target, &definition.opts).unwrap_or(Cause::Unknown),
    }
}

/// Why the kernel refused this very definition, from `error_log` (Linux 5.2, commit 8a062902be72).
fn error_log(tracefs: BorrowedFd<'_>, definition: &Definition) -> Option<Errno> {
    let file = open_read(tracefs, "error_log").ok()?;
    let event = Buf::<128>::of(definition.name).ok()?;
    let mut above = None;
    let mut found = None;
    for_each_line::<LINE_LEN>(&file, &mut |line| match error_log_line(line) {
        Some(ErrorLogLine::Error(text)) => above = error_log_errno(text),
        Some(ErrorLogLine::Command(command)) if contains(command, event.as_bytes()) => {
            found = above;
        }
        _ => {}
    })
    .ok()?;
    found
}
