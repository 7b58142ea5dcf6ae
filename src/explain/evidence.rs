//! The evidence that `explain` finds, and its texts.

use core::ffi::CStr;
use core::fmt::{self, Write};

use rustix::io::Errno;

use crate::error::ErrnoName;
use crate::numbers::{Decimal, Hex};
use crate::request::Target;
use crate::symbols::{BLACKLIST, FILTER, KALLSYMS};
use crate::text::{texts, utf8};

/// Represents a fact that was found about a probe, or a question that is still open.
///
/// Its `Display` is one line, which begins with the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence<'a> {
    /// The function that has the name, and its address. The address is 0 if the kernel hides
    /// addresses.
    ///
    /// If several functions have the name, it is the first of them. A kernel that accepts the name
    /// takes that one.
    Function(Target<'a>, u64),
    /// This many functions have the name.
    Functions(usize),
    /// The compiler moved the rest of the function into this part. Callers that the head of the
    /// function is inlined into run the part alone, and do not hit a probe of the function.
    Part(Target<'a>),
    /// No function has the name.
    NoFunction,
    /// The name is that of data, with this type as in [`nm(1)`].
    ///
    /// [`nm(1)`]: https://man7.org/linux/man-pages/man1/nm.1.html
    Data(u8),
    /// The function is not in the requested place, but is this one.
    Elsewhere(Target<'a>),
    /// The module is loaded or built in, or it is not.
    Module {
        /// Whether it is loaded or built in.
        loaded: bool,
    },
    /// The function is boot code, which the kernel has freed.
    InitCode,
    /// The address is in this function, at this many bytes from its start.
    AddressIn(Target<'a>, u64),
    /// The offset is beyond the end of the function. It leads into this function, at this many
    /// bytes from its start.
    OffsetIn(Target<'a>, u64),
    /// No function is at the address, or at the place to which the offset leads.
    NoFunctionThere,
    /// The kernel protects the function from probes.
    Blacklisted,
    /// ftrace cannot trace the function. A kernel refuses a probe of such a function, unless it was
    /// built with `CONFIG_KPROBE_EVENTS_ON_NOTRACE`.
    NotTraceable,
    /// The kernel also refuses the entry of a function that can certainly be probed.
    EveryEntryRefused,
    /// The event would wait for a module, and be armed when the module is loaded.
    Waits,
    /// The event would be defined, and would never be hit.
    NeverHit,
    /// This process may not load a program, for lack of a capability. It can attach a program that
    /// another process has loaded and handed over.
    ///
    /// In a link mode that takes perf links, of which only such a program can ask the kernel.
    MayNotLoad(Errno),
    /// All kprobes of the system are disarmed. The probe would attach, and would not be hit.
    Disarmed,
    /// ftrace is off. A probe of a function's entry would attach, and would not be hit.
    ///
    /// Such a probe was not tried. To attach and detach it while ftrace is off harms the kernel
    /// (seen on Linux 5.10 to 6.12).
    FtraceOff,
    /// The level of `kernel.perf_event_paranoid`.
    Paranoid(i32),
    /// The effective capabilities that matter for an attach.
    Capabilities {
        /// `CAP_BPF`
        bpf: bool,
        /// `CAP_PERFMON`
        perfmon: bool,
        /// `CAP_SYS_ADMIN`
        sys_admin: bool,
    },
    /// A seccomp filter is installed, or it is not.
    Seccomp {
        /// Whether a filter is installed.
        filter: bool,
    },
    /// The kernel is locked down to `confidentiality`, or it is not.
    Lockdown {
        /// Whether it is locked down to that level.
        confidentiality: bool,
    },
    /// A question that could not be answered.
    Open(Question, Errno),
}

/// Names a question to the kernel, by the source of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// `/proc/kallsyms`: which functions have the name, and where are they?
    Symbols,
    /// `/proc/kallsyms`: which function is at the address?
    Place,
    /// `kprobes/blacklist` in debugfs: does the kernel protect the function?
    Blacklist,
    /// `available_filter_functions` in tracefs: can ftrace trace the function?
    Traceable,
    /// `kprobes/enabled` in debugfs: are kprobes armed?
    Armed,
    /// `/proc/sys/kernel/ftrace_enabled`: is ftrace on?
    Ftrace,
    /// `/proc/sys/kernel/perf_event_paranoid`: what is the level?
    Paranoid,
    /// [`capget(2)`]: which capabilities does this thread have?
    ///
    /// [`capget(2)`]: https://man7.org/linux/man-pages/man2/capget.2.html
    Capabilities,
    /// [`prctl(2)`]: is a seccomp filter installed?
    ///
    /// [`prctl(2)`]: https://man7.org/linux/man-pages/man2/prctl.2.html
    Seccomp,
    /// `/sys/kernel/security/lockdown`: is the kernel locked down?
    Lockdown,
}

impl Evidence<'_> {
    /// Returns whether it is a warning about a probe that would attach. Such a probe would be hit
    /// by another function, or by none, or not every program can be attached to it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Functions(_)
                | Self::Part(_)
                | Self::OffsetIn(..)
                | Self::Waits
                | Self::NeverHit
                | Self::MayNotLoad(_)
                | Self::Disarmed
                | Self::FtraceOff
        )
    }
}

impl Question {
    /// Returns the source of the answer.
    const fn source(self) -> &'static CStr {
        match self {
            Self::Symbols | Self::Place => KALLSYMS,
            Self::Blacklist => BLACKLIST,
            Self::Traceable => FILTER,
            Self::Armed => ARMED,
            Self::Ftrace => FTRACE,
            Self::Paranoid => PARANOID,
            Self::Capabilities => CAPABILITIES,
            Self::Seccomp => SECCOMP,
            Self::Lockdown => LOCKDOWN,
        }
    }

    texts! {
        /// Returns the question.
        fn asked(Question) {
            Symbols => "which functions have the name",
            Place => "which function is there",
            Blacklist => "whether the kernel protects the function",
            Traceable => "whether the function can be traced",
            Armed => "whether kprobes are armed",
            Ftrace => "whether ftrace is on",
            Paranoid => "what the level is",
            Capabilities => "which capabilities this thread has",
            Seccomp => "whether a filter is installed",
            Lockdown => "whether the kernel is locked down",
        }
    }
}

