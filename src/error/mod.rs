//! Errors: the step that failed, its errno and its cause. This module makes no system call.

mod cause;
mod errno;
#[cfg(feature = "std")]
mod into_std;
mod step;

use core::fmt;

use rustix::io::Errno;

use crate::numbers::{Decimal, Hex};
use crate::request::{AttachMode, Invalid, KprobeOpts, Need, ParseError, Target};
use crate::text::Buf;

pub use cause::Cause;
pub use errno::ErrnoName;
pub use step::Step;

/// Whether the crate can read files, in which functions are counted.
const FILES: bool = cfg!(feature = "files");

/// Holds what there is to report beyond step, errno and cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// Nothing more.
    Plain,
    /// The rule that the request breaks.
    Invalid(Invalid),
    /// The kernel does not have a system call.
    NoSyscall,
    /// A mode needs a feature that the kernel certainly does not have.
    Unmet(AttachMode, Need),
    /// A mode needs a feature whose probe had no answer.
    Unknown(AttachMode, Need),
    /// The links to many functions take more file descriptors than are left. The upper half of the
    /// error's `number` is how many functions there are, and the lower half is how many fit.
    Capacity,
}

/// Represents a failure: its [step](Self::step), its [errno](Self::errno) and its
/// [cause](Self::cause), which is the meaning of that errno at that step.
///
/// A failure leaves no file descriptor and no trace event behind. The one exception is the event
/// that [`Step::RemoveEvent`] could not remove.
///
/// Its `Display` is one line: function, step, errno and meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    detail: Detail,
    step: Step,
    cause: Cause,
    errno: Errno,
    /// A function or an event. It is empty for an address, and for an error that is about neither.
    subject: Buf<SUBJECT_LEN>,
    /// An address, or the offset in bytes from the start of a function. [`Detail::Capacity`] has
    /// another meaning for it.
    number: u64,
    is_address: bool,
    /// The number of functions that have the name, and the addresses of the first ones. Without
    /// files, nothing counts them.
    several: [u64; if FILES { 1 + Self::ADDRESSES } else { 0 }],
}

static_assertions::const_assert!(size_of::<Error>() <= 128);

impl Error {
    /// The number of addresses that an error holds.
    pub(crate) const ADDRESSES: usize = 3;

    // There are about a hundred callers. A call is smaller than clearing the subject in each of
    // them.
    #[inline(never)]
    pub(crate) const fn new(step: Step, errno: Errno, cause: Cause) -> Self {
        Self {
            detail: Detail::Plain,
            step,
            cause,
            errno,
            subject: Buf::new(),
            number: 0,
            is_address: false,
            several: [0; if FILES { 1 + Self::ADDRESSES } else { 0 }],
        }
    }

    /// Makes the error of a request that breaks a rule.
    #[cold]
    pub(crate) const fn invalid(invalid: Invalid) -> Self {
        let mut error = Self::new(Step::Request, invalid.errno(), Cause::InvalidRequest);
        error.detail = Detail::Invalid(invalid);
        error
    }

    /// Makes the error of a mode that needs a feature. If `certain`, the kernel does not have it;
    /// otherwise its probe had no answer.
    pub(crate) const fn unmet(
        mode: AttachMode,
        need: Need,
        errno: Errno,
        cause: Cause,
        certain: bool,
    ) -> Self {
        // libbpf reports a feature that the kernel does not have as EOPNOTSUPP, whatever errno its
        // probe met. The errno of a feature that is there, and is denied, is kept.
        let denied = matches!(
            errno,
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSYS
        );
        let errno = if certain && !denied {
            Errno::OPNOTSUPP
        } else {
            errno
        };
        let mut error = Self::new(Step::ProbeKernel, errno, cause);
        error.detail = if certain {
            Detail::Unmet(mode, need)
        } else {
            Detail::Unknown(mode, need)
        };
        error
    }

    /// Makes the error of links that take more file descriptors than are left.
    #[cold]
    pub(crate) fn capacity_of(asked: usize, fit: usize) -> Self {
        let number = |number| u64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let mut error = Self::new(Step::Request, Errno::MFILE, Cause::OutOfFds);
        error.detail = Detail::Capacity;
        error.number = number(asked) << 32 | number(fit);
        error
    }

