//! The plan: a [`Plan`] is made from a request and a kernel's answers. It holds the arguments of
//! every system call before the first one is made.

pub(crate) mod group;
mod multi;
mod select;
mod syscall;

use core::fmt;

use rustix::fd::BorrowedFd;

use crate::error::{Error, Step};
use crate::kernel::Kernel;
use crate::mount::FILES;
use crate::request::{AttachMode, Invalid, KprobeOpts, Target};
use crate::tracefs::{Definition, EventName};
use select::select;

pub use multi::MultiPlan;
pub(crate) use multi::about;
pub use syscall::Syscall;

/// `PERF_TYPE_TRACEPOINT`
pub(crate) const PERF_TYPE_TRACEPOINT: u32 = 2;

/// Holds the decision how to attach, as the system calls that carry it out.
///
/// [`steps`](Self::steps) lists them. The `Display` prints one to a line, in the format of
/// [`strace(1)`].
///
/// [`strace(1)`]: https://man7.org/linux/man-pages/man1/strace.1.html
///
/// ```
/// # use kprobe_attach::{AttachMode, Kernel, KprobeOpts, Target, kernel::Features};
/// let kernel = Kernel::with_features(Features::everything());
/// let plan = kernel.plan(Target::symbol("vfs_read")?, &KprobeOpts::new().bpf_cookie(7))?;
/// assert_eq!(plan.mode(), AttachMode::Link);
/// assert_eq!(plan.to_string(), concat!(
///     r#"perf_event_open({type=8, size=72, config=0, disabled=1, config1="vfs_read", "#,
///     "config2=0}, -1, 0, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd\n",
///     "bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=perf_fd, ",
///     "attach_type=BPF_PERF_EVENT, flags=0, perf_event={bpf_cookie=7}}}, 24) = link_fd\n",
///     "close(perf_fd) = 0",
/// ));
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) target: Target<'a>,
    pub(crate) opts: KprobeOpts,
    pub(crate) cpu: u32,
    mode: AttachMode,
    pub(crate) event: Event,
    pub(crate) bind: Bind,
}

static_assertions::const_assert!(size_of::<Plan<'_>>() <= 256);

/// The source of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kprobe PMU, with this type and config.
    Pmu { r#type: u32, config: u64 },
    /// A definition in tracefs, with this name.
    Tracefs(EventName),
}

/// The way in which the program is bound to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    Link { bpf_cookie: u64 },
    Ioctl,
}

impl Kernel {
    /// Decides how to attach a program, and with which system calls. It makes none of them.
    ///
    /// It asks the kernel only the questions that the decision needs. The table of [`AttachMode`]
    /// lists what each mode and option needs.
    ///
    /// # Errors
    ///
    /// Returns an error with one of these steps:
    ///
    /// * [`Step::Request`] if the request contradicts itself or its mode. A target that has not
    ///   been [resolved](Target::is_resolved) is [`Invalid::Unresolved`].
    /// * [`Step::ProbeKernel`] if this kernel does not support the request. A maxactive before
    ///   Linux 4.12 is [`Invalid::MaxactiveOnKernel`].
    pub fn plan<'a>(&'a self, func: Target<'a>, opts: &KprobeOpts) -> Result<Plan<'a>, Error> {
        Plan::new(self, func, opts, None)
    }
}

impl<'a> Plan<'a> {
    /// Makes the plan. If `prog` is given, the probe for perf links uses it.
    pub(crate) fn new(
        kernel: &'a Kernel,
        target: Target<'a>,
        opts: &KprobeOpts,
        prog: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let mode = match select(kernel, &target, opts, prog) {
            Ok(mode) => mode,
            Err(mut error) => {
                error.name(&target, opts);
                return Err(error);
            }
        };
        let event = if FILES && mode.uses_tracefs() {
            Event::Tracefs(EventName::new(kernel.group(), kernel.next_event()))
        } else {
            let pmu = kernel.pmu();
            let bit = pmu.retprobe_bit.filter(|_| opts.retprobe);
            Event::Pmu {
                r#type: pmu.r#type,
                config: bit.map_or(0, |bit| 1 << (bit & 63)),
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
            cpu: kernel.cpu(),
            mode,
            event,
            bind,
        })
    }

    /// Returns the mode that was chosen.
    #[must_use]
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Returns the definition of an event of this plan.
    pub(crate) const fn definition(&self, name: EventName) -> Definition<'a> {
        Definition {
            name,
            target: self.target,
            opts: self.opts,
        }
    }

    /// Lists the system calls that attach, in order.
    pub fn steps(&self) -> impl Iterator<Item = Syscall<'_>> {
        (0..).map_while(|index| self.step(index))
    }

    fn step(&self, index: usize) -> Option<Syscall<'_>> {
        let cpu = self.cpu;
        let (before, open) = match &self.event {
            Event::Pmu { r#type, config } => (
                0,
                Syscall::PerfEventOpenKprobe {
                    r#type: *r#type,
                    config: *config,
                    target: self.target,
                    offset: self.opts.offset,
                    cpu,
                },
            ),
            Event::Tracefs(event) => match index {
                0 => return Some(Syscall::OpenKprobeEvents),
                1 => return Some(Syscall::LockOwnerByte(*event)),
                2 => return Some(Syscall::LookForEvent(*event)),
                3 => return Some(Syscall::WriteDefinition(self.definition(*event))),
                4 => return Some(Syscall::OpenId(*event)),
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

    /// Lists the system calls that detach, in order.
    pub fn detach_steps(&self) -> impl Iterator<Item = Syscall<'_>> {
        (0..).map_while(|index| self.detach_step(index))
    }

    fn detach_step(&self, index: usize) -> Option<Syscall<'_>> {
        match (index, self.bind, &self.event) {
            (0, Bind::Link { .. }, _) => Some(Syscall::CloseLink),
            (0, Bind::Ioctl, _) => Some(Syscall::ClosePerfEvent),
            (1, _, Event::Tracefs(event)) => Some(Syscall::WriteRemoval(*event)),
            (2, _, Event::Tracefs(_)) => Some(Syscall::CloseKprobeEvents),
            _ => None,
        }
    }

    /// Checks that the link of this plan can be [pinned](crate::KprobeLink::pin).
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Pin`] if the mode has no link, or a link that cannot
    /// be pinned.
    pub fn can_pin(&self) -> Result<(), Error> {
        check_pin(self.mode).map_err(|error| error.about(&self.target, &self.opts))
    }
}

/// Checks that a link of this mode can be pinned.
pub(crate) const fn check_pin(mode: AttachMode) -> Result<(), Error> {
    let invalid = match mode {
        AttachMode::Link => return Ok(()),
        AttachMode::LegacyLink => Invalid::PinOfTraceEvent,
        AttachMode::Perf | AttachMode::Legacy => Invalid::PinWithoutLink,
    };
    Err(Error::invalid(invalid).at(Step::Pin))
}

impl fmt::Display for Plan<'_> {
    /// Writes the system calls that attach, one to a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{step}")?;
        }
        Ok(())
    }
}
