//! The initial stack, where the kernel leaves arguments, environment and auxiliary vector,
//! and the standard file descriptors.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::ptr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

/// Represents what the kernel handed over to the process in [execve(2)]: the arguments, the
/// environment, the auxiliary vector, and the standard file descriptors.
///
/// The macro [`entry!`](crate::entry!) makes one, and calls the main function with it.
///
/// [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html
#[derive(Debug)]
pub struct Start {
    /// The address of `argc`. Everything else is above it.
    stack: *const usize,
}

impl Start {
    /// # Safety
    ///
    /// `stack` must be the initial stack of the process, whose file descriptors 0, 1 and 2 are
    /// open.
    pub(super) const unsafe fn new(stack: *const usize) -> Self {
        Self { stack }
    }

    /// Returns the number of arguments. The program's name is one of them.
    fn argc(&self) -> usize {
        // SAFETY: the initial stack begins with argc.
        unsafe { *self.stack }
    }

    /// Returns one of the arguments. The program's name has the index 0.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&CStr> {
        let arg = self.argv().get(index).filter(|arg| !arg.is_null())?;
        // SAFETY: each of argv is a string that lives as long as the process.
        Some(unsafe { CStr::from_ptr(*arg) })
    }

    /// Returns the addresses of the arguments, for [execve(2)]. A null pointer follows the slice.
    ///
    /// [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html
    #[must_use]
    pub fn argv(&self) -> &[*const c_char] {
        // SAFETY: argv, of argc pointers, is above argc.
        let argv = unsafe { self.stack.add(1) };
        // SAFETY: as above; nobody writes to it.
        unsafe { core::slice::from_raw_parts(argv.cast(), self.argc()) }
    }

    /// Returns the address of the environment, for [execve(2)]. The array of pointers ends with a
    /// null pointer.
    ///
    /// [execve(2)]: https://man7.org/linux/man-pages/man2/execve.2.html
    #[must_use]
    pub fn envp(&self) -> *const *const c_char {
        // SAFETY: envp is above argv and its NULL.
        unsafe { self.stack.add(self.argc() + 2) }.cast()
    }

    /// Returns the value of an environment variable, if there is one of this name.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&CStr> {
        let mut variable = self.envp();
        loop {
            // SAFETY: envp ends with a NULL, and this goes no further.
            let text = unsafe { *variable };
            if text.is_null() {
                return None;
            }
            // SAFETY: each of envp is a string that lives as long as the process.
            let text = unsafe { CStr::from_ptr(text) };
            let bytes = text.to_bytes_with_nul();
            if let Some([b'=', value @ ..]) = bytes.strip_prefix(name.as_bytes()) {
                return CStr::from_bytes_until_nul(value).ok();
            }
            // SAFETY: not at the NULL yet.
            variable = unsafe { variable.add(1) };
        }
    }

    /// Returns the first page of the vDSO, if the kernel mapped one. It has the kernel's version:
    /// [`kern_version`](crate::bpf::kern_version).
    #[must_use]
    pub fn vdso(&self) -> Option<&[u8]> {
        const AT_NULL: usize = 0;
        const AT_SYSINFO_EHDR: usize = 33;
        let mut end_of_env = self.envp();
        // SAFETY: envp ends with a NULL, and this goes no further.
        while !unsafe { *end_of_env }.is_null() {
            // SAFETY: not at the NULL yet.
            end_of_env = unsafe { end_of_env.add(1) };
        }
        // SAFETY: the auxiliary vector is above the NULL: pairs of words up to AT_NULL.
        let mut pair: *const [usize; 2] = unsafe { end_of_env.add(1) }.cast();
        loop {
            // SAFETY: not beyond AT_NULL.
            match unsafe { *pair } {
                [AT_NULL, _] => return None,
                // 0 where the kernel has a vDSO but did not map it.
                [AT_SYSINFO_EHDR, address] if address != 0 => {
                    let page = ptr::with_exposed_provenance::<u8>(address);
                    // SAFETY: the kernel mapped the vDSO there, at least a page of it, readable,
                    // never changed.
                    return Some(unsafe { core::slice::from_raw_parts(page, 4096) });
                }
                // SAFETY: not at AT_NULL yet.
                _ => pair = unsafe { pair.add(1) },
            }
        }
    }

    /// Returns standard input.
    #[must_use]
    pub fn stdin(&self) -> BorrowedFd<'static> {
        // SAFETY: see `new`. No safe code closes it, since nothing owns it.
        unsafe { BorrowedFd::borrow_raw(0) }
    }

    /// Returns standard output.
    #[must_use]
    pub fn stdout(&self) -> Output {
        // SAFETY: as above.
        Output(unsafe { BorrowedFd::borrow_raw(1) })
    }

    /// Returns standard error.
    #[must_use]
    pub fn stderr(&self) -> Output {
        stderr()
    }
}

/// Returns standard error.
pub(super) fn stderr() -> Output {
    // SAFETY: it is open from the entry on, or is std's, which does the same.
    Output(unsafe { BorrowedFd::borrow_raw(2) })
}

/// Represents standard output or standard error.
///
/// It has no buffer: each piece that is formatted is a [write(2)].
///
/// [write(2)]: https://man7.org/linux/man-pages/man2/write.2.html
#[derive(Clone, Copy, Debug)]
pub struct Output(BorrowedFd<'static>);

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match rustix::io::write(self.0, rest) {
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return Err(fmt::Error),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            }
        }
        Ok(())
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}
