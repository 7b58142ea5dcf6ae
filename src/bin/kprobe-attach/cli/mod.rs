//! The command line.

mod args;
mod help;
mod status;
mod table;
mod usage;

#[cfg(feature = "object")]
pub(crate) use args::Sections;
pub(crate) use args::{Args, Probes, Request, decimal};
pub(crate) use help::Help;
pub(crate) use status::{FAILURE, USAGE};
pub(crate) use table::{Command, Opt};
