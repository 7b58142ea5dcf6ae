//! The grammar of a probe's text: where it means what libbpf's section names mean, and what never
//! gets through it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]

use kprobe_attach::request::{AttachType, Invalid, MAX_SYMBOL_LEN, Probe};
use kprobe_attach::{AttachMode, KprobeOpts, Target, TargetBuf};
use proptest::prelude::*;

/// What a section name means to libbpf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section<'a> {
    retprobe: bool,
    function: &'a str,
    offset: i64,
}

/// `attach_kprobe()` of `src/libbpf.c`, with the text that it leaves unread: [`None`] where it says
/// `EINVAL`, or where the text is no section for a kprobe.
fn libbpf(text: &str) -> Option<(Section<'_>, &str)> {
    let (retprobe, place) = match text.strip_prefix("kretprobe/") {
        Some(place) => (true, place),
        None => (false, text.strip_prefix("kprobe/")?),
    };
    let (function, offset, rest) = scan(place)?;
    let offset = offset.unwrap_or(0);
    let section = Section {
        retprobe,
        function,
        offset,
    };
    let refused = offset < 0 || (retprobe && offset != 0);
    (!refused).then_some((section, rest))
}

/// `sscanf(place, "%m[a-zA-Z0-9_.]+%li", &function, &offset)` of a C library before C23: what was
/// read, and what was not.
fn scan(place: &str) -> Option<(&str, Option<i64>, &str)> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let (function, rest) = split_at_first(place, |c| !letter(c));
    if function.is_empty() {
        return None;
    }
    let Some(number) = rest.strip_prefix('+') else {
        return Some((function, None, rest));
    };
    match strtol(number) {
        Some((offset, rest)) => Some((function, Some(offset), rest)),
        None => Some((function, None, number)),
    }
}

/// `strtol(text, &rest, 0)`; [`None`] where there is no digit.
fn strtol(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .filter(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
    let (base, text) = match hexadecimal {
        Some(digits) => (16, digits),
        None if text.starts_with('0') => (8, text),
        None => (10, text),
    };
    let (digits, rest) = split_at_first(text, |c| !c.is_digit(base));
    if digits.is_empty() {
        return None;
    }
    // What does not fit 128 bits does not fit a long either.
    let value = i128::from_str_radix(digits, base).unwrap_or(i128::MAX);
    let value = if negative { -value } else { value };
    let value = value.clamp(i64::MIN.into(), i64::MAX.into());
    Some((i64::try_from(value).unwrap(), rest))
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// The rows of the table at [`Probe`] that are about a text which libbpf reads to its end.
fn differs_on_purpose(text: &str, section: &Section<'_>) -> bool {
    let (_, place) = text.split_once('/').unwrap();
    let number = place.split_once('+').map(|(_, number)| number);
    let slip = number.is_some_and(|number| {
        // `+` and nothing, a sign, or a blank.
        !number.starts_with(|c: char| c.is_ascii_digit())
    });
    slip || section.offset > u32::MAX.into()
        || section.function.starts_with(|c: char| c.is_ascii_digit())
}

/// What a probe means, in libbpf's terms; [`None`] for an address, which libbpf's sections have
/// not.
fn meaning<'a>(probe: &Probe<'a>) -> Option<Section<'a>> {
    Some(Section {
        retprobe: probe.opts.retprobe,
        function: probe.target.function()?,
        offset: i64::try_from(probe.opts.offset).unwrap(),
    })
}

/// A kind, or nearly one.
fn kind() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "k(ret)?probe/",
        1 => "k(ret)?probe|/|kprobe//|kprobe.multi/|\\?kprobe/|Kprobe/|kprobe /",
    ]
}

/// A function's name, or nearly one.
fn function() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-zA-Z_.][a-zA-Z0-9_.]{0,12}",
        2 => "[a-zA-Z0-9_.$:]{0,6}",
        1 => "[ -~\\n\\t]{0,6}",
        1 => "[a-z]{505,515}",
    ]
}

