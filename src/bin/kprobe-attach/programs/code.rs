//! The pieces that the programs are made of.

use core::mem::size_of;

use kprobe_attach::bpf::insn::{self, Insn, Reg};
use kprobe_attach::bpf::{Array, AttachType, Load, Program, kern_version};
use kprobe_attach::{Errno, Error};

use crate::rt::Start;

/// Where a zero of 32 bits is on the stack: the key of an array.
pub(super) const ZERO: i16 = -4;

/// The number of instructions that [`Code::add_count`] adds.
pub(super) const COUNT_LEN: i16 = 8;

/// Holds the instructions of a program.
#[derive(Debug)]
pub(super) struct Code<'m> {
    insns: [Insn<'m>; 40],
    len: usize,
}

impl<'m> Code<'m> {
    pub(super) const fn new() -> Self {
        Self {
            insns: [insn::exit(); 40],
            len: 0,
        }
    }

    /// Adds instructions at the end.
    #[inline(never)]
    pub(super) fn add(&mut self, insns: &[Insn<'m>]) {
        let free = self.insns.get_mut(self.len..).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(insns) {
            *to = *from;
        }
        self.len += insns.len();
    }

    /// Adds instructions for `hits[key] += 1`, with the offset of the key on the stack.
    pub(super) fn add_count(&mut self, hits: &'m Array, key: i16) {
        self.add(&insn::load_map(insn::R1, hits));
        self.add(&[
            insn::mov(insn::R2, insn::R10),
            insn::alu_imm(insn::Alu::Add, insn::R2, key.into()),
        ]);
        self.add(
            const {
                &[
                    insn::call(insn::helper::MAP_LOOKUP_ELEM),
                    // The verifier does not know that the index is in the array.
                    insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, 2),
                    insn::mov_imm(insn::R1, 1),
                    insn::atomic(insn::Width::U64, insn::Atomic::Add, insn::R0, 0, insn::R1),
                ]
            },
        );
    }

    /// Ends the program with 0, and loads it.
    pub(super) fn load(
        mut self,
        attach_type: AttachType,
        kern_version: u32,
    ) -> Result<Program, Error> {
        self.add(const { &[insn::mov_imm(insn::R0, 0), insn::exit()] });
        let insns = self.insns.get(..self.len).unwrap_or_default();
        Load::new(insns, c"Dual MIT/GPL")
            .name("kprobe_attach")?
            .attach_type(attach_type)
            .kern_version(kern_version)
            .load()
    }
}

/// Loads a program. A kernel before Linux 5.0 wants its own version in it.
pub(crate) fn load(
    start: &Start,
    load: &dyn Fn(u32) -> Result<Program, Error>,
) -> Result<Program, Error> {
    match load(0) {
        Err(error) if error.errno() == Errno::INVAL => {
            load(start.vdso().and_then(kern_version).unwrap_or_default())
        }
        loaded => loaded,
    }
}

/// Loads a word of the kernel, which is as long as a pointer.
pub(super) const fn load_word(dst: Reg, src: Reg, off: i16) -> Insn<'static> {
    if size_of::<usize>() == 8 {
        insn::load(insn::Width::U64, dst, src, off)
    } else {
        insn::load(insn::Width::U32, dst, src, off)
    }
}

/// Stores such a word.
pub(super) const fn store_word(dst: Reg, off: i16, src: Reg) -> Insn<'static> {
    if size_of::<usize>() == 8 {
        insn::store(insn::Width::U64, dst, off, src)
    } else {
        insn::store(insn::Width::U32, dst, off, src)
    }
}
