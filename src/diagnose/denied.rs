//! Who said no. EPERM and EACCES are the words of missing capabilities, of `perf_event_paranoid`,
//! of seccomp filters and of lockdown alike; calls that change nothing, and that not all of these
//! would refuse, tell them apart.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, SecureComputingMode};

use crate::error::{Cause, Step};
use crate::sys;

/// `PERF_TYPE_SOFTWARE` and `PERF_COUNT_SW_DUMMY` (Linux 3.12): an event that never counts
/// anything.
pub(crate) const DUMMY_EVENT: (u32, u64) = (1, 9);

/// Whose EACCES or EPERM it is that a step of an attach met.
pub(crate) fn denied(step: Step, errno: Errno) -> Cause {
    match (step, errno) {
        (Step::PerfEventOpen, errno) => perf_event_denied(errno),
        (_, Errno::PERM) => bpf_denied(),
        // A Linux security module's word.
        _ => Cause::NoPermission,
    }
}

/// Whose EACCES or EPERM it is that `perf_event_open(2)` met.
pub(crate) fn perf_event_denied(errno: Errno) -> Cause {
    let (r#type, config) = DUMMY_EVENT;
    perf_event_cause(
        errno,
        is_filtered() && sys::perf_event_open_nothing().err() != Some(Errno::FAULT),
        sys::perf_event_open_own(r#type, config).err(),
    )
}

/// Whether there is a seccomp filter, or may be.
fn is_filtered() -> bool {
    rustix::thread::secure_computing_mode() != Ok(SecureComputingMode::Disabled)
}

/// The same from whether a filter refuses [no event](sys::perf_event_open_nothing) too, and from
/// the answer for [one that takes no capability](sys::perf_event_open_own).
fn perf_event_cause(errno: Errno, refuses_all: bool, own: Option<Errno>) -> Cause {
    match errno {
        _ if refuses_all => Cause::Seccomp,
        Errno::ACCESS if own == Some(Errno::ACCESS) => Cause::PerfEventParanoid,
        Errno::ACCESS => Cause::NoPermission,
        // Of the kernel's own checks only this one says EPERM.
        _ => Cause::Lockdown,
    }
}

/// Whose EPERM it is that a BPF command met.
///
/// An older kernel (5.10, no longer 6.1) refuses every command, as a filter does, to a process
/// without `CAP_BPF` or with that of a user namespace. So it is a filter's only where there is one,
/// and the capabilities are there.
pub(crate) fn bpf_denied() -> Cause {
    if is_filtered() && has_capabilities() && sys::link_create_nothing().err() == Some(Errno::PERM)
    {
        Cause::Seccomp
    } else {
        Cause::NoPermission
    }
}

/// Whether this thread has the capabilities that loading a program for kprobes takes, whether or
/// not they count.
pub(crate) fn has_capabilities() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(CapabilitySet::SYS_ADMIN)
            || sets
                .effective
                .contains(CapabilitySet::BPF | CapabilitySet::PERFMON)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_and_two_more_answers_tell_who_denies_an_event() {
        const ACCESS: Option<Errno> = Some(Errno::ACCESS);
        for (errno, refuses_all, own, cause) in [
            (Errno::ACCESS, false, None, Cause::NoPermission),
            (Errno::ACCESS, false, ACCESS, Cause::PerfEventParanoid),
            // The kernel lets it pass, and has no file descriptor left.
            (
                Errno::ACCESS,
                false,
                Some(Errno::MFILE),
                Cause::NoPermission,
            ),
            (Errno::PERM, false, None, Cause::Lockdown),
            (Errno::PERM, false, ACCESS, Cause::Lockdown),
            // A filter may say what it likes.
            (Errno::PERM, true, Some(Errno::PERM), Cause::Seccomp),
            (Errno::ACCESS, true, ACCESS, Cause::Seccomp),
        ] {
            assert_eq!(
                perf_event_cause(errno, refuses_all, own),
                cause,
                "{errno:?} {refuses_all} {own:?}"
            );
        }
    }
}
