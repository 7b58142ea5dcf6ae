//! The system call instruction of 32-bit ARM, in its EABI form (`syscall(2)`, "Architecture calling
//! conventions").
//!
//! # Safety
//!
//! The arguments must be what the system call named by `nr` expects.

/// A system call of up to five arguments; the answer is the kernel's, an errno as its negative.
#[inline]
pub(crate) unsafe fn syscall5(nr: u32, args: [usize; 5]) -> isize {
    let [a0, a1, a2, a3, a4] = args;
    let answer;
    // SAFETY: the kernel keeps every register but r0, which is declared, and the flags. r7, which
    // takes the number and is the frame pointer of Thumb code, is as it was when the instructions
    // end: it is put aside in a register of its own, and should that or the number's be r7 itself,
    // as it may be in ARM code, the moves come out right as well. The kernel changes only the
    // memory that the arguments point to, for which the caller answers; the stack stays as it is.
    unsafe {
        core::arch::asm!(
            "mov {r7}, r7",
            "mov r7, {nr}",
            "svc 0",
            "mov r7, {r7}",
            nr = in(reg) nr,
            r7 = out(reg) _,
            inlateout("r0") a0 => answer,
            in("r1") a1,
            in("r2") a2,
            in("r3") a3,
            in("r4") a4,
            options(nostack, preserves_flags)
        );
    }
    answer
}
