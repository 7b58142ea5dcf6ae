//! The error of an object: the fault, and where it is.

use core::cell::Cell;
use core::fmt;

use rustix::io::Errno;

use crate::error::{Cause, ErrnoName, Error, Step};
use crate::numbers::Hex;
use crate::text::texts;

/// Names what is wrong with an object, or what of it this crate does not serve.
///
/// Its `Display` is a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)] // results that have it are then copied by words
pub enum Fault {
    /// The bytes are not an ELF file of 64 bits.
    NotElf,
    /// The object is for machines of the other byte order.
    ByteOrder,
    /// The file is not a relocatable object for BPF.
    NotBpf,
    /// A header, a table or a section reaches beyond the end of the file.
    Truncated,
    /// A section, a symbol or a table has a size that does not fit its entries.
    BadSize,
    /// A name is not in its string table, or is not UTF-8.
    BadName,
    /// A symbol is outside its section.
    BadSymbol,
    /// A section that is needed is compressed.
    Compressed,
    /// The type information is not that of `Documentation/bpf/btf.rst`, or `.maps` has none.
    BadBtf,
    /// The type information refers to a type that is missing, or has no size.
    BadType,
    /// A variable of the type information has no symbol or no section.
    NoVariable,
    /// The license is not a string with a NUL.
    BadLicense,
    /// The section of a program is not one that this crate attaches.
    SectionNotServed,
    /// The section does not name a function to attach to, as libbpf reads it.
    BadTarget,
    /// A map's definition has a member that is unknown, or has no number in its type.
    BadMapMember,
    /// A map's definition lacks its type, or gives a size twice in different ways.
    BadMap,
    /// A map holds other maps, programs from the start, or the kernel's own types.
    MapNotServed,
    /// The kernel does not make a map of this type with these sizes and flags.
    MapRefused,
    /// The object has more maps than a program may use: 64.
    TooManyMaps,
    /// An external symbol is not among those that this crate serves, and is not weak.
    ExternNotServed,
    /// The type of an external symbol does not fit its value.
    BadExtern,
    /// A relocation is not at an instruction that takes it.
    BadRelocation,
    /// A relocation refers to something that is neither a map, data nor a function.
    BadReference,
    /// Two relocations are at the same instruction.
    RelocatedTwice,
    /// An instruction refers to a map, a function or the kernel, and has no relocation.
    NoRelocation,
    /// A call does not go to the start of a function in `.text`.
    BadCall,
    /// A program calls more functions than the kernel allows: 255.
    TooManyFunctions,
    /// The caller's memory is smaller than `memory_len` says.
    LittleMemory,
    /// The program uses data of a section, and the kernel does not have maps for that.
    NoData,
    /// The program has CO-RE relocations, and the kernel does not do them.
    NoCoRe,
    /// The program has CO-RE relocations, and the kernel refused the type information.
    CoReWithoutBtf,
    /// The pinned map of this name is a different one.
    PinDiffers,
    /// The kernel refused it.
    Refused,
}

