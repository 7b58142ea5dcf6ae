//! Loaded programs, opened from a pin or by id.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use super::pin::is_bpffs;
use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::sys;

/// A loaded program of type `BPF_PROG_TYPE_KPROBE`.
#[derive(Debug)]
pub struct Program(pub(super) OwnedFd);

impl Program {
    /// Opens a program that is pinned in a bpf file system. Linux 4.13, which can tell its type;
    /// the mode of the pin and of the directories above it must allow it.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`]: there is no such pin, it may not be opened, or it is not a kprobe
    /// program.
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        path.into_with_c_str(|path| opened(obj_get(path)?))
            .map_err(open_failed)
    }

    /// Opens a loaded program by its id, as `bpftool prog` lists it. Linux 4.13, `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`]: there is no such program, or it is not a kprobe program.
    pub fn open_id(id: u32) -> Result<Self, Error> {
        sys::prog_get_fd_by_id(id)
            .and_then(opened)
            .map_err(open_failed)
    }

    /// The program's id. Linux 4.13.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`] with the kernel's errno.
    pub fn id(&self) -> Result<u32, Error> {
        Ok(self.info()?.id)
    }

    /// How often the kernel left out a run of the program because the CPU was in a program of a
    /// probe, tracepoint or perf event already, or in a system call on a map: such a hit is lost,
    /// and [`KprobeLink::missed`](crate::KprobeLink::missed) does not count it. Where the kernel
    /// preempts lazily (Linux 6.13, commit 7c70cb94d29c) or fully, the CPU may have been taken from
    /// such a call by the very task that hits the probe. The sum over all links that the program
    /// ever had. [`None`] before Linux 5.12 (commit 9ed9e9ba2337); hits of kprobes are counted
    /// since 6.7 (commit dd8657894c11).
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`] with the kernel's errno.
    pub fn recursion_misses(&self) -> Result<Option<u64>, Error> {
        Ok(self.info()?.recursion_misses)
    }

    fn info(&self) -> Result<sys::ProgInfo, Error> {
        sys::prog_info(self.as_fd())
            .map_err(|errno| bpf_error(Step::OpenProgram, errno, Cause::Unknown))
    }
}

/// Makes a program of a descriptor that is one: `EINVAL` for anything else.
fn opened(fd: OwnedFd) -> Result<Program, Errno> {
    let info = sys::prog_info(fd.as_fd())?;
    if info.prog_type != sys::uapi::BPF_PROG_TYPE_KPROBE || !sys::is_prog(fd.as_fd()) {
        return Err(Errno::INVAL);
    }
    Ok(Program(fd))
}

fn open_failed(errno: Errno) -> Error {
    let cause = match errno {
        Errno::NOENT => Cause::Unknown,
        _ => Cause::WrongProgram,
    };
    bpf_error(Step::OpenProgram, errno, cause)
}

/// `BPF_OBJ_GET`, with a path outside of a bpf file system told from one that may not be opened
/// (both are `EACCES`).
pub(crate) fn obj_get(path: &CStr) -> Result<OwnedFd, Errno> {
    sys::obj_get(path).map_err(|errno| match errno {
        Errno::ACCESS if !is_bpffs(path).unwrap_or(true) => Errno::INVAL,
        errno => errno,
    })
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
