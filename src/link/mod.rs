//! The plan carried out: a [`KprobeLink`] is a program attached, and detaches it when dropped.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::bpf::pin::{pin, pin_at};
use crate::bpf::program::obj_get;
use crate::diagnose::denied::denied;
use crate::error::cause::{Cause, cause, remove_cause};
use crate::error::{Error, Failure, Step};
use crate::mount::{FILES, Mount, NO_FILES};
use crate::plan::{Bind, Event, PERF_TYPE_TRACEPOINT, Plan};
use crate::request::invalid::Invalid;
use crate::request::target::{AttachMode, KprobeOpts, MAX_SYMBOL_LEN, Target};
use crate::symbols::kallsyms;
use crate::symbols::survey::settled;
use crate::sys;
use crate::sys::KprobeAt;
use crate::sys::uapi::{BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE};
use crate::tracefs::kprobe_events::TraceEvent;

/// A program attached to a kernel function. Dropping it detaches; [`detach`](Self::detach) does too, and says whether all
/// of it worked.
///
/// It holds one file descriptor: the link, or in the ioctl modes the perf event; and in the tracefs modes a second one,
/// of `kprobe_events`. Detaching waits for RCU grace periods in the kernel, some ten milliseconds each.
///
/// There is no way to pause it: `PERF_EVENT_IOC_DISABLE` does not stop a kprobe program.
#[doc(alias = "bpf_link")]
#[derive(Debug)]
pub struct KprobeLink {
    // The order is the order of detaching: what uses the event is closed before the event is removed (EBUSY otherwise).
    fd: OwnedFd,
    event: Option<TraceEvent>,
    mode: AttachMode,
    /// What was asked for; [`None`] for a link from a pin.
    request: Option<(Target, KprobeOpts)>,
}

/// What is known of an attached probe: from the kernel where it tells, else from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KprobeInfo {
    /// The mode that was used.
    pub mode: AttachMode,
    /// Whether it is a return probe. Of a link the kernel tells since Linux 6.6; else it is what was asked for.
    pub retprobe: Option<bool>,
    /// The function, or the address where it was given as one. The kernel tells of a link since Linux 6.6, and of a perf
    /// event since 4.18 for `CAP_SYS_ADMIN`; else it is what was asked for.
    pub function: Option<Target>,
    /// Bytes from the start of the function.
    pub offset: u64,
    /// Where the probe sits; on x86 with IBT 4 bytes after the function's symbol. [`None`] where the kernel hides addresses
    /// (`kernel.kptr_restrict`) or does not tell. It tells since Linux 6.6 (commit cd3910d00505), in the ioctl modes for
    /// `CAP_SYS_ADMIN` alone.
    pub address: Option<u64>,
    /// How often the probe was hit and went no further: see [`KprobeLink::missed`].
    pub missed: Option<u64>,
    /// The cookie. The kernel tells since Linux 6.9.
    pub cookie: Option<u64>,
    /// The id of the BPF link.
    pub link_id: Option<u32>,
    /// The id of the program.
    pub prog_id: Option<u32>,
}

impl KprobeLink {
    pub(crate) fn attach(plan: &Plan<'_>, prog: BorrowedFd<'_>) -> Result<Self, Failure> {
        let Plan {
            target, opts, bind, ..
        } = *plan;
        let mode = plan.mode();
        let (perf_event, event) = plan.open_event()?;
        // From here on a failure drops the link, which undoes the event in the right order.
        let mut link = Self {
            fd: perf_event,
            event,
            mode,
            request: Some((target, opts)),
        };
        match bind {
            Bind::Link { bpf_cookie } => {
                // The link holds the event: its own file descriptor is closed by being replaced.
                link.fd = sys::link_create_perf_event(prog, Some(link.fd.as_fd()), bpf_cookie)
                    .map_err(|errno| plan.failed(Step::LinkCreate, errno))?;
            }
            Bind::Ioctl => sys::perf_event_set_bpf(link.fd.as_fd(), prog)
                .map_err(|errno| plan.failed(Step::SetBpf, errno))?,
        }
        Ok(link)
    }

    /// The mode that was used, which is never "default". A link from a pin is [`AttachMode::Link`].
    #[must_use]
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Detaches, and removes what was defined in tracefs. After it the program does not run any more; a call of the function
    /// that was under way may still be in it.
    ///
    /// A link that is pinned stays attached by its pin.
    ///
    /// # Errors
    ///
    /// [`Step::RemoveEvent`]: the program is detached, but its event is still defined, since something uses it: another
    /// process, or a child that was forked with the file descriptors and has not yet become another program. When it is used
    /// no more, [`sweep`](crate::sweep()) removes it.
    pub fn detach(self) -> Result<(), Error> {
        let Self {
            fd,
            event,
            mode: _,
            request,
        } = self;
        drop(fd);
        let removed = event.map_or(Ok(()), TraceEvent::remove);
        removed.map_err(|errno| {
            about(
                request.as_ref(),
                Failure::new(Step::RemoveEvent, errno, remove_cause(errno)),
            )
        })
    }

