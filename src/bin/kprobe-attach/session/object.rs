//! Objects that a compiler made: the sections of their programs as probes, and their programs and
//! maps in the kernel.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::bpf::object::{
    Fault, Kind, LoadOptions, Loaded, Object, ObjectError, ObjectProgram, Programs,
};
use kprobe_attach::bpf::{AttachType, Map, Program, kern_version};
use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::symbols::has_syscall_wrapper;
use kprobe_attach::{Errno, Kernel};
use rustix::fs::{Mode, OFlags};

use super::pin::unlink;
use super::pin_names::{PinPath, Text as PinName};
use crate::cli::{Args, Opt, Sections};
use crate::out::{Decimal, Json, Lossy, OrNull, Output, Shown, message};
use crate::rt::{Memory, Slots, Start, Text};

/// The most bytes that an object has.
const MAX_LEN: usize = 1 << 26;

/// The bytes for the verifier's log: the most that a kernel before Linux 5.12 takes.
const LOG_LEN: usize = (1 << 24) - 1;

/// The number of lines of the log that are printed without `--verifier-log`.
const LOG_LINES: usize = 20;

/// Reads the object, and lets the sections of its programs stand for the probes if none is given.
///
/// # Errors
///
/// The file is no object that can be attached like this, and it has been reported.
#[inline(never)]
pub(crate) fn read_object(args: &mut Args<'_>, out: &mut Output) -> Result<(), ()> {
    let path = args.value(Opt::Object).unwrap_or_default();
    args.object = read_file(path).map_err(|errno| {
        let cause = match errno {
            Errno::ACCESS => Cause::NoPermission,
            _ => Cause::Unknown,
        };
        let (path, name) = (Lossy(path), ErrnoName(errno));
        let kind = (Step::ReadObject, errno, cause);
        args.report
            .other(out, None, kind, format_args!("{path}: {name}"));
    })?;
    let object = parse(args, out)?;
    let unknown = args
        .programs()
        .find(|name| !object.programs().any(|program| is_named(&program, name)));
    if let Some(name) = unknown {
        let name = Shown(Lossy(name));
        return refuse(args, out, format_args!("no program has the name {name}"));
    }
    let mut text_len = 0;
    let mut count = 0_usize;
    let mut programs = object.programs();
    while let Some(program) = next_chosen(&mut programs, args) {
        if program.kind().is_none() {
            let (section, name, why) = (program.section(), program.name(), Fault::SectionNotServed);
            return refuse(
                args,
                out,
                format_args!("{section}: {name}: {why}; --program chooses others"),
            );
        }
        // An offset is written as a hexadecimal number, and a NUL ends each text.
        text_len += program.section().len() + program.name().len() + 24;
        count += 1;
    }
    if count == 0 {
        return refuse(
            args,
            out,
            format_args!("no program is loaded unless --program NAME asks for it"),
        );
    }
    if args.probe_count > 0 {
        if count > 1 {
            let count = Decimal(count as u64);
            return refuse(
                args,
                out,
                format_args!("of {count} programs, --program NAME chooses that of the PROBEs"),
            );
        }
        return Ok(());
    }
    let texts = Slots::map(text_len).map_err(|errno| short(args, out, errno))?;
    let texts = write_sections(args, out, &object, texts)?;
    args.set_sections(Sections(texts.leak()));
    Ok(())
}

/// Writes the probe that each section stands for, and the name of its program.
fn write_sections(
    args: &Args<'_>,
    out: &mut Output,
    object: &Object<'_>,
    mut texts: Slots<u8>,
) -> Result<Slots<u8>, ()> {
    let mut programs = object.programs();
    while let Some(program) = next_chosen(&mut programs, args) {
        let probe = program.probe();
        let probe = probe.map_err(|error| report(args, out, None, &error))?;
        let (section, name) = (program.section(), program.name());
        let Some(probe) = probe else {
            refuse(
                args,
                out,
                format_args!("{section}: {name}: the section names no function: give a PROBE"),
            )?;
            continue;
        };
        // There is room for it.
        let _ = write!(Text(&mut texts), "{probe}\0{name}\0");
    }
    Ok(texts)
}

