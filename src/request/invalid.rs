//! The rules that a request, its text or its struct may break, and what keeps them.

use core::fmt;

use rustix::io::Errno;

use crate::text::texts;

/// A rule that a request breaks. Its `Display` says which; [`allowed`](Self::allowed) says what
/// would keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// There is no function name.
    EmptyFunction,
    /// A byte that no function name has.
    FunctionByte,
    /// A function name that begins with a digit.
    LeadingDigit,
    /// Nothing before the `:`.
    EmptyModule,
    /// A byte that no module name has.
    ModuleByte,
    /// A name longer than [`MAX_SYMBOL_LEN`](crate::request::MAX_SYMBOL_LEN).
    NameTooLong,
    /// An address outside the kernel's part of the address space.
    NotKernelAddress,
    /// An offset beside an address.
    OffsetOnAddress,
    /// An offset that does not fit the kernel's 32 bits.
    OffsetTooLarge,
    /// An offset that is not within the function, where that was to be [seen
    /// to](crate::KprobeOpts::within_function).
    OffsetBeyondFunction,
    /// An offset on a return probe.
    OffsetOnRetprobe,
    /// A maxactive above [`MAX_MAXACTIVE`](crate::request::MAX_MAXACTIVE).
    MaxactiveTooLarge,
    /// A maxactive on an entry probe.
    MaxactiveOnEntry,
    /// A maxactive with a mode that uses the kprobe PMU.
    MaxactiveOnPmu,
    /// A cookie with a mode that has no link.
    CookieWithoutLink,
    /// What stands before the `/` is no kind of probe.
    UnknownKind,
    /// A kind of probe that libbpf has and this crate does not attach.
    KindNotServed,
    /// libbpf's `?`, which keeps a program from being loaded.
    AutoloadMark,
    /// A number is missing.
    EmptyNumber,
    /// A byte that is no digit of the number's base.
    NotADigit,
    /// C's `0b` binary numbers.
    BinaryNumber,
    /// A number that does not fit its option.
    NumberTooLarge,
    /// An option that there is not.
    UnknownOption,
    /// An option that was given before.
    OptionTwice,
    /// An option without its value.
    MissingValue,
    /// A value for an option that takes none.
    UnwantedValue,
    /// A mode that there is not.
    UnknownMode,
    /// A C struct that is smaller than its own size field.
    StructTooSmall,
    /// A C struct that says it is larger than its bytes.
    StructCut,
    /// A field of a C struct that is not known, and not zero.
    StructTail,
    /// A program's name that the kernel would refuse, or cut.
    ProgramName,
    /// A pin of what has no link.
    PinWithoutLink,
    /// A pin of a link whose event is in tracefs.
    PinOfTraceEvent,
    /// A pin that is not in a bpf file system.
    PinOutsideBpffs,
    /// A pin below a directory, on a kernel that pins by path only.
    PinAtDirectory,
}