    /// What the kernel tells of the probe, and where it does not, what was asked for.
    ///
    /// # Errors
    ///
    /// [`Step::LinkInfo`] where the kernel refuses to tell anything of a link.
    pub fn info(&self) -> Result<KprobeInfo, Error> {
        let mut info = KprobeInfo {
            mode: self.mode,
            retprobe: None,
            function: None,
            offset: 0,
            address: None,
            missed: None,
            cookie: None,
            link_id: None,
            prog_id: None,
        };
        if let Some((target, opts)) = self.request {
            info.retprobe = Some(opts.retprobe);
            info.function = Some(target);
            info.offset = opts.offset;
            info.cookie = Some(opts.bpf_cookie);
        }
        let mut name = [0; MAX_SYMBOL_LEN + 1];
        if self.mode.uses_link() {
            let told = sys::link_info(self.fd.as_fd(), &mut name)
                .map_err(|errno| self.error(Step::LinkInfo, errno))?;
            info.link_id = Some(told.id);
            info.prog_id = Some(told.prog_id);
            if matches!(
                told.perf_event_type,
                BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE
            ) {
                info.retprobe = Some(told.perf_event_type == BPF_PERF_EVENT_KRETPROBE);
                info.offset = told.offset.into();
                info.missed = told.missed;
                info.cookie = told.cookie.or(info.cookie);
                info.told(told.address, &name);
            }
        } else if let Ok(told) = sys::task_fd_query(self.fd.as_fd(), &mut name) {
            info.prog_id = Some(told.prog_id);
            info.told(told.probe_addr, &name);
        }
        if info.missed.is_none() {
            // What `missed` would report is no reason to tell nothing.
            info.missed = self.missed_in_profile().unwrap_or(None);
        }
        Ok(info)
    }

    /// How often the probe was hit and went no further, because its CPU was in another probe or, for a return probe, because
    /// as many calls as it can follow were under way: from the link (Linux 6.7), or for a tracefs event from `kprobe_profile`,
    /// for which tracefs is [looked for anew](Mount::tracefs). [`None`] where the kernel does not say. What the probe handed on
    /// and the program missed is in [`Program::recursion_misses`](crate::bpf::program::Program::recursion_misses).
    ///
    /// # Errors
    ///
    /// [`Step::LinkInfo`] where the kernel has the count and refuses to tell.
    pub fn missed(&self) -> Result<Option<u64>, Error> {
        if self.mode.uses_link() {
            let told = sys::link_info(self.fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1])
                .map_err(|errno| self.error(Step::LinkInfo, errno))?;
            if told.missed.is_some() {
                return Ok(told.missed);
            }
        }
        self.missed_in_profile()
            .map_err(|errno| self.error(Step::LinkInfo, errno))
    }

    fn missed_in_profile(&self) -> Result<Option<u64>, Errno> {
        let Some(event) = &self.event else {
            return Ok(None);
        };
        // tracefs is looked for anew, so that a link need not hold a third file descriptor for this.
        Mount::tracefs().and_then(|tracefs| event.missed(tracefs.as_fd()))
    }

    /// Pins the link into a bpf file system, where it stays attached without this process, until the pin is unlinked. Of the
    /// path at most the last directory is made, with mode 0700, as libbpf does. Linux 5.15, as for every link.
    ///
    /// # Errors
    ///
    /// [`Step::Pin`]: the mode has no link; or the link is of a tracefs event, which nobody would remove after the pin is
    /// gone; or the path is not in a bpf file system that is mounted, or taken. None is mounted for it: in one that is mounted out
    /// of sight the pin would be gone with the file descriptor. Who wants that asks for [`pin_at`](Self::pin_at).
    #[doc(alias = "bpf_link__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        self.check_pin()?;
        pin(self.fd.as_fd(), path).map_err(|failure| self.about(failure))
    }

    /// Pins the link at a path that starts from a directory of a bpf file system, which need not be mounted anywhere:
    /// `BPF_F_PATH_FD`. A path from the root goes by that, as with `openat(2)`.
    ///
    /// The pins of a [`Mount`] that is mounted nowhere end with it, and so do the links, unless it is mounted meanwhile
    /// (`move_mount(2)`) or its file descriptor handed on. Nothing is made but the pin. Linux 6.5 (commit cb8edce28073).
    ///
    /// # Errors
    ///
    /// [`Step::Pin`]: as of [`pin`](Self::pin); or the kernel pins by path only.
    pub fn pin_at(&self, dir: impl AsFd, path: impl Arg) -> Result<(), Error> {
        self.check_pin()?;
        pin_at(self.fd.as_fd(), dir.as_fd(), path).map_err(|failure| self.about(failure))
    }

    fn check_pin(&self) -> Result<(), Error> {
        check_pin(self.mode).map_err(|invalid| self.about(Failure::invalid(invalid).at(Step::Pin)))
    }

    /// Opens a link that was pinned, by this crate or another. Dropping it does not detach: the pin does, when it is
    /// unlinked. Linux 5.15.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`]: there is no such pin, or it is not a link of a perf event.
    #[doc(alias = "bpf_link__open")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        Ok(Self::opened(path.into_with_c_str(obj_get))?)
    }

    fn opened(fd: Result<OwnedFd, Errno>) -> Result<Self, Failure> {
        let failed = |errno| Failure::bpf(Step::OpenProgram, errno, Cause::Unknown);
        let fd = fd.map_err(failed)?;
        let info = sys::link_info(fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1]).map_err(failed)?;
        // Since Linux 6.6 it also tells a kprobe from the other perf events.
        let is_kprobe = matches!(
            info.perf_event_type,
            0 | BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE
        );
        if info.link_type != BPF_LINK_TYPE_PERF_EVENT || !is_kprobe || !sys::is_link(fd.as_fd()) {
            return Err(Failure::new(
                Step::OpenProgram,
                Errno::INVAL,
                Cause::WrongProgram,
            ));
        }
        Ok(Self {
            fd,
            event: None,
            mode: AttachMode::Link,
            request: None,
        })
    }

    fn error(&self, step: Step, errno: Errno) -> Error {
        self.about(Failure::bpf(step, errno, Cause::Unknown))
    }

    fn about(&self, failure: Failure) -> Error {
        about(self.request.as_ref(), failure)
    }
}

