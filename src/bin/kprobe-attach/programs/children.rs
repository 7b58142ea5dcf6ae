//! Programs that follow a process and the ones that it starts: from each task to the new ones that
//! it makes, until they are gone.

use kprobe_attach::bpf::{Array, AttachType, HashMap, Program, insn};
use kprobe_attach::{Error, KprobeOpts};
use rustix::process::Pid;

use super::code::{COUNT_LEN, Code, ZERO, load_word, store_word};

/// The most tasks that are followed at once.
const TASKS: u32 = 16_384;

/// Where the key of a task is on the stack: its `struct task_struct *`.
const KEY: i16 = -16;

/// The size of a key.
const KEY_SIZE: u32 = usize::BITS / 8;

/// The offsets in `struct pt_regs` of what a function returns, and of its first argument.
const REGISTERS: [i16; 2] = if cfg!(target_arch = "x86_64") {
    [80, 112]
} else if cfg!(target_arch = "x86") {
    // The kernel is built with -mregparm=3.
    [24; 2]
} else if cfg!(target_arch = "riscv64") {
    [80; 2]
} else if cfg!(target_arch = "s390x") {
    [40; 2]
} else if cfg!(target_arch = "powerpc64") {
    [24; 2]
} else {
    // aarch64 and arm
    [0; 2]
};

/// The tasks that are followed, beside those of the first process.
#[derive(Debug)]
pub(crate) struct Children {
    pid: Pid,
    tasks: HashMap,
    /// The number of tasks that were too many.
    lost: Array,
}

/// A program of the two that follow, and the function that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// `copy_process` returns a new task, which does not run yet.
    New,
    /// `release_task` is called with a task that never runs again.
    Gone,
}

impl Follow {
    /// Returns the name of the function, and the options of the probe.
    pub(crate) const fn probe(self) -> (&'static str, KprobeOpts) {
        match self {
            Self::New => ("copy_process", KprobeOpts::new().retprobe(true)),
            Self::Gone => ("release_task", KprobeOpts::new()),
        }
    }
}

impl Children {
    /// Makes the maps, for a process with this PID in the initial PID namespace.
    pub(crate) fn of(pid: Pid) -> Result<Self, Error> {
        Ok(Self {
            pid,
            tasks: HashMap::create(KEY_SIZE, 4, TASKS)?,
            lost: Array::create(1)?,
        })
    }

    /// Returns the number of tasks that were not followed for want of room.
    pub(crate) fn lost(&self) -> Result<u64, Error> {
        self.lost.get(0)
    }

    /// Adds instructions that end the program if the current task is not followed. They keep
    /// [`insn::R6`].
    pub(super) fn add_test<'m>(&'m self, code: &mut Code<'m>) {
        code.add(
            const {
                &[
                    insn::call(insn::helper::GET_CURRENT_PID_TGID),
                    insn::alu_imm(insn::Alu::Rsh, insn::R0, 32),
                ]
            },
        );
        // To behind the other instructions.
        code.add(&[insn::jump_if_imm(
            insn::Cond::Eq,
            insn::R0,
            Pid::as_raw(Some(self.pid)),
            10,
        )]);
        code.add(
            const {
                &[
                    insn::call(insn::helper::GET_CURRENT_TASK),
                    store_word(insn::R10, KEY, insn::R0),
                ]
            },
        );
        code.add(&insn::load_map(insn::R1, &self.tasks));
        code.add(
            const {
                &[
                    insn::mov(insn::R2, insn::R10),
                    insn::alu_imm(insn::Alu::Add, insn::R2, KEY as i32),
                    insn::call(insn::helper::MAP_LOOKUP_ELEM),
                    insn::jump_if_imm(insn::Cond::Ne, insn::R0, 0, 2),
                    insn::mov_imm(insn::R0, 0),
                    insn::exit(),
                ]
            },
        );
    }

    /// Loads a program that follows.
    pub(crate) fn load(&self, follow: Follow, kern_version: u32) -> Result<Program, Error> {
        let mut code = Code::new();
        let task = match follow {
            Follow::New => {
                code.add(const { &[insn::mov(insn::R6, insn::R1)] });
                self.add_test(&mut code);
                const { load_word(insn::R2, insn::R6, REGISTERS[0]) }
            }
            Follow::Gone => const { load_word(insn::R2, insn::R1, REGISTERS[1]) },
        };
        code.add(&[task]);
        code.add(&insn::load_map(insn::R1, &self.tasks));
        code.add(
            const {
                &[
                    store_word(insn::R10, KEY, insn::R2),
                    insn::mov(insn::R2, insn::R10),
                    insn::alu_imm(insn::Alu::Add, insn::R2, KEY as i32),
                ]
            },
        );
        match follow {
            // If the function has failed, this is an errno and no task. There are few of them.
            Follow::New => {
                code.add(
                    const {
                        &[
                            insn::store_imm(insn::Width::U32, insn::R10, ZERO, 0),
                            insn::mov(insn::R3, insn::R10),
                            insn::alu_imm(insn::Alu::Add, insn::R3, ZERO as i32),
                            insn::mov_imm(insn::R4, 0),
                            insn::call(insn::helper::MAP_UPDATE_ELEM),
                            insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, COUNT_LEN),
                        ]
                    },
                );
                code.add_count(&self.lost, ZERO);
            }
            Follow::Gone => code.add(const { &[insn::call(insn::helper::MAP_DELETE_ELEM)] }),
        }
        code.load(AttachType::Kprobe, kern_version)
    }
}
