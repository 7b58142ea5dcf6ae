use super::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

const LINES: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000010 t twice
ffffffff81000020 t once
ffffffff81000030 t twice
ffffffff81000040 t shadowed
ffffffff81000050 t whole
ffffffff81000060 t whole.isra.0
ffffffff81000070 t split.part.0.constprop.12
ffffffff81000080 t split.cold
ffffffff81000090 t split.part.0.cold
ffffffff810000a0 t many.isra.0
ffffffff810000b0 t many.isra.0
ffffffff810000c0 t lto.llvm.1234567890123456789
ffffffff810000d0 t both
ffffffff810000e0 t booted
ffffffff81000100 t __do_sys_getppid
ffffffff81000100 T __ia32_sys_getppid
ffffffff81000100 T __x64_sys_getppid
ffffffff81000110 T __ia32_compat_sys_openat
ffffffff81000120 T __x64_sys_openat
ffffffff81000130 T __ia32_sys_openat
ffffffff81000140 W __x64_sys_swapon
ffffffff82000000 T _etext
ffffffff82000010 T counter
ffffffff82000020 d both
ffffffff83000000 T _sinittext
ffffffff83000010 t booted
ffffffff83000020 t booting
ffffffff83000030 T _einittext
ffffffffc0000000 t shadowed\t[m]
ffffffffc0000010 t twice\t[m]
ffffffffc0000020 t own\t[m]
ffffffffc0000030 t twice\t[n]
ffffffffc0100000 t once\t[bpf]
";

/// Returns what is found for a probe's text, with every address as 0 if they are hidden.
fn find(text: &str, hidden: bool) -> (Result<String, Error>, Vec<u64>) {
    let target = crate::request::Probe::parse(text).unwrap().target;
    // Others are looked for at once, and change nothing.
    let mut targets = ["twice@all", "once", "nosuch@1", "vmlinux:own"]
        .map(|other| Resolution::new(Target::parse(other).unwrap()));
    targets[2] = Resolution::new(target);
    let mut all = Vec::new();
    let mut search = Search::new(&mut targets);
    for line in LINES.lines() {
        let line = if hidden {
            format!("{:016x}{}", 0, &line[16..])
        } else {
            line.to_string()
        };
        search.see(line.as_bytes(), &mut |at, symbol| {
            if at == 2 {
                all.push(symbol.address);
            }
        });
    }
    search.finish(&mut |at, symbol| {
        if at == 2 {
            all.push(symbol.address);
        }
    });
    let found = targets[2]
        .target()
        .map(|found| match found.known_address() {
            None => found.to_string(),
            Some(address) => format!("{found} at {:x}", address & 0xffff_ffff),
        });
    (found, all)
}

#[test]
fn a_name_is_taken_where_it_is_enough_and_else_the_address() {
    for (text, expected) in [
        ("once@unique", "once"),
        ("once@first", "once"),
        ("once@1", "once"),
        ("once@all", "once"),
        ("vmlinux:once", "once"),
        ("own@unique", "own"),
        ("m:own@unique", "m:own"),
        ("twice@first", "twice at 81000010"),
        ("twice@2", "twice at 81000030"),
        ("twice@3", "m:twice at c0000010"),
        ("twice@4", "n:twice at c0000030"),
        ("vmlinux:twice@2", "twice at 81000030"),
        ("m:twice@unique", "m:twice"),
        ("vmlinux:shadowed", "shadowed at 81000040"),
        ("m:shadowed@first", "m:shadowed"),
        // Data of that name, and code of the boot, make the name ambiguous to the kernel.
        ("both@unique", "both at 810000d0"),
        ("booted@unique", "booted at 810000e0"),
        ("whole,base", "whole"),
        ("whole@2,base", "whole.isra.0 at 81000060"),
        ("split,base", "split.part.0.constprop.12"),
        ("many@2,base", "many.isra.0 at 810000b0"),
        ("many.isra.0@2", "many.isra.0 at 810000b0"),
        ("lto,base", "lto.llvm.1234567890123456789"),
        ("once,base", "once"),
        ("ksyscall/openat", "__x64_sys_openat"),
        ("ksyscall/openat@1", "__ia32_compat_sys_openat"),
        ("kretsyscall/getppid", "__x64_sys_getppid"),
        ("ksyscall/getppid@all", "__x64_sys_getppid"),
        ("twice", "twice"),
        ("0xffffffff81000010", "0xffffffff81000010 at 81000010"),
    ] {
        assert_eq!(find(text, false).0.unwrap(), expected, "{text}");
    }
}