impl Fault {
    texts! {
        fn sentence(Fault) {
            NotElf => "this is not a 64-bit ELF file",
            ByteOrder => "the object is for the other byte order",
            NotBpf => "this is not a relocatable object for BPF",
            Truncated => "this reaches beyond the end of the file",
            BadSize => "the size does not fit the entries",
            BadName => "the name is not in its string table, or is not UTF-8",
            BadSymbol => "the symbol is not within its section",
            Compressed => "a compressed section is not served",
            BadBtf => "the type information is missing (clang -g) or malformed",
            BadType => "the type is missing, or has no size",
            NoVariable => "the variable has no symbol or no section",
            BadLicense => "the license lacks its final NUL",
            SectionNotServed => "this crate attaches kprobe, kretprobe, ksyscall, kretsyscall, \
                kprobe.multi, kretprobe.multi and kprobe.session",
            BadTarget => "the section names no function, or an offset that it cannot have",
            BadMapMember => "this member of a map's definition is not served",
            BadMap => "the map has no type, or a size that contradicts its type",
            MapNotServed => "maps made with maps, programs or kernel structs are not served",
            MapRefused => "the kernel refuses its type, flags or size (0 unless given)",
            TooManyMaps => "more than 64 maps are not served",
            ExternNotServed => "this external symbol is not served, and is not weak",
            BadExtern => "the type does not fit the value",
            BadRelocation => "the instruction takes no relocation of this kind",
            BadReference => "the symbol is neither a map, data nor a function of .text",
            RelocatedTwice => "two relocations are at the same instruction",
            NoRelocation => "the instruction lacks its relocation",
            BadCall => "the call is not to the start of a function of .text",
            TooManyFunctions => "more than 256 functions are not served",
            LittleMemory => "the memory is too small",
            NoData => "the kernel takes data of programs since Linux 5.2",
            NoCoRe => "the program has CO-RE relocations, which the kernel does since Linux 5.17",
            CoReWithoutBtf => "the kernel refuses the type information that CO-RE takes",
            PinDiffers => "the pinned map of this name differs",
            Refused => "",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// Holds what is wrong with an object, and where: a section, a symbol and an offset.
///
/// Its `Display` is one line: section, symbol, offset, and the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectError<'a> {
    fault: Fault,
    section: &'a str,
    symbol: &'a str,
    offset: u64,
    step: Step,
    errno: Errno,
    cause: Cause,
}

pub(super) type Result<T> = core::result::Result<T, Fault>;

/// Holds the place in the object that is being read, for the error that may come. So every function
/// between a fault and the caller of this module hands on a byte.
#[derive(Debug, Default)]
pub(super) struct Place<'a> {
    section: Cell<&'a str>,
    symbol: Cell<&'a str>,
    offset: Cell<u64>,
    /// The errno of the kernel, for [`Fault::Refused`] and a few others.
    answer: Cell<Option<(Step, Errno, Cause)>>,
}

impl<'a> Place<'a> {
    /// Says where what follows is read.
    #[inline(never)]
    pub(super) fn at(&self, section: &'a str, symbol: &'a str, offset: u64) {
        self.section.set(section);
        self.symbol.set(symbol);
        self.offset.set(offset);
        self.answer.set(None);
    }

    /// Says that what follows is about a section as a whole.
    #[inline(never)]
    pub(super) fn at_section(&self, section: &'a str) {
        self.at(section, "", 0);
    }

    /// Takes note of what the kernel refused.
    #[cold]
    #[inline(never)]
    pub(super) fn refused(&self, error: &Error) -> Fault {
        self.answered(Fault::Refused, error.step(), error.errno(), error.cause())
    }

    /// Takes note of what the kernel said, and returns the fault.
    #[cold]
    #[inline(never)]
    pub(super) fn answered(&self, fault: Fault, step: Step, errno: Errno, cause: Cause) -> Fault {
        self.answer.set(Some((step, errno, cause)));
        fault
    }

    /// Returns the errno of the kernel's last refusal.
    pub(super) fn errno(&self) -> Option<Errno> {
        self.answer.get().map(|(_, errno, _)| errno)
    }

    /// Makes the error of a fault.
    #[cold]
    #[inline(never)]
    pub(super) fn error(&self, fault: Fault) -> ObjectError<'a> {
        let of_object = (Step::ReadObject, Errno::NOEXEC, Cause::BadObject);
        let (step, errno, cause) = self.answer.get().unwrap_or(of_object);
        ObjectError {
            fault,
            section: self.section.get(),
            symbol: self.symbol.get(),
            offset: self.offset.get(),
            step,
            errno,
            cause,
        }
    }
}

impl<'a> ObjectError<'a> {
    /// Returns what is wrong.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// Returns the name of the section, which is empty for a fault of the file as a whole.
    #[must_use]
    pub const fn section(&self) -> &'a str {
        self.section
    }

    /// Returns the name of the symbol: a function, a variable, a map or a type. It is empty for a
    /// fault of the section as a whole.
    #[must_use]
    pub const fn symbol(&self) -> &'a str {
        self.symbol
    }

    /// Returns the offset in bytes: in the section, or in the file if there is no section.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the step that failed. It is [`Step::ReadObject`] until the kernel was asked.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Returns the errno of the kernel, or `ENOEXEC` for a fault of the object.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the meaning of the errno at this step.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }
}

impl fmt::Display for ObjectError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in [self.section, self.symbol] {
            if !name.is_empty() {
                f.write_str(name)?;
                f.write_str(": ")?;
            }
        }
        if self.fault == Fault::Refused {
            return Error::new(self.step, self.errno, self.cause).fmt(f);
        }
        f.write_str("at ")?;
        Hex(self.offset).fmt(f)?;
        f.write_str(": ")?;
        f.write_str(self.step.name())?;
        f.write_str(": ")?;
        ErrnoName(self.errno).fmt(f)?;
        f.write_str(": ")?;
        f.write_str(self.fault.sentence())
    }
}

impl core::error::Error for ObjectError<'_> {}
