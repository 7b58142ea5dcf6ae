//! Pins: names in a bpf file system that keep a BPF object alive.

use core::ffi::CStr;
use core::fmt;

use rustix::fd::BorrowedFd;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::path::Arg;

use crate::cause::Cause;
use crate::error::{Failure, Step};
use crate::invalid::Invalid;
use crate::sys;
use crate::text::Buf;

/// Pins an object. Of the path at most the last directory is made, and taken away again if that was in vain.
pub(crate) fn pin(object: BorrowedFd<'_>, path: impl Arg) -> Result<(), Failure> {
    let pinned = path.into_with_c_str(|path| {
        Ok(Parent::of(path).map_or(Err(NOT_BPFFS), |parent| parent.pin(path, object)))
    });
    pinned.and_then(|pinned| pinned).map_err(pin_failed)
}

/// Pins an object below a directory: Linux 6.5 (commit cb8edce28073).
pub(crate) fn pin_at(
    object: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    path: impl Arg,
) -> Result<(), Failure> {
    let magic = rustix::fs::fstatfs(dir).map_err(pin_failed)?.f_type;
    if magic != BPFFS_MAGIC {
        return Err(pin_failed(NOT_BPFFS));
    }
    let pinned = path.into_with_c_str(|path| sys::obj_pin_at(dir, path, object));
    pinned.map_err(|errno| match errno {
        // Everything else about it is in order.
        Errno::INVAL => Failure::invalid(Invalid::PinAtDirectory).at(Step::Pin),
        errno => pin_failed(errno),
    })
}

fn pin_failed(errno: Errno) -> Failure {
    match errno {
        NOT_BPFFS => Failure::invalid(Invalid::PinOutsideBpffs).at(Step::Pin),
        Errno::EXIST => Failure::bpf(Step::Pin, errno, Cause::EventExists),
        errno => Failure::bpf(Step::Pin, errno, Cause::Unknown),
    }
}

/// The path is not in a bpf file system: libbpf's errno for it.
const NOT_BPFFS: Errno = Errno::INVAL;

/// The directory that a pin goes into.
struct Parent {
    path: Buf<PATH_MAX>,
}

/// `PATH_MAX` of `include/uapi/linux/limits.h`.
const PATH_MAX: usize = 4096;

impl Parent {
    fn of(path: &CStr) -> Result<Self, fmt::Error> {
        let path = path.to_bytes();
        let end = path.iter().rposition(|byte| *byte == b'/');
        let parent = match end {
            None => &b"."[..],
            Some(0) => b"/",
            Some(end) => path.get(..end).unwrap_or_default(),
        };
        let mut path = Buf::new();
        for byte in parent {
            path.push(*byte)?;
        }
        Ok(Self { path })
    }

    /// Pins, making the directory if need be, and taking it away again if that was in vain.
    fn pin(&self, path: &CStr, link: BorrowedFd<'_>) -> Result<(), Errno> {
        let parent = self.path.as_bytes();
        let (made, in_bpffs) = match is_bpffs(parent) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdir(parent, Mode::RWXU)?;
                (true, is_bpffs(parent))
            }
            in_bpffs => (false, in_bpffs),
        };
        let pinned = in_bpffs.and_then(|in_bpffs| {
            if in_bpffs {
                sys::obj_pin(path, link)
            } else {
                Err(NOT_BPFFS)
            }
        });
        if made && pinned.is_err() {
            // Best effort: the pin's own failure is what matters.
            let _ = rustix::fs::rmdir(parent);
        }
        pinned
    }
}

#[allow(clippy::cast_lossless, reason = "From is not const")]
const BPFFS_MAGIC: i64 = linux_raw_sys::general::BPF_FS_MAGIC as i64;

/// Whether a path is in a bpf file system.
pub(crate) fn is_bpffs(path: impl Arg) -> Result<bool, Errno> {
    let magic = rustix::fs::statfs(path)?.f_type;
    Ok(magic == BPFFS_MAGIC)
}
