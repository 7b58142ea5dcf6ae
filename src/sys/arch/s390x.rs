//! The system call instruction of s390x (`syscall(2)`, "Architecture calling conventions").
//!
//! # Safety
//!
//! The arguments must be what the system call named by `nr` expects.

/// Makes a system call with up to five arguments. Returns the kernel's answer, with an errno as its
/// negative.
#[inline]
pub(crate) unsafe fn syscall5(nr: u32, args: [usize; 5]) -> isize {
    let [a0, a1, a2, a3, a4] = args;
    let answer;
    // SAFETY: the kernel keeps every register except r2, which is declared, and the condition code.
    // It changes only the memory that the arguments point to, which the caller guarantees. For `svc
    // 0`, the number is in r1.
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
