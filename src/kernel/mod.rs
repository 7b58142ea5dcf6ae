//! The kernel: what it has, as far as this process may use it, found out by asking when the answer
//! is needed.

mod features;
mod module;
mod pmu;
mod probes;

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

use crate::diagnose::{kprobe_events_cause, out_of};
use crate::error::{Cause, Error};
use crate::mount::{FILES, Mount, NO_FILES};
use crate::request::{AttachMode, Need};
use crate::sys::uapi::{BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION};
use crate::sys::{Once, first_allowed_cpu, lock_byte};
use crate::tracefs::{EventLine, Swept, no_tracefs, open_kprobe_events, sweep_in};
use pmu::LOCKED_DOWN;
use probes::REFUSED_PROGRAM;

pub(crate) use pmu::Pmu;

pub use features::{Features, Reason, Support};
#[cfg(fuzzing)]
pub use pmu::{parse_pmu_type, parse_retprobe_format};

/// The running kernel: what it has, and its tracefs and sysfs.
///
/// It is asked when a plan needs the answer, each question at most once a `Kernel`, in the order of
/// the table of [`AttachMode`]. A plain attach where links exist asks three: which CPU is online,
/// where the kprobe PMU is, and whether there are perf links. It opens no file and loads no
/// program. [`features`](Self::features) asks everything.
///
/// To attach many probes use one `Kernel`: an attach by the PMU is then two system calls, and in
/// the mode [`Link`](AttachMode::Link) the close of the event's own file descriptor.
///
/// An answer is kept as long as the `Kernel`, also an [unknown](Support::Unknown) one: after a lack
/// of file descriptors or memory, make a new one. Only what may be due to the program that was
/// handed over is asked again with the next program.
///
/// It mounts nothing unless it is [made to](Self::with_detached_mounts). Looking for tracefs may
/// wake the automount in debugfs, as [`Mount::find_tracefs`] does.
///
/// The names of tracefs events are told apart within one `Kernel`, so it is not to be shared over
/// `fork(2)`: of two processes that come to the same name, the second is refused with
/// [`Cause::EventExists`].
#[derive(Debug)]
pub struct Kernel {
    detached_mounts: bool,
    /// What is known to have all that it needs: a bit for each mode, and for its return probes.
    met: AtomicU8,
    /// All the answers, where they are given or have all been asked for.
    features: Once<Features>,
    cpu: Once<u32>,
    pmu: Once<Pmu>,
    perf_event: Once<Support>,
    perf_link: Once<Support>,
    kprobe_events: Once<Support>,
    tracefs: Once<Result<Mount, Errno>>,
    sysfs: Once<Result<Mount, Errno>>,
    /// The random part of the event group.
    group: Once<u64>,
    /// The number of the next event name.
    next_event: AtomicU32,
}

