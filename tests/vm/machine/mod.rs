//! What the tests are made with.

pub(crate) mod process;
pub(crate) mod supervise;
