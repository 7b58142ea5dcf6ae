//! What is wanted: [`Target`], [`KprobeOpts`] and [`AttachMode`], and the rules that a request must keep whatever the
//! kernel can do.

use core::ffi::CStr;
use core::fmt;
use core::str::FromStr;

use crate::request::invalid::Invalid;
use crate::request::spec::ParseError;
use crate::text::split;

/// The longest name that any kernel takes, with its module prefix: `KSYM_NAME_LEN - 1` since Linux 6.1 (commit
/// b8a94bfb3395). Earlier kernels stop at 127 and answer `E2BIG`.
pub const MAX_SYMBOL_LEN: usize = 511;

/// The largest `maxactive`: `KRETPROBE_MAXACTIVE_MAX` in `kernel/trace/trace_kprobe.c`.
pub const MAX_MAXACTIVE: u32 = 4096;

/// How a program is attached: where the event comes from, and what binds the program to it.
///
/// | `AttachMode` | libbpf | event | bound by | kernel | cookie | maxactive |
/// |---|---|---|---|---|---|---|
/// | [`Link`](Self::Link) | `PROBE_ATTACH_MODE_LINK` (3) | kprobe PMU | `BPF_LINK_CREATE` | 5.15 | yes | no |
/// | [`Perf`](Self::Perf) | `PROBE_ATTACH_MODE_PERF` (2) | kprobe PMU | ioctl `SET_BPF` | 4.17 | no | no |
/// | [`LegacyLink`](Self::LegacyLink) | none (what `DEFAULT` can fall into) | tracefs | `BPF_LINK_CREATE` | 5.15 | yes | yes |
/// | [`Legacy`](Self::Legacy) | `PROBE_ATTACH_MODE_LEGACY` (1) | tracefs | ioctl `SET_BPF` | 4.1 | no | yes (4.12) |
///
/// libbpf's `PROBE_ATTACH_MODE_DEFAULT` (0) is no mode but the wish for the first row that the kernel and the request
/// leave: [`KprobeOpts::attach_mode`] unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// The name in a probe's text and in the program's output: `link`, `perf`, `legacy-link`, `legacy`.
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

/// How a kernel function is to be probed: the fields of libbpf's `struct bpf_kprobe_opts`, and `maxactive`.
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
    /// The value that `bpf_get_attach_cookie()` gives the program; 0 is no cookie. Only a link carries one (Linux 5.15).
    pub bpf_cookie: u64,
    /// Bytes from the start of the function; 0 to `u32::MAX`, and 0 on a return probe or an address.
    pub offset: u64,
    /// Whether the program runs when the function returns, rather than when it is entered.
    pub retprobe: bool,
    /// The mode to use and no other; [`None`] leaves the choice to the kernel's features.
    pub attach_mode: Option<AttachMode>,
    /// How many calls of a function may be under way at once without a return being missed, 1 to [`MAX_MAXACTIVE`];
    /// 0 leaves it to the kernel (`max(10, 2 * CPUs)`). For return probes in the tracefs modes, Linux 4.12 (commit
    /// 696ced4fb1d7).
    pub maxactive: u32,
    /// Whether an offset that is beyond the end of the function is refused, with `EINVAL` at
    /// [`Step::ResolveSymbol`](crate::Step::ResolveSymbol): every kernel takes it, and probes another function. Off unless asked
    /// for, since it reads the whole of `/proc/kallsyms`: what that answers is the error where it cannot be read, `EPERM` where it
    /// hides addresses, `ENOENT` where it has no such function, and `ENODATA` where it does not show the end of one.
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

/// What is probed: a kernel function by its name, alone or in a module, or an address in the kernel.
///
/// A `Target` is well formed by construction. Its name reaches a command line of tracefs in the legacy modes, so it may
/// hold only what a symbol is made of: letters, digits, `_`, `.` and `$`, not beginning with a digit.
///
/// ```
/// use kprobe_attach::Target;
///
/// let function = Target::symbol("vfs_read")?;
/// let in_module = Target::in_module("nf_tables", "nft_do_chain")?;
/// assert_eq!(in_module, "nf_tables:nft_do_chain".parse()?);
/// let address: Target = "0xffffffff81234560".parse()?;
/// assert_eq!(address, Target::address(0xffff_ffff_8123_4560));
/// assert!(Target::symbol("vfs_read\n-:kprobes/other").is_err());
/// # Ok::<(), kprobe_attach::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target(Place);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Symbol(Symbol),
    Address(u64),
}

