//! The lists of functions that cannot or can be probed: `kprobes/blacklist` of debugfs, and
//! `available_filter_functions` of tracefs.

use core::ffi::CStr;

use linux_raw_sys::general::{DEBUGFS_MAGIC, TRACEFS_MAGIC};
use rustix::fd::BorrowedFd;
use rustix::fs::CWD;
use rustix::io::Result;

use crate::mount::for_each_entry;
use crate::request::Target;
use crate::text::{hexadecimal, split, words};

pub(crate) const BLACKLIST: &CStr = c"/sys/kernel/debug/kprobes/blacklist";
pub(crate) const FILTER: &CStr = c"available_filter_functions";

/// Returns whether `kprobes/blacklist` in debugfs protects a function from probes.
pub(crate) fn is_blacklisted(target: &Target<'_>, address: Option<u64>) -> Result<bool> {
    let mut found = false;
    for_each_entry(CWD, BLACKLIST, DEBUGFS_MAGIC, &mut |line| {
        let entry = blacklist_line(line);
        found |= entry.as_ref().is_some_and(|(range, name)| match address {
            Some(address) => range.contains(&address),
            None => target.function().map(str::as_bytes) == Some(name),
        });
        entry.is_some()
    })?;
    Ok(found)
}

/// Splits `0xSTART-0xEND`, a tab and the name.
pub fn blacklist_line(line: &[u8]) -> Option<(core::ops::Range<u64>, &[u8])> {
    let mut words = words(line);
    let (start, end) = split(words.next()?, b'-')?;
    let hex = |text: &[u8]| hexadecimal(text.strip_prefix(b"0x")?);
    Some((hex(start)?..hex(end)?, words.next()?))
}

/// Returns whether `available_filter_functions` lists a function, so that ftrace can trace it. The
/// kernel refuses a probe of any other function.
pub(crate) fn is_traceable(tracefs: Result<BorrowedFd<'_>>, target: &Target<'_>) -> Result<bool> {
    let tracefs = tracefs?;
    let mut found = false;
    for_each_entry(tracefs, FILTER, TRACEFS_MAGIC, &mut |line| {
        // A line is `function`, or `function [module]`.
        let mut words = words(line);
        let function = words.next();
        let module = words
            .next()
            .and_then(|word| word.strip_prefix(b"[")?.strip_suffix(b"]"));
        found |= function == target.function().map(str::as_bytes)
            && module == target.module().map(str::as_bytes);
        function.is_some()
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_blacklist_is_a_range_and_a_name() {
        let line = b"0xffffffff81000000-0xffffffff81000010\tasm_exc_nmi";
        let (range, name) = blacklist_line(line).unwrap();
        assert_eq!(
            (range.start, range.end, name),
            (
                0xffff_ffff_8100_0000,
                0xffff_ffff_8100_0010,
                &b"asm_exc_nmi"[..]
            )
        );
        for line in ["", "0x1-0x2", "1-2 f", "0x1 f", "0x1-0xg f"] {
            assert!(blacklist_line(line.as_bytes()).is_none(), "{line}");
        }
    }
}
