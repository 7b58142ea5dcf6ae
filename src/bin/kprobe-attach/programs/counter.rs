//! A program that counts the hits of its probe.

use kprobe_attach::Error;
use kprobe_attach::bpf::{Array, Load, Program, insn};
use rustix::process::Pid;

/// A program that counts, and the array that holds its count.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) program: Program,
    pub(crate) hits: Array,
}

impl Counter {
    /// Loads `hits[0] += 1`, for the hits of one process if `pid` is given. It is the PID in the
    /// initial PID namespace.
    pub(crate) fn load(
        hits: &Array,
        pid: Option<Pid>,
        kern_version: u32,
    ) -> Result<Program, Error> {
        const MAP_LOOKUP_ELEM: i32 = 1;
        const GET_CURRENT_PID_TGID: i32 = 14;
        let [map, map_end] = insn::load_map(insn::R1, hits);
        let insns = [
            // The upper half is the PID of the process, the lower half that of the thread.
            insn::call(GET_CURRENT_PID_TGID),
            insn::rsh_imm(insn::R0, 32),
            insn::jump_if_eq_imm(insn::R0, Pid::as_raw(pid), 2),
            insn::mov_imm(insn::R0, 0),
            insn::exit(),
            map,
            map_end,
            // The key, on the stack.
            insn::store_imm_u32(insn::R10, -4, 0),
            insn::mov(insn::R2, insn::R10),
            insn::add_imm(insn::R2, -4),
            insn::call(MAP_LOOKUP_ELEM),
            // The verifier does not know that the index is in the array.
            insn::jump_if_eq_imm(insn::R0, 0, 2),
            insn::mov_imm(insn::R1, 1),
            insn::atomic_add_u64(insn::R0, 0, insn::R1),
            insn::mov_imm(insn::R0, 0),
            insn::exit(),
        ];
        // The first five instructions compare the process.
        let [_, _, _, _, _, of_any @ ..] = &insns;
        Load::new(pid.map_or(of_any, |_| &insns), c"Dual MIT/GPL")
            .name("kprobe_attach")?
            .kern_version(kern_version)
            .load()
    }
}
