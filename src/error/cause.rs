//! The meanings of an errno. The module `diagnose` finds out which one applies.

use core::fmt;

use rustix::io::Errno;

use crate::text::texts;

#[cfg(feature = "files")]
macro_rules! no_tracefs {
    () => {
        "tracefs is unavailable"
    };
}

#[cfg(not(feature = "files"))]
macro_rules! no_tracefs {
    () => {
        "this build reads no files: it lacks the feature `files`"
    };
}

/// Names the meaning of an errno at the step that failed.
///
/// [`Cause::name`] returns its name, as the program's JSON has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The request contradicts itself, or the mode that it asks for.
    InvalidRequest,
    /// The kernel or the module does not have this function.
    NoSuchFunction,
    /// The function does not exist, and `/sys/module` does not show its module as loaded.
    ModuleNotLoaded,
    /// Several functions have this name.
    NotUnique,
    /// The offset does not lead to the start of an instruction.
    NotInstructionBoundary,
    /// A return probe can only be at the entry of a function.
    NotFunctionEntry,
    /// The kernel refuses a probe there: the function is notrace or blacklisted, or the kernel
    /// cannot step over the instruction.
    NotProbeable,
    /// The kprobe PMU of this kernel does not take the name of the function, though the function
    /// exists.
    ///
    /// Some kernels do not take `module:function`. An attach then uses the address. If that is
    /// hidden, and no mode is asked for, it uses a tracefs mode.
    NameRefused,
    /// The address is not in a kernel function.
    BadAddress,
    /// A capability is missing, or the process may not open a file.
    NoPermission,
    /// `kernel.perf_event_paranoid` demands more than `CAP_PERFMON`.
    PerfEventParanoid,
    /// A seccomp filter refuses the system call.
    Seccomp,
    /// The kernel is locked down.
    Lockdown,
    /// `RLIMIT_MEMLOCK` is too low. It matters before Linux 5.11.
    MemlockLimit,
    /// The kprobe PMU is unavailable, or its probe had no answer.
    NoKprobePmu,
    /// Perf links are unavailable, or their probe had no answer.
    NoPerfLink,
    /// tracefs is unavailable.
    NoTracefs,
    /// tracefs does not have a `kprobe_events` that this process may write.
    NoKprobeEvents,
    /// The requested kind of `kprobe.multi` link is unavailable.
    NoKprobeMulti,
    /// The program cannot be attached to a kprobe, or not to this function. At
    /// [`Step::LoadProgram`](super::Step::LoadProgram), the verifier refuses the program.
    WrongProgram,
    /// The program is already attached to this event.
    AlreadyAttached,
    /// The event cannot take another program.
    TooManyPrograms,
    /// An event of this name exists already.
    EventExists,
    /// A pin of this name exists already.
    NameTaken,
    /// Something still uses the event.
    EventBusy,
    /// Another process removed the event before it was opened.
    EventRemoved,
    /// The CPU of the event has gone offline.
    CpuOffline,
    /// The process or the system has no file descriptor left.
    OutOfFds,
    /// The kernel does not have enough memory.
    OutOfMemory,
    /// The kernel does not support it on this architecture, or was built without it. If the process
    /// has a seccomp filter, `ENOSYS` has the cause [`Seccomp`](Self::Seccomp).
    UnsupportedArch,
    /// No other cause applies, and the errno is all that is known.
    Unknown,
    /// The object is malformed, or has something that this crate or the kernel does not serve.
    BadObject,
}

impl Cause {
    /// Returns the cause of an errno that means the same at every step, if it is one:
    /// [`OutOfFds`](Self::OutOfFds) or [`OutOfMemory`](Self::OutOfMemory).
    // One copy for its many callers.
    #[inline(never)]
    #[must_use]
    pub const fn out_of(errno: Errno) -> Option<Self> {
        match errno {
            Errno::MFILE | Errno::NFILE => Some(Self::OutOfFds),
            // NOLCK is the errno of a lock.
            Errno::NOMEM | Errno::NOLCK => Some(Self::OutOfMemory),
            _ => None,
        }
    }

