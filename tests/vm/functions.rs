//! What can be probed: the lists are compared with what the kernel takes and refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use kprobe_attach::{Errno, Error, Kernel, KprobeOpts, Target};
use serde_json::Value;

use super::machine::{
    Counter, FUNCTION, Switch, asked, busybox, clean, json, kallsyms, program, promised, run, text,
    unmount, version, with_own_mounts,
};

const FILTER: &str = "/sys/kernel/tracing/available_filter_functions";

/// The functions, as objects of JSON.
fn functions(args: &[&str]) -> Vec<Value> {
    let output = run(&[&["functions", "--json"], args].concat());
    assert_eq!(text(&output.stderr), "");
    json(&output.stdout)
}

/// All functions.
fn all() -> &'static [Value] {
    static ALL: OnceLock<Vec<Value>> = OnceLock::new();
    ALL.get_or_init(|| functions(&[]))
}

fn beginning_with(prefix: &str) -> impl Iterator<Item = &'static Value> {
    let functions = all().iter();
    functions.filter(move |function| name(function).starts_with(prefix))
}

fn probeable(function: &Value) -> &str {
    function["probeable"].as_str().unwrap()
}

fn address(function: &Value) -> u64 {
    let address = function["address"].as_str().expect("an address");
    u64::from_str_radix(address.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn name(function: &Value) -> &str {
    function["symbol"].as_str().unwrap()
}

/// Attaches, and detaches.
fn attach(kernel: &Kernel, counter: &Counter, target: Target<'_>) -> Result<(), Error> {
    let opts = KprobeOpts::new();
    kernel
        .attach_kprobe(&counter.program, target, &opts)?
        .detach()
}

/// Some of the items, evenly spread.
fn sample<T>(items: Vec<T>, count: usize) -> impl Iterator<Item = T> {
    let step = items.len().div_ceil(count).max(1);
    items.into_iter().step_by(step)
}

#[test]
fn what_can_be_probed_attaches_and_what_cannot_is_refused_for_the_reason_that_is_named() {
    let all = all();
    let (kernel, counter) = (asked(), Counter::new());
    let mut by_reason = BTreeMap::<&str, Vec<&Value>>::new();
    for function in all {
        let reason = function["refusal"].as_str().unwrap_or_default();
        assert_eq!(reason.is_empty(), probeable(function) == "yes");
        by_reason.entry(reason).or_default().push(function);
    }
    let reasons: Vec<_> = by_reason.keys().copied().collect();
    assert_eq!(reasons, ["", "blacklisted", "init-code", "not-traceable"]);
    let traced = fs::read_to_string(FILTER).unwrap();
    let traced: BTreeSet<_> = traced.lines().collect();
    let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
    let blacklist: BTreeSet<_> = blacklist
        .lines()
        .map(|line| line.split('\t').nth(1))
        .collect();
    let symbols = kallsyms();
    let bound = |name| symbols.iter().find(|symbol| symbol.2 == name).unwrap().0;
    let init = bound("_sinittext")..bound("_einittext");
    let mut of_address = BTreeMap::<u64, BTreeSet<&str>>::new();
    for (address, _, name, _) in &symbols {
        of_address.entry(*address).or_default().insert(name);
    }

    // Every function that shares its name, and some of the others.
    let takes = by_reason.remove("").unwrap();
    let (shared, alone): (Vec<_>, Vec<_>) = takes.into_iter().partition(|function| {
        let probe = function["probe"].as_str().unwrap();
        probe.contains(['@', ':'])
    });
    assert!(shared.len() > 100 && alone.len() > 20_000);
    for function in sample(shared, 4).chain(sample(alone, 8)) {
        let probe = function["probe"].as_str().unwrap();
        let target = Target::parse(probe).unwrap();
        attach(&kernel, &counter, target).unwrap_or_else(|error| panic!("{probe}: {error}"));
        let names = &of_address[&address(function)];
        assert!(names.iter().any(|name| traced.contains(name)), "{function}");
    }
    for (reason, functions) in by_reason {
        assert!(functions.len() > 200, "{reason}");
        for function in sample(functions, 4) {
            let target = Target::address(address(function));
            let error = attach(&kernel, &counter, target).expect_err(name(function));
            assert_eq!(error.errno(), Errno::INVAL, "{function}: {error}");
            assert_eq!(function["errno"], "EINVAL");
            let names = &of_address[&address(function)];
            let base = name(function).split('.').next();
            match reason {
                "init-code" => assert!(init.contains(&address(function)), "{function}"),
                "blacklisted" => assert!(
                    blacklist.contains(&base)
                        || names.iter().any(|name| blacklist.contains(&Some(*name))),
                    "{function}"
                ),
                _ => assert!(
                    function["probe"].as_str().unwrap().contains('@')
                        || !names.iter().any(|name| traced.contains(name)),
                    "{function}"
                ),
            }
        }
    }
}

#[test]
fn what_ftrace_can_trace_is_told_as_exactly_as_by_its_addresses() {
    let Ok(addresses) = fs::read_to_string(format!("{FILTER}_addrs")) else {
        // The kernel has this list since Linux 6.5.
        assert!(version() < (6, 5));
        return;
    };
    let traced = addresses
        .lines()
        .map(|line| line.split(' ').next().unwrap());
    let traced = traced.map(|address| u64::from_str_radix(address, 16).unwrap());
    let traced: BTreeSet<_> = traced.collect();
    let starts: BTreeSet<_> = kallsyms().into_iter().map(|symbol| symbol.0).collect();
    let mut counts = [0, 0];
    for function in all() {
        let start = address(function);
        let end = starts
            .range(start + 1..)
            .next()
            .copied()
            .unwrap_or(u64::MAX);
        let is_traced = traced.range(start..end).next().is_some();
        match function["refusal"].as_str() {
            None => assert!(is_traced, "{function}"),
            Some("not-traceable") => assert!(!is_traced, "{function}"),
            Some(_) => continue,
        }
        counts[usize::from(is_traced)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5000), "{counts:?}");
}

#[test]
fn a_name_is_answered_on_one_line_that_is_a_probe_again() {
    let output = run(&["functions", FUNCTION]);
    assert_eq!(text(&output.stdout), format!("{FUNCTION}\n"));
    assert!(text(&output.stderr).contains("1 can be probed, 0 cannot"));
    // What is printed can be given back, whatever it is.
    let output = run(&["functions", "--quiet", "[vs]*_unlink*", "seq_show"]);
    assert!(output.stderr.is_empty() && output.status.success());
    let probes: Vec<_> = text(&output.stdout).lines().collect();
    assert!(
        probes.contains(&FUNCTION) && probes.contains(&"seq_show@2"),
        "{probes:?}"
    );
    let counted = run(&[&["count", "--json"], &probes[..], &["--", "true"]].concat());
    let lines = json(&counted.stdout);
    let counted: Vec<_> = lines
        .iter()
        .map(|line| line["probe"].as_str().unwrap())
        .collect();
    assert_eq!(counted, probes);

    // One that cannot be probed is no probe, but the reason is told.
    let refused = all()
        .iter()
        .find(|function| function["refusal"] == "blacklisted");
    let refused = refused.unwrap();
    let output = run(&["functions", refused["probe"].as_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(
        text(&output.stderr).contains("kprobes/blacklist"),
        "{output:?}"
    );
    let output = run(&["functions", "--all", name(refused)]);
    let line = format!("{}  ", refused["address"].as_str().unwrap());
    assert!(text(&output.stdout).starts_with(&line), "{output:?}");
    assert!(
        text(&output.stdout).contains("kprobes/blacklist"),
        "{output:?}"
    );
}

/// The lines that `count` prints for its arguments while a file is unlinked three times.
fn counted(args: &[&str]) -> Vec<Value> {
    let unlink = "for i in 1 2 3; do touch /tmp/f; rm /tmp/f; done";
    let output = run(&[&["count", "--json"], args, &["--", "sh", "-c", unlink]].concat());
    assert!(output.status.success(), "{output:?}");
    json(&output.stdout)
}

#[test]
fn a_pattern_attaches_to_what_can_be_probed_and_counts_exactly() {
    clean(|| {
        let expected: Vec<_> = beginning_with("vfs_")
            .filter(|one| probeable(one) == "yes")
            .map(|one| &one["probe"])
            .collect();
        assert!(expected.len() > 30, "{expected:?}");
        for mode in promised() {
            // To attach to many takes its time in a machine.
            let pattern = if mode == promised()[0] {
                "vfs_*"
            } else {
                "vfs_un*"
            };
            let lines = counted(&["--mode", mode.name(), pattern]);
            let probes: Vec<_> = lines.iter().map(|line| &line["probe"]).collect();
            if pattern == "vfs_*" {
                assert_eq!(probes, expected);
            }
            let unlink = lines.iter().find(|line| line["probe"] == FUNCTION);
            let unlink = unlink.unwrap_or_else(|| panic!("{lines:?}"));
            assert!(unlink["hits"].as_u64().unwrap() >= 3, "{unlink}");
            assert_eq!(unlink["mode"], mode.name());
        }
        // Beside others, with options, and with functions of one name.
        let lines = counted(&["kretprobe/vfs_unlin?+0,cookie=0", "seq_sho[w]", FUNCTION]);
        let probes: Vec<_> = lines
            .iter()
            .map(|line| line["probe"].as_str().unwrap())
            .collect();
        assert_eq!(probes[0], format!("kretprobe/{FUNCTION}+0,cookie=0"));
        assert_eq!(lines[0]["retprobe"], true);
        assert_eq!(probes[1..3], ["seq_show@1", "seq_show@2"]);
        assert_eq!(probes.last(), Some(&FUNCTION));
        assert_eq!(lines[0]["hits"], lines.last().unwrap()["hits"]);
    });
}

#[test]
fn a_pattern_of_a_module_takes_its_functions_only() {
    if std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty() {
        assert!(![(5, 10), (6, 1), (6, 12)].contains(&version()));
        println!("not run here: there are no modules of this kernel");
        return;
    }
    let refused = run(&["count", "dummy:*", "--", "true"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("dummy:*: ENOENT: 0 functions match"),
        "{refused:?}"
    );
    busybox("insmod /lib/modules/dummy.ko");
    let of_module = functions(&["dummy:*"]);
    let in_kallsyms = kallsyms().into_iter().filter(|(_, kind, name, module)| {
        matches!(kind, 't' | 'T') && module.as_deref() == Some("[dummy]") && !name.starts_with("__")
    });
    let in_kallsyms: BTreeSet<_> = in_kallsyms.map(|symbol| symbol.2).collect();
    let names: BTreeSet<_> = of_module.iter().map(|one| name(one).to_owned()).collect();
    assert!(
        names.len() > 3 && names.is_subset(&in_kallsyms),
        "{names:?} {in_kallsyms:?}"
    );
    assert!(of_module.iter().all(|one| one["module"] == "dummy"));
    let expected = of_module.iter().filter(|one| probeable(one) == "yes");
    let expected: Vec<_> = expected.map(|one| one["probe"].clone()).collect();
    assert!(
        expected.contains(&"dummy:dummy_setup".into()),
        "{expected:?}"
    );
    let lines = counted(&["dummy:*"]);
    let probes: Vec<_> = lines.iter().map(|line| line["probe"].clone()).collect();
    assert_eq!(probes, expected);
    busybox("rmmod dummy");
}

/// Runs the program, which must fail with a message that has these words.
#[track_caller]
fn fails(args: &[&str], words: &[&str]) {
    let output = run(args);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[test]
fn a_pattern_of_too_many_or_of_none_says_how_many_match() {
    let all = all();
    let takes = all.iter().filter(|one| probeable(one) == "yes").count();
    let words = [&format!("{takes} functions"), "at most 4096"];
    clean(|| fails(&["count", "*", "--", "true"], &words));
    fails(
        &["count", "no_such_*"],
        &["no_such_*: ENOENT: 0 functions match"],
    );
    // The entries of exceptions are protected, every one.
    let entries: Vec<_> = beginning_with("asm_exc_").collect();
    assert!(entries.len() > 3 && entries.iter().all(|one| probeable(one) == "no"));
    fails(&["explain", "vfs_*"], &["vfs_*", "only one function"]);
    let output = run(&["count", "--json", "asm_exc_*"]);
    let error = &json(&output.stdout)[0]["error"];
    assert_eq!(
        (&error["cause"], &error["errno"]),
        (&"not-probeable".into(), &"EINVAL".into())
    );
    let count = format!("{} functions match, and none can be probed", entries.len());
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&count), "{message}");
    let output = run(&[
        "plan",
        "--json",
        "--mode",
        promised()[0].name(),
        "vfs_unlin*",
    ]);
    assert_eq!(json(&output.stdout)[0]["function"], FUNCTION);
}

#[test]
fn hidden_addresses_leave_the_names() {
    let is_shown = |one: &&Value| {
        let name = name(one);
        name.starts_with("vfs_") || name.starts_with("asm_exc_") || name == "seq_show"
    };
    let visible: Vec<_> = all().iter().filter(is_shown).collect();
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let hidden = functions(&["vfs_*", "asm_exc_*", "seq_show"]);
    assert_eq!(visible.len(), hidden.len());
    for (visible, hidden) in visible.into_iter().zip(&hidden) {
        assert!(hidden["address"].is_null());
        assert_eq!(visible["probe"], hidden["probe"]);
        if name(hidden) == "seq_show" {
            assert_eq!(hidden["refusal"], "address-hidden");
            assert_eq!(hidden["errno"], "EPERM");
        } else if probeable(visible) == "no" && visible["refusal"] == "blacklisted" {
            assert_eq!(visible["refusal"], hidden["refusal"], "{hidden}");
        }
    }
    // Names are enough for an attach.
    clean(|| {
        let lines = counted(&["vfs_unlin*"]);
        assert!(lines[0]["hits"].as_u64().unwrap() >= 3, "{lines:?}");
    });
}

#[test]
fn a_list_that_cannot_be_read_is_unknown() {
    with_own_mounts(|| {
        unmount("/sys/kernel/debug");
        let output = run(&["functions", "--json", "vfs_read", "asm_exc_nmi*"]);
        let message = text(&output.stderr);
        assert!(message.contains("kprobes/blacklist") && message.contains("unknown: ENOENT"));
        let lines = json(&output.stdout);
        let read = lines.iter().find(|one| one["probe"] == "vfs_read").unwrap();
        assert_eq!(
            (probeable(read), &read["errno"]),
            ("unknown", &"ENOENT".into())
        );
        // What ftrace cannot trace is refused all the same.
        assert!(
            lines.iter().any(|one| one["refusal"] == "not-traceable"),
            "{lines:?}"
        );
    });
    // A user who may read neither list.
    let as_nobody = |args: &[&str]| -> Output {
        let mut command = program();
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        command.args(args).output().unwrap()
    };
    let output = as_nobody(&["functions", "--json", "vfs_read"]);
    let message = text(&output.stderr);
    assert!(message.contains("available_filter_functions"), "{message}");
    assert_eq!(probeable(&json(&output.stdout)[0]), "unknown");
    let output = as_nobody(&["plan", "vfs_*"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("vfs_*: EACCES: "),
        "{output:?}"
    );
}

#[test]
fn a_reader_that_has_enough_ends_it_at_once() {
    let mut command = program();
    command
        .arg("functions")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert!(!line.is_empty());
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.signal(), Some(libc::SIGPIPE));
}

#[test]
fn every_list_is_read_once_whatever_the_number_of_patterns() {
    let traced = Command::new("/bin/strace")
        .args(["-f", "-e", "trace=/open", "-o", "/tmp/opened"])
        .arg(std::env::var("KPROBE_ATTACH_BIN").unwrap())
        .args([
            "plan",
            "vfs_unlin*",
            "seq_show@2",
            "seq_show@all",
            "ksys_re*",
            "vfs_read",
        ])
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let opened = fs::read_to_string("/tmp/opened").unwrap();
    fs::remove_file("/tmp/opened").unwrap();
    for list in [
        "/proc/kallsyms",
        "available_filter_functions",
        "kprobes/blacklist",
    ] {
        assert_eq!(opened.matches(list).count(), 1, "{list}: {opened}");
    }
}
