//! Text on its way to standard output and standard error.

use core::fmt::{self, Write};

use kprobe_attach::Errno;
use rustix::event::{PollFd, PollFlags};

use super::format::Shown;
use crate::rt::{Start, standard_fd};

/// One write then holds the lines of eight probes, in JSON too.
const BUFFER_LEN: usize = 1280;

/// Buffers text for a standard file descriptor. It breaks the lines for a terminal at blanks.
#[derive(Debug)]
pub(crate) struct Output {
    fd: u8,
    buffer: [u8; BUFFER_LEN],
    filled: usize,
    failed: bool,
    /// The columns of the terminal, or 0 if lines are not broken.
    width: usize,
    /// The number of columns that the line fills so far.
    column: usize,
    /// The number of blanks at the end of the line so far.
    blanks: usize,
    /// The column at which a broken line continues. There the last text began, at the start of the
    /// line or after two blanks.
    indent: usize,
    /// The place in the buffer, and the column, after the last single blank.
    gap: Option<(usize, usize)>,
}

impl Output {
    /// Makes the buffer of standard output.
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

    /// Breaks lines as for a terminal of 80 columns, if this is no terminal.
    pub(crate) const fn break_lines(&mut self) {
        if self.width == 0 {
            self.width = 80;
        }
    }

    /// Returns whether this is a terminal with a movable cursor, and at least this many rows and
    /// columns.
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
            // Another byte of the same character.
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

    /// Moves the text after the last gap between words to the next line, if there is a gap.
    fn break_line(&mut self) {
        let Some((gap, column)) = self.gap.take() else {
            return;
        };
        // A deep indentation would leave too little room.
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

    /// Writes out the buffered text.
    ///
    /// # Errors
    ///
    /// The output cannot be written: the reader of a pipe is gone, or a disk is full.
    pub(crate) fn flush(&mut self) -> Result<(), fmt::Error> {
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while !rest.is_empty() && !self.failed {
            match rustix::io::write(standard_fd(self.fd), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Somebody made it non-blocking. If waiting fails, the next write reports it.
                    let fd = standard_fd(self.fd);
                    let _ = rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
                }
                // It was closed when this program started: nobody wants the output.
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

/// Prints a message for people on standard error.
pub(crate) fn message(text: fmt::Arguments<'_>) {
    let mut stderr = Output::new(2);
    // If this fails, there is nobody to report it to.
    let _ = writeln!(stderr, "kprobe-attach: {text}").and_then(|()| stderr.flush());
}

/// Prints a message in one line, in which others may have chosen names.
pub(crate) fn message_of_names(text: fmt::Arguments<'_>) {
    message(format_args!("{}", Shown(text)));
}

/// Reports a bug in this program. Only a debug build reports its place, because the places of all
/// panics that the compiler cannot rule out take 2.5 KB. None of them is known to be reached.
pub(crate) fn bug(info: &core::panic::PanicInfo<'_>) {
    if cfg!(debug_assertions) {
        message(format_args!("a bug in this program: {info}"));
    } else {
        message(format_args!(
            "a bug in this program; a debug build says where"
        ));
    }
}
