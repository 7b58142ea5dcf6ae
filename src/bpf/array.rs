//! As much of BPF maps as programs that count need: an array of 64-bit numbers.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use super::memlock::{memlock_error, with_memlock};
use super::pin::pin;
use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::sys::{self, ArrayFd};

/// A `BPF_MAP_TYPE_ARRAY` with u32 keys and u64 values, all zero at first.
#[derive(Debug)]
pub struct Array(ArrayFd);

impl Array {
    /// Makes an array of `entries` numbers.
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`, which is raised for the call
    /// if it is too low, and put back.
    ///
    /// # Errors
    ///
    /// [`Step::Map`]: no permission (`CAP_BPF`; `CAP_SYS_ADMIN` before Linux 5.8), no memory, no
    /// entries.
    pub fn create(entries: u32) -> Result<Self, Error> {
        with_memlock(|| ArrayFd::create(entries))
            .map(Self)
            .map_err(|errno| memlock_error(Step::Map, errno, Cause::Unknown))
    }

    /// The number at `index`.
    ///
    /// # Errors
    ///
    /// [`Step::Map`], `ENOENT`: there is no such index.
    pub fn get(&self, index: u32) -> Result<u64, Error> {
        self.0.lookup(index).map_err(map_failed)
    }

    /// Changes the number at `index`.
    ///
    /// # Errors
    ///
    /// [`Step::Map`], `E2BIG`: there is no such index.
    pub fn set(&self, index: u32, number: u64) -> Result<(), Error> {
        self.0.update(index, number).map_err(map_failed)
    }

    /// Pins the array into a bpf file system, where it stays without this process. Of the path at
    /// most the last directory is made, with mode 0700. Linux 4.4.
    ///
    /// # Errors
    ///
    /// [`Step::Pin`]: the path is not in a bpf file system that is mounted, or taken.
    #[doc(alias = "bpf_map__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        pin(self.as_fd(), path)
    }

    /// Opens an array that was pinned, by this crate or another. Linux 4.13.
    ///
    /// # Errors
    ///
    /// [`Step::Map`]: there is no such pin, or it is not an array of u64 values.
    #[doc(alias = "bpf_map__reuse_fd")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        let opened = path.into_with_c_str(|path| ArrayFd::of_map(sys::obj_get(path)?));
        opened.map(Self).map_err(map_failed)
    }
}

fn map_failed(errno: Errno) -> Error {
    bpf_error(Step::Map, errno, Cause::Unknown)
}

impl AsFd for Array {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
