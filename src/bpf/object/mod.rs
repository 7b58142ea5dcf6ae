//! Objects: programs and maps as a compiler writes them, loaded without libbpf.
//!
//! An [`Object`] reads an ELF file for BPF from bytes, and [`Object::load`] makes its maps.
//! [`Loaded::program`] then loads a program. Nothing is allocated: the caller's memory holds what
//! the kernel reads.
//!
//! ```no_run
//! use kprobe_attach::attach_kprobe;
//! use kprobe_attach::bpf::object::{LoadOptions, Object};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! static OBJECT: &[u8] = &[/* include_bytes!("count.o") */];
//! let object = Object::parse(OBJECT)?;
//! let mut memory = vec![0; object.memory_len()];
//! let loaded = object.load(&mut memory, &LoadOptions::new())?;
//! let found = object.program("count").ok_or("no such program")?;
//! let program = loaded.program(&found, &mut memory, &mut [])?;
//! if let Some(probe) = found.probe()? {
//!     let link = attach_kprobe(&program, probe.target, &probe.opts)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is served
//!
//! * Programs of the [kinds](Kind) of sections that this crate attaches, several in a section, and
//!   the functions in `.text` that they call.
//! * Maps of `.maps` and of the older `maps`, but for those that hold maps. `.rodata`, `.data` and
//!   `.bss`, and sections such as `.data.more`, are maps too. They take Linux 5.2.
//! * The external variables `LINUX_KERNEL_VERSION` and, if the caller knows its value,
//!   `LINUX_HAS_SYSCALL_WRAPPER`. A weak symbol of another name is 0, as where it is absent.
//! * CO-RE relocations, which the kernel does itself since Linux 5.17 (commit fbd94c7afcf9).
//!
//! Everything else is refused by its name.

mod btf;
mod contents;
mod elf;
mod error;
mod externs;
mod fix;
#[cfg(fuzzing)]
mod fuzz;
mod load;
mod maps;
mod parse;
mod programs;
mod relocate;

pub use contents::Object;
pub use error::{Fault, ObjectError};
#[cfg(fuzzing)]
pub use fuzz::check;
pub use load::{LoadOptions, Loaded};
pub use maps::MapDefinition;
pub use parse::Programs;
pub use programs::{Kind, ObjectProgram};

#[cfg(test)]
mod tests;
