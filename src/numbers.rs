//! Prints numbers, in fewer bytes than `core::fmt` does with its signs, widths and fills. The
//! program has this file as its own too.

use core::fmt;

/// Prints a number in decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 20];
        f.pad(digits(self.0, 10, &mut text))
    }
}

/// Prints a number in hexadecimal digits, after `0x`.
#[derive(Clone, Copy)]
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 20];
        f.write_str("0x")?;
        f.write_str(digits(self.0, 16, &mut text))
    }
}

/// Writes the digits of a number into a buffer, and returns them.
fn digits(mut number: u64, base: u8, text: &mut [u8; 20]) -> &str {
    let mut start = text.len();
    for free in text.iter_mut().rev() {
        // The remainder fits a byte.
        let [digit, ..] = (number % u64::from(base)).to_le_bytes();
        *free = digit + if digit < 10 { b'0' } else { b'a' - 10 };
        start -= 1;
        number /= u64::from(base);
        if number == 0 {
            break;
        }
    }
    let digits = text.get(start..).unwrap_or_default();
    let mut chunks = digits.utf8_chunks();
    chunks.next().map_or("", |chunk| chunk.valid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn numbers_are_printed_as_core_prints_them() {
        for number in [0, 9, 10, 15, 16, 4096, u64::MAX / 3, u64::MAX] {
            assert_eq!(format!("{}", Decimal(number)), format!("{number}"));
            assert_eq!(format!("{:>12}", Decimal(number)), format!("{number:>12}"));
            assert_eq!(format!("{}", Hex(number)), format!("{number:#x}"));
        }
    }
}
