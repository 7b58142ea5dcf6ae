//! A child process that mounts a file system in a mount namespace of its own.

use core::ffi::CStr;
use core::mem::size_of;
use core::ptr;

use linux_raw_sys::general::{
    __NR_clone, __NR_exit_group, __NR_rt_sigprocmask, __WALL, CLONE_FILES, CLONE_NEWNS, SIG_SETMASK,
};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno, Result};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, WaitOptions};

use super::arch;
use super::call::result;

/// Mounts a file system in a mount namespace that is a child's own and ends with it, and makes
/// `dir` its root directory, which stays usable. A child that dies of a signal may not have come to
/// that, and one that dies between two certain system calls leaves a file descriptor open.
///
/// The child is a fork(2) that shares the file descriptors (`CLONE_FILES`), so `dir` is replaced
/// for this process too, and it has every signal kept back, so that no handler runs in it. That it
/// ends is told to nobody: no SIGCHLD, and no `wait(2)` without `__WALL`, so that a process that
/// waits for children of its own does not meet it.
pub(crate) fn mount_privately(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    let every_signal = u64::MAX;
    let mut old_mask = 0;
    set_signal_mask(every_signal, Some(&mut old_mask))?;
    let args = arch::clone_args(CLONE_FILES | CLONE_NEWNS);
    // SAFETY: clone with no new stack and no CLONE_VM is fork(2): the child has a copy of all
    // memory. It makes system calls and nothing else, whatever other threads held when it was
    // forked (rustix is not built on libc, or this crate does not compile), and leaves this
    // function by exit_group(2) alone. The file descriptors are shared; what it opens it closes.
    let pid = match result(unsafe { arch::syscall5(__NR_clone, args) }) {
        Ok(0) => {
            let errno = mount_over_root(fs_type, dir).err();
            exit_group(errno.map_or(0, Errno::raw_os_error));
        }
        pid => pid,
    };
    let status = pid.map(|pid| wait_for_clone(i32::try_from(pid).unwrap_or_default()));
    // It was this mask a moment ago, so setting it cannot fail.
    let _ = set_signal_mask(old_mask, None);
    match status? {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Mounts a file system over the root of a namespace that nobody else is in, and makes `dir` its
/// root directory.
fn mount_over_root(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    // A root that is not of this namespace, as after chroot(2) to that of another process, is
    // refused (EINVAL); the next call would change it instead (before commit 12f147ddd6de).
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(c"/", read_only, c"")?;
    // Or the mount would appear wherever the root's mount is shared to.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    rustix::mount::mount(fs_type, c"/", fs_type, MountFlags::empty(), None)?;
    // The root of a process is below what is mounted over it, but going up from it is not.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = rustix::fs::open(c"/..", flags, Mode::empty())?;
    rustix::io::dup3(&mounted, dir, DupFlags::CLOEXEC)
}

/// Waits for a child of clone(2), and answers its exit status. A signal's victim has none: 0.
fn wait_for_clone(pid: i32) -> i32 {
    let options = WaitOptions::from_bits_retain(__WALL);
    loop {
        match rustix::process::waitpid(Pid::from_raw(pid), options) {
            Ok(ended) => {
                return ended
                    .and_then(|(_, status)| status.exit_status())
                    .unwrap_or(0);
            }
            Err(Errno::INTR) => {}
            // Another thread waits for children of every kind. What the child did shows.
            Err(_) => return 0,
        }
    }
}

/// `rt_sigprocmask(2)`: which signals this thread keeps back.
fn set_signal_mask(mask: u64, old: Option<&mut u64>) -> Result<()> {
    let old = old.map_or(0, |old| ptr::from_mut(old).expose_provenance());
    let new = ptr::from_ref(&mask).expose_provenance();
    let args = [SIG_SETMASK as usize, new, old, size_of::<u64>(), 0];
    // SAFETY: a sigset of the kernel is 64 bits on the architectures served; the new one is read,
    // and the old one written to where a `&mut u64` is, or nowhere.
    result(unsafe { arch::syscall5(__NR_rt_sigprocmask, args) }).map(drop)
}

/// Ends the process.
fn exit_group(status: i32) -> ! {
    loop {
        let status = usize::try_from(status).unwrap_or_default();
        // SAFETY: takes a number and does not come back.
        unsafe { arch::syscall5(__NR_exit_group, [status, 0, 0, 0, 0]) };
    }
}
