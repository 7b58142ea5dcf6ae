//! The plan carried out: a [`KprobeLink`] is a program attached, and detaches it when dropped.

mod info;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::bpf::{obj_get, pin, pin_at};
use crate::diagnose::{attach_error, bpf_error};
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::mount::{FILES, Mount, NO_FILES};
use crate::plan::{Bind, Event, PERF_TYPE_TRACEPOINT, Plan, check_pin};
use crate::request::{AttachMode, KprobeOpts, MAX_SYMBOL_LEN, Target};
use crate::symbols::check_offset;
use crate::sys::uapi::{BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE};
use crate::sys::{self, KprobeAt};
use crate::tracefs::TraceEvent;

use info::Reported;

pub use info::KprobeInfo;

/// A program attached to a kernel function. Dropping it detaches; [`detach`](Self::detach) does
/// too, and says whether all of it worked.
///
/// It holds one file descriptor: the link, or in the ioctl modes the perf event; and in the tracefs
/// modes a second one, of `kprobe_events`. Detaching waits for RCU grace periods in the kernel,
/// some ten milliseconds each.
///
/// There is no way to pause it: `PERF_EVENT_IOC_DISABLE` does not stop a kprobe program.
#[doc(alias = "bpf_link")]
#[derive(Debug)]
pub struct KprobeLink {
    // The order is the order of detaching: what uses the event is closed before the event is
    // removed (EBUSY otherwise).
    fd: OwnedFd,
    event: Option<TraceEvent>,
    mode: AttachMode,
}

static_assertions::const_assert!(size_of::<KprobeLink>() <= 48);
static_assertions::assert_impl_all!(KprobeLink: Send, Sync);

/// Attaches a loaded program to a kernel function: asks the kernel what this takes, plans, and
/// attaches. To attach several, use one [`Kernel`] and [`Kernel::attach_kprobe`].
///
/// `prog` is a loaded program of type `BPF_PROG_TYPE_KPROBE`, whoever loaded it. Nothing is
/// mounted: the tracefs modes take a tracefs that is.
///
/// # Errors
///
/// Those of [`Kernel::plan`] and of [`Plan::attach`].
///
/// # Minimum kernel
///
/// Linux 4.1; what each mode and option needs is in the table of [`AttachMode`].
#[doc(alias = "bpf_program__attach_kprobe_opts")]
pub fn attach_kprobe(
    prog: impl AsFd,
    func: Target<'_>,
    opts: &KprobeOpts,
) -> Result<KprobeLink, Error> {
    Kernel::new().attach_kprobe(prog, func, opts)
}

impl Kernel {
    /// Attaches a loaded program to a kernel function: libbpf's `bpf_program__attach_kprobe_opts`.
    ///
    /// # Errors
    ///
    /// Those of [`plan`](Self::plan) and of [`Plan::attach`].
    #[doc(alias = "bpf_program__attach_kprobe_opts")]
    pub fn attach_kprobe(
        &self,
        prog: impl AsFd,
        func: Target<'_>,
        opts: &KprobeOpts,
    ) -> Result<KprobeLink, Error> {
        let prog = prog.as_fd();
        // By reference: a plan is not moved once more.
        match Plan::new(self, func, opts, Some(prog)) {
            Ok(ref plan) => plan.attach_to(prog),
            Err(error) => Err(error),
        }
    }

    /// Returns how often a probe was missed, as [`KprobeLink::missed`] does, with the tracefs of
    /// this value.
    ///
    /// # Errors
    ///
    /// As of [`KprobeLink::missed`].
    pub fn missed(&self, link: &KprobeLink) -> Result<Option<u64>, Error> {
        match (link.missed_by_link()?, &link.event) {
            (None, Some(event)) => {
                let missed = self
                    .tracefs()
                    .and_then(|tracefs| event.missed(tracefs.as_fd()));
                missed.map_err(info_failed)
            }
            (missed, _) => Ok(missed),
        }
    }
}

