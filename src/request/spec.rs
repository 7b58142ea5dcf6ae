//! The text of a probe: one grammar for the library and the program.

use core::fmt;

use super::invalid::{Invalid, ParseError};
use super::mode::AttachMode;
use super::multi::AttachType;
use super::number::number;
use super::opts::KprobeOpts;
use super::pick::Names;
use super::rules::check_request;
use super::target::Target;
use crate::numbers::{Decimal, Hex};
use crate::text::{line_of, split};

/// Holds a target and its options, as one line of text gives them.
///
/// ```text
/// [kprobe/|kretprobe/][module:]function[@choice][+offset][,key=value]...
/// [kprobe/|kretprobe/][module:]pattern[+offset][,key=value]...
/// [kprobe/|kretprobe/]0xADDRESS[,key=value]...
/// [ksyscall/|kretsyscall/]syscall[@choice][,key=value]...
/// [kprobe.multi/|kretprobe.multi/|kprobe.session/]...
/// ```
///
/// | part | meaning |
/// |---|---|
/// | `kprobe/`, `kretprobe/` | the kind of probe; `kprobe/` if it is left out |
/// | `ksyscall/`, `kretsyscall/` | [`Target::syscall`], the native entry point |
/// | `kprobe.multi/`, `kretprobe.multi/` | the same, by a link to many functions |
/// | `kprobe.session/` | entry and return, by such a link |
/// | `module:` | letters, digits and `_`; `vmlinux` is the kernel itself |
/// | `function` | letters, digits, `_`, `.` and `$`, not beginning with a digit |
/// | `pattern` | [`Target::parse`]: `*`, `?`, `[a-z]`, `[!a-z]`; each function that it matches |
/// | `@unique` | [`Target::unique`]: refused if several functions have the name |
/// | `@first`, `@N` | [`Target::nth`]: the one with this number, from 1 |
/// | `@all` | [`Target::all`]: each function of the name |
/// | `+offset`, `offset=N` | [`KprobeOpts::offset`] |
/// | `cookie=N` | [`KprobeOpts::bpf_cookie`] |
/// | `mode=M` | [`KprobeOpts::attach_mode`]: `link`, `perf`, `legacy-link`, `legacy` |
/// | `maxactive=N` | [`KprobeOpts::maxactive`] |
/// | `retprobe` | [`KprobeOpts::retprobe`], as `kretprobe/` |
/// | `base` | [`Target::base`]: also the copy that the compiler made |
///
/// Numbers are written as in C: decimal, hexadecimal after `0x`, or octal after `0`. White space is
/// not allowed anywhere. Each option may be given once.
///
/// # Differences from libbpf's section names
///
/// A text that libbpf's `SEC("kprobe/...")` accepts on purpose means the same here. Where libbpf's
/// `sscanf()` accepts a text by accident, this grammar differs. A refusal names the byte.
///
/// Texts of which libbpf drops the end:
///
/// | text | libbpf | here |
/// |---|---|---|
/// | `kprobe/mod:foo` | probes `mod` | probes `foo` of module `mod` |
/// | `kprobe/foo$x` | probes `foo` | probes `foo$x`: mangled names contain a `$` |
/// | `kprobe/foo,cookie=7` | probes `foo` | sets the option |
/// | `kprobe/foo*` | probes `foo` | each function that it matches |
/// | `kprobe/foo-5`, `foo/x` | probes `foo` | refused |
/// | `kprobe/foo%return` | probes `foo` | refused |
///
/// Numbers:
///
/// | text | libbpf | here |
/// |---|---|---|
/// | `kprobe/foo+`, `foo+x`, `foo+08` | stops at the bad digit | refused: another place |
/// | `kprobe/foo+5x`, `foo+0xg` | stops at the bad digit | refused: another place |
/// | `kprobe/foo++5`, `foo+ 5`, `foo+-0` | takes signs and blanks | refused: a typing error |
/// | `kprobe/foo+0b11` | 0 or 3, depending on the C library | refused: ambiguous |
/// | `kprobe/foo+99999999999999999999` | the largest number | refused: another place |
/// | an offset above 4294967295 | the kernel keeps 32 bits | refused: another place |
///
/// Names and kinds:
///
/// | text | libbpf | here |
/// |---|---|---|
/// | a name of more than 511 bytes | the kernel refuses it | refused: no symbol is that long |
/// | `kprobe/123` | a function named `123` | refused: no symbol begins with a digit |
/// | `kprobe/0xffffffff81000000` | a function of that name | an address |
/// | `kprobe` alone | a program without a target | the function `kprobe` |
/// | `?kprobe/foo` | not loaded by default | refused: there is nothing to attach |
///
/// # Examples
///
/// ```
/// use kprobe_attach::request::Probe;
///
/// let probe = Probe::parse("kretprobe/vfs_read,cookie=7")?;
/// assert!(probe.opts.retprobe);
/// assert_eq!(probe.target.function(), Some("vfs_read"));
///
/// let error = Probe::parse("vfs_read+0xg").unwrap_err();
/// assert_eq!(error.at, 11);
/// # Ok::<(), kprobe_attach::request::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe<'a> {
    /// The place to probe.
    pub target: Target<'a>,
    /// The options.
    pub opts: KprobeOpts,
    /// The links that its program is loaded for: to one function, or to many.
    pub attach_type: AttachType,
}

