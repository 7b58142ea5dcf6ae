//! Text without an allocator: a buffer to write into, and lines read from a file. Overflow is an error, never a cut.

use core::fmt;
use core::str::FromStr;

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};

/// Text of at most `N` bytes.
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

    /// The text of `value`, if it fits.
    pub(crate) fn of(value: impl fmt::Display) -> core::result::Result<Self, fmt::Error> {
        let mut buf = Self::new();
        fmt::write(&mut buf, format_args!("{value}"))?;
        Ok(buf)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, byte: u8) -> core::result::Result<(), fmt::Error> {
        *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
        self.len += 1;
        Ok(())
    }
}

impl<const N: usize> fmt::Write for Buf<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().try_for_each(|byte| self.push(byte))
    }
}

impl<const N: usize> fmt::Debug for Buf<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A decimal number, and nothing else.
pub(crate) fn decimal<T: FromStr>(text: &[u8]) -> Option<T> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// The words of a line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
}

/// Whether a text has a part somewhere.
pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The whole of a file of at most `N` bytes.
pub(crate) fn read_small<const N: usize>(file: &OwnedFd, buffer: &mut [u8; N]) -> Result<usize> {
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

/// More than any line of tracefs or the mount table that matters here.
pub(crate) const LINE_LEN: usize = 4096;

/// Calls `each` with every line of a file, without its newline. A line longer than `N` bytes is passed over: what is looked
/// for has a place in the buffer.
pub(crate) fn for_each_line<const N: usize>(
    file: &OwnedFd,
    each: &mut dyn FnMut(&[u8]),
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
        let end = filled + read;
        let mut rest = buffer.get(..end).unwrap_or_default();
        while let Some(newline) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(newline);
            if !too_long {
                each(line);
            }
            too_long = false;
            rest = after.get(1..).unwrap_or_default();
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
            buffer.copy_within(end - filled..end, 0);
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
    fn a_decimal_is_digits_alone() {
        assert_eq!(decimal::<u32>(b"08"), Some(8));
        for text in [&b""[..], b"+8", b"-8", b" 8", b"8 ", b"0x8", b"4294967296"] {
            assert_eq!(decimal::<u32>(text), None);
        }
    }
}