impl Plan<'_> {
    /// Carries the plan out for a loaded program of type `BPF_PROG_TYPE_KPROBE`. The program runs
    /// from here on, until the link is detached or dropped.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, with the step at which it came; what the steps before had made is
    /// undone.
    pub fn attach(&self, prog: impl AsFd) -> Result<KprobeLink, Error> {
        self.attach_to(prog.as_fd())
    }

    fn attach_to(&self, prog: BorrowedFd<'_>) -> Result<KprobeLink, Error> {
        // In place: neither a link nor an error is moved once more.
        let mut attached = self.open_event();
        let bound = match &mut attached {
            Ok(link) => link.bind(self.bind, prog),
            Err(error) => {
                self.kernel.settle(error, &self.target);
                Ok(())
            }
        };
        match bound {
            Ok(()) => attached,
            // This drops the link, which undoes the event in the right order.
            Err((step, errno)) => Err(self.failed(step, errno)),
        }
    }

    /// Opens the event, and makes a link of it to which no program is bound yet. What came before a
    /// failure is undone.
    #[inline]
    pub(crate) fn open_event(&self) -> Result<KprobeLink, Error> {
        if self.opts.within_function && self.opts.offset != 0 {
            if !FILES {
                return Err(self.failed(Step::ResolveSymbol, NO_FILES));
            }
            check_offset(&self.target, &self.opts)?;
        }
        let (opened, event) = match &self.event {
            Event::Pmu { r#type, config } => {
                let opened = sys::perf_event_open_kprobe(*r#type, *config, self.place(), self.cpu);
                (opened, None)
            }
            Event::Tracefs(name) if FILES => {
                // There is one, or there would be no plan.
                let Some(tracefs) = self.kernel.tracefs_dir() else {
                    return Err(self.failed(Step::CreateEvent, Errno::NOENT));
                };
                let event = TraceEvent::define(tracefs, &self.definition(*name), self.mode())?;
                let id = match event.id(tracefs) {
                    Ok(id) => id,
                    Err(errno) => return Err(self.failed(Step::ReadEventId, errno)),
                };
                let opened = sys::perf_event_open_config(PERF_TYPE_TRACEPOINT, id, self.cpu);
                (opened, Some(event))
            }
            Event::Tracefs(_) => return Err(self.failed(Step::CreateEvent, NO_FILES)),
        };
        match opened {
            Ok(fd) => Ok(KprobeLink {
                fd,
                event,
                mode: self.mode(),
            }),
            Err(errno) => Err(self.failed(Step::PerfEventOpen, errno)),
        }
    }

    /// The place of the probe, as the kprobe PMU takes it.
    fn place(&self) -> KprobeAt<'_> {
        let target = &self.target;
        match (target.function_bytes(), target.as_address()) {
            (Some(function), _) => KprobeAt::Symbol {
                module: target.module_bytes(),
                function,
                offset: self.opts.offset,
            },
            (None, address) => KprobeAt::Address(address.unwrap_or_default()),
        }
    }

    fn failed(&self, step: Step, errno: Errno) -> Error {
        attach_error(step, errno, errno, self.mode(), &self.target, &self.opts)
    }
}

impl KprobeLink {
    /// Binds a program to the event.
    #[inline]
    fn bind(&mut self, bind: Bind, prog: BorrowedFd<'_>) -> Result<(), (Step, Errno)> {
        match bind {
            Bind::Link { bpf_cookie } => {
                // The link holds the event: its own file descriptor is closed by being replaced.
                self.fd = sys::link_create_perf_event(prog, Some(self.fd.as_fd()), bpf_cookie)
                    .map_err(|errno| (Step::LinkCreate, errno))?;
                Ok(())
            }
            Bind::Ioctl => sys::perf_event_set_bpf(self.fd.as_fd(), prog)
                .map_err(|errno| (Step::SetBpf, errno)),
        }
    }

    /// Returns the mode that was used, which is never "default". A link from a pin is
    /// [`AttachMode::Link`].
    #[must_use]
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Detaches, and removes what was defined in tracefs. After it the program does not run any
    /// more; a call of the function that was under way may still be in it.
    ///
    /// A link that is pinned stays attached by its pin.
    ///
    /// # Errors
    ///
    /// [`Step::RemoveEvent`], about the event: the program is detached, but its event is still
    /// defined, since something uses it: another process, or a child that was forked with the file
    /// descriptors and has not yet become another program. When it is used no more,
    /// [`sweep`](crate::tracefs::sweep()) removes it.
    pub fn detach(self) -> Result<(), Error> {
        let Self { fd, event, mode: _ } = self;
        drop(fd);
        match event {
            Some(event) if FILES => event.remove(),
            _ => Ok(()),
        }
    }

    /// Returns what the kernel reports of the probe. Of a tracefs event it looks for tracefs, as
    /// [`missed`](Self::missed) does.
    ///
    /// # Errors
    ///
    /// [`Step::LinkInfo`] where the kernel refuses to report anything of a link.
    pub fn info(&self) -> Result<KprobeInfo, Error> {
        let mut name = [0; MAX_SYMBOL_LEN + 1];
        let reported = Reported::of(self.fd.as_fd(), self.mode, &mut name);
        // What `missed` would report is no reason to report nothing.
        let missed = |reported: &Reported| match reported.missed {
            None => self.missed_by_event().unwrap_or(None),
            missed => missed,
        };
        match &reported {
            Ok(reported) => Ok(reported.info(self.mode, missed(reported), &name)),
            Err(errno) => Err(info_failed(*errno)),
        }
    }

