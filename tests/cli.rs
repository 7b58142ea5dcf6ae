//! The command line of the program: what needs no kernel to be refused, or to be answered.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

/// The exit status of a command line that is wrong.
const USAGE: i32 = 2;

fn run(args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kprobe-attach"));
    program.args(args).output().unwrap()
}

/// Runs the program, which must refuse the arguments for this word.
fn refused(args: &[&str], word: &str) {
    let output = run(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert!(message.contains(word), "{args:?}: {message}");
}

#[test]
fn help_fits_a_screen() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(
            help.lines().count() <= 24 && help.lines().all(|line| line.len() <= 80),
            "{help}"
        );
        for command in [
            "features",
            "plan",
            "attach",
            "count",
            "explain",
            "functions",
            "sweep",
            "maps",
        ] {
            assert!(help.contains(command), "{command}");
        }
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_version_is_the_packages() {
    for option in ["--version", "-V"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0), "{option}");
        let version = format!("kprobe-attach {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(output.stdout, version.as_bytes());
    }
}

#[test]
fn a_command_is_one_of_those_that_there_are() {
    refused(&[], "COMMAND");
    refused(&["uncount", "vfs_read"], "uncount");
    refused(&["help", "uncount"], "uncount");
    refused(&["--uncount", "vfs_read"], "--uncount");
}

#[test]
fn an_option_is_one_of_the_commands() {
    refused(&["count", "--colour", "vfs_read"], "--colour");
    refused(&["count", "-x", "vfs_read"], "-x");
    refused(&["plan", "--for", "1", "vfs_read"], "for");
    refused(&["plan", "--for=1", "vfs_read"], "for");
    refused(&["attach", "--interval", "1", "vfs_read"], "interval");
    refused(&["count", "--program", "id:1", "vfs_read"], "program");
    refused(&["count", "--dry-run", "vfs_read"], "dry-run");
    refused(&["count", "--all", "vfs_*"], "all");
    refused(&["functions", "--mode", "link"], "mode");
    refused(&["explain", "--pin", "/sys/fs/bpf/a", "vfs_read"], "pin");
}

#[test]
fn an_option_is_given_once() {
    for (args, option) in [
        (["--json", "--mode", "perf", "--json"], "--json"),
        (["--mode", "perf", "--mode=perf", "--json"], "--mode"),
    ] {
        refused(&[&["plan"], &args[..], &["vfs_read"]].concat(), option);
    }
}

#[test]
fn an_option_has_a_value_or_none() {
    for option in [
        "--mode",
        "--cookie",
        "--maxactive",
        "--for",
        "--interval",
        "--pin",
    ] {
        refused(&["count", "vfs_read", option], option);
    }
    for option in ["--json", "--quiet"] {
        refused(&["count", &format!("{option}=yes"), "vfs_read"], option);
    }
}

#[test]
fn a_value_is_of_its_kind() {
    for (option, value) in [
        ("--mode", "fast"),
        ("--cookie", "0xg"),
        ("--cookie", "-1"),
        ("--maxactive", "many"),
        ("--for", "soon"),
        ("--for", "-1"),
        ("--for", "1.0000000001"),
        ("--interval", "0"),
        ("--interval", "1s"),
    ] {
        refused(&["count", option, value, "vfs_read"], option);
        refused(&["count", &format!("{option}={value}"), "vfs_read"], value);
    }
    let long = format!("/{}", "a".repeat(4000));
    refused(&["count", "--pin", &long, "vfs_read"], "--pin");
}

#[test]
fn a_command_has_the_probes_and_the_program_that_it_takes() {
    for command in ["plan", "attach", "count", "explain"] {
        refused(&[command], "PROBE");
    }
    refused(&["attach", "vfs_read"], "--program");
    refused(&["features", "vfs_read"], "vfs_read");
    refused(&["sweep", "vfs_read"], "vfs_read");
    for args in [&["maps"][..], &["maps", "dump"], &["maps", "list", "a"]] {
        refused(args, "dump");
    }
    refused(&["maps", "dump", "a", "b"], "dump");
}

