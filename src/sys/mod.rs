//! The one unsafe room of the library: `bpf(2)`, `perf_event_open(2)` and the one `ioctl` between
//! them, made by hand; of `fcntl(2)` the locks that rustix leaves out; and a child process that
//! mounts.
//!
//! Outward everything is safe: file descriptors are borrowed or owned, strings are `&CStr`, buffers
//! are slices.
//!
//! # Safety
//!
//! These system calls take one struct, which in the first two may hold addresses. They are sound
//! here because
//!
//! * each struct is `#[repr(C)]`, has no padding that is not a field, and its size and the offset
//!   of every field are asserted against the kernel's ([`uapi`]);
//! * an address in a struct is made, in the function that makes the call, from a reference that
//!   outlives the call, and the length beside it is that of the same slice (addresses of the two
//!   probes are invalid on purpose, and only read);
//! * the kernel writes only where these functions hold a `&mut`;
//! * a file descriptor in an answer is new, open, and nobody else's, so an [`OwnedFd`] may own it.

#![allow(unsafe_code)]

mod arch;
mod call;
mod cpu;
mod link;
mod lock;
mod map;
mod object;
mod once;
mod perf;
mod private_mount;
mod prog;
pub(crate) mod uapi;

pub(crate) use cpu::first_allowed_cpu;
pub(crate) use link::{
    is_link, link_create_multi_bad_address, link_create_nothing, link_create_perf_event, link_info,
};
pub(crate) use lock::{is_byte_locked, lock_byte, unlock_byte};
pub(crate) use map::ArrayFd;
pub(crate) use object::{obj_get, obj_pin, obj_pin_at};
pub(crate) use once::Once;
pub(crate) use perf::{
    KprobeAt, PERF_EVENT_ATTR_SIZE, perf_event_open_bad_address, perf_event_open_config,
    perf_event_open_kprobe, perf_event_open_long_name, perf_event_open_nothing,
    perf_event_open_own, perf_event_set_bpf, task_fd_query,
};
pub(crate) use private_mount::mount_privately;
pub use prog::Insn;
pub(crate) use prog::{
    Load, ProgInfo, btf_load_nothing, is_prog, prog_get_fd_by_id, prog_info, prog_load,
};
