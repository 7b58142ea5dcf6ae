//! A child process that mounts a file system in a mount namespace of its own.

use core::ffi::CStr;

use linux_raw_sys::general::CLONE_NEWNS;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno, Result};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::child::Child;

/// Mounts a file system in a mount namespace that belongs to a child, and ends with it. Makes `dir`
/// the root directory of the file system, which stays usable.
///
/// An errno above 255, as a seccomp filter may give, is reported as 255, which names no errno. The
/// child reports by its exit status, which has 8 bits.
///
/// If a signal kills the child, `dir` may be unchanged. If it is killed after open(2) of the new
/// root, a file descriptor may stay open.
///
/// The file descriptors are shared with the child, so `dir` is replaced in this process too.
pub(crate) fn mount_privately(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    let child = Child::start(CLONE_NEWNS, || {
        let errno = mount_over_root(fs_type, dir).err();
        errno.map_or(0, |errno| errno.raw_os_error().min(255))
    });
    match child?.wait() {
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
