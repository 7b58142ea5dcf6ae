//! What can fail, at which step, with which errno, and what that errno means there.

use core::fmt;

use rustix::io::Errno;

use crate::denied::bpf_denied;
use crate::invalid::Invalid;
use crate::kernel::Support;
use crate::plan::Need;
use crate::request::{AttachMode, KprobeOpts, Target};

/// The step at which something failed. Its name, as printed and as in the program's JSON, is [`Step::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The request itself is wrong; no system call was made.
    Request,
    /// The kernel lacks what the request needs, or a probe could not tell; nothing was changed.
    ProbeKernel,
    /// Reading `/proc/kallsyms`
    ResolveSymbol,
    /// `BPF_PROG_LOAD`
    LoadProgram,
    /// `BPF_OBJ_GET` or `BPF_PROG_GET_FD_BY_ID` of a program, or of a pinned link
    OpenProgram,
    /// `perf_event_open(2)`
    PerfEventOpen,
    /// `BPF_LINK_CREATE`
    LinkCreate,
    /// The ioctl `PERF_EVENT_IOC_SET_BPF`
    SetBpf,
    /// The write that defines an event in `kprobe_events`
    CreateEvent,
    /// Reading the id of an event just defined
    ReadEventId,
    /// The write that removes an event from `kprobe_events`
    RemoveEvent,
    /// `BPF_OBJ_PIN`, and what it takes to get there
    Pin,
    /// `BPF_OBJ_GET_INFO_BY_FD`, `BPF_TASK_FD_QUERY` or `kprobe_profile`: what the kernel tells of a link
    LinkInfo,
    /// `BPF_MAP_CREATE` or `BPF_MAP_LOOKUP_ELEM`
    Map,
}

impl Step {
    /// The name that scripts may rely on, such as `perf_event_open` or `create-event`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::ProbeKernel => "probe-kernel",
            Self::ResolveSymbol => "resolve-symbol",
            Self::LoadProgram => "load-program",
            Self::OpenProgram => "open-program",
            Self::PerfEventOpen => "perf_event_open",
            Self::LinkCreate => "link-create",
            Self::SetBpf => "set-bpf",
            Self::CreateEvent => "create-event",
            Self::ReadEventId => "read-event-id",
            Self::RemoveEvent => "remove-event",
            Self::Pin => "pin",
            Self::LinkInfo => "link-info",
            Self::Map => "map",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an errno means at the step where it came up. Its name, as in the program's JSON, is [`Cause::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The request contradicts itself or the mode it asks for.
    InvalidRequest,
    /// No such function in the kernel or module.
    NoSuchFunction,
    /// No such function, and the module it is to be in may not be loaded.
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
    /// The name that scripts may rely on, such as `no-such-function`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::NoSuchFunction => "no-such-function",
            Self::ModuleNotLoaded => "module-not-loaded",
            Self::NotUnique => "not-unique",
            Self::NotInstructionBoundary => "not-instruction-boundary",
            Self::NotFunctionEntry => "not-function-entry",
            Self::NotProbeable => "not-probeable",
            Self::BadAddress => "bad-address",
            Self::NoPermission => "no-permission",
            Self::PerfEventParanoid => "perf-event-paranoid",
            Self::Seccomp => "seccomp",
            Self::Lockdown => "lockdown",
            Self::MemlockLimit => "memlock-limit",
            Self::NoKprobePmu => "no-kprobe-pmu",
            Self::NoPerfLink => "no-perf-link",
            Self::NoTracefs => "no-tracefs",
            Self::NoKprobeEvents => "no-kprobe-events",
            Self::NoKprobeMulti => "no-kprobe-multi",
            Self::WrongProgram => "wrong-program",
            Self::AlreadyAttached => "already-attached",
            Self::TooManyPrograms => "too-many-programs",
            Self::EventExists => "event-exists",
            Self::EventBusy => "event-busy",
            Self::CpuOffline => "cpu-offline",
            Self::OutOfFds => "out-of-fds",
            Self::OutOfMemory => "out-of-memory",
            Self::UnsupportedArch => "unsupported-arch",
            Self::Unknown => "unknown",
        }
    }

    /// The meaning in a few words, with what to do about it where that is known.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request is wrong",
            Self::NoSuchFunction => {
                "no function of this name in the running kernel; it may be inlined, renamed or in a module (see /proc/kallsyms)"
            }
            Self::ModuleNotLoaded => {
                "no function of this name in that module; is the module loaded?"
            }
            Self::NotUnique => {
                "several functions have this name: give module:function, or the address of one (see /proc/kallsyms)"
            }
            Self::NotInstructionBoundary => {
                "the offset does not lead to the first byte of an instruction that can be probed"
            }
            Self::NotFunctionEntry => {
                "a return probe can only be placed at the entry of a function"
            }
            Self::NotProbeable => {
                "the kernel allows no probe there: it is notrace, blacklisted, no code, or an instruction that cannot be stepped over"
            }
            Self::BadAddress => "no kernel function is at this address",
            Self::NoPermission => {
                "not permitted: this takes CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8) in the initial user namespace"
            }
            Self::PerfEventParanoid => {
                "not permitted: with kernel.perf_event_paranoid at 3 or above, as Debian has it, this takes CAP_SYS_ADMIN in the initial user namespace"
            }
            Self::Seccomp => {
                "a seccomp filter refuses the system call, as container runtimes do by default"
            }
            Self::Lockdown => "the kernel is locked down (lockdown=confidentiality)",
            Self::MemlockLimit => {
                "RLIMIT_MEMLOCK is too low for a kernel before 5.11, and this process may not raise it"
            }
            Self::NoKprobePmu => "there is no kprobe PMU (Linux 4.17, CONFIG_KPROBE_EVENTS)",
            Self::NoPerfLink => "there are no BPF links to perf events (Linux 5.15)",
            Self::NoTracefs => "there is no tracefs to be had",
            Self::NoKprobeEvents => "tracefs has no kprobe_events that this process may write",
            Self::NoKprobeMulti => {
                "there are no such links (kprobe.multi: Linux 5.18 with CONFIG_FPROBE; kprobe.session: 6.10)"
            }
            Self::WrongProgram => {
                "not a program for kprobes: its type must be BPF_PROG_TYPE_KPROBE, not sleepable, not loaded for kprobe.multi, and fit for this function"
            }
            Self::AlreadyAttached => "the program is attached to this event already",
            Self::TooManyPrograms => "the event has all the programs that it can have",
            Self::EventExists => "the name is taken already",
            Self::EventBusy => "something still uses the event",
            Self::CpuOffline => {
                "the CPU to open the event on has gone offline; probe the kernel again"
            }
            Self::OutOfFds => "no file descriptor left (RLIMIT_NOFILE, fs.file-max)",
            Self::OutOfMemory => "the kernel has no memory for this",
            Self::UnsupportedArch => {
                "the kernel was built without this, or has none for this architecture"
            }
            Self::Unknown => "not a known answer at this step",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What there is to say beyond step, errno and cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// The errno and its cause say it all.
    Plain,
    /// The rule that the request breaks.
    Invalid(Invalid),
    /// What a mode needs and surely has not.
    Unmet(AttachMode, Need),
    /// What a mode needs and a probe could not tell.
    Untold(AttachMode, Need),
}

