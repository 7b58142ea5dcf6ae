use super::*;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// Joins lines of the three lists, and returns each function with its refusal.
fn joined(symbols: &[&str], filter: Option<&[&str]>, blacklist: &[&str]) -> Vec<String> {
    let mut memory = vec![0; 1 << 20];
    let mut functions = Functions::new(&mut memory).unwrap();
    let mut search = Search::new(&mut []);
    for line in symbols {
        let symbol = Symbol::parse(line.as_bytes()).unwrap();
        search.see(symbol.to_string().as_bytes(), &mut |_, _| {});
        functions.see(search.image(), &symbol).unwrap();
    }
    let mut last = 0;
    for line in filter.unwrap_or_default() {
        let (name, module) = filter_line(line.as_bytes()).unwrap();
        functions.trace(name, module, &mut last);
    }
    if filter.is_some() {
        functions.filter = Filter::Read;
    }
    for line in blacklist {
        let (range, name) = blacklist_line(line.as_bytes()).unwrap();
        functions.protect(name, &mut |address| range.contains(&address));
    }
    let text = |function: Function<'_>| match function.refusal() {
        None => function.to_string(),
        Some(refusal) => std::format!("{function} {}", refusal.name()),
    };
    functions.iter().map(text).collect()
}

#[test]
fn a_function_is_refused_for_what_a_list_says() {
    let symbols = [
        "10 T _stext",
        "10 T f",
        "20 t g",
        "30 t h.part.0",
        "40 W protected",
        "50 t protected.isra.0",
        "60 t f.cold",
        "70 t __pfx_g",
        "80 T _etext",
        "90 T data_of_7_3",
        "90 d data",
        "a0 T _sinittext",
        "a0 t boot",
        "b0 T _einittext",
        "c0 t in_module\t[m]",
        "d0 t not_traced\t[m]",
        "e0 t bpf_prog_0\t[bpf]",
    ];
    let filter = [
        "__ftrace_invalid_address___16",
        "_stext",
        "g",
        "h.part.0",
        "protected.isra.0",
    ];
    let filter = [&filter[..], &["in_module [m]"]].concat();
    let blacklist = ["0x40-0x50\tprotected"];
    // ftrace names the first symbol of an address, and means all of them.
    let expected = [
        "_stext",
        "f",
        "g",
        "h.part.0",
        "protected blacklisted",
        "protected.isra.0 blacklisted",
        "_sinittext init-code",
        "boot init-code",
        "m:in_module",
        "m:not_traced not-traceable",
    ];
    assert_eq!(joined(&symbols, Some(&filter), &blacklist), expected);
    // A kernel without ftrace does not refuse what ftrace cannot trace.
    let without = joined(&symbols, None, &blacklist);
    assert_eq!(without.last().unwrap(), "m:not_traced");
}

#[test]
fn functions_of_one_name_are_told_apart() {
    let symbols = [
        "10 t a",
        "20 t twice",
        "30 t b",
        "40 t twice",
        "50 t c",
        "60 t twice",
        "70 t shadowed",
        "80 t named_as_data",
        "90 t early",
        "a0 T _etext",
        "b0 d named_as_data",
        "c0 T _sinittext",
        "c0 t early",
        "d0 T _einittext",
        "e0 t shadowed\t[m]",
        "f0 t twice\t[n]",
        "f8 t twice\t[n]",
    ];
    let filter = [
        "a",
        "b",
        "twice",
        "c",
        "twice",
        "shadowed",
        "named_as_data",
        "early",
    ];
    let of_modules = ["shadowed [m]", "twice [n]", "twice [n]"];
    let filter = [&filter[..], &of_modules].concat();
    let expected = [
        "a",
        "twice@1 not-traceable",
        "b",
        "twice@2",
        "c",
        "twice@3",
        "vmlinux:shadowed",
        "vmlinux:named_as_data",
        "vmlinux:early",
        "_sinittext init-code",
        "early init-code",
        "m:shadowed",
        "n:twice@1",
        "n:twice@2",
    ];
    assert_eq!(joined(&symbols, Some(&filter), &[]), expected);
}

#[test]
fn functions_with_hidden_addresses_are_known_by_their_names() {
    let symbols = [
        "0 t f",
        "0 t protected",
        "0 t twice",
        "0 t twice",
        "0 t not_traced",
    ];
    let filter = ["f", "protected", "twice", "twice"];
    let blacklist = ["0x0-0x0\tprotected"];
    let expected = [
        "f",
        "protected blacklisted",
        "twice@1 address-hidden",
        "twice@2 address-hidden",
        "not_traced not-traceable",
    ];
    assert_eq!(joined(&symbols, Some(&filter), &blacklist), expected);
}

#[test]
fn a_function_is_what_its_target_means() {
    let function = |module, is_shared| Function {
        name: "nft_do_chain",
        module,
        address: 0x10,
        is_shared,
        nth: 0,
        refusal: None,
    };
    let in_module = function(Some("nf_tables"), false);
    for (target, is_meant) in [
        ("nft_do_chain", true),
        ("nft_*", true),
        ("nf_tables:nft_?o_*", true),
        ("nf_tables:*", true),
        ("nf_tables:nft", false),
        ("other:nft_*", false),
        ("vmlinux:nft_*", false),
        ("0x10", true),
        ("0x18", false),
    ] {
        let target = Target::parse(target).unwrap();
        assert_eq!(in_module.is(&target), is_meant, "{target}");
    }
    assert!(function(None, false).is(&Target::parse("vmlinux:*").unwrap()));
    let plain = in_module.target().unwrap();
    assert_eq!(plain, Target::parse("nf_tables:nft_do_chain").unwrap());
    let by_address = function(None, true).target().unwrap();
    assert_eq!(by_address.known_address(), Some(0x10));
}
