//! The locks of `fcntl(2)` that belong to an open file description, which rustix does not have.

use core::ptr;

use linux_raw_sys::general::{F_OFD_GETLK, F_OFD_SETLK};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, Result};

use super::arch;
use super::call::{fd_u32, result};
use super::uapi::{self, F_RDLCK, F_UNLCK, F_WRLCK, Flock};

/// Calls `fcntl(2)` for a lock on one byte of a file. The lock belongs to the open file description
/// (Linux 3.15).
///
/// The file need not have this byte, because a lock is on a position. The position must be below
/// 2^63.
///
/// # Safety
///
/// `command` must be `F_OFD_SETLK` or `F_OFD_GETLK`.
unsafe fn fcntl_lock(file: BorrowedFd<'_>, command: u32, l_type: i16, byte: u64) -> Result<Flock> {
    let mut lock = Flock {
        l_type,
        // From the start of the file: SEEK_SET is 0.
        l_start: i64::try_from(byte).map_err(|_| Errno::OVERFLOW)?,
        l_len: 1,
        ..Flock::default()
    };
    let address = ptr::from_mut(&mut lock).expose_provenance();
    let args = [fd_u32(file) as usize, command as usize, address, 0, 0];
    // SAFETY: both commands take a struct flock, which the kernel reads. `F_OFD_GETLK` also writes
    // to it.
    result(unsafe { arch::syscall5(uapi::NR_FCNTL, args) })?;
    Ok(lock)
}

/// Locks a byte of a file that is open for writing. The lock lasts until the last process that
/// holds the file closes it, even by SIGKILL. Returns `EAGAIN` if another open file description has
/// the lock.
///
/// A shared lock prevents this one, and anybody who may read the file can hold one. It is not taken
/// for an owner's: this function then returns without a lock.
pub(crate) fn lock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the two commands.
    match unsafe { fcntl_lock(file, F_OFD_SETLK, F_WRLCK, byte) } {
        Err(Errno::AGAIN) if other_lock(file, byte)? == F_RDLCK => Ok(()),
        locked => locked.map(drop),
    }
}

/// Gives up the lock on a byte.
pub(crate) fn unlock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the two commands.
    unsafe { fcntl_lock(file, F_OFD_SETLK, F_UNLCK, byte) }.map(drop)
}

/// Returns whether another open file description has the lock on a byte of a file. A shared lock
/// does not count.
pub(crate) fn is_byte_locked(file: BorrowedFd<'_>, byte: u64) -> Result<bool> {
    Ok(other_lock(file, byte)? == F_WRLCK)
}

/// Returns the type of the lock that another open file description has on a byte: `F_WRLCK`,
/// `F_RDLCK`, or `F_UNLCK` for none.
fn other_lock(file: BorrowedFd<'_>, byte: u64) -> Result<i16> {
    // SAFETY: it is one of the two commands.
    let lock = unsafe { fcntl_lock(file, F_OFD_GETLK, F_WRLCK, byte) }?;
    Ok(lock.l_type)
}
