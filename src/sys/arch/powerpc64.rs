//! The system call instruction of 64-bit PowerPC (`Documentation/arch/powerpc/syscall64-abi.rst`).
//! Every processor has this one, but not every one has its successor `scv`.
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
    // SAFETY: the kernel can change the registers that a function can change. It keeps the link
    // register, cr1, cr5 to cr7, and the floating point and vector registers. The rest is r0, r3 to
    // r12, cr0, ctr and xer, which are all declared. It changes only the memory that the arguments
    // point to, which the caller guarantees. The summary overflow bit of cr0 marks a failed call,
    // whose errno is in r3.
    unsafe {
        core::arch::asm!(
            "sc",
            "bns 2f",
            "neg 3, 3",
            "2:",
            inlateout("r0") nr as usize => _,
            inlateout("r3") a0 => answer,
            inlateout("r4") a1 => _,
            inlateout("r5") a2 => _,
            inlateout("r6") a3 => _,
            inlateout("r7") a4 => _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _, lateout("r12") _,
            lateout("cr0") _, lateout("ctr") _, lateout("xer") _,
            options(nostack)
        );
    }
    answer
}
