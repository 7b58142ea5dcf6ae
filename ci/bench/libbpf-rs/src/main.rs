//! The driver of libbpf-rs. See harness/src/work.rs for what a driver does.

use std::env;
use std::ffi::OsStr;

use libbpf_rs::{Link, ObjectBuilder, ProgramMut};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [way, number, times, functions @ ..] = &arguments[..] else {
        return Err("usage: libbpf-rs each|multi|object 0|1 TIMES FUNCTION...".into());
    };
    let (path, name) = match (way.as_str(), number.as_str()) {
        ("object", _) => return load_object(),
        ("each", "0") => ("kprobe.o", "zero"),
        ("each", "1") => ("kprobe.o", "one"),
        ("multi", "0") => ("kprobe.multi.o", "zero"),
        _ => return Err("no such work".into()),
    };
    let mut links = Vec::with_capacity(functions.len());
    mark(0);
    mark(0);
    let object = ObjectBuilder::default().open_file(path)?.load()?;
    let mut programs = object.progs_mut();
    let program = programs.find(|program| program.name() == OsStr::new(name));
    let program = program.ok_or("no such program")?;
    mark(1);
    for _ in 0..times.parse()? {
        attach(&program, way == "multi", functions, &mut links)?;
        mark(2);
        links.clear();
        mark(3);
    }
    Ok(())
}

/// Loads all programs of an object.
fn load_object() -> Result<(), Box<dyn std::error::Error>> {
    mark(0);
    mark(0);
    let object = ObjectBuilder::default().open_file("object.o")?.load()?;
    mark(1);
    drop(object);
    Ok(())
}

fn attach(
    program: &ProgramMut<'_>,
    multi: bool,
    functions: &[String],
    links: &mut Vec<Link>,
) -> libbpf_rs::Result<()> {
    if multi {
        links.push(program.attach_kprobe_multi(false, functions.iter().collect())?);
        return Ok(());
    }
    for function in functions {
        links.push(program.attach_kprobe(false, function)?);
    }
    Ok(())
}

fn mark(number: libc::c_long) {
    // SAFETY: there is no system call of this number.
    unsafe { libc::syscall(100_000 + number) };
}
