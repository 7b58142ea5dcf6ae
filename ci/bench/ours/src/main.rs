//! The driver of this crate. See harness/src/work.rs for what a driver does.

#![no_std]
#![no_main]

use core::ffi::CStr;
use core::ops::ControlFlow;

use kprobe_attach::bpf::object::{LoadOptions, Object};
use kprobe_attach::bpf::{AttachType, Load, Program, insn};
use kprobe_attach::entry::Start;
use kprobe_attach::request::{Functions, GroupOpts, SymbolRef};
use kprobe_attach::symbols::{Resolution, resolve};
use kprobe_attach::{Errno, Error, GroupMemory, GroupSlot, GroupWay, Kernel, KprobeOpts, Target};
use rustix::fs::{Mode, OFlags};

const MOST: usize = 1000;

kprobe_attach::entry!(main, panic = kprobe_attach::entry::silent_panic);

fn main(start: &Start) -> u8 {
    run(start).is_err().into()
}

fn run(start: &Start) -> Result<(), Errno> {
    let mut words = (0..).map_while(|index| start.arg(index));
    let (Some(_), Some(way), Some(number), Some(times), Some(function)) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.clone().next(),
    ) else {
        return Err(Errno::INVAL);
    };
    mark(0);
    mark(0);
    if way == c"object" {
        load_object()?;
        mark(1);
        return Ok(());
    }
    let program =
        load(way == c"multi", i32::from(number == c"1")).map_err(|error| error.errno())?;
    mark(1);
    let times = times
        .to_bytes()
        .iter()
        .fold(0, |sum, digit| 10 * sum + i32::from(digit - b'0'));
    let done = if way == c"lookup" {
        lookup(words)
    } else if words.clone().count() == 1 && way == c"each" {
        one(&program, function, times)
    } else {
        many(&program, words, times)
    };
    done.map_err(|error| error.errno())
}

/// Makes the system call that the harness takes as a mark.
fn mark(number: usize) {
    // SAFETY: there is no system call of this number.
    unsafe {
        core::arch::asm!(
            "syscall", inout("rax") 100_000 + number => _, out("rcx") _, out("r11") _,
            options(nostack)
        );
    }
}

fn load(multi: bool, number: i32) -> Result<Program, Error> {
    let attach_type = if multi {
        AttachType::KprobeMulti
    } else {
        AttachType::Kprobe
    };
    let code = [insn::mov_imm(insn::R0, number), insn::exit()];
    Load::new(&code, c"GPL").attach_type(attach_type).load()
}

/// Loads all programs of an object.
#[inline(never)]
fn load_object() -> Result<(), Errno> {
    let mut bytes = [0; 8192];
    let mut memory = [0; 8192];
    let file = rustix::fs::open("object.o", OFlags::RDONLY, Mode::empty())?;
    let len = rustix::io::read(&file, &mut bytes)?;
    drop(file);
    let object = Object::parse(&bytes[..len]).map_err(|error| error.errno())?;
    let loaded = object
        .load(&mut memory, &LoadOptions::new())
        .map_err(|error| error.errno())?;
    for program in object.programs() {
        // The end of the process closes it, as all that the other drivers load.
        core::mem::forget(
            loaded
                .program(&program, &mut memory, &mut [])
                .map_err(|error| error.errno())?,
        );
    }
    core::mem::forget(loaded);
    Ok(())
}

fn one(program: &Program, function: &CStr, times: i32) -> Result<(), Error> {
    let kernel = Kernel::new();
    let function = function.to_str().unwrap_or_default();
    for _ in 0..times {
        let target = Target::symbol(function)?;
        let link = kernel.attach_kprobe(program, target, &KprobeOpts::new())?;
        mark(2);
        link.detach()?;
        mark(3);
    }
    Ok(())
}

#[inline(never)]
fn many<'w>(
    program: &Program,
    names: impl Iterator<Item = &'w CStr>,
    times: i32,
) -> Result<(), Error> {
    let mut symbols = [SymbolRef::new(c""); MOST];
    let mut slots = [const { GroupSlot::new() }; MOST];
    let mut addresses = [0; MOST];
    let mut count = 0;
    for (symbol, name) in symbols.iter_mut().zip(names) {
        *symbol = SymbolRef::new(name);
        count += 1;
    }
    let kernel = Kernel::new();
    for _ in 0..times {
        let group = kernel.attach_group(
            program,
            Functions::symbols(&symbols[..count]),
            &GroupOpts::new(),
            GroupMemory::new(&mut slots, &mut addresses),
            |_, _| ControlFlow::Continue(()),
        )?;
        mark(2);
        match group.way() {
            GroupWay::Multi => group.detach()?,
            _ => group.detach_by_children(3)?,
        }
        mark(3);
    }
    Ok(())
}

/// Finds functions with one reading of `/proc/kallsyms`.
#[inline(never)]
fn lookup<'w>(names: impl Iterator<Item = &'w CStr>) -> Result<(), Error> {
    let mut found = [const { Resolution::new(Target::address(0)) }; MOST];
    let mut count = 0;
    for (found, name) in found.iter_mut().zip(names) {
        let name = name.to_str().unwrap_or_default();
        *found = Resolution::new(Target::symbol(name)?.unique());
        count += 1;
    }
    mark(1);
    resolve(&mut found[..count], |_, _| ())?;
    mark(2);
    Ok(())
}