#[test]
fn a_target_that_finds_none_or_several_is_an_error() {
    use Cause as C;
    for (text, errno, cause, functions) in [
        ("nosuch@first", Errno::NOENT, C::NoSuchFunction, 0),
        ("nosuch,base", Errno::NOENT, C::NoSuchFunction, 0),
        ("once@2", Errno::NOENT, C::NoSuchFunction, 1),
        ("m:once@unique", Errno::NOENT, C::ModuleNotLoaded, 0),
        ("vmlinux:own", Errno::NOENT, C::NoSuchFunction, 0),
        ("counter@unique", Errno::NOENT, C::NoSuchFunction, 0),
        ("booting@unique", Errno::NOENT, C::NoSuchFunction, 0),
        ("split.part,base", Errno::NOENT, C::NoSuchFunction, 0),
        ("split.cold.0,base", Errno::NOENT, C::NoSuchFunction, 0),
        ("twice@unique", Errno::ADDRNOTAVAIL, C::NotUnique, 4),
        ("twice@all", Errno::ADDRNOTAVAIL, C::NotUnique, 4),
        ("vmlinux:twice", Errno::ADDRNOTAVAIL, C::NotUnique, 2),
        ("twice,base", Errno::ADDRNOTAVAIL, C::NotUnique, 4),
        ("many,base", Errno::ADDRNOTAVAIL, C::NotUnique, 2),
        ("ksyscall/openat@all", Errno::ADDRNOTAVAIL, C::NotUnique, 3),
        ("ksyscall/openat@4", Errno::NOENT, C::NoSuchFunction, 3),
        ("ksyscall/swapon", Errno::NOENT, C::NoSuchFunction, 0),
    ] {
        let error = find(text, false).0.unwrap_err();
        assert_eq!((error.errno(), error.cause()), (errno, cause), "{text}");
        assert_eq!(error.functions().unwrap_or(0), functions, "{text}");
        assert_eq!(error.step(), Step::ResolveSymbol);
    }
    let error = find("ksyscall/swapon", false).0.unwrap_err().to_string();
    assert!(error.ends_with("does not have this system call"), "{error}");
    let error = find("twice@unique", false).0.unwrap_err();
    let addresses: Vec<_> = error.addresses().map(|address| address as u32).collect();
    assert_eq!(addresses, [0x8100_0010, 0x8100_0030, 0xc000_0010]);
    assert!(
        error.to_string().ends_with(
            "; 4 functions: 0xffffffff81000010, 0xffffffff81000030, 0xffffffffc0000010, …"
        ),
        "{error}"
    );
}

#[test]
fn hidden_addresses_are_no_missing_function() {
    for (text, expected) in [
        ("once@unique", Ok("once")),
        ("vmlinux:once", Ok("once")),
        ("split,base", Ok("split.part.0.constprop.12")),
        ("ksyscall/openat", Ok("__x64_sys_openat")),
        (
            "ksyscall/openat@all",
            Err((Errno::PERM, Cause::NoPermission)),
        ),
        ("twice@first", Err((Errno::PERM, Cause::NoPermission))),
        ("twice@all", Err((Errno::PERM, Cause::NoPermission))),
        ("vmlinux:shadowed", Err((Errno::PERM, Cause::NoPermission))),
        ("both@unique", Err((Errno::PERM, Cause::NoPermission))),
        ("twice@unique", Err((Errno::ADDRNOTAVAIL, Cause::NotUnique))),
        ("nosuch@first", Err((Errno::NOENT, Cause::NoSuchFunction))),
    ] {
        let found = find(text, true).0;
        let found = found
            .as_deref()
            .map_err(|error| (error.errno(), error.cause()));
        assert_eq!(found, expected, "{text}");
    }
    let error = find("twice@unique", true).0.unwrap_err();
    assert_eq!(error.addresses().count(), 0);
    assert!(error.to_string().ends_with("; 4 functions"), "{error}");
}

#[test]
fn all_functions_are_shown_in_order() {
    let all = |text| {
        let all = find(text, false).1.into_iter();
        all.map(|address| address as u32).collect::<Vec<_>>()
    };
    assert_eq!(
        all("twice@all"),
        [0x8100_0010, 0x8100_0030, 0xc000_0010, 0xc000_0030]
    );
    assert_eq!(all("vmlinux:twice@all"), [0x8100_0010, 0x8100_0030]);
    assert_eq!(all("once@all"), [0x8100_0020]);
    assert_eq!(all("whole@all,base"), [0x8100_0050, 0x8100_0060]);
    assert_eq!(
        all("ksyscall/openat@all"),
        [0x8100_0110, 0x8100_0120, 0x8100_0130]
    );
    assert_eq!(all("ksyscall/getppid@all"), [0x8100_0100]);
    assert_eq!(all("twice@2"), []);
    assert_eq!(all("ksyscall/openat"), []);
}

#[test]
fn thousands_of_targets_are_found_at_once() {
    let names: Vec<_> = (0..3000).map(|at| format!("function_{at}")).collect();
    let mut targets: Vec<_> = names
        .iter()
        .map(|name| Resolution::new(Target::symbol(name).unwrap().unique()))
        .collect();
    let mut search = Search::new(&mut targets);
    for (at, name) in names.iter().enumerate().rev() {
        let line = format!("{:08x} t {name}", at + 1);
        search.see(line.as_bytes(), &mut |_, _| {});
    }
    for (at, target) in (1..).zip(&targets) {
        assert_eq!(target.address(), Some(at));
        assert_eq!(target.functions(), 1);
    }
}
