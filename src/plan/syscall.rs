//! The system calls of a plan, as data that can be printed.

use core::fmt;

use crate::request::Target;
use crate::sys::PERF_EVENT_ATTR_SIZE;
use crate::tracefs::{Definition, EventName, EventPath, ID_LEN, IdPath, Removal};

/// One system call of a plan. What only the calls before it will tell (a file descriptor, an
/// event's id) it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Syscall<'p> {
    /// Opens `kprobe_events` for appending.
    OpenKprobeEvents,
    /// Locks the byte of `kprobe_events` that stands for the event, which tells
    /// [`sweep`](crate::tracefs::sweep()) that it has an owner.
    LockOwnerByte(EventName),
    /// Looks whether an event has the name already, which none should.
    LookForEvent(EventName),
    /// Writes the line that defines the event.
    WriteDefinition(Definition<'p>),
    /// Opens the file with the event's id.
    OpenId(EventName),
    /// Reads the id.
    ReadId,
    /// Closes the file.
    CloseId,
    /// Opens an event of the kprobe PMU.
    PerfEventOpenKprobe {
        /// The PMU's type.
        r#type: u32,
        /// 0, or the retprobe bit.
        config: u64,
        /// `config1`, or for an address `config2`.
        target: Target<'p>,
        /// `config2` of a function.
        offset: u64,
        /// The CPU.
        cpu: u32,
    },
    /// Opens the event that was defined in tracefs.
    PerfEventOpenTracepoint {
        /// The CPU.
        cpu: u32,
    },
    /// Binds the program by a link, which holds the event.
    LinkCreate {
        /// The cookie.
        bpf_cookie: u64,
    },
    /// Binds the program by ioctl.
    SetBpf,
    /// Closes the perf event: the link holds it too, or else this detaches.
    ClosePerfEvent,
    /// Closes the link, which detaches.
    CloseLink,
    /// Writes the line that removes the event.
    WriteRemoval(EventName),
    /// Closes `kprobe_events`.
    CloseKprobeEvents,
}

/// Such machines have other calls where files may be large, and times late.
const IS_32_BIT: bool = cfg!(target_pointer_width = "32");

impl fmt::Display for Syscall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Numbers of one width are printed by one piece of code.
        let size = u64::from(PERF_EVENT_ATTR_SIZE);
        match self {
            Self::OpenKprobeEvents => f.write_str(
                r#"openat(tracefs_fd, "kprobe_events", O_WRONLY|O_APPEND|O_LARGEFILE|O_CLOEXEC) = events_fd"#,
            ),
            Self::LockOwnerByte(name) => write!(
                f,
                "{}(events_fd, F_OFD_SETLK, {{l_type=F_WRLCK, l_whence=SEEK_SET, l_start={}, l_len=1}}) = 0",
                if IS_32_BIT { "fcntl64" } else { "fcntl" },
                name.owner_byte()
            ),
            Self::LookForEvent(name) => {
                let (call, arguments) = if IS_32_BIT {
                    ("statx", "0, STATX_BASIC_STATS, stat")
                } else {
                    ("newfstatat", "stat, 0")
                };
                let path = EventPath(name);
                write!(f, r#"{call}(tracefs_fd, "{path}", {arguments}) = -1 ENOENT"#)
            }
            Self::WriteDefinition(definition) => write(f, definition),
            Self::OpenId(name) => {
                let path = IdPath(name);
                write!(
                    f,
                    r#"openat(tracefs_fd, "{path}", O_RDONLY|O_LARGEFILE|O_CLOEXEC) = id_fd"#
                )
            }
            Self::ReadId => write!(f, "read(id_fd, id, {ID_LEN})"),
            Self::CloseId => f.write_str("close(id_fd) = 0"),
            Self::PerfEventOpenKprobe {
                r#type,
                config,
                target,
                offset,
                cpu,
            } => {
                let (r#type, cpu) = (u64::from(*r#type), u64::from(*cpu));
                write!(
                    f,
                    "perf_event_open({{type={type}, size={size}, config={config}, disabled=1, "
                )?;
                match target.as_address() {
                    Some(address) => write!(f, "config1=0, config2={address:#x}")?,
                    None => write!(f, r#"config1="{target}", config2={offset}"#)?,
                }
                write!(f, "}}, -1, {cpu}, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd")
            }
            Self::PerfEventOpenTracepoint { cpu } => write!(
                f,
                "perf_event_open({{type=PERF_TYPE_TRACEPOINT, size={size}, config=id, disabled=1, \
                 config1=0, config2=0}}, -1, {}, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd",
                u64::from(*cpu)
            ),
            Self::LinkCreate { bpf_cookie } => write!(
                f,
                "bpf(BPF_LINK_CREATE, {{link_create={{prog_fd=prog_fd, target_fd=perf_fd, \
                 attach_type=BPF_PERF_EVENT, flags=0, perf_event={{bpf_cookie={bpf_cookie}}}}}}}, 24) = link_fd"
            ),
            Self::SetBpf => f.write_str("ioctl(perf_fd, PERF_EVENT_IOC_SET_BPF, prog_fd) = 0"),
            Self::ClosePerfEvent => f.write_str("close(perf_fd) = 0"),
            Self::CloseLink => f.write_str("close(link_fd) = 0"),
            Self::WriteRemoval(name) => write(f, &Removal(name)),
            Self::CloseKprobeEvents => f.write_str("close(events_fd) = 0"),
        }
    }
}

/// `write(2)` of one line to `kprobe_events`.
fn write(f: &mut fmt::Formatter<'_>, line: &impl fmt::Display) -> fmt::Result {
    let mut length = Length(0);
    fmt::write(&mut length, format_args!("{line}"))?;
    let Length(length) = length;
    write!(f, r#"write(events_fd, "{line}", {length}) = {length}"#)
}

/// Counts what is written.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}
