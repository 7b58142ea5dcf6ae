//! The kernel's symbols: which addresses have a name, which names are like another, and which
//! functions may be probed.

mod kallsyms;
mod lists;
mod names;
mod similar;

pub use kallsyms::{Symbol, for_each_address};

pub(crate) use kallsyms::{KALLSYMS, Place, addresses, check_offset};
pub(crate) use lists::{BLACKLIST, FILTER, is_blacklisted, is_traceable};
pub(crate) use names::{Symbols, place};
pub(crate) use similar::Meant;
