//! Standard input, output and error.

use rustix::fd::BorrowedFd;

/// Returns standard input, output or error.
pub(crate) fn standard_fd(fd: u8) -> BorrowedFd<'static> {
    // SAFETY: the entry saw to it that 0, 1 and 2 are open, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(fd.into()) }
}

/// Returns a file descriptor that was handed over to this process, if it was.
pub(crate) fn given_fd(fd: u32) -> BorrowedFd<'static> {
    let fd = i32::try_from(fd).unwrap_or(i32::MAX);
    // SAFETY: this process closes nothing that was handed over. If nothing was, the kernel refuses
    // the number.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
