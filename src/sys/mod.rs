//! The library's only room with unsafe code.
//!
//! It makes the system calls that rustix does not have: `bpf(2)`, `perf_event_open(2)`, the `ioctl`
//! that connects them, and the locks of `fcntl(2)` that belong to an open file. It also starts
//! child processes: one that mounts a file system, and those that close file descriptors.
//!
//! Its functions are safe to call. File descriptors are borrowed or owned, strings are `&CStr`, and
//! buffers are slices.
//!
//! # Safety
//!
//! Each of these system calls takes one struct. A struct of `bpf(2)` or `perf_event_open(2)` can
//! hold addresses. The calls are sound for these reasons:
//!
//! * Each struct is `#[repr(C)]` and has no padding that is not a field. Its size, and the offset
//!   of every field, are asserted against the kernel's ([`uapi`]).
//! * Each address comes from a reference that outlives the call, in the function that makes the
//!   call. The length beside it is that of the same slice. Two probes use invalid addresses on
//!   purpose, which the kernel only reads.
//! * The kernel writes only where these functions hold a `&mut`.
//! * A file descriptor in an answer is new and open, and nothing else owns it. An `OwnedFd` can
//!   therefore own it.

#![allow(unsafe_code)]

mod arch;
mod call;
mod child;
mod cpu;
pub mod entry;
mod link;
mod lock;
mod map;
#[cfg(feature = "object")]
mod map_of_object;
mod multi;
mod object;
mod once;
mod perf;
mod private_mount;
mod prog;
pub(crate) mod uapi;

pub(crate) use child::{Part, share_among_children};
pub(crate) use cpu::first_allowed_cpu;
pub(crate) use link::{LinkInfo, is_link, link_create_nothing, link_create_perf_event, link_info};
pub(crate) use lock::{is_byte_locked, lock_byte, unlock_byte};
pub(crate) use map::{ArrayFd, create_hash};
#[cfg(feature = "object")]
pub(crate) use map_of_object::{MapFd, MapKind, map_get_fd_by_id};
pub use multi::SymbolRef;
pub(crate) use multi::{
    Places, link_create_kprobe_multi, link_create_multi_bad_address, multi_link_info,
};
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
    Load, btf_load_nothing, insn_bytes, is_prog, prog_get_fd_by_id, prog_info, prog_load,
};
#[cfg(feature = "object")]
pub(crate) use prog::{ProgBtf, Records, btf_load, insns_in};
