//! A program that counts the hits of its probe.

use kprobe_attach::Error;
use kprobe_attach::bpf::{Array, Load, Program, insn};

/// A program that counts, and the array that holds its count.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) program: Program,
    pub(crate) hits: Array,
}

impl Counter {
    /// Loads `hits[0] += 1`.
    pub(crate) fn load(hits: &Array, kern_version: u32) -> Result<Program, Error> {
        const MAP_LOOKUP_ELEM: i32 = 1;
        let [map, map_end] = insn::load_map(insn::R1, hits);
        let insns = [
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
        Load::new(&insns, c"Dual MIT/GPL")
            .name("kprobe_attach")?
            .kern_version(kern_version)
            .load()
    }
}
