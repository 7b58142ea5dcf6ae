//! Links to many functions: one system call each way, the right cookie at each function, and the
//! name of the function that the kernel refuses.

use std::collections::BTreeMap;
use std::fs;

use kprobe_attach::bpf::{Array, AttachType, Load, Program, insn};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::request::{Functions, Invalid, SymbolRef};
use kprobe_attach::{Errno, Kernel, KprobeLink, KprobeMultiLink, KprobeMultiOpts, KprobeOpts};

use crate::machine::{
    Counter, Switch, Traced, address_of, asked, clean, counting_by_cookie_for, function, has_multi,
    kallsyms, mkdir, mount, probeable, section, unlink, unmount,
};

const ENTRY: KprobeMultiOpts = KprobeMultiOpts::new();

/// A program that does nothing, for links of one kind.
fn nothing(attach_type: AttachType) -> Program {
    let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
    let load = Load::new(&insns, c"GPL").attach_type(attach_type);
    load.load().unwrap()
}

/// The ways in which a link runs its program, how often each call of a function runs it, and what
/// the program is loaded for.
const WAYS: [(KprobeMultiOpts, u64, AttachType); 3] = [
    (ENTRY, 1, AttachType::KprobeMulti),
    (ENTRY.retprobe(true), 1, AttachType::KprobeMulti),
    (ENTRY.session(true), 2, AttachType::KprobeSession),
];

#[test]
fn a_thousand_functions_are_one_system_call_each_way() {
    let name = "multi::a_thousand_functions_are_one_system_call_each_way";
    if !has_multi() {
        return;
    }
    let Some(traced) = Traced::by(name) else {
        let named = probeable(1000);
        let (symbols, cookies) = (named.symbols(), (1..=1000).collect::<Vec<u64>>());
        return clean(|| {
            for (opts, _, attach_type) in WAYS {
                let (kernel, program) = (asked(), nothing(attach_type));
                for functions in [
                    Functions::symbols(&symbols),
                    Functions::addresses(&named.addresses),
                ] {
                    let functions = functions.cookies(&cookies);
                    let attach = || kernel.attach_kprobe_multi(&program, functions, &opts);
                    let link = section(attach).unwrap();
                    check_info(&link, opts, &named.addresses);
                    section(|| link.detach());
                }
            }
        });
    };
    let calls = |section: &Vec<String>| -> Vec<String> {
        let name = |call: &String| call.split('(').next().unwrap().to_owned();
        section.iter().map(name).collect()
    };
    let calls: Vec<_> = traced.sections.iter().map(calls).collect();
    let one_each_way = [["bpf"], ["close"]].repeat(6);
    assert_eq!(calls, one_each_way, "{:#?}", traced.sections);
}

/// Checks that the kernel reports each function with its cookie, which is its index and 1.
fn check_info(link: &KprobeMultiLink, opts: KprobeMultiOpts, expected: &[u64]) {
    let (mut addresses, mut cookies) = (vec![0; 2000], vec![0; 2000]);
    let info = link.info(&mut addresses, &mut cookies).unwrap();
    assert_eq!(info.count, Some(1000));
    assert_eq!(info.retprobe(), Some(opts.retprobe));
    assert!(info.missed.is_some());
    let told: BTreeMap<u64, u64> = info
        .addresses
        .iter()
        .copied()
        .zip(info.cookies.iter().copied())
        .collect();
    let given = expected.iter().copied().zip(1..);
    // With IBT the kernel reports the place behind the first instruction.
    let plain: BTreeMap<u64, u64> = given.clone().collect();
    let with_ibt: BTreeMap<u64, u64> = given
        .map(|(address, cookie)| (address + 4, cookie))
        .collect();
    assert!(told == plain || told == with_ibt, "{told:x?}");
    // As many as there is room for.
    let info = link.info(&mut addresses[..10], &mut cookies).unwrap();
    assert_eq!((info.addresses.len(), info.cookies.len()), (10, 10));
    let few: Vec<_> = info
        .addresses
        .iter()
        .copied()
        .zip(info.cookies.iter().copied())
        .collect();
    assert!(
        few.iter()
            .all(|(address, cookie)| told.get(address) == Some(cookie))
    );
    let info = link.info(&mut addresses, &mut []).unwrap();
    assert_eq!((info.addresses.len(), info.cookies.len()), (1000, 0));
    let info = link.info(&mut [], &mut cookies).unwrap();
    assert_eq!((info.addresses, info.cookies), (&[][..], &[][..]));
}

