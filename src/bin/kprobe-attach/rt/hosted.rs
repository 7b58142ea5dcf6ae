//! The entry point of a build with std, which libc calls.

use core::ffi::{c_char, c_int};

/// # Safety
///
/// Only libc may call this, with the `argv` of the initial stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(_: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the initial stack begins with argc, right below argv.
    let stack = unsafe { argv.cast::<usize>().sub(1) };
    // SAFETY: it is the initial stack.
    unsafe { kprobe_attach::entry::run(stack, crate::main) }
}