impl<'a> Probe<'a> {
    /// Reads a probe, which borrows its name from the text.
    ///
    /// # Errors
    ///
    /// Returns the rule that is broken, and the first byte that breaks it.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Reads a probe from bytes, which need not be UTF-8.
    ///
    /// # Errors
    ///
    /// Returns the rule that is broken, and the first byte that breaks it.
    pub fn from_bytes(text: &'a [u8]) -> Result<Self, ParseError> {
        Self::with_defaults(text, &KprobeOpts::new())
    }

    /// Reads a probe, and takes each option that the text does not give from `defaults`.
    ///
    /// # Errors
    ///
    /// Returns the rule that is broken, and the first byte that breaks it. If the defaults break
    /// the rule, the byte is the first of the text.
    pub fn with_defaults(text: &'a [u8], defaults: &KprobeOpts) -> Result<Self, ParseError> {
        let mut given = Given::default();
        let mut opts = *defaults;
        let (head, options) = split(text, b',').unwrap_or((text, b""));
        let is_kind = |kind: &[u8]| {
            kind.iter()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'.' | b'?'))
        };
        let (kind, place) = split(head, b'/')
            .filter(|(kind, _)| is_kind(kind))
            .unwrap_or((b"", head));
        let place_at = head.len() - place.len();
        let mut is_syscall = false;
        let mut attach_type = AttachType::Kprobe;
        if place_at > 0 {
            let is_return;
            (is_syscall, is_return, attach_type) =
                read_kind(kind).map_err(|invalid| ParseError::new(0, invalid))?;
            opts.retprobe |= is_return;
        }
        let (name, offset) = split(place, b'+').unwrap_or((place, b""));
        let target = if is_syscall {
            Target::syscall_from_bytes(name)
        } else {
            Target::from_bytes(name)
        };
        let mut target = target.map_err(|error| error.from(place_at))?;
        if name.len() < place.len() {
            let at = place_at + name.len() + 1;
            opts.set(Key::Offset, offset)
                .map_err(|error| error.from(at))?;
            given.once(Key::Offset, at)?;
        }
        let mut at = head.len() + 1;
        if at <= text.len() {
            for option in options.split(|byte| *byte == b',') {
                let (key, value) = Key::split(option).map_err(|error| error.from(at))?;
                given.once(key, at)?;
                if key == Key::Base {
                    if target.base() == target {
                        return Err(ParseError::new(at, Invalid::BaseWithoutFunction));
                    }
                    target = target.base();
                }
                opts.set(key, value)
                    .map_err(|error| error.from(at + option.len() - value.len()))?;
                at += option.len() + 1;
            }
        }
        let probe = Self {
            target,
            opts,
            attach_type,
        };
        probe
            .check()
            .map_err(|invalid| ParseError::new(given.at(invalid, place_at), invalid))?;
        Ok(probe)
    }

    /// Checks the rules between target, options and kind.
    fn check(&self) -> Result<(), Invalid> {
        let KprobeOpts {
            offset,
            retprobe,
            attach_mode,
            maxactive,
            ..
        } = self.opts;
        let is_one = self.attach_type == AttachType::Kprobe;
        if !is_one && (offset != 0 || maxactive != 0 || attach_mode.is_some()) {
            return Err(Invalid::OptionInMulti);
        }
        if self.attach_type == AttachType::KprobeSession && retprobe {
            return Err(Invalid::SessionRetprobe);
        }
        check_request(&self.target, &self.opts)
    }
}

impl fmt::Display for Probe<'_> {
    /// Writes the canonical text, which parses to the same probe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            opts,
            attach_type,
        } = self;
        let KprobeOpts {
            bpf_cookie,
            offset,
            retprobe,
            attach_mode,
            maxactive,
            // It is an instruction for the attach, and not a part of the text.
            within_function: _,
        } = *opts;
        let names = target.search().map(|(names, _)| names);
        let kind = match (attach_type, retprobe, names) {
            (AttachType::KprobeSession, ..) => "kprobe.session",
            (AttachType::KprobeMulti, false, _) => "kprobe.multi",
            (AttachType::KprobeMulti, true, _) => "kretprobe.multi",
            (_, false, Some(Names::Syscall)) => "ksyscall",
            (_, true, Some(Names::Syscall)) => "kretsyscall",
            (_, false, _) => "kprobe",
            (_, true, _) => "kretprobe",
        };
        write!(f, "{kind}/{target}")?;
        if offset != 0 {
            write!(f, "+{}", Hex(offset))?;
        }
        if bpf_cookie != 0 {
            write!(f, ",cookie={}", Hex(bpf_cookie))?;
        }
        if let Some(mode) = attach_mode {
            write!(f, ",mode={mode}")?;
        }
        if maxactive != 0 {
            write!(f, ",maxactive={}", Decimal(maxactive.into()))?;
        }
        if names == Some(Names::Base) {
            f.write_str(",base")?;
        }
        Ok(())
    }
}

