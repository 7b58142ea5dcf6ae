//! The mistakes of a command line.

use core::ffi::CStr;
use core::fmt;

use kprobe_attach::request::ParseError;

use crate::out::{Lossy, Shown};

/// The longest directory for pins, which leaves room for their names within `PATH_MAX`.
pub(super) const MAX_PIN_DIR_LEN: usize = 3072;

/// A mistake of a command line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage<'a> {
    NoCommand,
    UnknownCommand(&'a CStr),
    /// A command that the program was built without.
    NotBuilt(&'a CStr),
    UnknownOption(&'a CStr),
    /// An option that belongs to another command.
    NotForThis(&'a str),
    Twice(&'a str),
    MissingValue(&'a str),
    UnwantedValue(&'a str),
    BadValue(&'a str, &'a CStr, ParseError),
    BadTime(&'a str, &'a CStr),
    LongPath(&'a str),
    NoProbe,
    UnwantedProbe(&'a CStr),
    NoProgram,
    /// An option about objects.
    NoObject(&'a str),
    NoMap,
    /// No process is named whose children are meant.
    NoProcess,
    RunsNothing,
    PinAndHold,
    EmptyRun,
}

impl fmt::Display for Usage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCommand => f.write_str("a COMMAND is missing"),
            Self::UnknownCommand(name) => write!(f, "no command '{}'", Shown(Lossy(name))),
            Self::NotBuilt(name) => {
                write!(f, "this program was built without {}", Shown(Lossy(name)))
            }
            Self::UnknownOption(option) => write!(f, "no option '{}'", Shown(Lossy(option))),
            Self::NotForThis(option) => write!(f, "--{option} is not for this command"),
            Self::Twice(option) => write!(f, "--{option} is given twice"),
            Self::MissingValue(option) => write!(f, "--{option} needs a value"),
            Self::UnwantedValue(option) => write!(f, "--{option} takes no value"),
            Self::BadValue(option, value, error) => {
                write!(f, "--{option}:\n{}", error.in_text(value.to_bytes()))
            }
            Self::BadTime(option, value) => write!(
                f,
                "--{option}: '{}' is no number of seconds, such as 5 or 0.5",
                Shown(Lossy(value))
            ),
            Self::LongPath(option) => write!(f, "--{option}: the path is too long"),
            Self::NoProbe => f.write_str("a PROBE is missing"),
            Self::UnwantedProbe(probe) => {
                write!(f, "this command takes no '{}'", Shown(Lossy(probe)))
            }
            Self::NoProcess => f.write_str("--children needs --pid PID or --command-only"),
            Self::NoProgram => f.write_str("--program or --object is missing"),
            Self::NoObject(option) => write!(f, "--{option} needs --object here"),
            Self::NoMap => f.write_str("'dump' and one map are needed: its path, or id:N"),
            Self::RunsNothing => f.write_str("this command runs no COMMAND"),
            Self::PinAndHold => {
                f.write_str("--pin takes no --for, no --interval, no --pid and no COMMAND")
            }
            Self::EmptyRun => f.write_str("a COMMAND is missing after --"),
        }
    }
}
