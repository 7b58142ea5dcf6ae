//! Standard input, output and error.

use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Standard input, output or error.
pub(crate) fn standard_fd(fd: u8) -> BorrowedFd<'static> {
    // SAFETY: `open_standard_fds` saw to it that 0, 1 and 2 are open, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(fd.into()) }
}

/// Opens what is closed of 0, 1 and 2, as for an init without a console, so that no map or link
/// lands there and is written to as if it were the output.
pub(super) fn open_standard_fds() {
    for fd in 0..=2 {
        // SAFETY: only asked about, and whether it is open is the question.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if rustix::io::fcntl_getfd(borrowed) == Err(Errno::BADF) {
            // Always there, and refuses to be read and written. It gets the lowest free number,
            // which is `fd`.
            if let Ok(root) = rustix::fs::open(c"/", OFlags::PATH, Mode::empty()) {
                core::mem::forget(root);
            }
        }
    }
}
