//! The forms of a text: for people, and for JSON.

use core::ffi::CStr;
use core::fmt::{self, Write};

use super::numbers::Decimal;
use crate::rt::time_of_day;

/// Prints a text for people. U+FFFD replaces each control character, so that no name, which others
/// may have chosen, reaches a terminal as an escape sequence or as another line.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0, f, false)
    }
}

/// Prints a text as a string of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0, f, true)
    }
}

fn escape(text: &dyn fmt::Display, f: &mut fmt::Formatter<'_>, json: bool) -> fmt::Result {
    let quote = if json { "\"" } else { "" };
    f.write_str(quote)?;
    write!(Escape { f, json }, "{text}")?;
    f.write_str(quote)
}

/// Replaces control characters, or escapes them and what JSON escapes.
struct Escape<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    json: bool,
}

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| self.write_char(char))
    }

    fn write_char(&mut self, mut char: char) -> fmt::Result {
        if char.is_control() {
            if self.json {
                // None has more than two digits.
                let digit = |value| char::from_digit(value & 0xf, 16).unwrap_or_default();
                let (high, low) = (digit(u32::from(char) >> 4), digit(char.into()));
                let escape = ['\\', 'u', '0', '0', high, low];
                return escape.iter().try_for_each(|char| self.f.write_char(*char));
            }
            char = char::REPLACEMENT_CHARACTER;
        } else if self.json && matches!(char, '"' | '\\') {
            self.f.write_char('\\')?;
        }
        self.f.write_char(char)
    }
}

/// Prints the time of day in seconds since 1970, with milliseconds.
pub(crate) struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = time_of_day() / 1_000_000;
        let rest = milliseconds % 1000;
        let zeros = match rest {
            0..10 => "00",
            10..100 => "0",
            _ => "",
        };
        write!(
            f,
            "{}.{zeros}{}",
            Decimal(milliseconds / 1000),
            Decimal(rest)
        )
    }
}

/// Prints the bytes of an argument or a file name as text. U+FFFD replaces bytes that are not
/// UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Lossy<'a>(pub(crate) &'a CStr);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chunks = self.0.to_bytes().utf8_chunks();
        chunks.try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            if chunk.invalid().is_empty() {
                Ok(())
            } else {
                f.write_str("\u{fffd}")
            }
        })
    }
}

/// Prints this many blanks.
pub(crate) struct Blanks(pub(crate) usize);

impl fmt::Display for Blanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|_| f.write_char(' '))
    }
}

/// Prints a value, or `null`.
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
