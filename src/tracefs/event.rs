//! A kprobe event in tracefs: its name, and the grammar of the files about it.
//!
//! All of it takes bytes; opening files is left to others. Source of the grammar: `Documentation/trace/kprobetrace.rst` and
//! `kernel/trace/trace_kprobe.c`.

use core::fmt;

use rustix::io::Errno;

use crate::request::target::{KprobeOpts, Target};
use crate::text::{Buf, decimal, hexadecimal, split_str, words};

/// The longest event name: `MAX_EVENT_NAME_LEN - 1`.
const MAX_EVENT_LEN: usize = 63;

/// What every group of ours begins with; 16 hexadecimal digits follow.
const GROUP_PREFIX: &str = "kprobe_attach_";

/// The name of an event of ours, not used twice by a [`Kernel`](crate::Kernel) that is not shared over `fork(2)`: a group with
/// a random part for each `Kernel`, and in it the function's name and a number.
///
/// The number and half of the random part are in the event's name too, since `kprobe_profile` leaves out the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventName {
    group: u64,
    number: u32,
    event: Buf<MAX_EVENT_LEN>,
}

impl EventName {
    pub(crate) fn new(group: u64, number: u32, target: &Target) -> Self {
        let mut event = Buf::new();
        // What is pushed fits: a suffix of at most 20 bytes, and what it leaves room for.
        let push_all = |event: &mut Buf<MAX_EVENT_LEN>| {
            let mut suffix = Buf::<20>::new();
            write!(suffix, "_{:08x}_{number}", group >> 32)?;
            if let Some(function) = target.function() {
                for byte in function.bytes().take(MAX_EVENT_LEN - suffix.as_str().len()) {
                    // An event's name is an identifier of C; `.` would begin the name of another group.
                    event.push(if byte.is_ascii_alphanumeric() {
                        byte
                    } else {
                        b'_'
                    })?;
                }
            } else if let Some(address) = target.as_address() {
                write!(event, "at_{address:x}")?;
            }
            suffix
                .as_bytes()
                .iter()
                .try_for_each(|byte| event.push(*byte))
        };
        let fits = push_all(&mut event);
        debug_assert!(fits.is_ok());
        Self {
            group,
            number,
            event,
        }
    }

    pub(crate) fn event(&self) -> &str {
        self.event.as_str()
    }

    /// The byte of `kprobe_events` that is locked for as long as the event has an owner.
    pub(crate) fn owner_byte(&self) -> u64 {
        owner_byte(self.group, self.number)
    }
}

/// A number for every event of ours, another one for every other of its group and, as good as surely, of all groups. Below
/// 2^63, as is every offset in a file.
fn owner_byte(group: u64, number: u32) -> u64 {
    (group ^ u64::from(number)) & u64::MAX >> 1
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            number: _,
            event,
        } = self;
        write!(f, "{GROUP_PREFIX}{group:016x}/{}", event.as_str())
    }
}

/// The line that defines an event: `p:GROUP/EVENT [MODULE:]FUNCTION[+OFFSET]`, `r[MAXACTIVE]:GROUP/EVENT FUNCTION`, or an
/// address in the function's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    pub(crate) name: EventName,
    pub(crate) target: Target,
    pub(crate) opts: KprobeOpts,
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, target, opts } = self;
        match (opts.retprobe, opts.maxactive) {
            (false, _) => f.write_str("p")?,
            (true, 0) => f.write_str("r")?,
            (true, maxactive) => write!(f, "r{maxactive}")?,
        }
        write!(f, ":{name} {target}")?;
        match opts.offset {
            0 => Ok(()),
            offset => write!(f, "+{offset:#x}"),
        }
    }
}

/// A line of `kprobe_events` as the kernel lists it: an entry or return probe's event. Its `Display` is the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventLine<'a> {
    /// Whether it is a return probe.
    pub retprobe: bool,
    /// The maxactive of a return probe; 0 where the kernel chose it.
    pub maxactive: u32,
    /// The group of the event.
    pub group: &'a str,
    /// The name of the event.
    pub event: &'a str,
    /// The function, with its module and offset, or the address.
    pub place: &'a str,
    /// What the event fetches, separated by blanks; empty for an event of this crate.
    pub arguments: &'a str,
}

