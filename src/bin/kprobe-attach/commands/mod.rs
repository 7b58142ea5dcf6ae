//! The commands of the program.

pub(crate) mod attach;
pub(crate) mod count;
pub(crate) mod explain;
pub(crate) mod features;
pub(crate) mod functions;
#[cfg(feature = "object")]
pub(crate) mod maps;
pub(crate) mod pinned;
pub(crate) mod plan;
pub(crate) mod sweep;
mod table;