    /// Adds the target of the probe to the error.
    pub(crate) fn about(mut self, target: &Target<'_>, opts: &KprobeOpts) -> Self {
        self.name(target, opts);
        self
    }

    /// Does the same in place.
    // It avoids core::fmt, so that a small program need not contain that.
    #[cold]
    pub(crate) fn name(&mut self, target: &Target<'_>, opts: &KprobeOpts) {
        let (module, function) = target.names();
        self.number = target.as_address().unwrap_or(opts.offset);
        self.is_address = function.is_empty();
        let colon: &[u8] = if module.is_empty() { b"" } else { b":" };
        self.set_subject([module, colon, function]);
    }

    /// Adds the name of an event to the error.
    pub(crate) fn about_event(mut self, name: &[u8]) -> Self {
        self.set_subject([name, b"", b""]);
        self
    }

    /// Joins the parts. If they do not fit, cuts them and appends `…`.
    fn set_subject(&mut self, parts: [&[u8]; 3]) {
        const CUT: &[u8] = "…".as_bytes();
        let subject = &mut self.subject;
        subject.truncate(0);
        if parts
            .iter()
            .try_for_each(|part| subject.push_as_fits(part))
            .is_err()
        {
            // Names are ASCII, so every byte is the start of a character.
            subject.truncate(CUT_LEN);
            let cut = subject.push_all(CUT);
            debug_assert!(cut.is_ok());
        }
    }

    /// Adds the number of functions that have the name, and the first addresses; 0 is hidden.
    pub(crate) fn found(mut self, functions: u32, addresses: [u64; Self::ADDRESSES]) -> Self {
        let found = [functions.into()].into_iter().chain(addresses);
        for (slot, found) in self.several.iter_mut().zip(found) {
            *slot = found;
        }
        self
    }

    /// Says that it is a system call that the kernel does not have.
    pub(crate) const fn of_syscall(mut self) -> Self {
        self.detail = Detail::NoSyscall;
        self
    }

    pub(crate) const fn at(mut self, step: Step) -> Self {
        self.step = step;
        self
    }

    pub(crate) const fn set_cause(&mut self, cause: Cause) {
        self.cause = cause;
    }

