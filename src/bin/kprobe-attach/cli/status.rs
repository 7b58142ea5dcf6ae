//! The exit statuses of the program itself. A command's is handed through.

/// Something failed.
pub(crate) const FAILURE: u8 = 1;

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
