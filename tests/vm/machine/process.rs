//! Children of this process that share some numbers with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

/// A child by fork(2), which runs a closure and ends with whether it went well.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
}

impl Child {
    pub(crate) fn fork(run: impl FnOnce()) -> Self {
        #[allow(unsafe_code, reason = "no library forks without exec")]
        // SAFETY: the child has a copy of this thread alone, and of locks. No other thread of the
        // tests runs just now that could hold one (ci/init lets them run one by one), and malloc's
        // the C library puts in order at a fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        let Some(pid) = Pid::from_raw(pid) else {
            std::panic::set_hook(Box::new(|info| {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("child: {info}\n").as_bytes(),
                );
            }));
            let ended = catch_unwind(AssertUnwindSafe(run));
            #[allow(unsafe_code, reason = "the parent's destructors are not the child's")]
            // SAFETY: ends the child.
            unsafe {
                libc::_exit(ended.is_err().into())
            }
        };
        Self { pid }
    }

    pub(crate) fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = rustix::process::waitid(WaitId::Pid(self.pid), options).unwrap();
        ended.is_none()
    }

    pub(crate) fn kill(&self) {
        rustix::process::kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Waits until the child has ended, and so has all that ends with it.
    pub(crate) fn wait(self) -> WaitStatus {
        let (_, status) = rustix::process::waitpid(Some(self.pid), WaitOptions::empty())
            .unwrap()
            .unwrap();
        status
    }
}

/// Numbers in memory that children share, zero at first.
pub(crate) fn shared<const N: usize>() -> &'static [AtomicU64; N] {
    const PAGE: usize = 4096;
    assert!(size_of::<[AtomicU64; N]>() <= PAGE);
    #[allow(unsafe_code, reason = "no library maps shared memory for atomics")]
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED);
    #[allow(unsafe_code, reason = "see above")]
    // SAFETY: a page of zeros, as large and as aligned as the array, and never unmapped.
    unsafe {
        &*address.cast()
    }
}
