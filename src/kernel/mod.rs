//! The kernel: the features that this process may use. Each is probed when its answer is needed.

mod features;
mod module;
mod pmu;
mod probes;

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

use crate::diagnose::kprobe_events_cause;
use crate::error::{Cause, Error, Step};
use crate::mount::{FILES, Mount, NO_FILES};
use crate::request::{AttachMode, Invalid, Need};
use crate::sys::uapi::{BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION};
use crate::sys::{Once, first_allowed_cpu, link_create_multi_bad_address, lock_byte};
use crate::tracefs::{
    EventLine, EventName, Swept, no_tracefs, open_kprobe_events, removed_only, sweep_in,
    takes_maxactive,
};
use pmu::LOCKED_DOWN;
use probes::REFUSED_PROGRAM;

pub(crate) use pmu::Pmu;

pub use features::{Features, Reason, Support};
#[cfg(fuzzing)]
pub use pmu::parse_pmu_type;

/// Represents the running kernel: its features, and its tracefs and sysfs.
///
/// It asks the kernel a question when a plan needs the answer, in the order of the table of
/// [`AttachMode`]. It asks each question once, and [`features`](Self::features) asks all of them.
///
/// For a default attach on a kernel with perf links, it asks three questions: which CPU is online,
/// which type the kprobe PMU has, and whether there are perf links. For these it opens no file and
/// loads no program.
///
/// Use one `Kernel` to attach many programs. An attach by the PMU then takes two system calls. The
/// mode [`Link`](AttachMode::Link) takes a third, which closes the event's own file descriptor.
///
/// A `Kernel` keeps every answer, even an [unknown](Support::Unknown) one. If file descriptors or
/// memory were short, make a new `Kernel`. Only an answer that may depend on the caller's program
/// is asked for again with the next program.
///
/// It mounts nothing unless [`with_detached_mounts`](Self::with_detached_mounts) made it. The
/// search for tracefs can wake the automount in debugfs, as [`Mount::find_tracefs`] does.
///
/// The names of trace events are unique within one `Kernel`, so do not share it across [`fork(2)`].
/// If two processes use the same name, the second gets an error with [`Cause::EventExists`].
///
/// [`fork(2)`]: https://man7.org/linux/man-pages/man2/fork.2.html
#[derive(Debug)]
pub struct Kernel {
    detached_mounts: bool,
    /// The modes whose needs are all met: a bit for each mode, and a bit for its return probes.
    met: AtomicU8,
    /// All the answers, if they were given, or have all been asked for.
    features: Once<Features>,
    cpu: Once<u32>,
    pmu: Once<Pmu>,
    perf_event: Once<Support>,
    perf_link: Once<Support>,
    kprobe_events: Once<Support>,
    /// Answers that are known, a bit for each.
    known: AtomicU8,
    tracefs: Once<Result<Mount, Errno>>,
    sysfs: Once<Result<Mount, Errno>>,
    /// The random part of the event group.
    group: Once<u64>,
    /// The number of the next event name.
    next_event: AtomicU32,
}

/// The bits of [`Kernel::known`]: `kprobe_events` takes a maxactive, there are links to many
/// functions and those for sessions, and the kernel was asked how it looks up names, which is slow.
const TAKES_MAXACTIVE: u8 = 1 << 0;
const HAS_MULTI: u8 = 1 << 1;
const HAS_SESSION: u8 = 1 << 2;
const LOOKUP_ASKED: u8 = 1 << 3;
const LOOKUP_SLOW: u8 = 1 << 4;

/// The bit of [`Kernel::met`] for a mode.
const fn met_bit(mode: AttachMode, retprobe: bool) -> u8 {
    1 << (2 * mode as u8 + retprobe as u8)
}

