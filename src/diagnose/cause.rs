//! The table from a step and an errno to a [`Cause`].

use rustix::io::Errno;

use super::denied::{bpf_denied, missing_call, perf_event_denied};
use crate::error::{Cause, Error, Step};
use crate::mount::FILES;
use crate::request::{AttachMode, KprobeOpts, Target};

/// Makes the error of a BPF command. Its cause is the one that the errno has for every command, or
/// else `cause`.
pub(crate) fn bpf_error(step: Step, errno: Errno, cause: Cause) -> Error {
    Error::new(step, errno, bpf_cause(errno, cause))
}

/// Makes the error of a step of an attach, with its target. The cause depends on `told`: the errno,
/// or a more precise one from the kernel's log. If that is not enough, asks the kernel.
#[cold]
pub(crate) fn attach_error(
    step: Step,
    errno: Errno,
    told: Errno,
    mode: AttachMode,
    target: &Target<'_>,
    opts: &KprobeOpts,
) -> Error {
    let known = cause(step, told, mode, target, opts);
    let cause = known.unwrap_or_else(|| match step {
        Step::PerfEventOpen => perf_event_denied(errno),
        // A Linux security module denies it with EACCES.
        _ => bpf_cause(errno, Cause::NoPermission),
    });
    let mut error = Error::new(step, errno, cause);
    error.name(target, opts);
    error
}

/// Returns the cause of an errno for any BPF command, or else `cause`.
pub(crate) fn bpf_cause(errno: Errno, cause: Cause) -> Cause {
    match errno {
        Errno::PERM => bpf_denied(),
        Errno::NOSYS => missing_call(),
        Errno::ACCESS => Cause::NoPermission,
        errno => Cause::out_of(errno).unwrap_or(cause),
    }
}

/// Returns the cause of an errno when `kprobe_events` is opened.
pub(crate) const fn kprobe_events_cause(errno: Errno) -> Cause {
    match errno {
        Errno::PERM => Cause::Lockdown,
        errno => match Cause::out_of(errno) {
            Some(cause) => cause,
            None => Cause::NoKprobeEvents,
        },
    }
}

/// Returns the cause of an errno when an event is removed.
pub(crate) const fn remove_cause(errno: Errno) -> Cause {
    match errno {
        Errno::BUSY => Cause::EventBusy,
        errno => match Cause::out_of(errno) {
            Some(cause) => cause,
            None => Cause::Unknown,
        },
    }
}

/// Returns the cause of an errno at a step of an attach, as far as the errno shows it. There is a
/// plan, so the features that the mode needs are available.
///
/// Returns [`None`] if the system call is denied. The kernel must then be asked for the reason: a
/// missing capability, `perf_event_paranoid`, a filter, or lockdown.
fn cause(
    step: Step,
    errno: Errno,
    mode: AttachMode,
    target: &Target<'_>,
    opts: &KprobeOpts,
) -> Option<Cause> {
    if let Some(cause) = Cause::out_of(errno) {
        return Some(cause);
    }
    Some(match (step, errno) {
        (
            Step::PerfEventOpen | Step::LinkCreate | Step::SetBpf,
            Errno::PERM | Errno::ACCESS | Errno::NOSYS,
        ) => return None,
        (Step::PerfEventOpen, Errno::NODEV) => Cause::CpuOffline,
        // The event was defined, so the place is valid. If it does not exist, another process has
        // removed it since.
        (Step::ReadEventId, Errno::NOENT | Errno::NODEV) if FILES => Cause::EventRemoved,
        (Step::PerfEventOpen, Errno::INVAL) if FILES && mode.uses_tracefs() => Cause::EventRemoved,
        (Step::PerfEventOpen, _) if FILES && mode.uses_tracefs() => Cause::Unknown,
        // The name is longer than any symbol of this kernel, which is 127 bytes before Linux 6.1.
        (Step::PerfEventOpen, Errno::TOOBIG) => Cause::NoSuchFunction,
        // A `Kernel` that is shared across fork(2) gives the same name twice.
        (Step::CreateEvent, Errno::EXIST | Errno::AGAIN) if FILES => Cause::EventExists,
        (Step::CreateEvent, Errno::PERM) if FILES => Cause::Lockdown,
        (Step::CreateEvent, Errno::BUSY) if FILES => Cause::EventBusy,
        (Step::PerfEventOpen | Step::CreateEvent, errno) => place_cause(errno, target, opts),
        // There are other reasons too: the program is sleepable, is loaded for kprobe.multi, writes
        // to its context, or overrides a return value.
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

/// Returns the cause of an errno about the place of a probe, from the kprobe PMU or from
/// `kprobe_events`.
fn place_cause(errno: Errno, target: &Target<'_>, opts: &KprobeOpts) -> Cause {
    let is_address = target.as_address().is_some();
    match errno {
        Errno::NOENT if is_address => Cause::BadAddress,
        Errno::NOENT if target.module_bytes().is_some() => Cause::ModuleNotLoaded,
        Errno::NOENT => Cause::NoSuchFunction,
        Errno::ADDRNOTAVAIL => Cause::NotUnique,
        Errno::ILSEQ => Cause::NotInstructionBoundary,
        // A return probe of a function is at its entry. Only one of an address can be elsewhere.
        Errno::INVAL if is_address && opts.retprobe => Cause::NotFunctionEntry,
        Errno::INVAL | Errno::OPNOTSUPP => Cause::NotProbeable,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttachMode::{Link, Perf};

    /// The modes with an event of the PMU, and those with an event in tracefs.
    const PMU: [AttachMode; 2] = [Link, Perf];
    #[cfg(feature = "files")]
    const TRACEFS: [AttachMode; 2] = [AttachMode::LegacyLink, AttachMode::Legacy];

    /// The cause of each errno, or none if permission is denied.
    type Table = [(Errno, Option<Cause>)];

    fn check(modes: &[AttachMode], step: Step, target: &str, retprobe: bool, table: &Table) {
        let (target, opts) = (
            Target::parse(target).unwrap(),
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

    #[cfg(feature = "files")]
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
        // After the event is defined, an errno says nothing about the place.
        let gone = Some(Cause::EventRemoved);
        for (step, errno, cause) in [
            (Step::ReadEventId, Errno::NOENT, gone),
            (Step::ReadEventId, Errno::NODEV, gone),
            (Step::ReadEventId, Errno::INVAL, Some(Cause::Unknown)),
            (Step::PerfEventOpen, Errno::INVAL, gone),
            (Step::PerfEventOpen, Errno::NOENT, Some(Cause::Unknown)),
            (Step::PerfEventOpen, Errno::NOSYS, None),
        ] {
            check(&TRACEFS, step, "f", false, &[(errno, cause)]);
        }
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
            (Errno::NOSYS, None),
            (Errno::NOSPC, Some(Cause::Unknown)),
        ];
        for step in [Step::LinkCreate, Step::SetBpf] {
            check(&AttachMode::ALL, step, "f", false, OUT_OF);
            check(&AttachMode::ALL, step, "f", false, table);
        }
    }
}
