//! What `explain` reads, and how often; and that it resolves what it explains.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use kprobe_attach::error::Cause;
use kprobe_attach::explain::{Case, Evidence, Explanation};
use kprobe_attach::{Error, Kernel, KprobeOpts, Target};
use rustix::thread::CapabilitySet;

use super::machine::{
    Counter, FUNCTION, Switch, address_of, busybox, clean, drop_capabilities, in_thread, kallsyms,
    promised, text,
};

/// How often a file was opened, and how often a position in it was sought, to read from there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    opens: usize,
    seeks: usize,
}

/// Runs `explain`, and answers what strace saw.
fn trace(probes: &[&str]) -> String {
    const TRACE: &str = "/tmp/explaining";
    let output = Command::new("/bin/strace")
        // It stops at these calls alone, or each of thousands of reads would take a while.
        .args(["-f", "--seccomp-bpf", "-e", "trace=openat,lseek,close"])
        .args(["-o", TRACE])
        .arg(std::env::var("KPROBE_ATTACH_BIN").unwrap())
        .args(["explain", "--json"])
        .args(probes)
        .output()
        .unwrap();
    let lines = text(&output.stdout).lines().count();
    assert_eq!(lines, probes.len(), "{}", text(&output.stderr));
    let trace = fs::read_to_string(TRACE).unwrap();
    fs::remove_file(TRACE).unwrap();
    trace
}

/// How a file was read.
fn reading(path: &str, trace: &str) -> Reading {
    let mut reading = Reading::default();
    let mut descriptor = None;
    for line in trace.lines() {
        // The process comes first.
        let line = line.trim_start_matches(|byte: char| byte.is_ascii_digit());
        let Some((call, answer)) = line.trim_start().rsplit_once(" = ") else {
            continue;
        };
        let of_file = |name: &str| {
            descriptor.is_some_and(|fd: u32| {
                let call = call.strip_prefix(&format!("{name}({fd}"));
                call.is_some_and(|rest| rest.starts_with([',', ')']))
            })
        };
        if call.starts_with("openat(") && call.contains(&format!("{path}\"")) {
            reading.opens += 1;
            descriptor = answer.parse().ok();
        } else if of_file("lseek") {
            reading.seeks += 1;
        } else if of_file("close") {
            descriptor = None;
        }
    }
    reading
}

#[test]
fn each_file_is_read_once_whatever_the_number_of_probes() {
    const KALLSYMS: &str = "/proc/kallsyms";
    const FILTER: &str = "available_filter_functions";
    const BLACKLIST: &str = "kprobes/blacklist";
    let modules = !std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty();
    if modules {
        busybox("insmod /lib/modules/dummy.ko");
    }
    let once = Reading { opens: 1, seeks: 0 };
    let protected = {
        let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
        let name = blacklist.lines().next().unwrap().split('\t').nth(1);
        name.unwrap().to_owned()
    };
    let address = format!("{:#x}", address_of(FUNCTION));
    let within = format!("{FUNCTION}+0x4");
    let beyond = format!("{FUNCTION}+0x100000");
    let retprobe = format!("kretprobe/{FUNCTION}");
    let by_pick = format!("{FUNCTION}@first");
    let mut kinds = vec![
        FUNCTION,
        "vfs_unlnik",
        &address,
        &within,
        &beyond,
        &protected,
        &retprobe,
        "kretprobe/no_such_function",
        "no_such_module:no_such_function",
        &by_pick,
        "0xffffffffffffe000",
    ];
    if modules {
        kinds.extend(["dummy:dummy_setup", "dummy:no_such_function", "dummy_setup"]);
    }
    // The others are among the many.
    for probe in kinds.iter().take(4).chain(kinds.last()) {
        let trace = trace(&[probe]);
        assert_eq!(reading(KALLSYMS, &trace), once, "{probe}");
        if probe == &FUNCTION {
            for list in [FILTER, BLACKLIST] {
                assert_eq!(reading(list, &trace), Reading::default(), "{list}");
            }
        }
    }
    for count in [5, 24] {
        let mut probes: Vec<_> = kinds.iter().copied().cycle().take(count).collect();
        // The kernel refuses both, and the lists show why.
        probes[0] = &protected;
        probes[count - 1] = &protected;
        let trace = trace(&probes);
        assert_eq!(reading(KALLSYMS, &trace), once, "{count}");
        for list in [FILTER, BLACKLIST] {
            assert_eq!(reading(list, &trace).opens, 1, "{list} {count}");
        }
    }
    if modules {
        // The symbols of a module are in no order.
        let trace = trace(&["dummy:dummy_setup+0x1", "dummy_setup+0x4"]);
        let and_modules = Reading { opens: 1, seeks: 1 };
        assert_eq!(reading(KALLSYMS, &trace), and_modules);
        busybox("rmmod dummy");
    }
}

