//! The rules that a request, its text or its struct can break, and the input that each rule allows.

use core::fmt;

use rustix::io::Errno;

use crate::numbers::Decimal;
use crate::text::texts;

/// Names the rule that a request breaks.
///
/// Its `Display` says what is wrong. [`allowed`](Self::allowed) says what is allowed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// The function name is missing.
    EmptyFunction,
    /// A function name contains a byte that no function name has.
    FunctionByte,
    /// A function name begins with a digit.
    LeadingDigit,
    /// The module name before the `:` is missing.
    EmptyModule,
    /// A module name contains a byte that no module name has.
    ModuleByte,
    /// A name is longer than [`MAX_SYMBOL_LEN`](crate::request::MAX_SYMBOL_LEN).
    NameTooLong,
    /// An address is outside the kernel's part of the address space.
    NotKernelAddress,
    /// An address is given together with an offset.
    OffsetOnAddress,
    /// An offset does not fit into the kernel's 32 bits.
    OffsetTooLarge,
    /// An offset is beyond the end of the function. Only
    /// [`within_function`](crate::KprobeOpts::within_function) asks for this check.
    OffsetBeyondFunction,
    /// A return probe is given an offset.
    OffsetOnRetprobe,
    /// A system call is given an offset. Its entry points differ.
    OffsetOnSyscall,
    /// A maxactive is above [`MAX_MAXACTIVE`](crate::request::MAX_MAXACTIVE).
    MaxactiveTooLarge,
    /// An entry probe is given a maxactive.
    MaxactiveOnEntry,
    /// A mode that uses the kprobe PMU is given a maxactive.
    MaxactiveOnPmu,
    /// A maxactive is asked of a kernel that does not know it.
    MaxactiveOnKernel,
    /// A mode without a link is given a cookie.
    CookieWithoutLink,
    /// The word after the `@` does not choose among functions.
    UnknownPick,
    /// Only the name of a function can be a base name.
    BaseWithoutFunction,
    /// The target must be [resolved](crate::symbols::resolve()) before it can be planned.
    Unresolved,
    /// A pattern means any number of functions, and this takes one.
    Pattern,
    /// A link to many functions is given none.
    NoFunctions,
    /// A link is given more than
    /// [`MAX_FUNCTIONS`](crate::request::MAX_FUNCTIONS) functions.
    TooManyFunctions,
    /// The number of cookies is not the number of functions.
    CookieCount,
    /// A link is to run its program at entry and return, and at return alone.
    SessionRetprobe,
    /// A [unique match](crate::KprobeMultiOpts::unique_match) is asked of several functions.
    UniqueOfMany,
    /// A function of one module is named in a `kprobe.multi` link.
    ModuleInMulti,
    /// A function is named twice in a `kprobe.multi` link.
    FunctionTwice,
    /// A group has less memory than its functions take.
    GroupMemory,
    /// The word before the `/` is not a kind of probe.
    UnknownKind,
    /// A probe of a link to many functions is given an option that such a link does not have.
    OptionInMulti,
    /// The kind of probe begins with libbpf's `?`, which keeps a program from being loaded.
    AutoloadMark,
    /// A number is missing.
    EmptyNumber,
    /// A byte is not a digit of the number's base.
    NotADigit,
    /// A number is binary, with C's prefix `0b`.
    BinaryNumber,
    /// A number does not fit into its option.
    NumberTooLarge,
    /// An option is unknown.
    UnknownOption,
    /// An option is given twice.
    OptionTwice,
    /// An option lacks its value.
    MissingValue,
    /// An option that takes no value is given one.
    UnwantedValue,
    /// A mode is unknown.
    UnknownMode,
    /// A C struct is smaller than its own size field.
    StructTooSmall,
    /// A C struct claims to be larger than the bytes that were passed.
    StructTooLarge,
    /// A C struct has an unknown field that is not zero.
    StructTail,
    /// The kernel would refuse a program's name, or cut it.
    ProgramName,
    /// A pin is asked of a mode that has no link.
    PinWithoutLink,
    /// A pin is asked of a link whose event is in tracefs.
    PinOfTraceEvent,
    /// The path of a pin is not in a bpf file system.
    PinOutsideBpffs,
    /// A pin is relative to an open directory, and the kernel pins by path only.
    PinAtDirectory,
}

