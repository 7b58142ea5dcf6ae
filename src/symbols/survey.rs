//! What a running kernel shows of a function besides the errno: its symbols, and what may be probed.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::{Errno, Result};

use crate::error::cause::Cause;
use crate::explain::evidence::{BLACKLIST, FILTER};
use crate::mount::{FILES, Mount, open_read};
use crate::request::target::{KprobeOpts, Target};
use crate::symbols::kallsyms::{Code, Place, Symbol, for_each_symbol, place_of};
use crate::text::{
    Buf, LINE_LEN, contains, decimal, for_each_line, hexadecimal, read_small, split, words,
};

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
        let (_, address) = self.function.as_ref()?;
        (*address != 0).then_some(*address)
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
                if found.function.is_none() {
                    found.function = symbol.target().map(|target| (target, symbol.address));
                }
            } else if target.function() == Some(symbol.name) {
                if !symbol.is_function() {
                    found.data = found.data.or(Some(symbol.kind));
                } else if found.elsewhere.is_none() {
                    found.elsewhere = symbol.target();
                }
            }
        })?;
        // What is built in has no module's name in kallsyms.
        found.has_module |= target.module().is_some_and(is_loaded);
        if let (1, Some((function, address @ 1..))) = (found.functions, &found.function) {
            found.is_init = code.init.contains(address);
            // Linux 7.3 says of some data that it is code; but it is behind all of the kernel's.
            let is_behind = code.end != 0 && *address >= code.end && !found.is_init;
            if is_behind && function.module().is_none() {
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
    place_of(start.checked_add(opts.offset))
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
                if meant.syscall.is_none() {
                    meant.syscall = symbol.target();
                }
            } else if let Some(distance) = likeness(wanted.as_bytes(), symbol.name.as_bytes()) {
                meant.add(distance, symbol);
            }
        })?;
        Ok(meant)
    }

    fn add(&mut self, distance: u32, symbol: &Symbol<'_>) {
        let mut new = symbol.target().map(|target| (distance, target));
        if self.best.contains(&new) {
            return;
        }
        let distance = |slot: &Option<(u32, Target)>| match slot {
            Some((distance, _)) => *distance,
            None => u32::MAX,
        };
        for slot in &mut self.best {
            if distance(&new) < distance(slot) {
                core::mem::swap(slot, &mut new);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.best.iter().map_while(|slot| Some(&slot.as_ref()?.1))
    }
}

/// Whether a function is the entry of a system call on this machine: `SYSCALL_DEFINE` in `arch/*/include/asm/syscall_wrapper.h`.
fn is_syscall(function: &str, call: &str) -> bool {
    const PREFIX: &str = if cfg!(target_arch = "x86_64") {
        "__x64_sys_"
    } else if cfg!(target_arch = "x86") {
        "__ia32_sys_"
    } else if cfg!(target_arch = "aarch64") {
        "__arm64_sys_"
    } else if cfg!(target_arch = "riscv64") {
        "__riscv_sys_"
    } else if cfg!(target_arch = "s390x") {
        "__s390x_sys_"
    } else {
        "sys_"
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
        let hits = blacklist_line(line).is_some_and(|(range, name)| match address {
            Some(address) => range.contains(&address),
            None => target.function().map(str::as_bytes) == Some(name),
        });
        found |= hits;
    })?;
    Ok(found)
}

/// `0xSTART-0xEND`, a tab and the name.
fn blacklist_line(line: &[u8]) -> Option<(core::ops::Range<u64>, &[u8])> {
    let mut words = words(line);
    let (start, end) = split(words.next()?, b'-')?;
    let hex = |text: &[u8]| hexadecimal(text.strip_prefix(b"0x")?);
    Some((hex(start)?..hex(end)?, words.next()?))
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
        (Cause::ModuleNotLoaded, Some(module)) if FILES && is_loaded(module) => {
            Cause::NoSuchFunction
        }
        _ => cause,
    }
}

/// Whether a module is surely loaded, or built in.
fn is_loaded(module: &str) -> bool {
    // The kernel's own limit is 55 bytes.
    let path = Buf::<128>::of(format_args!("module/{module}"));
    let stat = path.and_then(|path| {
        let sysfs = Mount::sysfs()?;
        statat(sysfs.as_fd(), path.as_c_str()?, AtFlags::empty())
    });
    stat.is_ok()
}

/// The one number in a file.
pub(crate) fn number_in(path: &CStr) -> Result<i32> {
    let mut text = [0; 32];
    let len = read_small(&open_read(CWD, path)?, &mut text)?;
    let text = text.get(..len).unwrap_or_default().trim_ascii();
    let number = match text {
        [b'-', digits @ ..] => decimal::<i32>(digits).map(|number| -number),
        digits => decimal(digits),
    };
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
