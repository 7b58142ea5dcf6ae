//! How a program is attached, and what each mode needs from the kernel.

use core::fmt;
use core::str::FromStr;

use super::invalid::{Invalid, ParseError};
use crate::text::texts;

/// Selects how a program is attached: where the event comes from, and what binds the program to it.
///
/// | `AttachMode` | `PROBE_ATTACH_MODE_…` | event | bound by | kernel | cookie | maxactive |
/// |---|---|---|---|---|---|---|
/// | [`Link`] | `LINK` (3) | kprobe PMU | `BPF_LINK_CREATE` | 5.15 | yes | no |
/// | [`Perf`] | `PERF` (2) | kprobe PMU | ioctl `SET_BPF` | 4.17 | no | no |
/// | [`LegacyLink`] | none | tracefs | `BPF_LINK_CREATE` | 5.15 | yes | yes |
/// | [`Legacy`] | `LEGACY` (1) | tracefs | ioctl `SET_BPF` | 4.1 | no | yes (4.12) |
///
/// The second column has libbpf's names. libbpf uses `LegacyLink` too, but only for its default
/// mode, and has no name for it.
///
/// libbpf's `PROBE_ATTACH_MODE_DEFAULT` (0) is not a mode. It asks for the first row that both the
/// kernel and the request allow. [`KprobeOpts::attach_mode`] asks for the same if it is [`None`].
///
/// [`Link`]: Self::Link
/// [`Perf`]: Self::Perf
/// [`LegacyLink`]: Self::LegacyLink
/// [`Legacy`]: Self::Legacy
/// [`KprobeOpts::attach_mode`]: crate::KprobeOpts::attach_mode
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachMode {
    /// Uses an event of the kprobe PMU, bound by a BPF link.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15 (commit b89fbfbb854c).
    #[doc(alias = "PROBE_ATTACH_MODE_LINK")]
    Link,
    /// Uses an event of the kprobe PMU, bound by ioctl.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.17 (commit e12f03d7031a).
    #[doc(alias = "PROBE_ATTACH_MODE_PERF")]
    Perf,
    /// Uses an event defined in tracefs, bound by a BPF link.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15.
    LegacyLink,
    /// Uses an event defined in tracefs, bound by ioctl.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1 (commit 2541517c32be).
    #[doc(alias = "PROBE_ATTACH_MODE_LEGACY")]
    Legacy,
}

impl AttachMode {
    /// Lists every mode, in the order in which the default choice tries them.
    pub const ALL: [Self; 4] = [Self::Link, Self::Perf, Self::LegacyLink, Self::Legacy];

    texts! {
        /// Returns the name that a probe's text and the program's output use: `link`, `perf`,
        /// `legacy-link` or `legacy`.
        #[must_use]
        pub fn name(AttachMode) {
            Link => "link",
            Perf => "perf",
            LegacyLink => "legacy-link",
            Legacy => "legacy",
        }
    }

    /// Reads the [name](Self::name) of a mode.
    pub(super) fn from_bytes(name: &[u8]) -> Result<Self, ParseError> {
        let mode = Self::ALL.iter().find(|mode| mode.name().as_bytes() == name);
        mode.copied()
            .ok_or(ParseError::new(0, Invalid::UnknownMode))
    }

    /// Returns whether the event is defined in tracefs, rather than opened from the kprobe PMU.
    #[must_use]
    pub const fn uses_tracefs(self) -> bool {
        matches!(self, Self::LegacyLink | Self::Legacy)
    }

    /// Returns whether a BPF link binds the program, rather than an ioctl.
    #[must_use]
    pub const fn uses_link(self) -> bool {
        matches!(self, Self::Link | Self::LegacyLink)
    }
}

/// Reads the [name](AttachMode::name) of a mode. Any other text is [`Invalid::UnknownMode`].
impl FromStr for AttachMode {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, ParseError> {
        Self::from_bytes(name.as_bytes())
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Names a feature of the kernel that a mode needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// [`perf_event_open(2)`] of an event that covers all processes.
    ///
    /// [`perf_event_open(2)`]: https://man7.org/linux/man-pages/man2/perf_event_open.2.html
    PerfEvent,
    /// The kprobe PMU.
    KprobePmu,
    /// The bit of the PMU's `config` that makes a return probe.
    RetprobeBit,
    /// The command `BPF_LINK_CREATE` of [`bpf(2)`], for a perf event.
    ///
    /// [`bpf(2)`]: https://man7.org/linux/man-pages/man2/bpf.2.html
    PerfLink,
    /// The file system tracefs.
    Tracefs,
    /// The file `kprobe_events` in tracefs, open for writing.
    KprobeEvents,
}

impl Need {
    /// Lists what a mode needs, in the order in which an error names what is missing.
    pub(crate) const fn of(mode: AttachMode, retprobe: bool) -> &'static [Self] {
        // The link comes last because the ioctl modes do without it.
        let all: &[Self] = match (mode.uses_tracefs(), retprobe) {
            (false, false) => &[Self::PerfEvent, Self::KprobePmu, Self::PerfLink],
            (false, true) => &[
                Self::PerfEvent,
                Self::KprobePmu,
                Self::RetprobeBit,
                Self::PerfLink,
            ],
            (true, _) => &[
                Self::PerfEvent,
                Self::Tracefs,
                Self::KprobeEvents,
                Self::PerfLink,
            ],
        };
        match all {
            [event @ .., _] if !mode.uses_link() => event,
            all => all,
        }
    }
}

impl Need {
    texts! {
        fn name(Need) {
            PerfEvent => "perf_event_open(2) for all processes",
            KprobePmu => "the kprobe PMU",
            RetprobeBit => "a known retprobe bit of the kprobe PMU",
            PerfLink => "BPF links to perf events",
            Tracefs => "tracefs",
            KprobeEvents => "kprobe_events in tracefs",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_from_its_name_and_from_no_other_text() {
        for mode in AttachMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        for text in ["", "Link", "link ", "legacylink", "default"] {
            let error = ParseError::new(0, Invalid::UnknownMode);
            assert_eq!(text.parse::<AttachMode>(), Err(error), "{text}");
        }
    }
}
