//! The options of a probe.

use super::mode::AttachMode;

/// The largest `maxactive` that the kernel takes: `KRETPROBE_MAXACTIVE_MAX` of
/// `kernel/trace/trace_kprobe.c`.
pub const MAX_MAXACTIVE: u32 = 4096;

/// Holds the options of a probe: the fields of libbpf's `struct bpf_kprobe_opts`, and more.
///
/// ```
/// use kprobe_attach::{AttachMode, KprobeOpts};
///
/// let opts = KprobeOpts::new().retprobe(true).bpf_cookie(7).attach_mode(AttachMode::Link);
/// assert_eq!(opts.bpf_cookie, 7);
/// ```
#[doc(alias = "bpf_kprobe_opts")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KprobeOpts {
    /// The value that `bpf_get_attach_cookie()` returns to the program; 0 means no cookie.
    ///
    /// Only a link carries a cookie.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15.
    pub bpf_cookie: u64,
    /// The offset in bytes from the start of the function, at most `u32::MAX`.
    ///
    /// It must be 0 for a return probe, and for an address.
    pub offset: u64,
    /// Whether the program runs when the function returns, rather than when it is entered.
    pub retprobe: bool,
    /// The mode to use. [`None`] chooses the first mode that the kernel and the request allow.
    pub attach_mode: Option<AttachMode>,
    /// The number of calls of the function that a return probe can follow at once.
    ///
    /// It is at most [`MAX_MAXACTIVE`]. The probe misses the return of any further call. Only
    /// return probes in the tracefs modes take it.
    ///
    /// 0 leaves the number to the kernel. Since Linux 6.2 (commit 3b7ddab8a19a) it is
    /// `max(10, 2 * CPUs)`, of the possible CPUs. Before, it is that only with full preemption, and
    /// otherwise the number of CPUs.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.12 (commit 696ced4fb1d7). On an older kernel, a request for it is refused.
    pub maxactive: u32,
    /// Whether to refuse an offset that is beyond the end of the function.
    ///
    /// Every kernel accepts such an offset, and probes another function. The check is off by
    /// default, because it reads the whole of `/proc/kallsyms`.
    ///
    /// The error has the step [`Step::ResolveSymbol`], and one of these errnos:
    ///
    /// * `EINVAL`: the offset is beyond the end of the function.
    /// * `EPERM`: the kernel hides addresses from this process.
    /// * `ENOENT`: `/proc/kallsyms` does not list the function.
    /// * `ENODATA`: `/proc/kallsyms` does not show where the function ends.
    /// * Any other: `/proc/kallsyms` cannot be read.
    ///
    /// [`Step::ResolveSymbol`]: crate::error::Step::ResolveSymbol
    pub within_function: bool,
}

impl KprobeOpts {
    /// Makes the options of an entry probe at offset 0, without a cookie, and with the default
    /// choice of a mode.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bpf_cookie: 0,
            offset: 0,
            retprobe: false,
            attach_mode: None,
            maxactive: 0,
            within_function: false,
        }
    }

    /// Sets [the cookie](Self#structfield.bpf_cookie).
    #[must_use]
    pub const fn bpf_cookie(mut self, bpf_cookie: u64) -> Self {
        self.bpf_cookie = bpf_cookie;
        self
    }

    /// Sets [the offset](Self#structfield.offset) in bytes.
    #[must_use]
    pub const fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Makes the probe a [return probe](Self#structfield.retprobe), or an entry probe.
    #[must_use]
    pub const fn retprobe(mut self, retprobe: bool) -> Self {
        self.retprobe = retprobe;
        self
    }

    /// Sets [the mode](Self#structfield.attach_mode) to use. [`None`] is the default choice.
    #[must_use]
    pub fn attach_mode(mut self, attach_mode: impl Into<Option<AttachMode>>) -> Self {
        self.attach_mode = attach_mode.into();
        self
    }

    /// Sets whether to check that the offset is [within the
    /// function](Self#structfield.within_function).
    #[must_use]
    pub const fn within_function(mut self, within_function: bool) -> Self {
        self.within_function = within_function;
        self
    }

    /// Sets [maxactive](Self#structfield.maxactive).
    #[must_use]
    pub const fn maxactive(mut self, maxactive: u32) -> Self {
        self.maxactive = maxactive;
        self
    }
}
