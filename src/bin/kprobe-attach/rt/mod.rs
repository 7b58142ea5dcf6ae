//! The work of a C library: the program's entry, memory, and the few system calls that neither the
//! library nor rustix has. This is the only unsafe room of the program.
//!
//! # Safety
//!
//! Only the kernel jumps to the [entry](entry), once, with the stack as `execve(2)` leaves it. With
//! the cargo feature `std`, libc calls it.
//! There is one thread, so the functions for signals and processes race with nothing.

#![allow(unsafe_code)]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "moving a pointer and reading there is safe for one and the same reason"
)]

#[path = "../../../sys/arch/mod.rs"]
mod arch;
mod clock;
mod ends;
#[cfg(not(feature = "std"))]
mod entry;
#[cfg(feature = "std")]
#[path = "hosted.rs"]
mod entry;
mod fds;
mod memory;
mod process;
mod signals;
mod slots;

pub(crate) use kprobe_attach::entry::Start;

pub(crate) use clock::{NEVER, now, time_of_day};
pub(crate) use ends::Ends;
pub(crate) use fds::{given_fd, standard_fd};
pub(crate) use memory::Memory;
pub(crate) use process::{fork_command, is_process};
pub(crate) use signals::{
    TICK, ending_at_once, forget_broken_pipe, hold_signals, is_ignored, pending_end,
    restore_signals, take_signals, ticking, wait_for_signal,
};
pub(crate) use slots::{Slots, Text};
