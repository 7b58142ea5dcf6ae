//! Functions that a name may have meant: those that have it, and those with a similar name.

use super::kallsyms::Symbol;
use super::syscalls::{EntryName, call_of};
use crate::request::{Target, TargetBuf, VMLINUX};
use crate::text::{contains, utf8};

/// Holds the functions that may have been meant by a name, with the most likely first.
#[derive(Debug, Default)]
pub(crate) struct Meant {
    similar: [Option<Similar>; 6],
    /// Whether the kernel has prefixes for its architecture. Then `sys_info` is no system call.
    has_prefixes: bool,
}

/// Represents a function that may have been meant.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Similar {
    /// The lower, the more likely: see [`rank`].
    rank: u32,
    /// Whether the name does not single out the function, so that only the address does.
    by_address: bool,
    /// The address; 0 if the kernel hides addresses.
    address: u64,
    pub(crate) function: TargetBuf,
}

impl Similar {
    /// Returns whether the function has the very name.
    pub(crate) const fn has_name(&self) -> bool {
        self.rank == 0
    }

    /// Returns the target that means this function and no other, unless its address is hidden.
    pub(crate) fn target(&self) -> Option<Target<'_>> {
        match (self.by_address, self.address) {
            (false, _) => Some(self.function.as_target()),
            (true, 0) => None,
            (true, address) => Some(Target::address(address)),
        }
    }

    /// Returns the function at its address, unless that is hidden.
    pub(crate) fn found(&self) -> Option<Target<'_>> {
        (self.address != 0).then(|| self.function.as_target().with_address(self.address))
    }
}

impl Meant {
    /// Remembers a function if it may have been meant by a target.
    pub(crate) fn see(&mut self, target: &Target<'_>, symbol: &Symbol<'_>) {
        let entry = EntryName::of(symbol.name.as_bytes());
        self.has_prefixes |= entry.is_some_and(|entry| entry.has_prefix());
        let (Some(rank), Some(function)) = (rank(target, symbol), symbol.target()) else {
            return;
        };
        // A system call has several entry points.
        let call = meant_call(target, symbol.name).filter(|_| rank > 0);
        let call = call.map(|(call, _)| call);
        let is_call = |other| call.is_some() && self.call(other, target) == call;
        if self.iter().any(is_call) {
            return;
        }
        let mut by_address = false;
        for other in self.similar.iter_mut().flatten() {
            let others = other.function.as_target();
            by_address |= means(&function, &others);
            other.by_address |= means(&others, &function);
        }
        let mut new = Some(Similar {
            rank,
            function: function.into(),
            address: symbol.address,
            by_address,
        });
        let mut moves = false;
        for slot in &mut self.similar {
            moves |= slot.as_ref().is_none_or(|old| rank < old.rank);
            if moves {
                core::mem::swap(slot, &mut new);
            }
        }
    }

