//! Whatever is mounted over a file that is read or written, nothing hangs, is believed or is
//! changed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kprobe_attach::{AttachMode, Target};
use rustix::fs::{FileType, Mode, OFlags};
use serde_json::Value;

use crate::machine::{
    FUNCTION, KPROBE_EVENTS, PARANOID, TRACEFS, clean, json, kallsyms, mount, program, promised,
    unmount, with_own_mounts,
};
use crate::why::PROBES_BY_FTRACE;

const KALLSYMS: &str = "/proc/kallsyms";
const BLACKLIST: &str = "/sys/kernel/debug/kprobes/blacklist";
const FILTER: &str = "/sys/kernel/tracing/available_filter_functions";
const ARMED: &str = "/sys/kernel/debug/kprobes/enabled";
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const README: &str = "/sys/kernel/tracing/README";
const PROFILE: &str = "/sys/kernel/tracing/kprobe_profile";
const ERROR_LOG: &str = "/sys/kernel/tracing/error_log";
const PMU: &str = "/sys/bus/event_source/devices/kprobe";

/// Files that somebody may mount: empty, plausible, without an end, or without a beginning.
struct Masks {
    _fifo: rustix::fd::OwnedFd,
}

const EMPTY: &str = "/tmp/hostile.empty";
const PLAUSIBLE: &str = "/tmp/hostile.plausible";
const FIFO: &str = "/tmp/hostile.fifo";
const MASKS: [&str; 5] = [EMPTY, PLAUSIBLE, FIFO, "/dev/zero", "/dev/null"];

