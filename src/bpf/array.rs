//! Maps of the kinds that a counting program needs: arrays of 64-bit numbers, and hash maps.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use super::memlock::{memlock_error, with_memlock};
use super::pin::pin;
use super::program::obj_get;
use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::sys::{ArrayFd, create_hash};

/// Owns a map of type `BPF_MAP_TYPE_ARRAY` with u32 keys and u64 values, which are zero at first.
#[derive(Debug)]
pub struct Array(ArrayFd);

impl Array {
    /// Makes an array of `entries` numbers.
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`. If that limit is too low, it
    /// is raised for the call, and then restored.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `EPERM` without `CAP_BPF`, or before Linux 5.8 without `CAP_SYS_ADMIN`.
    /// * `ENOMEM` if the kernel does not have enough memory.
    /// * `EINVAL` if `entries` is 0.
    pub fn create(entries: u32) -> Result<Self, Error> {
        with_memlock(|| ArrayFd::create(entries))
            .map(Self)
            .map_err(|errno| memlock_error(Step::Map, errno, Cause::Unknown))
    }

    /// Returns the number at `index`.
    ///
    /// # Errors
    ///
    /// Returns `ENOENT` with the step [`Step::Map`] if there is no such index.
    pub fn get(&self, index: u32) -> Result<u64, Error> {
        self.0.lookup(index).map_err(map_failed)
    }

    /// Sets the number at `index`.
    ///
    /// # Errors
    ///
    /// Returns `E2BIG` with the step [`Step::Map`] if there is no such index.
    pub fn set(&self, index: u32, number: u64) -> Result<(), Error> {
        self.0.update(index, number).map_err(map_failed)
    }

    /// Pins the array into a bpf file system, where it stays without this process.
    ///
    /// If the last directory of the path does not exist, it is made with mode 0700. No other
    /// directory is made.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Pin`]:
    ///
    /// * `EINVAL` if the path is not in a bpf file system that is mounted.
    /// * `EEXIST` if the path is taken.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.4.
    #[doc(alias = "bpf_map__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        pin(self.as_fd(), path)
    }

    /// Opens a pinned array, whichever program pinned it.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `ENOENT` if the pin does not exist.
    /// * `EACCES` if the pin may not be opened.
    /// * `EINVAL` if it is not an array of u64 values, or if the path is not in a bpf file system.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13.
    #[doc(alias = "bpf_map__reuse_fd")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        let opened = path.into_with_c_str(|path| ArrayFd::of_map(obj_get(path)?));
        opened.map(Self).map_err(map_failed)
    }
}

/// Owns a map of type `BPF_MAP_TYPE_HASH`, which programs fill.
#[derive(Debug)]
pub struct HashMap(OwnedFd);

impl HashMap {
    /// Makes an empty hash map for at most `entries` elements, whose sizes are in bytes. The kernel
    /// allocates all of them at once.
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`. If that limit is too low, it
    /// is raised for the call, and then restored.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `EPERM` without `CAP_BPF`, or before Linux 5.8 without `CAP_SYS_ADMIN`.
    /// * `ENOMEM` if the kernel does not have enough memory.
    /// * `EINVAL` if a size or `entries` is 0.
    /// * `E2BIG` if an element is too large.
    pub fn create(key_size: u32, value_size: u32, entries: u32) -> Result<Self, Error> {
        with_memlock(|| create_hash(key_size, value_size, entries))
            .map(Self)
            .map_err(|errno| memlock_error(Step::Map, errno, Cause::Unknown))
    }
}

impl AsFd for HashMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
