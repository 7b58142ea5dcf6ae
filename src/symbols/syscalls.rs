//! The entry points of system calls, known by the names that kernels give them.
//!
//! `SYSCALL_DEFINE` and `COMPAT_SYSCALL_DEFINE` make these names, in
//! `arch/*/include/asm/syscall_wrapper.h` and in `include/linux/syscalls.h`. Nothing here depends
//! on the architecture that this crate is built for, or on the version of the kernel.

use super::kallsyms::Symbol;
use crate::request::{MAX_SYMBOL_LEN, Target};
use crate::text::{Buf, split};

/// What the name of an entry point begins with, in groups:
///
/// * that of 64-bit callers;
/// * that of 32-bit callers, whose arguments the kernel takes as they are;
/// * that of native callers, in a kernel without prefixes for its architecture: for powerpc and
///   arm, for riscv before Linux 6.6, and for every architecture before Linux 4.17;
/// * that of 32-bit callers, whose arguments a 64-bit kernel converts;
/// * the same in a kernel without prefixes for its architecture;
/// * that of x32 callers.
///
/// The first with which a system call is found is that of native callers.
const PREFIXES: &str = "__x64_sys_\n__arm64_sys_\n__riscv_sys_\n__s390x_sys_\n\
    __ia32_sys_\n__s390_sys_\n\
    sys_\nSyS_\n\
    __ia32_compat_sys_\n__arm64_compat_sys_\n__riscv_compat_sys_\n__s390_compat_sys_\n\
    compat_sys_\ncompat_SyS_\n\
    __x64_compat_sys_\n__x32_compat_sys_";

/// The number of prefixes that can be those of native callers.
const NATIVE: u8 = 8;

/// What surrounds the name of a system call (`*`) in that of an entry point.
///
/// The tables of system calls have the name alone. In them, `uname` is `newuname`, `sendfile` is
/// `sendfile64` for 64-bit callers, and `personality` is `s390_personality` on s390. 32-bit callers
/// of `nanosleep` enter at `nanosleep_time32`, and those of `mmap` at `ia32_mmap` or `old_mmap`.
///
/// Where a call has several of them, native callers enter at the first.
const AFFIXES: &str = "s390_*\nppc64_*\nnew*\n*64\n*\n*_64\n*_time32\n*32\n*16\n\
    old_*\ns390_old_*\nia32_*\nx86_*\naarch32_*\nppc_*";

/// The number of affixes that leave the plain name to an older call. Beside `newuname`, `uname` is
/// the call `olduname`.
const REPLACING: u8 = 3;
const WIDE: u8 = 3;
const PLAIN: u8 = 4;

/// Holds the name of an entry point as its prefix and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryName<'a> {
    prefix: u8,
    rest: &'a [u8],
}

impl<'a> EntryName<'a> {
    /// Splits the name of a function. Returns [`None`] if it does not begin as that of an entry
    /// point.
    pub(crate) fn of(function: &'a [u8]) -> Option<Self> {
        // Most functions end here.
        if !matches!(
            function,
            [b'_', b'_', b'x' | b'a' | b'r' | b's' | b'i', ..]
                | [b's' | b'S', b'y', ..]
                | [b'c', b'o', b'm', ..]
        ) {
            return None;
        }
        for (prefix, text) in (0..).zip(lines(PREFIXES)) {
            if let Some(rest @ [_, ..]) = function.strip_prefix(text) {
                return Some(Self { prefix, rest });
            }
        }
        None
    }

    /// Returns the entry point, if it is one of this system call.
    pub(crate) fn entry_of(&self, call: &[u8]) -> Option<Entry> {
        let call = in_kernel(call);
        for (affix, text) in (0..).zip(lines(AFFIXES)) {
            let (before, after) = split(text, b'*')?;
            let name = self.rest.strip_prefix(before);
            if name.and_then(|name| name.strip_suffix(after)) == Some(call) {
                let is_wide = cfg!(target_pointer_width = "64") && call == b"sendfile";
                return (affix != WIDE || is_wide).then_some(Entry {
                    prefix: self.prefix,
                    affix,
                });
            }
        }
        None
    }

    /// Returns whether the kernel has prefixes for its architecture.
    pub(crate) fn has_prefix(&self) -> bool {
        !is_bare(self.prefix)
    }

    /// Returns what follows the prefix.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns whether it can be the entry point of native callers, on some architecture.
    pub(crate) fn is_of_native_callers(&self) -> bool {
        self.prefix < NATIVE && !self.is_stub()
    }

    /// Returns whether it is an entry point that a call has in every table.
    pub(crate) fn is_plain_entry_of(&self, call: &[u8]) -> bool {
        self.entry_of(call)
            .is_some_and(|entry| entry.affix <= PLAIN)
    }

    /// Returns whether the function stands for system calls that the kernel does not have:
    /// `sys_ni_syscall`, with any prefix, or `sys_ni_posix_timers`.
    fn is_stub(&self) -> bool {
        self.rest.starts_with(b"ni_")
    }
}

