//! What `explain` finds out, and how it says so.

use core::ffi::CStr;
use core::fmt::{self, Write};

use rustix::io::Errno;

use crate::error::ErrnoName;
use crate::request::Target;
use crate::symbols::{BLACKLIST, FILTER, KALLSYMS};
use crate::text::texts;

/// Something that was found out about a probe, or a question that stayed open. Its `Display` is a
/// line, the source first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence<'a> {
    /// The name stands for one function, at this address; 0 where the kernel hides addresses.
    Function(Target<'a>, u64),
    /// The name stands for so many functions.
    Functions(usize),
    /// No function has the name.
    NoFunction,
    /// The name is of data, with this type as in `nm(1)`.
    Data(u8),
    /// The function is not where it was asked for, but there.
    Elsewhere(Target<'a>),
    /// The module is loaded or built in, or is not.
    Module {
        /// Whether it is.
        loaded: bool,
    },
    /// The function is code for the boot, which the kernel has freed.
    InitCode,
    /// The address is in this function, so many bytes from its start.
    AddressIn(Target<'a>, u64),
    /// The offset is beyond the function: what would be probed is another one, so many bytes from
    /// its start.
    OffsetIn(Target<'a>, u64),
    /// No function is at the address, or where the offset leads.
    NoFunctionThere,
    /// The kernel protects the function from probes.
    Blacklisted,
    /// ftrace cannot trace the function, and what it cannot trace most kernels let nobody probe
    /// (not with `CONFIG_KPROBE_EVENTS_ON_NOTRACE`).
    NotTraceable,
    /// The kernel refuses the entry of a function that can surely be probed too.
    EveryEntryRefused,
    /// The event would wait for a module, and be armed when that is loaded.
    Waits,
    /// The event would be defined, and never be hit.
    NeverHit,
    /// All kprobes of the machine are disarmed: the probe would attach, and not be hit.
    Disarmed,
    /// ftrace is off: a probe of a function's entry would attach, and not be hit. It was not tried,
    /// since a probe that comes and goes meanwhile harms the kernel (seen on Linux 5.10 to 6.12).
    FtraceOff,
    /// The level of `kernel.perf_event_paranoid`.
    Paranoid(i32),
    /// The effective capabilities that matter.
    Capabilities {
        /// `CAP_BPF`
        bpf: bool,
        /// `CAP_PERFMON`
        perfmon: bool,
        /// `CAP_SYS_ADMIN`
        sys_admin: bool,
    },
    /// A seccomp filter is installed, or is not.
    Seccomp {
        /// Whether it is.
        filter: bool,
    },
    /// The kernel is locked down to `confidentiality`, or is not.
    Lockdown {
        /// Whether it is.
        confidentiality: bool,
    },
    /// A question that could not be answered.
    Open(Question, Errno),
}

/// A question to the kernel, named by where the answer would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// `/proc/kallsyms`: which functions have the name, and where are they?
    Symbols,
    /// `/proc/kallsyms`: which function is at the address?
    Place,
    /// `kprobes/blacklist` in debugfs: is the function protected?
    Blacklist,
    /// `available_filter_functions` in tracefs: can it be traced?
    Traceable,
    /// `kprobes/enabled` in debugfs: are kprobes armed?
    Armed,
    /// `/proc/sys/kernel/ftrace_enabled`: is ftrace on?
    Ftrace,
    /// `/proc/sys/kernel/perf_event_paranoid`: which level?
    Paranoid,
    /// `capget(2)`: which capabilities?
    Capabilities,
    /// `prctl(2)`: is there a seccomp filter?
    Seccomp,
    /// `/sys/kernel/security/lockdown`: is the kernel locked down?
    Lockdown,
}

impl Evidence<'_> {
    /// Whether a probe that would attach would not do what it seems to: it would be hit by another
    /// function, or by none.
    #[must_use]
    pub const fn is_catch(&self) -> bool {
        matches!(
            self,
            Self::Functions(_)
                | Self::OffsetIn(..)
                | Self::Waits
                | Self::NeverHit
                | Self::Disarmed
                | Self::FtraceOff
        )
    }
}

impl Question {
    /// Where the answer would be.
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
        /// What was asked.
        fn asked(Question) {
            Symbols => "which functions have the name",
            Place => "which function is there",
            Blacklist => "whether the kernel protects the function",
            Traceable => "whether the function can be traced",
            Armed => "whether kprobes are armed",
            Ftrace => "whether ftrace is on",
            Paranoid => "what the level is",
            Capabilities => "which capabilities there are",
            Seccomp => "whether there is a filter",
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

impl Evidence<'_> {
    /// Where it is from.
    const fn source(&self) -> &'static CStr {
        match self {
            Self::Function(..)
            | Self::Functions(_)
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
        f.write_str(self.source().to_str().unwrap_or_default())?;
        f.write_str(": ")?;
        let text = match self {
            Self::Function(function, 0) => {
                return write!(f, "one function, {function}; its address is hidden");
            }
            Self::Function(function, at) => {
                return write!(f, "one function, {function}, at {at:#x}");
            }
            Self::Functions(count) => return write!(f, "{count} functions of this name"),
            Self::NoFunction => "no function of this name",
            Self::Data(kind) => {
                f.write_str("the name is of data (type ")?;
                f.write_char(char::from(*kind))?;
                "), not of a function"
            }
            Self::Elsewhere(function) => {
                return write!(f, "the function is elsewhere: {function}");
            }
            Self::Module { loaded: true } => "the module is loaded, or built in",
            Self::Module { loaded: false } => "nothing of the module, so it is not loaded",
            Self::InitCode => "init code, which was freed after boot",
            Self::AddressIn(function, offset) => {
                return write!(f, "the address is {function}+{offset:#x}");
            }
            Self::OffsetIn(function, offset) => {
                return write!(
                    f,
                    "the offset is beyond the function, and leads to {function}+{offset:#x}"
                );
            }
            Self::NoFunctionThere => "no function is there",
            Self::Blacklisted => "the kernel protects the function",
            Self::NotTraceable => "not there, so it is notrace; most kernels let nobody probe that",
            Self::EveryEntryRefused => {
                "this kernel refuses every function's entry (riscv64 from about 6.9 to before 6.19)"
            }
            Self::Waits => "taken, and armed when the module is loaded",
            Self::NeverHit => "taken, but with no function there it is never hit",
            Self::Disarmed => "0, so no kprobe of the machine is hit",
            Self::FtraceOff => "0, so no probe of a function's entry is hit, and none was tried",
            Self::Paranoid(level) => {
                f.write_str(if *level < 0 { "-" } else { "" })?;
                return u64::from(level.unsigned_abs()).fmt(f);
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
                let (errno, asked) = (ErrnoName(*errno), question.asked());
                return write!(f, "{errno}; {asked} stays open");
            }
        };
        f.write_str(text)
    }
}
