//! The options of a probe.

use super::mode::AttachMode;

/// The largest `maxactive`: `KRETPROBE_MAXACTIVE_MAX` in `kernel/trace/trace_kprobe.c`.
pub const MAX_MAXACTIVE: u32 = 4096;

/// How a kernel function is to be probed: the fields of libbpf's `struct bpf_kprobe_opts`, and
/// `maxactive`.
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
    /// The value that `bpf_get_attach_cookie()` gives the program; 0 is no cookie. Only a link
    /// carries one (Linux 5.15).
    pub bpf_cookie: u64,
    /// Bytes from the start of the function; 0 to `u32::MAX`, and 0 on a return probe or an
    /// address.
    pub offset: u64,
    /// Whether the program runs when the function returns, rather than when it is entered.
    pub retprobe: bool,
    /// The mode to use and no other; [`None`] leaves the choice to the kernel's features.
    pub attach_mode: Option<AttachMode>,
    /// How many calls of a function may be under way at once without a return being missed, 1 to
    /// [`MAX_MAXACTIVE`]; 0 leaves it to the kernel (`max(10, 2 * CPUs)`). For return probes in the
    /// tracefs modes, Linux 4.12 (commit 696ced4fb1d7).
    pub maxactive: u32,
    /// Whether an offset that is beyond the end of the function is refused, with `EINVAL` at
    /// [`Step::ResolveSymbol`](crate::error::Step::ResolveSymbol): every kernel takes it, and
    /// probes another function. Off unless asked for, since it reads the whole of `/proc/kallsyms`:
    /// what that answers is the error where it cannot be read, `EPERM` where it hides addresses,
    /// `ENOENT` where it has no such function, and `ENODATA` where it does not show the end of one.
    pub within_function: bool,
}

impl KprobeOpts {
    /// An entry probe at offset 0, without cookie, in the first mode that fits.
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

    /// Asks for a [return probe](Self#structfield.retprobe).
    #[must_use]
    pub const fn retprobe(mut self, retprobe: bool) -> Self {
        self.retprobe = retprobe;
        self
    }

    /// Asks for [one mode](Self#structfield.attach_mode) and no other.
    #[must_use]
    pub const fn attach_mode(mut self, attach_mode: AttachMode) -> Self {
        self.attach_mode = Some(attach_mode);
        self
    }

    /// Asks for a check that the offset is [within the function](Self#structfield.within_function).
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