/// A failure: the [step](Error::step) at which it happened, the [errno](Error::errno), and the [cause](Error::cause), which
/// is what that errno means there. Nothing is left behind, no file descriptor and no trace event, but for the event that
/// [`Step::RemoveEvent`] itself is about.
///
/// Its `Display` is one line: function, step, errno and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    step: Step,
    errno: Errno,
    cause: Cause,
    detail: Detail,
    target: Option<Target>,
    offset: u64,
}

impl Error {
    /// The step that failed.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// The errno: the kernel's, or libbpf's for what is refused before the kernel is asked (`EINVAL`, and `EOPNOTSUPP` for
    /// what a mode cannot do). Where a probe could not tell, it is the one that hid the answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// What the errno means at this step.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The function or address that was to be probed, where one is concerned.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    pub(crate) const fn new(step: Step, errno: Errno, cause: Cause) -> Self {
        Self {
            step,
            errno,
            cause,
            detail: Detail::Plain,
            target: None,
            offset: 0,
        }
    }

    /// The request breaks a rule.
    pub(crate) const fn invalid(invalid: Invalid) -> Self {
        Self {
            step: Step::Request,
            errno: invalid.errno(),
            cause: Cause::InvalidRequest,
            detail: Detail::Invalid(invalid),
            target: None,
            offset: 0,
        }
    }

    /// A mode needs what is not there, or what a probe could not tell.
    pub(crate) const fn unmet(mode: AttachMode, need: Need, support: Support) -> Option<Self> {
        let (reason, detail) = match support {
            Support::Yes => return None,
            Support::No(reason) => (reason, Detail::Unmet(mode, need)),
            Support::Unknown(reason) => (reason, Detail::Untold(mode, need)),
        };
        // What the kernel has not is libbpf's EOPNOTSUPP, whatever the probe met; what it denies is not.
        let errno = match (detail, reason.errno) {
            (Detail::Unmet(..), errno) if !matches!(errno, Errno::ACCESS | Errno::PERM) => {
                Errno::OPNOTSUPP
            }
            (_, errno) => errno,
        };
        let mut error = Self::new(Step::ProbeKernel, errno, reason.cause);
        error.detail = detail;
        Some(error)
    }

    /// A BPF command failed, for [a reason](bpf_cause) that is the same for all of them, or else for `cause`.
    pub(crate) fn bpf(step: Step, errno: Errno, cause: Cause) -> Self {
        Self::new(step, errno, bpf_cause(errno, cause))
    }

    pub(crate) const fn of(mut self, target: Target, opts: &KprobeOpts) -> Self {
        self.target = Some(target);
        self.offset = opts.offset;
        self
    }

    pub(crate) const fn at(mut self, step: Step) -> Self {
        self.step = step;
        self
    }
}

