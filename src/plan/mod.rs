//! What will be done: a [`Plan`] is made of a request and a kernel's features, and holds the arguments of every system call
//! before the first one is made.

use core::fmt;

use rustix::fd::AsFd;

use crate::error::{Error, Failure, Step};
use crate::kernel::Kernel;
use crate::link::{KprobeLink, check_pin};
use crate::mount::FILES;
use crate::request::invalid::Invalid;
use crate::request::target::{self as request, AttachMode, KprobeOpts, Target};
use crate::tracefs::event::{Definition, EventName, EventPath, ID_LEN, IdPath, Removal};

/// `PERF_TYPE_TRACEPOINT`
pub(crate) const PERF_TYPE_TRACEPOINT: u32 = 2;

/// A thing that a mode needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Features::perf_event`](crate::Features::perf_event)
    PerfEvent,
    /// [`Features::kprobe_pmu`](crate::Features::kprobe_pmu)
    KprobePmu,
    /// [`Features::retprobe_bit`](crate::Features::retprobe_bit)
    RetprobeBit,
    /// [`Features::perf_link`](crate::Features::perf_link)
    PerfLink,
    /// [`Features::tracefs`](crate::Features::tracefs)
    Tracefs,
    /// [`Features::kprobe_events`](crate::Features::kprobe_events)
    KprobeEvents,
}

impl Need {
    /// What a mode needs, in the order in which it is missed.
    pub(crate) fn of(mode: AttachMode, retprobe: bool) -> impl Iterator<Item = Self> {
        let event: &[Self] = match (mode.uses_tracefs(), retprobe) {
            (false, false) => &[Self::PerfEvent, Self::KprobePmu],
            (false, true) => &[Self::PerfEvent, Self::KprobePmu, Self::RetprobeBit],
            (true, _) => &[Self::PerfEvent, Self::Tracefs, Self::KprobeEvents],
        };
        let bound = mode.uses_link().then_some(Self::PerfLink);
        event.iter().copied().chain(bound)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfEvent => "perf_event_open(2) on all processes",
            Self::KprobePmu => "the kprobe PMU",
            Self::RetprobeBit => "a readable format/retprobe of the kprobe PMU in sysfs",
            Self::PerfLink => "BPF links to perf events",
            Self::Tracefs => "tracefs",
            Self::KprobeEvents => "kprobe_events in tracefs",
        })
    }
}

/// The decision how to attach, as the system calls that will be made: see [`steps`](Self::steps) and the `Display`, which
/// prints one to a line in the way of `strace(1)`.
///
/// ```
/// # use kprobe_attach::{AttachMode, Features, Kernel, KprobeOpts, Support, Target};
/// # let features = Features {
/// #     perf_event: Support::Yes, cpu: 0, kprobe_pmu: Support::Yes, pmu_type: 8, pmu_type_in_sysfs: Some(8),
/// #     retprobe_bit: Some(0), perf_link: Support::Yes, tracefs: Support::Yes, kprobe_events: Support::Yes,
/// #     kprobe_multi: Support::Yes, kprobe_session: Support::Yes,
/// # };
/// # let kernel = Kernel::with_features(features);
/// let plan = kernel.plan(Target::symbol("vfs_read")?, &KprobeOpts::new().bpf_cookie(7))?;
/// assert_eq!(plan.mode(), AttachMode::Link);
/// assert_eq!(plan.to_string(), r#"
/// perf_event_open({type=8, size=72, config=0, disabled=1, config1="vfs_read", config2=0}, -1, 0, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd
/// bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=perf_fd, attach_type=BPF_PERF_EVENT, flags=0, perf_event={bpf_cookie=7}}}, 24) = link_fd
/// close(perf_fd) = 0
/// "#.trim());
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan<'k> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) target: Target,
    pub(crate) opts: KprobeOpts,
    mode: AttachMode,
    pub(crate) event: Event,
    pub(crate) bind: Bind,
}

/// Where the event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kprobe PMU, with this type and config.
    Pmu { r#type: u32, config: u64 },
    /// A definition in tracefs.
    Tracefs(Definition),
}

/// What binds the program to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    Link { bpf_cookie: u64 },
    Ioctl,
}

impl<'k> Plan<'k> {
    pub(crate) fn new(
        kernel: &'k Kernel,
        target: Target,
        opts: &KprobeOpts,
    ) -> Result<Self, Failure> {
        let mode = select(kernel, &target, opts)?;
        let features = kernel.features();
        let event = if FILES && mode.uses_tracefs() {
            let name = EventName::new(kernel.group(), kernel.next_event(), &target);
            Event::Tracefs(Definition {
                name,
                target,
                opts: *opts,
            })
        } else {
            Event::Pmu {
                r#type: features.pmu_type,
                config: match features.retprobe_bit {
                    Some(bit @ 0..=63) if opts.retprobe => 1 << bit,
                    _ => 0,
                },
            }
        };
        let bind = if mode.uses_link() {
            Bind::Link {
                bpf_cookie: opts.bpf_cookie,
            }
        } else {
            Bind::Ioctl
        };
        Ok(Self {
            kernel,
            target,
            opts: *opts,
            mode,
            event,
            bind,
        })
    }

