//! What is wanted: the target, the options, the rules that both must keep, and the text and the C struct that they are read from.

mod c_struct;
pub(crate) mod invalid;
pub(crate) mod spec;
pub(crate) mod target;
