//! Text on its way to standard output and standard error.

use core::fmt::{self, Write};

use kprobe_attach::Errno;
use kprobe_attach::error::ErrnoName;
use rustix::event::{PollFd, PollFlags};

use super::format::Shown;
use crate::rt::{
    Ends, NEVER, Start, TICK, forget_broken_pipe, now, pending_end, standard_fd, ticking,
};

/// One write then holds the lines of eight probes, in JSON too.
const BUFFER_LEN: usize = 1536;

/// The nanoseconds for which the program waits at its end if nobody reads: of results, and of a
/// message. It ends within a second even if results and two messages are dropped.
const PATIENCE: [u64; 2] = [400_000_000, 150_000_000];

/// The bytes that a pipe can hold when the program ends: as many as the kernel lets any user ask
/// for by default.
const PIPE_LEN: usize = 1 << 20;

/// Buffers text for a standard file descriptor. It breaks the lines for a terminal at blanks.
#[derive(Debug)]
pub(crate) struct Output {
    fd: u8,
    buffer: [u8; BUFFER_LEN],
    filled: usize,
    /// What ends the program.
    pub(crate) ends: Ends,
    /// The time up to which a reader is waited for, once the end has come.
    deadline: u64,
    /// The reason why nothing is written any more.
    failed: Option<Errno>,
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
        Self::new(1, NEVER)
    }

    /// Returns standard error, where text is dropped if nobody reads it.
    pub(crate) fn stderr() -> Self {
        Self::new(2, 0)
    }

    fn new(fd: u8, until: u64) -> Self {
        let size = rustix::termios::tcgetwinsize(standard_fd(fd));
        Self {
            fd,
            buffer: [0; BUFFER_LEN],
            filled: 0,
            ends: Ends::at(until),
            deadline: NEVER,
            failed: None,
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

    /// Takes note that nothing is held any more. From then on a slow reader delays nothing but the
    /// output itself, and only one that reads nothing is given up.
    pub(crate) const fn end(&mut self) {
        self.ends = Ends::at(0);
        self.deadline = NEVER;
    }

    /// Writes out the buffered text.
    ///
    /// When the end has come, a pipe that is full is made larger, so that a slow reader loses
    /// nothing, and yet delays nothing.
    ///
    /// # Errors
    ///
    /// The output cannot be written: the reader of a pipe is gone, a disk is full, the file
    /// descriptor is closed, or nobody reads and the program ends.
    pub(crate) fn flush(&mut self) -> Result<(), fmt::Error> {
        let fd = standard_fd(self.fd);
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        let [of_results, of_messages] = PATIENCE;
        let patience = if self.fd == 1 {
            of_results
        } else {
            of_messages
        };
        let mut stalls = false;
        while !rest.is_empty() && self.failed.is_none() {
            if self.ends.have_come() {
                let now = now();
                self.deadline = self.deadline.min(now + patience);
                if now >= self.deadline {
                    self.failed = Some(Errno::AGAIN);
                    break;
                }
                if stalls || !self.ends.are_past() {
                    // If this is no pipe, nothing helps a slow reader.
                    let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_LEN);
                }
            }
            match ticking(|| rustix::io::write(fd, rest)) {
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    if self.ends.are_past() && pending_end().is_none() {
                        self.deadline = NEVER;
                    }
                }
                Err(errno @ (Errno::INTR | Errno::AGAIN)) => {
                    stalls = true;
                    if errno == Errno::AGAIN {
                        // Somebody made it non-blocking. If waiting fails, the next write
                        // reports it.
                        let fds = &mut [PollFd::new(&fd, PollFlags::OUT)];
                        let _ = rustix::event::poll(fds, Some(&TICK));
                    }
                }
                Err(errno) => {
                    if errno == Errno::PIPE {
                        forget_broken_pipe();
                    }
                    self.failed = Some(errno);
                }
            }
        }
        self.filled = 0;
        self.gap = None;
        self.failed.map_or(Ok(()), |_| Err(fmt::Error))
    }

    /// Reports why output was lost, if it was. The reader of a pipe that is gone knows.
    ///
    /// # Errors
    ///
    /// Output was lost.
    pub(crate) fn check(&self) -> Result<(), fmt::Error> {
        let Some(errno) = self.failed else {
            return Ok(());
        };
        if errno != Errno::PIPE {
            notice(format_args!(
                "standard output: {}: output is lost",
                ErrnoName(errno)
            ));
        }
        Err(fmt::Error)
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // A line that is written out in parts cannot be broken any more.
            let line_ends = byte == b'\n' && self.width > 0 && self.filled > BUFFER_LEN / 2;
            if self.filled == self.buffer.len() || line_ends {
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
    say(text, NEVER);
}

/// Prints a message that delays nothing: while probes are held, it is dropped if nobody reads it.
pub(crate) fn notice(text: fmt::Arguments<'_>) {
    say(text, 0);
}

fn say(text: fmt::Arguments<'_>, until: u64) {
    let mut stderr = Output::new(2, until);
    // If this fails, there is nobody to report it to.
    let _ = writeln!(stderr, "kprobe-attach: {text}").and_then(|()| stderr.flush());
}

/// Prints a message in one line, in which others may have chosen names.
pub(crate) fn message_of_names(text: fmt::Arguments<'_>) {
    message(format_args!("{}", Shown(text)));
}

/// Reports a bug in this program. Only a debug build reports its place, because the places of all
/// panics that the compiler cannot rule out take 2.5 KB. None of them is known to be reached.
#[cfg(not(feature = "std"))]
pub(crate) fn bug(info: &core::panic::PanicInfo<'_>) {
    if cfg!(debug_assertions) {
        message(format_args!("a bug in this program: {info}"));
    } else {
        message(format_args!(
            "a bug in this program; a debug build says where"
        ));
    }
}
