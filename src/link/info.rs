//! What the kernel reports of an attached probe.

use core::ffi::CStr;
use core::fmt;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::numbers::Hex;
use crate::request::{AttachMode, Target, TargetBuf};
use crate::symbols::symbol_before;
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
#[derive(Clone, PartialEq, Eq)]
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
    /// The address of the function's symbol, or the address if the target was one.
    ///
    /// The probe is [`offset`](Self::offset) bytes after it. At the entry of a function, some
    /// kernels place the probe a few bytes after the symbol: on x86 with IBT after `endbr64`, on
    /// powerpc at the local entry. They report that place, and this address is still the symbol's.
    ///
    /// On x86 and powerpc, that takes a reading of `/proc/kallsyms` for a probe without an offset.
    ///
    /// It is also [`None`] if the kernel hides addresses (`kernel.kptr_restrict`), or if
    /// `/proc/kallsyms` is needed and cannot be read.
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

/// Prints the numbers that are addresses, offsets or cookies in hexadecimal digits.
impl fmt::Debug for KprobeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            retprobe,
            function,
            offset,
            address,
            missed,
            cookie,
            link_id,
            prog_id,
        } = self;
        f.debug_struct("KprobeInfo")
            .field("mode", mode)
            .field("retprobe", retprobe)
            .field("function", function)
            .field("offset", &offset.map(Hex))
            .field("address", &address.map(Hex))
            .field("missed", missed)
            .field("cookie", &cookie.map(Hex))
            .field("link_id", link_id)
            .field("prog_id", prog_id)
            .finish()
    }
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
        let address = symbol_address(self.address, self.offset.unwrap_or_default());
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

/// The most bytes that a kernel puts between the symbol of a function and a probe at its entry.
const MOST_TO_ENTRY: u64 = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
    4
} else if cfg!(target_arch = "powerpc64") {
    16
} else {
    0
};

/// Returns the address of the symbol of a function, from the address of the probe and its offset.
fn symbol_address(probe: u64, offset: u64) -> Option<u64> {
    match (probe, offset) {
        (0, _) => None,
        (probe, 0) if MOST_TO_ENTRY != 0 => {
            let symbol = symbol_before(probe, MOST_TO_ENTRY).ok()?;
            // No symbol is so near before an address within a function.
            Some(symbol.unwrap_or(probe))
        }
        (probe, offset) => probe.checked_sub(offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_addresses_and_cookies_in_hexadecimal_digits() {
        let reported = Reported {
            offset: Some(16),
            address: 0xffff_ffff_8123_4570,
            cookie: Some(255),
            ..Reported::default()
        };
        let info = reported.info(AttachMode::Link, Some(10), b"vfs_read\0");
        assert_eq!(
            std::format!("{info:?}"),
            "KprobeInfo { mode: Link, retprobe: None, function: Some(Target(vfs_read)), \
             offset: Some(0x10), address: Some(0xffffffff81234560), missed: Some(10), \
             cookie: Some(0xff), link_id: None, prog_id: None }"
        );
    }
}