/// Represents an entry point of a system call. With the name of the call, it is the name of a
/// function. Native callers enter at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    prefix: u8,
    affix: u8,
}

impl Entry {
    /// Returns the parts of the function's name.
    pub(crate) fn name(self, call: &[u8]) -> [&[u8]; 4] {
        let nth = |text, nth: u8| lines(text).nth(nth.into()).unwrap_or_default();
        let prefix = nth(PREFIXES, self.prefix);
        let (before, after) = split(nth(AFFIXES, self.affix), b'*').unwrap_or_default();
        [prefix, before, in_kernel(call), after]
    }
}

/// Returns whether a prefix is one of kernels without prefixes for their architecture.
const fn is_bare(prefix: u8) -> bool {
    matches!(prefix, 6 | 7 | 12 | 13)
}

/// Returns whether a function has the name of an entry point.
pub(crate) fn is_entry_point(function: &Target<'_>) -> bool {
    let name = function.function_bytes().and_then(EntryName::of);
    name.is_some()
}

/// Returns the system call that a name means: its own, or that of a function of any kernel which
/// serves it, as `sys_openat`, `SyS_openat`, `__x64_sys_openat` and `do_sys_open` do.
pub(crate) fn call_of(name: &[u8]) -> &[u8] {
    let is_end = |part: &[u8]| part.eq_ignore_ascii_case(b"sys_");
    let end = name.windows(4).position(is_end).map_or(0, |at| at + 4);
    name.get(end..).unwrap_or_default()
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static [u8]> {
    text.as_bytes().split(|byte| *byte == b'\n')
}

/// Returns the name that every table gives to a function for another name of a call.
fn in_kernel(call: &[u8]) -> &[u8] {
    match call {
        b"umount2" => b"umount",
        _ => call,
    }
}

/// Collects the entry points of one system call while the symbols of the kernel are read.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    /// Each entry point and its address, which is 0 if the kernel hides addresses.
    found: [Option<(Entry, u64)>; 16],
    /// The address of the last function that stands for calls which the kernel does not have.
    stub: u64,
    /// Whether the kernel has prefixes for its architecture. Then `sys_info` is no system call.
    has_prefixes: bool,
}

impl Entries {
    pub(crate) const fn new() -> Self {
        Self {
            found: [None; 16],
            stub: u64::MAX,
            has_prefixes: false,
        }
    }

    /// Remembers a symbol of this name if it is an entry point of the call.
    pub(crate) fn see(&mut self, call: &[u8], name: EntryName<'_>, symbol: &Symbol<'_>) {
        self.has_prefixes |= name.has_prefix();
        // A weak symbol stands for a call that the kernel was built without. A module has no system
        // calls.
        if !matches!(symbol.kind, b't' | b'T') || symbol.module.is_some() {
            return;
        }
        // The names of one function follow each other.
        if name.is_stub() {
            if symbol.address != 0 {
                self.stub = symbol.address;
                self.drop_if(&|_, address| address == symbol.address);
            }
        } else if let Some(entry) = name.entry_of(call) {
            if symbol.address != self.stub {
                self.add(entry, symbol.address);
            }
        }
    }

    fn drop_if(&mut self, is_wrong: &dyn Fn(Entry, u64) -> bool) {
        for slot in &mut self.found {
            if slot.is_some_and(|(entry, address)| is_wrong(entry, address)) {
                *slot = None;
            }
        }
    }

    /// Remembers an entry point. Of several names of one function, it keeps the most native one: a
    /// call without arguments has one function for all callers.
    fn add(&mut self, entry: Entry, address: u64) {
        for slot in &mut self.found {
            match slot {
                Some((known, at)) if *at == address && address != 0 => {
                    *known = entry.min(*known);
                    return;
                }
                Some(_) => {}
                None => {
                    *slot = Some((entry, address));
                    return;
                }
            }
        }
    }

    /// Calls `each` with the entry points of the call, when all symbols have been seen. If
    /// `native`, it is that of native callers alone.
    // In a frame of its own, for the name.
    #[inline(never)]
    pub(crate) fn for_each(
        &mut self,
        call: &[u8],
        native: bool,
        each: &mut dyn FnMut(&Symbol<'_>),
    ) {
        let mut entries = self.found.iter().flatten();
        let is_replaced = entries.any(|(entry, _)| entry.affix < REPLACING);
        let has_prefixes = self.has_prefixes;
        self.drop_if(&|entry, _| {
            is_replaced && entry.affix == PLAIN || has_prefixes && is_bare(entry.prefix)
        });
        let first = self.found.iter().flatten().min();
        for found in self.found.iter().flatten() {
            if native && Some(found) != first {
                continue;
            }
            let (entry, address) = *found;
            let mut name = Buf::<MAX_SYMBOL_LEN>::new();
            for part in entry.name(call) {
                // No function has a longer name than a target.
                let _ = name.push_all(part);
            }
            each(&Symbol {
                address,
                kind: b'T',
                name: name.as_str(),
                module: None,
            });
        }
    }
}

#[cfg(test)]
mod tests;