    /// Returns the step that failed.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Returns the errno.
    ///
    /// It is the kernel's, or libbpf's if the request is refused before the kernel is asked. That
    /// is `EINVAL`, or `EOPNOTSUPP` for an option that the mode does not support. If a probe had no
    /// answer, it is the errno that the probe met.
    ///
    /// Match [`cause`](Self::cause), and not the errno. The same cause has another errno in another
    /// mode or kernel: since Linux 6.12, `kprobe_events` returns `EINVAL` both for a missing
    /// function and for a name that several have.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the meaning of the errno at this step.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the function or the event that the error is about.
    ///
    /// The function to probe appears as `function` or `module:function`. For [`Step::RemoveEvent`],
    /// the event appears as `group/name`. A text of more than 63 bytes is cut, and then ends with
    /// `…`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        let subject = self.subject.as_str();
        (!subject.is_empty()).then_some(subject)
    }

    /// Returns the address to probe, if the target was an address.
    #[must_use]
    pub const fn address(&self) -> Option<u64> {
        if self.is_address {
            Some(self.number)
        } else {
            None
        }
    }

    /// Returns the offset of the probe, in bytes from the start of the function.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self.detail {
            Detail::Capacity => 0,
            _ if self.is_address => 0,
            _ => self.number,
        }
    }

    /// Returns the number of functions that have the name, if it was counted.
    #[must_use]
    pub fn functions(&self) -> Option<u32> {
        let functions = self.several.first().filter(|functions| **functions > 0)?;
        u32::try_from(*functions).ok()
    }

    /// Lists the addresses of these functions, at most three, unless the kernel hides them.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        let addresses = match self.several.as_slice() {
            [_, addresses @ ..] => addresses,
            [] => &[],
        };
        addresses.iter().copied().filter(|address| *address != 0)
    }

    /// Returns the rule that the request breaks.
    #[must_use]
    pub const fn rule(&self) -> Option<Invalid> {
        match self.detail {
            Detail::Invalid(invalid) => Some(invalid),
            _ => None,
        }
    }

    /// Returns how many functions a group asks for, and for how many of them there are file
    /// descriptors left, if these are too few.
    #[must_use]
    pub const fn capacity(&self) -> Option<(u32, u32)> {
        match self.detail {
            #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
            Detail::Capacity => Some(((self.number >> 32) as u32, self.number as u32)),
            _ => None,
        }
    }

    /// Returns the feature that the mode needs, and that the kernel does not have or whose probe
    /// had no answer.
    #[must_use]
    pub const fn unmet_need(&self) -> Option<Need> {
        match self.detail {
            Detail::Unmet(_, need) | Detail::Unknown(_, need) => Some(need),
            _ => None,
        }
    }

    /// Returns the mode whose [need](Self::unmet_need) is not met.
    #[must_use]
    pub const fn mode(&self) -> Option<AttachMode> {
        match self.detail {
            Detail::Unmet(mode, _) | Detail::Unknown(mode, _) => Some(mode),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            detail,
            step,
            cause,
            errno,
            subject: _,
            number: _,
            is_address,
            several: _,
        } = *self;
        let functions = self.functions().unwrap_or_default();
        let subject = self.subject();
        f.write_str(subject.unwrap_or_default())?;
        let number = self.address().unwrap_or(self.offset());
        if is_address || number != 0 {
            f.write_str(if is_address { "" } else { "+" })?;
            Hex(number).fmt(f)?;
        }
        if is_address || subject.is_some() {
            f.write_str(": ")?;
        }
        write!(f, "{step}: {}: ", ErrnoName(errno))?;
        match detail {
            Detail::Plain if functions > 0 && errno == Errno::NOENT => {
                f.write_str("fewer functions have this name")?;
            }
            Detail::Plain => f.write_str(meaning(step, errno, cause))?,
            Detail::NoSyscall => {
                f.write_str("the running kernel does not have this system call")?;
            }
            Detail::Invalid(invalid) => invalid.fmt(f)?,
            Detail::Capacity => {
                let (asked, fit) = self.capacity().unwrap_or_default();
                let (asked, fit) = (Decimal(asked.into()), Decimal(fit.into()));
                write!(
                    f,
                    "there are file descriptors left for {fit} of {asked} functions (RLIMIT_NOFILE)"
                )?;
            }
            Detail::Unmet(mode, need) | Detail::Unknown(mode, need) => {
                write!(f, "mode {mode} needs {need}")?;
                if matches!(detail, Detail::Unknown(..)) {
                    f.write_str(", whose probe had no answer")?;
                }
                f.write_str(": ")?;
                f.write_str(cause.meaning())?;
            }
        }
        if functions == 0 {
            return Ok(());
        }
        let plural = if functions == 1 { "" } else { "s" };
        write!(f, "; {} function{plural}", Decimal(functions.into()))?;
        let mut before = ": ";
        for address in self.addresses() {
            write!(f, "{before}{}", Hex(address))?;
            before = ", ";
        }
        if before == ", " && functions as usize > Self::ADDRESSES {
            f.write_str(", …")?;
        }
        Ok(())
    }
}

/// Returns the meaning of an errno. For some steps it is more precise than the cause.
fn meaning(step: Step, errno: Errno, cause: Cause) -> &'static str {
    let opens = matches!(step, Step::OpenProgram | Step::OpenLink);
    match (step, errno) {
        (_, Errno::NOENT) if opens => "there is no such pin, or no program with this id",
        (Step::OpenProgram | Step::OpenLink | Step::Map | Step::Pin, Errno::ACCESS) => {
            "no access to the pin or a directory above it, or fs.protected_symlinks denies it"
        }
        (_, Errno::PERM) if opens && cause == Cause::NoPermission => {
            "not permitted: an id takes CAP_SYS_ADMIN; \
             a pin takes CAP_BPF if unprivileged BPF is off"
        }
        (_, Errno::INVAL) if opens => "not a pin of a kprobe program, or of a link to a kprobe",
        (_, Errno::BADF) if opens => "this file descriptor is not open",
        (Step::Map, Errno::NOENT) => "there is no such pin, no map with this id, or no such key",
        (Step::Map, Errno::INVAL) if cause == Cause::Unknown => {
            "not the pin of a map, or no key or value of this one"
        }
        (Step::ResolveSymbol, Errno::NODATA) => "the kernel does not show where the function ends",
        (Step::ResolveSymbol, Errno::PERM) => "kernel.kptr_restrict hides the addresses",
        (Step::ResolveSymbol, Errno::OPNOTSUPP) if !cfg!(feature = "files") => {
            Cause::NoTracefs.meaning()
        }
        (Step::LoadProgram, _) if cause == Cause::WrongProgram => {
            "the kernel refuses the program; the verifier's log says why"
        }
        (Step::LinkCreate, Errno::SRCH) if cause == Cause::Unknown => {
            "a function does not exist, cannot be traced, or is named twice"
        }
        (Step::LinkCreate, _) if cause == Cause::NotFunctionEntry => {
            "a kprobe.multi link is to the entries of functions"
        }
        (Step::Pin, Errno::NOENT) => "the directory of the pin does not exist",
        (_, Errno::XDEV) => "another file is mounted over the kernel's",
        _ => cause.meaning(),
    }
}

