//! The kernel's own file systems: mounted at their usual place, mounted elsewhere, or as a detached
//! mount.

use core::ffi::CStr;

use linux_raw_sys::general::{BPF_FS_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, StatFs};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::sys;
use crate::text::{Buf, LINE_LEN, for_each_line, for_lines_while, utf8, words};

/// The longest mount point that can be remembered.
const MAX_MOUNT_POINT_LEN: usize = 255;

/// Holds the root directory of one of the kernel's own file systems, whether or not it is mounted.
///
/// [`find_tracefs`](Self::find_tracefs) and [`find_sysfs`](Self::find_sysfs) mount nothing. They
/// look at the usual place first, and then in the mount table of the calling thread.
///
/// [`tracefs`](Self::tracefs), [`sysfs`](Self::sysfs) and [`bpffs`](Self::bpffs) look there too. If
/// the file system is not mounted, or something else is mounted over it, they make a *detached
/// mount*. A detached mount is in no mount table, and ends when its file descriptor is closed. It
/// shares its mount options with every other mount of the same file system, so the caller must ask
/// for one explicitly.
///
/// Making a detached mount takes `CAP_SYS_ADMIN`. For tracefs and bpf, it counts in the initial
/// user namespace. For sysfs, it counts in the user namespace of the network namespace; a sysfs
/// must also be mounted there, and not be hidden.
///
/// # Minimum kernel
///
/// Linux 5.2 has detached mounts ([`fsopen(2)`]). On an older kernel, a short-lived child process
/// mounts the file system in its own mount namespace. That takes a root directory that is a mount
/// point. It fails in a process whose new PID namespace still waits for its first child
/// ([`unshare(2)`], `CLONE_NEWPID`).
///
/// [`fsopen(2)`]: https://man7.org/linux/man-pages/man2/fsopen.2.html
/// [`unshare(2)`]: https://man7.org/linux/man-pages/man2/unshare.2.html
#[derive(Debug)]
pub struct Mount {
    dir: OwnedFd,
    /// [`None`] for a detached mount, which goes away with `dir`.
    path: Option<Buf<MAX_MOUNT_POINT_LEN>>,
}

/// Describes how to find and recognise a file system.
struct FileSystem {
    name: &'static CStr,
    magic: u32,
    /// The places where it is usually mounted.
    usual: &'static [&'static CStr],
    /// The place where the kernel mounts it as soon as a process opens it.
    automount: Option<&'static CStr>,
}

/// The automount in debugfs is deprecated: since Linux 6.17 (commit 9ba817fb7c6a) its use leaves a
/// warning in the kernel's log. A detached mount is therefore tried first.
const TRACEFS: FileSystem = FileSystem {
    name: c"tracefs",
    magic: TRACEFS_MAGIC,
    usual: &[c"/sys/kernel/tracing", c"/sys/kernel/debug/tracing"],
    automount: Some(c"/sys/kernel/debug/tracing"),
};

const SYSFS: FileSystem = FileSystem {
    name: c"sysfs",
    magic: SYSFS_MAGIC,
    usual: &[c"/sys"],
    automount: None,
};

const BPFFS: FileSystem = FileSystem {
    name: c"bpf",
    magic: BPF_FS_MAGIC,
    usual: &[c"/sys/fs/bpf"],
    automount: None,
};

impl Mount {
    /// Finds a tracefs that is mounted, and mounts none.
    ///
    /// As a last resort it wakes the automount in debugfs.
    ///
    /// # Errors
    ///
    /// Returns `ENOENT` if none is mounted, and `EMFILE`, `ENFILE` or `ENOMEM` from the search.
    /// Returns `EOPNOTSUPP` without the feature `files`.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1.
    pub fn find_tracefs() -> Result<Self> {
        Self::get(&TRACEFS, false)
    }

    /// Finds a sysfs that is mounted, and mounts none.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`find_tracefs`](Self::find_tracefs).
    pub fn find_sysfs() -> Result<Self> {
        Self::get(&SYSFS, false)
    }

    /// Opens tracefs, which the tracefs modes need: the mounted one, or else a detached mount.
    ///
    /// # Errors
    ///
    /// Returns the errno of the detached mount:
    ///
    /// * `EPERM` without `CAP_SYS_ADMIN`, or in a user namespace.
    /// * `ENODEV` if the kernel was built without tracefs.
    /// * `EMFILE`, `ENFILE` or `ENOMEM`.
    /// * `EOPNOTSUPP` without the feature `files`.
    ///
    /// Before Linux 5.2 it can also return:
    ///
    /// * `EAGAIN` or `ENOSPC` from [`clone(2)`].
    /// * `EINVAL` after [`chroot(2)`] to a directory that is not a mount point.
    /// * `EINTR` if the child process was killed.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1.
    ///
    /// [`clone(2)`]: https://man7.org/linux/man-pages/man2/clone.2.html
    /// [`chroot(2)`]: https://man7.org/linux/man-pages/man2/chroot.2.html
    pub fn tracefs() -> Result<Self> {
        Self::get(&TRACEFS, true)
    }

