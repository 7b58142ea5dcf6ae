//! BPF programs, maps and pins, as far as this crate needs them.
//!
//! A [`Program`] is opened from a pin or by its id, or is loaded from instructions. An [`Array`] is
//! a map that holds counters, and a [`HashMap`] one with keys. The module `object` loads programs
//! and maps that a compiler made. Programs of any other loader can be attached too, if they are
//! `AsFd`.
//!
//! A first program, whole: it counts the calls of `vfs_read` for a second, and needs no compiler
//! and no loader beside this crate.
//!
//! ```no_run
//! use kprobe_attach::bpf::{Array, Load, insn};
//! use kprobe_attach::{KprobeOpts, Target, attach_kprobe};
//!
//! fn main() -> Result<(), kprobe_attach::Error> {
//!     let hits = Array::create(1)?;
//!     let [map, map_end] = insn::load_map(insn::R1, &hits);
//!     let count = [
//!         insn::store_imm(insn::Width::U32, insn::R10, -4, 0), // the index, on the stack
//!         insn::mov(insn::R2, insn::R10),
//!         insn::alu_imm(insn::Alu::Add, insn::R2, -4),
//!         map,
//!         map_end,
//!         insn::call(insn::helper::MAP_LOOKUP_ELEM),
//!         insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, 2), // there is always such an element
//!         insn::mov_imm(insn::R1, 1),
//!         insn::atomic(insn::Width::U64, insn::Atomic::Add, insn::R0, 0, insn::R1),
//!         insn::mov_imm(insn::R0, 0),
//!         insn::exit(),
//!     ];
//!     let program = Load::new(&count, c"GPL").load()?;
//!     let link = attach_kprobe(&program, Target::symbol("vfs_read")?, &KprobeOpts::new())?;
//!     std::thread::sleep(std::time::Duration::from_secs(1));
//!     link.detach()?;
//!     println!("{} calls of vfs_read", hits.get(0)?);
//!     Ok(())
//! }
//! ```

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
