//! The name of a trace event, and the grammar of the files about it.
//!
//! Everything here works on bytes, and opens no file. The grammar is that of
//! `Documentation/trace/kprobetrace.rst` and `kernel/trace/trace_kprobe.c`.

use core::fmt;

use rustix::io::Errno;

use crate::numbers::Decimal;
use crate::request::{KprobeOpts, Target};
use crate::text::{Buf, contains, decimal, hexadecimal, line_of, split_str, utf8, words};

/// The prefix of the name of each of this crate's events.
const EVENT_PREFIX: &str = "probe_";

/// The prefix of each of this crate's groups. It is followed by 16 hexadecimal digits.
const GROUP_PREFIX: &str = "kprobe_attach_";

/// Names one of this crate's events: a group with a random part for each [`Kernel`](crate::Kernel),
/// and a number in that group.
///
/// Early in boot, the kernel has no random numbers yet. The random part is then made from a number
/// that the kernel counts up, and from the process id.
///
/// A `Kernel` never uses a name twice, unless it is shared over [`fork(2)`].
///
/// The event's own name repeats the number and half of the random part, because `kprobe_profile`
/// leaves out the group.
///
/// [`fork(2)`]: https://man7.org/linux/man-pages/man2/fork.2.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventName {
    group: u64,
    number: u32,
}

impl EventName {
    pub(crate) const fn new(group: u64, number: u32) -> Self {
        Self { group, number }
    }

    /// Writes `GROUP/EVENT`.
    pub(crate) fn put(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        text.push_all(GROUP_PREFIX.as_bytes())?;
        text.push_hex(self.group, 16)?;
        text.push(b'/')?;
        self.put_event(text)
    }

    fn put_event(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        text.push_all(EVENT_PREFIX.as_bytes())?;
        text.push_hex(self.group >> 32, 8)?;
        text.push(b'_')?;
        text.push_decimal(self.number)
    }

    /// Returns the name without the group.
    pub(crate) fn event(&self) -> Buf<WRITTEN_LEN> {
        let mut event = Buf::new();
        let fits = self.put_event(&mut event);
        debug_assert!(fits.is_ok());
        event
    }

    /// Returns the byte of `kprobe_events` that is locked while the event has an owner.
    pub(crate) const fn owner_byte(&self) -> u64 {
        owner_byte(self.group, self.number)
    }
}

/// Returns a number for each of this crate's events. The numbers within a group differ; those of
/// different groups differ almost certainly. A number is below 2^63, like every offset in a file.
const fn owner_byte(group: u64, number: u32) -> u64 {
    (group ^ number as u64) & u64::MAX >> 1
}

/// Writes `GROUP/EVENT`.
impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &|text| self.put(text))
    }
}

/// Holds the line that defines an event.
///
/// An entry probe is `p:GROUP/EVENT [MODULE:]FUNCTION[+OFFSET]`. A return probe is
/// `r[MAXACTIVE]:GROUP/EVENT [MODULE:]FUNCTION`. An address can stand in place of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    pub(crate) name: EventName,
    pub(crate) target: Target<'a>,
    pub(crate) opts: KprobeOpts,
}

impl Definition<'_> {
    /// Writes the line.
    pub(crate) fn put(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        let Self { name, target, opts } = self;
        text.push(if opts.retprobe { b'r' } else { b'p' })?;
        if opts.retprobe && opts.maxactive != 0 {
            text.push_decimal(opts.maxactive)?;
        }
        text.push(b':')?;
        name.put(text)?;
        text.push(b' ')?;
        let (module, function) = match target.place() {
            Ok(name) => name,
            // A plan's address and offset have been checked.
            Err(address) => return put_hexadecimal(text, address + opts.offset),
        };
        if let Some(module) = module {
            text.push_all(module)?;
            text.push(b':')?;
        }
        text.push_all(function)?;
        if opts.offset == 0 {
            return Ok(());
        }
        text.push(b'+')?;
        put_hexadecimal(text, opts.offset)
    }
}

fn put_hexadecimal(text: &mut Buf<WRITTEN_LEN>, number: u64) -> fmt::Result {
    text.push_all(b"0x")?;
    text.push_hex(number, 1)
}

/// Writes the line.
impl fmt::Display for Definition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &|text| self.put(text))
    }
}

