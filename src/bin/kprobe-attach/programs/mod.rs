//! The built-in programs.

mod counter;

pub(crate) use counter::Counter;
