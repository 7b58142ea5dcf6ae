//! The system call instruction of s390x (`syscall(2)`, "Architecture calling conventions").
//!
//! # Safety
//!
//! The arguments must be what the system call named by `nr` expects.

/// A system call of up to five arguments; the answer is the kernel's, an errno as its negative.
#[inline]
pub(crate) unsafe fn syscall5(nr: u32, args: [usize; 5]) -> isize {
    let [a0, a1, a2, a3, a4] = args;
    let answer;
    // SAFETY: the kernel keeps every register but r2, which is declared, and the condition code; it
    // changes only the memory that the arguments point to, for which the caller answers. The number
    // is in r1 where that of the instruction is 0.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("r1") nr as usize,
            inlateout("r2") a0 => answer,
            in("r3") a1,
            in("r4") a2,
            in("r5") a3,
            in("r6") a4,
            options(nostack, preserves_flags)
        );
    }
    answer
}
