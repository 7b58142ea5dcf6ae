//! Text on its way to standard output and standard error.

use core::fmt::{self, Write};

use kprobe_attach::Errno;
use rustix::event::{PollFd, PollFlags};

use crate::rt::{Start, standard_fd};

/// One write then has the lines of eight probes, in JSON too.
const BUFFER_LEN: usize = 1280;

/// Text on its way to a standard file descriptor.
#[derive(Debug)]
pub(crate) struct Output {
    fd: u8,
    buffer: [u8; BUFFER_LEN],
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
            buffer: [0; BUFFER_LEN],
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

/// The last words of a program with a mistake in it. Where it is only the debug program says: the
/// places of the panics that the compiler cannot rule out are 2.5 KB, and none of them is known to
/// be reached.
pub(crate) fn bug(info: &core::panic::PanicInfo<'_>) {
    if cfg!(debug_assertions) {
        message(format_args!("a bug in this program: {info}"));
    } else {
        message(format_args!(
            "a bug in this program; a debug build says where"
        ));
    }
}