/// Nothing, or an offset in C's ways of writing a number, or nearly one.
fn offset() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        4 => any::<u32>().prop_map(|offset| format!("+{offset}")),
        4 => any::<u32>().prop_map(|offset| format!("+{offset:#x}")),
        2 => any::<u32>().prop_map(|offset| format!("+0X{offset:X}")),
        2 => any::<u32>().prop_map(|offset| format!("+0{offset:o}")),
        2 => any::<u64>().prop_map(|offset| format!("+{offset}")),
        2 => "\\+0{1,3}[xXbB]?[0-9a-fA-F]{0,3}",
        3 => "[+-][+-]?[ \\t\\n\\v\\f\\r]{0,2}[+-]?[0-9a-fxXbB]{0,4}",
        1 => "\\+[0-9]{19,45}",
        1 => "[ -~]{0,4}",
    ]
}

fn section() -> impl Strategy<Value = String> {
    (kind(), function(), offset()).prop_map(|(kind, function, offset)| kind + &function + &offset)
}

fn mode() -> impl Strategy<Value = Option<AttachMode>> {
    proptest::option::of(proptest::sample::select(&AttachMode::ALL[..]))
}

fn target() -> impl Strategy<Value = TargetBuf> {
    let function = "[a-zA-Z_.$][a-zA-Z0-9_.$]{0,60}";
    prop_oneof![
        4 => function.prop_map(|function| Target::symbol(&function).unwrap().into()),
        2 => ("[a-zA-Z0-9_]{1,30}", function)
            .prop_map(|(module, function)| Target::in_module(&module, &function).unwrap().into()),
        1 => (1_u64 << 63..=u64::MAX - 4096).prop_map(|address| Target::address(address).into()),
        1 => "[a-z]{511}".prop_map(|function| Target::symbol(&function).unwrap().into()),
    ]
}

/// A cookie and a maxactive, each of which may be none.
fn numbers() -> impl Strategy<Value = (u64, u32)> {
    let cookie = prop_oneof![Just(0), any::<u64>()];
    let maxactive = prop_oneof![Just(0), 1..=4096_u32];
    (cookie, maxactive)
}

/// A probe that owns its target.
#[derive(Clone, Debug)]
struct ProbeBuf {
    target: TargetBuf,
    opts: KprobeOpts,
}

impl ProbeBuf {
    fn as_probe(&self) -> Probe<'_> {
        Probe {
            target: self.target.as_target(),
            opts: self.opts,
            attach_type: AttachType::Kprobe,
        }
    }
}

