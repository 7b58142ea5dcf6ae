//! The program and many functions: links that probes share, the best way for twenty functions and
//! more, `--any-of`, and the progress.

use std::fs;
use std::io::Read;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{
    KPROBES, clean, has_multi, interrupt, json, probeable, program, promised, run, text, version,
    wait_until, with_counted,
};
use crate::terminal::terminal;

/// A command that calls `vfs_unlink` three times, and `vfs_mkdir` and `vfs_rmdir` once.
const COMMAND: [&str; 4] = [
    "--",
    "sh",
    "-c",
    "for i in 1 2 3; do : >/tmp/many; rm /tmp/many; done; mkdir /tmp/dir; rmdir /tmp/dir",
];

fn count(args: &[&str]) -> Output {
    run(&[&["count", "--json"], args, &COMMAND].concat())
}

/// The function, the mode and the hits of each line that has hits.
fn counts(output: &Output) -> Vec<(String, String, u64)> {
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    json(&output.stdout)
        .iter()
        .filter_map(|line| {
            let hits = line["hits"].as_u64()?;
            Some((word(line, "function"), word(line, "mode"), hits))
        })
        .collect()
}

/// The probes of the lines that are errors, with their causes.
fn errors(output: &Output) -> Vec<(String, String)> {
    let lines = json(&output.stdout);
    let errors = lines.iter().filter(|line| line["error"].is_object());
    errors
        .map(|line| {
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            (word(&line["probe"]), word(&line["error"]["cause"]))
        })
        .collect()
}