    pub(crate) const fn first(&self) -> Option<&Similar> {
        self.similar[0].as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Similar> {
        self.similar.iter().map_while(Option::as_ref)
    }

    /// Returns the system call that a target may have meant, if a similar function is its entry
    /// point.
    pub(crate) fn call<'s>(&self, similar: &'s Similar, target: &Target<'s>) -> Option<&'s str> {
        let function = similar.function.as_target().function()?;
        let is_outside = self.has_prefixes && !EntryName::of(function.as_bytes())?.has_prefix();
        if similar.has_name() || is_outside {
            return None;
        }
        meant_call(target, function).map(|(call, _)| call)
    }
}

/// Returns whether a name means a function too: a name without a module means every function that
/// has it.
fn means(name: &Target<'_>, function: &Target<'_>) -> bool {
    let module = name.module_bytes();
    name.function_bytes() == function.function_bytes()
        && (module.is_none() || module == function.module_bytes())
}

/// More than the longest name.
const FAR: u32 = 1000;

/// Returns how unlikely it is that a target means a function: 0 if the function has the name.
/// Returns [`None`] if the names are not similar.
///
/// In this order it is the entry of the system call, a part or copy that the compiler made
/// (`foo.isra.0`), a longer name (`foo_noprof`), or a name with typing errors. Functions of the
/// requested module come first.
fn rank(target: &Target<'_>, symbol: &Symbol<'_>) -> Option<u32> {
    let wanted = target.function()?;
    // A weak symbol stands for a call that the kernel was built without.
    let call = meant_call(target, symbol.name).filter(|_| matches!(symbol.kind, b't' | b'T'));
    let of_call = call.map(|(_, slips)| 1 + slips * FAR);
    if target.is_syscall() {
        return of_call;
    }
    let rank = match symbol.name.as_bytes().strip_prefix(wanted.as_bytes()) {
        Some([]) => return Some(0),
        // The compiler moves the rarely run part of a function to a `.cold` symbol. It is not the
        // function.
        Some(suffix @ [b'.', ..]) if contains(suffix, b".cold") => return None,
        Some([b'.', ..]) => 2,
        Some(suffix @ [b'_', ..]) => 2 + u32::try_from(suffix.len()).ok()?,
        _ => match of_call {
            Some(rank) => rank,
            None => few_slips(wanted.as_bytes(), symbol.name.as_bytes())? * FAR,
        },
    };
    let is_elsewhere = match target.module_bytes() {
        None => false,
        Some(VMLINUX) => symbol.module.is_some(),
        Some(_) => symbol.module != target.module(),
    };
    Some(if is_elsewhere { rank + 4 * FAR } else { rank })
}

/// Returns the system call that a target may have meant, if a function is one of its entry points,
/// and the number of typing errors.
///
/// A plain name means a call by its own name, or by that of a function of any kernel. Typing errors
/// count only if the target says that it is a call.
fn meant_call<'a>(target: &Target<'a>, function: &'a str) -> Option<(&'a str, u32)> {
    let wanted = target.function()?;
    let call = call_of(wanted.as_bytes());
    let entry = EntryName::of(function.as_bytes()).filter(EntryName::is_of_native_callers)?;
    if entry.is_plain_entry_of(call) {
        return Some((utf8(call)?, 0));
    }
    if !target.is_syscall() && call.len() == wanted.len() {
        return None;
    }
    Some((utf8(entry.rest())?, few_slips(call, entry.rest())?))
}

/// Counts the typing errors. Returns [`None`] if there are too many for a name of this length.
fn few_slips(wanted: &[u8], name: &[u8]) -> Option<u32> {
    let most = if wanted.len() < 5 { 1 } else { 2 };
    slips(wanted, name).filter(|slips| *slips <= most)
}

/// The length of the longest name that is compared.
const MAX_COMPARED: usize = 63;

