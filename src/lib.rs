//! Attach a BPF program to a kernel function.
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

mod c_struct;
mod error;
pub mod kallsyms;
mod kernel;
mod link;
pub mod map;
mod plan;
mod probe;
pub mod prog;
mod request;
mod sys;
mod text;
mod tracefs;

pub use error::{Cause, ErrnoName, Error, Step};
pub use kernel::{Features, Kernel, Reason, Support, attach_kprobe};
pub use link::{KprobeInfo, KprobeLink};
pub use plan::{Need, Plan, Syscall};
pub use probe::{InText, ParseError, Probe};
pub use request::{AttachMode, Invalid, KprobeOpts, MAX_MAXACTIVE, MAX_SYMBOL_LEN, Target};
pub use rustix::{fd, io::Errno};
pub use tracefs::{Definition, EventLine, EventName};

/// The pure cores that have no public face, for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use crate::kernel::{parse_pmu_type, parse_retprobe_format};
    pub use crate::tracefs::mount_point;
}
