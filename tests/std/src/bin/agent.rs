//! An agent with std, which attaches a program of another loader until standard input ends:
//! `agent PIN FUNCTION`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use kprobe_attach::bpf::Program;
use kprobe_attach::fd::AsFd;
use kprobe_attach::{Kernel, KprobeOpts, Target};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [pin, function] = &args[..] else {
        eprintln!("usage: agent PIN FUNCTION");
        return ExitCode::from(2);
    };
    if let Err(error) = run(pin, &function.to_string_lossy()) {
        eprintln!("agent: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(pin: &OsStr, function: &str) -> io::Result<()> {
    // Any loader will do. With aya, it is `ebpf.program_mut("count")`, as a `KProbe`, whose `fd()`
    // is `AsFd` too.
    let program = Program::open_pinned(pin)?;
    watch(program.as_fd(), function)
}

/// Takes a file descriptor of std, whoever loaded the program. The errors become those of std.
fn watch(program: BorrowedFd<'_>, function: &str) -> io::Result<()> {
    let kernel = Kernel::new();
    let link = kernel.attach_kprobe(program, Target::parse(function)?, &KprobeOpts::new())?;
    println!("attached to {function} in mode {}", link.mode());

    io::copy(&mut io::stdin(), &mut io::sink())?;
    // Some kernels and modes have no answer.
    match kernel.missed(&link)? {
        Some(missed) => println!("{missed} hits missed"),
        None => println!("hits missed: unknown"),
    }
    link.detach()?;
    println!("detached");
    Ok(())
}
