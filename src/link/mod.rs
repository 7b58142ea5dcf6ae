//! The plan carried out: a [`KprobeLink`] is an attached program, and detaches it when dropped.

pub(crate) mod group;
mod info;
pub(crate) mod multi;
mod refusal;

use core::slice;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::bpf::{obj_get, pin, pin_at};
use crate::diagnose::{attach_error, bpf_error};
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::mount::{FILES, Mount, NO_FILES};
use crate::plan::{Bind, Event, PERF_TYPE_TRACEPOINT, Plan, check_pin};
use crate::request::{AttachMode, KprobeOpts, MAX_SYMBOL_LEN, Target, check_request};
use crate::symbols::{Resolution, Symbols, count_functions, not_read, resolve_dyn};
use crate::sys::uapi::{BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE};
use crate::sys::{self, KprobeAt};
use crate::tracefs::TraceEvent;

use info::Reported;

pub use info::KprobeInfo;

/// Represents a program that is attached to a kernel function.
///
/// Dropping it detaches the program. [`detach`](Self::detach) does the same, and reports whether
/// all of it worked.
///
/// It holds one file descriptor: the link, or in the ioctl modes the perf event. In the tracefs
/// modes it holds a second one, of `kprobe_events`. Detaching waits for RCU grace periods in the
/// kernel, of about ten milliseconds each.
///
/// An attached program cannot be paused: `PERF_EVENT_IOC_DISABLE` does not stop a kprobe program.
#[doc(alias = "bpf_link")]
#[derive(Debug)]
pub struct KprobeLink {
    // The order of the fields is the order of detaching. The file descriptor must be closed before
    // the event is removed (EBUSY otherwise).
    fd: OwnedFd,
    event: Option<TraceEvent>,
    mode: AttachMode,
}

static_assertions::const_assert!(size_of::<KprobeLink>() <= 48);
static_assertions::assert_impl_all!(KprobeLink: Send, Sync);

/// Attaches a loaded program to a kernel function.
///
/// It asks the kernel what this takes, makes a plan, and carries it out. To attach several
/// programs, use one [`Kernel`] and [`Kernel::attach_kprobe`].
///
/// `prog` is a program of type `BPF_PROG_TYPE_KPROBE`, loaded by any loader. Nothing is mounted:
/// the tracefs modes need a tracefs that is mounted.
///
/// # Errors
///
/// Returns the errors of [`Kernel::plan`] and of [`Plan::attach`].
///
/// # Minimum kernel
///
/// Linux 4.1. The table of [`AttachMode`] lists what each mode and option needs.
#[doc(alias = "bpf_program__attach_kprobe_opts")]
pub fn attach_kprobe(
    prog: impl AsFd,
    func: Target<'_>,
    opts: &KprobeOpts,
) -> Result<KprobeLink, Error> {
    Kernel::new().attach_kprobe(prog, func, opts)
}

impl Kernel {
    /// Attaches a loaded program to a kernel function, as libbpf's
    /// `bpf_program__attach_kprobe_opts` does.
    ///
    /// A target that is not [resolved](Target::is_resolved) is looked for in `/proc/kallsyms`
    /// first. To attach many of them, resolve them with [one reading](crate::symbols::resolve()).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Resolution::target`], [`plan`](Self::plan) and [`Plan::attach`].
    #[doc(alias = "bpf_program__attach_kprobe_opts")]
    pub fn attach_kprobe(
        &self,
        prog: impl AsFd,
        func: Target<'_>,
        opts: &KprobeOpts,
    ) -> Result<KprobeLink, Error> {
        self.attach_dyn(prog.as_fd(), &func, opts)
    }

    fn attach_dyn(
        &self,
        prog: BorrowedFd<'_>,
        func: &Target<'_>,
        opts: &KprobeOpts,
    ) -> Result<KprobeLink, Error> {
        if FILES && !func.is_resolved() {
            return self.attach_found(prog, *func, opts);
        }
        // The reference saves a copy of the plan.
        match Plan::new(self, *func, opts, Some(prog)) {
            Ok(ref plan) => plan.attach_to(prog),
            Err(error) => Err(error),
        }
    }

    /// Resolves the target, and attaches.
    // In a frame of its own: it holds names.
    #[cold]
    #[inline(never)]
    fn attach_found(
        &self,
        prog: BorrowedFd<'_>,
        func: Target<'_>,
        opts: &KprobeOpts,
    ) -> Result<KprobeLink, Error> {
        check_request(&func, opts).map_err(|invalid| Error::invalid(invalid).about(&func, opts))?;
        let mut found = Resolution::new(func);
        resolve_dyn(slice::from_mut(&mut found), &mut |_, _| {})?;
        let target = found.target().map_err(|error| error.about(&func, opts))?;
        Plan::new(self, target, opts, Some(prog))?.attach_to(prog)
    }

