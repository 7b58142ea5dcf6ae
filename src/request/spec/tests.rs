use super::*;
use std::format;
use std::string::{String, ToString};

fn parse(text: &str) -> Result<Probe<'_>, (usize, Invalid)> {
    Probe::parse(text).map_err(|error| (error.at, error.invalid))
}

fn probe(target: &str, opts: KprobeOpts) -> Probe<'_> {
    Probe {
        target: Target::parse(target).unwrap(),
        opts,
        attach_type: AttachType::Kprobe,
    }
}

#[test]
fn what_the_grammar_has_is_taken() {
    let opts = KprobeOpts::new;
    let address = "0xffffffff81000000";
    for (text, target, opts) in [
        ("vfs_read", "vfs_read", opts()),
        ("kprobe/vfs_read", "vfs_read", opts()),
        ("kretprobe/vfs_read", "vfs_read", opts().retprobe(true)),
        ("kretprobe/vfs_read+0", "vfs_read", opts().retprobe(true)),
        (
            "kretprobe/vfs_read,retprobe",
            "vfs_read",
            opts().retprobe(true),
        ),
        ("vfs_read,retprobe", "vfs_read", opts().retprobe(true)),
        ("foo.isra.0+5", "foo.isra.0", opts().offset(5)),
        ("foo+0x5", "foo", opts().offset(5)),
        ("foo+0X1f", "foo", opts().offset(31)),
        ("foo+010", "foo", opts().offset(8)),
        ("foo+0", "foo", opts()),
        ("foo+00", "foo", opts()),
        ("foo,offset=0x10", "foo", opts().offset(16)),
        ("foo+4294967295", "foo", opts().offset(u64::from(u32::MAX))),
        (
            "nf_tables:nft_do_chain+4",
            "nf_tables:nft_do_chain",
            opts().offset(4),
        ),
        ("_ZN4core3fmt17h0123E$x", "_ZN4core3fmt17h0123E$x", opts()),
        (address, address, opts()),
        (
            "kretprobe/0xffffffff81000000",
            address,
            opts().retprobe(true),
        ),
        (
            "foo,cookie=18446744073709551615",
            "foo",
            opts().bpf_cookie(u64::MAX),
        ),
        (
            "foo,cookie=0,mode=perf",
            "foo",
            opts().attach_mode(AttachMode::Perf),
        ),
        (
            "kretprobe/foo,mode=legacy-link,maxactive=4096,cookie=1",
            "foo",
            opts()
                .retprobe(true)
                .attach_mode(AttachMode::LegacyLink)
                .maxactive(4096)
                .bpf_cookie(1),
        ),
        ("kprobe", "kprobe", opts()),
    ] {
        assert_eq!(parse(text), Ok(probe(target, opts)), "{text}");
    }
}

