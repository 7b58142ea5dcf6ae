//! Many probes of one command: `--keep-going`, a signal while they are attached, and their end.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::machine::{
    KPROBES, clean, interrupt, json, probeable, program, run, text, unlink, wait_until,
};

#[test]
fn keep_going_leaves_out_what_cannot_be_attached_and_reports_it() {
    let probes = [
        "vfs_unlink",
        "no_such_function",
        "vfs_mkdir",
        "asm_exc_page_fault",
        "vfs_rmdir",
    ];
    clean(|| {
        let all_or_nothing = run(&[&["count", "--json", "--for", "0.1"], &probes[..]].concat());
        assert_eq!(all_or_nothing.status.code(), Some(1));
        let lines = json(&all_or_nothing.stdout);
        assert!(
            lines.iter().all(|line| line["error"].is_object()),
            "{lines:?}"
        );
        let keep_going = ["count", "--keep-going", "--json", "--for", "0.1"];
        let output = run(&[&keep_going[..], &probes[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines = json(&output.stdout);
        let (failed, counted): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line["error"].is_object());
        let of = |lines: &[&serde_json::Value]| -> Vec<String> {
            let probe = |line: &&serde_json::Value| line["probe"].as_str().unwrap().to_owned();
            lines.iter().map(probe).collect()
        };
        assert_eq!(of(&failed), ["no_such_function", "asm_exc_page_fault"]);
        assert_eq!(of(&counted), ["vfs_unlink", "vfs_mkdir", "vfs_rmdir"]);
        assert_eq!(failed[0]["error"]["cause"], "no-such-function");
        let last: Vec<_> = counted
            .iter()
            .map(|line| line["last"].as_bool().unwrap())
            .collect();
        assert_eq!(last, [false, false, true]);
        // So do names that are looked for, and patterns.
        let searched = ["no_such_*", "vfs_unlink@1", "no_such_function@2"];
        let output = run(&[&keep_going[..], &searched[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines = json(&output.stdout);
        let failed: Vec<_> = lines
            .iter()
            .map(|line| (line["probe"].as_str().unwrap(), line["error"].is_object()))
            .collect();
        let expected = [
            ("no_such_*", true),
            ("no_such_function@2", true),
            ("vfs_unlink@1", false),
        ];
        assert_eq!(failed, expected);
        // A command runs beside those that are attached.
        let counts = [
            "count",
            "--keep-going",
            "no_such_function",
            "vfs_unlink",
            "--",
            "sh",
            "-c",
        ];
        let output = run(&[&counts[..], &["exit 7"]].concat());
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(
            text(&output.stderr).contains("1 probe attached"),
            "{output:?}"
        );
        // Where nothing is attached, there is nothing to hold.
        let output = run(&[
            "count",
            "--keep-going",
            "no_such_function",
            "no_other_function",
        ]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    });
}

#[test]
fn a_signal_while_probes_are_attached_detaches_them() {
    let functions = probeable(200);
    let names: Vec<_> = (0..200).map(|index| functions.name(index)).collect();
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        clean(|| {
            let child = program()
                .args([&["count", "--mode", "perf"][..], &names].concat())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            wait_until(|| fs::read_to_string(KPROBES).unwrap().lines().count() > 5);
            let output = interrupt(child, signal);
            assert_eq!(output.status.code(), Some(128 + number), "{output:?}");
            let messages = text(&output.stderr);
            assert!(
                messages.contains("interrupted while attaching"),
                "{messages}"
            );
            assert_eq!(fs::read_to_string(KPROBES).unwrap(), "");
        });
    }
}

#[test]
fn many_probes_are_detached_together() {
    let functions = probeable(20);
    let mut names: Vec<_> = (0..20).map(|index| functions.name(index)).collect();
    names.push("vfs_unlink");
    clean(|| {
        let child = program()
            .args([&["count", "--mode", "perf", "--json"][..], &names].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Each has an address of its own.
        wait_until(|| fs::read_to_string(KPROBES).unwrap().lines().count() == names.len());
        std::thread::sleep(Duration::from_millis(300));
        unlink(3);
        let output = interrupt(child, "INT");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(fs::read_to_string(KPROBES).unwrap(), "");
        let lines = json(&output.stdout);
        assert_eq!(lines.len(), names.len());
        let hits = lines
            .iter()
            .find(|line| line["probe"] == "vfs_unlink")
            .unwrap();
        assert_eq!(hits["hits"], 3);
    });
}