static_assertions::assert_impl_all!(Kernel: Send, Sync);

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel {
    /// Makes a `Kernel` that has not been asked anything.
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
            tracefs: Once::new(),
            sysfs: Once::new(),
            group: Once::new(),
            next_event: AtomicU32::new(0),
        }
    }

    /// Makes a `Kernel` that makes a [detached mount](Mount) of tracefs or sysfs where it needs one
    /// that is not mounted. Before Linux 5.2 that forks a child process.
    #[must_use]
    pub const fn with_detached_mounts() -> Self {
        let mut kernel = Self::new();
        kernel.detached_mounts = true;
        kernel
    }

    /// Makes a `Kernel` and [asks it](Self::ask_with) with a loaded program.
    #[must_use]
    pub fn with_program(prog: impl AsFd) -> Self {
        let kernel = Self::new();
        kernel.ask_with(prog);
        kernel
    }

    /// Asks, with a loaded program, whether there are perf links, so that neither a plan nor
    /// [`features`](Self::features) need load a program for that.
    /// [`attach_kprobe`](Self::attach_kprobe) asks with the program that it attaches.
    ///
    /// Nothing is learned from a program that is not for kprobes, unless this process may load one
    /// that is.
    pub fn ask_with(&self, prog: impl AsFd) {
        self.perf_link(Some(prog.as_fd()));
    }

    /// Makes a kernel that has these features and need not be the running one: for plans only,
    /// since it has no tracefs directory.
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
        kernel
    }

    /// Asks the kernel everything, and returns the answers. Loads programs of two instructions for
    /// the purpose.
    ///
    /// It cannot fail: what a probe could not tell is [`Support::Unknown`] and has its errno.
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
                kprobe_multi: probes::multi(BPF_TRACE_KPROBE_MULTI),
                kprobe_session: probes::multi(BPF_TRACE_KPROBE_SESSION),
            }
        })
    }

    /// Returns the tracefs that was found, or the [detached mount](Self::with_detached_mounts) of
    /// it. It is held for as long as this value.
    ///
    /// # Errors
    ///
    /// The errno of [`Mount::find_tracefs`], or of [`Mount::tracefs`] where detached mounts are
    /// allowed.
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

    /// Returns the sysfs that was found, or the [detached mount](Self::with_detached_mounts) of it.
    /// It is held for as long as this value.
    ///
    /// # Errors
    ///
    /// As of [`tracefs`](Self::tracefs). Only the cross-check of the PMU is lost then.
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

    /// Removes the events that dead processes left, as [`sweep`](crate::tracefs::sweep()) does, in
    /// the tracefs of this value.
    ///
    /// # Errors
    ///
    /// As of [`sweep`](crate::tracefs::sweep()).
    pub fn sweep(&self, mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
        self.sweep_or_not(false, &mut each)
    }

    /// Calls `each` with every event that [`sweep`](Self::sweep) would try to remove.
    ///
    /// # Errors
    ///
    /// As of [`sweep_dry_run`](crate::tracefs::sweep_dry_run).
    pub fn sweep_dry_run(&self, mut each: impl FnMut(&EventLine<'_>)) -> Result<Swept, Error> {
        self.sweep_or_not(true, &mut each)
    }

    fn sweep_or_not(
        &self,
        dry_run: bool,
        each: &mut dyn FnMut(&EventLine<'_>),
    ) -> Result<Swept, Error> {
        let tracefs = self.tracefs().map_err(no_tracefs)?;
        sweep_in(tracefs.as_fd(), dry_run, each)
    }

    /// Returns the first thing that a mode needs and that is not surely there. `prog`, where it is
    /// given, is asked about perf links with.
    #[inline]
    pub(crate) fn unmet(
        &self,
        mode: AttachMode,
        retprobe: bool,
        prog: Option<BorrowedFd<'_>>,
    ) -> Option<(Need, Support)> {
        let bit = 1 << (2 * mode as u8 + u8::from(retprobe));
        if self.met.load(Ordering::Relaxed) & bit != 0 {
            return None;
        }
        let unmet = self.ask(mode, retprobe, prog);
        if unmet.is_none() {
            self.met.fetch_or(bit, Ordering::Relaxed);
        }
        unmet
    }

    fn ask(
        &self,
        mode: AttachMode,
        retprobe: bool,
        prog: Option<BorrowedFd<'_>>,
    ) -> Option<(Need, Support)> {
        if !mode.uses_tracefs() {
            // A PMU that is found answers whether events may be opened, too.
            self.pmu();
        }
        for need in Need::of(mode, retprobe) {
            let support = self.support(*need, prog);
            if !support.is_yes() {
                return Some((*need, support));
            }
        }
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

    /// The CPU to open events on.
    pub(crate) fn cpu(&self) -> u32 {
        *self.cpu.get_or(first_allowed_cpu)
    }

    /// The kprobe PMU: whether it is there, its type, and the bit of `config` that makes a return
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

    fn tracefs_support(&self) -> Support {
        if !FILES {
            return Support::no(NO_FILES, Cause::NoTracefs);
        }
        match self.tracefs() {
            Ok(_) => Support::Yes,
            Err(errno) => match out_of(errno) {
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
            // A kernel may be built without file locks.
            let open_and_lock = || {
                let file = open_kprobe_events(tracefs.as_fd())?;
                lock_byte(file.as_fd(), self.group() >> 1)
            };
            match open_and_lock() {
                Ok(()) => Support::Yes,
                // A kernel that is locked down since boot has not made the files of tracefs.
                Err(Errno::NOENT) if self.pmu().support == LOCKED_DOWN => {
                    Support::no(Errno::NOENT, Cause::Lockdown)
                }
                Err(errno) => match out_of(errno) {
                    Some(cause) => Support::unknown(errno, cause),
                    None => Support::no(errno, kprobe_events_cause(errno)),
                },
            }
        })
    }

    pub(crate) fn tracefs_dir(&self) -> Option<BorrowedFd<'_>> {
        self.tracefs().ok().map(AsFd::as_fd)
    }

    /// The random part of the event group.
    pub(crate) fn group(&self) -> u64 {
        *self.group.get_or(probes::random)
    }

    pub(crate) fn next_event(&self) -> u32 {
        self.next_event.fetch_add(1, Ordering::Relaxed)
    }
}
