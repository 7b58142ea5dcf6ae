//! `kprobe-attach attach`: a program that somebody else loaded, held attached or pinned.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::prog::Program;
use kprobe_attach::{Errno, ErrnoName, Error, Kernel, Probe};

use crate::args::Args;
use crate::hold::Hold;
use crate::output::{Json, Lossy, OrNull, Output, message, report};
use crate::session::{self, Attached, Session, announce, probe_fields};

/// Attaches the program to every probe, and holds or pins the links. Answers the exit status of the command.
///
/// # Errors
///
/// Something failed, and has been reported; nothing is left behind.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(args: &Args<'_>, out: &mut Output, mut hold: Hold<'_>) -> Result<u8, ()> {
    session::check(args, out)?;
    let program = open(args.program.unwrap_or_default()).map_err(|error| {
        // One message for a person; a line for each probe that was not attached for a script.
        let probes = if args.json {
            args.probes()
        } else {
            args.probes().get(..1).unwrap_or_default()
        };
        for probe in probes {
            report(out, Some(probe), args, &error);
        }
    })?;
    let kernel = Kernel::probe_with(&program);
    session::plan(args, &kernel, out)?;
    let session = Session::attach(args, &kernel, out, |_| Ok(&program))?;
    if let Some(dir) = args.pin {
        // The pins keep what closing the file descriptors would have detached.
        return pin_all(args, out, dir, &session).map(|()| 0);
    }
    let waited = print_all(args, out, &session).and_then(|()| {
        announce(args);
        hold.wait(args, None, || true)
    });
    let ended = session.end(args, out, hold);
    waited.and(ended)
}

/// `id:N`, or the path of a pin.
fn open(program: &CStr) -> Result<Program, Error> {
    let id = program.to_bytes().strip_prefix(b"id:");
    let id = id.and_then(|id| core::str::from_utf8(id).ok()?.parse().ok());
    match id {
        Some(id) => Program::open_id(id),
        None => Program::open_pinned(program),
    }
}

/// Pins every link below `dir` and says so, or pins none.
fn pin_all(args: &Args<'_>, out: &mut Output, dir: &CStr, session: &Session<'_>) -> Result<(), ()> {
    let made = matches!(rustix::fs::statfs(dir), Err(Errno::NOENT));
    let mut pinned = 0;
    let mut all = Ok(());
    for attached in session.iter() {
        if let Err(error) = attached.link.pin(Pin::of(dir, &attached.probe).path()) {
            report(out, Some(attached.text), args, &error);
            all = Err(());
            break;
        }
        pinned += 1;
    }
    let all = all.and_then(|()| print_all(args, out, session));
    if all.is_err() {
        for attached in session.iter().take(pinned) {
            let pin = Pin::of(dir, &attached.probe);
            if let Err(errno) = rustix::fs::unlink(pin.path()) {
                message(format_args!(
                    "{} is left: {}",
                    Lossy(pin.path()),
                    ErrnoName(errno)
                ));
            }
        }
        if made {
            // The first pin made it, or nothing did.
            let _ = rustix::fs::rmdir(dir);
        }
    }
    all
}

/// The path of a pin: below the directory the kind of probe, the function and the offset, such as `kprobe_vfs_read_0x10`.
struct Pin {
    bytes: [u8; 4096],
    len: usize,
}

impl Pin {
    fn of(dir: &CStr, probe: &Probe) -> Self {
        let mut pin = Self {
            bytes: [0; 4096],
            len: 0,
        };
        dir.to_bytes().iter().for_each(|byte| pin.push(*byte));
        let kind = if probe.opts.retprobe {
            "kretprobe"
        } else {
            "kprobe"
        };
        // It fits: `Args` has seen to the directory, and the rest is at most as long as a symbol and an offset.
        let _ = write!(pin, "/{kind}_");
        let name = pin.len;
        let _ = write!(pin, "{}", probe.target);
        // A bpf file system keeps dots for itself.
        for byte in pin.bytes.iter_mut().take(pin.len).skip(name) {
            if !byte.is_ascii_alphanumeric() {
                *byte = b'_';
            }
        }
        if probe.opts.offset != 0 {
            let _ = write!(pin, "_{:#x}", probe.opts.offset);
        }
        pin
    }

    fn push(&mut self, byte: u8) {
        // The last byte stays the NUL.
        if let Some(free) = self
            .bytes
            .get_mut(..4095)
            .and_then(|bytes| bytes.get_mut(self.len))
        {
            *free = byte;
            self.len += 1;
        }
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Pin {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

fn print_all(args: &Args<'_>, out: &mut Output, session: &Session<'_>) -> Result<(), ()> {
    let mut lines = session.iter();
    let printed = lines.try_for_each(|attached| print(args, out, attached));
    printed.and_then(|()| out.flush()).map_err(|fmt::Error| ())
}

/// One line for a probe that is attached.
fn print(args: &Args<'_>, out: &mut Output, attached: &Attached<'_>) -> fmt::Result {
    let Attached { text, probe, link } = attached;
    let mode = link.mode();
    // Where the kernel does not tell the id there is none to print.
    let id = link.info().ok().and_then(|info| info.link_id);
    let pin = args.pin.map(|dir| Pin::of(dir, probe));
    let pinned = pin.as_ref().map(|pin| Lossy(pin.path()));
    if args.json {
        write!(out, r#"{{"probe":{},"#, Json(Lossy(text)))?;
        probe_fields(out, probe, mode)?;
        return writeln!(
            out,
            r#","link_id":{},"pinned":{}}}"#,
            OrNull(id),
            OrNull(pinned.map(Json))
        );
    }
    write!(out, "{}: attached, mode {mode}", Lossy(text))?;
    if let Some(id) = id {
        write!(out, ", link id {id}")?;
    }
    match pinned {
        Some(path) => writeln!(out, ", pinned at {path}"),
        None => writeln!(out),
    }
}
