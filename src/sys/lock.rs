//! `fcntl(2)`: the locks that belong to an open file description, which rustix leaves out.

use core::ptr;

use linux_raw_sys::general::{F_OFD_GETLK, F_OFD_SETLK};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, Result};

use super::arch;
use super::call::{fd_u32, result};
use super::uapi::{self, F_UNLCK, F_WRLCK, Flock};

/// `fcntl(2)` about a lock on one byte of a file, which belongs to the open file description. Linux
/// 3.15.
///
/// The byte need not be there, for a lock is on a number; it must be below 2^63.
///
/// # Safety
///
/// `command` must be `F_OFD_SETLK` or `F_OFD_GETLK`.
unsafe fn fcntl_lock(file: BorrowedFd<'_>, command: u32, l_type: i16, byte: u64) -> Result<Flock> {
    let mut lock = Flock {
        l_type,
        l_start: i64::try_from(byte).map_err(|_| Errno::OVERFLOW)?, // from the beginning: SEEK_SET is 0
        l_len: 1,
        ..Flock::default()
    };
    let address = ptr::from_mut(&mut lock).expose_provenance();
    let args = [fd_u32(file) as usize, command as usize, address, 0, 0];
    // SAFETY: for both commands the argument is a struct flock, which is read, and by the asking
    // one written to.
    result(unsafe { arch::syscall5(uapi::NR_FCNTL, args) })?;
    Ok(lock)
}

/// Locks a byte of a file that is open for writing, until the file is closed in the last process
/// that holds it, and be it by a SIGKILL. `EAGAIN`: another open file description has the lock.
pub(crate) fn lock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the commands.
    unsafe { fcntl_lock(file, F_OFD_SETLK, F_WRLCK, byte) }.map(drop)
}

/// Gives up the lock on a byte.
pub(crate) fn unlock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the commands.
    unsafe { fcntl_lock(file, F_OFD_SETLK, F_UNLCK, byte) }.map(drop)
}

/// Whether another open file description has locked a byte of a file.
pub(crate) fn is_byte_locked(file: BorrowedFd<'_>, byte: u64) -> Result<bool> {
    // SAFETY: it is one of the commands.
    let lock = unsafe { fcntl_lock(file, F_OFD_GETLK, F_WRLCK, byte) }?;
    Ok(lock.l_type != F_UNLCK)
}
