//! The program, as a user and as a script sees it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use kprobe_attach::AttachMode;
use kprobe_attach::bpf::Array;
use rustix::thread::CapabilitySet;
use serde_json::Value;

use super::mounts::{unmount, with_own_mounts};
use super::{Counter, FUNCTION, clean, link::pin, promised, unlink};

pub(crate) fn program() -> Command {
    let path = std::env::var("KPROBE_ATTACH_BIN").expect("set by ci/init");
    Command::new(path)
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The output's lines, each an object of JSON.
pub(crate) fn json(output: &[u8]) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text(output).lines().map(parse).collect()
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn features_prints_the_promised_modes() {
    let output = run(&["features", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let [features] = &json(&output.stdout)[..] else {
        panic!("one line");
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let machine = Command::new("uname").arg("-m").output().unwrap();
    let machine = text(&machine.stdout);
    assert_eq!(features["kernel"], release.trim());
    assert_eq!(features["arch"], machine.trim());
    assert_eq!(features["kprobe_pmu"]["support"], "yes");
    assert_eq!(features["kprobe_pmu"]["retprobe_bit"], 0);
    assert_eq!(features["tracefs"]["path"], "/sys/kernel/tracing");
    assert_eq!(features["default"], promised()[0].name());
    for mode in AttachMode::ALL {
        let support = &features["modes"][mode.name()];
        if promised().contains(&mode) {
            assert_eq!(support["support"], "yes");
        } else {
            assert_eq!(support["support"], "no");
            assert_eq!(support["errno"], "EINVAL");
            assert!(support["why"].as_str().unwrap().contains("Linux 5.15"));
        }
    }
    let output = run(&["features"]);
    assert!(
        text(&output.stdout).contains("mode perf        yes"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn help_fits_a_screen_and_a_wrong_command_line_is_2() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    assert!(
        help.lines().count() <= 24 && help.lines().all(|line| line.len() <= 80),
        "{help}"
    );
    assert_eq!(
        text(&run(&["--version"]).stdout),
        format!("kprobe-attach {}\n", env!("CARGO_PKG_VERSION"))
    );
    for args in [
        &[][..],
        &["count"],
        &["count", "--colour", FUNCTION],
        &["attach", FUNCTION],
        &["plan", "--for", "1", FUNCTION],
        &["plan", "--json", "--mode", "perf", "--json", FUNCTION],
        &["plan", "--mode", "perf", "--mode=perf", FUNCTION],
        &["plan", FUNCTION, "--", "true"],
        &["plan", "vfs_read,foo=1"],
        &["count", "vfs_read,foo=1"],
        &["explain", "vfs_read,foo=1"],
        &["attach", "--program", "id:1", "vfs_read,foo=1"],
        &["help", "cuont"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn count_counts_while_the_command_runs_and_hands_its_status_through() {
    for mode in promised() {
        clean(|| {
            let script = "touch /tmp/a /tmp/b; rm /tmp/a /tmp/b; exit 3";
            let probe = format!("kretprobe/{FUNCTION}");
            let args = ["count", "--json", "--mode", mode.name(), FUNCTION, &probe];
            let output = run(&[&args[..], &["--", "sh", "-c", script]].concat());
            assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
            let lines = json(&output.stdout);
            for (line, (probe, retprobe)) in lines.iter().zip([(FUNCTION, false), (&probe, true)]) {
                assert_eq!(line["probe"], probe);
                assert_eq!(line["function"], FUNCTION);
                assert_eq!(line["offset"], 0);
                assert_eq!(line["retprobe"], retprobe);
                assert_eq!(line["mode"], mode.name());
                assert_eq!(line["cookie"], 0);
                assert_eq!(line["hits"], 2);
                assert!(line["missed"].is_null() || line["missed"] == 0);
            }
            assert_eq!(lines.len(), 2);
        });
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn count_prints_a_table() {
    let output = run(&[
        "count",
        "--quiet",
        FUNCTION,
        "--",
        "sh",
        "-c",
        "touch /tmp/a; rm /tmp/a",
    ]);
    assert_eq!(text(&output.stderr), "");
    let table = text(&output.stdout);
    assert!(
        !table.contains('\x1b'),
        "a live table is for terminals: {table:?}"
    );
    let words: Vec<_> = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(words[0], ["PROBE", "MODE", "HITS", "MISSED"]);
    assert_eq!(words[1][..3], [FUNCTION, promised()[0].name(), "1"]);
    assert_eq!(words.len(), 2, "{table}");
}

/// Runs the program until it says that its probe is attached.
fn attached(args: &[&str]) -> Child {
    let mut child = program()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_attached(&mut child);
    child
}

/// Waits until a program says that its probe is attached.
pub(crate) fn wait_until_attached(child: &mut Child) {
    let mut announced = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut announced)
        .unwrap();
    assert!(announced.contains("1 probe attached"), "{announced}");
}

/// Ends it by a signal.
fn interrupt(child: Child, signal: &str) -> Output {
    let kill = format!("kill -{signal} {}", child.id());
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success());
    child.wait_with_output().unwrap()
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_signal_detaches_and_summarises() {
    for mode in promised() {
        for signal in ["INT", "TERM", "HUP"] {
            clean(|| {
                let child = attached(&["count", "--json", "--mode", mode.name(), FUNCTION]);
                unlink(2);
                let output = interrupt(child, signal);
                assert_eq!(output.status.code(), Some(0));
                assert_eq!(json(&output.stdout)[0]["hits"], 2, "{mode} {signal}");
            });
        }
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn the_time_ends_it_and_a_closed_pipe_too() {
    clean(|| {
        let output = run(&["count", "--quiet", "--json", "--for", "0.2", FUNCTION]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(json(&output.stdout)[0]["hits"], 0);
        let output = run(&[
            "count",
            "--quiet",
            "--json",
            "--for",
            "1",
            "--interval",
            "0.2",
            FUNCTION,
        ]);
        // One at the end, and four before it; on a machine that has other things to do, fewer.
        assert!(matches!(json(&output.stdout).len(), 2..=5));
        // A command that would go on is asked to end.
        let output = run(&[
            "count", "--quiet", "--json", "--for", "0.2", FUNCTION, "--", "sleep", "1000",
        ]);
        assert_eq!(output.status.code(), Some(128 + 15));
    });
    for mode in promised() {
        clean(|| {
            let mut child = program()
                .args([
                    "count",
                    "--mode",
                    mode.name(),
                    "--interval",
                    "0.1",
                    FUNCTION,
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            assert_eq!(child.wait().unwrap().code(), Some(1));
        });
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_command_that_cannot_run_is_127_or_126() {
    clean(|| {
        for (command, status) in [("no-such-command", 127), ("/tmp", 126)] {
            let output = run(&["count", "--json", FUNCTION, "--", command]);
            assert_eq!(output.status.code(), Some(status));
            assert!(text(&output.stderr).contains(command));
        }
        // A command that dies of a signal, as a shell tells it.
        let output = run(&["count", FUNCTION, "--", "sh", "-c", "kill -KILL $$"]);
        assert_eq!(output.status.code(), Some(128 + 9));
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_failure_is_a_line_for_each_probe_and_nothing_stays_attached() {
    clean(|| {
        let probes = [
            FUNCTION,
            "no_such_function",
            "vfs_read+0xg",
            "vfs_read\n-:a/b",
        ];
        let output = run(&[&["count", "--json"], &probes[..2]].concat());
        assert_eq!(output.status.code(), Some(1));
        let [line] = &json(&output.stdout)[..] else {
            panic!("{}", text(&output.stdout));
        };
        assert_eq!(line["probe"], "no_such_function");
        assert_eq!(line["error"]["step"], "perf_event_open");
        assert_eq!(line["error"]["errno"], "ENOENT");
        assert_eq!(line["error"]["cause"], "no-such-function");
        assert!(
            line["error"]["message"]
                .as_str()
                .unwrap()
                .contains("no_such_function")
        );

        let output = run(&[&["count", "--json"], &probes[2..]].concat());
        assert_eq!(output.status.code(), Some(2));
        let lines = json(&output.stdout);
        for (line, probe) in lines.iter().zip(&probes[2..]) {
            assert_eq!(line["probe"], *probe);
            assert_eq!(line["error"]["step"], "request");
            assert_eq!(line["error"]["cause"], "invalid-request");
        }
        assert_eq!(lines.len(), 2);

        let output = run(&[
            "count",
            FUNCTION,
            "no_such_function",
            "--",
            "touch",
            "/tmp/ran",
        ]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("no_such_function: perf_event_open: ENOENT: "));
        assert!(!std::fs::exists("/tmp/ran").unwrap());
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn attach_holds_a_pinned_program_or_pins_its_links() {
    const PIN: &str = "/sys/fs/bpf/program";
    clean(|| {
        let counter = Counter::new();
        pin(&counter.program, PIN);
        let id = format!("id:{}", counter.program.id().unwrap());
        for (hits, what) in (1..).zip([PIN, &id]) {
            let args = ["attach", "--json", "--program", what, FUNCTION];
            let output = run(&[&args[..], &["--", "sh", "-c", "touch /tmp/a; rm /tmp/a"]].concat());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let line = &json(&output.stdout)[0];
            assert_eq!(line["mode"], promised()[0].name());
            assert_eq!(line["link_id"].is_u64(), promised()[0].uses_link());
            assert!(line["pinned"].is_null());
            assert_eq!(counter.hits(), hits);
        }
        unlink(1);
        assert_eq!(counter.hits(), 2);

        let probes = [FUNCTION, "kretprobe/vfs_unlink"];
        let args = [
            "attach",
            "--json",
            "--program",
            PIN,
            "--pin",
            "/sys/fs/bpf/pins",
        ];
        let output = run(&[&args[..], &probes[..]].concat());
        if promised().contains(&AttachMode::Link) {
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let pins: Vec<_> = json(&output.stdout)
                .iter()
                .map(|line| line["pinned"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(
                pins,
                [
                    "/sys/fs/bpf/pins/kprobe_vfs_unlink",
                    "/sys/fs/bpf/pins/kretprobe_vfs_unlink"
                ]
            );
            unlink(1);
            assert_eq!(counter.hits(), 4);
            // The second pin is taken: the first of a new pair goes again.
            std::fs::remove_file(&pins[0]).unwrap();
            let output = run(&[&args[..], &probes[..]].concat());
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(json(&output.stdout)[0]["error"]["step"], "pin");
            assert!(!std::fs::exists(&pins[0]).unwrap());
            std::fs::remove_file(&pins[1]).unwrap();
            std::fs::remove_dir("/sys/fs/bpf/pins").unwrap();
        } else {
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(json(&output.stdout)[0]["error"]["cause"], "no-perf-link");
            assert!(!std::fs::exists("/sys/fs/bpf/pins").unwrap());
        }
        let gone = run(&["attach", "--program", "/sys/fs/bpf/none", FUNCTION]);
        assert_eq!(gone.status.code(), Some(1));
        assert!(text(&gone.stderr).contains("open-program: ENOENT: there is no such pin"));
        std::fs::remove_file(PIN).unwrap();
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn count_pins_counters_and_reads_them_again() {
    const DIR: &str = "/sys/fs/bpf/counters";
    let count = |args: &[&str]| run(&[&["count", "--json", "--pin", DIR], args].concat());
    let read = || json(&count(&[]).stdout);
    clean(|| {
        let empty = count(&[]);
        assert_eq!(empty.status.code(), Some(1));
        assert_eq!(json(&empty.stdout)[0]["error"]["errno"], "ENOENT");

        let output = count(&[
            "kprobe/vfs_unlink",
            "kretprobe/vfs_unlink,cookie=9",
            "--cookie=7",
        ]);
        if !promised().contains(&AttachMode::Link) {
            assert_eq!(output.status.code(), Some(1));
            let error = &json(&output.stdout)[0]["error"];
            assert_eq!(error["cause"], "no-perf-link");
            assert!(error["message"].as_str().unwrap().contains("Linux 5.15"));
            assert!(!std::fs::exists(DIR).unwrap());
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let pinned = json(&output.stdout);
        assert_eq!(pinned[0]["pinned"], format!("{DIR}/kprobe_vfs_unlink"));
        assert!(pinned[0]["link_id"].is_u64());
        unlink(3);
        let mut counts = read();
        counts.sort_by_key(|count| count["cookie"].as_u64());
        let [entry, exit] = &counts[..] else {
            panic!("{counts:?}");
        };
        // What the options add stands in the text.
        assert_eq!(entry["probe"], "kprobe/vfs_unlink,cookie=0x7,mode=link");
        assert_eq!(exit["probe"], "kretprobe/vfs_unlink,cookie=9");
        for (count, retprobe, cookie) in [(entry, false, 7), (exit, true, 9)] {
            assert_eq!(count["function"], FUNCTION);
            assert_eq!(count["retprobe"], retprobe);
            assert_eq!(count["cookie"], cookie);
            assert_eq!(count["mode"], "link");
            assert_eq!(count["hits"], 3);
            assert_eq!(count["missed"], pinned_missed());
        }
        let table = run(&["count", "--pin", DIR]);
        assert!(text(&table.stdout).starts_with("PROBE"), "{table:?}");

        // A name that is taken: nothing of the others stays either.
        let output = count(&["vfs_mkdir", "vfs_unlink"]);
        assert_eq!(output.status.code(), Some(1));
        let error = &json(&output.stdout)[0]["error"];
        assert_eq!(error["cause"], "name-taken");
        assert!(
            error["message"].as_str().unwrap().starts_with(DIR),
            "{error}"
        );
        assert_eq!(read().len(), 2);
        assert_eq!(std::fs::read_dir(DIR).unwrap().count(), 4);

        // Without its pin a link is gone, and its counter stands still.
        std::fs::remove_file(format!("{DIR}/kretprobe_vfs_unlink")).unwrap();
        super::wait_until(|| {
            unlink(1);
            let counts = read();
            let hits = |retprobe| {
                let count = counts.iter().find(|count| count["retprobe"] == retprobe);
                count.unwrap()["hits"].as_u64().unwrap()
            };
            hits(false) > hits(true) + 2
        });
        let gone = read().into_iter().find(|count| count["retprobe"] == true);
        assert!(gone.unwrap()["mode"].is_null());

        // What others have pinned under such names is none of it.
        pin_other(&Counter::new(), DIR);
        assert_eq!(read().len(), 2);
        let output = run(&["count", "--pin", "/tmp"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("no bpf file system"));
        std::fs::remove_dir_all(DIR).unwrap();
        super::wait_until(|| {
            !std::fs::read_to_string(super::KPROBES)
                .unwrap()
                .contains(FUNCTION)
        });
    });
    for wrong in ["--for=1", "--interval=1"] {
        let output = run(&["count", "--pin", DIR, wrong, FUNCTION]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

/// Pins an array that says of no probe, and a program, as if they were counters.
fn pin_other(counter: &Counter, dir: &str) {
    counter.counters.pin(&*format!("{dir}/hits_array")).unwrap();
    pin(&counter.program, &format!("{dir}/hits_program"));
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn count_tells_the_hits_that_the_kernel_kept_from_the_program() {
    const DIR: &str = "/sys/fs/bpf/missed";
    const IN_A_MAP: &str = "array_map_update_elem";
    let map = Array::create(1).unwrap();
    // The system call has the CPU marked as in a program, which then may not run another one.
    let update = || (0..3).for_each(|_| map.set(0, 1).unwrap());
    let check = |mode: AttachMode, output: &Output| {
        let count = &json(&output.stdout)[0];
        assert_eq!(count["hits"], 0, "{mode}");
        let missed = match mode {
            // An event without link or tracefs tells nothing of the probe's own.
            AttachMode::Perf => Value::Null,
            _ if super::version() >= (6, 7) => 3.into(),
            // Not counted, but what the probe itself missed is told.
            _ if mode.uses_tracefs() => 0.into(),
            _ => Value::Null,
        };
        assert_eq!(count["missed"], missed, "{mode}");
    };
    for mode in promised() {
        clean(|| {
            let args = ["count", "--json", "--mode", mode.name(), IN_A_MAP];
            let child = attached(&args);
            update();
            check(mode, &interrupt(child, "INT"));
        });
    }
    if promised().contains(&AttachMode::Link) {
        clean(|| {
            let count = |args: &[&str]| run(&[&["count", "--json", "--pin", DIR], args].concat());
            assert!(count(&[IN_A_MAP]).status.success());
            update();
            check(AttachMode::Link, &count(&[]));
            // The program of a link that was pinned is asked for by its id.
            super::in_thread(|| {
                rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)
                    .unwrap();
                let counts = json(&count(&[]).stdout);
                assert_eq!(
                    (&counts[0]["hits"], &counts[0]["missed"]),
                    (&0.into(), &Value::Null)
                );
            });
            std::fs::remove_dir_all(DIR).unwrap();
            super::wait_until(|| {
                let probes = std::fs::read_to_string(super::KPROBES).unwrap();
                !probes.contains(IN_A_MAP)
            });
        });
    }
}

/// What a link tells of misses: nothing before Linux 6.6 or 6.7.
fn pinned_missed() -> Value {
    if super::version() == (6, 1) {
        Value::Null
    } else {
        0.into()
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn features_tells_how_each_thing_was_found() {
    let features = || json(&run(&["features", "--json"]).stdout).remove(0);
    let mounted = features();
    let pmu = &mounted["kprobe_pmu"];
    assert_eq!(pmu["found"], "type");
    assert_eq!(pmu["sysfs_type"], pmu["type"]);
    assert_eq!(mounted["sysfs"]["path"], "/sys");
    assert_eq!(mounted["bpffs"]["path"], "/sys/fs/bpf");
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        unmount("/sys/fs/bpf");
        unmount("/sys");
        let detached = features();
        for file_system in ["tracefs", "sysfs", "bpffs"] {
            let found = &detached[file_system];
            assert_eq!(found["support"], "yes", "{file_system}");
            assert!(
                found["path"].is_null() && found["detached"] == true,
                "{found}"
            );
        }
        assert_eq!(detached["kprobe_pmu"], mounted["kprobe_pmu"]);
        let shown = run(&["features"]);
        let shown = text(&shown.stdout);
        assert!(
            shown.contains("verified by its refusals and in sysfs"),
            "{shown}"
        );
        assert!(
            shown.contains("tracefs          yes      not mounted"),
            "{shown}"
        );
        // In a user namespace none of them is to be had, and it says why.
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "-r"]).arg(program().get_program());
        let output = unshare.args(["features", "--json"]).output().unwrap();
        let denied = json(&output.stdout).remove(0);
        for file_system in ["tracefs", "sysfs", "bpffs"] {
            let denied = &denied[file_system];
            assert_eq!(denied["support"], "no", "{file_system}");
            assert_eq!(denied["errno"], "EPERM", "{file_system}");
            assert!(denied["why"].as_str().unwrap().contains("CAP_SYS_ADMIN"));
        }
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_plan_is_what_strace_sees() {
    for mode in promised() {
        let cookie = if mode.uses_link() { ",cookie=7" } else { "" };
        let maxactive = if mode.uses_tracefs() {
            ",maxactive=9"
        } else {
            ""
        };
        let probe = format!("kretprobe/{FUNCTION}{cookie}{maxactive},mode={mode}");
        let plan = run(&["plan", "--json", &probe]);
        let plan = &json(&plan.stdout)[0];
        let planned = |key: &str| -> Vec<String> {
            let steps = plan[key].as_array().unwrap();
            steps
                .iter()
                .map(|step| normal(step.as_str().unwrap()))
                .collect()
        };

        let args = ["-v", "-s", "1000", "-o", "/tmp/strace"];
        let filter = [
            "-e",
            "trace=bpf,close,?fcntl,?fcntl64,ioctl,?newfstatat,?statx,openat,perf_event_open,read,write",
        ];
        let status = Command::new("/bin/strace")
            .args(args)
            .args(filter)
            .arg(program().get_program())
            .args(["count", "--quiet", "--json", "--for", "0.1", &probe])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let trace = std::fs::read_to_string("/tmp/strace").unwrap();
        // By such a call rustix sees, once, whether a statx(2) has failed because there is none.
        let calls = trace
            .lines()
            .filter(|call| !call.contains(", NULL, AT_STATX"));
        let traced: Vec<_> = calls.map(normal).collect();
        for steps in [planned("steps"), planned("detach")] {
            let found = traced.windows(steps.len()).any(|window| window == steps);
            assert!(found, "{mode}: {steps:#?}\nnot in {traced:#?}");
        }
        let limit = if mode.uses_tracefs() { 9 } else { 2 };
        // What keeps one file descriptor a link instead of two.
        let close = usize::from(mode.uses_link());
        assert_eq!(planned("steps").len(), limit + close, "{mode}");
        assert_eq!(
            planned("detach").len(),
            if mode.uses_tracefs() { 3 } else { 1 },
            "{mode}"
        );
    }
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_command_is_itself_before_anything_is_detached() {
    // Between fork and exec it would hold the events, and keep them from being removed.
    clean(|| {
        for _ in 0..10 {
            for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
                let args = [
                    "count",
                    "--mode",
                    mode.name(),
                    "--for",
                    "0",
                    FUNCTION,
                    "--",
                    "sleep",
                    "9",
                ];
                let output = run(&args);
                assert_eq!(
                    output.status.code(),
                    Some(128 + 15),
                    "{}",
                    text(&output.stderr)
                );
            }
        }
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn signals_that_were_ignored_at_the_start_stay_so_but_a_childs_end_does_not() {
    clean(|| {
        let program = program().get_program().to_str().unwrap().to_owned();
        let script =
            format!("trap '' HUP CHLD; exec {program} count --quiet --json {FUNCTION} -- true");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let script = format!(
            "trap '' HUP; {program} count --quiet --json --for 1 {FUNCTION} & \
             sleep 0.3; kill -HUP $!; sleep 0.2; touch /tmp/a; rm /tmp/a; wait $!"
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(json(&output.stdout)[0]["hits"], 1);
    });
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_text_longer_than_any_is_refused_and_shown() {
    let long = format!("{}-", "f".repeat(70_000));
    let output = run(&["plan", &long]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("^ no function name has this byte"));
    let padded = format!("{FUNCTION},cookie={}", "0".repeat(70_000));
    let output = run(&["count", "--quiet", "--for", "0", &padded]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
#[ignore = "needs root and a kernel with kprobes: ci/run.sh vm"]
fn a_hostile_name_reaches_no_system_call_in_any_mode() {
    // Every address may be the kernel's on s390x.
    let no_address = if cfg!(target_arch = "s390x") {
        "0x"
    } else {
        "0xffff"
    };
    for name in [
        "vfs_read\n-:kprobes/victim",
        "vfs_read @0xffffffff81000000",
        "vfs_read\t%di",
        "vfs_read\u{b}x",
        "vfs_read\u{c}x",
        "vfs_read\r",
        "vfs_read\u{a0}x",
        "vfs_read#",
        "vfs_read-5",
        "vfs_read%return",
        no_address,
        "123",
        "m:n:vfs_read",
        "/bin/sh:vfs_read",
        "vfs_read$$(x)",
    ] {
        for mode in AttachMode::ALL {
            let output = Command::new("/bin/strace")
                .args([
                    "-o",
                    "/tmp/strace",
                    "-e",
                    "trace=bpf,perf_event_open,?open,openat",
                ])
                .arg(program().get_program())
                .args(["count", "--json", "--mode", mode.name(), name])
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{name:?}");
            let line = &json(&output.stdout)[0];
            assert_eq!(line["probe"], name);
            assert_eq!(line["error"]["step"], "request");
            let trace = std::fs::read_to_string("/tmp/strace").unwrap();
            // By its auxiliary vector rustix finds how system calls are made on 32-bit x86.
            let mut calls = trace
                .lines()
                .filter(|call| cfg!(not(target_arch = "x86")) || !call.contains("/proc/self/auxv"));
            assert_eq!(calls.next(), Some("+++ exited with 2 +++"), "{name:?}");
        }
    }
}

/// A system call as both have it: numbers that only the kernel knows, or that are the process's
/// own, left out.
pub(crate) fn normal(call: &str) -> String {
    let (call, answer) = call.rsplit_once(" = ").unwrap_or((call, ""));
    let mut call = call.trim_end().to_owned();
    // Comments of strace, and its names of numbers.
    while let (Some(start), Some(end)) = (call.find(" /*"), call.find("*/")) {
        call.replace_range(start..end + 2, "");
    }
    call = call.replace("PERF_ATTR_SIZE_VER1", "72");
    let name = call.split('(').next().unwrap().to_owned();
    let field = |key: &str| -> String {
        let Some(at) = call.find(&format!("{key}=")) else {
            return String::new();
        };
        let value = &call[at + key.len() + 1..];
        let value = &value[..value.find([',', '}']).unwrap()];
        let hex = value
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        format!(
            "{key}={}",
            hex.map_or(value.to_owned(), |number| number.to_string())
        )
    };
    match name.as_str() {
        "perf_event_open" => {
            let arguments = call.rsplit_once('}').unwrap().1;
            let tracepoint = call.contains("PERF_TYPE_TRACEPOINT");
            let config = if tracepoint {
                "an id".to_owned()
            } else {
                field("config")
            };
            let named = !field("config1").ends_with("=0");
            let fields = [
                field("type"),
                field("size"),
                config,
                field("disabled"),
                field("config2"),
            ];
            let done = if answer.starts_with('-') {
                "failed"
            } else {
                ""
            };
            format!(
                "{name} {} named {named} {arguments} {done}",
                fields.join(" ")
            )
        }
        "bpf" => {
            let size = call.rsplit_once(", ").unwrap().1;
            let target = if call.contains("target_fd=-1") {
                "none"
            } else {
                ""
            };
            format!(
                "{name} {} {} {} {size} {target}",
                &call[..20],
                field("attach_type"),
                field("bpf_cookie")
            )
        }
        "newfstatat" | "statx" | "openat" | "write" => {
            // The random part of a group, and of an event's name, is another in each process.
            let (_, arguments) = call.split_once(',').unwrap();
            let arguments = match name.as_str() {
                // Without the address of the answer.
                "newfstatat" | "statx" => arguments.split_inclusive('"').take(2).collect(),
                _ => arguments.to_owned(),
            };
            let mut arguments = arguments;
            if let Some(at) = arguments.find("kprobe_attach_") {
                let random = arguments[at + 14..at + 30].to_owned();
                arguments = arguments.replace(&random, "R").replace(&random[..8], "r");
                // So is the event's number: a plan in vain uses one.
                let number = arguments.find("_r_").unwrap() + 3;
                arguments.replace_range(number..=number, "N");
            }
            format!("{name}{arguments}")
        }
        "read" => format!("{name} {}", call.rsplit_once(", ").unwrap().1),
        "ioctl" => format!("{name} {}", call.split(", ").nth(1).unwrap()),
        "fcntl" | "fcntl64" => {
            let (_, arguments) = call.split_once(',').unwrap();
            format!("{name}{}", arguments.split("l_start").next().unwrap())
        }
        _ => name,
    }
}
