//! `BPF_PROG_LOAD`, and what the kernel reports of a program.

use core::ffi::CStr;
use core::marker::PhantomData;
use core::mem::size_of_val;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address, address_mut, bpf, bpf_fd, fd_u32, len_u32};
use super::object::obj_get_info;
use super::uapi::{
    self, BPF_BTF_LOAD, BPF_PROG_BIND_MAP, BPF_PROG_GET_FD_BY_ID, BPF_PROG_LOAD, BtfLoad,
    GetFdById, ProgBindMap, ProgLoad,
};

/// Represents an instruction: `struct bpf_insn`, in the machine's byte order.
///
/// It borrows the map that it refers to. The file descriptor in the instruction therefore stays
/// that of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Insn<'m> {
    raw: u64,
    map: PhantomData<BorrowedFd<'m>>,
}

impl Insn<'_> {
    pub(crate) const fn new(raw: u64) -> Self {
        Self {
            raw,
            map: PhantomData,
        }
    }

    /// Returns the bytes of the instruction, as a number in the machine's byte order.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.raw
    }
}

/// Returns the bytes of instructions, as `BPF_PROG_LOAD` takes them.
pub(crate) fn insn_bytes<'a>(insns: &'a [Insn<'_>]) -> &'a [[u8; 8]] {
    // SAFETY: an instruction is a u64 and a marker without bytes, so all of its 8 bytes are
    // initialised. They are those of the slice, which stays borrowed.
    unsafe { core::slice::from_raw_parts(insns.as_ptr().cast(), insns.len()) }
}

/// Returns the whole instructions in bytes.
#[cfg(feature = "object")]
pub(crate) fn insns_in(bytes: &[u8]) -> &[[u8; 8]] {
    // SAFETY: arrays of bytes need no alignment. They are those of the slice, which stays borrowed.
    unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 8) }
}

/// Holds records about instructions, all of one length.
#[cfg(feature = "object")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Records<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) len: u32,
}

#[cfg(feature = "object")]
impl Records<'_> {
    /// Returns their number.
    pub(crate) fn count(&self) -> u32 {
        len_u32(self.bytes)
            .checked_div(self.len)
            .unwrap_or_default()
    }
}

/// Holds what `BPF_PROG_LOAD` takes beside the instructions: their type information.
#[cfg(feature = "object")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgBtf<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) functions: Records<'a>,
    pub(crate) lines: Records<'a>,
    /// Linux 5.17 (commit fbd94c7afcf9)
    pub(crate) core: Records<'a>,
}

/// Holds the input of `BPF_PROG_LOAD`.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) insns: &'a [[u8; 8]],
    #[cfg(feature = "object")]
    pub(crate) btf: Option<ProgBtf<'a>>,
    pub(crate) license: &'a CStr,
    pub(crate) name: [u8; 16],
    pub(crate) expected_attach_type: u32,
    pub(crate) kern_version: u32,
    /// The buffer for the log. If it is not empty, `log_level` is 1.
    pub(crate) log: &'a mut [u8],
}

/// How often a load that a signal interrupted is tried: libbpf's `PROG_LOAD_ATTEMPTS`.
const PROG_LOAD_ATTEMPTS: u32 = 5;

/// Loads a program of type `BPF_PROG_TYPE_KPROBE` by `BPF_PROG_LOAD`.
pub(crate) fn prog_load(load: &mut Load<'_>) -> Result<OwnedFd> {
    let Load {
        insns,
        #[cfg(feature = "object")]
        btf,
        license,
        name,
        expected_attach_type,
        kern_version,
        log,
    } = load;
    let mut attr = ProgLoad {
        prog_type: uapi::BPF_PROG_TYPE_KPROBE,
        insn_cnt: u32::try_from(insns.len()).map_err(|_| Errno::TOOBIG)?,
        insns: address(*insns),
        license: address(*license),
        kern_version: *kern_version,
        prog_name: *name,
        expected_attach_type: *expected_attach_type,
        ..ProgLoad::default()
    };
    if !log.is_empty() {
        attr.log_level = 1;
        attr.log_size = len_u32(log);
        attr.log_buf = address_mut(*log);
    }
    #[cfg(feature = "object")]
    if let Some(ProgBtf {
        fd,
        functions,
        lines,
        core,
    }) = btf
    {
        let to = &mut attr.btf;
        to.prog_btf_fd = fd_u32(*fd);
        to.func_info = address(functions.bytes);
        (to.func_info_cnt, to.func_info_rec_size) = (functions.count(), functions.len);
        to.line_info = address(lines.bytes);
        (to.line_info_cnt, to.line_info_rec_size) = (lines.count(), lines.len);
        if core.len > 0 {
            to.core_relos = address(core.bytes);
            (to.core_relo_cnt, to.core_relo_rec_size) = (core.count(), core.len);
        }
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        // SAFETY: the attribute of this command, which opens a file descriptor. The kernel reads
        // insns, the license (which ends with a NUL) and the records within their lengths. It
        // writes the log, which is borrowed mutably, within log_size.
        match unsafe { bpf_fd(BPF_PROG_LOAD, &mut attr) } {
            // The verifier saw a pending signal (Linux 5.0, commit c3494801cd17).
            Err(Errno::AGAIN) if attempts < PROG_LOAD_ATTEMPTS => {}
            loaded => return loaded,
        }
    }
}