#[test]
fn what_it_has_not_is_refused_at_the_byte() {
    use Invalid as I;
    for (text, at, invalid) in [
        ("", 0, I::EmptyFunction),
        ("kprobe/", 7, I::EmptyFunction),
        ("/foo", 0, I::UnknownKind),
        ("foo/bar", 0, I::UnknownKind),
        ("kprobe.s/foo", 0, I::UnknownKind),
        ("ksyscall/", 9, I::EmptyFunction),
        ("ksyscall/m:read", 10, I::FunctionByte),
        ("ksyscall/0x10", 9, I::LeadingDigit),
        ("ksyscall/read,base", 14, I::BaseWithoutFunction),
        ("ksyscall/read+4", 14, I::OffsetOnSyscall),
        ("ksyscall/read,offset=4", 14, I::OffsetOnSyscall),
        ("kretsyscall/read+4", 17, I::OffsetOnRetprobe),
        ("foo@", 4, I::UnknownPick),
        ("foo@0", 4, I::UnknownPick),
        ("foo@4294967296", 4, I::UnknownPick),
        ("foo@2x", 5, I::NotADigit),
        ("foo@second", 4, I::UnknownPick),
        ("foo@All", 4, I::UnknownPick),
        ("foo@all@all", 4, I::UnknownPick),
        ("foo+4@2", 5, I::NotADigit),
        ("m:@2", 2, I::EmptyFunction),
        ("foo@2+", 6, I::EmptyNumber),
        ("0xffffffff81000000@2", 18, I::NotADigit),
        ("0xffffffff81000000,base", 19, I::BaseWithoutFunction),
        ("foo,base=1", 8, I::UnwantedValue),
        ("foo,base,base", 9, I::OptionTwice),
        ("?kprobe/foo", 0, I::AutoloadMark),
        ("kprobe/kprobe/foo", 13, I::FunctionByte),
        (" foo", 0, I::FunctionByte),
        ("foo ", 3, I::FunctionByte),
        ("foo-5", 3, I::FunctionByte),
        ("foo*@2", 4, I::FunctionByte),
        ("foo*#", 4, I::FunctionByte),
        ("m-n:foo*", 1, I::ModuleByte),
        (":foo*", 0, I::EmptyModule),
        ("m:n:foo*", 3, I::FunctionByte),
        ("foo*,base", 5, I::BaseWithoutFunction),
        ("ksyscall/open*", 13, I::FunctionByte),
        ("foo%return", 3, I::FunctionByte),
        ("foo#", 3, I::FunctionByte),
        ("foo\n-:a/b", 3, I::ModuleByte),
        ("foo\u{a0}", 3, I::FunctionByte),
        ("foo\0", 3, I::FunctionByte),
        ("@foo", 0, I::FunctionByte),
        ("a:b:c", 3, I::FunctionByte),
        ("kprobe/123", 7, I::LeadingDigit),
        ("1foo", 0, I::LeadingDigit),
        ("m:1foo", 2, I::LeadingDigit),
        (":foo", 0, I::EmptyModule),
        ("m-x:foo", 1, I::ModuleByte),
        ("m:", 2, I::EmptyFunction),
        ("+5", 0, I::EmptyFunction),
        ("foo+", 4, I::EmptyNumber),
        ("foo+x", 4, I::NotADigit),
        ("foo++5", 4, I::NotADigit),
        ("foo+ 5", 4, I::NotADigit),
        ("foo+-0", 4, I::NotADigit),
        ("foo+5abc", 5, I::NotADigit),
        ("foo+08", 5, I::NotADigit),
        ("foo+0x", 6, I::EmptyNumber),
        ("foo+0xg", 6, I::NotADigit),
        ("foo+0b11", 5, I::BinaryNumber),
        ("foo+1e3", 5, I::NotADigit),
        ("foo+4294967296", 4, I::OffsetTooLarge),
        ("foo+18446744073709551616", 23, I::NumberTooLarge),
        ("kretprobe/foo+5", 14, I::OffsetOnRetprobe),
        ("foo+5,retprobe", 6, I::OffsetOnRetprobe),
        ("0xffffffff81000000+5", 19, I::OffsetOnAddress),
        ("0x1000", 0, I::NotKernelAddress),
        ("kprobe/0xffffffffffffff00", 7, I::NotKernelAddress),
        ("0x", 2, I::EmptyNumber),
        ("foo,", 4, I::UnknownOption),
        ("foo,,cookie=1", 4, I::UnknownOption),
        ("foo,colour=1", 4, I::UnknownOption),
        ("foo,Cookie=1", 4, I::UnknownOption),
        ("foo,cookie", 10, I::MissingValue),
        ("foo,cookie=", 11, I::EmptyNumber),
        ("foo,cookie=-1", 11, I::NotADigit),
        ("foo,retprobe=1", 12, I::UnwantedValue),
        ("foo,cookie=1,cookie=1", 13, I::OptionTwice),
        ("foo+5,offset=5", 6, I::OptionTwice),
        ("foo,mode=default", 9, I::UnknownMode),
        ("foo,mode=", 9, I::UnknownMode),
        ("foo,mode=perf,cookie=1", 14, I::CookieWithoutLink),
        ("foo,cookie=1,mode=legacy", 13, I::CookieWithoutLink),
        ("kretprobe/foo,mode=link,maxactive=8", 24, I::MaxactiveOnPmu),
        ("kretprobe/foo,maxactive=4097", 14, I::MaxactiveTooLarge),
        ("kretprobe/foo,maxactive=4294967296", 24, I::NumberTooLarge),
        ("foo,maxactive=8", 4, I::MaxactiveOnEntry),
    ] {
        assert_eq!(parse(text), Err((at, invalid)), "{text:?}");
    }
}

