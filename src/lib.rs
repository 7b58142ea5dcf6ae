#![doc = include_str!("../README.md")]
//!
//! # Words
//!
//! * **symbol**: a function's name in `/proc/kallsyms`; **offset**: bytes from its start;
//!   **retprobe**: a probe of its return.
//! * **PMU**: a source of perf events; that of kprobes opens one for any function.
//! * **perf event**: what `perf_event_open(2)` opens; a BPF program is bound to it.
//! * **bpf link**: a file descriptor that holds program and event together, and can be pinned.
//! * **trace event**: an event defined in tracefs, with a **group**, a name and an id; the older
//!   source of perf events.
//! * **cookie**: a number that the program can ask for, to tell its attachments apart.
//! * **maxactive**: how many calls of a function may await their return probe at once.
//!
//! # From request to link
//!
//! [`KprobeOpts`] and [`Target`] say what is wanted, [`Kernel`] what there is. A [`Plan`] is made
//! of both by a pure function, and a [`KprobeLink`] is the plan carried out. Nothing is decided
//! while attaching, so a failure is the kernel's answer to the plan, and not to a second try.
//!
//! # Modules
//!
//! What an attach takes is at the root. The rest is in a module for each thing: [`request`] (probes
//! as text, and what can be wrong with one), [`kernel`] (features), [`plan`] (the system calls as
//! data), [`bpf`] (programs and counters), [`tracefs`] (trace events, and sweeping), [`symbols`]
//! (`/proc/kallsyms`), [`explain`] (why a probe does not attach) and [`error`] (steps and causes).
//!
//! # Features
//!
//! * `files` (default): what is found in files. Without it the tracefs modes, [`tracefs::sweep()`]
//!   and [`KprobeOpts::within_function`] meet `EOPNOTSUPP`, sysfs is not asked about the PMU, and
//!   [`Kernel::explain`] leaves its questions open. The public surface is the same.
//! * `explain` (default): a command of the program, and nothing of the library.

#![no_std]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

#[cfg(not(any(
    all(target_arch = "x86_64", target_pointer_width = "64"),
    target_arch = "x86",
    all(
        target_arch = "aarch64",
        target_pointer_width = "64",
        target_endian = "little"
    ),
    all(target_arch = "arm", target_endian = "little"),
    target_arch = "riscv64",
    target_arch = "s390x",
    all(target_arch = "powerpc64", target_endian = "little"),
)))]
compile_error!(
    "kprobe-attach has no system call for this architecture, and rustix would fall to libc here; \
     build for x86_64, x86, aarch64, arm, riscv64, s390x or powerpc64le, or add the architecture to src/sys"
);
#[cfg(all(
    any(target_arch = "s390x", target_arch = "powerpc64"),
    not(rustix_use_experimental_asm)
))]
compile_error!(
    "on this architecture rustix falls to libc unless it is told otherwise, which only whoever builds the program can: \
     build with RUSTFLAGS=\"--cfg rustix_use_experimental_asm\" (stable Rust will do; \
     for no other architecture, where that takes a nightly one)"
);
#[cfg(any(not(target_os = "linux"), rustix_use_libc, miri))]
compile_error!(
    "kprobe-attach is for Linux, without libc; build for a *-linux-* target and without --cfg rustix_use_libc"
);

pub mod bpf;
mod diagnose;
pub mod error;
pub mod explain;
pub mod kernel;
mod link;
mod mount;
pub mod plan;
pub mod request;
pub mod symbols;
mod sys;
mod text;
pub mod tracefs;

pub use error::Error;
pub use kernel::Kernel;
pub use link::{KprobeInfo, KprobeLink, attach_kprobe};
pub use mount::Mount;
pub use plan::Plan;
pub use request::{AttachMode, KprobeOpts, Target, TargetBuf};
pub use rustix::{fd, io::Errno};

static_assertions::assert_impl_all!(Error: Send, Sync);
static_assertions::assert_impl_all!(Target<'static>: Send, Sync);
static_assertions::assert_impl_all!(bpf::Program: Send, Sync);
static_assertions::assert_impl_all!(bpf::Array: Send, Sync);

/// The pure cores that have no public face, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use crate::kernel::{parse_pmu_type, parse_retprobe_format};
    pub use crate::mount::mount_point;
}
