//! The system call instruction of 32-bit ARM, in its EABI form (`syscall(2)`, "Architecture calling
//! conventions").
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
    // SAFETY: the kernel keeps the flags, and every register except r0, which is declared. r7 holds
    // the number, and is the frame pointer of Thumb code. It is saved in another register and
    // restored at the end. In ARM code, that register or the number's can be r7 itself; the moves
    // are correct then too. The kernel changes only the memory that the arguments point to, which
    // the caller guarantees. The stack is unchanged.
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
