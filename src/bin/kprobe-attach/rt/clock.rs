//! The clock.

use core::ptr;

use linux_raw_sys::general::{CLOCK_MONOTONIC, CLOCK_REALTIME};
// As in `signals`.
use super::arch;
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::__NR_clock_gettime as CLOCK_GETTIME;
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::__NR_clock_gettime64 as CLOCK_GETTIME;

/// A time that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Returns the nanoseconds of `CLOCK_MONOTONIC`, or 0 on a 32-bit kernel without 64-bit time
/// (before Linux 5.1).
///
/// rustix uses the vDSO, for which it needs `/proc` on kernels before 6.4.
pub(crate) fn now() -> u64 {
    time_of(CLOCK_MONOTONIC)
}

/// Returns the nanoseconds since 1970, or 0 where [`now`] does.
pub(crate) fn time_of_day() -> u64 {
    time_of(CLOCK_REALTIME)
}

fn time_of(clock: u32) -> u64 {
    let mut time = [0_u64; 2];
    let address = ptr::from_mut(&mut time).expose_provenance();
    // SAFETY: a time is two numbers of 64 bits, and is written to `time`.
    unsafe { arch::syscall5(CLOCK_GETTIME, [clock as usize, address, 0, 0, 0]) };
    let [seconds, nanoseconds] = time;
    seconds * 1_000_000_000 + nanoseconds
}
