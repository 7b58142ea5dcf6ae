//! Maps of any type, as an object defines them.

use core::mem::size_of_val;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address, address_mut, bpf, bpf_fd, fd_u32};
use super::object::obj_get_info;
use super::uapi::{
    BPF_MAP_CREATE, BPF_MAP_FREEZE, BPF_MAP_GET_FD_BY_ID, BPF_MAP_GET_NEXT_KEY,
    BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, GetFdById, MapCreateNamed, MapElem, MapFreeze,
    MapInfo,
};

/// The largest number of CPUs that a kernel can be built for: the limit of `CONFIG_NR_CPUS` on the
/// architectures where it is largest.
const MAX_CPUS: usize = 8192;

/// Holds what a map is, as `BPF_MAP_CREATE` takes it and the kernel reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapKind {
    /// `enum bpf_map_type`
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
}

impl MapKind {
    /// Returns whether the map has a value for each CPU: `BPF_MAP_TYPE_PERCPU_HASH`,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY` and `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub(crate) const fn is_per_cpu(&self) -> bool {
        matches!(self.map_type, 5 | 6 | 10)
    }

    /// Returns the most bytes that the kernel writes for an element, or [`None`] for a type of maps
    /// of which that is not known.
    pub(crate) fn element_len(&self) -> Option<usize> {
        let value_size = usize::try_from(self.value_size).ok()?;
        match self.map_type {
            // BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LPM_TRIE
            1 | 2 | 9 | 11 => Some(value_size),
            _ if self.is_per_cpu() => value_size
                .checked_next_multiple_of(8)?
                .checked_mul(MAX_CPUS),
            _ => None,
        }
    }
}

/// Opens a map by `BPF_MAP_GET_FD_BY_ID`.
pub(crate) fn map_get_fd_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFdById { id };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_MAP_GET_FD_BY_ID, &mut attr) }
}

fn map_info(fd: BorrowedFd<'_>) -> Result<MapInfo> {
    let mut info = MapInfo::default();
    let len = size_of_val(&info);
    // SAFETY: the struct is all zeros. Whatever kind of object it is, the kernel does not have an
    // address to write to.
    unsafe { obj_get_info(fd, &mut info, len) }?;
    Ok(info)
}

/// Owns a map, and knows the sizes of its keys and values. The calls below rely on that, so nothing
/// outside this file can make one.
#[derive(Debug)]
pub(crate) struct MapFd {
    fd: OwnedFd,
    kind: MapKind,
}

impl AsFd for MapFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl MapFd {
    /// Makes a map by `BPF_MAP_CREATE`. `btf` is type information, and the types of its keys and
    /// values.
    #[inline(never)] // apart from the code of each run
    pub(crate) fn create(
        kind: MapKind,
        name: [u8; 16],
        numa_node: u32,
        map_extra: u64,
        btf: Option<(BorrowedFd<'_>, u32, u32)>,
    ) -> Result<Self> {
        let mut attr = MapCreateNamed {
            map_type: kind.map_type,
            key_size: kind.key_size,
            value_size: kind.value_size,
            max_entries: kind.max_entries,
            map_flags: kind.map_flags,
            numa_node,
            map_name: name,
            map_extra,
            ..MapCreateNamed::default()
        };
        if let Some((fd, key_type, value_type)) = btf {
            attr.btf_fd = fd_u32(fd);
            attr.btf_key_type_id = key_type;
            attr.btf_value_type_id = value_type;
        }
        // SAFETY: the attribute of this command, which opens a file descriptor, with no address in
        // it.
        let fd = unsafe { bpf_fd(BPF_MAP_CREATE, &mut attr) }?;
        Ok(Self { fd, kind })
    }

    /// Takes the file descriptor of a map. Returns `EINVAL` for that of anything else.
    pub(crate) fn of_map(fd: OwnedFd) -> Result<Self> {
        let mut attr = MapElem {
            map_fd: fd_u32(fd.as_fd()),
            ..MapElem::default()
        };
        // The information of programs and links begins like that of maps. But they are no maps to
        // this command, which finds no key or value at a null address.
        // SAFETY: the attribute of this command. The kernel neither reads nor writes at null.
        if let Err(Errno::INVAL) = unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            return Err(Errno::INVAL);
        }
        let info = map_info(fd.as_fd())?;
        let kind = MapKind {
            map_type: info.r#type,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            map_flags: info.map_flags,
        };
        Ok(Self { fd, kind })
    }

    /// Returns what the map is.
    pub(crate) const fn kind(&self) -> &MapKind {
        &self.kind
    }

    /// Returns the map's id.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(map_info(self.as_fd())?.id)
    }

    /// Writes the key that follows a key, or the first one, to `next` by `BPF_MAP_GET_NEXT_KEY`.
    /// Returns `EINVAL` for keys of another length.
    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<()> {
        let is_key = |len: usize| u32::try_from(len) == Ok(self.kind.key_size);
        if !is_key(next.len()) || key.is_some_and(|key| !is_key(key.len())) {
            return Err(Errno::INVAL);
        }
        let mut attr = MapElem {
            map_fd: fd_u32(self.as_fd()),
            key: key.map_or(0, address),
            value: address_mut(next),
            ..MapElem::default()
        };
        // SAFETY: the attribute of this command. The kernel reads and writes a key, and each slice
        // has its bytes. The command refuses anything that is not a map.
        unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) }.map(drop)
    }

    /// Reads an element by `BPF_MAP_LOOKUP_ELEM`. Returns `EINVAL` for a key of another length, or
    /// a value of less than `element_len` bytes, and `EOPNOTSUPP` for another type of maps.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<()> {
        let len = self.kind.element_len().ok_or(Errno::OPNOTSUPP)?;
        if u32::try_from(key.len()) != Ok(self.kind.key_size) || value.len() < len {
            return Err(Errno::INVAL);
        }
        let mut attr = MapElem {
            map_fd: fd_u32(self.as_fd()),
            key: address(key),
            value: address_mut(value),
            ..MapElem::default()
        };
        // SAFETY: the attribute of this command. The kernel reads a key, which the slice has, and
        // writes at most element_len bytes. The command refuses anything that is not a map.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
    }

    /// Sets the only element of an array by `BPF_MAP_UPDATE_ELEM`. Returns `EINVAL` for a value of
    /// another length, or another map.
    pub(crate) fn set_only(&self, value: &[u8]) -> Result<()> {
        let MapKind {
            map_type,
            key_size,
            value_size,
            ..
        } = self.kind;
        let is_array = (map_type, key_size) == (super::uapi::BPF_MAP_TYPE_ARRAY, 4);
        if !is_array || u32::try_from(value.len()) != Ok(value_size) {
            return Err(Errno::INVAL);
        }
        let key = 0_u32;
        let mut attr = MapElem {
            map_fd: fd_u32(self.as_fd()),
            key: address(&key),
            value: address(value),
            ..MapElem::default()
        };
        // SAFETY: the attribute of this command. The map is an array, so the kernel reads a u32 key
        // and a value of value_size bytes, which the slice has.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Makes the map constant for system calls by `BPF_MAP_FREEZE`.
    pub(crate) fn freeze(&self) -> Result<()> {
        let mut attr = MapFreeze {
            map_fd: fd_u32(self.as_fd()),
        };
        // SAFETY: the attribute of this command, with no address in it.
        unsafe { bpf(BPF_MAP_FREEZE, &mut attr) }.map(drop)
    }
}
