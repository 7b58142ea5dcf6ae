//! Child processes that share the file descriptors of this one.

use core::mem::size_of;
use core::ptr;

use linux_raw_sys::general::{
    __NR_clone, __NR_exit_group, __NR_rt_sigprocmask, __WALL, CLONE_FILES, SIG_SETMASK,
};
use rustix::io::{Errno, Result};
use rustix::process::{Pid, WaitOptions};

use super::arch;
use super::call::result;

/// Represents a child process, which must be [waited](Self::wait) for.
#[must_use]
pub(super) struct Child(Option<Pid>);

impl Child {
    /// Starts a child that runs a function, and ends with its result as the exit status.
    ///
    /// The child is a fork(2) that shares the file descriptors (`CLONE_FILES`). Every signal is
    /// blocked in it, so that no handler runs. Its end causes no SIGCHLD, and only a `wait(2)` with
    /// `__WALL` sees it. A process that waits for its own children does not notice it.
    ///
    /// The function may only make system calls, because another thread can hold a lock.
    pub(super) fn start(flags: u32, run: impl FnOnce() -> i32) -> Result<Self> {
        let every_signal = u64::MAX;
        let mut old_mask = 0;
        set_signal_mask(every_signal, Some(&mut old_mask))?;
        let args = arch::clone_args(CLONE_FILES | flags);
        // SAFETY: clone with no new stack and no CLONE_VM is fork(2): the child has a copy of all
        // memory. The child only makes system calls, so it needs no lock that another thread held.
        // rustix is not built on libc here, or this crate does not compile. The child leaves this
        // function only by exit_group(2).
        let pid = match result(unsafe { arch::syscall5(__NR_clone, args) }) {
            Ok(0) => exit_group(run()),
            pid => pid,
        };
        // This mask was set a moment ago, so setting it cannot fail.
        let _ = set_signal_mask(old_mask, None);
        pid.map(|pid| Self(Pid::from_raw(i32::try_from(pid).unwrap_or_default())))
    }

    /// Waits for the end of the child, and returns its exit status, or 0 if a signal killed it.
    pub(super) fn wait(self) -> i32 {
        let options = WaitOptions::from_bits_retain(__WALL);
        loop {
            match rustix::process::waitpid(self.0, options) {
                Ok(ended) => {
                    return ended
                        .and_then(|(_, status)| status.exit_status())
                        .unwrap_or(0);
                }
                Err(Errno::INTR) => {}
                // Another thread waits for children of every kind. The caller sees from what the
                // child did.
                Err(_) => return 0,
            }
        }
    }
}

/// The most children that [`share_among_children`] starts.
const MAX_CHILDREN: usize = 16;

/// Says what a process does with a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Closes it.
    Close,
    /// Forgets it, because a child closes it. Its number may already be that of another file.
    Forget,
}

/// Closes file descriptors in child processes, so that they wait for the kernel at the same time.
///
/// `each` is called with each index below `count`: to close what is there in one process, and to
/// forget it in this one. The children share the table of file descriptors. What they close is
/// closed here too.
///
/// Returns the first errno of a share. It is `ECHILD` if a child was killed, which leaves the rest
/// of its share open.
pub(crate) fn share_among_children(
    children: usize,
    count: usize,
    each: &mut dyn FnMut(usize, Part) -> Result<()>,
) -> Result<()> {
    /// The exit status of a child that met no errno. A killed child has 0.
    const DONE: i32 = 255;
    let children = children.clamp(1, MAX_CHILDREN);
    let mut share = |number: usize, part| {
        let mut first = Ok(());
        for index in (number..count).step_by(children) {
            let result = each(index, part);
            first = first.and(result);
        }
        first
    };
    let mut started = [const { None }; MAX_CHILDREN];
    for (number, child) in started.iter_mut().take(children).enumerate() {
        let close = || match share(number, Part::Close) {
            Ok(()) => DONE,
            Err(errno) => errno.raw_os_error().clamp(1, DONE - 1),
        };
        *child = Child::start(0, close).ok();
    }
    let mut first = Ok(());
    for (number, child) in started.iter().take(children).enumerate() {
        let part = if child.is_some() {
            Part::Forget
        } else {
            Part::Close
        };
        let result = share(number, part);
        first = first.and(result);
    }
    for child in started.into_iter().flatten() {
        let result = match child.wait() {
            DONE => Ok(()),
            0 => Err(Errno::CHILD),
            errno => Err(Errno::from_raw_os_error(errno)),
        };
        first = first.and(result);
    }
    first
}

/// Sets the signals that this thread blocks, by `rt_sigprocmask(2)`.
fn set_signal_mask(mask: u64, old: Option<&mut u64>) -> Result<()> {
    let old = old.map_or(0, |old| ptr::from_mut(old).expose_provenance());
    let new = ptr::from_ref(&mask).expose_provenance();
    let args = [SIG_SETMASK as usize, new, old, size_of::<u64>(), 0];
    // SAFETY: a sigset of the kernel is 64 bits on every supported architecture. The kernel reads
    // the new one. It writes the old one where a `&mut u64` is, or nowhere.
    result(unsafe { arch::syscall5(__NR_rt_sigprocmask, args) }).map(drop)
}

/// Ends the process.
fn exit_group(status: i32) -> ! {
    loop {
        let status = usize::try_from(status).unwrap_or_default();
        // SAFETY: it takes a number, and does not return.
        unsafe { arch::syscall5(__NR_exit_group, [status, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn children_close_each_descriptor_once() {
        for children in [0, 1, 3, 100] {
            let open = || rustix::pipe::pipe().unwrap();
            let (read, written): (Vec<_>, Vec<_>) = (0..20).map(|_| open()).unzip();
            let mut written: Vec<_> = written.into_iter().map(Some).collect();
            let mut each = |index: usize, part| {
                match part {
                    Part::Close => drop(written[index].take()),
                    Part::Forget => core::mem::forget(written[index].take()),
                }
                if index == 7 { Err(Errno::BUSY) } else { Ok(()) }
            };
            let shared = share_among_children(children, 20, &mut each);
            assert_eq!(shared, Err(Errno::BUSY), "{children}");
            drop(written);
            // Nobody writes any more.
            for pipe in read {
                let end = rustix::io::read(&pipe, &mut [0; 1][..]);
                assert_eq!(end, Ok(0), "{children}");
            }
        }
    }
}