impl<'a> EventLine<'a> {
    /// Reads a line: `p:GROUP/EVENT PLACE [ARGUMENTS]`, or `r[MAXACTIVE]:...`.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = core::str::from_utf8(line).ok()?;
        let (head, rest) = split_str(line, b' ')?;
        let (kind, name) = split_str(head, b':')?;
        let (group, event) = split_str(name, b'/')?;
        let (place, arguments) = split_str(rest, b' ').unwrap_or((rest, ""));
        let (retprobe, maxactive) = match kind.as_bytes() {
            b"p" => (false, 0),
            b"r" => (true, 0),
            [b'r', b'1'..=b'9', ..] => (true, decimal(kind.as_bytes().get(1..)?)?),
            _ => return None,
        };
        let whole = ![group, event, place].iter().any(|part| part.is_empty());
        whole.then_some(Self {
            retprobe,
            maxactive,
            group,
            event,
            place,
            arguments,
        })
    }

    /// Whether the event was defined by this crate, in this process or another: its group is `kprobe_attach_` and 16
    /// hexadecimal digits.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.random().is_some()
    }

    /// The random part of a group of ours.
    fn random(&self) -> Option<u64> {
        let digits = self.group.strip_prefix(GROUP_PREFIX)?.as_bytes();
        let as_written = digits.len() == 16 && !digits.iter().any(u8::is_ascii_uppercase);
        hexadecimal(digits).filter(|_| as_written)
    }

    /// The byte of `kprobe_events` that the owner of an event of ours has locked; [`None`] for an event whose name this crate
    /// does not give.
    pub(crate) fn owner_byte(&self) -> Option<u64> {
        let number = self.event.bytes().rposition(|byte| byte == b'_')? + 1;
        let number = decimal(self.event.as_bytes().get(number..)?)?;
        Some(owner_byte(self.random()?, number))
    }
}

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            retprobe,
            maxactive,
            group,
            event,
            place,
            arguments,
        } = self;
        f.write_str(if *retprobe { "r" } else { "p" })?;
        if *maxactive != 0 {
            write!(f, "{maxactive}")?;
        }
        write!(f, ":{group}/{event} {place}")?;
        if arguments.is_empty() {
            Ok(())
        } else {
            write!(f, " {arguments}")
        }
    }
}

/// The longest definition: `r4096:`, group, `/`, event, blank, symbol; or an entry's with `+0xffffffff`.
pub(crate) const DEFINITION_LEN: usize = 640;

/// More than any id is long.
pub(crate) const ID_LEN: usize = 32;

/// The path of an event's id, from the root of tracefs.
pub(crate) struct IdPath<'a>(pub(crate) &'a EventName);

impl fmt::Display for IdPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/id", EventPath(self.0))
    }
}

/// The path of an event's directory, from the root of tracefs.
pub(crate) struct EventPath<'a>(pub(crate) &'a EventName);

impl fmt::Display for EventPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "events/{}", self.0)
    }
}

/// The line that removes an event, by its group and name. Without the group it would remove the name from every group.
pub(crate) struct Removal<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Removal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-:{}", self.0)
    }
}

/// A line of `error_log` that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorLogLine<'a> {
    /// `[seconds] trace_kprobe: error: TEXT`
    Error(&'a [u8]),
    /// `  Command: LINE`, below the error that it met
    Command(&'a [u8]),
}

pub(crate) fn error_log_line(line: &[u8]) -> Option<ErrorLogLine<'_>> {
    if let Some(command) = line.strip_prefix(b"  Command: ") {
        return Some(ErrorLogLine::Command(command));
    }
    let text = (0..line.len()).find_map(|at| line.get(at..)?.strip_prefix(b": error: "))?;
    Some(ErrorLogLine::Error(text))
}

