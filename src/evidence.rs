//! What `explain` finds out, and how it says so.

use core::fmt;

use rustix::io::Errno;

use crate::error::ErrnoName;
use crate::request::Target;

/// Something that was found out about a probe, or a question that stayed open. Its `Display` is a line, the source first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The name stands for one function, at this address; 0 where the kernel hides addresses.
    Function(Target, u64),
    /// The name stands for so many functions.
    Functions(usize),
    /// No function has the name.
    NoFunction,
    /// The name is of data, with this type as in `nm(1)`.
    Data(u8),
    /// The function is not where it was asked for, but there.
    Elsewhere(Target),
    /// The module is loaded or built in, or is not.
    Module {
        /// Whether it is.
        loaded: bool,
    },
    /// The function is code for the boot, which the kernel has freed.
    InitCode,
    /// The address is in this function, so many bytes from its start.
    AddressIn(Target, u64),
    /// The offset is beyond the function: what would be probed is another one, so many bytes from its start.
    OffsetIn(Target, u64),
    /// No function is at the address, or where the offset leads.
    NoFunctionThere,
    /// The kernel protects the function from probes.
    Blacklisted,
    /// ftrace cannot trace the function, and what it cannot trace most kernels let nobody probe (not with
    /// `CONFIG_KPROBE_EVENTS_ON_NOTRACE`).
    NotTraceable,
    /// The kernel refuses the entry of a function that can surely be probed too.
    EveryEntryRefused,
    /// The event would wait for a module, and be armed when that is loaded.
    Waits,
    /// The event would be defined, and never be hit.
    NeverHit,
    /// All kprobes of the machine are disarmed: the probe would attach, and not be hit.
    Disarmed,
    /// ftrace is off: a probe of a function's entry would attach, and not be hit. It was not tried, since a probe that comes and
    /// goes meanwhile harms the kernel (seen on Linux 5.10 to 6.12).
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

impl Evidence {
    /// Whether a probe that would attach would not do what it seems to: it would be hit by another function, or by none.
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
    /// Where the answer would be, and what was asked.
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Symbols => (KALLSYMS, "which functions have the name"),
            Self::Place => (KALLSYMS, "which function is there"),
            Self::Blacklist => (BLACKLIST, "whether the kernel protects the function"),
            Self::Traceable => (FILTER, "whether the function can be traced"),
            Self::Armed => (ARMED, "whether kprobes are armed"),
            Self::Ftrace => (FTRACE, "whether ftrace is on"),
            Self::Paranoid => (PARANOID, "what the level is"),
            Self::Capabilities => (CAPABILITIES, "which capabilities there are"),
            Self::Seccomp => (SECCOMP, "whether there is a filter"),
            Self::Lockdown => (LOCKDOWN, "whether the kernel is locked down"),
        }
    }
}

pub(crate) const KALLSYMS: &str = "/proc/kallsyms";
pub(crate) const BLACKLIST: &str = "/sys/kernel/debug/kprobes/blacklist";
pub(crate) const FILTER: &str = "available_filter_functions";
pub(crate) const ARMED: &str = "/sys/kernel/debug/kprobes/enabled";
pub(crate) const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
pub(crate) const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const CAPABILITIES: &str = "capget(2)";
const SECCOMP: &str = "prctl(2)";
pub(crate) const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const TRIAL: &str = "trial";

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(function, 0) => write!(
                f,
                "{KALLSYMS}: one function, {function}; its address is hidden"
            ),
            Self::Function(function, at) => {
                write!(f, "{KALLSYMS}: one function, {function}, at {at:#x}")
            }
            Self::Functions(count) => write!(f, "{KALLSYMS}: {count} functions of this name"),
            Self::NoFunction => write!(f, "{KALLSYMS}: no function of this name"),
            Self::Data(kind) => write!(
                f,
                "{KALLSYMS}: the name is of data (type {}), not of a function",
                char::from(*kind)
            ),
            Self::Elsewhere(function) => {
                write!(f, "{KALLSYMS}: the function is elsewhere: {function}")
            }
            Self::Module { loaded: true } => {
                write!(f, "{KALLSYMS}: the module is loaded, or built in")
            }
            Self::Module { loaded: false } => {
                write!(f, "{KALLSYMS}: nothing of the module, so it is not loaded")
            }
            Self::InitCode => write!(f, "{KALLSYMS}: init code, which was freed after boot"),
            Self::AddressIn(function, offset) => {
                write!(f, "{KALLSYMS}: the address is {function}+{offset:#x}")
            }
            Self::OffsetIn(function, offset) => {
                write!(
                    f,
                    "{KALLSYMS}: the offset is beyond the function, and leads to {function}+{offset:#x}"
                )
            }
            Self::NoFunctionThere => write!(f, "{KALLSYMS}: no function is there"),
            Self::Blacklisted => write!(f, "{BLACKLIST}: the kernel protects the function"),
            Self::NotTraceable => write!(
                f,
                "{FILTER}: not there, so it is notrace; most kernels let nobody probe that"
            ),
            Self::EveryEntryRefused => {
                write!(
                    f,
                    "{TRIAL}: this kernel refuses every function's entry (riscv64 from about 6.9 to before 6.19)"
                )
            }
            Self::Waits => write!(f, "{TRIAL}: taken, and armed when the module is loaded"),
            Self::NeverHit => write!(
                f,
                "{TRIAL}: taken, but with no function there it is never hit"
            ),
            Self::Disarmed => write!(f, "{ARMED}: 0, so no kprobe of the machine is hit"),
            Self::FtraceOff => write!(
                f,
                "{FTRACE}: 0, so no probe of a function's entry is hit, and none was tried"
            ),
            Self::Paranoid(level) => write!(f, "{PARANOID}: {level}"),
            Self::Capabilities {
                bpf,
                perfmon,
                sys_admin,
            } => {
                let has = |has: bool| if has { "yes" } else { "no" };
                let (bpf, perfmon, sys_admin) = (has(*bpf), has(*perfmon), has(*sys_admin));
                write!(
                    f,
                    "{CAPABILITIES}: CAP_BPF {bpf}, CAP_PERFMON {perfmon}, CAP_SYS_ADMIN {sys_admin}"
                )
            }
            Self::Seccomp { filter: true } => write!(f, "{SECCOMP}: a seccomp filter is installed"),
            Self::Seccomp { filter: false } => write!(f, "{SECCOMP}: no seccomp filter"),
            Self::Lockdown {
                confidentiality: true,
            } => write!(f, "{LOCKDOWN}: confidentiality"),
            Self::Lockdown {
                confidentiality: false,
            } => write!(f, "{LOCKDOWN}: not confidentiality"),
            Self::Open(question, errno) => {
                let (source, asked) = question.text();
                write!(f, "{source}: {}; {asked} stays open", ErrnoName(*errno))
            }
        }
    }
}
