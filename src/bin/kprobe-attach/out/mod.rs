//! Results to standard output, messages for people to standard error, and JSON's strings.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::{Cause, Errno, ErrnoName, Error, ParseError, Step};
use rustix::event::{PollFd, PollFlags};

use crate::cli::Args;
use crate::rt::{Start, standard_fd};

/// Text on its way to a standard file descriptor.
#[derive(Debug)]
pub(crate) struct Output {
    fd: u8,
    buffer: [u8; 4096],
    filled: usize,
    failed: bool,
    live: bool,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout(start: &Start) -> Self {
        let terminal = start.env("TERM").filter(|name| *name != c"dumb");
        Self {
            live: terminal.is_some() && rustix::termios::isatty(standard_fd(1)),
            ..Self::new(1)
        }
    }

    const fn new(fd: u8) -> Self {
        Self {
            fd,
            buffer: [0; 4096],
            filled: 0,
            failed: false,
            live: false,
        }
    }

    /// Whether somebody looks on, at a terminal whose cursor can be moved.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Leaves the cursor alone from now on, unless `live`.
    pub(crate) const fn stay_live(&mut self, live: bool) {
        self.live = self.live && live;
    }

    /// Whether the terminal has so many rows and columns.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> bool {
        rustix::termios::tcgetwinsize(standard_fd(self.fd)).is_ok_and(|size| {
            usize::from(size.ws_row) >= rows && usize::from(size.ws_col) >= columns
        })
    }

    /// Writes out what has come together.
    ///
    /// # Errors
    ///
    /// Nobody takes it any more: a pipe's reader is gone, or a disk is full.
    pub(crate) fn flush(&mut self) -> Result<(), fmt::Error> {
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while !rest.is_empty() && !self.failed {
            match rustix::io::write(standard_fd(self.fd), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Somebody made it non-blocking; if waiting fails the next write says so.
                    let fd = standard_fd(self.fd);
                    let _ = rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
                }
                // It was closed when this program was started: nobody wants the output.
                Err(Errno::BADF) => break,
                Err(_) => self.failed = true,
            }
        }
        self.filled = 0;
        if self.failed { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            if let Some(free) = self.buffer.get_mut(self.filled) {
                *free = byte;
                self.filled += 1;
            }
        }
        Ok(())
    }
}

/// A message for people, on standard error.
pub(crate) fn message(text: fmt::Arguments<'_>) {
    let mut stderr = Output::new(2);
    // If nobody takes it there is nobody to tell.
    let _ = writeln!(stderr, "kprobe-attach: {text}").and_then(|()| stderr.flush());
}

/// The last words of a program with a mistake in it. Where it is only the debug program says: the places of the panics that the
/// compiler cannot rule out are 2.5 KB, and none of them is known to be reached.
pub(crate) fn bug(info: &core::panic::PanicInfo<'_>) {
    if cfg!(debug_assertions) {
        message(format_args!("a bug in this program: {info}"));
    } else {
        message(format_args!(
            "a bug in this program; a debug build says where"
        ));
    }
}

/// An argument, its bytes that are not printable ASCII shown as `?`.
pub(crate) struct Shown<'a>(pub(crate) &'a CStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.to_bytes() {
            f.write_char(if matches!(byte, b' '..=b'~') {
                char::from(*byte)
            } else {
                '?'
            })?;
        }
        Ok(())
    }
}

/// A text as a string of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        json(&self.0, f)
    }
}

fn json(text: &dyn fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    write!(Escape(f), "{text}")?;
    f.write_str("\"")
}

struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut done = 0;
        for (at, byte) in text.bytes().enumerate() {
            if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                continue;
            }
            self.0.write_str(text.get(done..at).unwrap_or_default())?;
            done = if byte < 0x20 {
                write!(self.0, "\\u{:04x}", u64::from(byte))?;
                at + 1
            } else {
                self.0.write_str("\\")?;
                at
            };
        }
        self.0.write_str(text.get(done..).unwrap_or_default())
    }
}

