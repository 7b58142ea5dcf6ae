//! The entry point of a build with std, which libc calls.

use core::ffi::{c_char, c_int};

use super::fds::open_standard_fds;
use super::process::exit;
use super::start::Start;

/// # Safety
///
/// Only libc may call this, with the `argv` of the initial stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(_: c_int, argv: *const *const c_char) -> c_int {
    open_standard_fds();
    // SAFETY: the initial stack begins with argc, right below argv.
    let stack = unsafe { argv.cast::<usize>().sub(1) };
    // SAFETY: it is the initial stack.
    let start = unsafe { Start::new(stack) };
    exit(crate::main(&start))
}