#[test]
fn probes_of_one_kind_share_a_link_and_each_has_its_hits() {
    let functions = [("vfs_unlink", 3), ("vfs_mkdir", 1), ("vfs_rmdir", 1)];
    for (prefix, mode, runs) in [
        ("kprobe.multi", "multi", 1),
        ("kretprobe.multi", "multi", 1),
        ("kprobe.session", "session", 2),
    ] {
        let probes = functions.map(|(function, _)| format!("{prefix}/{function}"));
        let probes = probes.each_ref().map(String::as_str);
        let output = clean(|| count(&probes));
        if !has_multi() {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let refused = probes.map(|probe| (probe.to_owned(), "no-kprobe-multi".to_owned()));
            assert_eq!(errors(&output), refused);
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let expected =
            functions.map(|(function, hits)| (function.to_owned(), mode.to_owned(), hits * runs));
        assert_eq!(counts(&output), expected, "{prefix}");
    }
}

#[test]
fn a_probe_that_takes_no_such_link_is_named_or_left_out() {
    if !has_multi() {
        return;
    }
    let bad = "kprobe.multi/asm_exc_page_fault";
    let probes = ["kprobe.multi/vfs_unlink", bad, "kprobe.multi/vfs_rmdi?"];
    let refused = [(bad.to_owned(), "not-probeable".to_owned())];
    clean(|| {
        let output = count(&probes);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(errors(&output), refused);
        assert_eq!(counts(&output), []);
        let output = count(&[&["--keep-going"], &probes[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(errors(&output), refused);
        let multi = |function: &str, hits| (function.to_owned(), "multi".to_owned(), hits);
        let expected = [multi("vfs_unlink", 3), multi("vfs_rmdir", 1)];
        assert_eq!(counts(&output), expected);
        let output = run(&["explain", "kprobe.multi/vfs_unlink", bad]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let verdicts = text(&output.stdout);
        assert!(
            verdicts.contains("vfs_unlink: would attach, mode multi"),
            "{verdicts}"
        );
        let refusal = format!("{bad}: would not attach: not-probeable");
        assert!(verdicts.contains(&refusal), "{verdicts}");
        // Each of a function's probes counts it.
        let twice = ["kprobe.multi/vfs_unlink", "kprobe.multi/vfs_unlin*"];
        let expected = [multi("vfs_unlink", 3), multi("vfs_unlink", 3)];
        assert_eq!(counts(&count(&twice)), expected);
        let plan = run(&[&["plan"], &twice[..]].concat());
        let links = text(&plan.stdout).matches("attach, one link to").count();
        assert_eq!((plan.status.code(), links), (Some(0), 2), "{plan:?}");
        // A cookie is the index of the count.
        let output = count(&["kprobe.multi/vfs_unlink,cookie=7"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    });
}

#[test]
fn hundreds_of_functions_are_explained_with_one_link() {
    let start = Instant::now();
    let chosen = probeable(300);
    let mut names: Vec<_> = (0..300).map(|index| chosen.name(index)).collect();
    names[7] = "no_such_function";
    names[70] = "asm_exc_page_fault";
    let probes: Vec<_> = names
        .iter()
        .map(|name| format!("kprobe.multi/{name}"))
        .collect();
    let probes: Vec<_> = probes.iter().map(String::as_str).collect();
    let output = clean(|| run(&[&["explain", "--json"], &probes[..]].concat()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let verdicts = json(&output.stdout);
    assert_eq!(verdicts.len(), 300);
    for (index, (verdict, probe)) in verdicts.iter().zip(probes).enumerate() {
        assert_eq!(verdict["probe"], probe);
        let cause = match index {
            7 => Some("no-such-function"),
            70 if has_multi() => Some("not-probeable"),
            _ if !has_multi() => Some("no-kprobe-multi"),
            _ => None,
        };
        assert_eq!(verdict["cause"].as_str(), cause, "{verdict}");
        assert_eq!(verdict["would_attach"], cause.is_none(), "{verdict}");
    }
    // To read the symbols for each, or to make a link to each, would take minutes.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn twenty_functions_are_attached_in_the_best_way() {
    let chosen = with_counted(22);
    let names: Vec<_> = (0..22).map(|index| chosen.name(index)).collect();
    let output = clean(|| count(&names));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (mode, steps) = if has_multi() {
        ("multi", "one link to 22 functions".to_owned())
    } else if version() < (6, 0) {
        // The kernel looks up names slowly.
        (promised()[0].name(), format!("{:#x}", chosen.addresses[0]))
    } else {
        (promised()[0].name(), format!("\"{}\"", names[0]))
    };
    let counted = counts(&output);
    assert!(counted.iter().all(|(_, of, _)| of == mode), "{counted:?}");
    let functions: Vec<_> = counted.iter().map(|(function, ..)| function).collect();
    assert_eq!(functions, names);
    let of_counted = counted[19..].iter().map(|(.., hits)| *hits);
    assert!(of_counted.eq([3, 0, 1]), "{counted:?}");
    let plan = run(&[&["plan"], &names[..]].concat());
    assert!(text(&plan.stdout).contains(&steps), "{plan:?}");
}

#[test]
fn any_of_attaches_the_first_probe_that_it_can() {
    clean(|| {
        let output = count(&["--any-of", "no_such_function", "vfs_unlink", "vfs_mkdir"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let [(function, _, hits)] = &counts(&output)[..] else {
            panic!("{output:?}");
        };
        assert_eq!((function.as_str(), *hits), ("vfs_unlink", 3));
        assert_eq!(errors(&output), []);
        let output = count(&["--any-of", "no_such_function", "asm_exc_page_fault"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let first = ("no_such_function".to_owned(), "no-such-function".to_owned());
        assert_eq!(errors(&output), [first]);
    });
}

#[test]
fn progress_is_shown_on_a_terminal_and_a_signal_detaches() {
    let functions = probeable(300);
    let names: Vec<_> = (0..300).map(|index| functions.name(index)).collect();
    let command = || {
        let mut command = program();
        command.args(["count", "--mode", "perf"]).args(&names);
        command.stdout(Stdio::null());
        command
    };
    clean(|| {
        let (mut master, slave) = terminal();
        let start = Instant::now();
        let child = command().stderr(slave).spawn().unwrap();
        let (mut shown, mut buffer) = (String::new(), [0; 4096]);
        while !shown.contains("s left") {
            let length = master.read(&mut buffer).unwrap();
            assert!(length > 0, "{shown}");
            shown.push_str(text(&buffer[..length]));
        }
        let took = start.elapsed();
        assert!(took > Duration::from_secs(1), "{took:?}");
        assert!(shown.contains("\r\x1b[Kattaching "), "{shown}");
        assert!(shown.contains(" of 300, "), "{shown}");
        let output = interrupt(child, "INT");
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert_eq!(fs::read_to_string(KPROBES).unwrap(), "");

        let child = command().stderr(Stdio::piped()).spawn().unwrap();
        wait_until(|| !fs::read_to_string(KPROBES).unwrap().is_empty());
        std::thread::sleep(Duration::from_millis(1500));
        let output = interrupt(child, "INT");
        assert!(!text(&output.stderr).contains("attaching "), "{output:?}");
        assert_eq!(fs::read_to_string(KPROBES).unwrap(), "");
    });
}
