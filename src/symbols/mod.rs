//! The kernel's symbols, and what may be probed of them.

pub mod kallsyms;
pub(crate) mod survey;
