//! The system call instruction of 64-bit ARM (`syscall(2)`, "Architecture calling conventions").
//!
//! # Safety
//!
//! The arguments must be what the system call named by `nr` expects.

/// A system call of up to five arguments; the answer is the kernel's, an errno as its negative.
#[inline]
pub(super) unsafe fn syscall5(nr: u32, args: [usize; 5]) -> isize {
    let [a0, a1, a2, a3, a4] = args;
    let answer;
    // SAFETY: the kernel keeps every register but x0, which is declared; it changes only the memory that the
    // arguments point to, for which the caller answers.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr as usize,
            inlateout("x0") a0 => answer,
            in("x1") a1,
            in("x2") a2,
            in("x3") a3,
            in("x4") a4,
            options(nostack, preserves_flags)
        );
    }
    answer
}
