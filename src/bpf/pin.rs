//! Pins: names in a bpf file system that keep a BPF object alive.

use core::ffi::CStr;

use linux_raw_sys::general::BPF_FS_MAGIC;
use rustix::fd::BorrowedFd;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::path::Arg;

use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::mount::is_a;
use crate::request::Invalid;
use crate::sys;

/// Pins an object. If the last directory of the path does not exist, makes it, and removes it again
/// if the pin fails.
pub(crate) fn pin(object: BorrowedFd<'_>, path: impl Arg) -> Result<(), Error> {
    let pinned = path.into_with_c_str(|path| pin_path(object, path));
    pinned.map_err(pin_failed)
}

fn pin_path(object: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let mut buffer = [0; PATH_MAX];
    let dir = dir_of(path, &mut buffer)?;
    let made = match check_bpffs(dir) {
        Err(Errno::NOENT) => {
            // Without a mounted bpf file system, the parent is a directory of another file system,
            // where nothing may be made.
            check_bpffs(dir_of(dir, &mut [0; PATH_MAX])?)?;
            rustix::fs::mkdir(dir, Mode::RWXU)?;
            true
        }
        checked => checked.map(|()| false)?,
    };
    let pinned = sys::obj_pin(path, object);
    if made && pinned.is_err() {
        // The error of the pin counts, and not that of the removal.
        let _ = rustix::fs::rmdir(dir);
    }
    pinned
}

/// Pins an object at a path relative to a directory: Linux 6.5 (commit cb8edce28073).
pub(crate) fn pin_at(
    object: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    path: impl Arg,
) -> Result<(), Error> {
    let stat = rustix::fs::fstatfs(dir).map_err(pin_failed)?;
    if !is_a(&stat, BPF_FS_MAGIC) {
        return Err(pin_failed(NOT_BPFFS));
    }
    let pinned = path.into_with_c_str(|path| sys::obj_pin_at(dir, path, object));
    pinned.map_err(|errno| match errno {
        // The other arguments are valid, so the kernel does not know the flag.
        Errno::INVAL => Error::invalid(Invalid::PinAtDirectory).at(Step::Pin),
        errno => pin_failed(errno),
    })
}

fn pin_failed(errno: Errno) -> Error {
    match errno {
        NOT_BPFFS => Error::invalid(Invalid::PinOutsideBpffs).at(Step::Pin),
        Errno::EXIST => Error::new(Step::Pin, errno, Cause::NameTaken),
        errno => bpf_error(Step::Pin, errno, Cause::Unknown),
    }
}

/// The errno that libbpf returns for a path that is not in a bpf file system.
const NOT_BPFFS: Errno = Errno::INVAL;

/// `PATH_MAX` of `include/uapi/linux/limits.h`.
const PATH_MAX: usize = 4096;

/// Returns the directory of a path.
fn dir_of<'a>(path: &CStr, buffer: &'a mut [u8; PATH_MAX]) -> Result<&'a CStr, Errno> {
    let path = path.to_bytes();
    let dir = match path.iter().rposition(|byte| *byte == b'/') {
        None => &b"."[..],
        Some(0) => b"/",
        Some(end) => path.get(..end).unwrap_or_default(),
    };
    for (to, from) in buffer.iter_mut().zip(dir) {
        *to = *from;
    }
    // If no NUL is left, the path was too long.
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::NAMETOOLONG)
}

fn check_bpffs(dir: &CStr) -> Result<(), Errno> {
    if is_bpffs(dir)? {
        Ok(())
    } else {
        Err(NOT_BPFFS)
    }
}

/// Returns whether a path is in a bpf file system.
pub(crate) fn is_bpffs(path: impl Arg) -> Result<bool, Errno> {
    Ok(is_a(&rustix::fs::statfs(path)?, BPF_FS_MAGIC))
}
