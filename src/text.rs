//! Text without an allocator: a buffer to write into, and the lines of a file. Text that does not
//! fit is an error, and is never cut.

use core::ffi::CStr;
use core::fmt::{self, Write};

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};

/// Holds text of at most `N` bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Buf<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Buf<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Returns the text of `value`, or `ENAMETOOLONG` if it does not fit.
    pub(crate) fn of(value: impl fmt::Display) -> Result<Self> {
        let mut buf = Self::new();
        match write!(buf, "{value}") {
            Ok(()) => Ok(buf),
            Err(fmt::Error) => Err(Errno::NAMETOOLONG),
        }
    }

    /// Appends formatted text, for `write!`.
    pub(crate) fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        self.cursor().write_fmt(text)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns the same text with a NUL behind it, as the kernel takes a path.
    pub(crate) fn as_c_str(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::NAMETOOLONG)
    }

    pub(crate) fn push(&mut self, byte: u8) -> fmt::Result {
        self.push_all(&[byte])
    }

    /// Appends either all bytes or none.
    pub(crate) fn push_all(&mut self, bytes: &[u8]) -> fmt::Result {
        self.cursor().push_all(bytes)
    }

    /// Appends as many bytes as there is room for. Returns an error if not all of them fit.
    pub(crate) fn push_as_fits(&mut self, bytes: &[u8]) -> fmt::Result {
        bytes.iter().try_for_each(|byte| self.push(*byte))
    }

    /// Appends a hexadecimal number with at least `least` digits. It is many times cheaper than
    /// `core::fmt`.
    pub(crate) fn push_hex(&mut self, number: u64, least: usize) -> fmt::Result {
        let zeros = usize::try_from(number.leading_zeros() / 4).unwrap_or_default();
        let start = zeros.min(16_usize.saturating_sub(least));
        self.push_all(hex(number).get(start..).unwrap_or_default())
    }

    /// Appends a decimal number, also without `core::fmt`.
    pub(crate) fn push_decimal(&mut self, mut number: u32) -> fmt::Result {
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        for free in digits.iter_mut().rev() {
            // The remainder is below 10.
            *free += (number % 10).to_le_bytes()[0];
            number /= 10;
            start -= 1;
            if number == 0 {
                break;
            }
        }
        self.push_all(digits.get(start..).unwrap_or_default())
    }

    fn cursor(&mut self) -> Cursor<'_> {
        let (bytes, len) = (&mut self.bytes[..], &mut self.len);
        Cursor { bytes, len }
    }

    /// Cuts the text to `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Writes into a [`Buf`] of any size, so that this code exists once.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    len: &'a mut usize,
}

impl Cursor<'_> {
    fn push_all(&mut self, bytes: &[u8]) -> fmt::Result {
        let end = *self.len + bytes.len();
        let free = self.bytes.get_mut(*self.len..end).ok_or(fmt::Error)?;
        free.copy_from_slice(bytes);
        *self.len = end;
        Ok(())
    }
}

/// Returns the text that bytes are, if they are UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Option<&str> {
    let mut chunks = bytes.utf8_chunks();
    let text = chunks.next().map_or("", |chunk| chunk.valid());
    (text.len() == bytes.len()).then_some(text)
}

/// Returns the sixteen hexadecimal digits of a number, all at once.
const fn hex(number: u64) -> [u8; 16] {
    // Each step halves the distance between digits, until each digit has a byte of its own.
    let mut digits = number as u128;
    digits = (digits | digits << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    // 1 where the digit is a letter: `a` does not follow `9` in ASCII.
    let letters = ((digits + EACH * 6) >> 4) & EACH;
    (digits + EACH * b'0' as u128 + letters * (b'a' - b'9' - 1) as u128).to_be_bytes()
}

/// 1 in each byte.
const EACH: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;

impl Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_all(text.as_bytes())
    }
}

impl<const N: usize> fmt::Debug for Buf<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Reads a decimal number with nothing around it.
pub(crate) fn decimal<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    T::try_from(digits(text, 10).ok()?).ok()
}

/// Reads a hexadecimal number without a prefix, with nothing around it.
pub(crate) fn hexadecimal(text: &[u8]) -> Option<u64> {
    digits(text, 16).ok()
}

/// Names a mistake in a number, and the byte at which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DigitError {
    Empty,
    NotADigit(usize),
    TooLarge(usize),
}

/// Reads a number that consists of digits alone.
pub(crate) fn digits(text: &[u8], base: u8) -> core::result::Result<u64, DigitError> {
    if text.is_empty() {
        return Err(DigitError::Empty);
    }
    let mut value = 0_u64;
    for (at, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'F' => byte - b'A' + 10,
            b'a'..=b'f' => byte - b'a' + 10,
            _ => base,
        };
        if digit >= base {
            return Err(DigitError::NotADigit(at));
        }
        value = value
            .checked_mul(base.into())
            .and_then(|value| value.checked_add(digit.into()))
            .ok_or(DigitError::TooLarge(at))?;
    }
    Ok(value)
}

/// Returns the two sides of the first `separator`.
pub(crate) fn split_str(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Returns the two sides of the first `separator`.
pub(crate) fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Returns the first line and the rest. It looks at eight bytes at once, since a file can have
/// hundreds of thousands of lines.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut start = 0;
    for bytes in text.chunks_exact(8) {
        // A byte that is a newline becomes 0, and only with a 0 does the difference borrow.
        let word = u64::from_ne_bytes(bytes.try_into().ok()?) ^ (EACH * u64::from(b'\n'));
        if word.wrapping_sub(EACH) & !word & (EACH << 7) != 0 {
            break;
        }
        start += bytes.len();
    }
    let position = text.get(start..)?.iter().position(|byte| *byte == b'\n');
    let at = start + position?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Lists the words of a line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
}