#[test]
fn the_longest_name_is_taken_and_one_byte_more_is_not() {
    let longest = "f".repeat(511);
    assert_eq!(parse(&longest).unwrap().target.function(), Some(&*longest));
    assert_eq!(
        parse(&format!("m:{}", "f".repeat(510))),
        Err((511, Invalid::NameTooLong))
    );
    assert_eq!(parse(&"f".repeat(512)), Err((511, Invalid::NameTooLong)));
}

#[test]
fn every_byte_that_no_symbol_has_is_refused() {
    for byte in 0..=u8::MAX {
        let text = [b'f', byte, b'g'];
        let symbol = byte.is_ascii_alphanumeric() || b"_.$".contains(&byte);
        let grammar = b":+/,".contains(&byte);
        let pattern = b"*?[".contains(&byte);
        let parsed = Target::from_bytes(&text);
        let taken = symbol || pattern || byte == b':';
        assert_eq!(parsed.is_ok(), taken, "{byte:#x}");
        if !grammar {
            let parsed = Probe::from_bytes(&text);
            assert_eq!(parsed.is_ok(), symbol || pattern, "{byte:#x}");
        }
    }
}

#[test]
fn a_pattern_is_a_target_that_means_all_that_it_matches() {
    for text in [
        "kprobe/tcp_*",
        "kretprobe/nf_tables:nft_*,cookie=0x7",
        "kprobe/vmlinux:*",
        "kprobe/[_a-z]*[!0-9]",
        "kprobe/*.isra.?+0x4",
    ] {
        let probe = Probe::parse(text).unwrap();
        let target = probe.target;
        assert!(!target.is_resolved(), "{text}");
        assert_eq!(target.all(), target, "{text}");
        assert_eq!((target.nth(2), target.base()), (target, target), "{text}");
        assert_eq!(probe.to_string(), text);
    }
    assert!(Target::symbol("tcp_*").is_err());
    assert!(Target::in_module("m", "tcp_*").is_err());
}

#[test]
fn a_link_to_many_functions_is_a_kind_of_probe() {
    use AttachType::{KprobeMulti, KprobeSession};
    for (text, target, retprobe, attach_type) in [
        ("kprobe.multi/tcp_*", "tcp_*", false, KprobeMulti),
        ("kretprobe.multi/tcp_*", "tcp_*", true, KprobeMulti),
        ("kprobe.multi/tcp_*,retprobe", "tcp_*", true, KprobeMulti),
        ("kprobe.multi/vfs_read", "vfs_read", false, KprobeMulti),
        ("kprobe.multi/foo+0", "foo", false, KprobeMulti),
        (
            "kprobe.multi/nf_tables:nft_*",
            "nf_tables:nft_*",
            false,
            KprobeMulti,
        ),
        ("kprobe.multi/foo@all", "foo@all", false, KprobeMulti),
        (
            "kprobe.session/vfs_[a-f]*",
            "vfs_[a-f]*",
            false,
            KprobeSession,
        ),
        (
            "kprobe.session/0xffffffff81000000",
            "0xffffffff81000000",
            false,
            KprobeSession,
        ),
    ] {
        let opts = KprobeOpts::new().retprobe(retprobe);
        let expected = Probe {
            attach_type,
            ..probe(target, opts)
        };
        assert_eq!(parse(text), Ok(expected), "{text}");
        let printed = expected.to_string();
        assert_eq!(Probe::parse(&printed), Ok(expected), "{printed}");
    }
    for (text, at, invalid) in [
        ("kprobe.multi/", 13, Invalid::EmptyFunction),
        ("kretprobe.multi/a b", 17, Invalid::FunctionByte),
        ("kretprobe.session/foo", 0, Invalid::UnknownKind),
        ("ksyscall.multi/foo", 0, Invalid::UnknownKind),
        ("kprobe.multi/vfs_*+4", 19, Invalid::OptionInMulti),
        (
            "kprobe.multi/foo,cookie=1,offset=4",
            26,
            Invalid::OptionInMulti,
        ),
        ("kretprobe.multi/foo,mode=link", 20, Invalid::OptionInMulti),
        (
            "kretprobe.multi/foo,maxactive=8",
            20,
            Invalid::OptionInMulti,
        ),
        ("kprobe.session/foo,retprobe", 19, Invalid::SessionRetprobe),
    ] {
        assert_eq!(parse(text), Err((at, invalid)), "{text:?}");
    }
    let cookie = Probe::parse("kprobe.multi/foo,cookie=7").unwrap();
    assert_eq!(cookie.opts.bpf_cookie, 7);
    let mode = KprobeOpts::new().attach_mode(AttachMode::Link);
    let error = Probe::with_defaults(b"kprobe.multi/foo", &mode).unwrap_err();
    assert_eq!((error.at, error.invalid), (0, Invalid::OptionInMulti));
}

