//! A program that counts the hits of its probe.

use kprobe_attach::Error;
use kprobe_attach::bpf::{Array, Program, insn};
use rustix::process::Pid;

use super::children::Children;
use super::code::{Code, GET_CURRENT_PID_TGID, ZERO};

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
    /// Loads `hits[0] += 1`, for the hits of some processes.
    pub(crate) fn load(hits: &Array, of: Of<'_>, kern_version: u32) -> Result<Program, Error> {
        let mut code = Code::new();
        match of {
            Of::All => {}
            Of::Process(pid) => code.add(&[
                // The upper half is the PID of the process, the lower half that of the thread.
                insn::call(GET_CURRENT_PID_TGID),
                insn::rsh_imm(insn::R0, 32),
                insn::jump_if_eq_imm(insn::R0, Pid::as_raw(Some(pid)), 2),
                insn::mov_imm(insn::R0, 0),
                insn::exit(),
            ]),
            Of::Children(children) => children.add_test(&mut code),
        }
        code.add(const { &[insn::store_imm_u32(insn::R10, ZERO, 0)] });
        code.add_count(hits);
        code.load(kern_version)
    }
}
