#![doc = include_str!("../README.md")]
//!
//! # Words
//!
//! * **symbol**: a function's name in `/proc/kallsyms`; **offset**: bytes from its start; **retprobe**: a probe of its return.
//! * **PMU**: a source of perf events; that of kprobes opens one for any function.
//! * **perf event**: what `perf_event_open(2)` opens; a BPF program is bound to it.
//! * **bpf link**: a file descriptor that holds program and event together, and can be pinned.
//! * **trace event**: an event defined in tracefs, with a **group**, a name and an id; the older source of perf events.
//! * **cookie**: a number that the program can ask for, to tell its attachments apart.
//! * **maxactive**: how many calls of a function may await their return probe at once.
//!
//! # From request to link
//!
//! [`KprobeOpts`] and [`Target`] say what is wanted, [`Kernel`] what there is. A [`Plan`] is made of both by a pure function,
//! and a [`KprobeLink`] is the plan carried out. Nothing is decided while attaching, so a failure is the kernel's answer to
//! the plan, and not to a second try.
//!
//! # Features
//!
//! * `files` (default): what is found in files. Without it the tracefs modes, [`sweep()`] and
//!   [`KprobeOpts::within_function`] meet `EOPNOTSUPP`, sysfs is not asked about the PMU, and [`Kernel::explain`] leaves its questions
//!   open. The public surface is the same.
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

mod bpf;
mod diagnose;
mod error;
mod explain;
mod kernel;
mod link;
mod mount;
mod plan;
mod request;
mod symbols;
mod sys;
mod text;
mod tracefs;

pub use bpf::{array as map, program as prog};
pub use error::cause::Cause;
pub use error::{ErrnoName, Error, Step};
pub use explain::evidence::{Evidence, Question};
pub use explain::{Explanation, Suggestion};
pub use kernel::{Features, Kernel, Reason, Support, attach_kprobe};
pub use link::{KprobeInfo, KprobeLink};
pub use mount::Mount;
pub use plan::{Need, Plan, Syscall};
pub use request::invalid::Invalid;
pub use request::spec::{InText, ParseError, Probe};
pub use request::target::{AttachMode, KprobeOpts, MAX_MAXACTIVE, MAX_SYMBOL_LEN, Target};
pub use rustix::{fd, io::Errno};
pub use symbols::kallsyms;
pub use tracefs::event::{Definition, EventLine, EventName};
pub use tracefs::sweep::{Swept, sweep, sweep_dry_run};

/// The pure cores that have no public face, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use crate::kernel::{parse_pmu_type, parse_retprobe_format};
    pub use crate::mount::mount_point;
}