    /// Returns the number of hits that a probe missed, as [`KprobeLink::missed`] does.
    ///
    /// It uses this `Kernel`'s tracefs.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`KprobeLink::missed`].
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
    /// Carries out the plan with a loaded program of type `BPF_PROG_TYPE_KPROBE`.
    ///
    /// The program runs from then on, until the link is detached or dropped.
    ///
    /// The kprobe PMU of some kernels refuses the name of a function that exists, such as
    /// `module:function`. The function is then attached to by its address in `/proc/kallsyms`. If
    /// that is hidden, and no mode was asked for, a tracefs mode is used.
    ///
    /// # Errors
    ///
    /// Returns the step that the kernel refused, and its errno. The effects of the earlier steps
    /// are undone.
    ///
    /// If the errno has several meanings on this kernel, the kernel is asked for probes that it
    /// always refuses. If that does not tell them apart, `/proc/kallsyms` is read. A cause that
    /// remains unknown is [`Cause::Unknown`].
    pub fn attach(&self, prog: impl AsFd) -> Result<KprobeLink, Error> {
        self.attach_to(prog.as_fd())
    }

    fn attach_to(&self, prog: BorrowedFd<'_>) -> Result<KprobeLink, Error> {
        let mut event = None;
        let fd = match self.open_event(&mut event) {
            Ok(fd) => fd,
            Err(error) if FILES => return self.refused(error, prog),
            Err(error) => return Err(error),
        };
        let (step, bound) = match self.bind {
            Bind::Link { bpf_cookie } => {
                let link = sys::link_create_perf_event(prog, Some(fd.as_fd()), bpf_cookie);
                // The link holds the event.
                drop(fd);
                (Step::LinkCreate, link)
            }
            Bind::Ioctl => {
                let set = sys::perf_event_set_bpf(fd.as_fd(), prog);
                (Step::SetBpf, set.map(|()| fd))
            }
        };
        match bound {
            Ok(fd) => Ok(self.link(fd, event)),
            // The file descriptor is closed. Dropping the event removes it.
            Err(errno) => Err(self.failed(step, errno)),
        }
    }

    /// Attaches without the name of the function, if the kernel refuses only that. Otherwise
    /// returns the error with its true cause.
    #[cold]
    #[inline(never)]
    fn refused(&self, mut error: Error, prog: BorrowedFd<'_>) -> Result<KprobeLink, Error> {
        let mut other = *self;
        if other.settle(&mut error, None) {
            return other.attach_to(prog);
        }
        if FILES && error.cause() == Cause::NotUnique {
            count_functions(&mut error, &self.target);
        }
        Err(error)
    }

    /// Opens the event without a program, then closes and removes it.
    pub(crate) fn try_event(&self) -> Result<(), Error> {
        let mut event = None;
        let fd = self.open_event(&mut event)?;
        self.link(fd, event).detach()
    }

    fn link(&self, fd: OwnedFd, event: Option<TraceEvent>) -> KprobeLink {
        KprobeLink {
            fd,
            event,
            mode: self.mode(),
        }
    }

    /// Opens the event. If it is one of tracefs, puts it into `event`, which must outlive the file
    /// descriptor. If a step fails, the earlier ones are undone.
    #[inline]
    fn open_event(&self, event: &mut Option<TraceEvent>) -> Result<OwnedFd, Error> {
        if self.opts.within_function && self.opts.offset != 0 {
            if !FILES {
                return Err(self.failed(Step::ResolveSymbol, NO_FILES));
            }
            self.check_offset()?;
        }
        let Event::Pmu { r#type, config } = self.event else {
            return self.open_trace_event(event);
        };
        match sys::perf_event_open_kprobe(r#type, config, self.place(), self.cpu) {
            Ok(fd) => Ok(fd),
            Err(errno) => Err(self.failed(Step::PerfEventOpen, errno)),
        }
    }

