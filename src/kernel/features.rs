//! The features of a kernel, as a plain value.

use rustix::io::Errno;

use crate::error::{Cause, Error};
use crate::request::{AttachMode, Need};

/// Answers whether the kernel has a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The kernel has the feature, and this process may use it.
    Yes,
    /// The kernel does not have the feature, or this process may not use it.
    No(Reason),
    /// The probe had no answer.
    Unknown(Reason),
}

/// Holds the errno that a probe met, and its meaning there.
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

    /// Returns the reason if the answer is not yes.
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

    /// Makes the error of a mode that needs this feature, which is not available.
    pub(crate) const fn unmet(self, mode: AttachMode, need: Need) -> Error {
        let (errno, cause) = match self.reason() {
            Some(Reason { errno, cause }) => (errno, cause),
            None => (Errno::OPNOTSUPP, Cause::Unknown),
        };
        let certain = matches!(self, Self::No(_));
        Error::unmet(mode, need, errno, cause, certain)
    }
}

/// Holds the features of a kernel, as far as this process may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Whether [`perf_event_open(2)`] can open an event that covers all processes, as every mode
    /// does.
    ///
    /// This takes `CAP_PERFMON`. Before Linux 5.8, and with Debian's `perf_event_paranoid` of 3, it
    /// takes `CAP_SYS_ADMIN`.
    ///
    /// [`perf_event_open(2)`]: https://man7.org/linux/man-pages/man2/perf_event_open.2.html
    pub perf_event: Support,
    /// The CPU to open events on: the first on which this thread may run. A program runs on every
    /// CPU all the same.
    pub cpu: u32,
    /// Whether the kernel has the kprobe PMU.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.17 (commit e12f03d7031a).
    pub kprobe_pmu: Support,
    /// The verified type of the kprobe PMU: 8 since Linux 6.5, and 6 before.
    pub pmu_type: u32,
    /// The type that sysfs shows, as a cross-check. Events are opened with the verified type.
    pub pmu_type_in_sysfs: Option<u32>,
    /// The bit of `config` that makes a return probe. It is verified like the type, and has always
    /// been 0.
    ///
    /// [`None`] if no bit could be verified.
    pub retprobe_bit: Option<u8>,
    /// Whether `BPF_LINK_CREATE` of [`bpf(2)`] takes a perf event and a cookie.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15 (commit b89fbfbb854c).
    ///
    /// [`bpf(2)`]: https://man7.org/linux/man-pages/man2/bpf.2.html
    pub perf_link: Support,
    /// Whether tracefs is mounted, or a detached mount can be made.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1.
    pub tracefs: Support,
    /// Whether `kprobe_events` in tracefs can be opened for writing.
    pub kprobe_events: Support,
    /// Whether the kernel has `kprobe.multi` links.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.18 (commit 0dcac2725406), built with `CONFIG_FPROBE`.
    pub kprobe_multi: Support,
    /// Whether the kernel has `kprobe.session` links.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.10 (commit 535a3692ba72).
    pub kprobe_session: Support,
}

impl Features {
    /// Makes the features of a kernel that has everything, with the kprobe PMU of Linux 6.5.
    ///
    /// They are a starting point for plans that are not for the running kernel.
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

    /// Returns the support for a feature that modes need.
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

    /// Returns the first need of a mode that is not certainly met, for an entry probe or a return
    /// probe.
    #[must_use]
    pub fn unmet(&self, mode: AttachMode, retprobe: bool) -> Option<(Need, Support)> {
        let unmet = Need::of(mode, retprobe)
            .iter()
            .find(|need| !self.support(**need).is_yes());
        unmet.map(|need| (*need, self.support(*need)))
    }

    /// Returns whether a mode can be used for an entry probe.
    #[must_use]
    pub fn mode(&self, mode: AttachMode) -> Support {
        self.unmet(mode, false)
            .map_or(Support::Yes, |(_, support)| support)
    }

    /// Returns the mode of an entry probe that asks for no mode and has no further options.
    #[must_use]
    pub fn default_mode(&self) -> Option<AttachMode> {
        AttachMode::ALL
            .into_iter()
            .find(|mode| self.mode(*mode).is_yes())
    }
}

/// Returns whether there is a bit that makes a return probe.
pub(super) const fn retprobe_support(bit: Option<u8>) -> Support {
    match bit {
        Some(0..=63) => Support::Yes,
        _ => Support::unknown(Errno::INVAL, Cause::NoKprobePmu),
    }
}