    texts! {
        /// Returns the name that scripts can rely on, such as `no-such-function`.
        #[must_use]
        pub fn name(Cause) {
            InvalidRequest => "invalid-request",
            NoSuchFunction => "no-such-function",
            ModuleNotLoaded => "module-not-loaded",
            NotUnique => "not-unique",
            NotInstructionBoundary => "not-instruction-boundary",
            NotFunctionEntry => "not-function-entry",
            NotProbeable => "not-probeable",
            NameRefused => "name-refused",
            BadAddress => "bad-address",
            BadObject => "bad-object",
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
            EventRemoved => "event-removed",
            CpuOffline => "cpu-offline",
            OutOfFds => "out-of-fds",
            OutOfMemory => "out-of-memory",
            UnsupportedArch => "unsupported-arch",
            Unknown => "unknown",
        }
    }

    texts! {
        /// Returns the meaning in a few words, and a remedy if one is known.
        #[must_use]
        pub fn meaning(Cause) {
            InvalidRequest => "the request is invalid",
            NoSuchFunction => "no function of this name in the running kernel; \
                it may be inlined, renamed or in a module (see /proc/kallsyms)",
            ModuleNotLoaded => "no function of this name in that module; is the module loaded?",
            NotUnique => "several functions have this name: give module:function, or function@N \
                with its number in /proc/kallsyms (unless kernel.kptr_restrict hides addresses)",
            NotInstructionBoundary => "the offset is \
                not at the start of an instruction that can be probed",
            NotFunctionEntry => "a return probe can only be at the entry of a function",
            NotProbeable => "the kernel allows no probe there: \
                it is notrace, blacklisted, not code, \
                or an instruction that cannot be stepped over",
            NameRefused => "the function exists, but the kprobe PMU of this kernel \
                does not take its name: give its address, or use a tracefs mode",
            BadAddress => "no kernel function is at this address",
            BadObject => "the object is malformed, or not served",
            NoPermission => "not permitted: this takes CAP_BPF and CAP_PERFMON \
                (CAP_SYS_ADMIN before Linux 5.8) in the initial user namespace",
            PerfEventParanoid => "not permitted: with kernel.perf_event_paranoid at 3 or above, \
                as in Debian, this takes CAP_SYS_ADMIN in the initial user namespace",
            Seccomp => "denied by a seccomp filter, which container runtimes install by default",
            Lockdown => "the kernel is locked down (lockdown=confidentiality)",
            MemlockLimit => "RLIMIT_MEMLOCK is too low for a kernel before 5.11, \
                and this process may not raise it",
            NoKprobePmu => "no kprobe PMU (needs Linux 4.17 and CONFIG_KPROBE_EVENTS)",
            NoPerfLink => "no BPF links to perf events (needs Linux 5.15)",
            NoTracefs => no_tracefs!(),
            NoKprobeEvents => "no kprobe_events in tracefs that this process may write",
            NoKprobeMulti => "no such links (kprobe.multi needs Linux 5.18 with CONFIG_FPROBE, \
                kprobe.session 6.10)",
            WrongProgram => "not a program for kprobes: it must be of type BPF_PROG_TYPE_KPROBE, \
                not sleepable, not loaded for kprobe.multi, and with bpf_override_return \
                only at a function of error_injection/list in debugfs",
            AlreadyAttached => "the program is attached to this event already",
            TooManyPrograms => "the event cannot take another program",
            EventExists => "an event of this name already exists",
            NameTaken => "something is pinned at this path already",
            EventBusy => "something still uses the event",
            EventRemoved => "another process has removed the event",
            CpuOffline => "the CPU of the event has gone offline; probe the kernel again",
            OutOfFds => "no file descriptor left (RLIMIT_NOFILE, fs.file-max)",
            OutOfMemory => "the kernel is out of memory",
            UnsupportedArch => "unsupported on this architecture, \
                or by this kernel's configuration",
            Unknown => "an unexpected error at this step; the kernel's log may say more (dmesg)",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meaning_names_what_there_is_to_change() {
        for (cause, words) in [
            (
                Cause::WrongProgram,
                &[
                    "BPF_PROG_TYPE_KPROBE",
                    "bpf_override_return",
                    "error_injection/list",
                ][..],
            ),
            (
                Cause::NotUnique,
                &["module:function", "kernel.kptr_restrict"],
            ),
            (
                Cause::NoTracefs,
                if cfg!(feature = "files") {
                    &["tracefs"]
                } else {
                    &["build", "`files`"]
                },
            ),
        ] {
            for word in words {
                assert!(cause.meaning().contains(word), "{cause}: {word}");
            }
        }
    }
}