/// Returns whether a text contains `part`.
pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    (0..text.len()).any(|at| text.get(at..).unwrap_or_default().starts_with(part))
}

/// Reads the whole of a file, which must be smaller than the buffer.
pub(crate) fn read_small(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    let mut len = 0;
    loop {
        let free = buffer.get_mut(len..).unwrap_or_default();
        if free.is_empty() {
            return Err(Errno::FBIG);
        }
        match rustix::io::read(file, free) {
            Ok(0) => return Ok(len),
            Ok(read) => len += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The room for one line: no relevant line of tracefs or of the mount table is longer.
pub(crate) const LINE_LEN: usize = 4096;

/// Returns one line of a text, or an empty one if the text has too few.
pub(crate) fn line(text: &'static str, mut index: usize) -> &'static str {
    let mut start = text.as_bytes();
    while let (1.., [byte, rest @ ..]) = (index, start) {
        if *byte == b'\n' {
            index -= 1;
        }
        start = rest;
    }
    let mut end = start;
    while let [byte, rest @ ..] = end {
        if *byte == b'\n' {
            break;
        }
        end = rest;
    }
    let line = start.get(..start.len() - end.len());
    line.and_then(utf8).unwrap_or_default()
}

/// Returns which line of a text this is. One text of names is smaller than a table of them.
pub(crate) fn line_of(text: &str, line: &[u8]) -> Option<usize> {
    text.as_bytes()
        .split(|byte| *byte == b'\n')
        .position(|candidate| candidate == line)
}

/// Makes a method that returns a text for every variant of an enum without fields. Variants may
/// share one. All the texts are stored as one: the table that the compiler makes of a `match` takes
/// 16 bytes more for each variant.
macro_rules! texts {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($enum:ident) {
        $($variant:ident $(| $other:ident)* => $text:expr,)*
    }) => {
        $(#[$attribute])*
        $visibility fn $name(self) -> &'static str {
            /// Names the line of each text after the first variant that has it.
            enum Line {
                $($variant,)*
            }
            let line = match self {
                $($enum::$variant $(| $enum::$other)* => Line::$variant,)*
            };
            $crate::text::line(concat!($($text, "\n",)*), line as usize)
        }
    };
}
pub(crate) use texts;

/// Calls `each` with every line of a file, without its newline. It skips a line of `N` bytes or
/// more.
pub fn for_each_line<const N: usize>(file: &OwnedFd, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    for_lines_while::<N>(file, &mut |line| {
        each(line);
        true
    })
}

/// Does the same as long as `each` returns true.
pub fn for_lines_while<const N: usize>(
    file: &OwnedFd,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<()> {
    let mut buffer = [0; N];
    let mut filled = 0;
    let mut too_long = false;
    loop {
        let read = match rustix::io::read(file, buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let end = N.min(filled + read);
        let mut rest = buffer.get(..end).unwrap_or_default();
        while let Some((line, after)) = split_line(rest) {
            if !too_long && !each(line) {
                return Ok(());
            }
            too_long = false;
            rest = after;
        }
        if read == 0 {
            if !rest.is_empty() && !too_long {
                each(rest);
            }
            return Ok(());
        }
        filled = rest.len();
        if filled == N {
            too_long = true;
            filled = 0;
        } else {
            buffer.copy_within(end.saturating_sub(filled)..end, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lines<const N: usize>(text: &[u8]) -> Vec<Vec<u8>> {
        let file = rustix::fs::memfd_create(c"lines", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, text).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let mut lines = Vec::new();
        for_each_line::<N>(&file, &mut |line| lines.push(line.to_vec())).unwrap();
        lines
    }

    #[test]
    fn lines_come_whole_or_not_at_all() {
        assert_eq!(lines::<4>(b"ab\nc\n\nd"), [&b"ab"[..], b"c", b"", b"d"]);
        assert_eq!(lines::<4>(b"abc\nd\nefg"), [&b"abc"[..], b"d", b"efg"]);
        assert_eq!(lines::<4>(b"abcd\nf\n"), [b"f"]);
        assert_eq!(lines::<4>(b"abcde\nf\n"), [b"f"]);
        assert_eq!(lines::<4>(b"a\nbcdefghijkl\nm\nopqrs"), [b"a", b"m"]);
        assert!(lines::<4>(b"").is_empty());
    }

    #[test]
    fn a_buffer_refuses_what_does_not_fit() {
        assert_eq!(Buf::<3>::of("abc").unwrap().as_str(), "abc");
        assert!(Buf::<3>::of("abcd").is_err());
    }

    #[test]
    fn numbers_are_written_as_core_writes_them() {
        for number in [
            0,
            1,
            9,
            10,
            15,
            16,
            0x9a_bcde_f012,
            0x0123_4567_89ab_cdef,
            u64::MAX,
        ] {
            for least in [1, 8, 16] {
                let mut text = Buf::<16>::new();
                text.push_hex(number, least).unwrap();
                assert_eq!(text.as_str(), std::format!("{number:0least$x}"));
            }
        }
        for number in [0, 7, 10, 4096, u32::MAX] {
            let mut text = Buf::<10>::new();
            text.push_decimal(number).unwrap();
            assert_eq!(text.as_str(), std::format!("{number}"));
        }
    }

    #[test]
    fn a_decimal_is_digits_alone() {
        assert_eq!(decimal::<u32>(b"08"), Some(8));
        for text in [&b""[..], b"+8", b"-8", b" 8", b"8 ", b"0x8", b"4294967296"] {
            assert_eq!(decimal::<u32>(text), None);
        }
    }
}
