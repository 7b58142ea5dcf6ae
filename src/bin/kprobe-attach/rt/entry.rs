//! The entry point, to which the kernel jumps.

use super::fds::open_standard_fds;
use super::process::exit;
use super::start::Start;

// The kernel leaves argc at the stack pointer, and argv, envp and the auxiliary vector above it.
// The frame pointer and the return address are set to zero, where a debugger stops unwinding. The
// stack pointer is already aligned to 16 bytes, and a call keeps the alignment that the ABI wants.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "xor ebp, ebp",  // no caller's frame
    "mov rdi, rsp",  // the first argument: what the kernel left
    "call {start}",  // pushes a return address, which makes the stack what a function expects
    "ud2",           // it does not return
    start = sym start,
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "mov x29, xzr", // no caller's frame
    "mov x30, xzr", // and no return address
    "mov x0, sp",   // the first argument: what the kernel left
    "b {start}",
    start = sym start,
);
#[cfg(target_arch = "riscv64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    ".option push",
    ".option norelax",         // gp cannot be reached through gp
    "la gp, __global_pointer$",
    ".option pop",
    "mv a0, sp",               // the first argument: what the kernel left
    "mv fp, zero",             // no caller's frame
    "mv ra, zero",             // and no return address
    "tail {start}",
    start = sym start,
);
#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "xor ebp, ebp", // no caller's frame
    "mov eax, esp",
    "sub esp, 12",  // what makes a multiple of 16 with
    "push eax",     // the first argument: what the kernel left
    "call {start}",
    "ud2",          // it does not return
    start = sym start,
);
#[cfg(target_arch = "arm")]
core::arch::global_asm!(
    // Every processor that runs Thumb code for Linux runs ARM code as well, and the linker knows
    // how to call one from the other.
    ".arm",
    ".globl kprobe_attach_entry",
    ".type kprobe_attach_entry, %function",
    "kprobe_attach_entry:",
    "mov r7, #0",  // no caller's frame, in Thumb
    "mov r11, #0", // and in ARM code
    "mov r0, sp",  // the first argument: what the kernel left
    "bl {start}",
    // It does not return. Nothing unwinds, but the tables for unwinding refer to these two. They
    // are no functions of Rust, which LLVM would merge with `rust_eh_personality`.
    ".globl __aeabi_unwind_cpp_pr0",
    "__aeabi_unwind_cpp_pr0:",
    ".globl __aeabi_unwind_cpp_pr1",
    "__aeabi_unwind_cpp_pr1:",
    "udf #0",
    start = sym start,
);
#[cfg(target_arch = "s390x")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    "lgr %r2, %r15",          // the first argument: what the kernel left
    "aghi %r15, -160",        // where a function saves the registers of its caller
    "xc 0(8,%r15), 0(%r15)",  // no caller's frame
    "brasl %r14, {start}",
    ".short 0",               // no instruction: it does not return
    start = sym start,
);
#[cfg(target_arch = "powerpc64")]
core::arch::global_asm!(
    ".globl kprobe_attach_entry",
    "kprobe_attach_entry:",
    // The kernel leaves the address of the entry in r12.
    "addis 2, 12, .TOC.-kprobe_attach_entry@ha",
    "addi 2, 2, .TOC.-kprobe_attach_entry@l",
    "mr 3, 1",       // the first argument: what the kernel left
    "li 0, 0",
    "stdu 0, -32(1)", // where a function saves its caller's link register; no caller's frame
    "bl {start}",
    "nop",
    "trap",          // it does not return
    start = sym start,
);

/// # Safety
///
/// Only `kprobe_attach_entry` may call this, with the initial stack.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    open_standard_fds();
    // SAFETY: it is the initial stack.
    let start = unsafe { Start::new(stack) };
    exit(crate::main(&start))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::out::bug(info);
    exit(crate::FAILURE)
}

/// The prebuilt core refers to these two functions if it was not optimised. With
/// `panic = "abort"` nothing calls them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(crate::FAILURE)
}
