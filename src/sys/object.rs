//! BPF objects of any kind: their pins, and what the kernel reports of them.

use core::ffi::CStr;
use core::mem::size_of;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address, address_mut, bpf, bpf_fd, fd_u32};
use super::uapi::{
    BPF_F_PATH_FD, BPF_OBJ_GET, BPF_OBJ_GET_INFO_BY_FD, BPF_OBJ_PIN, Obj, ObjAt, ObjGetInfo,
};

/// Pins an object by `BPF_OBJ_PIN`.
pub(crate) fn obj_pin(path: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Obj {
        pathname: address(path),
        bpf_fd: fd_u32(fd),
        file_flags: 0,
    };
    // SAFETY: the attribute of this command; the path is read up to its NUL.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Pins an object by `BPF_OBJ_PIN`, at a path relative to a directory. Returns `EINVAL` if the
/// kernel does not know `BPF_F_PATH_FD`.
pub(crate) fn obj_pin_at(dir: BorrowedFd<'_>, path: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = ObjAt {
        pathname: address(path),
        bpf_fd: fd_u32(fd),
        file_flags: BPF_F_PATH_FD,
        path_fd: fd_u32(dir),
        pad: 0,
    };
    // SAFETY: the attribute of this command; the path is read up to its NUL.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pin by `BPF_OBJ_GET`.
pub(crate) fn obj_get(path: &CStr) -> Result<OwnedFd> {
    let mut attr = Obj {
        pathname: address(path),
        ..Obj::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor; the path is read up to
    // its NUL.
    unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) }
}

/// Fills `info` by `BPF_OBJ_GET_INFO_BY_FD`, of which the kernel sees `len` bytes. Returns how many
/// bytes the kernel knows.
///
/// # Safety
///
/// Every address in `info` must be valid for the kernel to write to, within the length beside it.
pub(super) unsafe fn obj_get_info<T>(
    fd: BorrowedFd<'_>,
    info: &mut T,
    len: usize,
) -> Result<usize> {
    let mut attr = ObjGetInfo {
        bpf_fd: fd_u32(fd),
        info_len: u32::try_from(len.min(size_of::<T>())).map_err(|_| Errno::INVAL)?,
        info: address_mut(info),
    };
    // SAFETY: the attribute of this command. `info` is writable for info_len bytes, and the caller
    // guarantees the addresses in it.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len as usize)
}
