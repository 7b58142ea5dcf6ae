//! The driver of aya. See harness/src/work.rs for what a driver does.

use std::env;

use aya::Ebpf;
use aya::programs::KProbe;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [way, number, times, functions @ ..] = &arguments[..] else {
        return Err("usage: aya each|object 0|1 TIMES FUNCTION...".into());
    };
    let name = match (way.as_str(), number.as_str()) {
        ("object", _) => return load_object(),
        ("each", "0") => "zero",
        ("each", "1") => "one",
        _ => return Err("no such work".into()),
    };
    let mut links = Vec::with_capacity(functions.len());
    mark(0);
    mark(0);
    let mut object = Ebpf::load_file("kprobe.o")?;
    let program = object.program_mut(name).ok_or("no such program")?;
    let program: &mut KProbe = program.try_into()?;
    program.load()?;
    mark(1);
    for _ in 0..times.parse()? {
        for function in functions {
            links.push(program.attach(function, 0)?);
        }
        mark(2);
        for link in links.drain(..) {
            program.detach(link)?;
        }
        mark(3);
    }
    Ok(())
}

/// Loads all programs of an object.
fn load_object() -> Result<(), Box<dyn std::error::Error>> {
    mark(0);
    mark(0);
    let mut object = Ebpf::load_file("object.o")?;
    for (_, program) in object.programs_mut() {
        let program: &mut KProbe = program.try_into()?;
        program.load()?;
    }
    mark(1);
    Ok(())
}

fn mark(number: libc::c_long) {
    // SAFETY: there is no system call of this number.
    unsafe { libc::syscall(100_000 + number) };
}
