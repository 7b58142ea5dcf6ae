//! Attaches BPF programs to kernel functions, with the semantics of libbpf's
//! `bpf_program__attach_kprobe_opts`.
//!
//! The crate makes [bpf(2)], [perf_event_open(2)] and the lines of tracefs's `kprobe_events`
//! itself.
//! It needs no libbpf, no libc, no std and no allocator. The program may come from any loader:
//! every type that is [`AsFd`](fd::AsFd) can be attached.
//!
//! ```no_run
//! use kprobe_attach::bpf::Program;
//! use kprobe_attach::{KprobeOpts, Target, attach_kprobe};
//!
//! # fn main() -> Result<(), kprobe_attach::Error> {
//! let program = Program::open_pinned("/sys/fs/bpf/my_program")?;
//! let opts = KprobeOpts::new().bpf_cookie(7);
//! let link = attach_kprobe(&program, Target::symbol("vfs_read")?, &opts)?;
//! println!("attached in mode {}: {:?}", link.mode(), link.info()?);
//! link.detach()?; // dropping the link detaches too
//! # Ok(())
//! # }
//! ```
//!
//! # From request to link
//!
//! 1. **Request**: a [`Target`] names the function, and [`KprobeOpts`] says how to attach. Both are
//!    checked before the first system call.
//! 2. **Kernel**: a [`Kernel`] asks the running kernel what it has. It asks when the answer is
//!    needed, and each question once. No decision depends on a version number.
//! 3. **Plan**: a [`Plan`] is a pure function of the request and the answers. It holds each system
//!    call as data, so it can be printed and tested.
//! 4. **Link**: a [`KprobeLink`] is the plan carried out. Dropping it detaches.
//!
//! Nothing is decided while attaching. A failure is the kernel's answer to the plan, and not to a
//! second try. The [`Error`] has the step, the errno and the cause.
//!
//! [`attach_kprobe`] does all four steps. To attach many probes, keep one [`Kernel`]:
//!
//! ```
//! use kprobe_attach::kernel::Features;
//! use kprobe_attach::{AttachMode, Kernel, KprobeOpts, Target};
//!
//! // A kernel that has everything. `Kernel::new()` is the running one.
//! let kernel = Kernel::with_features(Features::everything());
//! let opts = KprobeOpts::new().retprobe(true).maxactive(64);
//! let plan = kernel.plan(Target::in_module("nf_tables", "nft_do_chain")?, &opts)?;
//! // Only a tracefs mode has a maxactive.
//! assert_eq!(plan.mode(), AttachMode::LegacyLink);
//! assert_eq!(plan.steps().count(), 10);
//! # Ok::<(), kprobe_attach::Error>(())
//! ```
//!
//! # Where to look
//!
//! The types that an attach needs are at the root. The rest is in a module for each subject:
//!
//! * [`request`]: probes as text, the C struct `bpf_kprobe_opts`, and the rules of a request;
//! * [`kernel`]: the features of a kernel;
//! * [`plan`]: the system calls as data;
//! * [`bpf`]: programs, counters and raw instructions; [objects](bpf::object) of a compiler;
//! * [`tracefs`]: trace events, and [sweeping](tracefs::sweep()) those of killed processes;
//! * [`symbols`]: names and addresses in `/proc/kallsyms`;
//! * [`explain`]: why a probe does not attach;
//! * [`error`]: steps and causes;
//! * [`mod@entry`]: what a program without libc needs, by the macro [`entry!`](macro@entry).
//!
//! The [guide] has the long tables and the recipes: [privileges](guide::privileges),
//! [system calls](guide::syscalls), [causes](guide::causes), [services](guide::services),
//! [containers](guide::containers), [initramfs](guide::initramfs), [objects](guide::objects),
//! [many functions](guide::many), [JSON](guide::json), [building](guide::building),
//! [a program without libc](guide::without_libc), [sizes](guide::sizes),
//! [side by side](guide::peers), [limits](guide::limits), [testing](guide::testing), and porting
//! [from libbpf](guide::from_libbpf) and [from aya](guide::from_aya).
//!
//! # Words
//!
//! * **symbol**: the name of a function in `/proc/kallsyms`. **offset**: the bytes from its start.
//! * **retprobe**: a probe of a function's return. **maxactive**: how many calls of the function
//!   may await their return probe at once.
//! * **PMU**: a source of perf events. The kprobe PMU opens an event for any function.
//! * **perf event**: the object that [perf_event_open(2)] opens. A BPF program is bound to it.
//! * **bpf link**: a file descriptor that holds program and event together, and can be pinned.
//! * **trace event**: an event that is defined in tracefs, with a **group**, a name and an id. It
//!   is the older source of perf events.
//! * **cookie**: a number that the program can ask for, to distinguish its attachments.
//!
//! # Cargo features
//!
//! * `files` (default): everything that is found in files. Without it, the tracefs modes,
//!   [`tracefs::sweep()`] and [`KprobeOpts::within_function`] fail with `EOPNOTSUPP`. The type of
//!   the PMU is not compared with sysfs, and [`Kernel::explain`] leaves its questions open. The
//!   public surface is the same.
//! * `explain` (default): the command `explain` of the program. It changes nothing in the library.
//! * `object` (default): [`bpf::object`], which loads programs and maps from an ELF file.
//! * `std`: for a program with std. The types of file descriptors in [`fd`] are then std's own, and
//!   every error converts to `std::io::Error`.
//!
//! A program with std takes its descriptors from another crate, aya say. Without `std` the compiler
//! then reports that a type does not implement [`AsFd`](fd::AsFd):
//!
//! ```toml
//! kprobe-attach = { version = "0.1", features = ["std"] }
//! ```
//!
//! # Architectures
//!
//! `x86_64`, `x86`, `aarch64`, `arm` (ARM and Thumb code) and `riscv64`. For `s390x` and
//! `powerpc64le`, build with `RUSTFLAGS="--cfg rustix_use_experimental_asm"`. Stable Rust takes
//! that flag there, for `powerpc64le` from 1.95. On any other architecture the crate does not
//! compile, since rustix would bring in libc.
//!
//! # Minimum kernel
//!
//! Linux 4.1. The table of [`AttachMode`] has the version that each mode and option needs.
//!
//! # Minimum Rust
//!
//! Rust 1.85, stable.
//!
//! [bpf(2)]: https://man7.org/linux/man-pages/man2/bpf.2.html
//! [perf_event_open(2)]: https://man7.org/linux/man-pages/man2/perf_event_open.2.html

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

