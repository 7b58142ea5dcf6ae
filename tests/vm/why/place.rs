//! Causes that lie with the function and the place in it.

use std::collections::BTreeMap;
use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::explain::{Evidence, Question};
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Target};

use super::Outcome::{Attaches, Refused};
use super::{ENTRY, PROBES_BY_FTRACE, has, row, suggestions, symbol};
use crate::machine::{
    Counter, FUNCTION, Switch, address_of, asked, busybox, clean, function, kallsyms, kernel_name,
    promised, unmount, unmount_sys, version, with_own_mounts,
};

fn traceable() -> String {
    fs::read_to_string("/sys/kernel/tracing/available_filter_functions").unwrap()
}

/// How often each name is there.
fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[test]
fn a_missing_function_has_what_was_meant_beside_it() {
    for (_, explanation) in row(symbol("vfs_unlnik"), ENTRY, |_| {
        Refused(Cause::NoSuchFunction)
    }) {
        assert!(has(&explanation, |evidence| *evidence == Evidence::NoFunction));
        assert_eq!(suggestions(&explanation)[0], FUNCTION);
    }
    let retprobe = ENTRY.retprobe(true);
    // There are kernels with functions of the very name.
    let outcome = if cfg!(any(target_arch = "arm", target_arch = "powerpc64")) {
        Attaches
    } else {
        Refused(Cause::NoSuchFunction)
    };
    for (_, explanation) in row(symbol("sys_openat"), retprobe, |_| outcome) {
        if outcome == Attaches {
            continue;
        }
        assert_eq!(suggestions(&explanation)[0], "kretsyscall/openat");
    }
    // What the compiler has made another function of.
    let symbols = kallsyms();
    let traceable = traceable();
    let traceable = count(traceable.lines());
    let renamed = symbols.iter().find_map(|(_, kind, name, module)| {
        let (base, suffix) = name.split_once('.')?;
        let is_base = !base.is_empty() && !suffix.contains("cold");
        // Only what would attach is suggested.
        let is_probed = traceable.get(name.as_str()) == Some(&1);
        let is_function = matches!(kind, 't' | 'T') && module.is_none() && is_base && is_probed;
        (is_function && !symbols.iter().any(|(_, _, other, _)| other == base))
            .then_some((base, name))
    });
    let (base, name) = renamed.expect("a function with a suffix");
    for (_, explanation) in row(symbol(base), ENTRY, |_| Refused(Cause::NoSuchFunction)) {
        assert!(suggestions(&explanation).contains(&name.as_str()), "{base}");
    }
    // Longer than any symbol of 5.10, and than any of today.
    row(symbol(&"a".repeat(200)), ENTRY, |_| {
        Refused(Cause::NoSuchFunction)
    });
    assert!(Target::symbol(&"a".repeat(512)).is_err());
}

#[test]
fn a_name_of_several_functions_has_their_addresses() {
    let traceable = traceable();
    let counts = count(traceable.lines());
    let symbols = kallsyms();
    let in_kernel = symbols
        .iter()
        .filter(|(_, kind, _, module)| matches!(kind, 't' | 'T') && module.is_none());
    let in_kernel = count(in_kernel.map(|(_, _, name, _)| name.as_str()));
    let is_twice =
        |name: &&&str| in_kernel[**name] >= 2 && counts.get(**name) == in_kernel.get(**name);
    let name = in_kernel
        .keys()
        .filter(|name| !name.contains('.'))
        .find(is_twice);
    let name = name.expect("a name of several functions");
    let takes_the_first = kernel_name() == "5.10";
    let outcome = if takes_the_first {
        Attaches
    } else {
        Refused(Cause::NotUnique)
    };
    for (_, explanation) in row(symbol(name), ENTRY, |_| outcome) {
        assert!(has(&explanation, |evidence| matches!(
            evidence,
            Evidence::Functions(2..)
        )));
        if !takes_the_first {
            let address = Target::parse(suggestions(&explanation)[0]).unwrap();
            assert!(Kernel::new().explain(address, &ENTRY).refusal().is_none());
        }
    }
}