/// Reads a file into memory, where it stays.
fn read_file<'a>(path: &CStr) -> Result<&'a [u8], Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let len = usize::try_from(rustix::fs::fstat(&file)?.st_size).map_err(|_| Errno::FBIG)?;
    if len > MAX_LEN {
        return Err(Errno::FBIG);
    }
    // A pipe has no length.
    let memory = Memory::map(if len == 0 { MAX_LEN } else { len })?.leak();
    let mut filled = 0;
    while let Some(free @ [_, ..]) = memory.get_mut(filled..) {
        match rustix::io::read(&file, free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(memory.get(..filled).unwrap_or_default())
}

fn parse<'a>(args: &Args<'a>, out: &mut Output) -> Result<Object<'a>, ()> {
    Object::parse(args.object).map_err(|error| report(args, out, None, &error))
}

/// Returns the next program that is named by `--program` or, without that option, is loaded unless
/// asked for.
#[inline(never)]
fn next_chosen<'a>(programs: &mut Programs<'_, 'a>, args: &Args<'_>) -> Option<ObjectProgram<'a>> {
    programs.find(|program| {
        if args.has(Opt::Program) {
            args.programs().any(|name| is_named(program, name))
        } else {
            program.autoload()
        }
    })
}

fn is_named(program: &ObjectProgram<'_>, name: &CStr) -> bool {
    program.name().as_bytes() == name.to_bytes()
}

/// The first program of an object, the others, and the maps.
pub(super) type Loads<'a> = (Program, Slots<Program>, Loaded<'a>);

/// Makes the maps of the object, and loads its programs.
///
/// # Errors
///
/// Something was refused, and it has been reported. Nothing is left behind, but for maps that the
/// object pins by their names.
#[inline(never)]
pub(super) fn load<'a>(
    start: &Start,
    args: &Args<'a>,
    kernel: &Kernel,
    out: &mut Output,
) -> Result<Loads<'a>, ()> {
    let object = parse(args, out)?;
    let version = start.vdso().and_then(kern_version).unwrap_or_default();
    let mut options = LoadOptions::new().kern_version(version);
    if object.needs_syscall_wrapper() {
        let has = has_syscall_wrapper().map_err(|error| args.report.error(out, None, &error))?;
        options = options.syscall_wrapper(has);
    }
    let memory = Memory::map(object.memory_len().saturating_add(LOG_LEN));
    let mut memory = memory.map_err(|errno| short(args, out, errno))?;
    let (log, memory) = memory.as_mut_slice().split_at_mut(LOG_LEN);
    let loaded = object.load(memory, &options);
    let loaded = loaded.map_err(|error| report(args, out, None, &error))?;
    let mut first = None;
    // More than there are, of which each takes memory when it is used.
    let count = object.programs().count();
    let mut others = Slots::map(count).map_err(|errno| short(args, out, errno))?;
    let mut asks = true;
    let mut programs = object.programs();
    let mut index = 0;
    while let Some(program) = next_chosen(&mut programs, args) {
        let found = loaded.program(&program, memory, log).map_err(|error| {
            // Without sections, there is one program and its probes.
            report(args, out, args.probes().nth(index), &error);
            print_log(args, log);
        })?;
        let attach_type = program.kind().map(Kind::attach_type);
        if asks && attach_type == Some(AttachType::Kprobe) {
            kernel.ask_perf_link(&found);
            asks = false;
        }
        if first.is_none() {
            first = Some(found);
        } else {
            others.push(found);
        }
        index += 1;
    }
    // There is at least one.
    Ok((first.ok_or(())?, others, loaded))
}

/// Prints the verifier's log, or its last lines.
fn print_log(args: &Args<'_>, log: &[u8]) {
    let Ok(log) = CStr::from_bytes_until_nul(log) else {
        return;
    };
    let log = log.to_bytes().trim_ascii_end();
    if log.is_empty() {
        return;
    }
    let lines = || log.split(|byte| *byte == b'\n');
    let mut left_out = lines().count().saturating_sub(LOG_LINES);
    if args.has(Opt::VerifierLog) {
        left_out = 0;
    }
    if left_out > 0 {
        message(format_args!(
            "the end of the verifier's log (--verifier-log has all):"
        ));
    }
    for line in lines().skip(left_out) {
        message(format_args!("  {}", Shown(LossyBytes(line))));
    }
}

