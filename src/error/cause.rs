//! What an errno means: the decision table from a step and an errno to a [`Cause`].

use core::fmt;

use rustix::io::Errno;

use crate::diagnose::denied::bpf_denied;
use crate::error::Step;
use crate::request::target::{AttachMode, KprobeOpts, Target};
use crate::text::texts;

/// What an errno means at the step where it came up. Its name, as in the program's JSON, is [`Cause::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The request contradicts itself or the mode it asks for.
    InvalidRequest,
    /// No such function in the kernel or module.
    NoSuchFunction,
    /// No such function, and the module it is to be in is not loaded, as far as `/sys/module` tells.
    ModuleNotLoaded,
    /// Several functions have this name.
    NotUnique,
    /// The offset is not that of an instruction.
    NotInstructionBoundary,
    /// A return probe sits at the entry of a function only.
    NotFunctionEntry,
    /// The kernel does not allow a probe there: notrace, blacklisted, or an instruction that it cannot step over.
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
    /// An event or pin of this name exists already.
    EventExists,
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
            EventExists => "the name is taken already",
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

/// Errnos that mean the same wherever they come up.
pub(crate) const fn out_of(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::MFILE | Errno::NFILE => Some(Cause::OutOfFds),
        // The second is what a lock says.
        Errno::NOMEM | Errno::NOLCK => Some(Cause::OutOfMemory),
        _ => None,
    }
}

/// What an errno means for any BPF command, or else `cause`.
pub(crate) fn bpf_cause(errno: Errno, cause: Cause) -> Cause {
    match errno {
        Errno::PERM => bpf_denied(),
        Errno::ACCESS => Cause::NoPermission,
        errno => out_of(errno).unwrap_or(cause),
    }
}

/// What an errno means when `kprobe_events` is opened.
pub(crate) const fn kprobe_events_cause(errno: Errno) -> Cause {
    match errno {
        Errno::PERM => Cause::Lockdown,
        errno => match out_of(errno) {
            Some(cause) => cause,
            None => Cause::NoKprobeEvents,
        },
    }
}

/// What an errno means when an event is removed.
pub(crate) const fn remove_cause(errno: Errno) -> Cause {
    match errno {
        Errno::BUSY => Cause::EventBusy,
        errno => match out_of(errno) {
            Some(cause) => cause,
            None => Cause::Unknown,
        },
    }
}

/// What an errno means at a step of an attach, as far as it alone can tell. The features that the mode needs are
/// there, since else there would be no plan.
///
/// [`None`] where somebody denies, and who it is must be asked: a capability that is missing, a level of paranoia, a filter,
/// lockdown.
pub(crate) fn cause(
    step: Step,
    errno: Errno,
    mode: AttachMode,
    target: &Target,
    opts: &KprobeOpts,
) -> Option<Cause> {
    if let Some(cause) = out_of(errno) {
        return Some(cause);
    }
    Some(match (step, errno) {
        (Step::PerfEventOpen | Step::LinkCreate | Step::SetBpf, Errno::PERM | Errno::ACCESS) => {
            return None;
        }
        (Step::PerfEventOpen, Errno::NODEV) => Cause::CpuOffline,
        // The event has been defined, so the place is fine; somebody has removed it since.
        (Step::PerfEventOpen, _) if mode.uses_tracefs() => Cause::Unknown,
        // A name longer than any symbol of this kernel: 127 bytes before Linux 6.1.
        (Step::PerfEventOpen, Errno::TOOBIG) => Cause::NoSuchFunction,
        // A `Kernel` that is shared over fork(2) gives the same name twice.
        (Step::CreateEvent, Errno::EXIST | Errno::AGAIN) => Cause::EventExists,
        (Step::CreateEvent, Errno::PERM) => Cause::Lockdown,
        (Step::CreateEvent, Errno::BUSY) => Cause::EventBusy,
        (Step::PerfEventOpen | Step::CreateEvent, errno) => place_cause(errno, target, opts),
        // Whatever else is wrong with it: sleepable, loaded for kprobe.multi, writing to its context, overriding a return.
        (Step::LinkCreate | Step::SetBpf, Errno::INVAL | Errno::BADF | Errno::PROTO) => {
            Cause::WrongProgram
        }
        (Step::LinkCreate | Step::SetBpf, Errno::EXIST) => Cause::AlreadyAttached,
        (Step::LinkCreate | Step::SetBpf, Errno::TOOBIG) => Cause::TooManyPrograms,
        (Step::LinkCreate | Step::SetBpf, Errno::NOENT | Errno::OPNOTSUPP | Errno::NOTTY) => {
            Cause::UnsupportedArch
        }
        _ => Cause::Unknown,
    })
}

