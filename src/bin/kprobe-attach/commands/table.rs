//! The table of counts.

use core::ffi::CStr;
use core::fmt::{self, Display, Write};

use kprobe_attach::AttachMode;
use kprobe_attach::bpf::Program;

use crate::cli::Args;
use crate::out::{Blanks, Decimal, Json, Lossy, Now, OrNull, Output, Shown};
use crate::session::{Counts, Known, Way, probe_fields};

/// The width of a row without the column of probes.
pub(super) const ROW: usize = 2 + 11 + 2 + 12 + 2 + 8;

/// Returns the number of hits that were not counted, by the probe and by its program.
pub(super) fn missed(by_probe: Option<u64>, program: Option<&Program>) -> Option<u64> {
    let by_probe = by_probe?;
    let by_program = program?.recursion_misses().ok()?;
    // Before Linux 6.7 the kernel does not count the program's part. The probe's is still known.
    Some(by_probe + by_program.unwrap_or_default())
}

pub(super) fn print_head(args: &Args<'_>, out: &mut Output, width: usize) -> Result<(), ()> {
    if args.report.json {
        return Ok(());
    }
    row(out, c"PROBE", width, &"MODE", &"HITS", &"MISSED").map_err(|fmt::Error| ())
}

/// Prints the mode, the hits and the misses of a probe. In JSON, `last` follows them.
pub(super) fn print_counts(
    args: &Args<'_>,
    out: &mut Output,
    width: usize,
    known: &Known<'_>,
    (counts, last): (Counts, &str),
) -> Result<(), ()> {
    let Counts {
        way,
        hits,
        missed,
        is_gone,
    } = counts;
    let (hits, missed) = (Decimal(hits), missed.map(Decimal));
    let printed = if args.report.json {
        probe_fields(out, known, way)
            .and_then(|()| {
                write!(
                    out,
                    r#","time":{Now},"hits":{hits},"missed":{}{last}"#,
                    OrNull(missed)
                )
            })
            .and_then(|()| out.write_str(if is_gone { r#","gone":true"# } else { "" }))
            .and_then(|()| match missed {
                Some(_) => out.write_str("}\n"),
                None => writeln!(out, r#","why":{}}}"#, Json(why(way))),
            })
    } else {
        let missed: &dyn Display = missed.as_ref().map_or(&"-", |missed| missed);
        let way: &dyn Display = way.as_ref().map_or(&"-", |way| way);
        row(out, known.text, width, way, &hits, missed)
    };
    printed.map_err(|fmt::Error| ())
}

/// Explains why the kernel does not report the misses of a probe.
const fn why(way: Option<Way>) -> &'static str {
    match way {
        None => "the link is gone",
        Some(Way::One(AttachMode::Perf)) => "not in mode perf",
        Some(Way::One(AttachMode::Link)) => "needs Linux 6.7, for a pin CAP_SYS_ADMIN",
        Some(Way::One(_)) => "kprobe_profile cannot be read",
        Some(Way::Multi | Way::Session) => "the link counts those of all its functions as one",
    }
}

/// Prints a row of the table.
fn row(
    out: &mut Output,
    probe: &CStr,
    width: usize,
    mode: &dyn Display,
    hits: &dyn Display,
    missed: &dyn Display,
) -> fmt::Result {
    let blanks = Blanks(width.saturating_sub(probe.count_bytes()));
    let probe = Shown(Lossy(probe));
    writeln!(out, "{probe}{blanks}  {mode:<11}  {hits:>12}  {missed:>8}")
}
