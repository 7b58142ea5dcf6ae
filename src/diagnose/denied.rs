//! Who denies permission.
//!
//! EPERM and EACCES can come from a missing capability, `perf_event_paranoid`, a seccomp filter or
//! lockdown, and ENOSYS from a filter or a kernel without the system call. Further system calls
//! tell these apart. They change nothing, and only some of these would refuse them.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, SecureComputingMode};

use crate::error::Cause;
use crate::sys;

/// `PERF_TYPE_SOFTWARE` and `PERF_COUNT_SW_DUMMY` (Linux 3.12): an event that never counts
/// anything.
pub(crate) const DUMMY_EVENT: (u32, u64) = (1, 9);

/// Finds out who denied `perf_event_open(2)` with EACCES, EPERM or ENOSYS.
pub(crate) fn perf_event_denied(errno: Errno) -> Cause {
    let (r#type, config) = DUMMY_EVENT;
    perf_event_cause(
        errno,
        is_filtered() && sys::perf_event_open_nothing().err() != Some(Errno::FAULT),
        sys::perf_event_open_own(r#type, config).err(),
    )
}

/// Returns whether this process has a seccomp filter, or may have one.
fn is_filtered() -> bool {
    rustix::thread::secure_computing_mode() != Ok(SecureComputingMode::Disabled)
}

/// Decides by two more answers: whether a filter also refuses [no
/// event](sys::perf_event_open_nothing), and the errno of [an event that takes no
/// capability](sys::perf_event_open_own).
fn perf_event_cause(errno: Errno, refuses_all: bool, own: Option<Errno>) -> Cause {
    match errno {
        _ if refuses_all => Cause::Seccomp,
        Errno::ACCESS if own == Some(Errno::ACCESS) => Cause::PerfEventParanoid,
        Errno::ACCESS => Cause::NoPermission,
        Errno::NOSYS => Cause::UnsupportedArch,
        // Of the kernel's own checks, only lockdown returns EPERM.
        _ => Cause::Lockdown,
    }
}

/// Finds out who denied a BPF command with EPERM.
///
/// Some kernels (5.10, but not 6.1) refuse every command to a process whose `CAP_BPF` is missing,
/// or counts only in a user namespace. A filter does the same. The cause is therefore a filter only
/// if the process has one and has the capabilities.
pub(crate) fn bpf_denied() -> Cause {
    if is_filtered() && has_capabilities() && sys::link_create_nothing().err() == Some(Errno::PERM)
    {
        Cause::Seccomp
    } else {
        Cause::NoPermission
    }
}

/// Finds out why a system call does not exist. Every kernel that has kprobes for BPF has it, so a
/// filter is the cause if there is one.
pub(crate) fn missing_call() -> Cause {
    if is_filtered() {
        Cause::Seccomp
    } else {
        Cause::UnsupportedArch
    }
}

/// Returns whether this thread has the capabilities for loading a kprobe program, in whatever user
/// namespace.
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
            // The kernel allows it, and has no file descriptor left.
            (
                Errno::ACCESS,
                false,
                Some(Errno::MFILE),
                Cause::NoPermission,
            ),
            (Errno::PERM, false, None, Cause::Lockdown),
            (Errno::PERM, false, ACCESS, Cause::Lockdown),
            // A filter can return any errno.
            (Errno::PERM, true, Some(Errno::PERM), Cause::Seccomp),
            (Errno::ACCESS, true, ACCESS, Cause::Seccomp),
            (Errno::NOSYS, true, Some(Errno::NOSYS), Cause::Seccomp),
            (
                Errno::NOSYS,
                false,
                Some(Errno::NOSYS),
                Cause::UnsupportedArch,
            ),
        ] {
            assert_eq!(
                perf_event_cause(errno, refuses_all, own),
                cause,
                "{errno:?} {refuses_all} {own:?}"
            );
        }
    }
}
