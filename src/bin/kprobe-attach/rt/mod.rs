//! What a C library would do for the program: its entry, its memory functions, memory, and the few
//! system calls that neither the library nor rustix has. The program's one unsafe room.
//!
//! # Safety
//!
//! The [entry](entry) is jumped to by the kernel, once, with the stack as `execve(2)` leaves it,
//! and by nobody else. There is one thread, so the functions on signals and processes race with
//! nobody.

#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "moving a pointer and reading there is safe for one and the same reason"
)]

#[path = "../../../sys/arch/mod.rs"]
mod arch;
mod clock;
mod entry;
mod fds;
mod functions;
mod process;
mod signals;
mod slots;
mod start;

pub(crate) use clock::monotonic_clock;
pub(crate) use fds::standard_fd;
pub(crate) use process::{exit, spawn};
pub(crate) use signals::Signals;
pub(crate) use slots::Slots;
pub(crate) use start::Start;