/// Prints step, errno, cause, and the line that `Display` prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("step", &self.step)
            .field("errno", &format_args!("{}", ErrnoName(self.errno)))
            .field("cause", &self.cause)
            .field("message", &format_args!("{self}"))
            .finish_non_exhaustive()
    }
}

impl core::error::Error for Error {}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::invalid(error.invalid)
    }
}

/// The length of the longest subject, and the length at which a longer one is cut to make room for
/// `…`.
const SUBJECT_LEN: usize = 63;
const CUT_LEN: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn about(name: &str) -> Error {
        let target = Target::symbol(name).unwrap();
        Error::new(Step::PerfEventOpen, Errno::NOENT, Cause::NoSuchFunction)
            .about(&target, &KprobeOpts::new().offset(8))
    }

    #[test]
    fn a_long_name_is_cut_and_says_so() {
        let fits = "f".repeat(63);
        assert_eq!(about(&fits).subject(), Some(&*fits));
        let cut = "f".repeat(60) + "…";
        for longer in [64, 511] {
            assert_eq!(about(&"f".repeat(longer)).subject(), Some(&*cut));
        }
        // The cut can be in any of the parts.
        for module in [59, 60, 61, 62, 63, 64] {
            let name = "m".repeat(module) + ":f_is_longer";
            let cut = name[..60].to_string() + "…";
            assert_eq!(about(&name).subject(), Some(&*cut), "{module}");
        }
        assert_eq!(
            about("vfs_raed").to_string(),
            std::format!(
                "vfs_raed+0x8: perf_event_open: ENOENT: {}",
                Cause::NoSuchFunction.meaning()
            )
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (step, errno, word) in [
            (Step::OpenProgram, Errno::NOENT, "no such pin"),
            (Step::OpenProgram, Errno::BADF, "not open"),
            (Step::OpenLink, Errno::BADF, "not open"),
            (Step::Map, Errno::NOENT, "no such pin"),
            (Step::Map, Errno::INVAL, "not the pin of a map"),
        ] {
            let text = Error::new(step, errno, Cause::Unknown).to_string();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn too_few_descriptors_are_two_numbers() {
        let error = Error::capacity_of(1000, 7);
        assert_eq!(error.capacity(), Some((1000, 7)));
        assert_eq!((error.offset(), error.address()), (0, None));
        assert_eq!(
            error.to_string(),
            "request: EMFILE: there are file descriptors left for 7 of 1000 functions \
             (RLIMIT_NOFILE)"
        );
        assert_eq!(about("vfs_read").capacity(), None);
    }

    #[test]
    fn debug_names_the_errno_and_says_what_display_says() {
        let error = about("vfs_raed");
        assert_eq!(
            std::format!("{error:?}"),
            std::format!(
                "Error {{ step: PerfEventOpen, errno: ENOENT, cause: NoSuchFunction, \
                 message: {error}, .. }}"
            )
        );
    }

    #[test]
    fn an_error_tells_the_rule_or_the_need() {
        let error = Error::from(Target::symbol("").unwrap_err());
        assert_eq!(error.rule(), Some(Invalid::EmptyFunction));
        let error = Error::unmet(
            AttachMode::Link,
            Need::PerfLink,
            Errno::INVAL,
            Cause::NoPerfLink,
            true,
        );
        let need = (error.mode(), error.unmet_need());
        assert_eq!(need, (Some(AttachMode::Link), Some(Need::PerfLink)));
        assert_eq!(error.errno(), Errno::OPNOTSUPP);
    }
}
