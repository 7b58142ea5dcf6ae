//! The ways to find the function that a name means.

use core::fmt;

use super::invalid::{Invalid, ParseError};
use super::number::number;
use crate::numbers::Decimal;

/// Describes how the function of a target is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    /// The kernel looks for the name when the probe is attached.
    Kernel,
    /// `/proc/kallsyms` is searched first.
    Search(Names, Pick),
    /// It was found at this address.
    At(u64),
}

/// Says which names of functions a target's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// As large as its neighbours, it is copied with them.
#[repr(u32)]
pub(crate) enum Names {
    /// That very name.
    Exact,
    /// That name, or the names of the copies that the compiler made.
    Base,
    /// The entry points of that system call.
    Syscall,
    /// The names that match it as a pattern.
    Glob,
}

/// Says which of several functions is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pick {
    /// The only one; several are an error.
    Unique,
    /// The one with this number, counted from 1.
    Nth(u32),
    /// Each of them.
    All,
}

impl Pick {
    /// Reads what follows the `@`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let unknown = ParseError::new(0, Invalid::UnknownPick);
        match text {
            b"unique" => Ok(Self::Unique),
            b"first" => Ok(Self::Nth(1)),
            b"all" => Ok(Self::All),
            [b'0'..=b'9', ..] => match u32::try_from(number(text)?) {
                Ok(nth @ 1..) => Ok(Self::Nth(nth)),
                _ => Err(unknown),
            },
            _ => Err(unknown),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unique => f.write_str("unique"),
            Self::Nth(nth) => Decimal((*nth).into()).fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}
