//! The functions of an object, and how the section of each says that it is attached. Source:
//! libbpf's `SEC()` rules.

use super::elf::{Elf, STB_LOCAL, STT_FUNC, Section, Symbol, range};
use super::error::{Fault, ObjectError, Place};
use crate::request::{AttachType, KprobeOpts, Probe, Target};
use crate::text::{line_of, split_str};

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

/// Describes a function of an object: its name, and its instructions in the object's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// The name, the index and the bytes of its section.
    pub(super) section: &'a str,
    pub(super) section_index: usize,
    pub(super) section_data: &'a [u8],
    /// The offset of its first instruction in the section.
    pub(super) start: u64,
    pub(super) code: &'a [u8],
}

impl<'a> Function<'a> {
    /// Returns the function that a symbol stands for, if it stands for one of the section.
    #[inline(never)]
    pub(super) fn of_symbol(
        section: &Section<'a>,
        symbol: &Symbol<'a>,
    ) -> Option<core::result::Result<Self, Fault>> {
        if symbol.kind != STT_FUNC || symbol.section != section.index {
            return None;
        }
        let code = range(section.data, symbol.value, symbol.size).filter(|code| {
            let is_whole = symbol.value % INSN_LEN as u64 == 0 && code.len() % INSN_LEN == 0;
            !code.is_empty() && is_whole
        });
        let function = code.map(|code| Self {
            name: symbol.name,
            section: section.name,
            section_index: section.index,
            section_data: section.data,
            start: symbol.value,
            code,
        });
        Some(function.ok_or(Fault::BadSymbol))
    }

    /// Says that the function is read.
    pub(super) fn at(&self, place: &Place<'a>) {
        place.at(self.section, self.name, self.start);
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
    pub(super) fn after(
        elf: &Elf<'a>,
        section: &Section<'a>,
        last: Option<(u64, usize)>,
    ) -> Option<((u64, usize), Self)> {
        let mut first: Option<((u64, usize), Function<'a>)> = None;
        for (index, symbol) in elf.symbols().enumerate() {
            let place = (symbol.value, index);
            // A static function is no program.
            let may_follow = symbol.binding != STB_LOCAL
                && last < Some(place)
                && first.is_none_or(|(earlier, _)| place < earlier);
            if !may_follow {
                continue;
            }
            if let Some(Ok(function)) = Function::of_symbol(section, &symbol) {
                first = Some((place, function));
            }
        }
        first.map(|(place, function)| (place, Self { function }))
    }

    /// Returns the name of the function.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.function.name
    }

    /// Returns the name of its section.
    #[must_use]
    pub const fn section(&self) -> &'a str {
        self.function.section
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
    #[inline(never)]
    pub fn probe(&self) -> core::result::Result<Option<Probe<'a>>, ObjectError<'a>> {
        let wrong = || {
            let place = Place::default();
            place.at(self.section(), self.name(), 0);
            place.error(Fault::BadTarget)
        };
        let (Some(kind), Some(text)) = (self.kind(), self.words().1) else {
            return Ok(None);
        };
        let (target, offset) = match kind {
            Kind::Kprobe | Kind::Kretprobe => {
                let (name, rest) = run(text, |byte| matches!(byte, b'_' | b'.'));
                let offset = rest.strip_prefix('+').map_or(Some(0), c_long);
                (Target::symbol(name), offset.ok_or_else(wrong)?)
            }
            Kind::Ksyscall | Kind::Kretsyscall => (Target::syscall(text), 0),
            Kind::KprobeMulti | Kind::KretprobeMulti | Kind::KprobeSession => {
                let (name, _) = run(text, |byte| matches!(byte, b'_' | b'.' | b'*' | b'?'));
                let is_pattern = name.bytes().any(|byte| matches!(byte, b'*' | b'?'));
                let target = if is_pattern {
                    Target::parse(name)
                } else {
                    Target::symbol(name)
                };
                (target, 0)
            }
        };
        let retprobe = matches!(
            kind,
            Kind::Kretprobe | Kind::Kretsyscall | Kind::KretprobeMulti
        );
        let target = target.map_err(|_| wrong())?;
        if retprobe && offset != 0 {
            return Err(wrong());
        }
        let opts = KprobeOpts::new().offset(offset).retprobe(retprobe);
        let attach_type = kind.attach_type();
        Ok(Some(Probe {
            target,
            opts,
            attach_type,
        }))
    }
}

/// Splits a text behind its first letters, digits and other allowed bytes.
fn run(text: &str, other: impl Fn(u8) -> bool) -> (&str, &str) {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || other(*byte);
    let end = text.bytes().take_while(allowed).count();
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Reads a number as `strtol(3)` does in base 0, and ignores what follows it. Returns [`None`] for
/// a negative one.
fn c_long(text: &str) -> Option<u64> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (text, is_negative) = match text.as_bytes() {
        [b'-', rest @ ..] => (rest, true),
        [b'+', rest @ ..] | rest => (rest, false),
    };
    let (digits, base) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', rest @ ..] => (rest, 8),
        rest => (rest, 10),
    };
    let mut number = 0_u64;
    for digit in digits {
        match char::from(*digit).to_digit(base) {
            Some(digit) => {
                let tens = number.saturating_mul(base.into());
                number = tens.saturating_add(digit.into());
            }
            None => break,
        }
    }
    (!is_negative || number == 0).then_some(number.min(i64::MAX.unsigned_abs()))
}