/// Prints bytes as text.
struct LossyBytes<'a>(&'a [u8]);

impl fmt::Display for LossyBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chunks = self.0.utf8_chunks();
        chunks.try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

/// Pins every map in the working directory, which is `dir`, or pins none.
///
/// # Errors
///
/// One of them cannot be pinned, and it has been reported.
#[inline(never)]
pub(super) fn pin_maps(
    loaded: &Loaded<'_>,
    args: &Args<'_>,
    out: &mut Output,
    dir: &CStr,
) -> Result<(), ()> {
    let mut pinned = 0_u64;
    for (index, (name, map)) in loaded.maps().enumerate() {
        let pin = pin_name(name);
        match map.pin(pin.as_c_str()) {
            Ok(()) => pinned |= 1 << index,
            // The object may pin it there by its name.
            Err(_) if is_pinned(map, &pin) => {}
            Err(error) => {
                args.report.pin(out, None, (dir, pin.as_c_str()), &error);
                for (index, (name, _)) in loaded.maps().enumerate() {
                    if pinned >> index & 1 != 0 {
                        unlink(args, out, dir, &pin_name(name));
                    }
                }
                return Err(());
            }
        }
    }
    Ok(())
}

/// Prints a line for each map: its id, and its pin if there is one.
///
/// # Errors
///
/// The output cannot be written.
#[inline(never)]
pub(super) fn print_maps(loaded: &Loaded<'_>, args: &Args<'_>, out: &mut Output) -> fmt::Result {
    let mut maps = loaded.maps();
    maps.try_for_each(|(name, map)| print_map(args, out, name, map))?;
    out.flush()
}

fn print_map(args: &Args<'_>, out: &mut Output, name: &str, map: &Map) -> fmt::Result {
    // If the kernel does not report the id, none is printed.
    let id = map.id().ok().map(|id| Decimal(id.into()));
    let pin = pin_name(name);
    let pinned = args
        .value(Opt::Pin)
        .map(|dir| PinPath(dir, Lossy(pin.as_c_str())));
    if args.report.json {
        return writeln!(
            out,
            r#"{{"map":{},"map_id":{},"pinned":{}}}"#,
            Json(name),
            OrNull(id),
            OrNull(pinned.map(Json))
        );
    }
    write!(out, "map {}", Shown(name))?;
    if let Some(id) = id {
        write!(out, ": map id {id}")?;
    }
    if let Some(path) = pinned {
        write!(out, ", pinned at {}", Shown(path))?;
    }
    out.write_char('\n')
}

/// Returns the name of the pin of a map. As in libbpf, dots become underscores, because a bpf file
/// system keeps names with dots for itself.
fn pin_name(map: &str) -> PinName {
    let mut name = PinName::new();
    for byte in map.bytes() {
        name.push_all(&[if byte == b'.' { b'_' } else { byte }]);
    }
    name
}

/// Returns whether a pin in the working directory is this map.
fn is_pinned(map: &Map, pin: &PinName) -> bool {
    let pinned = Map::open_pinned(pin.as_c_str());
    let id = pinned.and_then(|pinned| pinned.id()).ok();
    id.is_some() && id == map.id().ok()
}

/// Reports what is wrong with the object, or what the kernel refused of it.
fn report(args: &Args<'_>, out: &mut Output, probe: Option<&CStr>, error: &ObjectError<'_>) {
    let path = Lossy(args.value(Opt::Object).unwrap_or_default());
    let kind = (error.step(), error.errno(), error.cause());
    args.report
        .other(out, probe, kind, format_args!("{path}: {error}"));
}

/// Reports that the request does not go with the object.
fn refuse(args: &Args<'_>, out: &mut Output, why: fmt::Arguments<'_>) -> Result<(), ()> {
    let path = Lossy(args.value(Opt::Object).unwrap_or_default());
    let kind = (Step::Request, Errno::INVAL, Cause::InvalidRequest);
    args.report
        .other(out, None, kind, format_args!("{path}: {why}"));
    Err(())
}

fn short(args: &Args<'_>, out: &mut Output, errno: Errno) {
    args.report.run(out, errno, "no memory for the object");
}
