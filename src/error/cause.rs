//! What an errno means: the words for it. How it is found out is for `diagnose`.

use core::fmt;

use crate::text::texts;

/// What an errno means at the step where it came up. Its name, as in the program's JSON, is
/// [`Cause::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The request contradicts itself or the mode it asks for.
    InvalidRequest,
    /// No such function in the kernel or module.
    NoSuchFunction,
    /// No such function, and the module it is to be in is not loaded, as far as `/sys/module`
    /// tells.
    ModuleNotLoaded,
    /// Several functions have this name.
    NotUnique,
    /// The offset is not that of an instruction.
    NotInstructionBoundary,
    /// A return probe sits at the entry of a function only.
    NotFunctionEntry,
    /// The kernel does not allow a probe there: notrace, blacklisted, or an instruction that it
    /// cannot step over.
    NotProbeable,
    /// No kernel function is at the address.
    BadAddress,
    /// A capability is missing.
    NoPermission,
    /// `kernel.perf_event_paranoid` demands more than `CAP_PERFMON`.
    PerfEventParanoid,
    /// A seccomp filter refuses the system call.
    Seccomp,
    /// The kernel is locked down.
    Lockdown,
    /// `RLIMIT_MEMLOCK` is too low (before Linux 5.11).
    MemlockLimit,
    /// There is no kprobe PMU, or no telling.
    NoKprobePmu,
    /// There are no perf links, or no telling.
    NoPerfLink,
    /// There is no tracefs to be had.
    NoTracefs,
    /// tracefs has no `kprobe_events` that this process may write.
    NoKprobeEvents,
    /// There are no `kprobe.multi` links of the kind asked for.
    NoKprobeMulti,
    /// The program is not one that can be attached to a kprobe.
    WrongProgram,
    /// The program is attached to this event already.
    AlreadyAttached,
    /// The event has all the programs that it can have.
    TooManyPrograms,
    /// An event of this name exists already.
    EventExists,
    /// A pin of this name exists already.
    NameTaken,
    /// Something still uses the event.
    EventBusy,
    /// The CPU that the event was to be opened on has gone offline.
    CpuOffline,
    /// The process or the system has no file descriptors left.
    OutOfFds,
    /// The kernel has no memory left for this.
    OutOfMemory,
    /// The kernel has no such thing on this architecture, or was built without it.
    UnsupportedArch,
    /// None of the above: the errno says all there is.
    Unknown,
}

impl Cause {
    texts! {
        /// The name that scripts may rely on, such as `no-such-function`.
        #[must_use]
        pub fn name(Cause) {
            InvalidRequest => "invalid-request",
            NoSuchFunction => "no-such-function",
            ModuleNotLoaded => "module-not-loaded",
            NotUnique => "not-unique",
            NotInstructionBoundary => "not-instruction-boundary",
            NotFunctionEntry => "not-function-entry",
            NotProbeable => "not-probeable",
            BadAddress => "bad-address",
            NoPermission => "no-permission",
            PerfEventParanoid => "perf-event-paranoid",
            Seccomp => "seccomp",
            Lockdown => "lockdown",
            MemlockLimit => "memlock-limit",
            NoKprobePmu => "no-kprobe-pmu",
            NoPerfLink => "no-perf-link",
            NoTracefs => "no-tracefs",
            NoKprobeEvents => "no-kprobe-events",
            NoKprobeMulti => "no-kprobe-multi",
            WrongProgram => "wrong-program",
            AlreadyAttached => "already-attached",
            TooManyPrograms => "too-many-programs",
            EventExists => "event-exists",
            NameTaken => "name-taken",
            EventBusy => "event-busy",
            CpuOffline => "cpu-offline",
            OutOfFds => "out-of-fds",
            OutOfMemory => "out-of-memory",
            UnsupportedArch => "unsupported-arch",
            Unknown => "unknown",
        }
    }

    texts! {
        /// The meaning in a few words, with what to do about it where that is known.
        #[must_use]
        pub fn meaning(Cause) {
            InvalidRequest => "the request is wrong",
            NoSuchFunction => "no function of this name in the running kernel; it may be inlined, renamed or in a module (see /proc/kallsyms)",
            ModuleNotLoaded => "no function of this name in that module; is the module loaded?",
            NotUnique => "several functions have this name: give module:function, or the address of one (see /proc/kallsyms)",
            NotInstructionBoundary => "the offset does not lead to the first byte of an instruction that can be probed",
            NotFunctionEntry => "a return probe can only be placed at the entry of a function",
            NotProbeable => "the kernel allows no probe there: it is notrace, blacklisted, no code, or an instruction that cannot be stepped over",
            BadAddress => "no kernel function is at this address",
            NoPermission => "not permitted: this takes CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8) in the initial user namespace",
            PerfEventParanoid => "not permitted: with kernel.perf_event_paranoid at 3 or above, as Debian has it, this takes CAP_SYS_ADMIN in the initial user namespace",
            Seccomp => "a seccomp filter refuses the system call, as container runtimes do by default",
            Lockdown => "the kernel is locked down (lockdown=confidentiality)",
            MemlockLimit => "RLIMIT_MEMLOCK is too low for a kernel before 5.11, and this process may not raise it",
            NoKprobePmu => "there is no kprobe PMU (Linux 4.17, CONFIG_KPROBE_EVENTS)",
            NoPerfLink => "there are no BPF links to perf events (Linux 5.15)",
            NoTracefs => "there is no tracefs to be had",
            NoKprobeEvents => "tracefs has no kprobe_events that this process may write",
            NoKprobeMulti => "there are no such links (kprobe.multi: Linux 5.18 with CONFIG_FPROBE; kprobe.session: 6.10)",
            WrongProgram => "not a program for kprobes: its type must be BPF_PROG_TYPE_KPROBE, not sleepable, not loaded for kprobe.multi, and fit for this function",
            AlreadyAttached => "the program is attached to this event already",
            TooManyPrograms => "the event has all the programs that it can have",
            EventExists => "an event of this name is defined already",
            NameTaken => "something is pinned at this path already",
            EventBusy => "something still uses the event",
            CpuOffline => "the CPU to open the event on has gone offline; probe the kernel again",
            OutOfFds => "no file descriptor left (RLIMIT_NOFILE, fs.file-max)",
            OutOfMemory => "the kernel has no memory for this",
            UnsupportedArch => "the kernel was built without this, or has none for this architecture",
            Unknown => "not a known answer at this step",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
