//! The guide: one page for each subject that takes more than a paragraph.
//!
//! | page | subject |
//! |---|---|
//! | [`privileges`] | capabilities, `perf_event_paranoid`, seccomp and lockdown |
//! | [`syscalls`] | the entry points of system calls |
//! | [`causes`] | why an attach fails, and how to find out |
//! | [`containers`] | what a container must be given |
//! | [`services`] | a unit of systemd with just the rights that it needs |
//! | [`initramfs`] | early boot, where nothing is mounted |
//! | [`objects`] | programs that a compiler made, loaded without libbpf |
//! | [`many`] | many functions at once, and what detaching takes |
//! | [`json`] | the output of the program for scripts |
//! | [`building`] | the program for this machine, for musl, and for other architectures |
//! | [`without_libc`] | a program of your own, without libc and std |
//! | [`sizes`] | bytes, memory, system calls and file descriptors |
//! | [`peers`] | what an attach costs, beside system calls alone and other libraries |
//! | [`limits`] | what the kernel or this crate cannot do |
//! | [`testing`] | how each promise is tested |
//! | [`from_libbpf`] | each function, option and errno of libbpf, and what takes its place |
//! | [`from_aya`] | a program that aya loads, attached by this crate |
//!
//! The modules exist in the documentation only.

// The pages link to these names.
use super::*;

#[doc = include_str!("privileges.md")]
pub mod privileges {}

#[doc = include_str!("syscalls.md")]
pub mod syscalls {}

#[doc = include_str!("causes.md")]
pub mod causes {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("initramfs.md")]
pub mod initramfs {}

#[cfg(feature = "object")]
#[doc = include_str!("objects.md")]
pub mod objects {}

#[doc = include_str!("many.md")]
pub mod many {}

#[doc = include_str!("json.md")]
pub mod json {}

#[doc = include_str!("building.md")]
pub mod building {}

#[doc = include_str!("without_libc.md")]
pub mod without_libc {}

#[doc = include_str!("sizes.md")]
pub mod sizes {}

#[doc = include_str!("peers.md")]
pub mod peers {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("from_libbpf.md")]
pub mod from_libbpf {}

#[doc = include_str!("from_aya.md")]
pub mod from_aya {}
