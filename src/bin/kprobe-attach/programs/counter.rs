//! A program that counts the hits of its probe.

use kprobe_attach::Error;
use kprobe_attach::bpf::{Array, AttachType, Program, insn};
use rustix::process::Pid;

use super::children::Children;
use super::code::{Code, ZERO};

/// Where the cookie is on the stack, and its low half: the key of an array.
const COOKIE: i16 = -8;
const COOKIE_LOW: i16 = if cfg!(target_endian = "little") {
    COOKIE
} else {
    COOKIE + 4
};

/// A program that counts, and the array that holds its count.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) program: Program,
    pub(crate) hits: Array,
}

/// Names the processes whose hits are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of<'a> {
    All,
    /// One process, by its PID in the initial PID namespace.
    Process(Pid),
    /// One process, and those that it starts.
    Children(&'a Children),
}

impl Counter {
    /// Loads `hits[0] += 1`, or `hits[cookie] += 1` for a link to many functions, for the hits of
    /// some processes.
    pub(crate) fn load(
        hits: &Array,
        of: Of<'_>,
        attach_type: AttachType,
        kern_version: u32,
    ) -> Result<Program, Error> {
        let mut code = Code::new();
        // The helper takes the program's context, which is lost afterwards.
        let key = if attach_type == AttachType::Kprobe {
            code.add(const { &[insn::store_imm(insn::Width::U32, insn::R10, ZERO, 0)] });
            ZERO
        } else {
            code.add(
                const {
                    &[
                        insn::call(insn::helper::GET_ATTACH_COOKIE),
                        insn::store(insn::Width::U64, insn::R10, COOKIE, insn::R0),
                    ]
                },
            );
            COOKIE_LOW
        };
        match of {
            Of::All => {}
            Of::Process(pid) => code.add(&[
                // The upper half is the PID of the process, the lower half that of the thread.
                insn::call(insn::helper::GET_CURRENT_PID_TGID),
                insn::alu_imm(insn::Alu::Rsh, insn::R0, 32),
                insn::jump_if_imm(insn::Cond::Eq, insn::R0, Pid::as_raw(Some(pid)), 2),
                insn::mov_imm(insn::R0, 0),
                insn::exit(),
            ]),
            Of::Children(children) => children.add_test(&mut code),
        }
        code.add_count(hits, key);
        code.load(attach_type, kern_version)
    }
}
