//! The limit of locked memory. BPF objects count against it before Linux 5.11 (commit
//! 97306be45fbe).

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::diagnose::{bpf_error, has_capabilities};
use crate::error::{Cause, Error, Step};
use crate::sys;

/// Makes a BPF object. A limit that is too low shows as `EPERM`; then `RLIMIT_MEMLOCK` is raised
/// for a second try. The limit is that of the process, not of the thread.
pub(super) fn with_memlock<T>(mut create: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut created = Err(Errno::PERM);
    raise_if_refused(&mut || {
        created = create();
        matches!(created, Err(Errno::PERM))
    });
    created
}

/// Calls `is_refused`, and calls it again under a higher limit if it returns true.
fn raise_if_refused(is_refused: &mut dyn FnMut() -> bool) {
    if !is_refused() {
        return;
    }
    let limit = rustix::process::getrlimit(Resource::Memlock);
    // To remove the limit takes CAP_SYS_RESOURCE.
    let raised = set_limit(None, None) || set_limit(limit.maximum, limit.maximum);
    is_refused();
    if raised {
        // Memory that was charged under the higher limit stays charged.
        set_limit(limit.current, limit.maximum);
    }
}

fn set_limit(current: Option<u64>, maximum: Option<u64>) -> bool {
    rustix::process::setrlimit(Resource::Memlock, Rlimit { current, maximum }).is_ok()
}

/// Makes the error of an object that was not made.
pub(super) fn memlock_error(step: Step, errno: Errno, cause: Cause) -> Error {
    // With every capability that BPF takes, the limit is the only reason left.
    if errno == Errno::PERM
        && rustix::process::getrlimit(Resource::Memlock)
            .maximum
            .is_some()
        && may_use_bpf()
    {
        return Error::new(step, errno, Cause::MemlockLimit);
    }
    bpf_error(step, errno, cause)
}

/// Returns whether this thread has the capabilities that BPF takes in the initial user namespace.
/// Those of another user namespace do not count.
fn may_use_bpf() -> bool {
    has_capabilities() && sys::btf_load_nothing() != Err(Errno::PERM)
}
