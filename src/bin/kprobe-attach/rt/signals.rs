//! Signals, which end the program by detaching.

use core::ptr;

use linux_raw_sys::general::{__NR_rt_sigaction, __NR_rt_sigprocmask, SIGCHLD};
// The system call whose seconds have 64 bits, as a `Timespec` has them: on 32-bit machines Linux
// 5.1.
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::__NR_rt_sigtimedwait as SIGTIMEDWAIT;
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::__NR_rt_sigtimedwait_time64 as SIGTIMEDWAIT;
use rustix::time::Timespec;

use super::arch;

/// Holds back the signals that end the program, and the signal of a child that ended, until the
/// program [waits for](Self::wait) them.
#[derive(Debug)]
pub(crate) struct Signals {
    set: u64,
    /// The mask that was set before, which a command gets back.
    old: u64,
}

/// The signals of `signal(7)` that this program takes, so that it can detach first.
const TAKEN: [u32; 6] = [
    linux_raw_sys::general::SIGHUP,
    linux_raw_sys::general::SIGINT,
    linux_raw_sys::general::SIGQUIT,
    linux_raw_sys::general::SIGPIPE,
    linux_raw_sys::general::SIGTERM,
    SIGCHLD,
];

impl Signals {
    /// Holds the signals back, but for those that the caller ignores, as `nohup` does.
    pub(crate) fn block() -> Self {
        const SIG_BLOCK: usize = 0;
        const SIG_IGN: usize = 1;
        // If this signal were ignored, a child's end would not be reported, and leave no status.
        disposition(SIGCHLD, Some([0; SIGACTION_WORDS]));
        let taken = TAKEN
            .iter()
            .filter(|signal| disposition(**signal, None) != SIG_IGN);
        let set = taken.fold(0, |set, signal| set | 1 << (signal - 1));
        let mut signals = Self { set, old: 0 };
        let old = ptr::from_mut(&mut signals.old);
        // SAFETY: a sigset of the kernel is 64 bits on the architectures served, and a u64 in
        // memory; the old one is written to `signals.old`.
        unsafe {
            arch::syscall5(
                __NR_rt_sigprocmask,
                [
                    SIG_BLOCK,
                    ptr::from_ref(&set).expose_provenance(),
                    old.expose_provenance(),
                    size_of::<u64>(),
                    0,
                ],
            )
        };
        signals
    }

    /// Restores the mask.
    pub(super) fn restore(&self) {
        const SIG_SETMASK: usize = 2;
        // SAFETY: as in `block`; the mask is only read.
        unsafe {
            arch::syscall5(
                __NR_rt_sigprocmask,
                [
                    SIG_SETMASK,
                    ptr::from_ref(&self.old).expose_provenance(),
                    0,
                    size_of::<u64>(),
                    0,
                ],
            )
        };
    }

    /// Waits for one of the signals, or until the time has passed: `sigtimedwait(2)`.
    pub(crate) fn wait(&self, timeout: Option<Timespec>) -> Option<u32> {
        let timeout = timeout
            .as_ref()
            .map_or(0, |timeout| ptr::from_ref(timeout).expose_provenance());
        // SAFETY: set is 64 bits, the info is not asked for, and a Timespec is what this system
        // call takes.
        let signal = unsafe {
            arch::syscall5(
                SIGTIMEDWAIT,
                [
                    ptr::from_ref(&self.set).expose_provenance(),
                    0,
                    timeout,
                    size_of::<u64>(),
                    0,
                ],
            )
        };
        // EAGAIN: the time is up. EINTR: another signal came; the caller looks at the clock.
        u32::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}

/// The words of the kernel's `struct sigaction`: handler, flags, a restorer on some architectures,
/// and the mask of 64 bits.
const SIGACTION_WORDS: usize = 3 + size_of::<u64>() / size_of::<usize>();

/// Returns the handler that a signal has, and replaces it if `new` is given: `rt_sigaction(2)`. The
/// handler may be `SIG_DFL` (0) or `SIG_IGN` (1).
fn disposition(signal: u32, new: Option<[usize; SIGACTION_WORDS]>) -> usize {
    let mut old = [0; SIGACTION_WORDS];
    let new = new
        .as_ref()
        .map_or(0, |new| ptr::from_ref(new).expose_provenance());
    let old_address = ptr::from_mut(&mut old).expose_provenance();
    // SAFETY: both are at least as large as the struct, whose first word is the handler; no handler
    // is installed but the kernel's own.
    unsafe {
        arch::syscall5(
            __NR_rt_sigaction,
            [signal as usize, new, old_address, size_of::<u64>(), 0],
        )
    };
    let [handler, ..] = old;
    handler
}
