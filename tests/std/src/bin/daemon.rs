//! A daemon that attaches a pinned program until it is killed: `daemon PIN PROBE...`.
//!
//! A PROBE is the text of the program `kprobe-attach`, such as `kretprobe/vfs_unlink,mode=legacy`.
//!
//! It handles no signal. When it dies, however that happens, the kernel detaches its probes. In the
//! tracefs modes a trace event is left, disarmed. The next start removes it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitCode;

use kprobe_attach::bpf::Program;
use kprobe_attach::request::Probe;
use kprobe_attach::{Error, Kernel, KprobeLink};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some((pin, probes)) = args.split_first().filter(|(_, probes)| !probes.is_empty()) else {
        eprintln!("usage: daemon PIN PROBE...");
        return ExitCode::from(2);
    };
    let Err(error) = run(pin, probes);
    eprintln!("daemon: {error}");
    ExitCode::FAILURE
}

/// Returns an error only.
fn run(pin: &OsStr, probes: &[OsString]) -> io::Result<Infallible> {
    // A tracefs that is not mounted is used as a detached mount, also by the sweep.
    let kernel = Kernel::with_detached_mounts();
    sweep(&kernel);

    let program = Program::open_pinned(pin)?;
    let attach = |text: &OsString| attach(&kernel, &program, &text.to_string_lossy());
    // If one of them cannot be attached, the others are detached.
    let _links: Vec<KprobeLink> = probes.iter().map(attach).collect::<Result<_, _>>()?;
    println!("{} attached", probes.len());
    loop {
        std::thread::park();
    }
}

/// Removes what was left by those of this crate that were killed. It never removes an event that is
/// used.
fn sweep(kernel: &Kernel) {
    match kernel.sweep(|event| println!("removed {}/{}", event.group, event.event)) {
        Ok(swept) => println!("{} removed, {} in use", swept.removed, swept.in_use),
        // The modes of the PMU work without a tracefs.
        Err(error) => eprintln!("not swept: {error}"),
    }
}

fn attach(kernel: &Kernel, program: &Program, text: &str) -> Result<KprobeLink, Error> {
    let probe = Probe::parse(text)?;
    kernel.attach_kprobe(program, probe.target, &probe.opts)
}
