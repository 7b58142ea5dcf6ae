//! The command line.

mod args;
mod command;
mod help;
mod status;
mod usage;

pub(crate) use args::{Args, decimal};
pub(crate) use command::Command;
pub(crate) use help::HELP;
pub(crate) use status::{FAILURE, USAGE};
