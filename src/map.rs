//! As much of BPF maps as programs that count need: an array of 64-bit numbers.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::cause::Cause;
use crate::error::{Error, Failure, Step};
use crate::{prog, sys};

/// A `BPF_MAP_TYPE_ARRAY` with u32 keys and u64 values, all zero at first.
#[derive(Debug)]
pub struct Array(OwnedFd);

impl Array {
    /// Makes an array of `entries` numbers.
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`, which is raised for the call if it is too low, and put
    /// back.
    ///
    /// # Errors
    ///
    /// [`Step::Map`]: no permission (`CAP_BPF`; `CAP_SYS_ADMIN` before Linux 5.8), no memory, no entries.
    pub fn create(entries: u32) -> Result<Self, Error> {
        let create = || sys::map_create_array(entries);
        Ok(Self(prog::with_memlock(Step::Map, Cause::Unknown, create)?))
    }

    /// The number at `index`.
    ///
    /// # Errors
    ///
    /// [`Step::Map`], `ENOENT`: there is no such index.
    pub fn get(&self, index: u32) -> Result<u64, Error> {
        sys::map_lookup(self, index)
            .map_err(|errno| Failure::bpf(Step::Map, errno, Cause::Unknown).into())
    }
}

impl AsFd for Array {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