/// Errnos that mean the same wherever they come up.
pub(crate) const fn out_of(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::MFILE | Errno::NFILE => Some(Cause::OutOfFds),
        Errno::NOMEM => Some(Cause::OutOfMemory),
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

/// What an errno means for the place of a probe, whether the kprobe PMU or `kprobe_events` answered it.
pub(crate) fn place_cause(errno: Errno, target: &Target, opts: &KprobeOpts) -> Option<Cause> {
    let is_address = target.as_address().is_some();
    Some(match errno {
        Errno::NOENT if is_address => Cause::BadAddress,
        Errno::NOENT if target.module().is_some() => Cause::ModuleNotLoaded,
        Errno::NOENT => Cause::NoSuchFunction,
        Errno::ADDRNOTAVAIL => Cause::NotUnique,
        Errno::ILSEQ => Cause::NotInstructionBoundary,
        // A function's entry is an entry; of an address the kernel says no more than that it will not do.
        Errno::INVAL if is_address && opts.retprobe => Cause::NotFunctionEntry,
        Errno::INVAL | Errno::OPNOTSUPP => Cause::NotProbeable,
        errno => return out_of(errno),
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            write!(f, "{target}")?;
            if self.offset != 0 {
                write!(f, "+{:#x}", self.offset)?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}: {}: ", self.step, ErrnoName(self.errno))?;
        match self.detail {
            Detail::Plain => f.write_str(match (self.step, self.errno) {
                (Step::OpenProgram, Errno::NOENT) => {
                    "there is no such pin, or no program of this id"
                }
                (Step::OpenProgram, Errno::ACCESS) => "the mode of the pin, or of a directory above it, keeps it closed; or it is itself a directory",
                (Step::OpenProgram, Errno::PERM) if self.cause == Cause::NoPermission => "not permitted: an id takes CAP_SYS_ADMIN; a pin takes CAP_BPF where unprivileged BPF is off",
                (Step::OpenProgram, Errno::INVAL) => "not a pin of what can be attached here: a kprobe program, or a link to a kprobe",
                (Step::Pin, Errno::NOENT) => "the directory to pin into is not there",
                _ => self.cause.meaning(),
            }),
            Detail::Invalid(invalid) => invalid.fmt(f),
            Detail::Unmet(mode, need) => {
                write!(f, "mode {mode} needs {need}: {}", self.cause.meaning())
            }
            Detail::Untold(mode, need) => write!(
                f,
                "mode {mode} needs {need}, and the probe for that could not tell: {}",
                self.cause.meaning()
            ),
        }
    }
}

impl core::error::Error for Error {}

/// An errno for people and scripts: its `Display` is the name, such as `ENOENT`, or for one that is not in use on kprobes
/// `errno` and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoName(pub Errno);

impl fmt::Display for ErrnoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0.raw_os_error()),
        }
    }
}

const fn errno_name(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::TOOBIG => "E2BIG",
        Errno::ACCESS => "EACCES",
        Errno::ADDRNOTAVAIL => "EADDRNOTAVAIL",
        Errno::AGAIN => "EAGAIN",
        Errno::BADF => "EBADF",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::FAULT => "EFAULT",
        Errno::FBIG => "EFBIG",
        Errno::ILSEQ => "EILSEQ",
        Errno::INTR => "EINTR",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::LOOP => "ELOOP",
        Errno::MFILE => "EMFILE",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NFILE => "ENFILE",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::NOEXEC => "ENOEXEC",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTDIR => "ENOTDIR",
        Errno::NOTTY => "ENOTTY",
        Errno::NXIO => "ENXIO",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::OVERFLOW => "EOVERFLOW",
        Errno::PERM => "EPERM",
        Errno::PIPE => "EPIPE",
        Errno::PROTO => "EPROTO",
        Errno::RANGE => "ERANGE",
        Errno::ROFS => "EROFS",
        Errno::SRCH => "ESRCH",
        Errno::TXTBSY => "ETXTBSY",
        Errno::XDEV => "EXDEV",
        _ => return None,
    })
}
