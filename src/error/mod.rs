//! What can fail, at which step, and with which errno.

pub(crate) mod cause;

use core::fmt;

use rustix::io::Errno;

use crate::error::cause::{Cause, bpf_cause};
use crate::kernel::Support;
use crate::plan::Need;
use crate::request::invalid::Invalid;
use crate::request::target::{AttachMode, KprobeOpts, Target};
use crate::text::{line, texts};

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
    texts! {
        /// The name that scripts may rely on, such as `perf_event_open` or `create-event`.
        #[must_use]
        pub fn name(Step) {
            Request => "request",
            ProbeKernel => "probe-kernel",
            ResolveSymbol => "resolve-symbol",
            LoadProgram => "load-program",
            OpenProgram => "open-program",
            PerfEventOpen => "perf_event_open",
            LinkCreate => "link-create",
            SetBpf => "set-bpf",
            CreateEvent => "create-event",
            ReadEventId => "read-event-id",
            RemoveEvent => "remove-event",
            Pin => "pin",
            LinkInfo => "link-info",
            Map => "map",
        }
    }
}

impl fmt::Display for Step {
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
    failure: Failure,
    target: Option<Target>,
    offset: u64,
}

/// An [`Error`] without the target, which may have a name of 511 bytes: this is what functions pass on to each other.
///
/// The first byte is the one that a `Result` is told by, which is the cheapest to look at in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Failure {
    detail: Detail,
    step: Step,
    errno: Errno,
    cause: Cause,
}

impl Error {
    /// The step that failed.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.failure.step
    }

    /// The errno: the kernel's, or libbpf's for what is refused before the kernel is asked (`EINVAL`, and `EOPNOTSUPP` for
    /// what a mode cannot do). Where a probe could not tell, it is the one that hid the answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.failure.errno
    }

    /// What the errno means at this step.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.failure.cause
    }

    /// The function or address that was to be probed, where one is concerned.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }
}

impl From<Failure> for Error {
    // It fills half a kilobyte: once, and not wherever an error is returned.
    #[inline(never)]
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            target: None,
            offset: 0,
        }
    }
}

impl Failure {
    pub(crate) const fn new(step: Step, errno: Errno, cause: Cause) -> Self {
        Self {
            step,
            errno,
            cause,
            detail: Detail::Plain,
        }
    }

    /// The request breaks a rule.
    pub(crate) const fn invalid(invalid: Invalid) -> Self {
        Self {
            step: Step::Request,
            errno: invalid.errno(),
            cause: Cause::InvalidRequest,
            detail: Detail::Invalid(invalid),
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
        Some(Self {
            detail,
            ..Self::new(Step::ProbeKernel, errno, reason.cause)
        })
    }

    /// A BPF command failed, for [a reason](bpf_cause) that is the same for all of them, or else for `cause`.
    pub(crate) fn bpf(step: Step, errno: Errno, cause: Cause) -> Self {
        Self::new(step, errno, bpf_cause(errno, cause))
    }

    /// The error of a probe.
    pub(crate) const fn of(self, target: &Target, opts: &KprobeOpts) -> Error {
        Error {
            failure: self,
            target: Some(*target),
            offset: opts.offset,
        }
    }

    pub(crate) const fn step(self) -> Step {
        self.step
    }

    pub(crate) const fn errno(self) -> Errno {
        self.errno
    }

    pub(crate) const fn cause(self) -> Cause {
        self.cause
    }

    pub(crate) const fn with_cause(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    pub(crate) const fn at(self, step: Step) -> Self {
        Self { step, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            target.fmt(f)?;
            if self.offset != 0 {
                write!(f, "+{:#x}", self.offset)?;
            }
            f.write_str(": ")?;
        }
        let Failure {
            step,
            errno,
            cause,
            detail,
        } = self.failure;
        write!(f, "{step}: {}: ", ErrnoName(errno))?;
        match detail {
            Detail::Plain => f.write_str(match (step, errno) {
                (Step::OpenProgram, Errno::NOENT) => {
                    "there is no such pin, or no program of this id"
                }
                (Step::OpenProgram, Errno::ACCESS) => "the mode of the pin, or of a directory above it, keeps it closed; or it is itself a directory",
                (Step::OpenProgram, Errno::PERM) if cause == Cause::NoPermission => "not permitted: an id takes CAP_SYS_ADMIN; a pin takes CAP_BPF where unprivileged BPF is off",
                (Step::OpenProgram, Errno::INVAL) => "not a pin of what can be attached here: a kprobe program, or a link to a kprobe",
                (Step::ResolveSymbol, Errno::NODATA) => "the kernel does not show where the function ends",
                (Step::Pin, Errno::NOENT) => "the directory to pin into is not there",
                _ => cause.meaning(),
            }),
            Detail::Invalid(invalid) => invalid.fmt(f),
            Detail::Unmet(mode, need) | Detail::Untold(mode, need) => {
                write!(f, "mode {mode} needs {need}")?;
                if matches!(detail, Detail::Untold(..)) {
                    f.write_str(", and the probe for that could not tell")?;
                }
                f.write_str(": ")?;
                f.write_str(cause.meaning())
            }
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
            None => write!(f, "errno {}", self.0.raw_os_error().unsigned_abs()),
        }
    }
}

fn errno_name(errno: Errno) -> Option<&'static str> {
    let at = NAMED_ERRNOS.iter().position(|named| *named == errno)?;
    Some(line(ERRNO_NAMES, at))
}

/// Lists errnos with their names, which are one text: a table of them would be larger than they are.
macro_rules! errno_names {
    ($($errno:ident $name:literal,)*) => {
        const NAMED_ERRNOS: &[Errno] = &[$(Errno::$errno,)*];
        const ERRNO_NAMES: &str = concat!($($name, "\n",)*);
    };
}

errno_names! {
    TOOBIG "E2BIG",
    ACCESS "EACCES",
    ADDRNOTAVAIL "EADDRNOTAVAIL",
    AGAIN "EAGAIN",
    BADF "EBADF",
    BUSY "EBUSY",
    EXIST "EEXIST",
    FAULT "EFAULT",
    FBIG "EFBIG",
    ILSEQ "EILSEQ",
    INTR "EINTR",
    INVAL "EINVAL",
    IO "EIO",
    ISDIR "EISDIR",
    LOOP "ELOOP",
    MFILE "EMFILE",
    NAMETOOLONG "ENAMETOOLONG",
    NFILE "ENFILE",
    NODATA "ENODATA",
    NODEV "ENODEV",
    NOENT "ENOENT",
    NOEXEC "ENOEXEC",
    NOMEM "ENOMEM",
    NOSPC "ENOSPC",
    NOSYS "ENOSYS",
    NOTDIR "ENOTDIR",
    NOTTY "ENOTTY",
    NXIO "ENXIO",
    OPNOTSUPP "EOPNOTSUPP",
    OVERFLOW "EOVERFLOW",
    PERM "EPERM",
    PIPE "EPIPE",
    PROTO "EPROTO",
    RANGE "ERANGE",
    ROFS "EROFS",
    SRCH "ESRCH",
    TXTBSY "ETXTBSY",
    XDEV "EXDEV",
}
