//! Loading of programs from instructions.

use core::ffi::CStr;

use rustix::io::Errno;

use super::insn::{self, Insn};
use super::memlock::{memlock_error, with_memlock};
use super::program::Program;
use super::version::vdso_version;
use crate::error::{Cause, Error, Step};
use crate::request::{AttachType, Invalid, ParseError};
use crate::sys;

/// Loads the two instructions `r0 = 0; exit`, for questions to the kernel that need a program.
pub(crate) fn load_nop(expected_attach_type: u32) -> Result<Program, Error> {
    const NOP: [Insn<'static>; 2] = [insn::mov_imm(insn::R0, 0), insn::exit()];
    let mut load = Load::new(&NOP, c"GPL");
    load.expected_attach_type = expected_attach_type;
    load.load()
}

/// Builds a kprobe program from [instructions](insn), and loads it.
///
/// ```no_run
/// use kprobe_attach::bpf::{Load, insn};
///
/// let mut log = [0; 4096];
/// let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
/// let program = Load::new(&insns, c"GPL").name("nothing")?.log(&mut log).load()?;
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Debug)]
pub struct Load<'a> {
    insns: &'a [Insn<'a>],
    license: &'a CStr,
    name: [u8; 16],
    log: &'a mut [u8],
    expected_attach_type: u32,
    kern_version: u32,
}

impl<'a> Load<'a> {
    /// Starts with these instructions, and a license such as `GPL`.
    ///
    /// The kernel offers some helpers only to a program with a GPL license.
    #[must_use]
    pub const fn new(insns: &'a [Insn<'a>], license: &'a CStr) -> Self {
        Self {
            insns,
            license,
            name: [0; 16],
            log: &mut [],
            expected_attach_type: 0,
            kern_version: 0,
        }
    }

    /// Gives the program a name of at most 15 letters, digits, `_` and `.`.
    ///
    /// A kernel before Linux 4.15 does not have names, and the program is loaded without one.
    ///
    /// # Errors
    ///
    /// Returns the first byte that the kernel would refuse, or cut off.
    pub fn name(mut self, name: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        let (_nul, bytes) = self.name.split_last_mut().unwrap_or((&mut 0, &mut []));
        for (at, byte) in name.bytes().enumerate() {
            match bytes.get_mut(at) {
                Some(to) if allowed(byte) => *to = byte,
                _ => return Err(ParseError::new(at, Invalid::ProgramName)),
            }
        }
        Ok(self)
    }

    /// Sets the links that the program is loaded for. The default is [`AttachType::Kprobe`].
    ///
    /// If the kernel does not have links of this kind, the load may fail with `EINVAL`.
    #[must_use]
    pub const fn attach_type(mut self, attach_type: AttachType) -> Self {
        self.expected_attach_type = attach_type.number();
        self
    }

    /// Makes the verifier write its log into a buffer, with a NUL behind it.
    ///
    /// If the buffer is too small, the load fails with `ENOSPC`. Before Linux 5.13, a buffer of
    /// less than 128 bytes makes it fail with `EINVAL`.
    #[must_use]
    pub fn log(mut self, log: &'a mut [u8]) -> Self {
        self.log = log;
        self
    }

    /// Sets the kernel version that a kernel before 5.0 requires in a kprobe program: its own.
    ///
    /// If it is not set, it is read from the vDSO when needed, for which `/proc` must be mounted.
    /// [`kern_version`](super::kern_version) reads it without `/proc`.
    #[must_use]
    pub const fn kern_version(mut self, kern_version: u32) -> Self {
        self.kern_version = kern_version;
        self
    }

    /// Loads the program by `BPF_PROG_LOAD` of [`bpf(2)`].
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`. If that limit is too low, it
    /// is raised for the call, and then restored.
    ///
    /// If the kernel refuses a program without a [`kern_version`](Self::kern_version) with
    /// `EINVAL`, the program is loaded once more with one. The log is then that of the second load.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::LoadProgram`]:
    ///
    /// * `EPERM` without `CAP_BPF` and `CAP_PERFMON`, or before Linux 5.8 without `CAP_SYS_ADMIN`.
    /// * `EACCES` or `EINVAL` if the verifier refuses the program. The cause is
    ///   [`Cause::WrongProgram`], and the [log](Self::log) says why.
    /// * `E2BIG` if there are too many instructions.
    /// * `ENOSPC` if the log does not fit into its buffer.
    ///
    /// [`bpf(2)`]: https://man7.org/linux/man-pages/man2/bpf.2.html
    pub fn load(self) -> Result<Program, Error> {
        let Self {
            insns,
            license,
            name,
            log,
            expected_attach_type,
            kern_version,
        } = self;
        let mut load = sys::Load {
            insns: sys::insn_bytes(insns),
            #[cfg(feature = "object")]
            btf: None,
            license,
            name,
            expected_attach_type,
            kern_version,
            log,
        };
        load_program(&mut load).map_err(load_failed)
    }
}

/// Loads a program, and leaves out what an older kernel does not know.
// A program that loads no object has one caller, in which it is smaller.
#[allow(clippy::inline_always)]
#[inline(always)]
pub(super) fn load_program(load: &mut sys::Load<'_>) -> Result<Program, Errno> {
    let loaded = with_memlock(|| {
        let loaded = match sys::prog_load(load) {
            // Linux before 4.15 (commit cb4d2b3f03d8) does not have names, and refuses an
            // attribute that it does not know.
            Err(Errno::TOOBIG) if load.name != [0; 16] => {
                load.name = [0; 16];
                sys::prog_load(load)
            }
            loaded => loaded,
        };
        match loaded {
            // Linux before 5.0 (commit 6c4fc209fcf9) compares kern_version with its own. Later
            // kernels ignore it.
            Err(Errno::INVAL) if load.kern_version == 0 => {
                load.kern_version = vdso_version().ok_or(Errno::INVAL)?;
                sys::prog_load(load)
            }
            loaded => loaded,
        }
    });
    loaded.map(Program)
}

/// Makes the error of a program that was not loaded.
pub(super) fn load_failed(errno: Errno) -> Error {
    match errno {
        // EACCES comes from the verifier, and not from a missing permission.
        Errno::ACCESS => Error::new(Step::LoadProgram, errno, Cause::WrongProgram),
        errno => memlock_error(Step::LoadProgram, errno, Cause::WrongProgram),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_refuse_or_cut_is_refused() {
        let name = |name| Load::new(&[], c"GPL").name(name).map(|load| load.name);
        assert_eq!(name("a_b.C7").unwrap(), *b"a_b.C7\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(name("fifteen_letters").unwrap(), *b"fifteen_letters\0");
        for (text, at) in [
            ("sixteen__letters", 15),
            ("a b", 1),
            ("a-b", 1),
            ("\u{e9}", 0),
        ] {
            let error = ParseError::new(at, Invalid::ProgramName);
            assert_eq!(name(text), Err(error), "{text}");
        }
    }
}
