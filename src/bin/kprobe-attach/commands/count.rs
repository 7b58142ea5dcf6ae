//! `kprobe-attach count`: a built-in program that counts the hits of each probe.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};
use core::time::Duration;

use kprobe_attach::map::Array;
use kprobe_attach::prog::{Load, Program, insn};
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeLink, Probe};

use crate::cli::Args;
use crate::out::{Blanks, Json, Lossy, OrNull, Output, report, report_pin, report_unread};
use crate::session::hold::Hold;
use crate::session::pin::{for_each_counter, label, labelled_counter, pin_all};
use crate::session::{self, Attached, Session, Source, announce, probe_fields};

/// How often a table on a terminal is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);

/// A program that counts, and what it counts into.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) program: Program,
    pub(crate) hits: Array,
}

/// Counts the hits of every probe, and prints them, or leaves counters pinned. Answers the exit status of the command.
///
/// # Errors
///
/// Something failed, and has been reported; nothing is left behind.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(
    args: &Args<'_>,
    out: &mut Output,
    mut hold: Hold<'_>,
    kern_version: Option<u32>,
) -> Result<u8, ()> {
    if let (Some(dir), []) = (args.pin, args.probes()) {
        return print_pinned(args, out, dir);
    }
    session::check(args, out)?;
    let kernel = Kernel::probe();
    session::plan(args, &kernel, out)?;
    let session = Session::attach(args, &kernel, out, |text, probe| {
        let hits = match args.pin {
            Some(_) => labelled_counter(text, probe)?,
            None => Array::create(1)?,
        };
        let program = load(&hits, kern_version.unwrap_or_default())?;
        Ok(Source::BuiltIn(Counter { program, hits }))
    })?;
    if let Some(dir) = args.pin {
        return pin_all(args, out, dir, &session).map(|()| 0);
    }
    announce(args);

    // A command's own output would be drawn over; and what wraps or scrolls away is not reached by moving the cursor up.
    let probes = args.probes().len();
    let rows = probes + 2;
    out.stay_live(!args.json && args.run.is_none() && out.fits(rows, column(args) + ROW));
    let live = out.is_live();
    let interval = args.interval.or(live.then_some(REFRESH));
    let mut drawn = false;
    let waited = hold.wait(args, interval, || {
        if drawn && live {
            up(out, probes);
        }
        drawn = true;
        print(args, out, &session).is_ok()
    });
    if drawn && live {
        up(out, probes);
    }
    let printed = print(args, out, &session);
    let ended = session.end(args, out, hold);
    waited.and(printed).and(ended)
}

/// Loads `hits[0] += 1`.
fn load(hits: &Array, kern_version: u32) -> Result<Program, Error> {
    const MAP_LOOKUP_ELEM: i32 = 1;
    let [map, map_end] = insn::load_map(insn::R1, hits);
    let insns = [
        map,
        map_end,
        // The key, on the stack.
        insn::store_imm_u32(insn::R10, -4, 0),
        insn::mov(insn::R2, insn::R10),
        insn::add_imm(insn::R2, -4),
        insn::call(MAP_LOOKUP_ELEM),
        // The verifier does not know that the index is in the array.
        insn::jump_if_eq_imm(insn::R0, 0, 2),
        insn::mov_imm(insn::R1, 1),
        insn::atomic_add_u64(insn::R0, 0, insn::R1),
        insn::mov_imm(insn::R0, 0),
        insn::exit(),
    ];
    Load::new(&insns, c"Dual MIT/GPL")
        .name("kprobe_attach")
        .kern_version(kern_version)
        .load()
}

/// Puts the cursor back to where the table begins: its head and a row for each probe.
fn up(out: &mut Output, probes: usize) {
    // What goes wrong here goes wrong again with the table.
    let _ = write!(out, "\x1b[{}A", probes + 1);
}

/// The narrowest column of probes, and the widest; a longer text pushes its row to the right.
const MIN_WIDTH: usize = 8;
const MAX_WIDTH: usize = 60;

/// The width of that column where the probes come one by one.
const PINNED_WIDTH: usize = 24;

/// The width of a row beside the column of probes.
const ROW: usize = 2 + 11 + 2 + 12 + 2 + 8;

/// The width of the column of probes.
fn column(args: &Args<'_>) -> usize {
    let widths = args.probes().iter().map(|text| text.count_bytes());
    widths.max().unwrap_or_default().clamp(MIN_WIDTH, MAX_WIDTH)
}

