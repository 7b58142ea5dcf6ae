//! `kprobe-attach maps dump`: the keys and values of a map, as bytes.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::bpf::{Map, possible_cpus};
use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::{Errno, Error, Kernel};

use crate::cli::{Args, decimal};
use crate::out::{Decimal, Lossy, Output};
use crate::rt::{Memory, Start};

/// Prints every element of a map.
///
/// # Errors
///
/// The map cannot be opened or read, and it has been reported. Or the output cannot be written.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let name = args.probes().nth(1).unwrap_or_default();
    let failed = |out: &mut Output, kind, why: fmt::Arguments<'_>| {
        let name = Lossy(name);
        args.report
            .other(out, None, kind, format_args!("{name}: {why}"));
    };
    let refused = |out: &mut Output, errno, why: &dyn fmt::Display| {
        let (kind, errno) = ((Step::Map, errno, Cause::Unknown), ErrnoName(errno));
        failed(out, kind, format_args!("{errno}: {why}"));
    };
    let kernel_refused = |out: &mut Output, error: &Error| {
        let kind = (error.step(), error.errno(), error.cause());
        failed(out, kind, format_args!("{error}"));
    };
    let map = open(name).map_err(|error| kernel_refused(out, &error))?;
    let Some(len) = map.element_len() else {
        refused(out, Errno::OPNOTSUPP, &NotPrinted(map.map_type()));
        return Err(());
    };
    let mut cpus = None;
    if map.is_per_cpu() {
        let possible = kernel.sysfs().and_then(possible_cpus);
        let unknown = |errno| refused(out, errno, &"the number of CPUs is unknown");
        cpus = Some(possible.map_err(unknown)?);
    }
    let key_size = usize::try_from(map.key_size()).unwrap_or(usize::MAX);
    let memory = Memory::map(key_size.saturating_mul(2).saturating_add(len));
    let mut memory = memory.map_err(|errno| refused(out, errno, &"no memory for an element"))?;
    let mut dump = Dump {
        json: args.report.json,
        value_size: usize::try_from(map.value_size()).unwrap_or(usize::MAX),
        cpus,
        out,
    };
    let dumped = dump.print_all(&map, memory.as_mut_slice(), key_size);
    dumped.map_err(|error| kernel_refused(out, &error))?;
    out.flush().map_err(|fmt::Error| ())?;
    Ok(0)
}

/// Prints why a map of a type is not printed.
struct NotPrinted(u32);

impl fmt::Display for NotPrinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map_type = Decimal(self.0.into());
        write!(
            f,
            "maps of type {map_type} are not printed: only arrays and hash maps"
        )
    }
}

/// Opens a map by `id:N`, or by the path of its pin.
fn open(map: &CStr) -> Result<Map, Error> {
    let id = map.to_bytes().strip_prefix(b"id:");
    match id.and_then(|id| u32::try_from(decimal(id)?).ok()) {
        Some(id) => Map::open_id(id),
        None => Map::open_pinned(map),
    }
}

/// Prints elements of a map.
struct Dump<'o> {
    json: bool,
    value_size: usize,
    /// The number of values of an element, if there is one for each CPU.
    cpus: Option<u32>,
    out: &'o mut Output,
}

impl Dump<'_> {
    /// Prints every element, unless the output is lost. The memory is for two keys and an element.
    #[inline(never)]
    fn print_all(&mut self, map: &Map, memory: &mut [u8], key_size: usize) -> Result<(), Error> {
        let (mut key, rest) = memory.split_at_mut(key_size);
        let (mut next, value) = rest.split_at_mut(key_size);
        let mut is_first = true;
        // If elements are deleted meanwhile, the first one follows again.
        for _ in 0..map.max_entries() {
            let previous = Some(&*key).filter(|_| !is_first);
            match map.next_key(previous, next) {
                Err(error) if error.errno() == Errno::NOENT => break,
                found => found?,
            }
            (key, next) = (next, key);
            is_first = false;
            match map.lookup(key, value) {
                // It has just been deleted.
                Err(error) if error.errno() == Errno::NOENT => continue,
                found => found?,
            }
            if self.print(key, value).is_err() {
                break;
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn print(&mut self, key: &[u8], value: &[u8]) -> fmt::Result {
        let Self { json, cpus, .. } = *self;
        let out = &mut *self.out;
        out.write_str(if json { "{\"key\":" } else { "key:" })?;
        bytes(out, json, key)?;
        let mut rest = value;
        for cpu in 0..cpus.unwrap_or(1) {
            match (json, cpus) {
                (true, None) => out.write_str(",\"value\":"),
                (true, Some(_)) => out.write_str(if cpu == 0 { ",\"values\":[" } else { "," }),
                (false, None) => out.write_str("  value:"),
                (false, Some(_)) => write!(out, "\n  cpu {}:", Decimal(cpu.into())),
            }?;
            bytes(out, json, rest.get(..self.value_size).unwrap_or_default())?;
            let padded = self.value_size.next_multiple_of(8);
            rest = rest.get(padded..).unwrap_or_default();
        }
        out.write_str(match (json, cpus) {
            (true, None) => "}\n",
            (true, Some(_)) => "]}\n",
            (false, _) => "\n",
        })
    }
}

/// Prints bytes: as a string of hexadecimal digits, or each after a blank.
fn bytes(out: &mut Output, json: bool, bytes: &[u8]) -> fmt::Result {
    let quote = if json { "\"" } else { "" };
    out.write_str(quote)?;
    for byte in bytes {
        if !json {
            out.write_char(' ')?;
        }
        for half in [byte >> 4, byte & 0xf] {
            out.write_char(char::from_digit(half.into(), 16).unwrap_or_default())?;
        }
    }
    out.write_str(quote)
}
