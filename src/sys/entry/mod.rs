//! The parts of a program that otherwise come from libc.
//!
//! The macro [`entry!`](crate::entry!) defines them in a program, and calls its main function with
//! a [`Start`]. The page [without libc](crate::guide::without_libc) shows such a program in full.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "moving a pointer and reading there is safe for one and the same reason"
)]

#[doc(hidden)]
pub mod memory;
mod start;

use core::fmt::Write;
use core::panic::PanicInfo;

use linux_raw_sys::general::{
    __NR_exit_group, __NR_fcntl, __NR_openat, F_GETFD, O_CLOEXEC, O_PATH,
};
use rustix::io::Errno;

use super::arch;

use start::stderr;
pub use start::{Output, Start};

/// Defines all that a static program without libc needs beside its own code.
///
/// The argument is the program's main function, a `fn(&Start) -> u8`. It takes a
/// [`Start`](crate::entry::Start), which has the arguments, and returns the exit status. A program
/// calls the macro once, outside of every function. The macro defines:
///
/// * the symbol `kprobe_attach_entry`, where the program starts. The linker is told so with
///   `-e kprobe_attach_entry`.
/// * `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp` and `strlen`, which the compiler calls.
/// * the panic handler. A panic prints its message to standard error, and ends the program with the
///   status 101. `entry!(main, panic = FUNCTION)` names another `fn(&PanicInfo<'_>) -> u8`, which
///   returns the exit status. With [`silent_panic`](crate::entry::silent_panic), the program is
///   smaller.
/// * symbols that the compiler's own library refers to, and that are never used.
///
/// First, the file descriptors 0, 1 and 2 are opened where they are closed, for neither reading nor
/// writing. So no map and no link gets such a number.
///
/// The macro works on each architecture that this crate supports. The program needs no unsafe code
/// of its own. The page [without libc](crate::guide::without_libc) shows the other parts: the
/// attributes, the profile, and the options of the linker.
///
/// A program with std has all of this already, and the two cannot be linked together.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry!($main, panic = $crate::entry::print_panic);
    };
    ($main:path, panic = $panic:path) => {
        // The kernel leaves argc at the stack pointer, and argv, envp and the auxiliary vector
        // above it. The frame pointer and the return address are set to zero, where a debugger
        // stops unwinding. The stack pointer is already aligned to 16 bytes, and a call keeps the
        // alignment that the ABI wants.
        #[cfg(target_arch = "x86_64")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            "xor ebp, ebp", // no caller's frame
            "mov rdi, rsp", // the first argument: what the kernel left
            // Pushes a return address, which makes the stack what a function expects.
            "call kprobe_attach_start",
            "ud2", // it does not return
        );
        #[cfg(target_arch = "aarch64")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            "mov x29, xzr", // no caller's frame
            "mov x30, xzr", // and no return address
            "mov x0, sp",   // the first argument: what the kernel left
            "b kprobe_attach_start",
        );
        #[cfg(target_arch = "riscv64")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            ".option push",
            ".option norelax", // gp cannot be reached through gp
            "la gp, __global_pointer$",
            ".option pop",
            "mv a0, sp",   // the first argument: what the kernel left
            "mv fp, zero", // no caller's frame
            "mv ra, zero", // and no return address
            "tail kprobe_attach_start",
        );
        #[cfg(target_arch = "x86")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            "xor ebp, ebp", // no caller's frame
            "mov eax, esp",
            "sub esp, 12", // what makes a multiple of 16 with
            "push eax",    // the first argument: what the kernel left
            "call kprobe_attach_start",
            "ud2", // it does not return
        );
        #[cfg(target_arch = "arm")]
        ::core::arch::global_asm!(
            // Every processor that runs Thumb code for Linux runs ARM code as well, and the linker
            // knows how to call one from the other.
            ".arm",
            ".globl kprobe_attach_entry",
            ".type kprobe_attach_entry, %function",
            "kprobe_attach_entry:",
            "mov r7, #0",  // no caller's frame, in Thumb
            "mov r11, #0", // and in ARM code
            "mov r0, sp",  // the first argument: what the kernel left
            "bl kprobe_attach_start",
            // It does not return. Nothing unwinds, but the tables for unwinding refer to these two.
            // They are no functions of Rust, which LLVM would merge with `rust_eh_personality`.
            ".globl __aeabi_unwind_cpp_pr0",
            "__aeabi_unwind_cpp_pr0:",
            ".globl __aeabi_unwind_cpp_pr1",
            "__aeabi_unwind_cpp_pr1:",
            "udf #0",
        );
        #[cfg(target_arch = "s390x")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            "lgr %r2, %r15",         // the first argument: what the kernel left
            "aghi %r15, -160",       // where a function saves the registers of its caller
            "xc 0(8,%r15), 0(%r15)", // no caller's frame
            "brasl %r14, kprobe_attach_start",
            ".short 0", // no instruction: it does not return
        );
        #[cfg(target_arch = "powerpc64")]
        ::core::arch::global_asm!(
            ".globl kprobe_attach_entry",
            "kprobe_attach_entry:",
            // The kernel leaves the address of the entry in r12.
            "addis 2, 12, .TOC.-kprobe_attach_entry@ha",
            "addi 2, 2, .TOC.-kprobe_attach_entry@l",
            "mr 3, 1", // the first argument: what the kernel left
            "li 0, 0",
            // Where a function saves its caller's link register; no caller's frame.
            "stdu 0, -32(1)",
            "bl kprobe_attach_start",
            "nop",
            "trap", // it does not return
        );

        const _: () = {
            use ::core::ffi::{c_char, c_int, c_void};
            use ::core::panic::PanicInfo;
            use $crate::entry::memory;

            #[unsafe(no_mangle)]
            unsafe extern "C" fn kprobe_attach_start(stack: *const usize) -> ! {
                // SAFETY: only the entry above calls this, with the initial stack.
                unsafe { $crate::entry::run(stack, $main) }
            }

            #[panic_handler]
            fn panic(info: &PanicInfo<'_>) -> ! {
                $crate::entry::exit($panic(info))
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
                // SAFETY: the same contract, as below.
                unsafe { memory::memcpy(to, from, len) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
                // SAFETY: see memcpy.
                unsafe { memory::memmove(to, from, len) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
                // SAFETY: see memcpy.
                unsafe { memory::memset(to, byte, len) }
            }

            // Inlined into bcmp, the two would be merged into one function with two names. LLVM 19,
            // which is that of Rust 1.85, crashes if memcmp is no function of its own.
            #[inline(never)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
                // SAFETY: see memcpy.
                unsafe { memory::memcmp(a, b, len) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int {
                // SAFETY: see memcpy.
                unsafe { memcmp(a.cast(), b.cast(), len) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn strlen(text: *const c_char) -> usize {
                // SAFETY: see memcpy.
                unsafe { memory::strlen(text) }
            }

            /// The prebuilt core refers to these two functions if it was not optimised. With
            /// `panic = "abort"` nothing calls them.
            #[unsafe(no_mangle)]
            extern "C" fn rust_eh_personality() {}

            /// See `rust_eh_personality`.
            #[unsafe(no_mangle)]
            extern "C" fn _Unwind_Resume() -> ! {
                $crate::entry::exit(101)
            }

            /// A constructor of `compiler_builtins`, which asks whether the processor has atomic
            /// instructions, refers to this function. The program runs no constructors, so nothing
            /// calls it: the outlined atomic operations use exclusive loads and stores, which every
            /// processor has.
            #[cfg(target_arch = "aarch64")]
            #[unsafe(no_mangle)]
            extern "C" fn getauxval(_: ::core::ffi::c_ulong) -> ::core::ffi::c_ulong {
                0
            }
        };
    };
}

/// Runs a program, from its initial stack to its exit status.
///
/// # Safety
///
/// `stack` must be the initial stack of the process.
#[doc(hidden)]
#[inline]
pub unsafe fn run(stack: *const usize, main: fn(&Start) -> u8) -> ! {
    open_standard_fds();
    // SAFETY: the caller guarantees that it is the initial stack. The file descriptors are open.
    let start = unsafe { Start::new(stack) };
    exit(main(&start))
}

/// Prints the message of a panic to standard error, and returns the exit status 101.
#[must_use]
pub fn print_panic(info: &PanicInfo<'_>) -> u8 {
    // If this fails, there is nobody to report it to.
    let _ = writeln!(stderr(), "{info}");
    silent_panic(info)
}

/// Prints nothing, and returns the exit status 101.
#[must_use]
pub const fn silent_panic(_: &PanicInfo<'_>) -> u8 {
    101
}

/// Ends the process, as [exit_group(2)] does.
///
/// [exit_group(2)]: https://man7.org/linux/man-pages/man2/exit_group.2.html
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: it takes a number and does not return.
        unsafe { arch::syscall5(__NR_exit_group, [status.into(), 0, 0, 0, 0]) };
    }
}

/// Opens the file descriptors 0, 1 and 2 that are closed, as they are for an init without a
/// console. Otherwise a map or a link could get such a number, and be written to as if it were the
/// output. A command does not get them.
fn open_standard_fds() {
    // The root directory always exists, and refuses to be read and written.
    let root = c"/".as_ptr().expose_provenance();
    let flags = (O_PATH | O_CLOEXEC) as usize;
    for fd in 0..3 {
        // SAFETY: it is only asked whether this file descriptor is open.
        let flags_of_fd = unsafe { arch::syscall5(__NR_fcntl, [fd, F_GETFD as usize, 0, 0, 0]) };
        if flags_of_fd == -(Errno::BADF.raw_os_error() as isize) {
            // SAFETY: the path is a string, which the kernel only reads. The new file descriptor
            // has the lowest free number, which is `fd`, and nobody owns it.
            unsafe { arch::syscall5(__NR_openat, [0, root, flags, 0, 0]) };
        }
    }
}
