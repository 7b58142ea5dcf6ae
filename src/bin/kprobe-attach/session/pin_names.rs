//! The names of pins, and the text of a probe that a counter holds.
//!
//! The link of a probe is `kprobe_FUNCTION` or `kretprobe_FUNCTION`, with `_0xADDRESS` if the
//! function has been chosen by its address, and `_0xOFFSET` if there is an offset. A link to many
//! functions is `kprobe_multi_FUNCTION`, `kretprobe_multi_FUNCTION` or `kprobe_session_FUNCTION`,
//! with the first of its functions. The counter's name is `hits_` and the link's name.
//!
//! The link of an object's program has the program's name, if it is attached as its section says.
//! If it takes several links to many functions, those behind the first are `NAME_2` and so on.

use core::ffi::CStr;
use core::fmt::{self, Write};

use kprobe_attach::bpf::Array;
use kprobe_attach::request::{AttachType, Probe};

use super::attached::{Attached, Session};
use crate::cli::Args;
use crate::out::{Decimal, Hex, Lossy};

/// A text that ends with a NUL: the name of a pin, or the text of a probe that a counter holds.
pub(crate) struct Text {
    pub(super) bytes: [u8; 4096],
    pub(super) len: usize,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 4096],
            len: 0,
        }
    }

    pub(super) fn push_all(&mut self, bytes: &[u8]) {
        // The last byte stays the NUL.
        let free = self.bytes.get_mut(self.len..4095).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
            self.len += 1;
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_all(text.as_bytes());
        Ok(())
    }
}

/// The name of a link: the kind of probe, the function and the offset. A bpf file system keeps
/// names with dots for itself.
struct Name<'a>(&'a Probe<'a>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe {
            target,
            opts,
            attach_type,
        } = self.0;
        f.write_str(match (attach_type, opts.retprobe) {
            (AttachType::KprobeMulti, true) => "kretprobe_multi_",
            (AttachType::KprobeMulti, false) => "kprobe_multi_",
            (AttachType::KprobeSession, _) => "kprobe_session_",
            (_, true) => "kretprobe_",
            (_, false) => "kprobe_",
        })?;
        write!(Plain(f), "{target}")?;
        if let (None, Some(address)) = (target.as_address(), target.known_address()) {
            write!(f, "_{}", Hex(address))?;
        }
        if opts.offset == 0 {
            return Ok(());
        }
        write!(f, "_{}", Hex(opts.offset))
    }
}

struct Plain<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A target is ASCII.
        text.bytes().try_for_each(|byte| {
            let is_plain = byte.is_ascii_alphanumeric();
            self.0
                .write_char(if is_plain { char::from(byte) } else { '_' })
        })
    }
}

/// The prefix that makes the name of a counter from the name of its link.
pub(super) const COUNTER: &str = "hits_";

/// Returns the name of the pin of a probe's link.
pub(super) fn of_link(args: &Args<'_>, session: &Session<'_>, attached: &Attached<'_>) -> Text {
    let mut name = Text::new();
    let _ = write!(name, "{}", LinkName::of(args, session, attached));
    name
}

/// Prints the name of the pin of a probe's link.
pub(super) struct LinkName<'a> {
    probe: &'a Probe<'a>,
    program: Option<&'a CStr>,
    /// The number of the link among those of its program.
    number: usize,
}

impl<'a> LinkName<'a> {
    pub(super) fn of(
        args: &Args<'a>,
        session: &'a Session<'a>,
        attached: &'a Attached<'a>,
    ) -> Self {
        let (known, number) = session.named_after(attached);
        Self {
            probe: &known.probe,
            program: args.program_name(known.program),
            number,
        }
    }
}

impl fmt::Display for LinkName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.program, self.number) {
            (None, _) => Name(self.probe).fmt(f),
            (Some(program), 0) => Lossy(program).fmt(f),
            (Some(program), number) => {
                write!(f, "{}_{}", Lossy(program), Decimal(number as u64 + 1))
            }
        }
    }
}

/// Prints the path of a pin in a directory.
pub(super) struct PinPath<'a, T>(pub(super) &'a CStr, pub(super) T);

impl<T: fmt::Display> fmt::Display for PinPath<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Lossy(self.0), self.1)
    }
}

/// Returns the name of the pin of a probe's counter.
pub(super) fn of_counter(probe: &Probe<'_>) -> Text {
    let mut name = Text::new();
    // It fits: it is about as long as a symbol and an offset.
    let _ = write!(name, "{COUNTER}{}", Name(probe));
    name
}

/// Returns the text of the probe that a counter holds.
pub(crate) fn label(counter: &Array) -> Text {
    let mut label = Text::new();
    for index in 1.. {
        // After the last number the read fails. A counter that cannot be read gives no text.
        let Ok(word) = counter.get(index) else { break };
        let word = word.to_ne_bytes();
        let end = word.iter().position(|byte| *byte == 0);
        label.push_all(word.get(..end.unwrap_or(word.len())).unwrap_or_default());
        if end.is_some() || label.len == 4095 {
            break;
        }
    }
    label
}
