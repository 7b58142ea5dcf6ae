//! BPF programs, maps and pins.

pub mod array;
pub(crate) mod pin;
pub mod program;