static_assertions::assert_impl_all!(Kernel: Send, Sync);

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel {
    /// Makes a `Kernel` that has not asked anything yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            detached_mounts: false,
            met: AtomicU8::new(0),
            features: Once::new(),
            cpu: Once::new(),
            pmu: Once::new(),
            perf_event: Once::new(),
            perf_link: Once::new(),
            kprobe_events: Once::new(),
            known: AtomicU8::new(0),
            tracefs: Once::new(),
            sysfs: Once::new(),
            group: Once::new(),
            next_event: AtomicU32::new(0),
        }
    }

    /// Makes a `Kernel` that makes a [detached mount](Mount) if it needs tracefs or sysfs and none
    /// is mounted.
    ///
    /// Before Linux 5.2 that forks a child process.
    #[must_use]
    pub const fn with_detached_mounts() -> Self {
        let mut kernel = Self::new();
        kernel.detached_mounts = true;
        kernel
    }

    /// Makes a `Kernel`, and [asks about perf links](Self::ask_perf_link) with a loaded program.
    #[must_use]
    pub fn with_program(prog: impl AsFd) -> Self {
        let kernel = Self::new();
        kernel.ask_perf_link(prog);
        kernel
    }

    /// Asks whether there are perf links, with a loaded program.
    ///
    /// Neither a plan nor [`features`](Self::features) then has to load a program for that.
    /// [`attach_kprobe`](Self::attach_kprobe) asks with the program that it attaches.
    ///
    /// A program that is not a kprobe program gives no answer. This process must then be able to
    /// load one that is.
    pub fn ask_perf_link(&self, prog: impl AsFd) {
        self.perf_link(Some(prog.as_fd()));
    }

    /// Makes a kernel that has these features, which need not be those of the running one.
    ///
    /// It is for plans only, because it does not have a tracefs directory.
    #[must_use]
    pub fn with_features(features: Features) -> Self {
        let mut kernel = Self::new();
        kernel.cpu = Once::with(features.cpu);
        kernel.pmu = Once::with(Pmu {
            support: features.kprobe_pmu,
            r#type: features.pmu_type,
            retprobe_bit: features.retprobe_bit,
        });
        kernel.features = Once::with(features);
        kernel.tracefs = Once::with(Err(Errno::NOENT));
        kernel.sysfs = Once::with(Err(Errno::NOENT));
        kernel.group = Once::with(0);
        kernel.known = AtomicU8::new(TAKES_MAXACTIVE | LOOKUP_ASKED);
        kernel
    }

    /// Asks the kernel every question, and returns the answers.
    ///
    /// Some of the probes load a program of two instructions. This function cannot fail: a probe
    /// that has no answer is [`Support::Unknown`], with its errno.
    #[must_use]
    pub fn features(&self) -> Features {
        *self.features.get_or(|| {
            let pmu = self.pmu();
            let sysfs = self.sysfs().ok();
            Features {
                perf_event: self.perf_event(),
                cpu: self.cpu(),
                kprobe_pmu: pmu.support,
                pmu_type: pmu.r#type,
                pmu_type_in_sysfs: sysfs.and_then(|sysfs| pmu::type_in(sysfs.as_fd())),
                retprobe_bit: pmu.retprobe_bit,
                perf_link: self.perf_link(None),
                tracefs: self.tracefs_support(),
                kprobe_events: self.kprobe_events(),
                kprobe_multi: self.multi(false, None),
                kprobe_session: self.multi(true, None),
            }
        })
    }

    /// Returns tracefs: the mounted one, or the [detached mount](Self::with_detached_mounts).
    ///
    /// This value holds it as long as it lives.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Mount::find_tracefs`]. If detached mounts are allowed, returns those
    /// of [`Mount::tracefs`].
    pub fn tracefs(&self) -> Result<&Mount, Errno> {
        let open = || {
            if self.detached_mounts {
                Mount::tracefs()
            } else {
                Mount::find_tracefs()
            }
        };
        self.tracefs.get_or(open).as_ref().map_err(|errno| *errno)
    }

    /// Returns sysfs: the mounted one, or the [detached mount](Self::with_detached_mounts).
    ///
    /// This value holds it as long as it lives.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`tracefs`](Self::tracefs).
    ///
    /// Without sysfs, the PMU's type has no cross-check. A missing function of a module then has
    /// the cause [`Cause::ModuleNotLoaded`], even if the module is loaded.
    pub fn sysfs(&self) -> Result<&Mount, Errno> {
        let open = || {
            if self.detached_mounts {
                Mount::sysfs()
            } else {
                Mount::find_sysfs()
            }
        };
        self.sysfs.get_or(open).as_ref().map_err(|errno| *errno)
    }

    /// Removes the events that dead processes left, as [`sweep`](crate::tracefs::sweep()) does.
    ///
    /// It uses this `Kernel`'s tracefs.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`sweep`](crate::tracefs::sweep()).
    pub fn sweep(&self, mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
        self.sweep_each(false, removed_only(&mut each))
    }

    /// Calls `each` with every event that [`sweep`](Self::sweep) would try to remove.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`sweep_dry_run`](crate::tracefs::sweep_dry_run).
    pub fn sweep_dry_run(&self, mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
        self.sweep_each(true, removed_only(&mut each))
    }

    /// Sweeps as [`sweep`](Self::sweep) does, or as [`sweep_dry_run`](Self::sweep_dry_run). It also
    /// lists the events that are in use.
    ///
    /// It calls `each` with every event in this crate's groups. The second argument is true for an
    /// event that is removed, or that a sweep would remove. It is false for an event in use.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`sweep`](crate::tracefs::sweep()).
    pub fn sweep_each(
        &self,
        dry_run: bool,
        mut each: impl FnMut(&EventLine<'_>, bool),
    ) -> Result<Swept, Error> {
        self.sweep_dyn(dry_run, &mut each)
    }

    // In a frame of its own, beside that of who prints the events.
    #[inline(never)]
    fn sweep_dyn(
        &self,
        dry_run: bool,
        each: &mut dyn FnMut(&EventLine<'_>, bool),
    ) -> Result<Swept, Error> {
        let tracefs = self.tracefs().map_err(no_tracefs)?;
        sweep_in(tracefs.as_fd(), dry_run, each)
    }

    /// Returns whether the kernel is known not to have perf links.
    #[inline]
    pub(crate) fn has_no_perf_link(&self) -> bool {
        matches!(self.perf_link.get(), Some(Support::No(_)))
    }

    /// Returns whether all the needs of a mode are known to be met.
    #[inline]
    pub(crate) fn has_met(&self, mode: AttachMode, retprobe: bool) -> bool {
        self.met.load(Ordering::Relaxed) & met_bit(mode, retprobe) != 0
    }

    /// Returns the first need of a mode that is not certainly met. If `prog` is given, the probe
    /// for perf links uses it.
    pub(crate) fn unmet(
        &self,
        mode: AttachMode,
        retprobe: bool,
        prog: Option<BorrowedFd<'_>>,
    ) -> Option<(Need, Support)> {
        if self.has_met(mode, retprobe) {
            return None;
        }
        if !mode.uses_tracefs() {
            // If the PMU is found, that also answers whether events may be opened.
            self.pmu();
        }
        for need in Need::of(mode, retprobe) {
            let support = self.support(*need, prog);
            if !support.is_yes() {
                return Some((*need, support));
            }
        }
        self.met
            .fetch_or(met_bit(mode, retprobe), Ordering::Relaxed);
        None
    }

    fn support(&self, need: Need, prog: Option<BorrowedFd<'_>>) -> Support {
        if let Some(features) = self.features.get() {
            return features.support(need);
        }
        match need {
            Need::PerfEvent => self.perf_event(),
            Need::KprobePmu => self.pmu().support,
            Need::RetprobeBit => features::retprobe_support(self.pmu().retprobe_bit),
            Need::PerfLink => self.perf_link(prog),
            Need::Tracefs => self.tracefs_support(),
            Need::KprobeEvents => self.kprobe_events(),
        }
    }

    /// Returns the CPU to open events on.
    pub(crate) fn cpu(&self) -> u32 {
        *self.cpu.get_or(first_allowed_cpu)
    }

    /// Returns the kprobe PMU: its support, its type, and the bit of `config` that makes a return
    /// probe.
    pub(crate) fn pmu(&self) -> &Pmu {
        let sysfs = || {
            let sysfs = if FILES { self.sysfs().ok() } else { None };
            sysfs.map(AsFd::as_fd)
        };
        self.pmu.get_or(|| Pmu::find(self.cpu(), sysfs))
    }

    fn perf_event(&self) -> Support {
        *self.perf_event.get_or(|| match self.pmu.get() {
            Some(pmu) if pmu.is_open_to_us() => Support::Yes,
            _ => probes::perf_event(self.cpu()),
        })
    }

    fn perf_link(&self, prog: Option<BorrowedFd<'_>>) -> Support {
        if let Some(kept) = self.perf_link.get() {
            return *kept;
        }
        match probes::perf_link(prog) {
            REFUSED_PROGRAM => REFUSED_PROGRAM,
            support => *self.perf_link.get_or(|| support),
        }
    }

    /// Returns whether the kernel has links to many functions. If `prog` is given, the probe uses
    /// it.
    pub(crate) fn multi(&self, session: bool, prog: Option<BorrowedFd<'_>>) -> Support {
        let (bit, attach_type) = if session {
            (HAS_SESSION, BPF_TRACE_KPROBE_SESSION)
        } else {
            (HAS_MULTI, BPF_TRACE_KPROBE_MULTI)
        };
        if let Some(features) = self.features.get() {
            return if session {
                features.kprobe_session
            } else {
                features.kprobe_multi
            };
        }
        if self.knows(bit) {
            return Support::Yes;
        }
        let support = probes::multi(attach_type, prog);
        if support.is_yes() {
            self.known.fetch_or(bit, Ordering::Relaxed);
        }
        support
    }

    /// Returns whether the kernel has links to many functions that take this program.
    pub(crate) fn takes_multi(session: bool, prog: BorrowedFd<'_>) -> bool {
        let attach_type = if session {
            BPF_TRACE_KPROBE_SESSION
        } else {
            BPF_TRACE_KPROBE_MULTI
        };
        let answer = link_create_multi_bad_address(prog, attach_type).map(drop);
        answer == Err(Errno::FAULT)
    }

    /// Returns whether the kernel compares a name with each of its symbols to find it, as it did
    /// until Linux 6.1.
    ///
    /// Then it is faster to attach to many functions
    /// [by address](crate::Target::with_address). It asks the kernel once.
    pub fn looks_up_slowly(&self) -> bool {
        if self.knows(LOOKUP_ASKED) {
            return self.knows(LOOKUP_SLOW);
        }
        let pmu = self.pmu();
        let is_slow = pmu.support.is_yes() && probes::slow_lookup(pmu.r#type, self.cpu());
        let answer = if is_slow { LOOKUP_SLOW } else { 0 };
        self.known
            .fetch_or(LOOKUP_ASKED | answer, Ordering::Relaxed);
        is_slow
    }

    /// Returns whether an answer is known.
    fn knows(&self, bit: u8) -> bool {
        self.known.load(Ordering::Relaxed) & bit != 0
    }

    fn tracefs_support(&self) -> Support {
        if !FILES {
            return Support::no(NO_FILES, Cause::NoTracefs);
        }
        match self.tracefs() {
            Ok(_) => Support::Yes,
            Err(errno) => match Cause::out_of(errno) {
                Some(cause) => Support::unknown(errno, cause),
                None => Support::no(errno, Cause::NoTracefs),
            },
        }
    }

    fn kprobe_events(&self) -> Support {
        if !FILES {
            return self.tracefs_support();
        }
        *self.kprobe_events.get_or(|| {
            let Ok(tracefs) = self.tracefs() else {
                return self.tracefs_support();
            };
            // A kernel can be built without file locks.
            let open_and_lock = || {
                let file = open_kprobe_events(tracefs.as_fd())?;
                // No event has this number.
                let name = EventName::new(self.group(), u32::MAX);
                lock_byte(file.as_fd(), name.owner_byte())
            };
            match open_and_lock() {
                Ok(()) => Support::Yes,
                // A kernel that was locked down at boot has not made the files of tracefs.
                Err(Errno::NOENT) if self.pmu().support == LOCKED_DOWN => {
                    Support::no(Errno::NOENT, Cause::Lockdown)
                }
                Err(errno) => match Cause::out_of(errno) {
                    Some(cause) => Support::unknown(errno, cause),
                    None => Support::no(errno, kprobe_events_cause(errno)),
                },
            }
        })
    }

    /// Checks that `kprobe_events` takes a maxactive. A tracefs mode is available.
    #[inline(never)]
    pub(crate) fn check_maxactive(&self) -> Result<(), Error> {
        if self.knows(TAKES_MAXACTIVE) {
            return Ok(());
        }
        let takes = self
            .tracefs()
            .and_then(|tracefs| takes_maxactive(tracefs.as_fd()));
        let error = match takes {
            Ok(true) => {
                self.known.fetch_or(TAKES_MAXACTIVE, Ordering::Relaxed);
                return Ok(());
            }
            Ok(false) => Error::invalid(Invalid::MaxactiveOnKernel).at(Step::ProbeKernel),
            Err(errno) => {
                let cause = Cause::out_of(errno).unwrap_or(Cause::Unknown);
                Error::new(Step::ProbeKernel, errno, cause)
            }
        };
        Err(error)
    }

    pub(crate) fn tracefs_dir(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.tracefs().map(AsFd::as_fd)
    }

    /// Returns the part of the event group that is this value's own.
    pub(crate) fn group(&self) -> u64 {
        *self.group.get_or(probes::random)
    }

    pub(crate) fn next_event(&self) -> u32 {
        self.next_event.fetch_add(1, Ordering::Relaxed)
    }
}
