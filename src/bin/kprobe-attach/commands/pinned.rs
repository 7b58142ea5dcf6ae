//! `kprobe-attach count --pin DIR` without a probe: the counts of what is pinned there.

use core::ffi::CStr;
use core::fmt;

use kprobe_attach::bpf::{Array, Program};
use kprobe_attach::error::Step;
use kprobe_attach::request::Probe;
use kprobe_attach::{Errno, Error, Kernel, KprobeLink};

use super::table::{missed, print_counts, print_head};
use crate::cli::{Args, Opt};
use crate::out::Output;
use crate::rt::Start;
use crate::session::{Counts, Known, Way, for_each_counter, label, report_dir};

/// The width of the column of probes. The probes come one by one, so it is fixed.
const PINNED_WIDTH: usize = 24;

/// Prints the counts of the probes that are pinned in a directory.
///
/// # Errors
///
/// A pin cannot be read, and it has been reported. Or the output cannot be written.
pub(crate) fn run(_: &Start, args: &Args<'_>, _: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let dir = args.value(Opt::Pin).unwrap_or_default();
    print_head(args, out, PINNED_WIDTH)?;
    let mut all = Ok(0);
    let read = for_each_counter(dir, &mut |counter, link| {
        if print_pin(args, out, dir, counter, link).is_err() {
            all = Err(());
        }
    });
    read.map_err(|errno| report_dir(args, out, Step::OpenProgram, dir, errno))?;
    out.flush().map_err(|fmt::Error| ())?;
    all
}

/// Prints the count of one pin. It has no mode if the link's pin is gone.
// In a frame of its own, beside that of the directory's buffers.
#[inline(never)]
fn print_pin(
    args: &Args<'_>,
    out: &mut Output,
    dir: &CStr,
    counter: &CStr,
    link: &CStr,
) -> Result<(), ()> {
    let mut failed = |pin, error: Error| -> Result<(), ()> {
        args.report.pin(out, None, (dir, pin), &error);
        Err(())
    };
    let array = match Array::open_pinned(counter) {
        // Another program's pin has such a name.
        Err(error) if error.errno() == Errno::INVAL => return Ok(()),
        Err(error) => return failed(counter, error),
        Ok(array) => array,
    };
    let text = label(&array);
    let text = text.as_c_str();
    let Ok(probe) = Probe::from_bytes(text.to_bytes()) else {
        return Ok(());
    };
    let hits = match array.get(0) {
        Err(error) => return failed(counter, error),
        Ok(hits) => hits,
    };
    let counts = match KprobeLink::open_pinned(link) {
        Err(error) if error.errno() == Errno::NOENT => Counts {
            hits,
            ..Counts::default()
        },
        Err(error) => return failed(link, error),
        Ok(link) => {
            // Opening it by its id takes `CAP_SYS_ADMIN`.
            let program = link.prog_id().unwrap_or(None);
            let program = program.and_then(|id| Program::open_id(id).ok());
            let missed = missed(link.missed().unwrap_or(None), program.as_ref());
            Counts {
                way: Some(Way::One(link.mode())),
                hits,
                missed,
                is_gone: false,
            }
        }
    };
    let known = Known::new(text, probe);
    print_counts(args, out, PINNED_WIDTH, &known, (counts, ""))
}