    /// Opens sysfs, which shows the kprobe PMU's type and the loaded modules: the mounted one, or
    /// else a detached mount.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`tracefs`](Self::tracefs).
    pub fn sysfs() -> Result<Self> {
        Self::get(&SYSFS, true)
    }

    /// Opens a bpf file system for pins, as [`KprobeLink::pin_at`](crate::KprobeLink::pin_at) takes
    /// it: the mounted one, or else a detached mount.
    ///
    /// When the last file descriptor of a detached mount is closed, its pins are gone. They no
    /// longer keep their objects alive.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`tracefs`](Self::tracefs).
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.4.
    pub fn bpffs() -> Result<Self> {
        Self::get(&BPFFS, true)
    }

    /// Returns the mount point, or [`None`] for a detached mount.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_ref().map(Buf::as_str)
    }

    #[inline]
    fn get(file_system: &FileSystem, or_detached: bool) -> Result<Self> {
        if FILES {
            Self::look_for(file_system, or_detached)
        } else {
            Err(NO_FILES)
        }
    }

    /// Looks for the file system at its usual places, then in the mount table. If it is not there,
    /// makes a detached mount if the caller allows one, or else wakes the automount.
    fn look_for(file_system: &FileSystem, or_detached: bool) -> Result<Self> {
        let mut found = Ok(None);
        let mut look = |path: &CStr| {
            found = Self::at(file_system, path, OFlags::empty());
            !matches!(found, Ok(None))
        };
        if !file_system.usual.iter().any(|path| look(path)) {
            let read = for_each_mount(file_system, &mut look);
            // If the mount table is unavailable, no other mount is known.
            match (&found, read) {
                (Ok(None), Err(errno)) if is_shortage(errno) => return Err(errno),
                _ => {}
            }
        }
        if let Some(mount) = found? {
            return Ok(mount);
        }
        let errno = match or_detached.then(|| detached(file_system)) {
            Some(Ok(dir)) => return Ok(Self { dir, path: None }),
            Some(Err(errno)) => errno,
            None => Errno::NOENT,
        };
        let automount = file_system.automount.ok_or(errno)?;
        Self::at(file_system, automount, OFlags::DIRECTORY)?.ok_or(errno)
    }

    /// Opens the file system if it is mounted at a path. It wakes an automount only if `flags` asks
    /// for a directory. It returns an error only for a lack of file descriptors or memory.
    fn at(file_system: &FileSystem, path: &CStr, flags: OFlags) -> Result<Option<Self>> {
        let dir = match open_file(CWD, path, OFlags::PATH | flags, file_system.magic) {
            Err(errno) if is_shortage(errno) => return Err(errno),
            Err(_) => return Ok(None),
            Ok(dir) => dir,
        };
        let path = utf8(path.to_bytes()).and_then(|path| Buf::of(path).ok());
        Ok(path.is_some().then_some(Self { dir, path }))
    }
}

/// Returns whether an errno says that file descriptors or memory are short.
const fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Borrows the root directory.
impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Returns whether a file system is of the type that has this magic number.
pub(crate) fn is_a(stat: &StatFs, magic: u32) -> bool {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "its width and sign depend on the architecture; the magic number has 32 bits"
    )]
    let f_type = stat.f_type as u32;
    f_type == magic
}

/// Makes a detached mount.
fn detached(file_system: &FileSystem) -> Result<OwnedFd> {
    match by_fsopen(file_system) {
        Err(Errno::NOSYS) => in_private_namespace(file_system),
        dir => dir,
    }
}

/// Makes one by `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`: Linux 5.2.
fn by_fsopen(file_system: &FileSystem) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(file_system.name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())
}

/// Starts a child that mounts the file system in a mount namespace of its own, and hands over the
/// root directory. The namespace ends with the child.
fn in_private_namespace(file_system: &FileSystem) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(c"/", flags, Mode::empty())?;
    sys::mount_privately(file_system.name, &mut dir)?;
    let stat = rustix::fs::fstatfs(&dir)?;
    // A child that was killed has handed over nothing.
    is_a(&stat, file_system.magic)
        .then_some(dir)
        .ok_or(Errno::INTR)
}