impl Invalid {
    /// libbpf's errno for the same mistake, where it finds it.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::CookieWithoutLink
            | Self::MaxactiveOnPmu
            | Self::KindNotServed
            | Self::AutoloadMark
            | Self::PinOfTraceEvent => Errno::OPNOTSUPP,
            _ => Errno::INVAL,
        }
    }

    texts! {
        fn wrong(Invalid) {
            EmptyFunction => "the name of the function is missing",
            FunctionByte => "no function name has this byte",
            LeadingDigit => "a function name does not begin with a digit",
            EmptyModule => "the name of the module is missing",
            ModuleByte => "no module name has this byte",
            NameTooLong => "the name is longer than any symbol",
            NotKernelAddress => "this is no address in the kernel",
            OffsetOnAddress => "an address has no offset",
            OffsetTooLarge => "the kernel would cut this offset to 32 bits",
            OffsetBeyondFunction => "the offset is beyond the end of the function",
            OffsetOnRetprobe => "a return probe has no offset",
            MaxactiveTooLarge => "the kernel's limit for maxactive is 4096",
            MaxactiveOnEntry => "an entry probe has no maxactive",
            MaxactiveOnPmu => "the kprobe PMU has no maxactive",
            CookieWithoutLink => "only a link carries a cookie",
            UnknownKind => "there is no such kind of probe",
            KindNotServed => "this kind of probe is not served yet",
            AutoloadMark => "`?` tells a loader not to load; there is nothing to attach",
            EmptyNumber => "a number is missing",
            NotADigit => "this is no digit of the number",
            BinaryNumber => "binary numbers are not taken",
            NumberTooLarge => "the number is too large",
            UnknownOption => "there is no such option",
            OptionTwice => "this is given twice",
            MissingValue => "the option's value is missing",
            UnwantedValue => "this option takes no value",
            UnknownMode => "there is no such mode",
            StructTooSmall => "the struct is smaller than its own size field",
            StructCut => "the struct goes beyond its bytes",
            StructTail => "an unknown field is not zero",
            ProgramName => "this is no name of a program",
            PinWithoutLink => "only a link can be pinned",
            PinOfTraceEvent => "a pinned link would leave its tracefs event behind",
            PinOutsideBpffs => "a pin goes into a bpf file system that is mounted (mount -t bpf -o mode=0700 bpf /sys/fs/bpf)",
            PinAtDirectory => "this kernel pins by path only",
        }
    }

    /// One line on what is allowed in the place of the mistake.
    #[must_use]
    pub const fn allowed(self) -> &'static str {
        match self {
            Self::EmptyFunction | Self::FunctionByte | Self::LeadingDigit => {
                "[module:]function[+offset], a function's name made of letters, digits, `_`, `.` and `$`; or 0x and an address"
            }
            Self::EmptyModule | Self::ModuleByte => {
                "module:function, a module's name made of letters, digits and `_`"
            }
            Self::NameTooLong => "at most 511 bytes, with the module",
            Self::NotKernelAddress => "an address of the kernel's part, as /proc/kallsyms has it",
            Self::OffsetOnAddress => "the sum of address and offset",
            Self::OffsetTooLarge => "an offset of 0 to 4294967295",
            Self::OffsetBeyondFunction => "an offset within the function, as its disassembly shows",
            Self::OffsetOnRetprobe => "a return probe on the function's entry: no offset, or 0",
            Self::MaxactiveTooLarge => "a maxactive of 1 to 4096, or 0 for the kernel's own",
            Self::MaxactiveOnEntry => "maxactive on a return probe: kretprobe/function,maxactive=N",
            Self::MaxactiveOnPmu => "maxactive in the modes legacy-link and legacy",
            Self::CookieWithoutLink => "a cookie in the modes link and legacy-link",
            Self::UnknownKind | Self::KindNotServed | Self::AutoloadMark => "kprobe/ or kretprobe/",
            Self::EmptyNumber | Self::NotADigit | Self::BinaryNumber => {
                "a decimal number, or a hexadecimal one after 0x, or an octal one after 0"
            }
            Self::NumberTooLarge => "64 bits; maxactive up to 4096",
            Self::UnknownOption | Self::OptionTwice | Self::MissingValue | Self::UnwantedValue => {
                "each once: offset=N (or function+N), cookie=N, mode=MODE, maxactive=N, retprobe"
            }
            Self::UnknownMode => "link, perf, legacy-link or legacy; in C 0 to 3",
            Self::StructTooSmall | Self::StructCut => "a size of 8 to the number of bytes",
            Self::StructTail => "zeros between the last known field and the size",
            Self::ProgramName => "at most 15 letters, digits, `_` and `.`",
            Self::PinWithoutLink | Self::PinOfTraceEvent => "a pin in the mode link",
            Self::PinOutsideBpffs => {
                "a path below a mount of type bpf, with at most one directory to be made"
            }
            Self::PinAtDirectory => {
                "a pin by its path, or Linux 6.5 to pin below a directory that is held open"
            }
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wrong())
    }
}

/// A place in a text that is not as it must be. With the text it can be [shown](Self::in_text), a
/// caret under the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// The offset of the byte; the end of the text where something is missing there.
    pub at: usize,
    /// The rule that it breaks.
    pub invalid: Invalid,
}

impl ParseError {
    pub(crate) const fn new(at: usize, invalid: Invalid) -> Self {
        Self { at, invalid }
    }

    /// The same error in a text of which the parsed one starts at byte `start`.
    pub(super) const fn from(self, start: usize) -> Self {
        Self {
            at: self.at + start,
            invalid: self.invalid,
        }
    }

    /// The error in three lines: the text, a caret under the byte with what is wrong, and what is
    /// allowed.
    ///
    /// Bytes that are not printable ASCII are shown as `?`.
    #[must_use]
    pub const fn in_text<'a>(&self, text: &'a [u8]) -> InText<'a> {
        InText { error: *self, text }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.invalid)
    }
}

impl core::error::Error for ParseError {}

/// A [`ParseError`] with its text; made by [`ParseError::in_text`].
#[derive(Clone, Copy, Debug)]
pub struct InText<'a> {
    error: ParseError,
    text: &'a [u8],
}

impl fmt::Display for InText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.text {
            let printable = matches!(byte, b' '..=b'~');
            fmt::Write::write_char(f, if printable { char::from(*byte) } else { '?' })?;
        }
        let ParseError { at, invalid } = self.error;
        f.write_str("\n")?;
        (0..at.min(self.text.len())).try_for_each(|_| f.write_str(" "))?;
        write!(f, "^ {invalid}\nallowed: {}", invalid.allowed())
    }
}
