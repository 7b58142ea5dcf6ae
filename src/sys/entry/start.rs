//! The initial stack: arguments, environment and auxiliary vector.

use core::ffi::{CStr, c_char};
use core::ptr;

/// Reads the arguments, the environment and the auxiliary vector.
#[derive(Debug)]
pub(crate) struct Start {
    /// The address of `argc`. Everything else is above it.
    stack: *const usize,
}

impl Start {
    /// # Safety
    ///
    /// `stack` must be the initial stack of the process.
    pub(super) const unsafe fn new(stack: *const usize) -> Self {
        Self { stack }
    }

    /// Returns the number of arguments. The program's name is one of them.
    fn argc(&self) -> usize {
        // SAFETY: the initial stack begins with argc.
        unsafe { *self.stack }
    }

    /// Returns one of the arguments. The first is the program's name.
    pub(crate) fn arg(&self, index: usize) -> Option<&CStr> {
        let arg = self.argv().get(index).filter(|arg| !arg.is_null())?;
        // SAFETY: each of argv is a string that lives as long as the process.
        Some(unsafe { CStr::from_ptr(*arg) })
    }

    pub(super) fn argv(&self) -> &[*const c_char] {
        // SAFETY: argv, of argc pointers, is above argc.
        let argv = unsafe { self.stack.add(1) };
        // SAFETY: as above; nobody writes to it.
        unsafe { core::slice::from_raw_parts(argv.cast(), self.argc()) }
    }

    /// Returns the address of the environment, which ends with a NULL.
    pub(super) fn envp(&self) -> *const *const c_char {
        // SAFETY: envp is above argv and its NULL.
        unsafe { self.stack.add(self.argc() + 2) }.cast()
    }

    /// Returns the value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<&CStr> {
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

    /// Returns the first page of the vDSO, if the kernel mapped one.
    pub(crate) fn vdso(&self) -> Option<&[u8]> {
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
}