/// The error of a link, which from a pin has no request.
fn about(request: Option<&(Target, KprobeOpts)>, failure: Failure) -> Error {
    match request {
        Some((target, opts)) => failure.of(target, opts),
        None => failure.into(),
    }
}

impl KprobeInfo {
    /// Takes over the place that the kernel tells: no name for an address, zero for an address that is hidden.
    fn told(&mut self, address: u64, name: &[u8]) {
        self.address = (address != 0).then_some(address);
        let name = CStr::from_bytes_until_nul(name).unwrap_or_default();
        if let Ok(function) = Target::from_bytes(name.to_bytes()) {
            self.function = Some(function);
        } else if self.function.is_none() {
            self.function = self.address.map(Target::address);
        }
    }
}

/// The link's file descriptor, or in the ioctl modes the perf event's.
impl AsFd for KprobeLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Plan<'_> {
    /// Opens the event, to which no program is bound yet. What came before a failure is undone.
    pub(crate) fn open_event(&self) -> Result<(OwnedFd, Option<TraceEvent>), Failure> {
        if self.opts.within_function && self.opts.offset != 0 {
            kallsyms::check_offset(&self.target, &self.opts)?;
        }
        let cpu = self.kernel.features().cpu;
        let open_failed = |errno| self.failed(Step::PerfEventOpen, errno);
        match &self.event {
            Event::Pmu { r#type, config } => {
                let at = match (self.target.name_c_str(), self.target.as_address()) {
                    (Some(name), _) => {
                        let offset = u32::try_from(self.opts.offset)
                            .map_err(|_| Failure::invalid(Invalid::OffsetTooLarge))?;
                        KprobeAt::Symbol(name, offset)
                    }
                    (None, address) => KprobeAt::Address(address.unwrap_or_default()),
                };
                let opened = sys::perf_event_open_kprobe(*r#type, *config, at, cpu);
                Ok((opened.map_err(open_failed)?, None))
            }
            Event::Tracefs(definition) if FILES => {
                // There is one, or there would be no plan.
                let tracefs = self
                    .kernel
                    .tracefs_dir()
                    .ok_or_else(|| self.failed(Step::CreateEvent, Errno::NOENT))?;
                let event = TraceEvent::define(tracefs, definition, self.mode())?;
                let id = event
                    .id(tracefs)
                    .map_err(|errno| self.failed(Step::ReadEventId, errno))?;
                let opened = sys::perf_event_open_config(PERF_TYPE_TRACEPOINT, id, cpu);
                Ok((opened.map_err(open_failed)?, Some(event)))
            }
            Event::Tracefs(_) => Err(self.failed(Step::CreateEvent, NO_FILES)),
        }
    }

    fn failed(&self, step: Step, errno: Errno) -> Failure {
        let known = cause(step, errno, self.mode(), &self.target, &self.opts);
        let cause = known.map_or_else(|| denied(step, errno), |cause| settled(cause, &self.target));
        Failure::new(step, errno, cause)
    }
}

/// The rule that keeps what a mode makes from being pinned.
pub(crate) const fn check_pin(mode: AttachMode) -> Result<(), Invalid> {
    match mode {
        AttachMode::Link => Ok(()),
        AttachMode::LegacyLink => Err(Invalid::PinOfTraceEvent),
        AttachMode::Perf | AttachMode::Legacy => Err(Invalid::PinWithoutLink),
    }
}
