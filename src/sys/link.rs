//! `BPF_LINK_CREATE`, and what the kernel reports of a link.

use core::mem::size_of_val;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::call::{address_mut, bpf, bpf_fd, fd_u32, len_u32};
use super::object::obj_get_info;
use super::uapi::{
    self, BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_PERF_EVENT, LinkCreatePerfEvent,
    LinkInfoPerfKprobe, LinkUpdate,
};

/// Makes a link to a perf event by `BPF_LINK_CREATE`. Without an event, target -1 asks whether the
/// kernel has perf links; EBADF means that it does.
pub(crate) fn link_create_perf_event(
    prog: BorrowedFd<'_>,
    perf_event: Option<BorrowedFd<'_>>,
    bpf_cookie: u64,
) -> Result<OwnedFd> {
    let mut attr = LinkCreatePerfEvent {
        prog_fd: fd_u32(prog),
        target_fd: perf_event.map_or(u32::MAX, fd_u32),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        bpf_cookie,
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Calls `BPF_LINK_CREATE` without a program, for which the kernel returns EBADF.
///
/// Some kernels (5.10, but not 6.1) return EPERM without `CAP_BPF` if `unprivileged_bpf_disabled`
/// is set, as in Debian. Any other errno is from a filter.
pub(crate) fn link_create_nothing() -> Result<OwnedFd> {
    let mut attr = LinkCreatePerfEvent {
        prog_fd: u32::MAX,
        target_fd: u32::MAX,
        attach_type: BPF_PERF_EVENT,
        ..LinkCreatePerfEvent::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Returns whether a file descriptor is a link. It asks the kernel to put program -1 into it, which
/// the kernel checks last. Linux 5.7.
pub(crate) fn is_link(fd: BorrowedFd<'_>) -> bool {
    let mut attr = LinkUpdate {
        link_fd: fd_u32(fd),
        new_prog_fd: u32::MAX,
        flags: 0,
    };
    // SAFETY: the attribute of this command, with no address in it.
    let answer = unsafe { bpf(BPF_LINK_UPDATE, &mut attr) };
    answer == Err(Errno::BADF)
}

/// Holds what the kernel reports of a link. A field that it does not know is zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    /// `enum bpf_perf_event_type`. Before Linux 6.6, it and all the fields below are zero.
    pub(crate) perf_event_type: u32,
    pub(crate) offset: u32,
    /// The address; zero if kallsyms hides addresses from this process.
    pub(crate) address: u64,
    /// Linux 6.7 (commit 3acf8ace6823), and 6.6-stable
    pub(crate) missed: Option<u64>,
    /// Linux 6.9 (commit d5c16492c66f), and 6.6-stable
    pub(crate) cookie: Option<u64>,
}

/// A cookie that is not in use. If it is still there after the call, the kernel wrote no cookie.
const NO_COOKIE: u64 = u64::MAX;

/// Asks `BPF_OBJ_GET_INFO_BY_FD` about a link.
///
/// The first call asks for the fields that every kernel has. If its answer shows a kprobe, a second
/// call asks for the fields of that. It puts the name of the function into `name`, with a NUL
/// behind it.
pub(crate) fn link_info(link: BorrowedFd<'_>, name: &mut [u8]) -> Result<LinkInfo> {
    let mut raw = LinkInfoPerfKprobe::default();
    let len = size_of_val(&raw);
    // SAFETY: the struct is all zeros, so the kernel does not have an address to write to.
    let known = unsafe { obj_get_info(link, &mut raw, len) }?;
    let mut info = LinkInfo {
        link_type: raw.r#type,
        id: raw.id,
        prog_id: raw.prog_id,
        perf_event_type: raw.perf_event_type,
        ..LinkInfo::default()
    };
    if raw.r#type != uapi::BPF_LINK_TYPE_PERF_EVENT
        || !matches!(
            raw.perf_event_type,
            uapi::BPF_PERF_EVENT_KPROBE | uapi::BPF_PERF_EVENT_KRETPROBE
        )
    {
        return Ok(info);
    }
    let mut asked = LinkInfoPerfKprobe {
        func_name: address_mut(name),
        name_len: len_u32(name),
        ..LinkInfoPerfKprobe::default()
    };
    // The full length does not prove that the kernel has the last field: uprobe_multi made the
    // struct as long in Linux 6.8.
    if known >= len {
        asked.cookie = NO_COOKIE;
    }
    // SAFETY: the one address in the struct is that of `name`, which is borrowed mutably, with its
    // length beside it.
    unsafe { obj_get_info(link, &mut asked, known) }?;
    info.offset = asked.offset;
    info.address = asked.addr;
    let end_of_missed = core::mem::offset_of!(LinkInfoPerfKprobe, cookie);
    info.missed = (known >= end_of_missed).then_some(asked.missed);
    info.cookie = (known >= len && asked.cookie != NO_COOKIE).then_some(asked.cookie);
    Ok(info)
}
