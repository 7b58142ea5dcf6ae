//! The exit statuses of the program itself. It passes on the exit status of a command.

/// Something failed.
pub(crate) const FAILURE: u8 = 1;

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