/// The bytes of an argument as text, U+FFFD in the place of what is no UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Lossy<'a>(pub(crate) &'a CStr);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.to_bytes();
        loop {
            let error = match core::str::from_utf8(rest) {
                Ok(text) => return f.write_str(text),
                Err(error) => error,
            };
            let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
            f.write_str(core::str::from_utf8(valid).unwrap_or_default())?;
            f.write_str("\u{fffd}")?;
            let Some(len) = error.error_len() else {
                return Ok(());
            };
            rest = rest.get(valid.len() + len..).unwrap_or_default();
        }
    }
}

/// As many blanks.
pub(crate) struct Blanks(pub(crate) usize);

impl fmt::Display for Blanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|_| f.write_char(' '))
    }
}

/// A number, or null.
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// Reports why a probe failed, or what is about no probe: a line of JSON, or a message.
pub(crate) fn report(out: &mut Output, probe: Option<&CStr>, args: &Args<'_>, error: &Error) {
    if args.json {
        return report_json(out, probe, kind(error), error);
    }
    message(format_args!("{error}"));
    if let Some(probe) = probe.filter(|_| cfg!(feature = "explain") && has_more_to_explain(error)) {
        let options = args.shared_options();
        let probe = Shown(probe);
        message(format_args!("try: kprobe-attach explain{options} {probe}"));
    }
}

/// Reports what is wrong with a pin: a line of JSON, or a message.
pub(crate) fn report_pin(
    out: &mut Output,
    probe: Option<&CStr>,
    args: &Args<'_>,
    path: &CStr,
    error: &Error,
) {
    let path = Lossy(path);
    if args.json {
        report_json(out, probe, kind(error), &format_args!("{path}: {error}"));
    } else {
        message(format_args!("{path}: {error}"));
    }
}

/// Reports why no pins can be read in a directory: a line of JSON, or a message.
pub(crate) fn report_unread(out: &mut Output, args: &Args<'_>, dir: &CStr, errno: Errno) {
    let (dir, name) = (Lossy(dir), ErrnoName(errno));
    let why = match errno {
        Errno::INVAL => "this is in no bpf file system",
        _ => "there are no pins to be read",
    };
    if args.json {
        let kind = (Step::OpenProgram, errno, Cause::Unknown);
        report_json(out, None, kind, &format_args!("{dir}: {name}: {why}"));
    } else {
        message(format_args!("{dir}: {name}: {why}"));
    }
}

/// Whether `explain` may find out more than the error says: of a place, and of who denies.
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

/// Reports a text that is no probe: a line of JSON, or a message that shows where.
pub(crate) fn report_text(out: &mut Output, probe: &CStr, json: bool, error: ParseError) {
    if json {
        let allowed = error.invalid.allowed();
        report_json(
            out,
            Some(probe),
            kind(&error.into()),
            &format_args!("{error}; allowed: {allowed}"),
        );
    } else {
        message(format_args!(
            "not a probe:\n{}",
            error.in_text(probe.to_bytes())
        ));
    }
}

/// What a script tells an error by.
const fn kind(error: &Error) -> (Step, Errno, Cause) {
    (error.step(), error.errno(), error.cause())
}

fn report_json(
    out: &mut Output,
    probe: Option<&CStr>,
    (step, errno, cause): (Step, Errno, Cause),
    message: &dyn fmt::Display,
) {
    let line = writeln!(
        out,
        r#"{{"probe":{},"error":{{"step":"{step}","errno":"{}","cause":"{cause}","message":{}}}}}"#,
        OrNull(probe.map(|probe| Json(Lossy(probe)))),
        ErrnoName(errno),
        Json(message),
    );
    // Without a reader of the output the exit status still tells.
    let _ = line.and_then(|()| out.flush());
}
