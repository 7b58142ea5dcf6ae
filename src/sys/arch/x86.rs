//! The system call instruction of 32-bit x86 (`syscall(2)`, "Architecture calling conventions").
//!
//! # Safety
//!
//! The arguments must be what the system call named by `nr` expects.

/// A system call of up to five arguments; the answer is the kernel's, an errno as its negative.
#[inline]
pub(crate) unsafe fn syscall5(nr: u32, args: [usize; 5]) -> isize {
    let [a0, a1, a2, a3, a4] = args;
    let answer;
    // SAFETY: the kernel keeps every register but eax, which is declared, and the flags. esi, which
    // the compiler keeps for itself, is exchanged with a register that is written to as far as the
    // compiler knows, and so is none of the others (two inputs of the same value may share one);
    // afterwards both are as they were. The kernel changes only the memory that the arguments point
    // to, for which the caller answers; the stack stays as it is.
    unsafe {
        core::arch::asm!(
            "xchg esi, {a3}",
            "int 0x80",
            "xchg esi, {a3}",
            a3 = inout(reg) a3 => _,
            inlateout("eax") nr as usize => answer,
            in("ebx") a0,
            in("ecx") a1,
            in("edx") a2,
            in("edi") a4,
            options(nostack, preserves_flags)
        );
    }
    answer
}
