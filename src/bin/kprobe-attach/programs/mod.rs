//! The built-in programs.

mod children;
mod code;
mod counter;

pub(crate) use children::{Children, Follow};
pub(crate) use code::load;
pub(crate) use counter::{Counter, Of};
