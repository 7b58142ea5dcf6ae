//! What the kernel reports of an attached probe.

use core::ffi::CStr;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::request::{AttachMode, Target, TargetBuf};
use crate::sys;
use crate::sys::uapi::{
    BPF_FD_TYPE_KPROBE, BPF_FD_TYPE_KRETPROBE, BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE,
};

/// Holds what the kernel reports of an attached probe.
///
/// A field is [`None`] if this kernel does not report it, or not to this process.
///
/// # Minimum kernel
///
/// Linux 6.6 reports the fields of a link. Linux 4.18 reports those of a perf event, to a process
/// with `CAP_SYS_ADMIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KprobeInfo {
    /// The mode that was used.
    pub mode: AttachMode,
    /// Whether it is a return probe.
    pub retprobe: Option<bool>,
    /// The function, or the address if the target was one.
    pub function: Option<TargetBuf>,
    /// The offset in bytes from the start of the function.
    pub offset: Option<u64>,
    /// The address of the probe.
    ///
    /// On x86 with IBT, it is 4 bytes after the function's symbol. It is also [`None`] if the
    /// kernel hides addresses (`kernel.kptr_restrict`).
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.6 (commit cd3910d00505).
    pub address: Option<u64>,
    /// The number of hits that the probe missed: see
    /// [`KprobeLink::missed`](crate::KprobeLink::missed).
    pub missed: Option<u64>,
    /// The cookie.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.9 (commit d5c16492c66f).
    pub cookie: Option<u64>,
    /// The id of the BPF link.
    pub link_id: Option<u32>,
    /// The id of the program.
    pub prog_id: Option<u32>,
}

/// Holds what the kernel reports, except for the name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported {
    pub(super) missed: Option<u64>,
    retprobe: Option<bool>,
    offset: Option<u64>,
    /// The address of the probe; 0 if the kernel hides addresses.
    address: u64,
    cookie: Option<u64>,
    link_id: Option<u32>,
    prog_id: Option<u32>,
}

impl Reported {
    /// Asks the kernel about a link, or in the ioctl modes about a perf event. Puts the name of the
    /// function into `name`, with a NUL behind it.
    pub(super) fn of(fd: BorrowedFd<'_>, mode: AttachMode, name: &mut [u8]) -> Result<Self, Errno> {
        let mut reported = Self::default();
        if mode.uses_link() {
            let link = sys::link_info(fd, name)?;
            reported.link_id = Some(link.id);
            reported.prog_id = Some(link.prog_id);
            reported.missed = link.missed;
            reported.cookie = link.cookie;
            let kinds = [BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE];
            let (offset, address) = (link.offset.into(), link.address);
            reported.place(link.perf_event_type, kinds, offset, address);
        } else if let Ok(event) = sys::task_fd_query(fd, name) {
            reported.prog_id = Some(event.prog_id);
            let kinds = [BPF_FD_TYPE_KPROBE, BPF_FD_TYPE_KRETPROBE];
            let (offset, address) = (event.probe_offset, event.probe_addr);
            reported.place(event.fd_type, kinds, offset, address);
        }
        Ok(reported)
    }

    /// Keeps the place, if the event is a probe.
    fn place(&mut self, kind: u32, [entry, retprobe]: [u32; 2], offset: u64, address: u64) {
        if kind == entry || kind == retprobe {
            self.retprobe = Some(kind == retprobe);
            self.offset = Some(offset);
            self.address = address;
        }
    }

    /// Puts all of it together. A probe of an address has no name.
    pub(super) fn info(&self, mode: AttachMode, missed: Option<u64>, name: &[u8]) -> KprobeInfo {
        let address = (self.address != 0).then_some(self.address);
        let name = CStr::from_bytes_until_nul(name).unwrap_or_default();
        let function = Target::from_bytes(name.to_bytes()).ok();
        KprobeInfo {
            mode,
            retprobe: self.retprobe,
            function: function
                .or_else(|| address.map(Target::address))
                .map(TargetBuf::from),
            offset: self.offset,
            address,
            missed,
            cookie: self.cookie,
            link_id: self.link_id,
            prog_id: self.prog_id,
        }
    }
}
