//! The command `count`, as a user and as a script sees it.

use std::process::{Command, Output, Stdio};

use kprobe_attach::AttachMode;
use kprobe_attach::bpf::Array;
use rustix::thread::CapabilitySet;
use serde_json::Value;

use crate::machine::{
    Counter, FUNCTION, KPROBES, attached, clean, in_thread, interrupt, json, pin, program,
    promised, run, text, unlink, version, wait_until,
};

#[test]
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

#[test]
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
        // The text contains what the options add.
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
        wait_until(|| {
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
        wait_until(|| !std::fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
    });
}

/// Pins an array that says of no probe, and a program, as if they were counters.
fn pin_other(counter: &Counter, dir: &str) {
    counter.counters.pin(&*format!("{dir}/hits_array")).unwrap();
    pin(&counter.program, &format!("{dir}/hits_program"));
}

#[test]
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
            _ if version() >= (6, 7) => 3.into(),
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
            in_thread(|| {
                rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN)
                    .unwrap();
                let counts = json(&count(&[]).stdout);
                assert_eq!(
                    (&counts[0]["hits"], &counts[0]["missed"]),
                    (&0.into(), &Value::Null)
                );
            });
            std::fs::remove_dir_all(DIR).unwrap();
            wait_until(|| {
                let probes = std::fs::read_to_string(KPROBES).unwrap();
                !probes.contains(IN_A_MAP)
            });
        });
    }
}

/// What a link tells of misses: nothing before Linux 6.6 or 6.7.
fn pinned_missed() -> Value {
    if version() == (6, 1) {
        Value::Null
    } else {
        0.into()
    }
}

#[test]
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