/// Probes that keep every rule.
fn probe() -> impl Strategy<Value = ProbeBuf> {
    let options = (any::<u32>(), any::<bool>(), mode(), numbers());
    (target(), options).prop_map(|(target, (offset, retprobe, mode, numbers))| {
        let (cookie, maxactive) = numbers;
        let mut opts = KprobeOpts::new().retprobe(retprobe);
        opts.attach_mode = mode;
        if !retprobe && target.as_target().as_address().is_none() {
            opts.offset = offset.into();
        }
        if mode.is_none_or(AttachMode::uses_link) {
            opts.bpf_cookie = cookie;
        }
        if retprobe && mode.is_none_or(AttachMode::uses_tracefs) {
            opts.maxactive = maxactive;
        }
        ProbeBuf { target, opts }
    })
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // The smallest failing text is printed; there is nothing to keep beside the source.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn what_libbpf_reads_to_its_end_means_the_same_here(text in section()) {
        match libbpf(&text) {
            Some((section, "")) if !differs_on_purpose(&text, &section) => {
                let probe = Probe::parse(&text);
                // No kernel has a symbol as long, so libbpf fails later.
                let too_long = section.function.len() > MAX_SYMBOL_LEN;
                match probe {
                    Ok(probe) => prop_assert_eq!(meaning(&probe), Some(section)),
                    Err(error) => prop_assert!(too_long && error.invalid == Invalid::NameTooLong),
                }
            }
            _ => {}
        }
    }

    #[test]
    fn what_is_taken_here_means_the_same_to_libbpf(text in section()) {
        let own = text.contains([':', '$', ',', '*', '?', '[', '@'])
            || !text.contains('/')
            || text.contains(".multi/");
        if let (Ok(probe), false) = (Probe::parse(&text), own) {
            if let Some(section) = meaning(&probe) {
                prop_assert_eq!(libbpf(&text), Some((section, "")));
            }
        }
    }

    #[test]
    fn every_name_and_offset_of_a_section_is_taken(
        retprobe in any::<bool>(),
        function in "[a-zA-Z_.][a-zA-Z0-9_.]{0,40}",
        offset in any::<u32>(),
    ) {
        let (kind, offset) = if retprobe { ("kretprobe", 0) } else { ("kprobe", offset) };
        let section = Section { retprobe, function: &function, offset: offset.into() };
        for number in [format!("{offset}"), format!("{offset:#x}"), format!("0{offset:o}")] {
            let text = format!("{kind}/{function}+{number}");
            prop_assert_eq!(libbpf(&text), Some((section, "")));
            let probe = Probe::parse(&text).unwrap();
            prop_assert_eq!(meaning(&probe), Some(section));
        }
    }

    #[test]
    fn a_printed_probe_parses_to_the_same(probe in probe()) {
        let (probe, text) = (probe.as_probe(), probe.as_probe().to_string());
        prop_assert_eq!(Probe::parse(&text), Ok(probe));
    }

    #[test]
    fn an_error_points_into_its_text(text in prop_oneof![section(), ".{0,40}"]) {
        if let Err(error) = Probe::parse(&text) {
            prop_assert!(error.at <= text.len());
            let shown = error.in_text(text.as_bytes()).to_string();
            let caret = shown.lines().nth(1).unwrap();
            prop_assert_eq!(caret.find('^'), Some(error.at));
            prop_assert_eq!(shown.lines().count(), 3);
        }
    }
}

/// The oracle itself, held against the C library.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
#[allow(unsafe_code)]
mod c {
    use super::*;
    use std::ffi::{CStr, CString};

    /// The function, and the offset if it was read.
    fn sscanf(place: &str) -> Option<(String, Option<i64>)> {
        let place = CString::new(place).unwrap();
        let format = c"%m[a-zA-Z0-9_.]+%li".as_ptr();
        let mut function: *mut libc::c_char = std::ptr::null_mut();
        let mut offset: libc::c_long = 0;
        // SAFETY: the format takes the addresses of a `char *` and of a `long`.
        let read =
            unsafe { libc::sscanf(place.as_ptr(), format, &raw mut function, &raw mut offset) };
        if read < 1 {
            return None;
        }
        // SAFETY: `%m` of a string that was read gives one that ends in NUL.
        let name = unsafe { CStr::from_ptr(function) }
            .to_str()
            .unwrap()
            .to_owned();
        // SAFETY: it is from `malloc()`, and nobody has it now.
        unsafe { libc::free(function.cast()) };
        Some((name, (read == 2).then_some(offset)))
    }

    proptest! {
        #![proptest_config(cases(2048))]

        #[test]
        fn the_oracle_reads_as_sscanf_does((function, offset) in (function(), offset())) {
            let place = function + &offset;
            let ours = scan(&place).map(|(function, offset, _)| (function.to_owned(), offset));
            prop_assert_eq!(ours, sscanf(&place));
        }
    }
}

