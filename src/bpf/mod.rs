//! BPF programs, maps and pins, as far as this crate needs them.
//!
//! A [`Program`] is opened from a pin or by its id, or is loaded from instructions. An [`Array`] is
//! a map that holds counters, and a [`HashMap`] one with keys. Programs of any other loader can be
//! attached too, if they are `AsFd`.

mod array;
pub mod insn;
mod load;
mod memlock;
mod pin;
mod program;
mod version;

pub use array::{Array, HashMap};
pub use load::Load;

pub use crate::request::AttachType;
pub use program::Program;
pub use version::kern_version;
#[cfg(fuzzing)]
pub use version::sysinfo_ehdr;

pub(crate) use load::load_nop;
pub(crate) use pin::{pin, pin_at};
pub(crate) use program::obj_get;