#[cfg(any(test, feature = "std"))]
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
     build for x86_64, x86, aarch64, arm, riscv64, s390x or powerpc64le, or add the architecture \
     to src/sys"
);
#[cfg(all(
    any(target_arch = "s390x", target_arch = "powerpc64"),
    not(rustix_use_experimental_asm)
))]
compile_error!(
    "on this architecture rustix falls to libc unless it is told otherwise, which only the one who \
     builds the program can do: build with RUSTFLAGS=\"--cfg rustix_use_experimental_asm\" \
     (stable Rust will do; for no other architecture, where that takes a nightly one)"
);
#[cfg(any(not(target_os = "linux"), rustix_use_libc, miri))]
compile_error!(
    "kprobe-attach is for Linux, without libc; build for a *-linux-* target and without \
     --cfg rustix_use_libc"
);

pub mod bpf;
mod diagnose;
pub mod error;
pub mod explain;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod kernel;
mod link;
mod mount;
mod numbers;
pub mod plan;
pub mod request;
pub mod symbols;
mod sys;
mod text;
pub mod tracefs;

pub use error::Error;
pub use kernel::Kernel;
pub use link::group::{GroupMemory, GroupSlot, KprobeGroup, detach_by_children};
pub use link::multi::{KprobeMultiInfo, KprobeMultiLink, attach_kprobe_multi};
pub use link::{KprobeInfo, KprobeLink, attach_kprobe};
pub use mount::Mount;
pub use plan::Plan;
pub use plan::group::{GroupPlan, GroupWay};
pub use request::{AttachMode, KprobeMultiOpts, KprobeOpts, Target, TargetBuf};
pub use rustix::{fd, io::Errno};
pub use sys::entry;

static_assertions::assert_impl_all!(Error: Send, Sync);
static_assertions::assert_impl_all!(Target<'static>: Send, Sync);
static_assertions::assert_impl_all!(bpf::Program: Send, Sync);
static_assertions::assert_impl_all!(bpf::Array: Send, Sync);

/// The examples of the README, which are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The pure cores that have no public face, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use crate::bpf::sysinfo_ehdr;
    pub use crate::explain::{is_confidential, number};
    pub use crate::kernel::parse_pmu_type;
    pub use crate::mount::mount_point;
    pub use crate::symbols::{blacklist_line, filter_line, glob_matches};
    pub use crate::text::for_each_line;
    pub use crate::tracefs::{ErrorLogLine, error_log_errno, error_log_line, profile_missed};
}
