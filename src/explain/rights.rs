//! The rights of the process, as far as an attach needs them.

use core::ffi::CStr;

use linux_raw_sys::general::{PROC_SUPER_MAGIC, SECURITYFS_MAGIC};
use rustix::fs::CWD;
use rustix::io::{Errno, Result};
use rustix::thread::{CapabilitySet, SecureComputingMode};

use super::evidence::{Evidence, LOCKDOWN, PARANOID, Question};
use super::explanation::Explanation;
use crate::error::Cause;
use crate::mount::open_read;
use crate::text::{contains, decimal, read_small};

/// Adds the rights of this process to the explanation. Returns the cause: if the rights rule it
/// out, another part of the kernel denied it, such as a Linux security module.
#[inline(never)]
pub(super) fn tell_rights(explanation: &mut Explanation, cause: Cause) -> Cause {
    let level = number_in(PARANOID, PROC_SUPER_MAGIC);
    let level = explanation.ask(Question::Paranoid, &level).copied();
    if let Some(level) = level {
        explanation.found(Evidence::Paranoid(level));
    }
    let capabilities = rustix::thread::capabilities(None);
    if let Some(sets) = explanation.ask(Question::Capabilities, &capabilities) {
        explanation.found(Evidence::Capabilities {
            bpf: sets.effective.contains(CapabilitySet::BPF),
            perfmon: sets.effective.contains(CapabilitySet::PERFMON),
            sys_admin: sets.effective.contains(CapabilitySet::SYS_ADMIN),
        });
    }
    let mode = rustix::thread::secure_computing_mode();
    let mode = explanation.ask(Question::Seccomp, &mode);
    let filter = mode.map(|mode| *mode != SecureComputingMode::Disabled);
    if let Some(filter) = filter {
        explanation.found(Evidence::Seccomp { filter });
    }
    let mut text = [0; 64];
    let read =
        open_read(CWD, LOCKDOWN, SECURITYFS_MAGIC).and_then(|file| read_small(&file, &mut text));
    let len = explanation.ask(Question::Lockdown, &read);
    let confidentiality = len.map(|len| is_confidential(text.get(..*len).unwrap_or_default()));
    if let Some(confidentiality) = confidentiality {
        explanation.found(Evidence::Lockdown { confidentiality });
    }
    true_denial(cause, level, filter, confidentiality)
}

/// Returns who denied it, unless the state of the process and the kernel rules that out.
const fn true_denial(
    cause: Cause,
    level: Option<i32>,
    filter: Option<bool>,
    confidentiality: Option<bool>,
) -> Cause {
    match (cause, level, filter, confidentiality) {
        (Cause::Seccomp, _, Some(false), _)
        | (Cause::PerfEventParanoid, Some(i32::MIN..=2), _, _)
        | (Cause::Lockdown, _, _, Some(false)) => Cause::NoPermission,
        _ => cause,
    }
}

/// Reads the one number in a file of the file system that has this magic number.
pub(super) fn number_in(path: &CStr, magic: u32) -> Result<i32> {
    let mut text = [0; 32];
    let len = read_small(&open_read(CWD, path, magic)?, &mut text)?;
    number(text.get(..len).unwrap_or_default()).ok_or(Errno::INVAL)
}

/// Parses a file of one number.
pub fn number(text: &[u8]) -> Option<i32> {
    match text.trim_ascii() {
        [b'-', digits @ ..] => decimal::<i32>(digits).map(|number| -number),
        digits => decimal(digits),
    }
}

/// Parses the list of levels of lockdown, in which brackets mark the one that is set: whether the
/// kernel keeps what it knows confidential.
pub fn is_confidential(text: &[u8]) -> bool {
    contains(text, b"[confidentiality]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rights_belie_is_something_elses_word() {
        let check = |cause, level, filter, confidentiality, expected| {
            assert_eq!(true_denial(cause, level, filter, confidentiality), expected);
        };
        let none = Cause::NoPermission;
        for (cause, level, filter, confidentiality) in [
            (Cause::Seccomp, Some(2), Some(true), Some(false)),
            (Cause::Seccomp, None, None, None),
            (Cause::PerfEventParanoid, Some(3), Some(false), Some(false)),
            (Cause::PerfEventParanoid, None, None, None),
            (Cause::Lockdown, Some(3), Some(false), Some(true)),
            (Cause::Lockdown, None, None, None),
            (Cause::NoTracefs, Some(2), Some(false), Some(false)),
        ] {
            check(cause, level, filter, confidentiality, cause);
        }
        check(Cause::Seccomp, None, Some(false), None, none);
        check(Cause::PerfEventParanoid, Some(2), None, None, none);
        check(Cause::Lockdown, None, None, Some(false), none);
    }
}