/// Prints text that is written to `kprobe_events`, exactly as it is written there.
fn show(
    f: &mut fmt::Formatter<'_>,
    put: &dyn Fn(&mut Buf<WRITTEN_LEN>) -> fmt::Result,
) -> fmt::Result {
    let mut text = Buf::new();
    put(&mut text)?;
    f.write_str(text.as_str())
}

/// Represents a line of `kprobe_events`, as the kernel lists an event.
///
/// Its `Display` writes that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventLine<'a> {
    /// Whether it is a return probe.
    pub retprobe: bool,
    /// The maxactive of a return probe; 0 if the kernel chose it.
    pub maxactive: u32,
    /// The group of the event.
    pub group: &'a str,
    /// The name of the event.
    pub event: &'a str,
    /// The function with its module and offset, or the address.
    pub place: &'a str,
    /// The values that the event fetches, separated by blanks. It is empty for this crate's events.
    pub arguments: &'a str,
}

impl<'a> EventLine<'a> {
    /// Reads a line: `p:GROUP/EVENT PLACE [ARGUMENTS]`, or `r[MAXACTIVE]:...`.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = utf8(line)?;
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

    /// Returns whether this crate defined the event, in this process or in another.
    ///
    /// The group of such an event is `kprobe_attach_` and 16 hexadecimal digits.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.random().is_some()
    }

    /// Returns the random part, if the group is one of this crate's.
    fn random(&self) -> Option<u64> {
        let digits = self.group.strip_prefix(GROUP_PREFIX)?.as_bytes();
        let as_written = digits.len() == 16 && !digits.iter().any(u8::is_ascii_uppercase);
        hexadecimal(digits).filter(|_| as_written)
    }

    /// Returns the byte of `kprobe_events` that the owner of the event has locked. Returns [`None`]
    /// for a name that this crate does not give.
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
            Decimal((*maxactive).into()).fmt(f)?;
        }
        write!(f, ":{group}/{event} {place}")?;
        if arguments.is_empty() {
            Ok(())
        } else {
            write!(f, " {arguments}")
        }
    }
}

/// The room for the longest line: the definition of a return probe with a maxactive of 4 digits, or
/// of an entry probe with `+0xffffffff`.
pub(crate) const WRITTEN_LEN: usize = 640;

/// The room for an event's id, which is shorter.
pub(crate) const ID_LEN: usize = 32;

/// Names the path of an event's directory, relative to the root of tracefs.
pub(crate) struct EventPath<'a>(pub(crate) &'a EventName);

impl EventPath<'_> {
    /// Writes the path.
    pub(crate) fn put(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        text.push_all(b"events/")?;
        self.0.put(text)
    }
}

impl fmt::Display for EventPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &|text| self.put(text))
    }
}

/// Names the path of an event's id, relative to the root of tracefs.
pub(crate) struct IdPath<'a>(pub(crate) &'a EventName);

impl IdPath<'_> {
    /// Writes the path.
    pub(crate) fn put(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        EventPath(self.0).put(text)?;
        text.push_all(b"/id")
    }
}

impl fmt::Display for IdPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &|text| self.put(text))
    }
}

/// Holds the line that removes an event, by its group and name. Without the group, the line would
/// remove the name from every group.
pub(crate) struct Removal<'a>(pub(crate) &'a EventName);

impl Removal<'_> {
    /// Writes the line.
    pub(crate) fn put(&self, text: &mut Buf<WRITTEN_LEN>) -> fmt::Result {
        text.push_all(b"-:")?;
        self.0.put(text)
    }
}

impl fmt::Display for Removal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &|text| self.put(text))
    }
}

/// Represents one of the lines of `error_log` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorLogLine<'a> {
    /// `[seconds] trace_kprobe: error: TEXT`
    Error(&'a [u8]),
    /// `  Command: LINE`, below the error that it caused.
    Command(&'a [u8]),
}

/// Reads a line of `error_log`, or [`None`] for any other.
pub fn error_log_line(line: &[u8]) -> Option<ErrorLogLine<'_>> {
    if let Some(command) = line.strip_prefix(b"  Command: ") {
        return Some(ErrorLogLine::Command(command));
    }
    let text = (0..line.len()).find_map(|at| line.get(at..)?.strip_prefix(b": error: "))?;
    Some(ErrorLogLine::Error(text))
}