pub(super) const ARMED: &CStr = c"/sys/kernel/debug/kprobes/enabled";
pub(super) const FTRACE: &CStr = c"/proc/sys/kernel/ftrace_enabled";
pub(super) const PARANOID: &CStr = c"/proc/sys/kernel/perf_event_paranoid";
const CAPABILITIES: &CStr = c"capget(2)";
const SECCOMP: &CStr = c"prctl(2)";
pub(super) const LOCKDOWN: &CStr = c"/sys/kernel/security/lockdown";
const TRIAL: &CStr = c"trial";
const LOAD: &CStr = c"bpf(2)";

impl Evidence<'_> {
    /// Returns the source of the evidence.
    const fn source(&self) -> &'static CStr {
        match self {
            Self::Function(..)
            | Self::Functions(_)
            | Self::Part(_)
            | Self::NoFunction
            | Self::Data(_)
            | Self::Elsewhere(_)
            | Self::Module { .. }
            | Self::InitCode
            | Self::AddressIn(..)
            | Self::OffsetIn(..)
            | Self::NoFunctionThere => KALLSYMS,
            Self::Blacklisted => BLACKLIST,
            Self::NotTraceable => FILTER,
            Self::EveryEntryRefused | Self::Waits | Self::NeverHit => TRIAL,
            Self::MayNotLoad(_) => LOAD,
            Self::Disarmed => ARMED,
            Self::FtraceOff => FTRACE,
            Self::Paranoid(_) => PARANOID,
            Self::Capabilities { .. } => CAPABILITIES,
            Self::Seccomp { .. } => SECCOMP,
            Self::Lockdown { .. } => LOCKDOWN,
            Self::Open(question, _) => question.source(),
        }
    }
}

impl fmt::Display for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(utf8(self.source().to_bytes()).unwrap_or_default())?;
        f.write_str(": ")?;
        let text = match self {
            Self::Function(function, 0) => {
                return write!(
                    f,
                    "{function}; its address is hidden (kernel.kptr_restrict)"
                );
            }
            Self::Function(function, at) => {
                return write!(f, "{function} is at {}", Hex(*at));
            }
            Self::Part(part) => {
                return write!(
                    f,
                    "callers may have its head inlined, and run only the rest, {part}"
                );
            }
            Self::Functions(count) => {
                return write!(f, "{} functions of this name", Decimal(*count as u64));
            }
            Self::NoFunction => "no function of this name",
            Self::Data(kind) => {
                f.write_str("the name is data (type ")?;
                f.write_char(char::from(*kind))?;
                "), not a function"
            }
            Self::Elsewhere(function) => {
                return write!(f, "the function is elsewhere: {function}");
            }
            Self::Module { loaded: true } => "the module is loaded, or built in",
            Self::Module { loaded: false } => "the module is not loaded",
            Self::InitCode => "init code, which was freed after boot",
            Self::AddressIn(function, offset) => {
                return write!(f, "the address is {function}+{}", Hex(*offset));
            }
            Self::OffsetIn(function, offset) => {
                return write!(
                    f,
                    "the offset is beyond the function, and leads to {function}+{}",
                    Hex(*offset)
                );
            }
            Self::NoFunctionThere => "no function is there",
            Self::Blacklisted => "the kernel protects the function",
            Self::NotTraceable => {
                "not listed, so it is notrace, which most kernels refuse to probe"
            }
            Self::EveryEntryRefused => {
                "this kernel refuses every function's entry (riscv64 from about 6.9 until 6.19)"
            }
            Self::Waits => "accepted, and armed when the module is loaded",
            Self::NeverHit => "accepted, but never hit: no function is there",
            Self::MayNotLoad(errno) => {
                return write!(
                    f,
                    "{}; only a program that another process loads can be attached",
                    ErrnoName(*errno)
                );
            }
            Self::Disarmed => "0, so no kprobe of the system is hit",
            Self::FtraceOff => "0, so no probe of a function's entry is hit; explain tries none",
            Self::Paranoid(level) => {
                f.write_str(if *level < 0 { "-" } else { "" })?;
                return Decimal(level.unsigned_abs().into()).fmt(f);
            }
            Self::Capabilities {
                bpf,
                perfmon,
                sys_admin,
            } => {
                let has = |has: bool| if has { "yes" } else { "no" };
                let (bpf, perfmon, sys_admin) = (has(*bpf), has(*perfmon), has(*sys_admin));
                return write!(
                    f,
                    "CAP_BPF {bpf}, CAP_PERFMON {perfmon}, CAP_SYS_ADMIN {sys_admin}"
                );
            }
            Self::Seccomp { filter: true } => "a seccomp filter is installed",
            Self::Seccomp { filter: false } => "no seccomp filter",
            Self::Lockdown {
                confidentiality: true,
            } => "confidentiality",
            Self::Lockdown {
                confidentiality: false,
            } => "not confidentiality",
            Self::Open(question, errno) => {
                let hidden = *question == Question::Place && *errno == Errno::PERM;
                let (errno, asked) = (ErrnoName(*errno), question.asked());
                write!(f, "{errno}; unknown {asked}")?;
                if hidden {
                    "; see kernel.kptr_restrict"
                } else {
                    ""
                }
            }
        };
        f.write_str(text)
    }
}
