//! What is promised, on a real kernel: `ci/run.sh vm` runs these as root in virtual machines, for
//! every kernel of `ci/kernels.txt`, and fails if one of them did not run.
//!
//! They need a kernel with kprobes, root, and nobody else who makes directories or unlinks files
//! meanwhile. So they are a package of their own, which `cargo test` leaves out, and outside such a
//! machine they end at once, with a failure.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod asked;
mod asm;
mod attach;
mod cli;
#[cfg(target_pointer_width = "64")] // the others do not have such links
mod cookies;
mod count;
mod duplicates;
mod early;
mod errors;
#[cfg(target_arch = "x86_64")] // they are built for the host
mod examples;
mod explaining;
mod features;
mod filter;
mod functions;
mod groups;
mod handed_over;
mod hostile;
mod link;
mod locks;
mod lookup;
mod machine;
mod many_functions;
mod many_probes;
mod mounts;
#[cfg(target_endian = "little")] // the objects are
mod moved;
mod multi;
mod names;
#[cfg(target_endian = "little")]
mod object_program;
#[cfg(target_endian = "little")]
mod objects;
#[cfg(target_endian = "little")] // the object is
mod pinned_many;
mod pins;
mod pressure;
mod private_mount;
mod privileges;
mod readers;
mod reloaded;
#[cfg(target_pointer_width = "64")] // the system calls of the others have other names
mod services;
mod stopping;
mod suggestions;
mod sweep;
#[cfg(target_arch = "x86_64")] // its callers are
mod syscalls;
mod terminal;
mod thorough;
mod truth;
mod why;
mod z_lockdown;
