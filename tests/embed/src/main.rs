//! Loads a program, attaches it, and counts the calls of `vfs_read` for a second.

#![no_std]
#![no_main]

use kprobe_attach::bpf::{Array, Load, insn};
use kprobe_attach::entry::Start;
use kprobe_attach::{Error, KprobeOpts, Target, attach_kprobe};
use rustix::thread::{Timespec, nanosleep};

kprobe_attach::entry!(main, panic = kprobe_attach::entry::silent_panic);

fn main(start: &Start) -> u8 {
    run(start).is_err().into()
}

fn run(start: &Start) -> Result<(), Error> {
    let counter = Array::create(1)?;
    let [map, map_end] = insn::load_map(insn::R1, &counter);
    let program = Load::new(
        &[
            map,
            map_end,
            insn::store_imm(insn::Width::U32, insn::R10, -4, 0),
            insn::mov(insn::R2, insn::R10),
            insn::alu_imm(insn::Alu::Add, insn::R2, -4),
            insn::call(insn::helper::MAP_LOOKUP_ELEM),
            insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, 2),
            insn::mov_imm(insn::R1, 1),
            insn::atomic(insn::Width::U64, insn::Atomic::Add, insn::R0, 0, insn::R1),
            insn::mov_imm(insn::R0, 0),
            insn::exit(),
        ],
        c"GPL",
    )
    .load()?;
    let link = attach_kprobe(&program, Target::symbol("vfs_read")?, &KprobeOpts::new())?;
    // A signal can end the second early, which does no harm.
    let _ = nanosleep(&Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    // Without the feature `files`, detaching cannot leave anything behind.
    drop(link);
    print(start, counter.get(0)?);
    Ok(())
}

/// Writes a number and a newline, without the 4 KB of `core::fmt`.
fn print(start: &Start, mut number: u64) {
    let mut line = [b'\n'; 21];
    let mut first = line.len() - 1;
    while first > 0 {
        first -= 1;
        if let Some(digit) = line.get_mut(first) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // If standard output cannot be written to, the error cannot be reported.
    let _ = rustix::io::write(start.stdout(), &line[first..]);
}