    /// Returns how often the probe was hit and went no further, because its CPU was in another
    /// probe or, for a return probe, because as many calls as it can follow were under way: from
    /// the link (Linux 6.7), or for a tracefs event from `kprobe_profile`, for which tracefs is
    /// [looked for anew](Mount::find_tracefs), which may wake an automount; [`Kernel::missed`] has
    /// one. [`None`] where the kernel does not say. What the probe handed on and the program missed
    /// is in [`Program::recursion_misses`](crate::bpf::Program::recursion_misses).
    ///
    /// # Errors
    ///
    /// [`Step::LinkInfo`] where the kernel has the count and refuses to report it.
    pub fn missed(&self) -> Result<Option<u64>, Error> {
        match self.missed_by_link()? {
            None => self.missed_by_event().map_err(info_failed),
            missed => Ok(missed),
        }
    }

    fn missed_by_link(&self) -> Result<Option<u64>, Error> {
        if !self.mode.uses_link() {
            return Ok(None);
        }
        let told = sys::link_info(self.fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1]);
        Ok(told.map_err(info_failed)?.missed)
    }

    fn missed_by_event(&self) -> Result<Option<u64>, Errno> {
        match &self.event {
            None => Ok(None),
            Some(event) => event.missed(Mount::find_tracefs()?.as_fd()),
        }
    }

    /// Pins the link into a bpf file system, where it stays attached without this process, until
    /// the pin is unlinked. Of the path at most the last directory is made, with mode 0700, as
    /// libbpf does. Linux 5.15, as for every link.
    ///
    /// # Errors
    ///
    /// [`Step::Pin`]: the mode has no link; or the link is of a tracefs event, which nobody would
    /// remove after the pin is gone; or the path is not in a bpf file system that is mounted, or
    /// taken. None is mounted for it: in a detached mount the pin would be gone with the file
    /// descriptor. [`pin_at`](Self::pin_at) is for that.
    #[doc(alias = "bpf_link__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        check_pin(self.mode)?;
        pin(self.fd.as_fd(), path)
    }

    /// Pins the link at a path that starts from a directory of a bpf file system, which need not be
    /// mounted anywhere: `BPF_F_PATH_FD`. A path from the root goes by that, as with `openat(2)`.
    ///
    /// The pins of a [`Mount`] that is mounted nowhere end with it, and so do the links, unless it
    /// is mounted meanwhile (`move_mount(2)`) or its file descriptor handed on. Nothing is made but
    /// the pin. Linux 6.5 (commit cb8edce28073).
    ///
    /// # Errors
    ///
    /// [`Step::Pin`]: as of [`pin`](Self::pin); or the kernel pins by path only.
    pub fn pin_at(&self, dir: impl AsFd, path: impl Arg) -> Result<(), Error> {
        check_pin(self.mode)?;
        pin_at(self.fd.as_fd(), dir.as_fd(), path)
    }

    /// Opens a link that was pinned, by this crate or another. Dropping it does not detach: the pin
    /// does, when it is unlinked. Linux 5.15.
    ///
    /// # Errors
    ///
    /// [`Step::OpenLink`]: there is no such pin, or it is not a link of a perf event.
    #[doc(alias = "bpf_link__open")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        let opened = path.into_with_c_str(|path| opened(obj_get(path)?));
        opened.map_err(|errno| {
            let cause = match errno {
                Errno::INVAL => Cause::WrongProgram,
                _ => Cause::Unknown,
            };
            bpf_error(Step::OpenLink, errno, cause)
        })
    }
}

/// Makes a link of a descriptor that is one: `EINVAL` for anything else.
fn opened(fd: OwnedFd) -> Result<KprobeLink, Errno> {
    let info = sys::link_info(fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1])?;
    // Since Linux 6.6 it also tells a kprobe from the other perf events.
    let is_kprobe = matches!(
        info.perf_event_type,
        0 | BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE
    );
    if info.link_type != BPF_LINK_TYPE_PERF_EVENT || !is_kprobe || !sys::is_link(fd.as_fd()) {
        return Err(Errno::INVAL);
    }
    Ok(KprobeLink {
        fd,
        event: None,
        mode: AttachMode::Link,
    })
}

fn info_failed(errno: Errno) -> Error {
    bpf_error(Step::LinkInfo, errno, Cause::Unknown)
}

/// The link's file descriptor, or in the ioctl modes the perf event's.
impl AsFd for KprobeLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