#[test]
fn each_hit_has_the_cookie_of_its_function_at_entry_and_return() {
    if !has_multi() {
        return;
    }
    let symbols = [c"vfs_unlink", c"vfs_rmdir", c"vfs_mkdir"].map(SymbolRef::new);
    let addresses = symbols.map(|symbol| address_of(symbol.name().to_str().unwrap()));
    for (opts, runs, attach_type) in WAYS {
        for functions in [
            Functions::symbols(&symbols),
            Functions::addresses(&addresses),
        ] {
            clean(|| {
                let counters = Array::create(4).unwrap();
                let program = counting_by_cookie_for(&counters, attach_type);
                // The kernel sorts the functions by address, and the cookies with them.
                let functions = functions.cookies(&[3, 1, 2]);
                let link = asked()
                    .attach_kprobe_multi(&program, functions, &opts)
                    .unwrap();
                let hits = || [0, 1, 2, 3].map(|cookie| counters.get(cookie).unwrap());
                unlink(3);
                assert_eq!(hits(), [0, 0, 0, 3 * runs], "{opts:?}");
                mkdir(2);
                assert_eq!(hits(), [0, 2 * runs, 2 * runs, 3 * runs], "{opts:?}");
                assert_eq!(link.info(&mut [], &mut []).unwrap().missed, Some(0));
                link.detach();
                let before = hits();
                unlink(1);
                assert_eq!(hits(), before, "{opts:?}");
            });
        }
    }
}

#[test]
fn a_kernel_without_such_links_is_named_as_the_cause() {
    if has_multi() {
        return;
    }
    let symbols = [SymbolRef::new(c"vfs_unlink")];
    let counter = Counter::new();
    for (opts, ..) in WAYS {
        clean(|| {
            let kernel = Kernel::new();
            for _ in 0..2 {
                let functions = Functions::symbols(&symbols);
                let attached = kernel.attach_kprobe_multi(&counter.program, functions, &opts);
                let error = attached.unwrap_err();
                assert_eq!(error.step(), Step::ProbeKernel, "{error}");
                assert_eq!(error.errno(), Errno::OPNOTSUPP, "{error}");
                assert_eq!(error.cause(), Cause::NoKprobeMulti, "{error}");
            }
        });
    }
}

#[test]
fn the_function_that_the_kernel_refuses_is_named() {
    if !has_multi() {
        return;
    }
    let named = probeable(100);
    let program = nothing(AttachType::KprobeMulti);
    let kernel = asked();
    let refused = |functions: Functions<'_>| {
        let attached = clean(|| kernel.attach_kprobe_multi(&program, functions, &ENTRY));
        let error = attached.unwrap_err();
        assert_eq!(error.step(), Step::LinkCreate, "{error}");
        error
    };
    for at in [0, 57] {
        for (name, cause) in [
            (c"no_such_function", Cause::NoSuchFunction),
            // The entry of the kernel cannot be traced.
            (c"asm_exc_page_fault", Cause::NotProbeable),
        ] {
            let mut symbols = named.symbols();
            symbols[at] = SymbolRef::new(name);
            let error = refused(Functions::symbols(&symbols));
            assert_eq!(error.subject(), Some(name.to_str().unwrap()), "{error}");
            assert_eq!(error.cause(), cause, "{error}");
        }
    }
    let mut symbols = named.symbols();
    symbols[71] = symbols[3];
    let error = refused(Functions::symbols(&symbols));
    assert_eq!(error.subject(), Some(named.name(3)), "{error}");
    assert_eq!(error.rule(), Some(Invalid::FunctionTwice), "{error}");
    // The kernel takes an address twice, and gives all hits to one of the two cookies.
    let mut addresses = named.addresses.clone();
    addresses[71] = addresses[3];
    let twice = Functions::addresses(&addresses);
    let error = kernel
        .attach_kprobe_multi(&program, twice, &ENTRY)
        .unwrap_err();
    assert_eq!(error.step(), Step::Request, "{error}");
    assert_eq!(error.address(), Some(addresses[3]), "{error}");
    assert_eq!(error.rule(), Some(Invalid::FunctionTwice), "{error}");
    let data = kallsyms()
        .into_iter()
        .find(|(_, _, name, _)| name == "init_task")
        .unwrap();
    for (address, cause) in [
        (named.addresses[5] + 32, Cause::NotFunctionEntry),
        (address_of("asm_exc_page_fault"), Cause::NotProbeable),
        (data.0, Cause::BadAddress),
    ] {
        let mut addresses = named.addresses.clone();
        addresses[42] = address;
        let error = refused(Functions::addresses(&addresses));
        assert_eq!(error.address(), Some(address), "{error}");
        assert_eq!(error.cause(), cause, "{error}");
    }
    // Nothing is wrong with the functions, but with the program.
    let symbols = named.symbols();
    let functions = Functions::symbols(&symbols);
    let single = Counter::new();
    for (prog, opts) in [
        (&single.program, ENTRY),
        (&single.program, ENTRY.session(true)),
        (&program, ENTRY.session(true)),
    ] {
        let error = kernel
            .attach_kprobe_multi(prog, functions, &opts)
            .unwrap_err();
        assert_eq!(error.cause(), Cause::WrongProgram, "{error}");
        assert_eq!(
            (error.errno(), error.subject()),
            (Errno::INVAL, None),
            "{error}"
        );
    }
    // And a program that was loaded for many functions is not for one.
    let one = kernel.attach_kprobe(&program, function(), &KprobeOpts::new());
    assert_eq!(one.unwrap_err().cause(), Cause::WrongProgram);
}