#[test]
fn options_about_objects_need_one() {
    refused(&["plan", "--program", "a", "vfs_read"], "--object");
    refused(&["explain", "--program", "a", "vfs_read"], "--object");
    refused(
        &["attach", "--program", "a", "--verifier-log", "vfs_read"],
        "--object",
    );
    refused(
        &["attach", "--program", "a", "--program", "b", "vfs_read"],
        "--program",
    );
    refused(&["count", "--object", "a.o", "vfs_read"], "object");
}

/// Runs `plan` with an object of the tests, and returns its status, its output and its messages.
#[cfg(target_endian = "little")]
fn plan_object(args: &[&str]) -> (Option<i32>, String, String) {
    let output = run(&[&["plan"], args].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
#[cfg(target_endian = "little")]
fn an_object_is_read_before_the_kernel_is_asked() {
    let object = |name: &str| format!("tests/objects/{name}.o");
    let kinds = object("kinds");
    for (args, message) in [
        (&["--object", "tests/objects/none.o"][..], "none.o: ENOENT"),
        (
            &["--object", "tests/objects/kinds.c"],
            "not a 64-bit ELF file",
        ),
        (
            &["--object", &object("old-big-endian")],
            "the other byte order",
        ),
        // A program whose section is not attached is refused by its name, unless others are chosen.
        (&["--object", &kinds], "on_switch"),
        (
            &["--object", &kinds, "--program", "none"],
            "no program has the name none",
        ),
        (
            &["--object", &kinds, "--program", "bare"],
            "bare: the section names no function",
        ),
        (
            &[
                "--object",
                &kinds,
                "--program=entry",
                "--program=asked",
                "vfs_read",
            ],
            "of 2 programs",
        ),
    ] {
        let (status, output, messages) = plan_object(args);
        assert_eq!((status, output.as_str()), (Some(1), ""), "{args:?}");
        assert!(messages.contains(message), "{args:?}: {messages}");
    }
    // Not even its first bytes are read.
    let huge = std::env::temp_dir().join(format!("huge-{}.o", std::process::id()));
    let file = std::fs::File::create(&huge).unwrap();
    file.set_len((1 << 26) + 1).unwrap();
    let (status, _, messages) = plan_object(&["--object", huge.to_str().unwrap()]);
    std::fs::remove_file(huge).unwrap();
    assert_eq!(status, Some(1));
    assert!(messages.contains("EFBIG"), "{messages}");
    let (status, output, _) = plan_object(&["--object", &kinds, "--program", "none", "--json"]);
    assert_eq!(status, Some(1));
    assert!(output.contains(r#""cause":"invalid-request""#), "{output}");
}

#[test]
fn a_command_to_run_stands_where_it_can_be_waited_for() {
    refused(&["count", "vfs_read", "--"], "--");
    for command in ["plan", "explain"] {
        refused(&[command, "vfs_read", "--", "true"], "command");
    }
    for hold in [&["--for=1"][..], &["--interval=1"], &["--", "true"]] {
        let args = ["count", "--pin", "/sys/fs/bpf/counters", "vfs_read"];
        refused(&[&args[..], hold].concat(), "--pin");
    }
}

/// Texts that are no probe.
const NO_PROBES: [&str; 18] = [
    "vfs_read+0xg",
    "vfs_read\n-:a/b",
    "vfs_read\n-:kprobes/victim",
    "vfs_read @0xffffffff81000000",
    "vfs_read\t%di",
    "vfs_read\u{b}x",
    "vfs_read\r",
    "vfs_read\u{a0}x",
    "vfs_read#",
    "vfs_read-5",
    "vfs_read%return",
    "vfs_read,cookie=0xg",
    "vfs_read,colour=red",
    "0x",
    "123",
    "m:n:vfs_read",
    "/bin/sh:vfs_read",
    "vfs_read$$(x)",
];

#[test]
fn a_text_that_is_no_probe_is_refused_and_shown() {
    for command in [
        &["plan"][..],
        &["count"],
        &["explain"],
        &["attach", "--program=id:1"],
    ] {
        for probe in NO_PROBES {
            let word = probe.split(|char: char| !char.is_alphanumeric()).next();
            let args = [command, &[probe]].concat();
            refused(&args, word.unwrap());
            refused(&args, "^");
        }
        let long = format!("{}-", "f".repeat(70_000));
        refused(&[command, &[&long]].concat(), "^");
    }
}
