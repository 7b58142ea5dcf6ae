//! How a program is attached, and what each mode needs of the kernel.

use core::fmt;

/// How a program is attached: where the event comes from, and what binds the program to it.
///
/// | `AttachMode` | libbpf | event | bound by | kernel | cookie | maxactive |
/// |---|---|---|---|---|---|---|
/// | [`Link`](Self::Link) | `PROBE_ATTACH_MODE_LINK` (3) | kprobe PMU | `BPF_LINK_CREATE` | 5.15 | yes | no |
/// | [`Perf`](Self::Perf) | `PROBE_ATTACH_MODE_PERF` (2) | kprobe PMU | ioctl `SET_BPF` | 4.17 | no | no |
/// | [`LegacyLink`](Self::LegacyLink) | none (what `DEFAULT` can fall into) | tracefs | `BPF_LINK_CREATE` | 5.15 | yes | yes |
/// | [`Legacy`](Self::Legacy) | `PROBE_ATTACH_MODE_LEGACY` (1) | tracefs | ioctl `SET_BPF` | 4.1 | no | yes (4.12) |
///
/// libbpf's `PROBE_ATTACH_MODE_DEFAULT` (0) is no mode but the wish for the first row that the
/// kernel and the request leave: [`KprobeOpts::attach_mode`](crate::KprobeOpts::attach_mode) unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachMode {
    /// An event of the kprobe PMU, held by a BPF link. Linux 5.15 (commit b89fbfbb854c).
    #[doc(alias = "PROBE_ATTACH_MODE_LINK")]
    Link,
    /// An event of the kprobe PMU, with the program set by ioctl. Linux 4.17 (commit e12f03d7031a).
    #[doc(alias = "PROBE_ATTACH_MODE_PERF")]
    Perf,
    /// An event defined in tracefs, held by a BPF link. Linux 5.15.
    LegacyLink,
    /// An event defined in tracefs, with the program set by ioctl. Linux 4.1 (commit 2541517c32be).
    #[doc(alias = "PROBE_ATTACH_MODE_LEGACY")]
    Legacy,
}

impl AttachMode {
    /// Every mode, in the order in which the default choice tries them.
    pub const ALL: [Self; 4] = [Self::Link, Self::Perf, Self::LegacyLink, Self::Legacy];

    /// The name in a probe's text and in the program's output: `link`, `perf`, `legacy-link`,
    /// `legacy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Perf => "perf",
            Self::LegacyLink => "legacy-link",
            Self::Legacy => "legacy",
        }
    }

    /// Whether the event is defined in tracefs, rather than opened from the kprobe PMU.
    #[must_use]
    pub const fn uses_tracefs(self) -> bool {
        matches!(self, Self::LegacyLink | Self::Legacy)
    }

    /// Whether the program is bound by a BPF link, rather than by ioctl.
    #[must_use]
    pub const fn uses_link(self) -> bool {
        matches!(self, Self::Link | Self::LegacyLink)
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A thing that a mode needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// `perf_event_open(2)` of an event on all processes
    PerfEvent,
    /// The kprobe PMU
    KprobePmu,
    /// The bit of the PMU's `config` that makes a return probe
    RetprobeBit,
    /// `BPF_LINK_CREATE` of a perf event
    PerfLink,
    /// tracefs
    Tracefs,
    /// `kprobe_events` in tracefs, open for writing
    KprobeEvents,
}

impl Need {
    /// Lists what a mode needs, in the order in which it is missed.
    pub(crate) const fn of(mode: AttachMode, retprobe: bool) -> &'static [Self] {
        // The link is the last, which the ioctl modes do without.
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

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfEvent => "perf_event_open(2) on all processes",
            Self::KprobePmu => "the kprobe PMU",
            Self::RetprobeBit => "a known retprobe bit of the kprobe PMU",
            Self::PerfLink => "BPF links to perf events",
            Self::Tracefs => "tracefs",
            Self::KprobeEvents => "kprobe_events in tracefs",
        })
    }
}