#[test]
fn the_oracle_reads_the_documented_cases_as_documented() {
    let read = |text: &str| {
        libbpf(text)
            .map(|(section, rest)| (section.function.to_owned(), section.offset, rest.to_owned()))
    };
    let ok = |function: &str, offset, rest: &str| Some((function.into(), offset, rest.into()));
    for (place, expected) in [
        ("foo", ok("foo", 0, "")),
        ("foo+", ok("foo", 0, "")),
        ("foo+x", ok("foo", 0, "x")),
        ("foo-5", ok("foo", 0, "-5")),
        ("foo +5", ok("foo", 0, " +5")),
        ("foo/bar", ok("foo", 0, "/bar")),
        ("foo%return", ok("foo", 0, "%return")),
        ("foo$x", ok("foo", 0, "$x")),
        ("mod:foo", ok("mod", 0, ":foo")),
        ("foo+5", ok("foo", 5, "")),
        ("foo+0x5", ok("foo", 5, "")),
        ("foo++5", ok("foo", 5, "")),
        ("foo+\t7", ok("foo", 7, "")),
        ("foo+5abc", ok("foo", 5, "abc")),
        ("foo+010", ok("foo", 8, "")),
        ("foo+08", ok("foo", 0, "8")),
        ("foo+0xg", ok("foo", 0, "xg")),
        ("foo+1e3", ok("foo", 1, "e3")),
        ("foo+-5", None),
        ("foo+-0", ok("foo", 0, "")),
        ("foo+18446744073709551615", ok("foo", i64::MAX, "")),
        ("", None),
        (" foo", None),
        ("+5", None),
        ("*", None),
        ("@foo", None),
        ("123", ok("123", 0, "")),
    ] {
        assert_eq!(read(&format!("kprobe/{place}")), expected, "{place}");
    }
    assert_eq!(read("kretprobe/foo+5"), None);
    assert_eq!(read("kretprobe/foo+0"), ok("foo", 0, ""));
}

/// What a name could smuggle onto a line of `kprobe_events`, were it taken.
const HOSTILE: [(&str, &str); 25] = [
    ("a newline and a removal", "foo\n-:victim/ev"),
    ("a newline and a probe", "foo\np:kprobes/x vfs_read"),
    ("a newline at the end", "foo\n"),
    ("a newline alone", "\n"),
    ("a carriage return", "foo\rbar"),
    ("a blank and a fetch of memory", "foo @0xffffffff81000000"),
    ("a tab and a fetch", "foo\tx=%di"),
    ("a vertical tab", "foo\x0bx=%di"),
    ("a form feed", "foo\x0cx=%di"),
    ("a blank in front", " foo"),
    ("a no-break space", "foo\u{a0}x=%di"),
    ("a comment", "foo#+0x10"),
    ("a negative offset", "foo-0x10"),
    ("an offset without a number", "foo+bar"),
    ("two offsets", "foo+0x10+0x10"),
    ("a return probe", "foo%return"),
    ("digits, an address to the kernel", "18446744071578845184"),
    ("a digit in front", "0foo"),
    ("a module within a module", "a:b:foo"),
    ("a file, a uprobe to the kernel", "/bin/sh:0x1000"),
    ("a group and an event", "kprobes/foo"),
    ("a path upwards", "../foo"),
    ("a quote", "foo\"bar"),
    ("NUL and what it hides", "foo\0bar"),
    ("nothing", ""),
];

#[test]
fn a_hostile_name_is_no_target() {
    for (what, name) in HOSTILE {
        assert!(Target::symbol(name).is_err(), "{what}");
        assert!(Target::parse(name).is_err(), "{what}");
        assert!(Target::in_module("m", name).is_err(), "{what}");
        assert!(Target::symbol(&format!("m:{name}")).is_err(), "{what}");
    }
    // Of these each is fine where it belongs, and nowhere else.
    for name in ["foo+0x10", "0xffffffff81000000", "foo,cookie=1"] {
        assert!(Target::symbol(name).is_err(), "{name}");
        assert!(Target::in_module("m", name).is_err(), "{name}");
    }
    assert!(Target::in_module("m", "a:foo").is_err());
}

#[test]
fn a_hostile_name_is_no_module() {
    for (what, name) in HOSTILE {
        // Of a module's name digits may be the first, or all.
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !name.is_empty() {
            continue;
        }
        assert!(Target::in_module(name, "foo").is_err(), "{what}");
        assert!(Target::symbol(&format!("{name}:foo")).is_err(), "{what}");
    }
    for name in ["nf-tables", "nf.tables", "m$", "a:b", "m+0x10"] {
        assert!(Target::in_module(name, "foo").is_err(), "{name}");
    }
}