/// Explains probes that are attached in the default mode.
fn explained(probes: &[(Target<'_>, KprobeOpts)]) -> Vec<Explanation> {
    let mut cases: Vec<_> = { probes.iter() }
        .map(|(target, opts)| Case::new(*target, opts))
        .collect();
    clean(|| Kernel::new().explain_all(&mut cases).collect())
}

/// The function that an offset leads into, and how far, if that is another function.
fn offset_in(explanation: &Explanation) -> Option<(String, u64)> {
    explanation.evidence().find_map(|evidence| match evidence {
        Evidence::OffsetIn(function, from_start) => Some((function.to_string(), from_start)),
        _ => None,
    })
}

#[test]
fn an_offset_is_placed_in_the_function_that_the_symbols_show() {
    let modules = !std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty();
    if modules {
        busybox("insmod /lib/modules/dummy.ko");
    }
    let mut symbols = kallsyms();
    symbols.retain(|(address, _, _, module)| {
        *address != 0
            && module
                .as_ref()
                .is_none_or(|module| module == "dummy" || module == "[dummy]")
    });
    symbols.sort_by_key(|(address, ..)| *address);
    let is_function = |kind: char| matches!(kind, 't' | 'T' | 'w' | 'W');
    let mut counts = HashMap::new();
    for (_, _, name, _) in &symbols {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    // Two functions, one behind the other, each with a name and an address of its own.
    let mut pairs = Vec::new();
    for window in symbols.windows(3) {
        let [
            (start, kind, name, module),
            (end, next_kind, next, _),
            (after, ..),
        ] = window
        else {
            unreachable!();
        };
        let apart = end - start > 8 && after > end;
        let functions = is_function(*kind) && is_function(*next_kind);
        let plain = !name.contains('.') && counts[name] == 1 && counts[next] == 1;
        let in_module = module.is_some();
        let picked = pairs
            .iter()
            .filter(|(_, _, _, other)| *other == in_module)
            .count();
        if apart && functions && picked < 3 && plain {
            pairs.push((name.clone(), next.clone(), end - start, in_module));
        }
    }
    assert_eq!(pairs.iter().any(|(.., in_module)| *in_module), modules);
    let mut probes = Vec::new();
    for (name, _, length, _) in &pairs {
        for offset in [length - 1, *length, length + 1] {
            probes.push((
                Target::symbol(name).unwrap(),
                KprobeOpts::new().offset(offset),
            ));
        }
    }
    let explanations = explained(&probes);
    for ((name, next, _, in_module), explanations) in pairs.iter().zip(explanations.chunks(3)) {
        let next = if *in_module {
            format!("dummy:{next}")
        } else {
            next.clone()
        };
        let found: Vec<_> = explanations.iter().map(offset_in).collect();
        let expected = [None, Some((next.clone(), 0)), Some((next, 1))];
        assert_eq!(found, expected, "{name}");
    }
    if modules {
        busybox("rmmod dummy");
    }
}

#[test]
fn a_target_is_resolved_and_what_it_is_resolved_to_explained() {
    // The constructors of several caches.
    let symbols = kallsyms();
    let several: Vec<_> = { symbols.iter() }
        .filter(|(_, kind, name, _)| name == "init_once" && matches!(kind, 't' | 'T'))
        .map(|(address, ..)| *address)
        .collect();
    assert!(several.len() > 1);
    // One reading of the symbols for all of them.
    let explain = |texts: &[&str]| {
        let probes: Vec<_> = { texts.iter() }
            .map(|text| (Target::parse(text).unwrap(), KprobeOpts::new()))
            .collect();
        explained(&probes)
    };
    let function = |explanation: &Explanation| {
        explanation.evidence().find_map(|evidence| match evidence {
            Evidence::Function(function, address) => Some((function.to_string(), address)),
            _ => None,
        })
    };
    let own = format!("vmlinux:{FUNCTION}");
    // All of several are meant, and the first is tried.
    let meant = ["init_once@2", "init_once@all", &own];
    let refused = [
        ("init_once@unique", Cause::NotUnique),
        ("init_once@1000", Cause::NoSuchFunction),
        ("vmlinux:no_such_function", Cause::NoSuchFunction),
    ];
    let explanations = explain(&[&meant[..], &refused.map(|(text, _)| text)].concat());
    for explanation in &explanations[..3] {
        assert!(explanation.refusal().is_none(), "{explanation:?}");
    }
    let [second, all, own] = &explanations[..3] else {
        unreachable!();
    };
    assert_eq!(function(second), Some(("init_once".to_owned(), several[1])));
    assert!(
        !second.evidence().any(|found| found.is_warning()),
        "{second:?}"
    );
    assert_eq!(function(all), Some(("init_once".to_owned(), several[0])));
    let count = Evidence::Functions(several.len());
    assert!(all.evidence().any(|found| found == count), "{all:?}");
    let address = address_of(FUNCTION);
    assert_eq!(function(own), Some((FUNCTION.to_owned(), address)));
    for ((text, cause), explanation) in refused.iter().zip(&explanations[3..]) {
        let told = explanation.refusal().map(Error::cause);
        assert_eq!(told, Some(*cause), "{text}");
    }
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let hidden = explain(&["init_once@2"]);
    let cause = hidden[0].refusal().map(Error::cause);
    assert_eq!(cause, Some(Cause::NoPermission));
}

#[test]
fn what_may_only_attach_is_told_so() {
    let _paranoid = Switch::paranoid("2");
    let handed = Counter::new();
    in_thread(|| {
        drop_capabilities(!CapabilitySet::PERFMON);
        let kernel = Kernel::new();
        for mode in promised().into_iter().filter(|mode| !mode.uses_tracefs()) {
            let opts = KprobeOpts::new().attach_mode(mode);
            let target = Target::symbol(FUNCTION).unwrap();
            let explanation = kernel.explain(target, &opts);
            let attached = Kernel::new().attach_kprobe(&handed.program, target, &opts);
            assert!(attached.is_ok(), "{mode}: {attached:?}");
            assert!(explanation.refusal().is_none(), "{explanation:?}");
            assert_eq!(explanation.mode(), Some(mode));
            let catch = |found: Evidence<'_>| matches!(found, Evidence::MayNotLoad(_));
            assert!(
                explanation
                    .evidence()
                    .any(|found| catch(found) && found.is_warning())
            );
        }
    });
}
