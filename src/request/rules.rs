//! The rules that a request must keep, whatever the kernel can do.

use super::invalid::Invalid;
use super::mode::AttachMode;
use super::opts::{KprobeOpts, MAX_MAXACTIVE};
use super::target::Target;

/// Checks all the rules that do not depend on the kernel.
pub(crate) fn check_request(target: &Target<'_>, opts: &KprobeOpts) -> Result<(), Invalid> {
    check_place(target, opts)?;
    opts.attach_mode
        .map_or(Ok(()), |mode| check_mode(mode, opts))
}

/// The lowest address at which the kernel's part of the address space can begin.
///
/// It is the upper half on 64-bit machines. On 32-bit machines it can be the upper three quarters
/// (`VMSPLIT_1G`); on arm, modules lie up to 16 MiB below that. On s390x the kernel has an address
/// space of its own, and only the low core is excluded.
///
/// A 32-bit program takes only addresses of a 32-bit kernel. A 64-bit address would be cut off, and
/// another function would be probed.
const KERNEL_START: u64 = if cfg!(target_arch = "s390x") {
    0x2000
} else if cfg!(target_arch = "arm") {
    0x3f00_0000
} else if cfg!(target_pointer_width = "32") {
    0x4000_0000
} else {
    1 << 63
};

/// The last address that can be one of the kernel's.
///
/// The kernel keeps its error pointers in the last page. Before Linux 5.18 it returned such an
/// address as an errno.
const LAST_ADDRESS: u64 = usize::MAX as u64 - 4096;

/// Returns whether an address is in the kernel's part of the address space.
pub(crate) const fn is_kernel_address(address: u64) -> bool {
    address >= KERNEL_START && address <= LAST_ADDRESS
}

/// Checks the rules between target and options that hold in every mode.
const fn check_place(target: &Target<'_>, opts: &KprobeOpts) -> Result<(), Invalid> {
    if let Some(address) = target.known_address() {
        if !is_kernel_address(address) {
            return Err(Invalid::NotKernelAddress);
        }
        if opts.offset != 0 && target.as_address().is_some() {
            return Err(Invalid::OffsetOnAddress);
        }
        if cfg!(feature = "files") && opts.offset > LAST_ADDRESS - address {
            return Err(Invalid::OffsetBeyondFunction);
        }
    }
    if opts.offset != 0 {
        // `kprobe.offset` is an unsigned int. The PMU cuts a larger offset, and would probe another
        // instruction.
        if opts.offset > u32::MAX as u64 {
            return Err(Invalid::OffsetTooLarge);
        }
        if opts.retprobe {
            return Err(Invalid::OffsetOnRetprobe);
        }
        if cfg!(feature = "files") && target.is_syscall() {
            return Err(Invalid::OffsetOnSyscall);
        }
    }
    if opts.maxactive != 0 {
        if opts.maxactive > MAX_MAXACTIVE {
            return Err(Invalid::MaxactiveTooLarge);
        }
        if !opts.retprobe {
            return Err(Invalid::MaxactiveOnEntry);
        }
    }
    Ok(())
}

/// Checks the rules between mode and options: a mode must be able to carry each option.
pub(crate) const fn check_mode(mode: AttachMode, opts: &KprobeOpts) -> Result<(), Invalid> {
    if opts.bpf_cookie != 0 && !mode.uses_link() {
        return Err(Invalid::CookieWithoutLink);
    }
    if opts.maxactive != 0 && !mode.uses_tracefs() {
        return Err(Invalid::MaxactiveOnPmu);
    }
    Ok(())
}
