//! `kprobe-attach count`: a built-in program that counts the hits of each probe.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::bpf::Array;
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::explain::switched_off;
use kprobe_attach::request::Probe;
use kprobe_attach::{Errno, Error, Kernel};
use rustix::process::Pid;

use super::table::{ROW, missed, print_counts, print_head};
use crate::cli::{Args, Opt, decimal};
use crate::out::{Decimal, Lossy, Output, Shown, notice};
use crate::programs::{Counter, Of, load};
use crate::rt::{Start, is_process};
use crate::session::{
    self, Attached, Counts, Followed, Found, Hold, Known, Link, Session, Shared, Source, Way,
    announce, labelled_counter, pin_all,
};

/// The number of file descriptors that a counter holds: the program and its array.
const OF_COUNTER: u64 = 2;

/// The nanoseconds after which a table on a terminal is drawn again.
const REFRESH: u64 = 1_000_000_000;

/// Counts the hits of every probe, and prints them or leaves counters pinned. Returns the exit
/// status of the command.
///
/// # Errors
///
/// Something failed, and it has been reported. Nothing is left behind.
pub(crate) fn run(
    start: &Start,
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
) -> Result<u8, ()> {
    let mut hold = Hold::new(start, args, out)?;
    let pid = process(args, out, &hold)?;
    let may_share = !args.has(Opt::Pin) && !args.has(Opt::AnyOf);
    let found = Found::of(args, kernel, out, may_share)?;
    session::plan(args, kernel, out, &found, OF_COUNTER)?;
    let array: MakeArray = match args.value(Opt::Pin) {
        Some(_) => |text, probe, _| labelled_counter(text, probe),
        None => |_, _, count| Array::create(u32::try_from(count).unwrap_or(u32::MAX)),
    };
    let followed = match pid.filter(|_| args.has(Opt::Children)) {
        Some(pid) => Some(Followed::begin(start, args, kernel, out, pid)?),
        None => None,
    };
    let of = match (&followed, pid) {
        (Some(followed), _) => Of::Children(&followed.children),
        (None, Some(pid)) => Of::Process(pid),
        (None, None) => Of::All,
    };
    let mut session = Session::attach(args, kernel, out, &found, &mut |known, count| {
        let Known { text, probe, .. } = known;
        let hits = array(text, probe, count)?;
        let program = load(start, &|version| {
            Counter::load(&hits, of, probe.attach_type, version)
        })?;
        Ok(Source::BuiltIn(Counter { program, hits }))
    })?;
    if let Some(dir) = args.value(Opt::Pin) {
        return pin_all(args, out, dir, &session, &mut |_| Ok(())).map(|()| 0);
    }
    hold.begin(args, out);
    announce(args, &session);
    if let Some(switch) = switched_off() {
        notice(format_args!("{switch}"));
    }

    // The table would be drawn over a command's own output. A row that wraps or scrolls away cannot
    // be reached by moving the cursor up.
    let probes = session.len();
    let rows = probes + 2;
    let width = column(&session);
    let live = !args.report.json && args.run.is_none() && out.fits(start, rows, width + ROW);
    let interval = args.time(Opt::Interval).or(live.then_some(REFRESH));
    let mut drawn = false;
    let mut print = |out: &mut Output, session: &Session<'_>| {
        let between = match (drawn, args.report.json) {
            (true, false) if live => up(out, probes),
            (true, false) => out.write_char('\n'),
            _ => Ok(()),
        };
        drawn = true;
        between.map_err(|fmt::Error| ())?;
        print(args, out, width, session)
    };
    hold.wait(out, interval, &mut |out| {
        let read = read(args, out, kernel, &mut session);
        read.and_then(|()| print(out, &session)).is_ok()
    });
    // A link reports its misses only while it is attached.
    let read = read(args, out, kernel, &mut session);
    let missed = session.shared().iter().map(Shared::missed).sum::<u64>();
    let mut detached = session.detach(args, out);
    if let Some(followed) = followed {
        detached = followed.end(args, kernel, out).and(detached);
    }
    let printed = read.and_then(|()| print(out, &session));
    for attached in session.iter().filter(|attached| attached.counts.is_gone) {
        notice(format_args!(
            "{}: gone: its module was unloaded",
            Shown(Lossy(attached.known.text))
        ));
    }
    if missed > 0 && !args.has(Opt::Quiet) {
        let missed = Decimal(missed);
        notice(format_args!(
            "{missed} hits were missed by the links to many functions"
        ));
    }
    let status = hold.finish(args);
    printed.and(detached).map(|()| status)
}