/// What an errno means for the place of a probe, whether the kprobe PMU or `kprobe_events` answered it.
fn place_cause(errno: Errno, target: &Target, opts: &KprobeOpts) -> Cause {
    let is_address = target.as_address().is_some();
    match errno {
        Errno::NOENT if is_address => Cause::BadAddress,
        Errno::NOENT if target.module().is_some() => Cause::ModuleNotLoaded,
        Errno::NOENT => Cause::NoSuchFunction,
        Errno::ADDRNOTAVAIL => Cause::NotUnique,
        Errno::ILSEQ => Cause::NotInstructionBoundary,
        // A function's entry is an entry; of an address the kernel says no more than that it will not do.
        Errno::INVAL if is_address && opts.retprobe => Cause::NotFunctionEntry,
        Errno::INVAL | Errno::OPNOTSUPP => Cause::NotProbeable,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttachMode::{Legacy, LegacyLink, Link, Perf};

    /// The modes with an event of the PMU, and those with one of tracefs.
    const PMU: [AttachMode; 2] = [Link, Perf];
    const TRACEFS: [AttachMode; 2] = [LegacyLink, Legacy];

    /// What each errno means, or none if somebody denies.
    type Table = [(Errno, Option<Cause>)];

    fn check(modes: &[AttachMode], step: Step, target: &str, retprobe: bool, table: &Table) {
        let (target, opts) = (
            target.parse().unwrap(),
            KprobeOpts::new().retprobe(retprobe),
        );
        for mode in modes {
            for (errno, expected) in table {
                let found = cause(step, *errno, *mode, &target, &opts);
                assert_eq!(found, *expected, "{mode} {step} {errno:?} {target}");
            }
        }
    }

    const OUT_OF: &Table = &[
        (Errno::MFILE, Some(Cause::OutOfFds)),
        (Errno::NFILE, Some(Cause::OutOfFds)),
        (Errno::NOMEM, Some(Cause::OutOfMemory)),
    ];

    #[test]
    fn an_event_of_the_pmu_that_is_refused_has_a_cause() {
        let step = Step::PerfEventOpen;
        check(&PMU, step, "f", false, OUT_OF);
        let of_any_function: &Table = &[
            (Errno::PERM, None),
            (Errno::ACCESS, None),
            (Errno::NODEV, Some(Cause::CpuOffline)),
            (Errno::TOOBIG, Some(Cause::NoSuchFunction)),
            (Errno::ADDRNOTAVAIL, Some(Cause::NotUnique)),
            (Errno::ILSEQ, Some(Cause::NotInstructionBoundary)),
            (Errno::INVAL, Some(Cause::NotProbeable)),
            (Errno::OPNOTSUPP, Some(Cause::NotProbeable)),
            (Errno::BUSY, Some(Cause::Unknown)),
        ];
        check(&PMU, step, "f", false, of_any_function);
        check(&PMU, step, "m:f", true, of_any_function);
        check(
            &PMU,
            step,
            "f",
            false,
            &[(Errno::NOENT, Some(Cause::NoSuchFunction))],
        );
        check(
            &PMU,
            step,
            "m:f",
            false,
            &[(Errno::NOENT, Some(Cause::ModuleNotLoaded))],
        );
        let address = "0xffffffff81000000";
        check(
            &PMU,
            step,
            address,
            false,
            &[(Errno::NOENT, Some(Cause::BadAddress))],
        );
        check(
            &PMU,
            step,
            address,
            false,
            &[(Errno::INVAL, Some(Cause::NotProbeable))],
        );
        check(
            &PMU,
            step,
            address,
            true,
            &[(Errno::INVAL, Some(Cause::NotFunctionEntry))],
        );
    }

    #[test]
    fn an_event_of_tracefs_that_is_refused_has_a_cause() {
        let step = Step::CreateEvent;
        check(&TRACEFS, step, "f", false, OUT_OF);
        let of_any_function: &Table = &[
            (Errno::NOLCK, Some(Cause::OutOfMemory)),
            (Errno::PERM, Some(Cause::Lockdown)),
            (Errno::ADDRNOTAVAIL, Some(Cause::NotUnique)),
            (Errno::ILSEQ, Some(Cause::NotInstructionBoundary)),
            (Errno::INVAL, Some(Cause::NotProbeable)),
            (Errno::EXIST, Some(Cause::EventExists)),
            (Errno::AGAIN, Some(Cause::EventExists)),
            (Errno::BUSY, Some(Cause::EventBusy)),
        ];
        check(&TRACEFS, step, "f", false, of_any_function);
        check(&TRACEFS, step, "m:f", true, of_any_function);
        check(
            &TRACEFS,
            step,
            "f",
            false,
            &[(Errno::NOENT, Some(Cause::NoSuchFunction))],
        );
        check(
            &TRACEFS,
            step,
            "m:f",
            false,
            &[(Errno::NOENT, Some(Cause::ModuleNotLoaded))],
        );
        // Once it has been defined, what it then meets tells nothing of the place.
        let gone: &Table = &[
            (Errno::NOENT, Some(Cause::Unknown)),
            (Errno::INVAL, Some(Cause::Unknown)),
        ];
        check(&TRACEFS, Step::ReadEventId, "f", false, gone);
        check(&TRACEFS, Step::PerfEventOpen, "f", false, gone);
        check(
            &TRACEFS,
            Step::PerfEventOpen,
            "f",
            false,
            &[(Errno::ACCESS, None)],
        );
        assert_eq!(kprobe_events_cause(Errno::PERM), Cause::Lockdown);
        assert_eq!(kprobe_events_cause(Errno::MFILE), Cause::OutOfFds);
        assert_eq!(kprobe_events_cause(Errno::ROFS), Cause::NoKprobeEvents);
        assert_eq!(remove_cause(Errno::BUSY), Cause::EventBusy);
        assert_eq!(remove_cause(Errno::NOMEM), Cause::OutOfMemory);
    }

    #[test]
    fn a_program_that_is_refused_has_a_cause() {
        let table: &Table = &[
            (Errno::INVAL, Some(Cause::WrongProgram)),
            (Errno::BADF, Some(Cause::WrongProgram)),
            (Errno::PROTO, Some(Cause::WrongProgram)),
            (Errno::EXIST, Some(Cause::AlreadyAttached)),
            (Errno::TOOBIG, Some(Cause::TooManyPrograms)),
            (Errno::NOENT, Some(Cause::UnsupportedArch)),
            (Errno::OPNOTSUPP, Some(Cause::UnsupportedArch)),
            (Errno::NOTTY, Some(Cause::UnsupportedArch)),
            (Errno::PERM, None),
            (Errno::NOSPC, Some(Cause::Unknown)),
        ];
        for step in [Step::LinkCreate, Step::SetBpf] {
            check(&AttachMode::ALL, step, "f", false, OUT_OF);
            check(&AttachMode::ALL, step, "f", false, table);
        }
    }
}
