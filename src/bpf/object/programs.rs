//! The functions of an object, and how the section of each says that it is attached. Source:
//! libbpf's `SEC()` rules.

use super::elf::{Elf, STB_LOCAL, Section, Symbol, range};
use super::error::{Fault, ObjectError, Place, Result};
use crate::request::{AttachType, KprobeOpts, Probe, Target};
use crate::text::{DigitError, digits, line_of, split_str};

/// The bytes of an instruction.
pub(super) const INSN_LEN: usize = 8;

/// The section of functions that programs call.
pub(super) const TEXT: &str = ".text";

/// Names how a program is attached, as the first word of its section says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `kprobe`: at an instruction of a function.
    Kprobe,
    /// `kretprobe`: at the return of a function.
    Kretprobe,
    /// `ksyscall`: at the entry of a system call.
    Ksyscall,
    /// `kretsyscall`: at the return of a system call.
    Kretsyscall,
    /// `kprobe.multi`: at the entries of many functions.
    KprobeMulti,
    /// `kretprobe.multi`: at the returns of many functions.
    KretprobeMulti,
    /// `kprobe.session`: at the entries and returns of many functions.
    KprobeSession,
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        const WORDS: &str = "kprobe\nkretprobe\nksyscall\nkretsyscall\nkprobe.multi\n\
            kretprobe.multi\nkprobe.session";
        const KINDS: [Kind; 7] = [
            Kind::Kprobe,
            Kind::Kretprobe,
            Kind::Ksyscall,
            Kind::Kretsyscall,
            Kind::KprobeMulti,
            Kind::KretprobeMulti,
            Kind::KprobeSession,
        ];
        KINDS.get(line_of(WORDS, word.as_bytes())?).copied()
    }

    /// Returns the links that such a program is loaded for.
    #[must_use]
    pub const fn attach_type(self) -> AttachType {
        match self {
            Self::Kprobe | Self::Kretprobe | Self::Ksyscall | Self::Kretsyscall => {
                AttachType::Kprobe
            }
            Self::KprobeMulti | Self::KretprobeMulti => AttachType::KprobeMulti,
            Self::KprobeSession => AttachType::KprobeSession,
        }
    }
}

/// Describes a function of an object: its symbol and section, and its instructions in the object's
/// bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) section: Section<'a>,
    /// The offset of its first instruction in the section.
    pub(super) start: u64,
    pub(super) code: &'a [u8],
}

impl<'a> Function<'a> {
    /// Returns the function that a symbol of the section stands for. Returns [`None`] if it is not
    /// within the section.
    #[inline(never)]
    pub(super) fn of_symbol(section: &Section<'a>, symbol: &Symbol<'a>) -> Option<Self> {
        let start = symbol.value();
        let code = range(section.data, start, symbol.size())?;
        let is_whole = (start | code.len() as u64) % INSN_LEN as u64 == 0;
        (is_whole && !code.is_empty()).then_some(Self {
            name: symbol.name,
            section: *section,
            start,
            code,
        })
    }

    /// Says that the function is read.
    pub(super) fn at(&self, place: &Place<'a>) {
        place.at(self.section.name, self.name, self.start);
    }
}

/// Describes a program of an object: a global function outside of `.text`.
#[derive(Clone, Copy, Debug)]
pub struct ObjectProgram<'a> {
    pub(super) function: Function<'a>,
}

impl<'a> ObjectProgram<'a> {
    /// Returns the program that follows in its section, by its place there and then by its symbol.
    #[inline(never)]
    pub(super) fn after(elf: &Elf<'a>, section: &Section<'a>, last: u128) -> Option<(u128, Self)> {
        let mut first = u128::MAX;
        let mut found = None;
        let mut index = 0;
        for symbol in elf.symbols() {
            index += 1;
            let place = u128::from(symbol.value()) << 64 | index;
            // A static function is no program.
            let may_be_first = symbol.is_function_of(section) && symbol.binding() != STB_LOCAL;
            if may_be_first && last < place && place < first {
                first = place;
                found = Some(symbol);
            }
        }
        let function = Function::of_symbol(section, &found?)?;
        Some((first, Self { function }))
    }

