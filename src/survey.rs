//! What a running kernel shows of a function besides the errno: its symbols, and what may be probed.

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::{Errno, Result};

use crate::cause::Cause;
use crate::evidence::{BLACKLIST, FILTER};
use crate::kallsyms::{Code, Place, Symbol, for_each_symbol, place_of};
use crate::mount::open_read;
use crate::request::{KprobeOpts, Target};
use crate::text::{Buf, LINE_LEN, contains, for_each_line, read_small, words};

/// What `/proc/kallsyms` has under the name of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// How many functions the name stands for.
    pub(crate) functions: usize,
    /// The first of them, and its address, which is 0 where the kernel hides addresses.
    pub(crate) function: Option<(Target, u64)>,
    /// The type of a symbol of this name that is no function.
    pub(crate) data: Option<u8>,
    /// The function where it was not asked for: in another module, or in the kernel itself.
    pub(crate) elsewhere: Option<Target>,
    /// Whether the module that was asked for is loaded, or built in.
    pub(crate) has_module: bool,
    /// Whether the function is code for the boot alone, which has been freed.
    pub(crate) is_init: bool,
}

impl Symbols {
    /// The address of the first function, unless the kernel hides it.
    pub(crate) fn address(&self) -> Option<u64> {
        let (_, address) = self.function?;
        (address != 0).then_some(address)
    }

    /// Looks for a function by its name.
    pub(crate) fn of(target: &Target) -> Result<Self> {
        let mut found = Self::default();
        let mut code = Code::default();
        let mut kind = 0;
        for_each_symbol(&mut |symbol| {
            code.see(symbol);
            found.has_module |= symbol.module.is_some() && symbol.module == target.module();
            if symbol.is(target) {
                found.functions += 1;
                kind = symbol.kind;
                found.function = found
                    .function
                    .or_else(|| Some((symbol.target()?, symbol.address)));
            } else if target.function() == Some(symbol.name) {
                if symbol.is_function() {
                    found.elsewhere = found.elsewhere.or_else(|| symbol.target());
                } else {
                    found.data = found.data.or(Some(symbol.kind));
                }
            }
        })?;
        // What is built in has no module's name in kallsyms.
        found.has_module |= target.module().is_some_and(is_loaded);
        if let (1, Some((function, address @ 1..))) = (found.functions, found.function) {
            found.is_init = code.init.contains(&address);
            // Linux 7.3 says of some data that it is code; but it is behind all of the kernel's.
            if function.module().is_none() && code.end != 0 && address >= code.end && !found.is_init
            {
                found.functions = 0;
                found.function = None;
                found.data = Some(kind);
            }
        }
        Ok(found)
    }
}

/// Where a probe would really be: at an address, or at an offset from the start of a function.
pub(crate) fn place(
    target: &Target,
    opts: &KprobeOpts,
    symbols: Option<&Symbols>,
) -> Result<Place> {
    let only = symbols.filter(|symbols| symbols.functions == 1);
    let Some(start) = target.as_address().or_else(|| only?.address()) else {
        return Ok(Place::Untold);
    };
    start
        .checked_add(opts.offset)
        .map_or(Ok(Place::Nowhere), place_of)
}

/// Names that may have been meant, the likeliest first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meant {
    best: [Option<(u32, Target)>; Self::MAX],
    /// The function behind a system call of the name.
    pub(crate) syscall: Option<Target>,
}

impl Meant {
    const MAX: usize = 4;

    /// Looks for names that are like that of a target which is none.
    pub(crate) fn by(target: &Target) -> Result<Self> {
        let mut meant = Self {
            best: [None; Self::MAX],
            syscall: None,
        };
        let wanted = target.function().unwrap_or_default();
        let call = wanted.strip_prefix("sys_").unwrap_or(wanted);
        for_each_symbol(&mut |symbol| {
            if !symbol.is_function() {
                return;
            }
            if is_syscall(symbol.name, call) {
                meant.syscall = meant.syscall.or_else(|| symbol.target());
            } else if let Some(distance) = likeness(wanted.as_bytes(), symbol.name.as_bytes()) {
                meant.add(distance, symbol);
            }
        })?;
        Ok(meant)
    }

