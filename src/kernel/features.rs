//! The features of a kernel, as a plain value.

use rustix::io::Errno;

use crate::error::{Cause, Error};
use crate::request::{AttachMode, Need};

/// Whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is there, and this process may use it.
    Yes,
    /// It is not there, or not for this process.
    No(Reason),
    /// The probe could not tell.
    Unknown(Reason),
}

/// The errno that a probe met, and what it means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The errno.
    pub errno: Errno,
    /// Its meaning.
    pub cause: Cause,
}

impl Support {
    /// Returns whether the answer is yes.
    #[must_use]
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Returns why it is not yes.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Yes => None,
            Self::No(reason) | Self::Unknown(reason) => Some(reason),
        }
    }

    pub(crate) const fn no(errno: Errno, cause: Cause) -> Self {
        Self::No(Reason { errno, cause })
    }

    pub(crate) const fn unknown(errno: Errno, cause: Cause) -> Self {
        Self::Unknown(Reason { errno, cause })
    }

    /// Makes the error of a mode that needs this, which is not there.
    pub(crate) const fn unmet(self, mode: AttachMode, need: Need) -> Error {
        let (errno, cause) = match self.reason() {
            Some(Reason { errno, cause }) => (errno, cause),
            None => (Errno::OPNOTSUPP, Cause::Unknown),
        };
        let certain = matches!(self, Self::No(_));
        Error::unmet(mode, need, errno, cause, certain)
    }
}

/// The features of a kernel, as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// `perf_event_open(2)` opens an event that is not bound to a process, as every mode does. It
    /// takes `CAP_PERFMON` (`CAP_SYS_ADMIN` before Linux 5.8, and with Debian's
    /// `perf_event_paranoid` of 3).
    pub perf_event: Support,
    /// A CPU that is online, to open events on: the first that this thread may run on. The program
    /// runs on every CPU all the same.
    pub cpu: u32,
    /// The kprobe PMU: Linux 4.17 (commit e12f03d7031a).
    pub kprobe_pmu: Support,
    /// The type of the kprobe PMU: 6, and 8 since Linux 6.5.
    pub pmu_type: u32,
    /// The type that sysfs has for it, as a cross-check; the one that is used is the verified one.
    pub pmu_type_in_sysfs: Option<u32>,
    /// The bit of `config` that makes a return probe, verified as the type is: always 0 so far.
    /// [`None`] where no bit does.
    pub retprobe_bit: Option<u8>,
    /// `BPF_LINK_CREATE` of a perf event, with a cookie: Linux 5.15 (commit b89fbfbb854c).
    pub perf_link: Support,
    /// tracefs is mounted, or can be: Linux 4.1.
    pub tracefs: Support,
    /// `kprobe_events` in tracefs can be opened for writing.
    pub kprobe_events: Support,
    /// `kprobe.multi` links: Linux 5.18 (commit 0dcac2725406) with `CONFIG_FPROBE`.
    pub kprobe_multi: Support,
    /// `kprobe.session` links: Linux 6.10 (commit 535a3692ba72).
    pub kprobe_session: Support,
}

impl Features {
    /// Makes the features of a kernel that has everything, with the kprobe PMU of Linux 6.5: a
    /// starting point for plans on other kernels than the running one.
    ///
    /// ```
    /// use kprobe_attach::kernel::{Features, Reason, Support};
    /// use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Target, error::Cause};
    ///
    /// let mut features = Features::everything();
    /// let reason = Reason { errno: Errno::INVAL, cause: Cause::NoPerfLink };
    /// features.perf_link = Support::No(reason);
    /// let kernel = Kernel::with_features(features);
    /// let plan = kernel.plan(Target::symbol("vfs_read")?, &KprobeOpts::new())?;
    /// assert_eq!(plan.mode(), AttachMode::Perf);
    /// # Ok::<(), kprobe_attach::Error>(())
    /// ```
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            perf_event: Support::Yes,
            cpu: 0,
            kprobe_pmu: Support::Yes,
            pmu_type: 8,
            pmu_type_in_sysfs: Some(8),
            retprobe_bit: Some(0),
            perf_link: Support::Yes,
            tracefs: Support::Yes,
            kprobe_events: Support::Yes,
            kprobe_multi: Support::Yes,
            kprobe_session: Support::Yes,
        }
    }

    /// Returns one of the features that modes need.
    #[must_use]
    pub const fn support(&self, need: Need) -> Support {
        match need {
            Need::PerfEvent => self.perf_event,
            Need::KprobePmu => self.kprobe_pmu,
            Need::RetprobeBit => retprobe_support(self.retprobe_bit),
            Need::PerfLink => self.perf_link,
            Need::Tracefs => self.tracefs,
            Need::KprobeEvents => self.kprobe_events,
        }
    }

    /// Returns the first thing that a mode needs and that is not surely there, for an entry or a
    /// return probe.
    #[must_use]
    pub fn unmet(&self, mode: AttachMode, retprobe: bool) -> Option<(Need, Support)> {
        let unmet = Need::of(mode, retprobe)
            .iter()
            .find(|need| !self.support(**need).is_yes());
        unmet.map(|need| (*need, self.support(*need)))
    }

    /// Returns whether a mode can be used at all.
    #[must_use]
    pub fn mode(&self, mode: AttachMode) -> Support {
        self.unmet(mode, false)
            .map_or(Support::Yes, |(_, support)| support)
    }

    /// Returns the mode of a plain entry probe when none is asked for.
    #[must_use]
    pub fn default_mode(&self) -> Option<AttachMode> {
        AttachMode::ALL
            .into_iter()
            .find(|mode| self.mode(*mode).is_yes())
    }
}

/// Whether there is a bit that makes a return probe.
pub(super) const fn retprobe_support(bit: Option<u8>) -> Support {
    match bit {
        Some(0..=63) => Support::Yes,
        _ => Support::unknown(Errno::INVAL, Cause::NoKprobePmu),
    }
}
