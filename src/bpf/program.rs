//! Loaded programs, opened from a pin or by id.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::pin::is_bpffs;
use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::sys;

/// Owns a loaded program of type `BPF_PROG_TYPE_KPROBE`.
#[derive(Debug)]
pub struct Program(pub(super) OwnedFd);

impl Program {
    /// Opens a program that is pinned in a bpf file system.
    ///
    /// The modes of the pin, and of the directories above it, must allow that.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::OpenProgram`]:
    ///
    /// * `ENOENT` if the pin does not exist.
    /// * `EACCES` if the pin may not be opened.
    /// * `EINVAL` if it is not a kprobe program, or if the path is not in a bpf file system.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13, which reports the type of a program.
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        path.into_with_c_str(|path| opened(obj_get(path)?))
            .map_err(open_failed)
    }

    /// Opens a loaded program by its id, as `bpftool prog` lists it. It takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::OpenProgram`]:
    ///
    /// * `ENOENT` if no program has the id.
    /// * `EPERM` without `CAP_SYS_ADMIN`.
    /// * `EINVAL` if it is not a kprobe program.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13.
    pub fn open_id(id: u32) -> Result<Self, Error> {
        sys::prog_get_fd_by_id(id)
            .and_then(opened)
            .map_err(open_failed)
    }

    /// Makes one of a file descriptor of a loaded program, such as one that another process handed
    /// over. It copies the file descriptor. `Program::try_from` takes an [`OwnedFd`] over.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::OpenProgram`]:
    ///
    /// * `EBADF` if it is not a file descriptor.
    /// * `EINVAL` if it is not a kprobe program.
    /// * `EMFILE` if this process has no room for another file descriptor.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13. Before Linux 5.10 (commit ef15314aa5de), an array map passes for a program: the
    /// attach then fails.
    pub fn from_fd(fd: impl AsFd) -> Result<Self, Error> {
        let fd = fd.as_fd();
        let checked = check_program(fd).map_err(|errno| match errno {
            // Of a number that is no file descriptor.
            Errno::BADFD => Errno::BADF,
            errno => errno,
        });
        let copy = checked.and_then(|()| rustix::io::fcntl_dupfd_cloexec(fd, 0));
        copy.map(Self).map_err(open_failed)
    }

    /// Returns the program's id.
    ///
    /// # Errors
    ///
    /// Returns the kernel's errno with the step [`Step::OpenProgram`].
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13.
    pub fn id(&self) -> Result<u32, Error> {
        sys::prog_info(self.as_fd())
            .map(|info| info.id)
            .map_err(info_failed)
    }

    /// Returns the number of runs that the kernel skipped because the CPU was busy with BPF.
    ///
    /// The CPU was already in a program of a probe, tracepoint or perf event, or in a system call
    /// on a map. Such a hit is lost, and [`KprobeLink::missed`](crate::KprobeLink::missed) does not
    /// count it. A kernel can also preempt such a call, and run the task that hits the probe. It
    /// must preempt fully, or lazily (Linux 6.13, commit 7c70cb94d29c).
    ///
    /// The number is the sum over all links that the program ever had. It is [`None`] if the kernel
    /// does not report it.
    ///
    /// # Errors
    ///
    /// Returns the kernel's errno with the step [`Step::OpenProgram`].
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.12 (commit 9ed9e9ba2337) reports the number. Linux 6.7 (commit dd8657894c11) counts
    /// hits of kprobes in it.
    pub fn recursion_misses(&self) -> Result<Option<u64>, Error> {
        match sys::prog_info(self.as_fd()) {
            Ok(info) => Ok(info.recursion_misses),
            // The kernel does not know the command.
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(info_failed(errno)),
        }
    }
}

/// Takes over the file descriptor of a program that another crate loaded. If this fails, the file
/// descriptor is closed.
///
/// The errors and the minimum kernel are those of [`Program::from_fd`], but for `EMFILE`.
impl TryFrom<OwnedFd> for Program {
    type Error = Error;

    fn try_from(fd: OwnedFd) -> Result<Self, Error> {
        opened(fd).map_err(open_failed)
    }
}

fn info_failed(errno: Errno) -> Error {
    bpf_error(Step::OpenProgram, errno, Cause::Unknown)
}

/// Makes a program of a file descriptor that is one. Returns `EINVAL` for any other object.
fn opened(fd: OwnedFd) -> Result<Program, Errno> {
    check_program(fd.as_fd()).map(|()| Program(fd))
}

/// Checks that a file descriptor is a kprobe program.
fn check_program(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let info = sys::prog_info(fd)?;
    if info.prog_type != sys::uapi::BPF_PROG_TYPE_KPROBE || !sys::is_prog(fd) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn open_failed(errno: Errno) -> Error {
    let cause = match errno {
        Errno::NOENT | Errno::BADF => Cause::Unknown,
        _ => Cause::WrongProgram,
    };
    bpf_error(Step::OpenProgram, errno, cause)
}

/// Opens a pin by `BPF_OBJ_GET`. The kernel returns `EACCES` for a directory and for a path outside
/// of a bpf file system, as for a pin that may not be opened. This function returns `EINVAL` for
/// what is not a pin.
pub(crate) fn obj_get(path: &CStr) -> Result<OwnedFd, Errno> {
    sys::obj_get(path).map_err(|errno| match errno {
        Errno::ACCESS if is_bpffs(path) == Ok(false) || is_dir(path) => Errno::INVAL,
        errno => errno,
    })
}

fn is_dir(path: &CStr) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).is_ok()
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
