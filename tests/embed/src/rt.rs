//! The parts that a C library would provide on x86-64: the entry, the exit, and the memory
//! functions that the compiler calls. The program of this crate has the same in its own `rt`, for
//! every architecture.

use core::ffi::c_int;

use kprobe_attach::fd::BorrowedFd;

core::arch::global_asm!(
    ".globl embed_entry",
    "embed_entry:",
    "xor ebp, ebp",  // no caller's frame
    "call {start}",  // pushes a return address, which makes the stack what a function expects
    "ud2",
    start = sym start,
);

extern "C" fn start() -> ! {
    exit(crate::main().is_err().into())
}

fn exit(status: u64) -> ! {
    const EXIT_GROUP: u64 = 231;
    // SAFETY: exit_group(2) takes a number, and does not return.
    unsafe {
        core::arch::asm!(
            "syscall", in("rax") EXIT_GROUP, in("rdi") status,
            options(noreturn, nostack)
        );
    }
}

/// Returns standard output.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: nothing here closes it. If it was closed before, the first file descriptor that this
    // program opens has its number: the map's. It is open as long as the result is used, and the
    // kernel refuses to write to it (EINVAL).
    unsafe { rustix::stdio::stdout() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// The prebuilt core refers to these two functions in unoptimised builds. With `panic = "abort"`,
/// nothing calls them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(101)
}

/// # Safety
///
/// As for C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: it copies len bytes upwards, as the ABI keeps the direction flag clear.
    unsafe {
        core::arch::asm!("rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As for C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: going up never overwrites a byte that is still to be read.
        return unsafe { memcpy(to, from, len) };
    }
    for index in (0..len).rev() {
        // SAFETY: index is below len. Going down never overwrites a byte that is still to be read.
        unsafe { *to.add(index) = *from.add(index) };
        keep_loop();
    }
    to
}

/// # Safety
///
/// As for C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    // SAFETY: it fills len bytes upwards, as the ABI keeps the direction flag clear.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("eax") byte,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As for C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for index in 0..len {
        // SAFETY: index is below len.
        let (a, b) = unsafe { (*a.add(index), *b.add(index)) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
        keep_loop();
    }
    0
}

/// # Safety
///
/// As for C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the contract is the same.
    unsafe { memcmp(a, b, len) }
}

/// # Safety
///
/// As for C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the text extends to its NUL.
    while unsafe { *text.add(len) } != 0 {
        len += 1;
        keep_loop();
    }
    len
}

/// Keeps the compiler from replacing a loop by a call of the function that contains it.
#[inline]
fn keep_loop() {
    // SAFETY: it does nothing.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}