#[test]
fn a_unique_match_is_one_function() {
    if !has_multi() {
        return;
    }
    let mut counts = BTreeMap::<String, usize>::new();
    // Behind that symbol are data, and the code of the boot, which is gone.
    let code = kallsyms()
        .into_iter()
        .take_while(|(_, _, name, _)| name != "_etext");
    for (_, kind, name, module) in code {
        if matches!(kind, 't' | 'T') && module.is_none() {
            *counts.entry(name).or_default() += 1;
        }
    }
    let several = counts.iter().find(|(_, count)| **count > 1).unwrap().0;
    let several = std::ffi::CString::new(several.as_str()).unwrap();
    let program = nothing(AttachType::KprobeMulti);
    let attach = |name: &std::ffi::CStr| {
        let symbols = [SymbolRef::new(name)];
        let opts = ENTRY.unique_match(true);
        let functions = Functions::symbols(&symbols);
        clean(|| {
            Kernel::new()
                .attach_kprobe_multi(&program, functions, &opts)
                .map(drop)
        })
    };
    attach(c"vfs_unlink").unwrap();
    let error = attach(&several).unwrap_err();
    let told = (error.step(), error.errno(), error.cause());
    let expected = (Step::ResolveSymbol, Errno::ADDRNOTAVAIL, Cause::NotUnique);
    assert_eq!(told, expected, "{error}");
    assert_eq!(
        attach(c"no_such_function").unwrap_err().cause(),
        Cause::NoSuchFunction
    );
}

#[test]
fn a_link_reports_no_addresses_where_the_kernel_hides_them() {
    if !has_multi() {
        return;
    }
    let symbols = [c"vfs_unlink", c"vfs_mkdir"].map(SymbolRef::new);
    let program = nothing(AttachType::KprobeMulti);
    let functions = Functions::symbols(&symbols).cookies(&[1, 2]);
    let link = asked()
        .attach_kprobe_multi(&program, functions, &ENTRY)
        .unwrap();
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let (mut addresses, mut cookies) = ([1; 2], [0; 2]);
    let info = link.info(&mut addresses, &mut cookies).unwrap();
    assert_eq!((info.count, info.addresses), (Some(2), &[0, 0][..]));
    let mut told = info.cookies.to_vec();
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
}

#[test]
fn a_pinned_link_survives_its_descriptor_and_is_no_link_to_one_function() {
    const DIR: &str = "/tmp/multi-bpffs";
    if !has_multi() {
        return;
    }
    fs::create_dir(DIR).unwrap();
    mount("bpf", DIR);
    let pin = format!("{DIR}/link");
    let symbols = [c"vfs_unlink", c"vfs_mkdir"].map(SymbolRef::new);
    let counters = Array::create(3).unwrap();
    let program = counting_by_cookie_for(&counters, AttachType::KprobeMulti);
    let functions = Functions::symbols(&symbols).cookies(&[1, 2]);
    let link = asked()
        .attach_kprobe_multi(&program, functions, &ENTRY)
        .unwrap();
    link.pin(pin.as_str()).unwrap();
    let taken = link.pin(pin.as_str()).unwrap_err();
    assert_eq!(
        (taken.errno(), taken.cause()),
        (Errno::EXIST, Cause::NameTaken)
    );
    link.detach();
    let hits = counters.get(2).unwrap();
    mkdir(1);
    assert_eq!(counters.get(2).unwrap(), hits + 1);
    let error = KprobeLink::open_pinned(pin.as_str()).unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::OpenLink, Errno::INVAL)
    );
    let opened = KprobeMultiLink::open_pinned(pin.as_str()).unwrap();
    assert_eq!(opened.info(&mut [], &mut []).unwrap().count, Some(2));
    drop(opened);
    fs::remove_file(&pin).unwrap();
    unmount(DIR);
    fs::remove_dir(DIR).unwrap();
}