#[test]
fn a_hostile_name_is_no_probe_in_any_mode() {
    for (what, name) in HOSTILE {
        for kind in ["", "kprobe/", "kretprobe/", "m:", "kprobe/m:"] {
            let text = format!("{kind}{name}");
            assert!(Probe::parse(&text).is_err(), "{what}: {text:?}");
            for mode in AttachMode::ALL {
                let asked = format!("{text},mode={mode}");
                assert!(Probe::parse(&asked).is_err(), "{what}: {asked:?}");
                let defaults = KprobeOpts::new().attach_mode(mode);
                let probe = Probe::with_defaults(text.as_bytes(), &defaults);
                assert!(probe.is_err(), "{what}: {text:?} in {mode}");
            }
        }
    }
}

#[test]
fn a_byte_that_is_not_ascii_is_in_no_name() {
    for byte in 0x80..=0xff {
        for text in [[b'f', byte, b'g'], [byte, b'f', b'g'], [b'f', b'g', byte]] {
            let error = Probe::from_bytes(&text).unwrap_err();
            let at = text.iter().position(|other| *other == byte).unwrap();
            assert_eq!((error.at, error.invalid), (at, Invalid::FunctionByte));
        }
        let error = Probe::from_bytes(&[b'm', byte, b':', b'f']).unwrap_err();
        assert_eq!((error.at, error.invalid), (1, Invalid::ModuleByte));
    }
}

#[test]
fn the_documented_differences_are_refused_or_mean_what_is_documented() {
    for text in [
        "kprobe/foo-5",
        "kprobe/foo/x",
        "kprobe/foo%return",
        "kprobe/foo+",
        "kprobe/foo+x",
        "kprobe/foo+5x",
        "kprobe/foo+0x",
        "kprobe/foo+0xg",
        "kprobe/foo+08",
        "kprobe/foo++5",
        "kprobe/foo+ 5",
        "kprobe/foo+-0",
        "kprobe/foo+0b11",
        "kprobe/foo+99999999999999999999",
        "kprobe/foo+4294967296",
        "kprobe/123",
    ] {
        assert!(libbpf(text).is_some(), "{text}");
        assert!(Probe::parse(text).is_err(), "{text}");
    }
    for text in ["?kprobe/foo", "kprobe.multi.s/foo"] {
        assert!(Probe::parse(text).is_err(), "{text}");
    }
    for (text, target) in [
        ("kprobe/mod:foo", Target::in_module("mod", "foo").unwrap()),
        ("kprobe/foo$x", Target::symbol("foo$x").unwrap()),
        (
            "kprobe/0xffffffff81000000",
            Target::address(0xffff_ffff_8100_0000),
        ),
        ("kprobe", Target::symbol("kprobe").unwrap()),
        ("ksyscall/read", Target::syscall("read").unwrap()),
    ] {
        assert_eq!(Probe::parse(text).unwrap().target, target, "{text}");
    }
}

#[test]
fn a_module_whose_name_looks_like_an_address_is_a_module() {
    let target = Target::in_module("0x1f", "foo").unwrap();
    assert_eq!(Target::parse("0x1f:foo"), Ok(target));
    assert_eq!(Target::symbol("0x1f:foo"), Ok(target));
    let probe = Probe::parse("kprobe/0x1f:foo+4").unwrap();
    assert_eq!(probe.target, target);
}

#[test]
fn an_error_far_into_a_long_text_is_shown_under_its_byte() {
    // A width of the standard library's formatting ends at 65535.
    let text = "f".repeat(70_000) + " ";
    let error = Probe::parse(&text).unwrap_err();
    assert_eq!(error.at, 70_000);
    let shown = error.in_text(text.as_bytes()).to_string();
    assert_eq!(shown.lines().nth(1).unwrap().find('^'), Some(70_000));
}
