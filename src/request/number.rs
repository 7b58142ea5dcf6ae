//! Numbers as C writes them.

use super::invalid::{Invalid, ParseError};
use crate::text::{DigitError, digits};

/// Reads a number as in C: decimal, hexadecimal after `0x`, or octal after `0`. It takes no sign,
/// no blanks, and nothing after the digits.
pub(super) fn number(text: &[u8]) -> Result<u64, ParseError> {
    let (text_of_digits, base) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', b'b' | b'B', ..] => return Err(ParseError::new(1, Invalid::BinaryNumber)),
        [b'0', rest @ ..] if !rest.is_empty() => (rest, 8),
        rest => (rest, 10),
    };
    let start = text.len() - text_of_digits.len();
    digits(text_of_digits, base).map_err(|error| {
        let (at, invalid) = match error {
            DigitError::Empty => (0, Invalid::EmptyNumber),
            DigitError::NotADigit(at) => (at, Invalid::NotADigit),
            DigitError::TooLarge(at) => (at, Invalid::NumberTooLarge),
        };
        ParseError::new(start + at, invalid)
    })
}
