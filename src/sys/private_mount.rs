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

/// Mounts a file system in a mount namespace that belongs to a child, and ends with it. Makes `dir`
/// the root directory of the file system, which stays usable.
///
/// An errno above 255, as a seccomp filter may give, is reported as 255, which names no errno. The
/// child reports by its exit status, which has 8 bits.
///
/// If a signal kills the child, `dir` may be unchanged. If it is killed after open(2) of the new
/// root, a file descriptor may stay open.
///
/// The child is a fork(2) that shares the file descriptors (`CLONE_FILES`), so `dir` is replaced in
/// this process too. Every signal is blocked in it, so that no handler runs. Its end causes no
/// SIGCHLD, and only a `wait(2)` with `__WALL` sees it. A process that waits for its own children
/// does not notice it.
pub(crate) fn mount_privately(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    let every_signal = u64::MAX;
    let mut old_mask = 0;
    set_signal_mask(every_signal, Some(&mut old_mask))?;
    let args = arch::clone_args(CLONE_FILES | CLONE_NEWNS);
    // SAFETY: clone with no new stack and no CLONE_VM is fork(2): the child has a copy of all
    // memory. The child only makes system calls, so it needs no lock that another thread held.
    // rustix is not built on libc here, or this crate does not compile. The child leaves this
    // function only by exit_group(2). The file descriptors are shared, and the child closes those
    // that it opens.
    let pid = match result(unsafe { arch::syscall5(__NR_clone, args) }) {
        Ok(0) => {
            let errno = mount_over_root(fs_type, dir).err();
            exit_group(errno.map_or(0, |errno| errno.raw_os_error().min(255)));
        }
        pid => pid,
    };
    let status = pid.map(|pid| wait_for_clone(i32::try_from(pid).unwrap_or_default()));
    // This mask was set a moment ago, so setting it cannot fail.
    let _ = set_signal_mask(old_mask, None);
    match status? {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Mounts a file system over the root of a namespace that no other process is in. Makes `dir` the
/// root directory of the file system.
fn mount_over_root(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    // After chroot(2) to the root of another process, the root does not belong to this namespace.
    // This call is then refused (EINVAL). The next call would change the other process's mount
    // instead (before commit 12f147ddd6de).
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(c"/", read_only, c"")?;
    // Otherwise the mount would appear wherever the root's mount is shared.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    rustix::mount::mount(fs_type, c"/", fs_type, MountFlags::empty(), None)?;
    // The root of a process is below a file system that is mounted over it, but `..` leads to that
    // file system.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = rustix::fs::open(c"/..", flags, Mode::empty())?;
    rustix::io::dup3(&mounted, dir, DupFlags::CLOEXEC)
}

/// Waits for a child of clone(2), and returns its exit status, or 0 if a signal killed it.
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
            // Another thread waits for children of every kind. The caller sees from `dir` what the
            // child did.
            Err(_) => return 0,
        }
    }
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
