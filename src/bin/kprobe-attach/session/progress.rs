//! How far something is that takes more than a second, on a terminal.

use core::fmt::Write;

use crate::cli::{Args, Opt};
use crate::out::{Decimal, Output};
use crate::rt::{NEVER, now, standard_fd};

/// The nanoseconds until the progress is shown, and between two updates.
const FIRST: u64 = 1_000_000_000;
const NEXT: u64 = 200_000_000;

/// Shows the progress in the last line of a terminal, and clears that line at the end.
#[derive(Debug)]
pub(crate) struct Progress {
    doing: &'static str,
    total: usize,
    begin: u64,
    next: u64,
    is_shown: bool,
}

impl Progress {
    /// Starts. Nothing is ever shown where standard error is not a terminal, or with `--quiet`.
    pub(crate) fn new(args: &Args<'_>, doing: &'static str, total: usize) -> Self {
        let is_shown = !args.has(Opt::Quiet) && rustix::termios::isatty(standard_fd(2));
        let begin = if is_shown { now() } else { NEVER };
        Self {
            doing,
            total,
            begin,
            next: begin.saturating_add(FIRST),
            is_shown: false,
        }
    }

    /// Shows how many are done, if it is time to.
    pub(crate) fn show(&mut self, done: usize) {
        if self.next == NEVER || now() < self.next {
            return;
        }
        let now = now();
        self.next = now + NEXT;
        self.is_shown = true;
        let (done, total) = (done as u64, self.total as u64);
        let left = (now - self.begin) / done.max(1) * total.saturating_sub(done);
        let seconds = Decimal(left.div_ceil(1_000_000_000));
        let (doing, done, total) = (self.doing, Decimal(done), Decimal(total));
        line(format_args!("{doing} {done} of {total}, {seconds} s left"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            line(format_args!(""));
        }
    }
}

/// Replaces the line of the cursor.
fn line(text: core::fmt::Arguments<'_>) {
    let mut stderr = Output::stderr();
    // If this fails, there is nobody to show it to.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}
