//! The clock.

use core::ptr;

use linux_raw_sys::general::CLOCK_MONOTONIC;
// As in `signals`.
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::__NR_clock_gettime as CLOCK_GETTIME;
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::__NR_clock_gettime64 as CLOCK_GETTIME;
use rustix::time::Timespec;

use super::arch;

/// Returns the time of `CLOCK_MONOTONIC`, or [`None`] on a 32-bit kernel without 64-bit time
/// (before Linux 5.1).
///
/// rustix uses the vDSO, for which it needs `/proc` on kernels before 6.4.
pub(crate) fn monotonic_clock() -> Option<Timespec> {
    let mut now = Timespec::default();
    let address = ptr::from_mut(&mut now).expose_provenance();
    // SAFETY: a Timespec is what this system call writes, and it is written to `now`.
    let answer =
        unsafe { arch::syscall5(CLOCK_GETTIME, [CLOCK_MONOTONIC as usize, address, 0, 0, 0]) };
    (answer == 0).then_some(now)
}
