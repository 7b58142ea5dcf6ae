//! The system call instruction of x86-64 (`syscall(2)`, "Architecture calling conventions").
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
    // SAFETY: the instruction changes rax, rcx and r11, which are all declared, and the memory that
    // the arguments point to, which the caller guarantees. The stack and its red zone are
    // unchanged.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr as usize => answer,
            in("rdi") a0,
            in("rsi") a1,
            in("rdx") a2,
            in("r10") a3,
            in("r8") a4,
            lateout("rcx") _, // the return address
            lateout("r11") _, // the flags
            options(nostack, preserves_flags)
        );
    }
    answer
}
