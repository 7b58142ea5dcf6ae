//! The limit of locked memory, against which BPF objects count before Linux 5.11 (commit
//! 97306be45fbe).

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::diagnose::{bpf_error, has_capabilities};
use crate::error::{Cause, Error, Step};
use crate::sys;

/// Makes a BPF object, raising `RLIMIT_MEMLOCK` for the time of a second try if the first met
/// `EPERM`, which is what a limit too low looks like. The limit is the process's, not the thread's.
pub(super) fn with_memlock<T>(mut create: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match create() {
        Err(Errno::PERM) => {}
        created => return created,
    }
    let limit = rustix::process::getrlimit(Resource::Memlock);
    // To have none takes CAP_SYS_RESOURCE.
    let raised = set_limit(None, None) || set_limit(limit.maximum, limit.maximum);
    let again = create();
    if raised {
        // What was charged stays charged.
        set_limit(limit.current, limit.maximum);
    }
    again
}

fn set_limit(current: Option<u64>, maximum: Option<u64>) -> bool {
    rustix::process::setrlimit(Resource::Memlock, Rlimit { current, maximum }).is_ok()
}

/// Makes the error of an object that was not made.
pub(super) fn memlock_error(step: Step, errno: Errno, cause: Cause) -> Error {
    // With all that BPF takes at hand, it was the limit.
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

/// Whether this thread has the capabilities that BPF takes, and has them where they count: those of
/// a user namespace do not.
fn may_use_bpf() -> bool {
    has_capabilities() && sys::btf_load_nothing() != Err(Errno::PERM)
}
