//! `kprobe-attach count`: a built-in program that counts the hits of each probe.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};
use core::time::Duration;

use kprobe_attach::map::Array;
use kprobe_attach::prog::{Load, Program, insn};
use kprobe_attach::{Error, Kernel};

use crate::args::Args;
use crate::hold::Hold;
use crate::output::{Blanks, Json, Lossy, OrNull, Output, report};
use crate::session::{self, Attached, Session, announce, probe_fields};

/// How often a table on a terminal is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);

/// Counts the hits of every probe, and prints them. Answers the exit status of the command.
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
    session::check(args, out)?;
    let kernel = Kernel::probe();
    session::plan(args, &kernel, out)?;
    let probes = u32::try_from(args.probes().len()).unwrap_or_default();
    let counters = Array::create(probes);
    let session = Session::attach(args, &kernel, out, |index| {
        let counters = counters.as_ref().map_err(|error| *error)?;
        load(counters, index, kern_version.unwrap_or_default())
    })?;
    let counters = counters.map_err(|_| ())?;
    announce(args);

    // A command's own output would be drawn over; and what wraps or scrolls away is not reached by moving the cursor up.
    let rows = usize::try_from(probes)
        .unwrap_or(usize::MAX)
        .saturating_add(2);
    out.stay_live(!args.json && args.run.is_none() && out.fits(rows, column(args) + ROW));
    let live = out.is_live();
    let interval = args.interval.or(live.then_some(REFRESH));
    let mut drawn = false;
    let waited = hold.wait(args, interval, || {
        if drawn && live {
            up(out, probes);
        }
        drawn = true;
        print(args, out, &session, &counters).is_ok()
    });
    if drawn && live {
        up(out, probes);
    }
    let printed = print(args, out, &session, &counters);
    let ended = session.end(args, out, hold);
    waited.and(printed).and(ended)
}

/// Loads `counters[index] += 1`.
fn load(counters: &Array, index: u32, kern_version: u32) -> Result<Program, Error> {
    const MAP_LOOKUP_ELEM: i32 = 1;
    let [map, map_end] = insn::load_map(insn::R1, counters);
    let insns = [
        map,
        map_end,
        // The key, on the stack.
        insn::store_imm_u32(insn::R10, -4, i32::try_from(index).unwrap_or_default()),
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
fn up(out: &mut Output, probes: u32) {
    // What goes wrong here goes wrong again with the table.
    let _ = write!(out, "\x1b[{}A", probes + 1);
}

/// The widest column of probes; a longer text pushes its row to the right.
const MAX_WIDTH: usize = 60;

/// The width of a row beside the column of probes.
const ROW: usize = 2 + 11 + 2 + 12 + 2 + 8;

/// The width of the column of probes.
fn column(args: &Args<'_>) -> usize {
    let widths = args.probes().iter().map(|text| text.count_bytes());
    widths.max().unwrap_or_default().clamp(8, MAX_WIDTH)
}

/// Prints the counts: a table, or a line of JSON for each probe.
fn print(
    args: &Args<'_>,
    out: &mut Output,
    session: &Session<'_>,
    counters: &Array,
) -> Result<(), ()> {
    let width = column(args);
    if !args.json {
        let head = row(out, c"PROBE", width, &"MODE", &"HITS", &"MISSED");
        head.map_err(|fmt::Error| ())?;
    }
    for (index, attached) in (0..).zip(session.iter()) {
        let Attached { text, probe, link } = attached;
        let hits = counters
            .get(index)
            .map_err(|error| report(out, Some(text), args, &error))?;
        // What cannot be read just now the kernel does not say.
        let missed = link.missed().unwrap_or(None);
        let printed = if args.json {
            write!(out, r#"{{"probe":{},"#, Json(Lossy(text)))
                .and_then(|()| probe_fields(out, probe, link.mode()))
                .and_then(|()| writeln!(out, r#","hits":{hits},"missed":{}}}"#, OrNull(missed)))
        } else {
            let missed: &dyn Display = missed.as_ref().map_or(&"-", |missed| missed);
            row(out, text, width, &link.mode(), &hits, missed)
        };
        printed.map_err(|fmt::Error| ())?;
    }
    out.flush().map_err(|fmt::Error| ())
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
