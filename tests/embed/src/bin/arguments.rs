//! Counts the calls of a function: `arguments FUNCTION [SECONDS]`.

#![no_std]
#![no_main]

use core::ffi::CStr;
use core::fmt::Write;

use kprobe_attach::bpf::{Array, Load, insn};
use kprobe_attach::entry::Start;
use kprobe_attach::{Error, KprobeOpts, Target, attach_kprobe};
use rustix::thread::{Timespec, nanosleep};

kprobe_attach::entry!(main);

fn main(start: &Start) -> u8 {
    let Some((function, seconds)) = arguments(start) else {
        let _ = writeln!(start.stderr(), "usage: arguments FUNCTION [SECONDS]");
        return 2;
    };
    match count(function, seconds) {
        Ok(calls) => {
            let printed = writeln!(start.stdout(), "{function}: {calls} calls");
            printed.is_err().into()
        }
        Err(error) => {
            let _ = writeln!(start.stderr(), "arguments: {error}");
            1
        }
    }
}

/// Returns the function and the number of seconds.
fn arguments(start: &Start) -> Option<(&str, u32)> {
    let text = |index| start.arg(index).map(CStr::to_str);
    let function = text(1)?.ok()?;
    let seconds = match text(2) {
        None => 1,
        Some(seconds) => seconds.ok()?.parse().ok()?,
    };
    start.arg(3).is_none().then_some((function, seconds))
}

/// Loads a program that counts, attaches it for so many seconds, and returns the count.
fn count(function: &str, seconds: u32) -> Result<u64, Error> {
    let counter = Array::create(1)?;
    let [map, map_end] = insn::load_map(insn::R1, &counter);
    let insns = [
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
    ];
    let program = Load::new(&insns, c"GPL").load()?;
    let link = attach_kprobe(&program, Target::parse(function)?, &KprobeOpts::new())?;
    let time = Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    // A signal that is caught would end it early, and none is.
    let _ = nanosleep(&time);
    link.detach()?;
    counter.get(0)
}