impl Invalid {
    /// Returns the errno with which libbpf reports the same mistake, where libbpf detects it.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::CookieWithoutLink
            | Self::MaxactiveOnPmu
            | Self::MaxactiveOnKernel
            | Self::ModuleInMulti
            | Self::OptionInMulti
            | Self::AutoloadMark
            | Self::PinOfTraceEvent => Errno::OPNOTSUPP,
            _ => Errno::INVAL,
        }
    }

    texts! {
        fn wrong(Invalid) {
            EmptyFunction => "the function name is missing",
            FunctionByte => "no function name has this byte",
            LeadingDigit => "a function name cannot begin with a digit",
            EmptyModule => "the module name is missing",
            ModuleByte => "no module name has this byte",
            NameTooLong => "the name is longer than any symbol",
            NotKernelAddress => "this is not a kernel address",
            OffsetOnAddress => "an address takes no offset",
            OffsetTooLarge => "the kernel would cut this offset to 32 bits",
            OffsetBeyondFunction => "the offset is beyond the end of the function",
            OffsetOnRetprobe => "a return probe takes no offset",
            OffsetOnSyscall => "a system call takes no offset",
            MaxactiveTooLarge => "maxactive is limited to 4096",
            MaxactiveOnEntry => "an entry probe takes no maxactive",
            MaxactiveOnPmu => "the kprobe PMU takes no maxactive",
            MaxactiveOnKernel => "this kernel takes no maxactive",
            CookieWithoutLink => "only a link carries a cookie",
            UnknownPick => "this does not choose among functions",
            BaseWithoutFunction => "only a function has a base name",
            Unresolved => "the target has not been resolved",
            Pattern => "a pattern means several functions",
            NoFunctions => "there is no function to attach to",
            TooManyFunctions => "these are too many functions for one link",
            CookieCount => "there is not a cookie for each function",
            SessionRetprobe => "a session has no return probe of its own",
            UniqueOfMany => "a unique match is one function",
            ModuleInMulti => "a kprobe.multi link takes no module",
            FunctionTwice => "a kprobe.multi link takes each function once",
            GroupMemory => "the group has too little memory",
            UnknownKind => "unknown kind of probe",
            OptionInMulti => "a link to many functions takes no offset, mode or maxactive",
            AutoloadMark => "`?` keeps a program from being loaded",
            EmptyNumber => "a number is missing",
            NotADigit => "this is not a digit of the number",
            BinaryNumber => "binary numbers are not supported",
            NumberTooLarge => "the number is too large",
            UnknownOption => "unknown option",
            OptionTwice => "this option is given twice",
            MissingValue => "the option's value is missing",
            UnwantedValue => "this option takes no value",
            UnknownMode => "unknown mode",
            StructTooSmall => "the struct is smaller than its own size field",
            StructTooLarge => "the struct's size exceeds the buffer",
            StructTail => "an unknown field is not zero",
            ProgramName => "not a valid program name",
            PinWithoutLink => "only a link can be pinned",
            PinOfTraceEvent => "a pinned link would leave its tracefs event behind",
            PinOutsideBpffs => "a pin needs a mounted bpf file system \
                (mount -t bpf -o mode=0700 bpf /sys/fs/bpf)",
            PinAtDirectory => "this kernel pins by path only",
        }
    }

    texts! {
        /// Returns one line that says what is allowed in place of the mistake.
        #[must_use]
        pub fn allowed(Invalid) {
            EmptyFunction | FunctionByte | LeadingDigit =>
                "[module:]function[@N][+offset], with a function of letters, digits, `_`, `.` and \
                 `$`; or 0xADDRESS",
            EmptyModule | ModuleByte => "module:function, with a module of letters, digits and `_`",
            NameTooLong => "at most 511 bytes, with the module",
            NotKernelAddress => "a kernel address, as in /proc/kallsyms",
            OffsetOnAddress => "the sum of address and offset",
            OffsetTooLarge => "an offset of 0 to 4294967295",
            OffsetBeyondFunction => "an offset within the function, as its disassembly shows",
            OffsetOnRetprobe | OffsetOnSyscall => "no offset, or 0",
            MaxactiveTooLarge => "1 to 4096, or 0 for the kernel's default",
            MaxactiveOnEntry => "maxactive on a return probe: kretprobe/function,maxactive=N",
            MaxactiveOnPmu => "maxactive in the modes legacy-link and legacy",
            MaxactiveOnKernel => "no maxactive, or Linux 4.12",
            CookieWithoutLink => "a cookie in the modes link and legacy-link",
            UnknownPick => "@N from 1, @first, @all or @unique",
            BaseWithoutFunction => "base with the name of a function",
            Unresolved => "what symbols::resolve has found, or Kernel::attach_kprobe",
            Pattern => "one of the functions that symbols::Functions lists",
            UnknownKind | AutoloadMark =>
                "kprobe/, kretprobe/, ksyscall/, kretsyscall/, kprobe.multi/, kretprobe.multi/ or \
                 kprobe.session/",
            OptionInMulti => "cookie=N, retprobe and base",
            NoFunctions | TooManyFunctions => "1 to 1048576 functions",
            CookieCount => "as many cookies as functions, or none",
            SessionRetprobe => "either a session or a return probe",
            UniqueOfMany => "exactly one function",
            ModuleInMulti => "the address of the function (/proc/kallsyms)",
            FunctionTwice => "each function once",
            GroupMemory => "a slot for each function",
            EmptyNumber | NotADigit | BinaryNumber =>
                "a decimal number, hexadecimal after 0x, or octal after 0",
            NumberTooLarge => "a 64-bit number; maxactive up to 4096",
            UnknownOption | OptionTwice | MissingValue | UnwantedValue =>
                "each once: offset=N (or function+N), cookie=N, mode=MODE, maxactive=N, retprobe, \
                 base",
            UnknownMode => "link, perf, legacy-link or legacy",
            StructTooSmall | StructTooLarge => "at least the size field, at most the buffer",
            StructTail => "zeros between the last known field and the size",
            ProgramName => "at most 15 letters, digits, `_` and `.`",
            PinWithoutLink | PinOfTraceEvent => "the mode link",
            PinOutsideBpffs => "a path below a mount of type bpf, with at most one new directory",
            PinAtDirectory => "a pin by path, or Linux 6.5",
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wrong())
    }
}

/// Holds the place of a mistake in a text, and the rule that it breaks.
///
/// [`in_text`](Self::in_text) shows the text with a caret under that byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseError {
    /// The offset of the byte, or the length of the text if something is missing at its end.
    pub at: usize,
    /// The rule that is broken there.
    pub invalid: Invalid,
}

impl ParseError {
    pub(crate) const fn new(at: usize, invalid: Invalid) -> Self {
        Self { at, invalid }
    }

    /// Returns the same error for a text in which the parsed part starts at byte `start`.
    pub(super) const fn from(self, start: usize) -> Self {
        Self {
            at: self.at + start,
            invalid: self.invalid,
        }
    }

    /// Returns a value that prints the error with its text, in three lines.
    ///
    /// The first line is the text. The second has a caret under the byte, and says what is wrong.
    /// The third says what is allowed. Bytes that are not printable ASCII appear as `?`.
    #[must_use]
    pub const fn in_text<'a>(&self, text: &'a [u8]) -> InText<'a> {
        InText { error: *self, text }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Decimal(self.at as u64);
        write!(f, "at byte {at}: {}", self.invalid)
    }
}

impl core::error::Error for ParseError {}

/// Prints a [`ParseError`] with its text. [`ParseError::in_text`] makes it.
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