/// Prints the counts: a table, or a line of JSON for each probe.
fn print(args: &Args<'_>, out: &mut Output, session: &Session<'_>) -> Result<(), ()> {
    let width = column(args);
    print_head(args, out, width)?;
    for attached in session.iter() {
        let Some(Counter { program, hits }) = attached.counter() else {
            continue;
        };
        let Attached {
            text, probe, link, ..
        } = attached;
        let hits = hits.get(0);
        let hits = hits.map_err(|error| report(out, Some(text), args, &error))?;
        // What cannot be read just now the kernel does not say.
        let by_probe = link.missed().unwrap_or(None);
        let counts = (Some(link.mode()), hits, missed(by_probe, Some(program)));
        print_counts(args, out, width, text, probe, counts)?;
    }
    out.flush().map_err(|fmt::Error| ())
}

/// Prints what is counted by the probes that are pinned in a directory.
fn print_pinned(args: &Args<'_>, out: &mut Output, dir: &CStr) -> Result<u8, ()> {
    out.stay_live(false);
    print_head(args, out, PINNED_WIDTH)?;
    let mut all = Ok(0);
    let read = for_each_counter(dir, &mut |counter, link| {
        if print_pin(args, out, counter, link).is_err() {
            all = Err(());
        }
    });
    read.map_err(|errno| report_unread(out, args, dir, errno))?;
    out.flush().map_err(|fmt::Error| ())?;
    all
}

/// Prints what is counted by one of them, which has no mode any more if the link's pin is gone.
fn print_pin(args: &Args<'_>, out: &mut Output, counter: &CStr, link: &CStr) -> Result<(), ()> {
    let mut failed = |pin, error: Error| report_pin(out, None, args, pin, &error);
    let array = match Array::open_pinned(counter) {
        // Somebody else's pin that has such a name.
        Err(error) if error.errno() == Errno::INVAL => return Ok(()),
        opened => opened.map_err(|error| failed(counter, error))?,
    };
    let text = label(&array);
    let text = text.as_c_str();
    let Ok(probe) = Probe::from_bytes(text.to_bytes()) else {
        return Ok(());
    };
    let hits = array.get(0).map_err(|error| failed(counter, error))?;
    let counts = match KprobeLink::open_pinned(link) {
        Err(error) if error.errno() == Errno::NOENT => (None, hits, None),
        opened => {
            let link = opened.map_err(|error| failed(link, error))?;
            let (by_probe, program) = link.info().map_or((None, None), |info| {
                // By its id, which takes `CAP_SYS_ADMIN`.
                let program = info.prog_id.and_then(|id| Program::open_id(id).ok());
                (info.missed, program)
            });
            (Some(link.mode()), hits, missed(by_probe, program.as_ref()))
        }
    };
    print_counts(args, out, PINNED_WIDTH, text, &probe, counts)
}

/// How many hits were not counted, by the probe and by its program.
fn missed(by_probe: Option<u64>, program: Option<&Program>) -> Option<u64> {
    let by_probe = by_probe?;
    let by_program = program?.recursion_misses().ok()?;
    // A kernel that does not count the program's (before Linux 6.7) is no reason to tell nothing.
    Some(by_probe + by_program.unwrap_or_default())
}

fn print_head(args: &Args<'_>, out: &mut Output, width: usize) -> Result<(), ()> {
    if args.json {
        return Ok(());
    }
    row(out, c"PROBE", width, &"MODE", &"HITS", &"MISSED").map_err(|fmt::Error| ())
}

/// Prints the mode, the hits and the misses of a probe.
fn print_counts(
    args: &Args<'_>,
    out: &mut Output,
    width: usize,
    text: &CStr,
    probe: &Probe,
    (mode, hits, missed): (Option<AttachMode>, u64, Option<u64>),
) -> Result<(), ()> {
    let printed = if args.json {
        write!(out, r#"{{"probe":{},"#, Json(Lossy(text)))
            .and_then(|()| probe_fields(out, probe, mode))
            .and_then(|()| writeln!(out, r#","hits":{hits},"missed":{}}}"#, OrNull(missed)))
    } else {
        let missed: &dyn Display = missed.as_ref().map_or(&"-", |missed| missed);
        let mode: &dyn Display = mode.as_ref().map_or(&"-", |mode| mode);
        row(out, text, width, mode, &hits, missed)
    };
    printed.map_err(|fmt::Error| ())
}

/// A row of the table.
fn row(
    out: &mut Output,
    probe: &CStr,
    width: usize,
    mode: &dyn Display,
    hits: &dyn Display,
    missed: &dyn Display,
) -> fmt::Result {
    // To the end of the line, where a longer row stood before.
    let clear = if out.is_live() { "\x1b[K" } else { "" };
    let blanks = Blanks(width.saturating_sub(probe.count_bytes()));
    let probe = Lossy(probe);
    writeln!(
        out,
        "{probe}{blanks}  {mode:<11}  {hits:>12}  {missed:>8}{clear}"
    )
}