/// The errno that a text of `error_log` stands for: those of `ERRORS` in `kernel/trace/trace_probe.h` that tell more than
/// EINVAL does.
pub(crate) fn error_log_errno(text: &[u8]) -> Option<Errno> {
    const ERRORS: [(&str, Errno); 5] = [
        ("Invalid probed address or symbol", Errno::NOENT),
        ("The symbol is not unique", Errno::ADDRNOTAVAIL),
        ("Probe point is not an instruction boundary", Errno::ILSEQ),
        ("There is already the exact same probe event", Errno::EXIST),
        (
            "Given group/event name is already used by another event",
            Errno::EXIST,
        ),
    ];
    let (_, errno) = ERRORS.iter().find(|(error, _)| error.as_bytes() == text)?;
    Some(*errno)
}

/// An event's id: a decimal number on a line of its own.
pub(crate) fn parse_id(text: &[u8]) -> Option<u64> {
    decimal(text.strip_suffix(b"\n").unwrap_or(text))
}

/// The last column of the event's line in `kprobe_profile`: `  EVENT  HITS  MISSED`.
pub(crate) fn profile_missed(line: &[u8], event: &str) -> Option<u64> {
    let mut columns = words(line);
    if columns.next()? != event.as_bytes() {
        return None;
    }
    let _hits = columns.next()?;
    decimal(columns.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const GROUP: u64 = 0x0123_4567_89ab_cdef;

    fn definition(target: &str, number: u32, opts: KprobeOpts) -> Definition {
        let target = target.parse().unwrap();
        Definition {
            name: EventName::new(GROUP, number, &target),
            target,
            opts,
        }
    }

    #[test]
    fn definitions_are_lines_of_kprobe_events() {
        let opts = KprobeOpts::new;
        for (definition, line) in [
            (
                definition("vfs_read", 0, opts()),
                "p:kprobe_attach_0123456789abcdef/vfs_read_01234567_0 vfs_read",
            ),
            (
                definition("m:foo.isra.0", 12, opts().offset(0x10)),
                "p:kprobe_attach_0123456789abcdef/foo_isra_0_01234567_12 m:foo.isra.0+0x10",
            ),
            (
                definition("vfs_read", 1, opts().retprobe(true)),
                "r:kprobe_attach_0123456789abcdef/vfs_read_01234567_1 vfs_read",
            ),
            (
                definition("vfs_read", 2, opts().retprobe(true).maxactive(64)),
                "r64:kprobe_attach_0123456789abcdef/vfs_read_01234567_2 vfs_read",
            ),
            (
                definition("0xffffffff81000000", 3, opts()),
                "p:kprobe_attach_0123456789abcdef/at_ffffffff81000000_01234567_3 0xffffffff81000000",
            ),
        ] {
            assert_eq!(definition.to_string(), line);
        }
        let name = definition("vfs_read", 0, opts()).name;
        assert_eq!(
            Removal(&name).to_string(),
            "-:kprobe_attach_0123456789abcdef/vfs_read_01234567_0"
        );
        assert_eq!(
            IdPath(&name).to_string(),
            "events/kprobe_attach_0123456789abcdef/vfs_read_01234567_0/id"
        );
    }

    #[test]
    fn event_names_fill_63_bytes_and_no_more() {
        let longest = "f".repeat(511);
        for number in [0, 9, 10, 4_294_967_295] {
            let name = definition(&longest, number, KprobeOpts::new()).name;
            assert_eq!(name.event().len(), MAX_EVENT_LEN);
            assert!(name.event().ends_with(&std::format!("f_01234567_{number}")));
        }
        let longest = definition(
            &longest,
            u32::MAX,
            KprobeOpts::new().retprobe(true).maxactive(4096),
        );
        assert!(Buf::<DEFINITION_LEN>::of(longest).is_ok());
    }

    #[test]
    fn a_definition_is_listed_as_the_line_that_made_it() {
        let opts = KprobeOpts::new().retprobe(true).maxactive(64);
        let line = definition("m:foo.isra.0", 3, opts).to_string();
        let listed = EventLine::parse(line.as_bytes()).unwrap();
        assert!(listed.is_ours() && listed.retprobe);
        assert_eq!((listed.maxactive, listed.place), (64, "m:foo.isra.0"));
        assert_eq!(listed.to_string(), line);
        let other = "p:kprobes/p_vfs_read_0 vfs_read+0 arg1=$arg1 arg2=%si";
        let listed = EventLine::parse(other.as_bytes()).unwrap();
        assert!(!listed.is_ours());
        assert_eq!(
            (listed.event, listed.arguments),
            ("p_vfs_read_0", "arg1=$arg1 arg2=%si")
        );
        assert_eq!(listed.to_string(), other);
        for line in [
            "",
            "p:g/e",
            "x:g/e f",
            "p:e f",
            "p8:g/e f",
            "r0:g/e f",
            "r+1:g/e f",
            "p:g/e ",
            "p:/e f",
            "p:g/ f",
        ] {
            assert_eq!(EventLine::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn an_event_is_ours_by_its_group_and_has_the_byte_that_its_owner_locks() {
        let defined = definition("m:foo.isra.0", 12, KprobeOpts::new());
        let line = defined.to_string();
        let listed = EventLine::parse(line.as_bytes()).unwrap();
        assert_eq!(listed.owner_byte(), Some(defined.name.owner_byte()));
        assert_eq!(defined.name.owner_byte(), GROUP ^ 0xc);
        // A group of ours with a name that is not.
        for line in [
            "p:kprobe_attach_0123456789abcdef/byhand f",
            "p:kprobe_attach_0123456789abcdef/by_hand f",
            "p:kprobe_attach_0123456789abcdef/f_4294967296 f",
        ] {
            let listed = EventLine::parse(line.as_bytes()).unwrap();
            assert!(listed.is_ours() && listed.owner_byte().is_none(), "{line}");
        }
        for group in [
            "kprobe_attach_",
            "kprobe_attach_0123456789abcde",
            "kprobe_attach_0123456789abcdef0",
            "kprobe_attach_0123456789ABCDEF",
            "kprobe_attach_+123456789abcdef",
            "kprobe_attach_0123456789abcdeg",
            "xkprobe_attach_0123456789abcdef",
        ] {
            let line = std::format!("p:{group}/f_01234567_0 f");
            let listed = EventLine::parse(line.as_bytes()).unwrap();
            assert!(
                !listed.is_ours() && listed.owner_byte().is_none(),
                "{group}"
            );
        }
    }

    #[test]
    fn an_id_is_one_number() {
        assert_eq!(parse_id(b"1812\n"), Some(1812));
        for text in [&b""[..], b"\n", b"-1\n", b"18 12\n", b"0x1\n", b"1\n\n"] {
            assert_eq!(parse_id(text), None);
        }
    }

    #[test]
    fn missed_is_the_last_column_of_the_very_event() {
        let line =
            b"  vfs_read_01234567_1                                       123               4";
        assert_eq!(profile_missed(line, "vfs_read_01234567_1"), Some(4));
        assert_eq!(profile_missed(line, "vfs_read_01234567_10"), None);
        assert_eq!(profile_missed(line, "vfs_read_01234567_"), None);
        assert_eq!(
            profile_missed(b"  vfs_read_01234567_1 123", "vfs_read_01234567_1"),
            None
        );
    }

    #[test]
    fn the_error_log_tells_what_einval_meant() {
        let line = b"[  123.456] trace_kprobe: error: Invalid probed address or symbol";
        let Some(ErrorLogLine::Error(text)) = error_log_line(line) else {
            unreachable!("{:?}", error_log_line(line));
        };
        assert_eq!(error_log_errno(text), Some(Errno::NOENT));
        assert_eq!(error_log_errno(b"Failed to register probe event"), None);
        assert_eq!(
            error_log_line(b"  Command: p:g/e foo"),
            Some(ErrorLogLine::Command(b"p:g/e foo"))
        );
        assert_eq!(error_log_line(b"               ^"), None);
    }
}
