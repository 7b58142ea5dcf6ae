//! The lists of functions that cannot or can be probed: `kprobes/blacklist` of debugfs, and
//! `available_filter_functions` of tracefs.

use core::ffi::CStr;
use core::ops::Range;

use linux_raw_sys::general::{DEBUGFS_MAGIC, TRACEFS_MAGIC};
use rustix::fd::BorrowedFd;
use rustix::fs::CWD;
use rustix::io::Result;

use crate::mount::for_each_entry;
use crate::text::{hexadecimal, split, words};

pub(crate) const BLACKLIST: &CStr = c"/sys/kernel/debug/kprobes/blacklist";
pub(crate) const FILTER: &CStr = c"available_filter_functions";

/// Calls `each` with every function that `kprobes/blacklist` in debugfs protects from probes: its
/// addresses and its name.
pub(crate) fn for_each_blacklisted(each: &mut dyn FnMut(&Range<u64>, &[u8])) -> Result<()> {
    for_each_entry(CWD, BLACKLIST, DEBUGFS_MAGIC, &mut |line| {
        blacklist_line(line)
            .map(|(range, name)| each(&range, name))
            .is_some()
    })
}

/// Splits `0xSTART-0xEND`, a tab and the name.
pub fn blacklist_line(line: &[u8]) -> Option<(Range<u64>, &[u8])> {
    let mut words = words(line);
    let (start, end) = split(words.next()?, b'-')?;
    let hex = |text: &[u8]| hexadecimal(text.strip_prefix(b"0x")?);
    Some((hex(start)?..hex(end)?, words.next()?))
}

/// Takes a function and its module.
type Each<'e> = dyn FnMut(&[u8], Option<&[u8]>) + 'e;

/// Calls `each` with every function that `available_filter_functions` lists, so that ftrace can
/// trace it. The kernel refuses a probe of any other function.
pub(crate) fn for_each_traceable(
    tracefs: Result<BorrowedFd<'_>>,
    each: &mut Each<'_>,
) -> Result<()> {
    for_each_entry(tracefs?, FILTER, TRACEFS_MAGIC, &mut |line| {
        let entry = filter_line(line);
        entry
            .map(|(function, module)| each(function, module))
            .is_some()
    })
}

/// Splits `function`, or `function [module]`.
pub fn filter_line(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut words = words(line);
    let function = words.next()?;
    let module = match words.next() {
        None => None,
        Some(word) => Some(word.strip_prefix(b"[")?.strip_suffix(b"]")?),
    };
    words.next().is_none().then_some((function, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_filter_is_a_function_and_its_module() {
        let function = filter_line(b"vfs_read");
        assert_eq!(function, Some((&b"vfs_read"[..], None)));
        let in_module = filter_line(b"nft_do_chain [nf_tables]");
        let expected = (&b"nft_do_chain"[..], Some(&b"nf_tables"[..]));
        assert_eq!(in_module, Some(expected));
        for line in ["", " ", "f m", "f [m", "f m]", "f [m] x"] {
            assert_eq!(filter_line(line.as_bytes()), None, "{line}");
        }
    }

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