    // In a frame of its own: it holds names.
    #[inline(never)]
    fn open_trace_event(&self, event: &mut Option<TraceEvent>) -> Result<OwnedFd, Error> {
        let (Event::Tracefs(name), true) = (self.event, FILES) else {
            return Err(self.failed(Step::CreateEvent, NO_FILES));
        };
        // A plan with a trace event exists only where a tracefs was found.
        let Ok(tracefs) = self.kernel.tracefs_dir() else {
            return Err(self.failed(Step::CreateEvent, Errno::NOENT));
        };
        let defined = TraceEvent::define(tracefs, &self.definition(name), self.mode())?;
        let id = match defined.id(tracefs) {
            Ok(id) => id,
            Err(errno) => return Err(self.failed(Step::ReadEventId, errno)),
        };
        match sys::perf_event_open_config(PERF_TYPE_TRACEPOINT, id, self.cpu) {
            Ok(fd) => {
                *event = Some(defined);
                Ok(fd)
            }
            Err(errno) => Err(self.failed(Step::PerfEventOpen, errno)),
        }
    }

    #[inline(never)]
    fn check_offset(&self) -> Result<(), Error> {
        let symbols = Symbols::of(self.target, &self.opts);
        let checked = symbols
            .map_err(not_read)
            .and_then(|symbols| symbols.check_offset());
        checked.map_err(|error| error.about(&self.target, &self.opts))
    }

    /// Returns the place of the probe, as the kprobe PMU takes it.
    fn place(&self) -> KprobeAt<'_> {
        let target = &self.target;
        match target.place() {
            Ok((module, function)) => KprobeAt::Symbol {
                module,
                function,
                offset: self.opts.offset,
            },
            // A plan's address and offset have been checked.
            Err(address) => KprobeAt::Address(address + self.opts.offset),
        }
    }

    fn failed(&self, step: Step, errno: Errno) -> Error {
        attach_error(step, errno, errno, self.mode(), &self.target, &self.opts)
    }
}

impl KprobeLink {
    /// Returns the mode that was used, which is never "default".
    ///
    /// The mode of a link from a pin is [`AttachMode::Link`].
    #[must_use]
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Detaches the program, and removes the event that was defined in tracefs.
    ///
    /// After that, the program is not called any more. A call that was already running may still be
    /// in it.
    ///
    /// The program stays attached as long as something else holds the link, or in the ioctl modes
    /// the event: a pin, a duplicate of the file descriptor, a link opened by id, or a child that
    /// was forked with the file descriptor. In the modes of the PMU, the result is [`Ok`] all the
    /// same.
    ///
    /// If the removal of an event in tracefs fails, it is tried again up to 10 times, with a pause
    /// of 5 milliseconds before each. Dropping the link does the same.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::RemoveEvent`] if the event cannot be removed. The
    /// program is detached all the same, unless something else holds the link or the event.
    ///
    /// The usual errno is `EBUSY`: something still uses the event. It may be another process, or a
    /// child that was forked with the file descriptors and has not called [`execve(2)`] yet. When
    /// the event is no longer in use, [`sweep`](crate::tracefs::sweep()) removes it.
    ///
    /// [`execve(2)`]: https://man7.org/linux/man-pages/man2/execve.2.html
    pub fn detach(self) -> Result<(), Error> {
        let Self { fd, event, mode: _ } = self;
        drop(fd);
        match event {
            Some(event) if FILES => event.remove(),
            _ => Ok(()),
        }
    }

    /// Returns what the kernel reports of the probe.
    ///
    /// For a trace event it looks for tracefs, as [`missed`](Self::missed) does.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::LinkInfo`] if the kernel refuses to report on the
    /// link.
    pub fn info(&self) -> Result<KprobeInfo, Error> {
        let mut name = [0; MAX_SYMBOL_LEN + 1];
        let reported = Reported::of(self.fd.as_fd(), self.mode, &mut name);
        // If only `missed` fails, the other fields are still reported.
        let missed = |reported: &Reported| match reported.missed {
            None => self.missed_by_event().unwrap_or(None),
            missed => missed,
        };
        match &reported {
            Ok(reported) => Ok(reported.info(self.mode, missed(reported), &name)),
            Err(errno) => Err(info_failed(*errno)),
        }
    }

    /// Returns the id of the BPF link. [`None`] in the ioctl modes, which have none.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`info`](Self::info).
    pub fn link_id(&self) -> Result<Option<u32>, Error> {
        let link = self.link_info()?;
        Ok(link.map(|link| link.id))
    }

    /// Returns the id of the program of a BPF link. [`None`] in the ioctl modes; see
    /// [`KprobeInfo::prog_id`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`info`](Self::info).
    pub fn prog_id(&self) -> Result<Option<u32>, Error> {
        let link = self.link_info()?;
        Ok(link.map(|link| link.prog_id))
    }

