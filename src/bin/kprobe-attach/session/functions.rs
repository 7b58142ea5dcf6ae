//! The functions of the kernel, and which of them can be probed.

use kprobe_attach::error::ErrnoName;
use kprobe_attach::symbols::{Functions, Resolution, Symbol};
use kprobe_attach::{Errno, Error, Kernel};

use crate::cli::{Args, Opt};
use crate::out::notice;
use crate::rt::Memory;

/// Maps the memory for the functions of the largest kernel. Only what is used takes memory.
pub(crate) fn function_memory() -> Result<Memory, Errno> {
    Memory::map(64 << 20)
}

/// Says that the list of what ftrace can trace cannot be read.
const FILTER_UNKNOWN: &str = "available_filter_functions: what ftrace can trace is unknown";

/// Reads the functions, and resolves targets in the same reading of `/proc/kallsyms`. Reports a
/// list that cannot be read.
///
/// # Errors
///
/// `/proc/kallsyms` cannot be read.
pub(crate) fn read_functions<'m>(
    args: &Args<'_>,
    kernel: &Kernel,
    targets: &mut [Resolution<'_>],
    memory: &'m mut Memory,
    each: &mut dyn FnMut(usize, &Symbol<'_>),
) -> Result<Functions<'m>, Error> {
    let functions = Functions::read_for(targets, kernel.tracefs(), memory.as_mut_slice(), each)?;
    let lists = [
        (functions.filter(), FILTER_UNKNOWN),
        (
            functions.blacklist(),
            "kprobes/blacklist: what the kernel protects is unknown",
        ),
    ];
    for (read, unknown) in lists {
        if let (Err(errno), false) = (read, args.has(Opt::Quiet)) {
            notice(format_args!("{unknown}: {}", ErrnoName(errno)));
        }
    }
    Ok(functions)
}