/// Returns whether a kind of probe is of a system call, whether it is a return probe, and the links
/// that it takes.
fn read_kind(kind: &[u8]) -> Result<(bool, bool, AttachType), Invalid> {
    const KINDS: &str =
        "kprobe\nkretprobe\nksyscall\nkretsyscall\nkprobe.multi\nkretprobe.multi\nkprobe.session";
    match line_of(KINDS, kind) {
        Some(index) => {
            let attach_type = match index {
                0..=3 => AttachType::Kprobe,
                4 | 5 => AttachType::KprobeMulti,
                _ => AttachType::KprobeSession,
            };
            Ok((matches!(index, 2 | 3), index % 2 == 1, attach_type))
        }
        None if kind.starts_with(b"?") => Err(Invalid::AutoloadMark),
        None => Err(Invalid::UnknownKind),
    }
}

/// Names an option of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Offset,
    Cookie,
    Mode,
    Maxactive,
    Retprobe,
    Base,
}

impl Key {
    fn from_name(name: &[u8]) -> Option<Self> {
        const KEYS: [Key; 6] = [
            Key::Offset,
            Key::Cookie,
            Key::Mode,
            Key::Maxactive,
            Key::Retprobe,
            Key::Base,
        ];
        let index = line_of("offset\ncookie\nmode\nmaxactive\nretprobe\nbase", name)?;
        KEYS.get(index).copied()
    }

    /// Splits `key=value`, or a flag.
    fn split(option: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let (name, value) =
            split(option, b'=').map_or((option, None), |(name, value)| (name, Some(value)));
        let key = Self::from_name(name).ok_or(ParseError::new(0, Invalid::UnknownOption))?;
        match (key, value) {
            (Self::Retprobe | Self::Base, Some(_)) => {
                Err(ParseError::new(name.len(), Invalid::UnwantedValue))
            }
            (Self::Retprobe | Self::Base, None) => Ok((key, b"")),
            (_, Some(value)) => Ok((key, value)),
            (_, None) => Err(ParseError::new(name.len(), Invalid::MissingValue)),
        }
    }
}

impl KprobeOpts {
    /// Sets one option by the name that a probe's text gives it: `offset`, `cookie`, `mode`,
    /// `maxactive` or `retprobe`. The value of `retprobe` is empty.
    ///
    /// # Errors
    ///
    /// Returns an error for an unknown name, or the byte of the value that is wrong.
    pub fn set_by_name(&mut self, name: &str, value: &[u8]) -> Result<(), ParseError> {
        let key = Key::from_name(name.as_bytes()).filter(|key| *key != Key::Base);
        self.set(
            key.ok_or(ParseError::new(0, Invalid::UnknownOption))?,
            value,
        )
    }

    fn set(&mut self, key: Key, value: &[u8]) -> Result<(), ParseError> {
        match key {
            Key::Offset => self.offset = number(value)?,
            Key::Cookie => self.bpf_cookie = number(value)?,
            Key::Mode => self.attach_mode = Some(AttachMode::from_bytes(value)?),
            Key::Maxactive => {
                self.maxactive = u32::try_from(number(value)?)
                    .map_err(|_| ParseError::new(0, Invalid::NumberTooLarge))?;
            }
            Key::Retprobe if value.is_empty() => self.retprobe = true,
            Key::Retprobe => return Err(ParseError::new(0, Invalid::UnwantedValue)),
            // It is a property of the target.
            Key::Base => {}
        }
        Ok(())
    }
}

/// Holds the place in the text at which each option was given, by its [`Key`].
#[derive(Debug, Default)]
struct Given([Option<usize>; 6]);

impl Given {
    fn once(&mut self, key: Key, at: usize) -> Result<(), ParseError> {
        let seen = self
            .0
            .get_mut(key as usize)
            .and_then(|seen| seen.replace(at));
        seen.map_or(Ok(()), |_| Err(ParseError::new(at, Invalid::OptionTwice)))
    }

    /// Returns the place of a broken rule between target and options. Of two options that exclude
    /// each other, it is the later one.
    fn at(&self, invalid: Invalid, place: usize) -> usize {
        let at = |key: Key| self.0.get(key as usize).copied().flatten();
        let (one, other) = match invalid {
            Invalid::OffsetOnAddress | Invalid::OffsetOnSyscall | Invalid::OffsetTooLarge => {
                (Key::Offset, Key::Offset)
            }
            Invalid::OffsetOnRetprobe => (Key::Offset, Key::Retprobe),
            Invalid::MaxactiveTooLarge | Invalid::MaxactiveOnEntry => {
                (Key::Maxactive, Key::Maxactive)
            }
            Invalid::CookieWithoutLink => (Key::Cookie, Key::Mode),
            Invalid::SessionRetprobe => (Key::Retprobe, Key::Retprobe),
            Invalid::OptionInMulti if at(Key::Offset).is_some() => (Key::Offset, Key::Offset),
            Invalid::MaxactiveOnPmu | Invalid::OptionInMulti => (Key::Maxactive, Key::Mode),
            _ => return place,
        };
        at(one).max(at(other)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