    /// Returns the number of hits that did not reach the program because the probe missed them.
    ///
    /// A probe misses a hit if its CPU is already in another probe. A return probe also misses a
    /// call if it already follows as many calls as it can. Returns [`None`] if the kernel does not
    /// report the number.
    ///
    /// The number of a trace event is in `kprobe_profile`. For that, this function looks for
    /// tracefs [each time](Mount::find_tracefs), which can wake an automount. [`Kernel::missed`]
    /// uses the tracefs that it holds.
    ///
    /// Before Linux 5.17, `kprobe_profile` does not have the calls that a return probe could not
    /// follow. Updates of 5.10 and 5.15 have them.
    ///
    /// Hits that the probe passed on, and the program missed, are counted by
    /// [`Program::recursion_misses`](crate::bpf::Program::recursion_misses).
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::LinkInfo`] if the kernel has the number and refuses
    /// to report it.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.7 for a link, and 4.1 for a trace event.
    pub fn missed(&self) -> Result<Option<u64>, Error> {
        match self.missed_by_link()? {
            None => self.missed_by_event().map_err(info_failed),
            missed => Ok(missed),
        }
    }

    fn missed_by_link(&self) -> Result<Option<u64>, Error> {
        let link = self.link_info()?;
        Ok(link.and_then(|link| link.missed))
    }

    /// Returns what the kernel reports of the link, if there is one.
    fn link_info(&self) -> Result<Option<sys::LinkInfo>, Error> {
        if !self.mode.uses_link() {
            return Ok(None);
        }
        let told = sys::link_info(self.fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1]);
        told.map(Some).map_err(info_failed)
    }

    fn missed_by_event(&self) -> Result<Option<u64>, Errno> {
        match &self.event {
            None => Ok(None),
            Some(event) => event.missed(Mount::find_tracefs()?.as_fd()),
        }
    }

    /// Pins the link into a bpf file system.
    ///
    /// It then stays attached without this process, until the pin is unlinked. If the last
    /// directory of the path does not exist, it is made with mode 0700, as libbpf does. No other
    /// directory is made.
    ///
    /// If another user may replace the directory, the pin can be made elsewhere. Open the
    /// directory, check its owner, and use [`pin_at`](Self::pin_at).
    ///
    /// The bpf file system must be mounted. A pin in a detached mount would be gone with the file
    /// descriptor; [`pin_at`](Self::pin_at) makes such a pin.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Pin`]:
    ///
    /// * `EINVAL` if the mode has no link, or if the path is not in a bpf file system that is
    ///   mounted.
    /// * `EOPNOTSUPP` if the event is in tracefs. Nothing would remove it after the pin is gone.
    /// * `EEXIST` if the path is taken.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15, as for every link.
    #[doc(alias = "bpf_link__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        check_pin(self.mode)?;
        pin(self.fd.as_fd(), path)
    }

    /// Pins the link at a path relative to a directory of a bpf file system (`BPF_F_PATH_FD`).
    ///
    /// The file system need not be mounted. As in [`openat(2)`], an absolute path ignores the
    /// directory. Only the pin is made, and no directory.
    ///
    /// The pins of a detached [`Mount`] end with it, and so do their links. They stay if the file
    /// system is mounted by then ([`move_mount(2)`]), or if another process holds its file
    /// descriptor.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`pin`](Self::pin), and `EINVAL` if the kernel pins by path only.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.5 (commit cb8edce28073).
    ///
    /// [`openat(2)`]: https://man7.org/linux/man-pages/man2/openat.2.html
    /// [`move_mount(2)`]: https://man7.org/linux/man-pages/man2/move_mount.2.html
    pub fn pin_at(&self, dir: impl AsFd, path: impl Arg) -> Result<(), Error> {
        check_pin(self.mode)?;
        pin_at(self.fd.as_fd(), dir.as_fd(), path)
    }

    /// Opens a pinned link, whichever program pinned it.
    ///
    /// Dropping the result does not detach the program. Unlinking the pin does, once no process
    /// holds the link.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::OpenLink`]:
    ///
    /// * `ENOENT` if the pin does not exist.
    /// * `EINVAL` if the pin is not a link to a perf event, or the path is not in a bpf file
    ///   system. Since Linux 6.6, also if that event is not a kprobe.
    /// * Any other errno of the kernel.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15.
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

/// Makes a link of a file descriptor that is one. Returns `EINVAL` for any other object.
fn opened(fd: OwnedFd) -> Result<KprobeLink, Errno> {
    let info = sys::link_info(fd.as_fd(), &mut [0; MAX_SYMBOL_LEN + 1])?;
    // Since Linux 6.6 the kernel reports whether the perf event is a kprobe.
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

/// Borrows the link's file descriptor, or in the ioctl modes that of the perf event.
impl AsFd for KprobeLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