    fn add(&mut self, distance: u32, symbol: &Symbol<'_>) {
        let Some(target) = symbol.target() else {
            return;
        };
        let mut new = Some((distance, target));
        if self.best.contains(&new) {
            return;
        }
        for slot in &mut self.best {
            let is_nearer = match (&new, &*slot) {
                (Some((new, _)), Some((old, _))) => new < old,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if is_nearer {
                core::mem::swap(slot, &mut new);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Target> {
        self.best.iter().flatten().map(|(_, target)| *target)
    }
}

/// Whether a function is the entry of a system call on this machine: `SYSCALL_DEFINE` in `arch/*/include/asm/syscall_wrapper.h`.
fn is_syscall(function: &str, call: &str) -> bool {
    const PREFIX: &str = if cfg!(target_arch = "x86_64") {
        "__x64_sys_"
    } else if cfg!(target_arch = "aarch64") {
        "__arm64_sys_"
    } else {
        "__riscv_sys_"
    };
    !call.is_empty() && function.strip_prefix(PREFIX) == Some(call)
}

/// How far a name is from the one that was asked for: 0 for what the compiler makes of it (`foo.isra.0`), else the slips of a typist.
/// [`None`] for a name that is not like it, or is it.
fn likeness(wanted: &[u8], name: &[u8]) -> Option<u32> {
    match name.strip_prefix(wanted) {
        Some([]) => return None,
        // The half of a function that is hardly ever run is not the function.
        Some(suffix) if suffix.starts_with(b".") => {
            return (!contains(suffix, b".cold")).then_some(0);
        }
        _ => {}
    }
    let limit = if wanted.len() < 5 { 1 } else { 2 };
    let distance = slips(wanted, name)?;
    (distance <= limit).then_some(distance)
}

/// The longest name that is compared.
const MAX_COMPARED: usize = 63;

/// How many letters are missing, too many, wrong, or in each other's place ("optimal string alignment"); [`None`] if that is surely
/// more than 2.
fn slips(a: &[u8], b: &[u8]) -> Option<u32> {
    if a.len().abs_diff(b.len()) > 2 || a.len() > MAX_COMPARED || b.len() > MAX_COMPARED {
        return None;
    }
    // One slip cannot change both, and two seldom do.
    if a.first() != b.first() && a.last() != b.last() {
        return None;
    }
    let mut rows = [[0_u32; MAX_COMPARED + 1]; 3];
    for (cell, column) in rows[1].iter_mut().zip(0..) {
        *cell = column;
    }
    let at = |text: &[u8], index: usize| text.get(index).copied();
    for i in 0..a.len() {
        let [before, above, row] = &mut rows;
        let mut left = u32::try_from(i).ok()? + 1;
        row[0] = left;
        let mut least = left;
        for j in 0..b.len() {
            let wrong = u32::from(at(a, i) != at(b, j));
            let mut cell = (above.get(j)? + wrong)
                .min(above.get(j + 1)? + 1)
                .min(left + 1);
            let swapped = i > 0 && j > 0 && at(a, i) == at(b, j - 1) && at(a, i - 1) == at(b, j);
            if swapped {
                cell = cell.min(before.get(j - 1)? + 1);
            }
            *row.get_mut(j + 1)? = cell;
            left = cell;
            least = least.min(cell);
        }
        if least > 2 {
            return None;
        }
        rows.rotate_left(1);
    }
    rows[1].get(b.len()).copied()
}

/// Whether the kernel protects a function from probes, by `kprobes/blacklist` in debugfs.
pub(crate) fn is_blacklisted(target: &Target, address: Option<u64>) -> Result<bool> {
    let file = open_read(CWD, BLACKLIST)?;
    let mut found = false;
    for_each_line::<LINE_LEN>(&file, &mut |line| {
        let hits = blacklist_line(line).is_some_and(|(range, name)| {
            address.map_or(target.function() == Some(name), |address| {
                range.contains(&address)
            })
        });
        found |= hits;
    })?;
    Ok(found)
}

/// `0xSTART-0xEND`, a tab and the name.
fn blacklist_line(line: &[u8]) -> Option<(core::ops::Range<u64>, &str)> {
    let mut words = words(line);
    let (start, end) = core::str::from_utf8(words.next()?).ok()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let name = core::str::from_utf8(words.next()?).ok()?;
    Some((hex(start)?..hex(end)?, name))
}

/// Whether ftrace can trace a function, by `available_filter_functions`; what it cannot the kernel lets nobody probe.
pub(crate) fn is_traceable(tracefs: Option<BorrowedFd<'_>>, target: &Target) -> Result<bool> {
    let file = open_read(tracefs.ok_or(Errno::NOENT)?, FILTER)?;
    let mut found = false;
    for_each_line::<LINE_LEN>(&file, &mut |line| {
        // `function`, or `function [module]`.
        let mut words = words(line);
        let function = words.next();
        let module = words
            .next()
            .and_then(|word| word.strip_prefix(b"[")?.strip_suffix(b"]"));
        found |= function == target.function().map(str::as_bytes)
            && module == target.module().map(str::as_bytes);
    })?;
    Ok(found)
}

/// The cause of a place that is refused, where sysfs tells more than the errno: whether a module is loaded.
pub(crate) fn settled(cause: Cause, target: &Target) -> Cause {
    match (cause, target.module()) {
        (Cause::ModuleNotLoaded, Some(module)) if is_loaded(module) => Cause::NoSuchFunction,
        _ => cause,
    }
}

/// Whether a module is surely loaded, or built in.
fn is_loaded(module: &str) -> bool {
    // The kernel's own limit is 55 bytes.
    let path = Buf::<128>::of(format_args!("/sys/module/{module}"));
    path.is_ok_and(|path| statat(CWD, path.as_str(), AtFlags::empty()).is_ok())
}

/// The one number in a file.
pub(crate) fn number_in(path: &str) -> Result<i32> {
    let mut text = [0; 32];
    let len = read_small(&open_read(CWD, path)?, &mut text)?;
    let text = core::str::from_utf8(text.get(..len).unwrap_or_default());
    let number = text.ok().and_then(|text| text.trim_ascii().parse().ok());
    number.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_like_each_other_up_to_two_slips() {
        for (wanted, name, distance) in [
            ("vfs_raed", "vfs_read", Some(1)),
            ("vfs_red", "vfs_read", Some(1)),
            ("vfs_reead", "vfs_read", Some(1)),
            ("vfs_rwad", "vfs_read", Some(1)),
            ("vfs_raead", "vfs_readv", Some(2)),
            ("vfs_raed", "vfs_write", None),
            ("vfs_read", "vfs_read", None),
            ("finish_task_switch", "finish_task_switch.isra.0", Some(0)),
            ("finish_task_switch", "finish_task_switch.cold", None),
            ("abc", "abd", Some(1)),
            ("abc", "ade", None),
            ("", "a", None),
        ] {
            assert_eq!(
                likeness(wanted.as_bytes(), name.as_bytes()),
                distance,
                "{wanted} {name}"
            );
        }
        let long = [b'a'; 64];
        assert_eq!(slips(&long, &long[..63]), None);
    }

    #[test]
    fn a_line_of_the_blacklist_is_a_range_and_a_name() {
        let line = b"0xffffffff81000000-0xffffffff81000010\tasm_exc_nmi";
        let (range, name) = blacklist_line(line).unwrap();
        assert_eq!(
            (range.start, range.end, name),
            (0xffff_ffff_8100_0000, 0xffff_ffff_8100_0010, "asm_exc_nmi")
        );
        for line in ["", "0x1-0x2", "1-2 f", "0x1 f", "0x1-0xg f"] {
            assert!(blacklist_line(line.as_bytes()).is_none(), "{line}");
        }
    }
}
