//! The bytes that a name has: of a function, of a module, and of a pattern of names.

use super::invalid::{Invalid, ParseError};

/// The length of the longest name that any kernel takes, with its module prefix.
///
/// It is `KSYM_NAME_LEN - 1` since Linux 6.1 (commit b8a94bfb3395). Earlier kernels take 127 bytes,
/// and return `E2BIG` for a longer name.
pub const MAX_SYMBOL_LEN: usize = 511;

/// Returns whether a text is a pattern of names, and no name.
pub(super) fn is_glob(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Returns whether a name keeps all the rules below. `check_function` then finds the one it breaks.
pub(super) fn is_function(name: &[u8]) -> bool {
    let starts_well = name.first().is_some_and(|byte| !byte.is_ascii_digit());
    // Most names are good: without an early exit, each byte takes fewer instructions.
    let good = name
        .iter()
        .fold(true, |good, byte| good & is_symbol_byte(*byte));
    starts_well && good && name.len() <= MAX_SYMBOL_LEN
}

/// Returns whether a byte is a letter, a digit, `_`, `.` or `$`.
#[inline]
fn is_symbol_byte(byte: u8) -> bool {
    const SET: [bool; 256] = {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < 128_u8 {
            #[allow(clippy::indexing_slicing, reason = "at compile time")]
            {
                set[byte as usize] =
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
            }
            byte += 1;
        }
        set
    };
    SET.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Checks a module's name: letters, digits and `_`. The kernel turns `-` into `_`.
pub(super) fn check_module(name: &[u8]) -> Result<(), ParseError> {
    if name.is_empty() {
        return Err(ParseError::new(0, Invalid::EmptyModule));
    }
    match name
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_'))
    {
        Some(at) => Err(ParseError::new(at, Invalid::ModuleByte)),
        None => Ok(()),
    }
}

/// Checks the name of a function, or a pattern.
pub(super) type Check = fn(&[u8]) -> Result<(), ParseError>;

/// Checks a pattern: bytes of names, and those that make it a pattern.
pub(super) fn check_glob(glob: &[u8]) -> Result<(), ParseError> {
    let is_wrong = |byte: &u8| !is_symbol_byte(*byte) && !b"*?[]!^-".contains(byte);
    match glob.iter().position(is_wrong) {
        Some(at) => Err(ParseError::new(at, Invalid::FunctionByte)),
        None => Ok(()),
    }
}

/// Checks a function's name, byte by byte.
///
/// Any other byte has a meaning of its own on a line of `kprobe_events`. White space separates
/// words, and a newline separates commands; to the kernel, 0xa0 is white space too. A `#` starts a
/// comment, `%` a modifier, and `+` or `-` an offset. A `/` or `:` makes the line a uprobe, and a
/// leading digit makes the name an address.
pub(super) fn check_function(name: &[u8]) -> Result<(), ParseError> {
    let invalid = match name.first() {
        None => Some((0, Invalid::EmptyFunction)),
        Some(b'0'..=b'9') => Some((0, Invalid::LeadingDigit)),
        Some(_) => name
            .iter()
            .position(|byte| !is_symbol_byte(*byte))
            .map(|at| (at, Invalid::FunctionByte)),
    };
    invalid.map_or(Ok(()), |(at, invalid)| Err(ParseError::new(at, invalid)))
}