    /// The mode that was chosen.
    #[must_use]
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// The system calls of the attach, in order.
    pub fn steps(&self) -> impl Iterator<Item = Syscall<'_>> {
        (0..).map_while(|index| self.step(index))
    }

    fn step(&self, index: usize) -> Option<Syscall<'_>> {
        let cpu = self.kernel.features().cpu;
        let (before, open) = match &self.event {
            Event::Pmu { r#type, config } => (
                0,
                Syscall::PerfEventOpenKprobe {
                    r#type: *r#type,
                    config: *config,
                    target: &self.target,
                    offset: self.opts.offset,
                    cpu,
                },
            ),
            Event::Tracefs(definition) => match index {
                0 => return Some(Syscall::OpenKprobeEvents),
                1 => return Some(Syscall::LockOwnerByte(&definition.name)),
                2 => return Some(Syscall::LookForEvent(&definition.name)),
                3 => return Some(Syscall::WriteDefinition(definition)),
                4 => return Some(Syscall::OpenId(&definition.name)),
                5 => return Some(Syscall::ReadId),
                6 => return Some(Syscall::CloseId),
                _ => (7, Syscall::PerfEventOpenTracepoint { cpu }),
            },
        };
        match (index - before, self.bind) {
            (0, _) => Some(open),
            (1, Bind::Link { bpf_cookie }) => Some(Syscall::LinkCreate { bpf_cookie }),
            (2, Bind::Link { .. }) => Some(Syscall::ClosePerfEvent),
            (1, Bind::Ioctl) => Some(Syscall::SetBpf),
            _ => None,
        }
    }

    /// The system calls of the detach, in order.
    pub fn detach_steps(&self) -> impl Iterator<Item = Syscall<'_>> {
        (0..).map_while(|index| self.detach_step(index))
    }

    fn detach_step(&self, index: usize) -> Option<Syscall<'_>> {
        match (index, self.bind, &self.event) {
            (0, Bind::Link { .. }, _) => Some(Syscall::CloseLink),
            (0, Bind::Ioctl, _) => Some(Syscall::ClosePerfEvent),
            (1, _, Event::Tracefs(definition)) => Some(Syscall::WriteRemoval(&definition.name)),
            (2, _, Event::Tracefs(_)) => Some(Syscall::CloseKprobeEvents),
            _ => None,
        }
    }

    /// Whether the link of this plan can be [pinned](KprobeLink::pin).
    ///
    /// # Errors
    ///
    /// [`Step::Pin`](crate::Step::Pin): the mode has no link, or one that cannot be pinned.
    pub fn can_pin(&self) -> Result<(), Error> {
        check_pin(self.mode).map_err(|invalid| {
            Failure::invalid(invalid)
                .at(Step::Pin)
                .of(&self.target, &self.opts)
        })
    }

    /// Carries the plan out for a loaded program of type `BPF_PROG_TYPE_KPROBE`. The program runs from here on, until the
    /// link is detached or dropped.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, with the step at which it came; what the steps before had made is undone.
    pub fn attach(self, prog: impl AsFd) -> Result<KprobeLink, Error> {
        KprobeLink::attach(&self, prog.as_fd())
            .map_err(|failure| failure.of(&self.target, &self.opts))
    }
}

/// The one place that chooses: an explicit mode is checked and never replaced; else it is the first that the request and the
/// kernel leave.
fn select(kernel: &Kernel, target: &Target, opts: &KprobeOpts) -> Result<AttachMode, Failure> {
    request::check_request(target, opts).map_err(Failure::invalid)?;
    let features = kernel.features();
    let modes = match &opts.attach_mode {
        Some(mode) => core::slice::from_ref(mode),
        None => &AttachMode::ALL[..],
    };
    let mut first_unmet = None;
    for mode in modes {
        if request::check_mode(*mode, opts).is_err() {
            continue;
        }
        let Some((need, support)) = features.unmet(*mode, opts.retprobe) else {
            return Ok(*mode);
        };
        first_unmet = first_unmet.or(Failure::unmet(*mode, need, support));
    }
    // LegacyLink carries whatever a request has, so there always was one.
    Err(first_unmet.unwrap_or(Failure::invalid(Invalid::CookieWithoutLink)))
}

/// One system call of a plan. What only the calls before it will tell (a file descriptor, an event's id) it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Syscall<'p> {
    /// Opens `kprobe_events` for appending.
    OpenKprobeEvents,
    /// Locks the byte of `kprobe_events` that stands for the event, which tells [`sweep`](crate::sweep()) that it has an owner.
    LockOwnerByte(&'p EventName),
    /// Looks whether an event has the name already, which none should.
    LookForEvent(&'p EventName),
    /// Writes the line that defines the event.
    WriteDefinition(&'p Definition),
    /// Opens the file with the event's id.
    OpenId(&'p EventName),
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
        target: &'p Target,
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
    WriteRemoval(&'p EventName),
    /// Closes `kprobe_events`.
    CloseKprobeEvents,
}

/// Such machines have other calls where files may be large, and times late.
const IS_32_BIT: bool = cfg!(target_pointer_width = "32");

impl fmt::Display for Syscall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = crate::sys::PERF_EVENT_ATTR_SIZE;
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
                 config1=0, config2=0}}, -1, {cpu}, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd"
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

impl fmt::Display for Plan<'_> {
    /// The system calls of the attach, one to a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{step}")?;
        }
        Ok(())
    }
}