/// `function` or `module:function`, NUL-terminated as the kernel wants it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Symbol {
    bytes: [u8; MAX_SYMBOL_LEN + 1],
    len: usize,
    /// Where the function begins: behind the colon, if there is one.
    function: usize,
}

impl Target {
    /// A function by its name, which may be `module:function` as in libbpf.
    ///
    /// # Errors
    ///
    /// The first byte that no symbol has, or a name that is empty or longer than [`MAX_SYMBOL_LEN`].
    pub fn symbol(name: &str) -> Result<Self, ParseError> {
        Self::from_name(name.as_bytes())
    }

    /// A function of one module, where the name alone may stand for several.
    ///
    /// # Errors
    ///
    /// As for [`symbol`](Self::symbol), at the byte of `module:function`.
    pub fn in_module(module: &str, function: &str) -> Result<Self, ParseError> {
        Self::join(Some(module.as_bytes()), function.as_bytes())
    }

    /// An address in the kernel, as `/proc/kallsyms` has it.
    #[must_use]
    pub const fn address(address: u64) -> Self {
        Self(Place::Address(address))
    }

    /// `[module:]function`, or `0x` and the digits of an address.
    pub(crate) fn from_bytes(text: &[u8]) -> Result<Self, ParseError> {
        match text {
            // A module's name may begin with a digit.
            [b'0', b'x' | b'X', ..] if !text.contains(&b':') => {
                crate::request::spec::number(text).map(Self::address)
            }
            _ => Self::from_name(text),
        }
    }

    fn from_name(name: &[u8]) -> Result<Self, ParseError> {
        match split(name, b':') {
            None => Self::join(None, name),
            Some((module, function)) => Self::join(Some(module), function),
        }
    }

    fn join(module: Option<&[u8]>, function: &[u8]) -> Result<Self, ParseError> {
        let (prefix, colon): (&[u8], &[u8]) = match module {
            None => (&[], &[]),
            Some(module) => {
                check_module(module)?;
                (module, b":")
            }
        };
        let start = prefix.len() + colon.len();
        check_function(function).map_err(|error| error.from(start))?;
        let mut symbol = Symbol {
            bytes: [0; MAX_SYMBOL_LEN + 1],
            len: start + function.len(),
            function: start,
        };
        if symbol.len > MAX_SYMBOL_LEN {
            return Err(ParseError::new(MAX_SYMBOL_LEN, Invalid::NameTooLong));
        }
        let bytes = prefix.iter().chain(colon).chain(function);
        for (to, from) in symbol.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Self(Place::Symbol(symbol)))
    }

    /// The name of the function, without its module.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.name_from(|symbol| symbol.bytes.get(symbol.function..symbol.len))
    }

    /// The name of the module.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        self.name_from(|symbol| symbol.bytes.get(..symbol.function.checked_sub(1)?))
    }

    /// `function` or `module:function`.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name_from(|symbol| symbol.bytes.get(..symbol.len))
    }

    /// A part of the name.
    fn name_from(&self, part: fn(&Symbol) -> Option<&[u8]>) -> Option<&str> {
        match &self.0 {
            Place::Symbol(symbol) => core::str::from_utf8(part(symbol)?).ok(),
            Place::Address(_) => None,
        }
    }

    pub(crate) fn name_c_str(&self) -> Option<&CStr> {
        match &self.0 {
            Place::Symbol(symbol) => CStr::from_bytes_until_nul(&symbol.bytes).ok(),
            Place::Address(_) => None,
        }
    }

    /// The address, where it was given as one.
    #[must_use]
    pub const fn as_address(&self) -> Option<u64> {
        match self.0 {
            Place::Symbol(_) => None,
            Place::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.as_address().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl FromStr for Target {
    type Err = ParseError;

    /// `[module:]function`, or `0x` and the digits of an address.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(text.as_bytes())
    }
}

/// A module's name: letters, digits and `_` (the kernel turns `-` into `_`).
fn check_module(name: &[u8]) -> Result<(), ParseError> {
    if name.is_empty() {
        return Err(ParseError::new(0, Invalid::EmptyModule));
    }
    match name
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_'))
    {
        Some(at) => Err(ParseError::new(at, Invalid::ModuleByte)),
        None => Ok(()),
    }
}

/// A function's name, byte by byte. What else there is has a meaning of its own on a line of `kprobe_events`: white space
/// (0xa0 too is that to the kernel) and newlines part words and commands, `#` starts a comment, `%` a modifier, `+` and `-`
/// an offset, `/` and `:` make a uprobe of it, and a leading digit an address.
fn check_function(name: &[u8]) -> Result<(), ParseError> {
    let invalid = match name.first() {
        None => Some((0, Invalid::EmptyFunction)),
        Some(b'0'..=b'9') => Some((0, Invalid::LeadingDigit)),
        Some(_) => name
            .iter()
            .position(|byte| {
                !matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b'$')
            })
            .map(|at| (at, Invalid::FunctionByte)),
    };
    invalid.map_or(Ok(()), |(at, invalid)| Err(ParseError::new(at, invalid)))
}

