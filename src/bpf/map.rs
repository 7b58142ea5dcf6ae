//! Maps of any type, as an object defines them.

use linux_raw_sys::general::SYSFS_MAGIC;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use super::pin::pin;
use super::program::obj_get;
use crate::diagnose::bpf_error;
use crate::error::{Cause, Error, Step};
use crate::mount::{Mount, open_read};
use crate::sys::{MapFd, map_get_fd_by_id};
use crate::text::{decimal, read_small};

/// Owns a map of any type, such as one of an [object](super::object).
#[derive(Debug)]
pub struct Map(pub(super) MapFd);

impl Map {
    /// Opens a map that is pinned in a bpf file system.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `ENOENT` if the pin does not exist.
    /// * `EACCES` if the pin may not be opened.
    /// * `EINVAL` if it is not the pin of a map, or not in a bpf file system.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13, which reports the sizes of keys and values.
    #[doc(alias = "bpf_obj_get")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        let opened = path.into_with_c_str(|path| MapFd::of_map(obj_get(path)?));
        opened.map(Self).map_err(map_failed)
    }

    /// Opens a map by its id, as `bpftool map` lists it. It takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `ENOENT` if no map has the id.
    /// * `EPERM` without `CAP_SYS_ADMIN`.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13.
    #[doc(alias = "bpf_map_get_fd_by_id")]
    pub fn open_id(id: u32) -> Result<Self, Error> {
        let opened = map_get_fd_by_id(id).and_then(MapFd::of_map);
        opened.map(Self).map_err(map_failed)
    }

    /// Returns the map's id.
    ///
    /// # Errors
    ///
    /// Returns the kernel's errno with the step [`Step::Map`].
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.13.
    pub fn id(&self) -> Result<u32, Error> {
        self.0.id().map_err(map_failed)
    }

    /// Writes the first key of the map to `next`, or the key that follows `key`. Both have
    /// [`key_size`](Self::key_size) bytes.
    ///
    /// If `key` is no longer in a hash map, the first key follows.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `ENOENT` if no key follows.
    /// * `EINVAL` for a key of another length.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.12 for the first key.
    #[doc(alias = "bpf_map__get_next_key")]
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Error> {
        self.0.next_key(key, next).map_err(map_failed)
    }

    /// Reads the value of a key into the first bytes of `value`.
    ///
    /// The buffer must have [`element_len`](Self::element_len) bytes. If the map has a value for
    /// each CPU, they follow each other, each padded to a multiple of 8 bytes. There are as many
    /// as [`possible_cpus`] returns.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Map`]:
    ///
    /// * `ENOENT` if the key is not in the map.
    /// * `EINVAL` for a key of another length, or a buffer that is too small.
    /// * `EOPNOTSUPP` for a type of maps without an `element_len`.
    /// * Any other errno of the kernel.
    #[doc(alias = "bpf_map__lookup_elem")]
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<(), Error> {
        self.0.lookup(key, value).map_err(map_failed)
    }

    /// Returns the bytes that the kernel may write for an element. If the map has a value for each
    /// CPU, these are the bytes for the largest number of CPUs that a kernel can have.
    ///
    /// It is [`None`] for a map that is not an array, a hash map or a trie.
    #[must_use]
    pub fn element_len(&self) -> Option<usize> {
        self.0.kind().element_len()
    }

    /// Returns whether the map has a value for each CPU.
    #[must_use]
    pub const fn is_per_cpu(&self) -> bool {
        self.0.kind().is_per_cpu()
    }

    /// Pins the map into a bpf file system, where it stays without this process.
    ///
    /// If the last directory of the path does not exist, it is made with mode 0700. No other
    /// directory is made.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Array::pin`](super::Array::pin).
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.4.
    #[doc(alias = "bpf_map__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        pin(self.as_fd(), path)
    }

    /// Returns the bytes of a key.
    #[must_use]
    pub const fn key_size(&self) -> u32 {
        self.0.kind().key_size
    }

    /// Returns the type of the map, of `enum bpf_map_type`.
    #[must_use]
    pub const fn map_type(&self) -> u32 {
        self.0.kind().map_type
    }

    /// Returns the most elements that the map holds.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.0.kind().max_entries
    }

    /// Returns the bytes of a value, on one CPU if the map has a value for each.
    #[must_use]
    pub const fn value_size(&self) -> u32 {
        self.0.kind().value_size
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn map_failed(errno: Errno) -> Error {
    bpf_error(Step::Map, errno, Cause::Unknown)
}

/// Returns the number of CPUs that the machine can have, by `devices/system/cpu/possible` of sysfs.
///
/// # Errors
///
/// Returns the errno of the file, or `EINVAL` if it has no such number.
pub fn possible_cpus(sysfs: &Mount) -> Result<u32, Errno> {
    let path = c"devices/system/cpu/possible";
    let file = open_read(sysfs.as_fd(), path, SYSFS_MAGIC)?;
    let mut text = [0; 64];
    let len = read_small(&file, &mut text)?;
    // `0` or `0-63`, and a newline
    let text = text.get(..len).unwrap_or_default().trim_ascii_end();
    let last = text.rsplit(|byte| matches!(byte, b'-' | b',')).next();
    let last: u32 = last.and_then(decimal).ok_or(Errno::INVAL)?;
    last.checked_add(1).ok_or(Errno::INVAL)
}