/// Calls `look` with each place at which the mount table has the file system, until it returns
/// true.
fn for_each_mount(file_system: &FileSystem, look: &mut dyn FnMut(&CStr) -> bool) -> Result<()> {
    // A thread can have a mount namespace of its own.
    let table = open_read(CWD, c"/proc/thread-self/mountinfo", PROC_SUPER_MAGIC)?;
    let mut done = false;
    for_each_line::<LINE_LEN>(&table, &mut |line| {
        if !done {
            done = mount_point(line, file_system.name.to_bytes())
                .is_some_and(|path| path.as_c_str().is_ok_and(&mut *look));
        }
    })
}

/// Returns the mount point in a line of `/proc/[pid]/mountinfo` (`proc_pid_mountinfo(5)`), if the
/// root of a file system of this type is mounted there.
pub fn mount_point(line: &[u8], fs_type: &[u8]) -> Option<Buf<MAX_MOUNT_POINT_LEN>> {
    // 36 35 98:0 /root /mount/point options optional-fields... - type source super-options
    let mut fields = words(line).skip(3);
    let root = fields.next()?;
    let path = fields.next()?;
    let found_type = fields.skip_while(|field| *field != b"-").nth(1)?;
    if root != b"/" || found_type != fs_type {
        return None;
    }
    let mut unescaped = Buf::new();
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        // A blank or a backslash is written as a backslash and three octal digits.
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            after @ ..,
        ] = rest
        {
            unescaped
                .push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
                .ok()?;
            rest = after;
        } else {
            unescaped.push(*byte).ok()?;
            rest = after;
        }
    }
    // A path that is not UTF-8 has an empty `as_str`.
    (!unescaped.as_str().is_empty()).then_some(unescaped)
}

/// The errno of every file where they are [not read](FILES).
pub(crate) const NO_FILES: Errno = Errno::OPNOTSUPP;

/// Whether files are read: the feature `files`. Without it, the code that depends on a file is not
/// compiled in.
pub(crate) const FILES: bool = cfg!(feature = "files");

/// The errno of a file that is not the kernel's own, because another is mounted over it. It is also
/// the errno of `openat2(2)` with `RESOLVE_NO_XDEV`.
pub(crate) const MASKED: Errno = Errno::XDEV;

/// Opens a file of one of the kernel's own file systems for reading.
#[inline]
pub(crate) fn open_read(dir: BorrowedFd<'_>, path: &CStr, magic: u32) -> Result<OwnedFd> {
    if !FILES {
        return Err(NO_FILES);
    }
    open_file(dir, path, OFlags::RDONLY, magic)
}

/// Opens a file of one of the kernel's own file systems, which has this magic number.
///
/// Anything can be mounted over the file: an empty file, a FIFO, a device. It is refused with
/// `EXDEV` before anything is read or written.
pub(crate) fn open_file(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    magic: u32,
) -> Result<OwnedFd> {
    let file = open_any(dir, path, flags)?;
    let stat = rustix::fs::fstatfs(&file)?;
    is_a(&stat, magic).then_some(file).ok_or(MASKED)
}

/// Opens a file without waiting, whatever it is.
#[inline]
pub(crate) fn open_any(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    if !FILES {
        return Err(NO_FILES);
    }
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, path, flags, Mode::empty())
}

/// Calls `each` with every line of a list that is never empty. `each` returns whether the line is
/// an entry of the list. Returns `EXDEV` if none is: the file is not the kernel's list.
pub(crate) fn for_each_entry(
    dir: BorrowedFd<'_>,
    path: &CStr,
    magic: u32,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<()> {
    let file = open_read(dir, path, magic)?;
    let mut is_list = false;
    for_lines_while::<LINE_LEN>(&file, &mut |line| {
        is_list |= each(line);
        true
    })?;
    is_list.then_some(()).ok_or(MASKED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_mount_point_is_that_of_a_root_of_the_type() {
        let found = |line: &str| {
            mount_point(line.as_bytes(), b"tracefs").map(|path| path.as_str().to_string())
        };
        let line = "29 25 0:12 / /sys/kernel/tracing rw,nosuid shared:11 - tracefs tracefs rw";
        assert_eq!(found(line).unwrap(), "/sys/kernel/tracing");
        let no_optional_fields = "29 25 0:12 / /t rw - tracefs none rw";
        assert_eq!(found(no_optional_fields).unwrap(), "/t");
        let escaped = r"29 25 0:12 / /a\040b\134c\011 rw master:1 shared:2 - tracefs t rw";
        assert_eq!(found(escaped).unwrap(), "/a b\\c\t");
        for other in [
            "",
            "29 25 0:12 / /t rw - tmpfs tracefs rw",
            "29 25 0:12 /instances/a /t rw - tracefs t rw",
            "29 25 0:12 / /t rw shared:1",
            "29 25 0:12 / /t rw shared:1 -",
            "29 25 0:12 /",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