/// Returns the errno for a text of `error_log`. The texts are those of `ERRORS` in
/// `kernel/trace/trace_probe.h` that say more than EINVAL does.
pub fn error_log_errno(text: &[u8]) -> Option<Errno> {
    const ERRORS: &str = "\
Invalid probed address or symbol
The symbol is not unique
Probe point is not an instruction boundary
There is already the exact same probe event
Given group/event name is already used by another event";
    const ERRNOS: [Errno; 5] = [
        Errno::NOENT,
        Errno::ADDRNOTAVAIL,
        Errno::ILSEQ,
        Errno::EXIST,
        Errno::EXIST,
    ];
    ERRNOS.get(line_of(ERRORS, text)?).copied()
}

/// Returns whether a line of the file `README` shows that a return probe can have a maxactive.
pub(crate) fn readme_has_maxactive(line: &[u8]) -> bool {
    contains(line, b"r[maxactive]")
}

/// Reads an event's id: a decimal number on a line of its own.
pub(crate) fn parse_id(text: &[u8]) -> Option<u64> {
    decimal(text.strip_suffix(b"\n").unwrap_or(text))
}

/// Reads the last column of the event's line in `kprobe_profile`: `  EVENT  HITS  MISSED`.
pub fn profile_missed(line: &[u8], event: &str) -> Option<u64> {
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

    fn definition(target: &str, number: u32, opts: KprobeOpts) -> Definition<'_> {
        let target = Target::parse(target).unwrap();
        Definition {
            name: EventName::new(GROUP, number),
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
                "p:kprobe_attach_0123456789abcdef/probe_01234567_0 vfs_read",
            ),
            (
                definition("m:foo.isra.0", 12, opts().offset(0x10)),
                "p:kprobe_attach_0123456789abcdef/probe_01234567_12 m:foo.isra.0+0x10",
            ),
            (
                definition("vfs_read", 1, opts().retprobe(true)),
                "r:kprobe_attach_0123456789abcdef/probe_01234567_1 vfs_read",
            ),
            (
                definition("vfs_read", 2, opts().retprobe(true).maxactive(64)),
                "r64:kprobe_attach_0123456789abcdef/probe_01234567_2 vfs_read",
            ),
            (
                definition("0xffffffff81000000", 3, opts()),
                "p:kprobe_attach_0123456789abcdef/probe_01234567_3 0xffffffff81000000",
            ),
        ] {
            assert_eq!(definition.to_string(), line);
        }
        let name = definition("vfs_read", 0, opts()).name;
        assert_eq!(
            Removal(&name).to_string(),
            "-:kprobe_attach_0123456789abcdef/probe_01234567_0"
        );
        assert_eq!(
            IdPath(&name).to_string(),
            "events/kprobe_attach_0123456789abcdef/probe_01234567_0/id"
        );
    }

    #[test]
    fn the_longest_definition_fits() {
        let longest = "f".repeat(511);
        let retprobe = KprobeOpts::new().retprobe(true).maxactive(4096);
        let entry = KprobeOpts::new().offset(u32::MAX.into());
        for opts in [retprobe, entry] {
            let longest = definition(&longest, u32::MAX, opts);
            assert!(longest.put(&mut Buf::new()).is_ok());
            assert_eq!(longest.name.event().as_str(), "probe_01234567_4294967295");
        }
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
        // A group of this crate, and a name that this crate does not give.
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

    #[test]
    fn the_readme_shows_whether_a_return_probe_has_a_maxactive() {
        let has = |readme: &str| {
            readme
                .lines()
                .any(|line| readme_has_maxactive(line.as_bytes()))
        };
        // Linux 4.9.
        assert!(!has("\
  kprobe_events\t\t- Add/remove/show the kernel dynamic events
\t\t\t  Write into this file to define/undefine new trace events.
\t  accepts: event-definitions (one definition per line)
\t   Format: p|r[:[<group>/]<event>] <place> [<args>]
\t           -:[<group>/]<event>
\t    place: [<module>:]<symbol>[+<offset>]|<memaddr>
"));
        // Linux 5.10 and 6.12.
        assert!(has("\
\t   Format: p[:[<group>/]<event>] <place> [<args>]
\t           r[maxactive][:[<group>/]<event>] <place> [<args>]
"));
        assert!(has("\
\t   Format: p[:[<group>/][<event>]] <place> [<args>]
\t           r[maxactive][:[<group>/][<event>]] <place> [<args>]
\t           f[:[<group>/][<event>]] <func-name>[%return] [<args>]
"));
    }
}
