//! Standard input, output and error.

use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Returns standard input, output or error.
pub(crate) fn standard_fd(fd: u8) -> BorrowedFd<'static> {
    // SAFETY: `open_standard_fds` saw to it that 0, 1 and 2 are open, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(fd.into()) }
}

/// Returns a file descriptor that was handed over to this process, if it was.
pub(crate) fn given_fd(fd: u32) -> BorrowedFd<'static> {
    let fd = i32::try_from(fd).unwrap_or(i32::MAX);
    // SAFETY: this process closes nothing that was handed over. If nothing was, the kernel refuses
    // the number.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Opens the file descriptors 0, 1 and 2 that are closed, as they are for an init without a
/// console. Otherwise a map or a link could get such a number, and be written to as if it were the
/// output. A command does not get them.
pub(super) fn open_standard_fds() {
    for fd in 0..=2 {
        // SAFETY: it is only asked whether this file descriptor is open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if rustix::io::fcntl_getfd(borrowed) == Err(Errno::BADF) {
            // The root directory always exists, and refuses to be read and written. It gets the
            // lowest free number, which is `fd`.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            if let Ok(root) = rustix::fs::open(c"/", flags, Mode::empty()) {
                core::mem::forget(root);
            }
        }
    }
}
