//! BPF programs, maps and pins, as far as this crate needs them.
//!
//! A [`Program`] is opened from a pin or by its id, or is loaded from instructions. An [`Array`] is
//! a map that holds counters, and a [`HashMap`] one with keys. The module `object` loads programs
//! and maps that a compiler made. Programs of any other loader can be attached too, if they are
//! `AsFd`.

mod array;
pub mod insn;
mod load;
#[cfg(feature = "object")]
mod map;
mod memlock;
#[cfg(feature = "object")]
pub mod object;
mod pin;
mod program;
mod version;

pub use array::{Array, HashMap};
pub use load::Load;
#[cfg(feature = "object")]
pub use map::{Map, possible_cpus};
pub use program::Program;
pub use version::kern_version;

pub use crate::request::AttachType;
#[cfg(fuzzing)]
pub use version::sysinfo_ehdr;

pub(crate) use load::load_nop;
pub(crate) use pin::{pin, pin_at};
pub(crate) use program::obj_get;