#[test]
fn what_the_kernel_protects_is_told_apart_by_its_lists() {
    let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
    let traceable = traceable();
    let traceable = count(traceable.lines());
    let symbols = kallsyms();
    let symbols = count(symbols.iter().map(|(_, _, name, _)| name.as_str()));
    let is_single = |name: &str| symbols.get(name) == Some(&1);
    let is_blacklisted = |name: &str| {
        blacklist
            .lines()
            .any(|line| line.ends_with(&format!("\t{name}")))
    };
    let is_traceable = |name: &str| traceable.contains_key(name);

    let listed = blacklist.lines().filter_map(|line| line.split('\t').nth(1));
    let blacklisted = { listed }.find(|name| is_single(name) && Target::symbol(name).is_ok());
    let blacklisted = symbol(blacklisted.expect("a blacklisted function"));
    for (_, explanation) in row(blacklisted, ENTRY, |_| Refused(Cause::NotProbeable)) {
        assert!(has(&explanation, |evidence| *evidence == Evidence::Blacklisted));
    }
    let notrace = [
        "ftrace_ops_test",
        "ring_buffer_lock_reserve",
        "trace_function",
        "rb_commit",
    ];
    let notrace = notrace
        .into_iter()
        .find(|name| is_single(name) && !is_blacklisted(name) && !is_traceable(name));
    for (_, explanation) in row(symbol(notrace.expect("a notrace function")), ENTRY, |_| {
        Refused(Cause::NotProbeable)
    }) {
        assert!(has(&explanation, |evidence| *evidence == Evidence::NotTraceable));
        assert!(!has(&explanation, |evidence| *evidence == Evidence::Blacklisted));
    }
    // Of some architectures Debian's kernels list no data at all (CONFIG_KALLSYMS_ALL).
    let has_data = cfg!(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ));
    assert_eq!(symbols.contains_key("init_task"), has_data);
    if has_data {
        for (_, explanation) in row(symbol("init_task"), ENTRY, |_| Refused(Cause::NotProbeable)) {
            assert!(has(&explanation, |evidence| matches!(
                evidence,
                Evidence::Data(_)
            )));
        }
    }
    for (_, explanation) in row(symbol("start_kernel"), ENTRY, |_| {
        Refused(Cause::NotProbeable)
    }) {
        assert!(has(&explanation, |evidence| *evidence == Evidence::InitCode));
    }
}

#[test]
fn an_offset_is_on_an_instruction_of_the_function_or_the_cause_says_so() {
    // Elsewhere it is an address that no instruction can have, which the errno does not tell from
    // other refusals.
    let cause = if cfg!(any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "riscv64"
    )) {
        Cause::NotInstructionBoundary
    } else {
        Cause::NotProbeable
    };
    let inside = row(function(), ENTRY.offset(1), |_| Refused(cause));
    assert!(!inside.is_empty());
    let error = Kernel::new()
        .explain(function(), &ENTRY.retprobe(true).offset(4))
        .refusal()
        .copied()
        .unwrap();
    assert_eq!(
        (error.step(), error.cause()),
        (Step::Request, Cause::InvalidRequest)
    );
}

#[test]
fn an_offset_beyond_the_function_hits_another_one_and_a_checked_request_refuses_it() {
    let start = address_of(FUNCTION);
    let mut functions: Vec<_> = kallsyms()
        .into_iter()
        .filter(|(address, kind, name, module)| {
            let is_code = matches!(kind, 't' | 'T')
                && !name.starts_with("__pfx_")
                && !name.starts_with("__cfi_");
            is_code && module.is_none() && *address > start
        })
        .collect();
    functions.sort();
    let traceable = traceable();
    let traceable = count(traceable.lines());
    let mut functions = functions.into_iter();
    let next = functions.find(|(_, _, name, _)| traceable.contains_key(name.as_str()));
    let (address, _, name, _) = next.unwrap();
    let beyond = ENTRY.offset(address - start);
    for (_, explanation) in row(function(), beyond, |_| Attaches) {
        let hit = Evidence::OffsetIn(symbol(&name), 0);
        assert!(
            has(&explanation, |evidence| *evidence == hit),
            "{explanation:?}"
        );
        assert!(explanation.evidence().any(|evidence| evidence.is_warning()));
    }
    let kernel = asked();
    let counter = Counter::new();
    let attach = |opts: &KprobeOpts| kernel.attach_kprobe(&counter.program, function(), opts);
    let boundary = (1..24).find(|offset| attach(&ENTRY.offset(*offset)).is_ok());
    let boundary = ENTRY.offset(boundary.expect("an instruction behind the first"));
    for mode in promised() {
        let checked = beyond.attach_mode(mode).within_function(true);
        let error = clean(|| attach(&checked)).unwrap_err();
        assert_eq!(
            (error.step(), error.errno(), error.cause()),
            (Step::ResolveSymbol, Errno::INVAL, Cause::InvalidRequest)
        );
        assert!(error.to_string().contains("beyond the end"), "{error}");
        assert_eq!(kernel.explain(function(), &checked).refusal(), Some(&error));
        // Within it, the check is no obstacle.
        attach(&boundary.attach_mode(mode).within_function(true)).unwrap();
    }
}

#[test]
fn an_address_in_no_function_is_bad_and_an_absent_module_is_named() {
    let old = kernel_name() == "5.10";
    let nowhere = Target::address(if cfg!(target_pointer_width = "64") {
        0xffff_ffff_0000_0000
    } else {
        0xfff0_0000
    });
    let outcome = |mode: AttachMode| match mode.uses_tracefs() {
        _ if old => Refused(Cause::BadAddress),
        true => Attaches,
        false => Refused(Cause::BadAddress),
    };
    for (mode, explanation) in row(nowhere, ENTRY, outcome) {
        let is_none = |evidence: &Evidence<'_>| *evidence == Evidence::NoFunctionThere;
        assert!(has(&explanation, is_none), "{explanation:?}");
        let never_hit = has(&explanation, |evidence| *evidence == Evidence::NeverHit);
        assert_eq!(never_hit, mode.uses_tracefs() && !old, "{mode}");
    }
    let absent = Target::in_module("no_such_module", "vfs_read").unwrap();
    let outcome = |mode: AttachMode| {
        if mode.uses_tracefs() {
            Attaches
        } else {
            Refused(Cause::ModuleNotLoaded)
        }
    };
    for (mode, explanation) in row(absent, ENTRY, outcome) {
        let module = Evidence::Module { loaded: false };
        assert!(has(&explanation, |evidence| *evidence == module));
        let waits = has(&explanation, |evidence| *evidence == Evidence::Waits);
        assert_eq!(waits, mode.uses_tracefs(), "{mode}");
        assert_eq!(suggestions(&explanation)[0], "vfs_read");
    }
}

