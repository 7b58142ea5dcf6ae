//! Text on its way to standard output and standard error.

use core::fmt::{self, Write};

use kprobe_attach::Errno;
use rustix::event::{PollFd, PollFlags};

use super::format::Shown;
use crate::rt::{Start, standard_fd};

/// One write then has the lines of eight probes, in JSON too.
const BUFFER_LEN: usize = 1280;

/// Text on its way to a standard file descriptor. Lines for a terminal are broken at blanks.
#[derive(Debug)]
pub(crate) struct Output {
    fd: u8,
    buffer: [u8; BUFFER_LEN],
    filled: usize,
    failed: bool,
    /// The columns of the terminal; 0 where lines are not broken.
    width: usize,
    /// The column behind what was written.
    column: usize,
    /// The blanks before it.
    blanks: usize,
    /// Where a line that is broken goes on: the column of the text that began last at the begin of
    /// a line, or behind two blanks.
    indent: usize,
    /// The place in the buffer, and the column, behind the last single blank.
    gap: Option<(usize, usize)>,
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(1)
    }

    fn new(fd: u8) -> Self {
        let size = rustix::termios::tcgetwinsize(standard_fd(fd));
        Self {
            fd,
            buffer: [0; BUFFER_LEN],
            filled: 0,
            failed: false,
            width: size.map_or(0, |size| size.ws_col.into()),
            column: 0,
            blanks: 0,
            indent: 0,
            gap: None,
        }
    }

    /// Breaks no line from now on.
    pub(crate) const fn keep_lines(&mut self) {
        self.width = 0;
    }

    /// Breaks lines as for a terminal of 80 columns, unless it is one.
    pub(crate) const fn break_lines(&mut self) {
        if self.width == 0 {
            self.width = 80;
        }
    }

    /// Whether this is a terminal whose cursor can be moved, with so many rows and columns.
    pub(crate) fn fits(&self, start: &Start, rows: usize, columns: usize) -> bool {
        let has_cursor = start.env("TERM").is_some_and(|name| name != c"dumb");
        let size = rustix::termios::tcgetwinsize(standard_fd(self.fd));
        has_cursor
            && size.is_ok_and(|size| {
                usize::from(size.ws_row) >= rows && usize::from(size.ws_col) >= columns
            })
    }

    /// Takes note of a byte that was written, and breaks the line if it is too long.
    fn place(&mut self, byte: u8) {
        match byte {
            b'\n' | b'\r' => (self.column, self.blanks, self.indent, self.gap) = (0, 0, 0, None),
            // A further byte of a character.
            0x80..=0xbf => {}
            b' ' => {
                self.column += 1;
                self.blanks += 1;
                if self.blanks > 1 || self.column == 1 {
                    (self.indent, self.gap) = (self.column, None);
                } else {
                    self.gap = Some((self.filled, self.column));
                }
            }
            _ => {
                self.column += 1;
                self.blanks = 0;
                if self.column > self.width {
                    self.break_line();
                }
            }
        }
    }

    /// Goes on in the next line with what stands behind the last gap between words, if there is
    /// one.
    fn break_line(&mut self) {
        let Some((gap, column)) = self.gap.take() else {
            return;
        };
        // A deep indentation would leave too little.
        if self.indent > self.width / 2 {
            self.indent = 0;
        }
        let filled = self.filled + self.indent;
        if filled > self.buffer.len() {
            return;
        }
        self.buffer.copy_within(gap..self.filled, gap + self.indent);
        let between = self.buffer.get_mut(gap - 1..gap + self.indent);
        if let Some([newline, blanks @ ..]) = between {
            *newline = b'\n';
            blanks.fill(b' ');
        }
        self.filled = filled;
        self.column = self.indent + self.column - column;
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
        self.gap = None;
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
            if self.width != 0 {
                self.place(byte);
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

/// Prints a message in one line, in which others may have chosen names.
pub(crate) fn message_of_names(text: fmt::Arguments<'_>) {
    message(format_args!("{}", Shown(text)));
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
