//! The kernel's symbols: the addresses that a name has, similar names, and the functions that can
//! be probed.

mod addresses;
mod functions;
mod glob;
mod image;
mod kallsyms;
mod lists;
mod names;
mod place;
mod records;
mod resolve;
mod similar;
mod syscalls;

pub use functions::{Function, Functions, Refusal};
#[cfg(fuzzing)]
pub use glob::glob_matches;
pub use kallsyms::{Symbol, for_each_address};
#[cfg(fuzzing)]
pub use lists::{blacklist_line, filter_line};
pub use resolve::{Resolution, for_each_function, has_syscall_wrapper, resolve};

pub(crate) use addresses::addresses_of;
pub(crate) use kallsyms::{KALLSYMS, not_read};
pub(crate) use lists::{BLACKLIST, FILTER, for_each_blacklisted, for_each_traceable};
pub(crate) use names::{Symbols, is_of_place, read_symbols};
pub(crate) use place::Place;
pub(crate) use resolve::{count_functions, resolve_dyn, symbol_before};
pub(crate) use similar::Similar;
pub(crate) use syscalls::is_entry_point;

#[cfg(test)]
pub(crate) use names::tests::symbols;
