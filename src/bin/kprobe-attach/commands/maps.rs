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
    let failed = |out: &mut Output, error: &Error| {
        let kind = (error.step(), error.errno(), error.cause());
        let name = Lossy(name);
        args.report
            .other(out, None, kind, format_args!("{name}: {error}"));
    };
    let refused = |out: &mut Output, errno, why: fmt::Arguments<'_>| {
        let kind = (Step::Map, errno, Cause::Unknown);
        let (name, errno) = (Lossy(name), ErrnoName(errno));
        args.report
            .other(out, None, kind, format_args!("{name}: {errno}: {why}"));
    };
    let map = open(name).map_err(|error| failed(out, &error))?;
    let map_type = Decimal(map.map_type().into());
    let len = map.element_len().ok_or(Errno::OPNOTSUPP).map_err(|errno| {
        refused(
            out,
            errno,
            format_args!("maps of type {map_type} are not printed: only arrays and hash maps"),
        );
    })?;
    let cpus = if map.is_per_cpu() {
        let cpus = kernel.sysfs().and_then(possible_cpus);
        cpus.map_err(|errno| refused(out, errno, format_args!("the number of CPUs is unknown")))?
    } else {
        1
    };
    let key_size = usize::try_from(map.key_size()).unwrap_or(usize::MAX);
    let memory = key_size
        .checked_mul(2)
        .and_then(|keys| keys.checked_add(len));
    let memory = memory.ok_or(Errno::NOMEM).and_then(Memory::map);
    let mut memory =
        memory.map_err(|errno| refused(out, errno, format_args!("no memory for an element")))?;
    let (mut key, rest) = memory.as_mut_slice().split_at_mut(key_size);
    let (mut next, value) = rest.split_at_mut(key_size);
    let mut dump = Dump {
        json: args.report.json,
        value_size: usize::try_from(map.value_size()).unwrap_or(usize::MAX),
        cpus: map.is_per_cpu().then_some(cpus),
        out,
    };
    let mut is_first = true;
    // If elements are deleted meanwhile, the first one follows again.
    for _ in 0..map.max_entries() {
        let previous = Some(&*key).filter(|_| !is_first);
        match map.next_key(previous, next) {
            Err(error) if error.errno() == Errno::NOENT => break,
            Err(error) => {
                failed(dump.out, &error);
                return Err(());
            }
            Ok(()) => {}
        }
        (key, next) = (next, key);
        is_first = false;
        match map.lookup(key, value) {
            // It has just been deleted.
            Err(error) if error.errno() == Errno::NOENT => {}
            Err(error) => {
                failed(dump.out, &error);
                return Err(());
            }
            Ok(()) => dump.print(key, value).map_err(|fmt::Error| ())?,
        }
    }
    dump.out.flush().map_err(|fmt::Error| ())?;
    Ok(0)
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
    fn print(&mut self, key: &[u8], value: &[u8]) -> fmt::Result {
        let Self { json, cpus, .. } = *self;
        let out = &mut *self.out;
        out.write_str(if json { "{\"key\":" } else { "key:" })?;
        bytes(out, json, key)?;
        let Some(cpus) = cpus else {
            out.write_str(if json { ",\"value\":" } else { "  value:" })?;
            bytes(out, json, value.get(..self.value_size).unwrap_or_default())?;
            return out.write_str(if json { "}\n" } else { "\n" });
        };
        let mut before = ",\"values\":[";
        let values = value.chunks(self.value_size.next_multiple_of(8).max(1));
        for (cpu, value) in (0..cpus).zip(values) {
            if json {
                out.write_str(before)?;
                before = ",";
            } else {
                write!(out, "\n  cpu {}:", Decimal(cpu.into()))?;
            }
            bytes(out, json, value.get(..self.value_size).unwrap_or_default())?;
        }
        out.write_str(if json { "]}\n" } else { "\n" })
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