    /// Returns the name of the function.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.function.name
    }

    /// Returns the name of its section.
    #[must_use]
    pub const fn section(&self) -> &'a str {
        self.function.section.name
    }

    /// Returns false if the section begins with `?`, and the program is loaded only if asked for.
    #[must_use]
    pub fn autoload(&self) -> bool {
        !self.section().starts_with('?')
    }

    /// Returns the two sides of the first `/` in the section's name, without the `?`.
    #[inline(never)]
    fn words(&self) -> (&'a str, Option<&'a str>) {
        let section = self.section();
        let section = section.strip_prefix('?').unwrap_or(section);
        split_str(section, b'/').map_or((section, None), |(word, rest)| (word, Some(rest)))
    }

    /// Returns how the section says that the program is attached, or [`None`] if this crate does
    /// not attach such a program.
    #[must_use]
    #[inline(never)]
    pub fn kind(&self) -> Option<Kind> {
        Kind::of(self.words().0)
    }

    /// Returns the function that the section names, and how to attach to it, as libbpf reads it.
    ///
    /// A function is letters, digits, `_` and `.`, and an offset is a number of C behind a `+`.
    /// The rest of the section's name is ignored, so it cannot name a module. A system call is
    /// all that is behind the `/`. The functions of a link to many may be a pattern with `*` and
    /// `?`.
    ///
    /// Returns [`None`] if the section names no function.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::BadTarget`] if libbpf or [`Target`] refuses the name, or if it does not go
    /// with its offset.
    pub fn probe(&self) -> core::result::Result<Option<Probe<'a>>, ObjectError<'a>> {
        let place = Place::default();
        self.function.at(&place);
        self.read_probe().map_err(|fault| place.error(fault))
    }

    #[inline(never)]
    fn read_probe(&self) -> Result<Option<Probe<'a>>> {
        let (Some(kind), Some(text)) = (self.kind(), self.words().1) else {
            return Ok(None);
        };
        let attach_type = kind.attach_type();
        let is_call = matches!(kind, Kind::Ksyscall | Kind::Kretsyscall);
        let retprobe = matches!(
            kind,
            Kind::Kretprobe | Kind::Kretsyscall | Kind::KretprobeMulti
        );
        let is_wild = |byte: &u8| matches!(byte, b'*' | b'?');
        let is_of_name = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.')
                || attach_type != AttachType::Kprobe && is_wild(byte)
        };
        let end = text.bytes().take_while(is_of_name).count();
        let (name, rest) = text.split_at_checked(end).unwrap_or_default();
        let target = if is_call {
            Target::syscall(text)
        } else if name.as_bytes().iter().any(is_wild) {
            Target::parse(name)
        } else {
            Target::symbol(name)
        };
        let target = target.map_err(|_| Fault::BadTarget)?;
        let offset = match rest.strip_prefix('+') {
            Some(offset) if attach_type == AttachType::Kprobe && !is_call => c_long(offset),
            _ => Some(0),
        };
        let offset = offset.filter(|offset| !retprobe || *offset == 0);
        let offset = offset.ok_or(Fault::BadTarget)?;
        Ok(Some(Probe {
            target,
            opts: KprobeOpts::new().offset(offset).retprobe(retprobe),
            attach_type,
        }))
    }
}

/// Reads a number as `strtol(3)` does in base 0, and ignores what follows it. Returns [`None`] for
/// a negative one.
fn c_long(text: &str) -> Option<u64> {
    let mut text = text.as_bytes();
    while let [b'\t'..=b'\r' | b' ', rest @ ..] = text {
        text = rest;
    }
    let (text, is_negative) = match text {
        [b'-', rest @ ..] => (rest, true),
        [b'+', rest @ ..] | rest => (rest, false),
    };
    let (mut text, base) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', rest @ ..] => (rest, 8),
        rest => (rest, 10),
    };
    let number = loop {
        match digits(text, base) {
            Ok(number) => break number,
            Err(DigitError::NotADigit(end)) => text = text.get(..end)?,
            Err(DigitError::Empty) => break 0,
            Err(DigitError::TooLarge(_)) => break u64::MAX,
        }
    };
    (!is_negative || number == 0).then_some(number.min(i64::MAX.unsigned_abs()))
}