/// Returns the process to count, or [`None`] to count them all.
///
/// # Errors
///
/// There is no such process, or it may have another PID in the initial PID namespace, and it has
/// been reported.
fn process(args: &Args<'_>, out: &mut Output, hold: &Hold) -> Result<Option<Pid>, ()> {
    let pid = match args.value(Opt::Pid) {
        Some(text) => {
            decimal(text.to_bytes()).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        }
        None if args.has(Opt::CommandOnly) => hold.command(),
        None => return Ok(None),
    };
    let pid = pid.filter(|pid| is_process(*pid) && is_initial_pid_namespace());
    if pid.is_none() {
        let kind = (Step::Request, Errno::SRCH, Cause::InvalidRequest);
        args.report.other(
            out,
            None,
            kind,
            format_args!("no such process in the initial PID namespace"),
        );
    }
    pid.map(Some).ok_or(())
}

/// Returns whether this process is in the initial PID namespace, whose PIDs a BPF program gets.
fn is_initial_pid_namespace() -> bool {
    // `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
    const INITIAL: u64 = 0xefff_fffc;
    let namespace = rustix::fs::stat(c"/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace.st_ino == INITIAL)
}

/// Makes the array that a probe is counted in, or so many that share a link.
type MakeArray = fn(&CStr, &Probe<'_>, usize) -> Result<Array, Error>;

/// Moves the cursor back to the start of the table, and clears the screen from there. The terminal
/// may have echoed a key there.
fn up(out: &mut Output, probes: usize) -> fmt::Result {
    write!(out, "\x1b[{}A\x1b[J\r", Decimal(probes as u64 + 1))
}

/// The least and the largest width of the column of probes. A longer text moves its row to the
/// right.
const MIN_WIDTH: usize = 8;
const MAX_WIDTH: usize = 60;

/// Returns the width of the column of probes.
fn column(session: &Session<'_>) -> usize {
    let widths = session
        .iter()
        .map(|attached| attached.known.text.count_bytes());
    widths.max().unwrap_or_default().clamp(MIN_WIDTH, MAX_WIDTH)
}

/// Reads the counts of every probe.
fn read(
    args: &Args<'_>,
    out: &mut Output,
    kernel: &Kernel,
    session: &mut Session<'_>,
) -> Result<(), ()> {
    let (all, shared) = session.parts_mut();
    for attached in all {
        let (counter, index) = match &attached.link {
            Link::Own(_, source) => (source.counter(), 0),
            Link::Shared(link, index) => (
                shared.get(*link).and_then(|shared| shared.counter()),
                *index,
            ),
        };
        let Some(Counter { program, hits }) = counter else {
            continue;
        };
        let hits = hits.get(u32::try_from(index).unwrap_or(u32::MAX));
        let hits =
            hits.map_err(|error| args.report.error(out, Some(attached.known.text), &error))?;
        attached.counts = match &attached.link {
            Link::Own(None, _) => continue,
            Link::Own(Some(link), _) => {
                // A count that cannot be read is shown as unknown.
                let by_probe = kernel.missed(link).unwrap_or(None);
                Counts {
                    way: Some(Way::One(link.mode())),
                    hits,
                    missed: missed(by_probe, Some(program)),
                    // A trace event is armed again with its module.
                    is_gone: !link.mode().uses_tracefs()
                        && attached.module != kernel.module_number(&attached.known.probe.target),
                }
            }
            Link::Shared(..) => Counts {
                way: Some(Way::of(attached.known.probe.attach_type)),
                hits,
                missed: None,
                is_gone: false,
            },
        };
    }
    Ok(())
}

/// Prints the counts as a table, or as a line of JSON for each probe.
fn print(args: &Args<'_>, out: &mut Output, width: usize, session: &Session<'_>) -> Result<(), ()> {
    print_head(args, out, width)?;
    let mut rest = session.iter();
    while let Some(Attached { known, counts, .. }) = rest.next() {
        // A script sees by this field that the round is complete.
        let last = if rest.len() == 0 {
            ",\"last\":true"
        } else {
            ",\"last\":false"
        };
        print_counts(args, out, width, known, (*counts, last))?;
    }
    out.flush().map_err(|fmt::Error| ())
}