/// All the rules that a request must keep, whatever the kernel.
pub(crate) fn check_request(target: &Target, opts: &KprobeOpts) -> Result<(), Invalid> {
    check_target(target, opts)?;
    opts.attach_mode
        .map_or(Ok(()), |mode| check_mode(mode, opts))
}

/// Where the kernel's part of the address space begins at the lowest: that is the upper half, on 32-bit machines up to three
/// quarters (`VMSPLIT_1G`), on arm 16 MiB more for modules, and on s390x, where it has an address space of its own, all but the low core. A 32-bit program
/// takes addresses of a 32-bit kernel alone, which would cut off others, and probe another function.
const KERNEL_START: u64 = if cfg!(target_arch = "s390x") {
    0x2000
} else if cfg!(target_arch = "arm") {
    0x3f00_0000
} else if cfg!(target_pointer_width = "32") {
    0x4000_0000
} else {
    1 << 63
};

/// The rules between target and options that hold in every mode.
const fn check_target(target: &Target, opts: &KprobeOpts) -> Result<(), Invalid> {
    if let Place::Address(address) = target.0 {
        // The last page is where the kernel keeps its error pointers: before Linux 5.18 such an "address" came back as a
        // made-up errno.
        if address < KERNEL_START || address > usize::MAX as u64 - 4096 {
            return Err(Invalid::NotKernelAddress);
        }
        if opts.offset != 0 {
            return Err(Invalid::OffsetOnAddress);
        }
    }
    // `kprobe.offset` is an unsigned int: the PMU cuts off what is above, and would probe another instruction.
    if opts.offset > u32::MAX as u64 {
        return Err(Invalid::OffsetTooLarge);
    }
    if opts.retprobe && opts.offset != 0 {
        return Err(Invalid::OffsetOnRetprobe);
    }
    if opts.maxactive > MAX_MAXACTIVE {
        return Err(Invalid::MaxactiveTooLarge);
    }
    if opts.maxactive != 0 && !opts.retprobe {
        return Err(Invalid::MaxactiveOnEntry);
    }
    Ok(())
}

/// The rules between mode and options: what a mode cannot carry.
pub(crate) const fn check_mode(mode: AttachMode, opts: &KprobeOpts) -> Result<(), Invalid> {
    if opts.bpf_cookie != 0 && !mode.uses_link() {
        return Err(Invalid::CookieWithoutLink);
    }
    if opts.maxactive != 0 && !mode.uses_tracefs() {
        return Err(Invalid::MaxactiveOnPmu);
    }
    Ok(())
}