/// Calls `BPF_BTF_LOAD` without type information. The kernel checks `CAP_BPF` first, and returns
/// EPERM without it, or EINVAL with it.
pub(crate) fn btf_load_nothing() -> Result<usize> {
    let mut attr = BtfLoad::default();
    // SAFETY: the attribute of this command, with a length of 0 beside its address.
    unsafe { bpf(BPF_BTF_LOAD, &mut attr) }
}

/// Loads type information by `BPF_BTF_LOAD`. Linux 4.18 (commit f56a653c1fd1).
#[cfg(feature = "object")]
#[inline(never)] // apart from the code of each run
pub(crate) fn btf_load(btf: &[u8]) -> Result<OwnedFd> {
    let mut attr = BtfLoad {
        btf: address(btf),
        btf_size: u32::try_from(btf.len()).map_err(|_| Errno::TOOBIG)?,
        ..BtfLoad::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor. The kernel reads the
    // bytes within their length.
    unsafe { bpf_fd(BPF_BTF_LOAD, &mut attr) }
}

/// Opens a program by `BPF_PROG_GET_FD_BY_ID`.
pub(crate) fn prog_get_fd_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFdById { id };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr) }
}

/// Holds what the kernel reports of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgInfo {
    /// `enum bpf_prog_type`
    pub(crate) prog_type: u32,
    pub(crate) id: u32,
    /// Linux 5.12 (commit 9ed9e9ba2337)
    pub(crate) recursion_misses: Option<u64>,
}

/// Asks `BPF_OBJ_GET_INFO_BY_FD` about a program.
pub(crate) fn prog_info(prog: BorrowedFd<'_>) -> Result<ProgInfo> {
    let mut raw = uapi::ProgInfo::default();
    let len = size_of_val(&raw);
    // SAFETY: whatever kind of object it is, every address in its info is zero, and so is the
    // length beside it. The kernel writes nowhere else.
    let known = unsafe { obj_get_info(prog, &mut raw, len) }?;
    Ok(ProgInfo {
        prog_type: raw.r#type,
        id: raw.id,
        recursion_misses: (known >= len).then_some(raw.recursion_misses),
    })
}

/// Returns whether a file descriptor is a program, as far as this kernel can tell. It asks the
/// kernel to bind map -1 to it, which the kernel checks last. Linux 5.10 (commit ef15314aa5de).
pub(crate) fn is_prog(fd: BorrowedFd<'_>) -> bool {
    let answer = |prog_fd| {
        let mut attr = ProgBindMap {
            prog_fd,
            map_fd: u32::MAX,
            flags: 0,
        };
        // SAFETY: the attribute of this command, with no address in it.
        unsafe { bpf(BPF_PROG_BIND_MAP, &mut attr) }
    };
    // A kernel that does not know the command returns EINVAL for program -1 too.
    answer(fd_u32(fd)) != Err(Errno::INVAL) || answer(u32::MAX) == Err(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn bpf_reaches_the_kernel() {
        // This file descriptor is not a program, so every kernel returns an error.
        let not_a_program = rustix::fs::open(
            c"/dev/null",
            rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let error = prog_info(not_a_program.as_fd()).unwrap_err();
        assert!(matches!(error, Errno::INVAL | Errno::PERM), "{error:?}");
    }
}
