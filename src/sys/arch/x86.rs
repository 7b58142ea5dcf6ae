//! The system call instruction of 32-bit x86 (`syscall(2)`, "Architecture calling conventions").
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
    // SAFETY: the kernel keeps the flags, and every register except eax, which is declared. The
    // compiler reserves esi, so it is exchanged with a register before the call, and back after it.
    // The compiler may give two inputs of the same value one register. That register is an output
    // too, so it is not shared. The kernel changes only the memory that the arguments point to,
    // which the caller guarantees. The stack is unchanged.
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
