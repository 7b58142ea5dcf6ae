//! The kernel's symbols: the addresses that a name has, similar names, and the functions that can
//! be probed.

mod kallsyms;
mod lists;
mod names;
mod resolve;
mod similar;
mod syscalls;

pub use kallsyms::{Symbol, for_each_address};
#[cfg(fuzzing)]
pub use lists::blacklist_line;
pub use resolve::{Resolution, for_each_function, resolve};

pub(crate) use kallsyms::{KALLSYMS, Place, check_offset};
pub(crate) use lists::{BLACKLIST, FILTER, is_blacklisted, is_traceable};
pub(crate) use names::{Symbols, place};
pub(crate) use resolve::{count_functions, resolve_dyn, symbol_before};
