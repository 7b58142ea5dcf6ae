//! Names that are similar to a name that does not exist.

use rustix::io::Result;

use super::kallsyms::{Symbol, for_each_symbol};
use crate::request::{Target, TargetBuf};
use crate::text::contains;

/// Holds the names that may have been meant, with the most likely first.
#[derive(Debug)]
pub(crate) struct Meant {
    best: [Option<(u32, TargetBuf)>; Self::MAX],
    /// The function behind the system call of this name.
    pub(crate) syscall: Option<TargetBuf>,
}

impl Meant {
    const MAX: usize = 4;

    /// Looks for names that are similar to that of a target that does not exist.
    pub(crate) fn by(target: &Target<'_>) -> Result<Self> {
        let mut meant = Self {
            best: core::array::from_fn(|_| None),
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
                    meant.syscall = symbol.target().map(TargetBuf::from);
                }
            } else if let Some(distance) = likeness(wanted.as_bytes(), symbol.name.as_bytes()) {
                meant.add(distance, symbol);
            }
        })?;
        Ok(meant)
    }

    fn add(&mut self, distance: u32, symbol: &Symbol<'_>) {
        let mut new = symbol.target().map(|target| (distance, target.into()));
        if self.best.contains(&new) {
            return;
        }
        let distance = |slot: &Option<(u32, TargetBuf)>| match slot {
            Some((distance, _)) => *distance,
            None => u32::MAX,
        };
        for slot in &mut self.best {
            if distance(&new) < distance(slot) {
                core::mem::swap(slot, &mut new);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TargetBuf> {
        self.best.iter().map_while(|slot| Some(&slot.as_ref()?.1))
    }
}

/// Returns whether a function is the entry of a system call on this machine: `SYSCALL_DEFINE` in
/// `arch/*/include/asm/syscall_wrapper.h`.
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

/// Returns how different a name is from the requested one: 0 for a copy that the compiler made
/// (`foo.isra.0`), or else the number of typing errors. Returns [`None`] for the name itself, and
/// for a name that is not similar.
fn likeness(wanted: &[u8], name: &[u8]) -> Option<u32> {
    match name.strip_prefix(wanted) {
        Some([]) => return None,
        // The compiler moves the rarely run part of a function to a `.cold` symbol. It is not the
        // function.
        Some(suffix) if suffix.starts_with(b".") => {
            return (!contains(suffix, b".cold")).then_some(0);
        }
        _ => {}
    }
    let limit = if wanted.len() < 5 { 1 } else { 2 };
    let distance = slips(wanted, name)?;
    (distance <= limit).then_some(distance)
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
}
