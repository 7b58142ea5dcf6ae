//! The parts of a system call that differ between architectures: the instruction, and the order of
//! `clone(2)`'s arguments.
//!
//! # Safety
//!
//! As for the instruction: the arguments must be what the system call expects.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "x86", path = "x86.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "s390x", path = "s390x.rs")]
#[cfg_attr(target_arch = "powerpc64", path = "powerpc64.rs")]
mod instruction;

pub(crate) use instruction::syscall5;

/// Returns the arguments of a `clone(2)` that has only flags, which is a `fork(2)`. With no new
/// stack, the child has a copy of everything that the flags do not share.
pub(crate) const fn clone_args(flags: u32) -> [usize; 5] {
    let (flags, no_stack) = (flags as usize, 0);
    if cfg!(target_arch = "s390x") {
        [no_stack, flags, 0, 0, 0] // CONFIG_CLONE_BACKWARDS2
    } else {
        [flags, no_stack, 0, 0, 0]
    }
}
