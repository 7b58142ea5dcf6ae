//! `kprobe-attach plan`: the system calls of an attach. It makes none of them.

use core::fmt::{self, Write};

use kprobe_attach::plan::Syscall;
use kprobe_attach::{Kernel, Plan};

use crate::cli::Args;
use crate::out::{Json, Lossy, Output, Shown};
use crate::rt::Start;
use crate::session::{Found, Known, for_all, print_choice, probe_fields};

/// Prints the plan of each probe.
///
/// # Errors
///
/// One or more probes have no plan, and each has been reported. Or the output cannot be written.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let mut printed = Ok(());
    let found = Found::of(args, kernel, out)?;
    let planned = for_all(args, out, &found, &mut |out, known| {
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
        probe_fields(out, known, Some(plan.mode()))?;
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

fn steps(out: &mut Output, steps: &mut dyn Iterator<Item = Syscall<'_>>) -> fmt::Result {
    for (index, step) in steps.enumerate() {
        let before = if index == 0 { "[" } else { "," };
        write!(out, "{before}{}", Json(step))?;
    }
    out.write_char(']')
}