impl Masks {
    fn make() -> Self {
        fs::write(EMPTY, "").unwrap();
        let cwd = rustix::fs::CWD;
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(cwd, FIFO, FileType::Fifo, mode, 0).unwrap();
        // With somebody at the other end, it can be opened for writing.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = rustix::fs::open(FIFO, flags, Mode::empty()).unwrap();
        Self { _fifo: fifo }
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        for path in [EMPTY, PLAUSIBLE, FIFO] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs a test with each mask over a file, where `content` would be believed.
fn masked(file: &str, content: &str, test: impl Fn(&str) + Sync) {
    let masks = Masks::make();
    for mask in MASKS {
        fs::write(PLAUSIBLE, content).unwrap();
        clean(|| {
            with_own_mounts(|| {
                if file != KALLSYMS {
                    // It takes long to read, and no other file needs it.
                    rustix::mount::mount_bind("/dev/null", KALLSYMS).unwrap();
                }
                rustix::mount::mount_bind(mask, file).unwrap();
                test(&format!("{mask} over {file}"));
                unmount(file);
            });
        });
        // Nothing was appended.
        assert_eq!(fs::read_to_string(PLAUSIBLE).unwrap(), content, "{file}");
        assert_eq!(fs::read_to_string(EMPTY).unwrap(), "", "{file}");
    }
    drop(masks);
}

/// Runs the program, which must end by itself; returns its lines of JSON.
fn run_as(user: u32, args: &[&str], what: &str) -> Vec<Value> {
    let mut command = program();
    if user != 0 {
        command.uid(user);
    }
    let child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{what}: {args:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    json(&output.stdout)
}

fn run(args: &[&str], what: &str) -> Vec<Value> {
    run_as(0, args, what)
}

fn explain(probe: &str, what: &str) -> Value {
    run(&["explain", "--json", probe], what).remove(0)
}

/// The question of this source is open.
#[track_caller]
fn is_open(explanation: &Value, source: &str, what: &str) {
    let evidence = explanation["evidence"].as_array().unwrap();
    let begin = format!("{source}: EXDEV; unknown ");
    let open = |line: &Value| line.as_str().unwrap().starts_with(&begin);
    assert!(evidence.iter().any(open), "{what}: {explanation:#}");
}

/// A function that the kernel protects, and that no other has the name of.
fn protected() -> String {
    let blacklist = fs::read_to_string(BLACKLIST).unwrap();
    let symbols = kallsyms();
    let is_single = |name: &&str| {
        let same = symbols.iter().filter(|(_, _, symbol, _)| symbol == name);
        same.count() == 1 && Target::symbol(name).is_ok()
    };
    let mut names = blacklist.lines().filter_map(|line| line.split('\t').nth(1));
    names
        .find(is_single)
        .expect("a protected function")
        .to_owned()
}

#[test]
fn what_explain_reads_leaves_its_question_open() {
    let protected = protected();
    let none = "ffffffff81000000 T nosuch_function\n";
    masked(KALLSYMS, none, |what| {
        let explanation = explain(FUNCTION, what);
        assert_eq!(explanation["would_attach"], true, "{what}");
        is_open(&explanation, KALLSYMS, what);
        let explanation = explain(&protected, what);
        assert_eq!(explanation["cause"], "not-probeable", "{what}");
        is_open(&explanation, KALLSYMS, what);
        let within = run(&["plan", "--json", FUNCTION], what);
        assert_eq!(within[0]["function"], FUNCTION);
    });
    let other = "0xffffffff81000000-0xffffffff81000010\tnosuch_function\n";
    masked(BLACKLIST, other, |what| {
        let explanation = explain(&protected, what);
        assert_eq!(explanation["cause"], "not-probeable", "{what}");
        is_open(&explanation, BLACKLIST, what);
    });
    masked(FILTER, "nosuch_function\n", |what| {
        let explanation = explain(&protected, what);
        assert_eq!(explanation["cause"], "not-probeable", "{what}");
        is_open(&explanation, "available_filter_functions", what);
    });
    // Where the kernel places no probe by ftrace, its switch is not asked for.
    let switches = if PROBES_BY_FTRACE {
        &[ARMED, FTRACE][..]
    } else {
        &[ARMED]
    };
    for file in switches {
        masked(file, "0\n", |what| {
            let explanation = explain(FUNCTION, what);
            assert_eq!(explanation["would_attach"], true, "{what}");
            is_open(&explanation, file, what);
        });
    }
}

#[test]
fn what_is_read_of_rights_leaves_its_question_open() {
    let as_nobody = |source: &str, what: &str| {
        let explanation = run_as(65534, &["explain", "--json", FUNCTION], what).remove(0);
        assert_eq!(explanation["would_attach"], false, "{what}");
        is_open(&explanation, source, what);
    };
    masked(PARANOID, "-1\n", |what| as_nobody(PARANOID, what));
    with_own_mounts(|| {
        let dir = "/sys/kernel/security";
        mount("securityfs", dir);
        if fs::exists(LOCKDOWN).unwrap() {
            masked(LOCKDOWN, "none integrity [confidentiality]\n", |what| {
                as_nobody(LOCKDOWN, what);
            });
        }
        unmount(dir);
    });
}

#[test]
fn nothing_but_kprobe_events_is_taken_for_it() {
    masked(
        KPROBE_EVENTS,
        "p:kprobe_attach_0123456789abcdef/probe_01234567_0 vfs_read\n",
        |what| {
            for mode in promised() {
                let line = run(
                    &[
                        "count",
                        "--json",
                        "--for",
                        "0",
                        "--mode",
                        mode.name(),
                        FUNCTION,
                    ],
                    what,
                );
                if mode.uses_tracefs() {
                    assert_eq!(line[0]["error"]["cause"], "no-kprobe-events", "{what}");
                } else {
                    assert_eq!(line[0]["mode"], mode.name(), "{what}");
                }
            }
            for args in [&["sweep", "--json"][..], &["sweep", "--json", "--dry-run"]] {
                let error = &run(args, what)[0]["error"];
                assert_eq!(
                    (&error["errno"], &error["cause"]),
                    (&"EXDEV".into(), &"no-kprobe-events".into()),
                    "{what}"
                );
            }
            let features = &run(&["features", "--json"], what)[0];
            assert_eq!(features["modes"]["legacy"]["errno"], "EXDEV", "{what}");
        },
    );
}

#[test]
fn what_else_is_in_tracefs_and_sysfs_is_not_believed() {
    let count = |probe: &str, what: &str| {
        let mode = AttachMode::Legacy.name();
        run(
            &["count", "--json", "--for", "0", "--mode", mode, probe],
            what,
        )
        .remove(0)
    };
    let with_maxactive = format!("kretprobe/{FUNCTION},maxactive=8");
    masked(README, "r[maxactive]\n", |what| {
        let error = &count(&with_maxactive, what)["error"];
        assert_eq!(
            (&error["step"], &error["errno"]),
            (&"probe-kernel".into(), &"EXDEV".into()),
            "{what}"
        );
        assert_eq!(count(FUNCTION, what)["mode"], "legacy", "{what}");
    });
    // One that shows none: the kernel would name the event itself.
    clean(|| {
        with_own_mounts(|| {
            rustix::mount::mount_bind("/sys/kernel/tracing/available_tracers", README).unwrap();
            let error = &count(&with_maxactive, "a README")["error"];
            let kind = [&error["step"], &error["errno"], &error["cause"]];
            assert_eq!(kind, ["probe-kernel", "EOPNOTSUPP", "invalid-request"]);
            let message = error["message"].as_str().unwrap();
            assert!(
                message.ends_with("this kernel takes no maxactive"),
                "{message}"
            );
            assert_eq!(count(FUNCTION, "a README")["mode"], "legacy");
            unmount(README);
        });
    });
    assert_eq!(count(&with_maxactive, "the README")["mode"], "legacy");
    masked(PROFILE, "  probe_0 1 7\n", |what| {
        assert_eq!(count(FUNCTION, what)["missed"], Value::Null, "{what}");
    });
    if fs::exists(ERROR_LOG).unwrap() {
        masked(
            ERROR_LOG,
            "[1] trace_kprobe: error: The symbol is not unique\n",
            |what| {
                let error = &count("nosuch_function", what)["error"];
                assert_eq!(error["step"], "create-event", "{what}");
                assert_ne!(error["cause"], "not-unique", "{what}");
            },
        );
    }
    masked(&format!("{PMU}/type"), "1\n", |what| {
        let features = &run(&["features", "--json"], what)[0];
        assert_eq!(features["kprobe_pmu"]["sysfs_type"], Value::Null, "{what}");
    });
    masked(&format!("{PMU}/format/retprobe"), "config:5\n", |what| {
        let features = &run(&["features", "--json"], what)[0];
        assert_eq!(features["kprobe_pmu"]["retprobe_bit"], 0, "{what}");
    });
}

/// Files of the same file system: with nothing of the kind in them, or without an end.
#[test]
fn another_file_of_the_same_file_system_leaves_the_question_open_too() {
    let protected = protected();
    let check = |other: &str, file: &str, test: &(dyn Fn(&str) + Sync)| {
        clean(|| {
            with_own_mounts(|| {
                rustix::mount::mount_bind(other, file).unwrap();
                test(&format!("{other} over {file}"));
                unmount(file);
            });
        });
    };
    let symbols_are_open = |what: &str| {
        let explanation = explain(&protected, what);
        assert_eq!(explanation["cause"], "not-probeable", "{what}");
        let evidence = explanation["evidence"].to_string();
        assert!(
            evidence.contains("unknown which functions have the name"),
            "{what}: {evidence}"
        );
    };
    check("/proc/version", KALLSYMS, &symbols_are_open);
    // Without a reader's patience: it has an end only where it would wait.
    check("/proc/kmsg", KALLSYMS, &symbols_are_open);
    check(ARMED, BLACKLIST, &|what| {
        is_open(&explain(&protected, what), BLACKLIST, what);
    });
    let pipe = "/sys/kernel/tracing/trace_pipe";
    check(pipe, FILTER, &|what| {
        let evidence = explain(&protected, what)["evidence"].to_string();
        assert!(
            evidence.contains("unknown whether the function can be traced"),
            "{what}: {evidence}"
        );
    });
    check(pipe, KPROBE_EVENTS, &|what| {
        assert!(
            run(&["sweep", "--json", "--dry-run"], what)[0]["error"].is_object(),
            "{what}"
        );
    });
    let software = "/sys/bus/event_source/devices/software/type";
    check(software, &format!("{PMU}/type"), &|what| {
        let pmu = &run(&["features", "--json"], what)[0]["kprobe_pmu"];
        assert_eq!(
            (&pmu["support"], &pmu["sysfs_type"]),
            (&"yes".into(), &1.into()),
            "{what}"
        );
    });
}

#[test]
fn a_masked_mount_table_names_no_mount() {
    let masks = Masks::make();
    for mask in MASKS {
        fs::write(PLAUSIBLE, "29 25 0:12 / /tmp rw - tracefs tracefs rw\n").unwrap();
        with_own_mounts(|| {
            unmount(TRACEFS);
            unmount("/sys/kernel/debug");
            // The program has a thread of its own; that is masked for this one, in this process.
            let thread = rustix::thread::gettid();
            let table = format!("/proc/self/task/{thread}/mountinfo");
            rustix::mount::mount_bind(mask, &*table).unwrap();
            let found = kprobe_attach::Mount::find_tracefs();
            assert_eq!(found.err(), Some(kprobe_attach::Errno::NOENT), "{mask}");
            unmount(&table);
        });
    }
    drop(masks);
}
