//! BPF maps: arrays of 64-bit numbers, and hash maps.

use core::mem::size_of_val;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address, address_mut, bpf, bpf_fd, fd_u32};
use super::object::obj_get_info;
use super::uapi::{
    BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH,
    BPF_MAP_UPDATE_ELEM, MapCreate, MapElem, MapInfo,
};

/// Owns a `BPF_MAP_TYPE_ARRAY` with u32 keys and u64 values. The calls below rely on that, so
/// nothing outside this file can make one.
#[derive(Debug)]
pub(crate) struct ArrayFd(OwnedFd);

impl AsFd for ArrayFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a `BPF_MAP_TYPE_HASH` whose elements are allocated at once.
pub(crate) fn create_hash(key_size: u32, value_size: u32, entries: u32) -> Result<OwnedFd> {
    create(BPF_MAP_TYPE_HASH, key_size, value_size, entries)
}

/// Makes a map by `BPF_MAP_CREATE`.
fn create(map_type: u32, key_size: u32, value_size: u32, max_entries: u32) -> Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type,
        key_size,
        value_size,
        max_entries,
        map_flags: 0,
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_MAP_CREATE, &mut attr) }
}

impl ArrayFd {
    /// Makes an array of `entries` u64 by `BPF_MAP_CREATE`.
    pub(crate) fn create(entries: u32) -> Result<Self> {
        create(BPF_MAP_TYPE_ARRAY, 4, 8, entries).map(Self)
    }

    /// Takes the file descriptor of such an array. Returns `EINVAL` for any other map. `fd` must be
    /// a map.
    pub(crate) fn of_map(fd: OwnedFd) -> Result<Self> {
        let mut info = MapInfo::default();
        let len = size_of_val(&info);
        // SAFETY: the struct is all zeros. Whatever kind of object it is, the kernel does not have
        // an address to write to.
        unsafe { obj_get_info(fd.as_fd(), &mut info, len) }?;
        let MapInfo {
            r#type,
            key_size,
            value_size,
            ..
        } = info;
        if (r#type, key_size, value_size) == (BPF_MAP_TYPE_ARRAY, 4, 8) {
            Ok(Self(fd))
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Sets an element by `BPF_MAP_UPDATE_ELEM`.
    pub(crate) fn update(&self, key: u32, value: u64) -> Result<()> {
        let mut attr = MapElem {
            map_fd: fd_u32(self.as_fd()),
            key: address(&key),
            value: address(&value),
            ..MapElem::default()
        };
        // SAFETY: the attribute of this command. An `ArrayFd` has u32 keys and u64 values, and the
        // kernel reads one of each.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Reads an element by `BPF_MAP_LOOKUP_ELEM`.
    pub(crate) fn lookup(&self, key: u32) -> Result<u64> {
        let mut value = 0_u64;
        let mut attr = MapElem {
            map_fd: fd_u32(self.as_fd()),
            key: address(&key),
            value: address_mut(&mut value),
            ..MapElem::default()
        };
        // SAFETY: the attribute of this command. Only `create` and `of_map` make an `ArrayFd`, so
        // the kernel reads a u32 key and writes a u64 value. The command refuses anything that is
        // not a map.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
        Ok(value)
    }
}
