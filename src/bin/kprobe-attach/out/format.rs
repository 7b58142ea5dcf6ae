//! The forms of a text: for people, and for JSON.

use core::ffi::CStr;
use core::fmt::{self, Write};

/// An argument, its bytes that are not printable ASCII shown as `?`.
pub(crate) struct Shown<'a>(pub(crate) &'a CStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.to_bytes() {
            f.write_char(if matches!(byte, b' '..=b'~') {
                char::from(*byte)
            } else {
                '?'
            })?;
        }
        Ok(())
    }
}

/// A text as a string of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        json(&self.0, f)
    }
}

fn json(text: &dyn fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    write!(Escape(f), "{text}")?;
    f.write_str("\"")
}

struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut done = 0;
        for (at, byte) in text.bytes().enumerate() {
            if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
                continue;
            }
            self.0.write_str(text.get(done..at).unwrap_or_default())?;
            done = if byte < 0x20 {
                let high = char::from(b'0' + (byte >> 4));
                let low = char::from_digit((byte & 0xf).into(), 16).unwrap_or_default();
                write!(self.0, "\\u00{high}{low}")?;
                at + 1
            } else {
                self.0.write_str("\\")?;
                at
            };
        }
        self.0.write_str(text.get(done..).unwrap_or_default())
    }
}

/// The bytes of an argument as text, U+FFFD in the place of what is no UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Lossy<'a>(pub(crate) &'a CStr);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.to_bytes();
        loop {
            let error = match core::str::from_utf8(rest) {
                Ok(text) => return f.write_str(text),
                Err(error) => error,
            };
            let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
            f.write_str(core::str::from_utf8(valid).unwrap_or_default())?;
            f.write_str("\u{fffd}")?;
            let Some(len) = error.error_len() else {
                return Ok(());
            };
            rest = rest.get(valid.len() + len..).unwrap_or_default();
        }
    }
}

/// As many blanks.
pub(crate) struct Blanks(pub(crate) usize);

impl fmt::Display for Blanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|_| f.write_char(' '))
    }
}

/// A number, or null.
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
