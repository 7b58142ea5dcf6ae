//! The system calls of a plan, as data that can be printed.

use core::fmt;

use crate::numbers::{Decimal, Hex};
use crate::request::Target;
use crate::sys::PERF_EVENT_ATTR_SIZE;
use crate::text::Buf;
use crate::tracefs::{Definition, EventName, EventPath, ID_LEN, IdPath, Removal, WRITTEN_LEN};

/// Describes one system call of a plan.
///
/// It lacks the values that only an earlier call returns, such as a file descriptor or an event's
/// id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Syscall<'p> {
    /// Opens `kprobe_events` for appending.
    OpenKprobeEvents,
    /// Locks the byte of `kprobe_events` that stands for the event. By the lock,
    /// [`sweep`](crate::tracefs::sweep()) sees that the event has an owner.
    LockOwnerByte(EventName),
    /// Checks that no event has this name yet.
    LookForEvent(EventName),
    /// Writes the line that defines the event.
    WriteDefinition(Definition<'p>),
    /// Opens the file that contains the event's id.
    OpenId(EventName),
    /// Reads the id.
    ReadId,
    /// Closes the file of the id.
    CloseId,
    /// Opens an event of the kprobe PMU.
    PerfEventOpenKprobe {
        /// The PMU's type.
        r#type: u32,
        /// 0, or the retprobe bit.
        config: u64,
        /// The target: `config1` is a function, and `config2` an address. It is an address if the
        /// target was resolved to one.
        target: Target<'p>,
        /// The offset from a function, which is `config2` or added to it.
        offset: u64,
        /// The CPU of the event.
        cpu: u32,
    },
    /// Opens the event that was defined in tracefs.
    PerfEventOpenTracepoint {
        /// The CPU of the event.
        cpu: u32,
    },
    /// Binds the program by a link, which then holds the event.
    LinkCreate {
        /// The cookie.
        bpf_cookie: u64,
    },
    /// Binds the program by ioctl.
    SetBpf,
    /// Closes the perf event. In the ioctl modes, this detaches the program.
    ClosePerfEvent,
    /// Closes the link, which detaches the program.
    CloseLink,
    /// Writes the line that removes the event.
    WriteRemoval(EventName),
    /// Closes `kprobe_events`.
    CloseKprobeEvents,
}

/// 32-bit machines have further system calls, for large files and for times after 2038.
const IS_32_BIT: bool = cfg!(target_pointer_width = "32");

impl fmt::Display for Syscall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = Decimal(PERF_EVENT_ATTR_SIZE.into());
        match self {
            Self::OpenKprobeEvents => f.write_str(
                "openat(tracefs_fd, \"kprobe_events\", \
                 O_WRONLY|O_NOCTTY|O_APPEND|O_NONBLOCK|O_LARGEFILE|O_CLOEXEC) = events_fd",
            ),
            Self::LockOwnerByte(name) => write!(
                f,
                "{}(events_fd, F_OFD_SETLK, {{l_type=F_WRLCK, l_whence=SEEK_SET, l_start={}, \
                 l_len=1}}) = 0",
                if IS_32_BIT { "fcntl64" } else { "fcntl" },
                Decimal(name.owner_byte())
            ),
            Self::LookForEvent(name) => {
                let (call, arguments) = if IS_32_BIT {
                    ("statx", "0, STATX_BASIC_STATS, stat")
                } else {
                    ("newfstatat", "stat, 0")
                };
                let path = EventPath(name);
                write!(
                    f,
                    r#"{call}(tracefs_fd, "{path}", {arguments}) = -1 ENOENT"#
                )
            }
            Self::WriteDefinition(definition) => write(f, &|line| definition.put(line)),
            Self::OpenId(name) => {
                let path = IdPath(name);
                write!(
                    f,
                    "openat(tracefs_fd, \"{path}\", \
                     O_RDONLY|O_NOCTTY|O_NONBLOCK|O_LARGEFILE|O_CLOEXEC) = id_fd"
                )
            }
            Self::ReadId => write!(f, "read(id_fd, id, {})", Decimal(ID_LEN as u64)),
            Self::CloseId => f.write_str("close(id_fd) = 0"),
            Self::PerfEventOpenKprobe {
                r#type,
                config,
                target,
                offset,
                cpu,
            } => {
                let (r#type, config) = (Decimal((*r#type).into()), Decimal(*config));
                let cpu = Decimal((*cpu).into());
                write!(
                    f,
                    "perf_event_open({{type={type}, size={size}, config={config}, disabled=1, "
                )?;
                match target.known_address() {
                    Some(address) => write!(f, "config1=0, config2={}", Hex(address + offset))?,
                    None => write!(f, r#"config1="{target}", config2={}"#, Decimal(*offset))?,
                }
                write!(f, "}}, -1, {cpu}, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd")
            }
            Self::PerfEventOpenTracepoint { cpu } => write!(
                f,
                "perf_event_open({{type=PERF_TYPE_TRACEPOINT, size={size}, config=id, disabled=1, \
                 config1=0, config2=0}}, -1, {}, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd",
                Decimal((*cpu).into())
            ),
            Self::LinkCreate { bpf_cookie } => write!(
                f,
                "bpf(BPF_LINK_CREATE, {{link_create={{prog_fd=prog_fd, target_fd=perf_fd, \
                 attach_type=BPF_PERF_EVENT, flags=0, perf_event={{bpf_cookie={}}}}}}}, 24) \
                 = link_fd",
                Decimal(*bpf_cookie)
            ),
            Self::SetBpf => f.write_str("ioctl(perf_fd, PERF_EVENT_IOC_SET_BPF, prog_fd) = 0"),
            Self::ClosePerfEvent => f.write_str("close(perf_fd) = 0"),
            Self::CloseLink => f.write_str("close(link_fd) = 0"),
            Self::WriteRemoval(name) => write(f, &|line| Removal(name).put(line)),
            Self::CloseKprobeEvents => f.write_str("close(events_fd) = 0"),
        }
    }
}

/// Prints a `write(2)` of one line to `kprobe_events`.
fn write(
    f: &mut fmt::Formatter<'_>,
    put: &dyn Fn(&mut Buf<WRITTEN_LEN>) -> fmt::Result,
) -> fmt::Result {
    let mut line = Buf::new();
    put(&mut line)?;
    let (line, length) = (line.as_str(), Decimal(line.as_str().len() as u64));
    write!(f, r#"write(events_fd, "{line}", {length}) = {length}"#)
}
