//! The switches of the kernel that keep probes from being hit.

use linux_raw_sys::general::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC};

use super::evidence::{ARMED, Evidence, FTRACE};
use super::rights::number_in;
use crate::request::{KprobeOpts, Target};

/// Returns the switch of the kernel that keeps probes from being hit, if one is off:
/// [`Evidence::Disarmed`] or [`Evidence::FtraceOff`].
///
/// A probe attaches all the same. A file that cannot be read counts as a switch that is on.
#[must_use]
pub fn switched_off() -> Option<Evidence<'static>> {
    if number_in(ARMED, DEBUGFS_MAGIC) == Ok(0) {
        Some(Evidence::Disarmed)
    } else if PROBES_BY_FTRACE && number_in(FTRACE, PROC_SUPER_MAGIC) == Ok(0) {
        Some(Evidence::FtraceOff)
    } else {
        None
    }
}

/// Returns whether a trial would do harm.
///
/// With ftrace off, ftrace loses count when a probe of an entry is attached and detached. The next
/// detach causes a warning of the kernel. After that, ftrace and every probe of an entry are dead
/// until the next boot (seen on Linux 5.10 to 6.12).
pub(super) fn is_trial_harmful(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    may_be_by_ftrace(func, opts) && number_in(FTRACE, PROC_SUPER_MAGIC) == Ok(0)
}

/// Whether the kernel may place a probe by ftrace (`KPROBES_ON_FTRACE`).
const PROBES_BY_FTRACE: bool = cfg!(not(any(target_arch = "aarch64", target_arch = "arm")));

/// Returns whether the kernel may place this probe by ftrace. It does that at the entry of a
/// function, which can be some bytes after its symbol.
pub(super) const fn may_be_by_ftrace(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    PROBES_BY_FTRACE && (func.as_address().is_some() || opts.offset <= 16)
}
