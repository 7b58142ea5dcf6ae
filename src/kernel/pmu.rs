//! The kprobe PMU, found without reading a file.

use linux_raw_sys::general::SYSFS_MAGIC;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::features::Support;
use crate::diagnose::perf_event_denied;
use crate::error::Cause;
use crate::mount::open_read;
use crate::sys::{
    KprobeAt, perf_event_open_bad_address, perf_event_open_kprobe, perf_event_open_long_name,
};
use crate::text::{decimal, read_small};

/// Holds the answers about the kprobe PMU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pmu {
    pub(crate) support: Support,
    /// The type of its events; 0 if there is no PMU.
    pub(crate) r#type: u32,
    /// The bit of `config` that makes a return probe, if one was verified.
    pub(crate) retprobe_bit: Option<u8>,
}

/// The types that the PMU can have: 8 since Linux 6.5, and 6 before. The others are for a kernel
/// with more named PMUs than those of today.
const TYPES: [u32; 10] = [8, 6, 7, 9, 10, 11, 12, 13, 14, 15];

/// The support for the kprobe PMU in a kernel that is locked down.
pub(super) const LOCKED_DOWN: Support = Support::no(Errno::PERM, Cause::Lockdown);

impl Pmu {
    /// Looks for the PMU among its possible types. Two refusals verify a type. If no type passes,
    /// the type that sysfs shows is verified in the same way.
    #[cold]
    #[inline(never)]
    pub(super) fn find<'a>(cpu: u32, sysfs: impl Fn() -> Option<BorrowedFd<'a>>) -> Self {
        let mut refusal = None;
        let mut look = |r#type| Self::at(r#type, cpu, &mut refusal);
        let mut found = None;
        for r#type in &TYPES {
            found = look(*r#type);
            if found.is_some() {
                break;
            }
        }
        let found = found.or_else(|| look(type_in(sysfs()?)?));
        if let Some(pmu) = found {
            return pmu;
        }
        let support = match refusal {
            None => Support::no(Errno::NOENT, Cause::NoKprobePmu),
            Some(errno @ (Errno::ACCESS | Errno::PERM | Errno::NOSYS)) => {
                Support::unknown(errno, perf_event_denied(errno))
            }
            Some(errno) => Support::unknown(errno, Cause::out_of(errno).unwrap_or(Cause::Unknown)),
        };
        Self {
            support,
            r#type: 0,
            retprobe_bit: None,
        }
    }

    /// Returns the PMU, if it has this type. Stores an errno that says nothing about the PMU in
    /// `refusal`.
    ///
    /// Two answers together are the evidence: E2BIG for a long name, and EINVAL from
    /// `return_inside`. EINVAL alone is not: before Linux 6.5, type 8 can be the msr PMU, which
    /// answers EINVAL too.
    fn at(r#type: u32, cpu: u32, refusal: &mut Option<Errno>) -> Option<Self> {
        // An event that does open belongs to another PMU. It is disabled, and is closed at once.
        match perf_event_open_long_name(r#type, cpu).map(drop) {
            Err(Errno::TOOBIG) => {}
            Err(errno) => {
                let is_about_us = matches!(errno, Errno::ACCESS | Errno::PERM | Errno::NOSYS);
                if is_about_us || Cause::out_of(errno).is_some() {
                    *refusal = Some(errno);
                }
                return None;
            }
            Ok(()) => return None,
        }
        let found = |support, retprobe_bit| {
            Some(Self {
                support,
                r#type,
                retprobe_bit,
            })
        };
        match return_inside(r#type, cpu) {
            Err(Errno::INVAL) => found(Support::Yes, Some(RETPROBE_BIT)),
            Err(Errno::PERM) => found(LOCKED_DOWN, None),
            // Another answer may be due to the function. The kprobe PMU returns EFAULT for a name
            // at an invalid address, and so does the uprobe PMU.
            _ => match perf_event_open_bad_address(r#type, cpu).map(drop) {
                Err(Errno::FAULT) => found(Support::Yes, None),
                _ => None,
            },
        }
    }

    /// Returns whether the PMU has let this process open an event.
    pub(super) fn is_open_to_us(&self) -> bool {
        self.support.is_yes() || self.support == LOCKED_DOWN
    }
}

/// The bit of `config` that makes a return probe in every kernel: `PERF_PROBE_CONFIG_IS_RETPROBE`.
///
/// sysfs shows it in `format/retprobe`, which is not read. Another bit could not be verified: for
/// an entry probe inside an instruction, several architectures answer EINVAL too.
const RETPROBE_BIT: u8 = 0;

/// Asks for a return probe inside a function.
///
/// The kprobe PMU answers EINVAL and makes no probe, because a return probe can only be at an
/// entry. A kernel that is locked down (Linux 5.4, `lockdown=confidentiality`) answers EPERM after
/// it has found the function.
///
/// The answer is evidence only for a type that has answered E2BIG to a long name.
fn return_inside(r#type: u32, cpu: u32) -> Result<(), Errno> {
    // Every kernel has this function. It is among the first symbols, so a kernel that compares each
    // with the name finds it early.
    let at = KprobeAt::Symbol {
        module: None,
        function: b"do_exit",
        offset: 1,
    };
    perf_event_open_kprobe(r#type, 1 << RETPROBE_BIT, at, cpu).map(drop)
}

/// Reads the type that sysfs shows.
pub(super) fn type_in(sysfs: BorrowedFd<'_>) -> Option<u32> {
    let path = c"bus/event_source/devices/kprobe/type";
    let mut text = [0; 32];
    let len = read_small(&open_read(sysfs, path, SYSFS_MAGIC).ok()?, &mut text).ok()?;
    parse_pmu_type(text.get(..len)?)
}

/// Parses `type`: a decimal number and a newline.
pub fn parse_pmu_type(text: &[u8]) -> Option<u32> {
    decimal(text.strip_suffix(b"\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysfs_text_is_read_strictly() {
        assert_eq!(parse_pmu_type(b"8\n"), Some(8));
        for text in [
            &b""[..],
            b"8",
            b"\n",
            b"-1\n",
            b"4294967297\n",
            b"8 \n",
            b"software\n",
        ] {
            assert_eq!(parse_pmu_type(text), None);
        }
    }
}
