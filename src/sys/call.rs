//! The system calls themselves, and the conversions of their arguments and answers.

use core::mem::size_of;
use core::ptr;

use linux_raw_sys::general::__NR_bpf;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, Result};

use super::arch;

/// Converts the kernel's answer. The kernel keeps -4095..=-1 for errnos (`MAX_ERRNO` of
/// include/linux/err.h), and none of these calls has a smaller answer.
pub(super) fn result(answer: isize) -> Result<usize> {
    usize::try_from(answer).map_err(|_| errno(answer))
}

/// Returns the errno of an answer that is not a success.
#[cold]
#[inline(never)]
fn errno(answer: isize) -> Errno {
    let errno = i32::try_from(answer.unsigned_abs()).ok();
    errno
        .filter(|errno| *errno <= 4095)
        .map_or(Errno::OVERFLOW, Errno::from_raw_os_error)
}

/// Converts the kernel's answer, and takes ownership of the new file descriptor in it.
///
/// # Safety
///
/// The answer must be that of a system call which opens a file descriptor for the caller.
pub(super) unsafe fn owned(answer: isize) -> Result<OwnedFd> {
    match RawFd::try_from(answer) {
        // SAFETY: it is open, and nothing else owns it.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(errno(answer)),
    }
}

/// Returns a file descriptor as the u32 of an attribute. An open one is never negative.
#[allow(clippy::cast_sign_loss, reason = "see above")]
pub(super) fn fd_u32(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Returns the address of a value as the u64 of an attribute.
pub(super) fn address<T: ?Sized>(value: &T) -> u64 {
    ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}

/// Returns the address of a buffer for the kernel to fill, as the u64 of an attribute. The buffer
/// must stay borrowed during the call.
pub(super) fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

/// Returns the length of a buffer as the u32 of an attribute. The kernel sees at most 4 GiB of a
/// longer one.
pub(super) fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Calls `bpf(cmd, &attr, size_of(attr))`.
///
/// # Safety
///
/// `attr` must be the attribute of `cmd`, and every address in it must be valid for what the
/// command does there.
pub(super) unsafe fn bpf<T>(cmd: u32, attr: &mut T) -> Result<usize> {
    // SAFETY: the caller guarantees the attribute.
    result(unsafe { bpf_answer(cmd, attr) })
}

/// # Safety
///
/// As for [`bpf`].
#[inline]
unsafe fn bpf_answer<T>(cmd: u32, attr: &mut T) -> isize {
    let attr_address = ptr::from_mut(attr).expose_provenance();
    // SAFETY: attr points to size_of::<T>() bytes of attribute, which are writable for the commands
    // that answer in place. The caller guarantees the addresses in it.
    unsafe { arch::syscall5(__NR_bpf, [cmd as usize, attr_address, size_of::<T>(), 0, 0]) }
}

/// Calls [`bpf`] for a command that returns a new file descriptor.
///
/// # Safety
///
/// As for [`bpf`]. Also, `cmd` must be such a command.
pub(super) unsafe fn bpf_fd<T>(cmd: u32, attr: &mut T) -> Result<OwnedFd> {
    // SAFETY: the caller guarantees the attribute.
    let answer = unsafe { bpf_answer(cmd, attr) };
    // SAFETY: the command opens a file descriptor.
    unsafe { owned(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_errno_range_is_an_error() {
        assert_eq!(result(-1), Err(Errno::PERM));
        assert_eq!(result(-4095).unwrap_err().raw_os_error(), 4095);
        assert_eq!(result(-4096), Err(Errno::OVERFLOW));
        assert_eq!(result(0), Ok(0));
        assert_eq!(result(isize::MAX), Ok(usize::MAX / 2));
    }

    #[test]
    fn only_an_int_is_a_file_descriptor() {
        for (answer, errno) in [
            (-1, Errno::PERM),
            (-4096, Errno::OVERFLOW),
            #[cfg(target_pointer_width = "64")]
            (1 << 31, Errno::OVERFLOW),
        ] {
            // SAFETY: no answer is a file descriptor.
            assert_eq!(unsafe { owned(answer) }.unwrap_err(), errno);
        }
    }
}
