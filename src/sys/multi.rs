//! `kprobe.multi` and `kprobe.session` links: one link to many functions.

use core::ffi::CStr;
use core::fmt;
use core::marker::PhantomData;
use core::mem::size_of_val;
use core::ptr;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address, address_mut, bpf_fd, fd_u32};
use super::object::obj_get_info;
use super::uapi::{
    BPF_LINK_CREATE, BPF_LINK_TYPE_KPROBE_MULTI, LinkCreateKprobeMulti, LinkInfoKprobeMulti,
};

/// Borrows the name of a function as one pointer, which is how the kernel takes names.
///
/// A slice of these is the array that the kernel reads, so nothing is copied.
///
/// ```
/// use kprobe_attach::request::SymbolRef;
///
/// let names = [c"vfs_read", c"vfs_write"].map(SymbolRef::new);
/// assert_eq!(names[1].name(), c"vfs_write");
/// assert_eq!(size_of_val(&names), 16);
/// ```
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SymbolRef<'a> {
    /// The address of a `&'a CStr`.
    address: u64,
    name: PhantomData<&'a CStr>,
}

impl<'a> SymbolRef<'a> {
    /// Borrows a name. The rules of names are checked when a link is planned.
    #[must_use]
    pub fn new(name: &'a CStr) -> Self {
        Self {
            address: address(name),
            name: PhantomData,
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'a CStr {
        // It was an address of this machine, so it fits.
        let address = usize::try_from(self.address).unwrap_or_default();
        let name = ptr::with_exposed_provenance(address);
        // SAFETY: `new` is the only way to make one. The address is that of a C string which is
        // borrowed for `'a`, and its provenance was exposed there.
        unsafe { CStr::from_ptr(name) }
    }
}

impl fmt::Debug for SymbolRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl PartialEq for SymbolRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for SymbolRef<'_> {}

/// The functions of a link, in the form in which the kernel takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Places<'a> {
    Symbols(&'a [SymbolRef<'a>]),
    Addresses(&'a [u64]),
}

impl Places<'_> {
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Symbols(symbols) => symbols.len(),
            Self::Addresses(addresses) => addresses.len(),
        }
    }
}

/// Makes a link to many functions by `BPF_LINK_CREATE`.
///
/// `cookies` is empty, or has one for each function. Returns `EINVAL` for any other number.
pub(crate) fn link_create_kprobe_multi(
    prog: BorrowedFd<'_>,
    attach_type: u32,
    multi_flags: u32,
    places: Places<'_>,
    cookies: &[u64],
) -> Result<OwnedFd> {
    if !cookies.is_empty() && cookies.len() != places.len() {
        return Err(Errno::INVAL);
    }
    let address_if_any = |array: &[u64]| {
        if array.is_empty() { 0 } else { address(array) }
    };
    let (syms, addrs) = match places {
        Places::Symbols(symbols) => (address(symbols), 0),
        Places::Addresses(addresses) => (0, address(addresses)),
    };
    let mut attr = LinkCreateKprobeMulti {
        prog_fd: fd_u32(prog),
        attach_type,
        multi_flags,
        cnt: u32::try_from(places.len()).map_err(|_| Errno::TOOBIG)?,
        syms,
        addrs,
        cookies: address_if_any(cookies),
        ..LinkCreateKprobeMulti::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor. The kernel reads `cnt`
    // elements of each array, which is their length. Each `SymbolRef` is the address of a C string
    // that is borrowed during the call. The kernel writes to none of them.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Calls `BPF_LINK_CREATE` for a `kprobe.multi` or `kprobe.session` link to one symbol at an
/// invalid address. Returns EFAULT if the kernel has such links.
pub(crate) fn link_create_multi_bad_address(
    prog: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<OwnedFd> {
    let mut attr = LinkCreateKprobeMulti {
        prog_fd: fd_u32(prog),
        attach_type,
        cnt: 1,
        syms: 1,
        ..LinkCreateKprobeMulti::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor. Its one address is only
    // read, by copy_from_user(), which refuses it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Holds what the kernel reports of a link to many functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MultiInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    /// Zero before Linux 6.6, which does not report the fields below either.
    pub(crate) count: u32,
    pub(crate) flags: u32,
    /// Linux 6.7 (commit e2b2cd592a8a)
    pub(crate) missed: Option<u64>,
    /// The number of addresses and cookies that were written.
    pub(crate) written: usize,
    /// Linux 6.9 (commit 9fd112b1f82b)
    pub(crate) has_cookies: bool,
}

/// A cookie that is not in use. If it is still there after the call, the kernel wrote no cookie.
const NO_COOKIE: u64 = u64::MAX;

/// Asks `BPF_OBJ_GET_INFO_BY_FD` about a link to many functions.
///
/// The first call asks for the numbers. If there is room for addresses, a second call asks for
/// them, and for as many cookies.
pub(crate) fn multi_link_info(
    link: BorrowedFd<'_>,
    addresses: &mut [u64],
    cookies: &mut [u64],
) -> Result<MultiInfo> {
    let mut raw = LinkInfoKprobeMulti::default();
    let len = size_of_val(&raw);
    // SAFETY: the struct is all zeros, so the kernel does not have an address to write to.
    let known = unsafe { obj_get_info(link, &mut raw, len) }?;
    let is_multi = raw.r#type == BPF_LINK_TYPE_KPROBE_MULTI;
    let end_of_missed = core::mem::offset_of!(LinkInfoKprobeMulti, cookies);
    let mut info = MultiInfo {
        link_type: raw.r#type,
        id: raw.id,
        prog_id: raw.prog_id,
        count: raw.count,
        flags: raw.flags,
        missed: (known >= end_of_missed && raw.count > 0).then_some(raw.missed),
        written: 0,
        has_cookies: false,
    };
    let mut room = addresses.len();
    if !cookies.is_empty() {
        room = room.min(cookies.len());
    }
    if !is_multi || raw.count == 0 || room == 0 {
        return Ok(info);
    }
    let wants_cookies = known >= len && !cookies.is_empty();
    cookies.fill(NO_COOKIE);
    let mut asked = LinkInfoKprobeMulti {
        addrs: address_mut(addresses),
        count: u32::try_from(room).unwrap_or(u32::MAX),
        cookies: if wants_cookies {
            address_mut(cookies)
        } else {
            0
        },
        ..LinkInfoKprobeMulti::default()
    };
    // SAFETY: the two addresses in the struct are those of slices that are borrowed mutably. Each
    // has at least `count` elements, and the kernel writes at most so many.
    let told = unsafe { obj_get_info(link, &mut asked, known) };
    match told {
        // There are more functions than room. The kernel has written as many as fit.
        Ok(_) | Err(Errno::NOSPC) => {}
        Err(errno) => return Err(errno),
    }
    info.written = room.min(usize::try_from(raw.count).unwrap_or(usize::MAX));
    info.has_cookies = wants_cookies && cookies.iter().any(|cookie| *cookie != NO_COOKIE);
    Ok(info)
}
