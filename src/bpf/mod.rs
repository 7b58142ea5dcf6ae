//! BPF programs, maps and pins, as far as attaching takes them: a [`Program`] is opened from a pin
//! or by its id, or loaded from instructions; an [`Array`] is a map to count in.
//!
//! Any other loader's program serves as well: whatever is `AsFd` can be attached.

mod array;
pub mod insn;
mod load;
mod memlock;
mod pin;
mod program;
mod version;

pub use array::Array;
pub use load::Load;
pub use program::Program;
pub use version::kern_version;

pub(crate) use load::load_nop;
pub(crate) use pin::{pin, pin_at};
pub(crate) use program::obj_get;