#[test]
fn a_loaded_module_without_the_function_is_no_missing_module() {
    if std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty() {
        // Of a kernel that it has replaced, Debian keeps the image and not the modules; these it
        // has in one package.
        assert!(![(5, 10), (6, 1), (6, 12)].contains(&version()));
        println!("not run here: there are no modules of this kernel");
        return;
    }
    busybox("insmod /lib/modules/dummy.ko");
    let target = Target::in_module("dummy", "dummy_dev_int").unwrap();
    for (_, explanation) in row(target, ENTRY, |_| Refused(Cause::NoSuchFunction)) {
        let module = Evidence::Module { loaded: true };
        assert!(has(&explanation, |evidence| *evidence == module));
        assert_eq!(suggestions(&explanation)[0], "dummy:dummy_dev_init");
    }
    // sysfs reports that, wherever it is; without it the errno alone is left.
    let cause = |kernel: Kernel| {
        let attached = kernel.attach_kprobe(&Counter::new().program, target, &ENTRY);
        attached.unwrap_err().cause()
    };
    with_own_mounts(|| {
        unmount("/proc");
        assert_eq!(cause(Kernel::new()), Cause::NoSuchFunction);
        unmount_sys();
        assert_eq!(cause(Kernel::new()), Cause::ModuleNotLoaded);
        let kernel = Kernel::with_detached_mounts();
        assert_eq!(cause(kernel), Cause::NoSuchFunction);
    });
    busybox("rmmod dummy");
}

#[test]
fn a_kernel_that_would_not_hit_it_is_a_warning() {
    let kernel = Kernel::new();
    let has_warnings = |expected: &[Evidence<'_>]| {
        let explanation = kernel.explain(function(), &ENTRY);
        assert!(explanation.refusal().is_none());
        let warnings = explanation.evidence().filter(Evidence::is_warning);
        assert_eq!(warnings.collect::<Vec<_>>(), expected);
    };
    has_warnings(&[]);
    let disarmed = Switch::set("/sys/kernel/debug/kprobes/enabled", "0");
    has_warnings(&[Evidence::Disarmed]);
    drop(disarmed);
    let Some(_off) = Switch::set("/proc/sys/kernel/ftrace_enabled", "0") else {
        // It has no such switch any more.
        assert!(version() >= (7, 3));
        return;
    };
    if !PROBES_BY_FTRACE {
        // Its probes are not by ftrace.
        has_warnings(&[]);
        return;
    }
    has_warnings(&[Evidence::FtraceOff]);
    // Nothing is tried then, which would harm the kernel; but what it shows is said.
    let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
    let names = || blacklist.lines().filter_map(|line| line.split('\t').nth(1));
    // One that ftrace can trace, if there is one, so that nothing else speaks against it.
    let traceable = traceable();
    let traceable = count(traceable.lines());
    let blacklisted = names().find(|name| traceable.contains_key(name));
    let blacklisted = blacklisted.or_else(|| names().next()).unwrap();
    for (target, cause) in [
        (symbol("vfs_unlnik"), Cause::NoSuchFunction),
        (
            Target::in_module("no_such_module", "f").unwrap(),
            Cause::ModuleNotLoaded,
        ),
        (symbol(blacklisted), Cause::NotProbeable),
    ] {
        let opts = ENTRY.attach_mode(AttachMode::Perf);
        let explanation = kernel.explain(target, &opts);
        let error = explanation.refusal().unwrap();
        assert_eq!(
            (error.step(), error.cause()),
            (Step::ResolveSymbol, cause),
            "{target}"
        );
        assert!(has(&explanation, |evidence| *evidence == Evidence::FtraceOff));
    }
}

#[test]
fn hidden_addresses_leave_the_place_open() {
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let kernel = Kernel::new();
    let counter = Counter::new();
    let inside = (1..24).find(|offset| {
        let opts = ENTRY.offset(*offset);
        kernel
            .attach_kprobe(&counter.program, function(), &opts)
            .is_ok()
    });
    let opts = ENTRY.offset(inside.unwrap());
    let explanation = kernel.explain(function(), &opts);
    assert!(explanation.refusal().is_none());
    let open = Evidence::Open(Question::Place, Errno::PERM);
    assert!(
        has(&explanation, |evidence| *evidence == open),
        "{explanation:?}"
    );
    // And a check that cannot be made is not taken for one that was.
    let checked = kernel.attach_kprobe(&counter.program, function(), &opts.within_function(true));
    let error = checked.unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::ResolveSymbol, Errno::PERM)
    );
}