/// Counts the letters that are missing, extra, wrong or swapped ("optimal string alignment").
/// Returns [`None`] if there are more than 2.
fn slips(a: &[u8], b: &[u8]) -> Option<u32> {
    if a.len().abs_diff(b.len()) > 2 || a.len() > MAX_COMPARED || b.len() > MAX_COMPARED {
        return None;
    }
    // One typing error cannot change both the first and the last letter, and two rarely do.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    /// Returns what is suggested for a target, by these lines of `/proc/kallsyms`.
    fn suggested(target: &str, lines: &[&str]) -> Vec<std::string::String> {
        let target = Target::parse(target).unwrap();
        let mut meant = Meant::default();
        for line in lines {
            meant.see(&target, &Symbol::parse(line.as_bytes()).unwrap());
        }
        let targets = meant.iter().filter_map(Similar::target);
        targets.map(|target| target.to_string()).collect()
    }

    #[test]
    fn names_are_like_each_other_up_to_two_slips() {
        for (wanted, name, expected) in [
            ("vfs_raed", "vfs_read", Some(1000)),
            ("vfs_red", "vfs_read", Some(1000)),
            ("vfs_reead", "vfs_read", Some(1000)),
            ("vfs_rwad", "vfs_read", Some(1000)),
            ("vfs_raead", "vfs_readv", Some(2000)),
            ("vfs_raed", "vfs_write", None),
            ("vfs_read", "vfs_read", Some(0)),
            ("finish_task_switch", "finish_task_switch.isra.0", Some(2)),
            ("finish_task_switch", "finish_task_switch.cold", None),
            ("finish_task_switch", "finish_task_switch.part.0.cold", None),
            ("kmem_cache_alloc", "kmem_cache_alloc_noprof", Some(9)),
            ("abc", "abd", Some(1000)),
            ("abc", "ade", None),
        ] {
            let line = std::format!("1 t {name}");
            let symbol = Symbol::parse(line.as_bytes()).unwrap();
            let rank = rank(&Target::parse(wanted).unwrap(), &symbol);
            assert_eq!(rank, expected, "{wanted} {name}");
        }
        let long = [b'a'; 64];
        assert_eq!(slips(&long, &long[..63]), None);
    }

    #[test]
    fn a_longer_name_comes_before_look_alikes_and_the_shortest_first() {
        let lines = [
            "1 t mutex_clock",
            "2 t mutex_lock_io_nested",
            "3 t mutex_lock_nested",
            "4 t mutex_lock.isra.0",
            "5 t mutex_locks",
        ];
        let expected = [
            "mutex_lock.isra.0",
            "mutex_lock_nested",
            "mutex_lock_io_nested",
            "mutex_clock",
            "mutex_locks",
        ];
        assert_eq!(suggested("mutex_lock", &lines), expected);
    }

    #[test]
    fn a_system_call_is_found_by_any_name_that_its_entry_ever_had() {
        let lines = [
            "1 T __x64_sys_sync",
            "2 T __x64_sys_syncfs",
            "3 T ksys_sync",
        ];
        for wanted in [
            "sync",
            "sys_sync",
            "SyS_sync",
            "__se_sys_sync",
            "__arm64_sys_sync",
        ] {
            assert_eq!(suggested(wanted, &lines)[0], "__x64_sys_sync", "{wanted}");
        }
        for wanted in ["fsync", "async", "my_sync"] {
            let first = suggested(wanted, &lines[..1]);
            assert_eq!(first, [""; 0], "{wanted}");
        }
    }

    #[test]
    fn a_system_call_is_meant_once_and_by_its_own_name() {
        let lines = [
            "1 t do_sys_open",
            "2 T __x64_sys_open",
            "3 T __ia32_sys_open",
            "4 T __ia32_compat_sys_open",
            "5 T __x64_sys_newuname",
            "6 W __x64_sys_swapon",
            "7 T __ia32_sys_getppid",
            "7 T __x64_sys_getppid",
            "8 t my_openat",
            "9 T sys_info",
            "a T __x64_sys_ni_syscall",
        ];
        let calls = |text: &str| {
            let target = crate::request::Probe::parse(text).unwrap().target;
            let mut meant = Meant::default();
            for line in lines {
                meant.see(&target, &Symbol::parse(line.as_bytes()).unwrap());
            }
            let calls = meant
                .iter()
                .filter_map(|similar| meant.call(similar, &target));
            calls.collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("open", "open"),
            ("do_sys_open", "open"),
            ("SyS_open", "open"),
            ("compat_sys_open", "open"),
            ("sys_opne", "open"),
            ("ksyscall/opne", "open"),
            ("sys_uname", "uname"),
            ("ksyscall/umane", ""),
            ("ksyscall/newunmae", "newuname"),
            ("sys_getppid", "getppid"),
            ("sys_swapon", ""),
            ("ksyscall/swapon", ""),
            ("opne", ""),
            ("my_open", ""),
            ("info", ""),
            ("sys_inof", ""),
            ("ni_syscall", ""),
        ] {
            assert_eq!(calls(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_name_of_one_function_is_suggested_and_the_same_module_first() {
        let init = ["a1 t init_one", "a2 t init_one\t[b]", "a3 t init_one\t[a]"];
        let named = ["0xa1", "b:init_one", "a:init_one"];
        assert_eq!(suggested("init_one", &init), named);
        assert_eq!(suggested("c:init_one", &init), named);
        assert_eq!(
            suggested("a:init_on", &init),
            ["a:init_one", "0xa1", "b:init_one"]
        );
        assert_eq!(suggested("c:init_one", &init[..1]), ["init_one"]);
        let twice = ["b1 t f_init\t[a]", "b2 t f_init\t[a]", "b3 t f_init\t[b]"];
        assert_eq!(suggested("f_init", &twice), ["0xb1", "0xb2", "b:f_init"]);
        // An address that is hidden cannot be tried.
        let hidden = ["0 t init_one", "0 t init_one", "0 t init_one\t[m]"];
        assert_eq!(suggested("init_one", &hidden), ["m:init_one"]);
        // More of them than are remembered.
        let many = ["c1 t g_init"; 9];
        assert!(!suggested("g_inti", &many).contains(&"g_init".to_string()));
    }
}