#[test]
fn a_choice_among_functions_is_a_part_of_the_target() {
    let foo = Target::symbol("foo").unwrap();
    let in_module = Target::in_module("m", "foo").unwrap();
    let openat = Target::syscall("openat").unwrap();
    for (text, target) in [
        ("foo@unique", foo.unique()),
        ("foo@first", foo.first()),
        ("foo@1", foo.nth(1)),
        ("foo@0x10+4,cookie=1", foo.nth(16)),
        ("kretprobe/m:foo@all", in_module.all()),
        ("foo,base", foo.base()),
        ("foo@2,cookie=1,base", foo.base().nth(2)),
        ("foo@2,base", foo.nth(2).base()),
        ("vmlinux:foo", Target::in_module("vmlinux", "foo").unwrap()),
        ("ksyscall/openat", openat),
        ("kretsyscall/openat@all", openat.all()),
    ] {
        let probe = Probe::parse(text).unwrap();
        assert_eq!(probe.target, target, "{text}");
        assert!(!target.is_resolved(), "{text}");
        assert_eq!(Probe::parse(&probe.to_string()), Ok(probe), "{text}");
    }
    let address = Target::address(0xffff_ffff_8100_0000);
    assert_eq!(address.all().base(), address);
    assert!(foo.is_resolved() && in_module.is_resolved() && address.is_resolved());
}

#[test]
fn a_printed_probe_parses_to_the_same() {
    for text in [
        "vfs_read+0x10,cookie=7,mode=link",
        "kretprobe/m:foo.isra.0,maxactive=9,mode=legacy",
        "0xffffffff81000000,retprobe",
    ] {
        let probe = Probe::parse(text).unwrap();
        assert_eq!(Probe::parse(&probe.to_string()), Ok(probe), "{text}");
    }
}

#[test]
fn defaults_hold_where_the_text_says_nothing() {
    let defaults = KprobeOpts::new()
        .bpf_cookie(7)
        .attach_mode(AttachMode::Link);
    let probe = Probe::with_defaults(b"foo,cookie=8", &defaults).unwrap();
    assert_eq!(probe.opts, defaults.bpf_cookie(8));
    let error = Probe::with_defaults(b"foo", &KprobeOpts::new().maxactive(8)).unwrap_err();
    assert_eq!((error.at, error.invalid), (0, Invalid::MaxactiveOnEntry));
}

#[test]
fn an_error_is_shown_under_its_byte() {
    let text = "vfs_read+0xg";
    let shown = Probe::parse(text).unwrap_err().in_text(text.as_bytes());
    let expected = "\
vfs_read+0xg
           ^ this is not a digit of the number
allowed: a decimal number, hexadecimal after 0x, or octal after 0";
    assert_eq!(shown.to_string(), String::from(expected));
    let text = b"vfs\n\xff";
    let shown = Probe::from_bytes(text)
        .unwrap_err()
        .in_text(text)
        .to_string();
    assert!(
        shown.starts_with("vfs??\n   ^ no function name has this byte\n"),
        "{shown}"
    );
}
