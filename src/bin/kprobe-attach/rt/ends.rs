//! The end of the program, while a system call waits.

use rustix::process::Pid;

use super::clock::now;
use super::process::has_ended;
use super::signals::pending_end;

/// Names what ends the program besides a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The time at which it ends, in nanoseconds since boot.
    pub(crate) until: u64,
    /// The command with which it ends.
    pub(crate) command: Option<Pid>,
}

impl Ends {
    /// Ends the program at this time.
    pub(crate) const fn at(until: u64) -> Self {
        let command = None;
        Self { until, command }
    }

    /// Returns whether nothing is held any more.
    pub(crate) const fn are_past(self) -> bool {
        self.until == 0
    }

    /// Returns whether the end has come. The signal, and the status of the command, can still be
    /// waited for.
    pub(crate) fn have_come(self) -> bool {
        pending_end().is_some() || now() >= self.until || self.command.is_some_and(has_ended)
    }
}
