//! The rules that a request must keep, whatever the kernel can do.

use super::invalid::Invalid;
use super::mode::AttachMode;
use super::opts::{KprobeOpts, MAX_MAXACTIVE};
use super::target::Target;

/// All the rules that a request must keep, whatever the kernel.
pub(crate) fn check_request(target: &Target<'_>, opts: &KprobeOpts) -> Result<(), Invalid> {
    check_target(target, opts)?;
    opts.attach_mode
        .map_or(Ok(()), |mode| check_mode(mode, opts))
}

/// Where the kernel's part of the address space begins at the lowest: that is the upper half, on
/// 32-bit machines up to three quarters (`VMSPLIT_1G`), on arm 16 MiB more for modules, and on
/// s390x, where it has an address space of its own, all but the low core. A 32-bit program takes
/// addresses of a 32-bit kernel alone, which would cut off others, and probe another function.
const KERNEL_START: u64 = if cfg!(target_arch = "s390x") {
    0x2000
} else if cfg!(target_arch = "arm") {
    0x3f00_0000
} else if cfg!(target_pointer_width = "32") {
    0x4000_0000
} else {
    1 << 63
};

/// The rules between target and options that hold in every mode.
const fn check_target(target: &Target<'_>, opts: &KprobeOpts) -> Result<(), Invalid> {
    if let Some(address) = target.as_address() {
        // The last page is where the kernel keeps its error pointers: before Linux 5.18 such an
        // "address" came back as a made-up errno.
        if address < KERNEL_START || address > usize::MAX as u64 - 4096 {
            return Err(Invalid::NotKernelAddress);
        }
        if opts.offset != 0 {
            return Err(Invalid::OffsetOnAddress);
        }
    }
    // `kprobe.offset` is an unsigned int: the PMU cuts off what is above, and would probe another
    // instruction.
    if opts.offset > u32::MAX as u64 {
        return Err(Invalid::OffsetTooLarge);
    }
    if opts.retprobe && opts.offset != 0 {
        return Err(Invalid::OffsetOnRetprobe);
    }
    if opts.maxactive > MAX_MAXACTIVE {
        return Err(Invalid::MaxactiveTooLarge);
    }
    if opts.maxactive != 0 && !opts.retprobe {
        return Err(Invalid::MaxactiveOnEntry);
    }
    Ok(())
}

/// The rules between mode and options: what a mode cannot carry.
pub(crate) const fn check_mode(mode: AttachMode, opts: &KprobeOpts) -> Result<(), Invalid> {
    if opts.bpf_cookie != 0 && !mode.uses_link() {
        return Err(Invalid::CookieWithoutLink);
    }
    if opts.maxactive != 0 && !mode.uses_tracefs() {
        return Err(Invalid::MaxactiveOnPmu);
    }
    Ok(())
}
