//! `kprobe-attach plan`: the system calls of an attach. It makes none of them.

use core::fmt::{self, Write};

use kprobe_attach::plan::Syscall;
use kprobe_attach::{Kernel, Plan};

use crate::cli::{Args, Opt};
use crate::out::{Decimal, Json, Lossy, Output, Shown};
use crate::rt::Start;
use crate::session::{Found, Kind, Known, Members, Way, for_all, print_choice, probe_fields};

/// Prints the plan of each probe.
///
/// # Errors
///
/// One or more probes have no plan, and each has been reported. Or the output cannot be written.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let mut printed = Ok(());
    let found = Found::of(args, kernel, out, !args.has(Opt::Object))?;
    Kind::for_each(args, &found, &mut |kind| {
        print_shared(args, kernel, out, &found, kind)
    })?;
    let planned = for_all(args, out, &found, &mut |out, known| {
        if Kind::of(known).is_some() {
            return Ok(());
        }
        let plan = kernel.plan(known.probe.target, &known.probe.opts)?;
        printed = printed.and_then(|()| print(out, args.report.json, known, &plan));
        Ok(())
    });
    printed
        .and_then(|()| out.flush())
        .map_err(|fmt::Error| ())?;
    planned.map(|()| 0)
}

fn print(out: &mut Output, json: bool, known: &Known<'_>, plan: &Plan<'_>) -> fmt::Result {
    if json {
        probe_fields(out, known, Some(Way::One(plan.mode())))?;
        write!(out, r#","steps":"#)?;
        steps(out, &mut plan.steps())?;
        write!(out, r#","detach":"#)?;
        steps(out, &mut plan.detach_steps())?;
        return writeln!(out, "}}");
    }
    let text = Shown(Lossy(known.text));
    write!(out, "# {text}: attach, mode {}", plan.mode())?;
    print_choice(out, ", ", known)?;
    writeln!(out, "\n{plan}")?;
    writeln!(out, "# {text}: detach")?;
    plan.detach_steps()
        .try_for_each(|step| writeln!(out, "{step}"))
}

/// The JSON of how a link to many functions is detached.
const CLOSE: &str = r#""detach":["close(link_fd) = 0"]"#;

/// Prints the plan of the link that probes of one kind share, or of several if a function is
/// repeated.
///
/// # Errors
///
/// It has no plan, and that has been reported. Or the output cannot be written.
#[inline(never)]
fn print_shared(
    args: &Args<'_>,
    kernel: &Kernel,
    out: &mut Output,
    found: &Found<'_>,
    kind: Kind,
) -> Result<(), ()> {
    let members = Members::of(args, found, kind, false).map_err(|errno| {
        args.report.run(out, errno, "no memory for so many probes");
    })?;
    let mut start = 0;
    while let Some(first) = members.known().get(start) {
        let functions = members.run(start);
        start += functions.len();
        let plan = kernel.plan_multi(functions, &kind.opts());
        let plan = plan.map_err(|error| args.report.error(out, Some(first.text), &error))?;
        let count = Decimal(functions.len() as u64);
        let text = Lossy(first.text);
        let printed = if args.report.json {
            let way = Json(Way::of(first.probe.attach_type));
            let (probe, plan) = (Json(text), Json(&plan));
            writeln!(
                out,
                r#"{{"probe":{probe},"functions":{count},"mode":{way},"steps":[{plan}],{CLOSE}}}"#
            )
        } else {
            let text = Shown(text);
            writeln!(
                out,
                "# {text}: attach, one link to {count} functions\n{plan}\n\
                 # {text}: detach\nclose(link_fd) = 0"
            )
        };
        printed.map_err(|fmt::Error| ())?;
    }
    Ok(())
}

fn steps(out: &mut Output, steps: &mut dyn Iterator<Item = Syscall<'_>>) -> fmt::Result {
    for (index, step) in steps.enumerate() {
        let before = if index == 0 { "[" } else { "," };
        write!(out, "{before}{}", Json(step))?;
    }
    out.write_char(']')
}
