//! Output that is lost is a failure, and the program says why, whatever was to be printed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

/// Runs the program by a line of the shell, in which `$0` is the program.
fn shell(line: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_kprobe-attach");
    let mut shell = Command::new("sh");
    shell.args(["-c", line, program]).output().unwrap()
}

#[test]
fn output_that_is_lost_is_a_failure_with_a_word() {
    for (redirection, errno) in [
        (">/dev/full", "ENOSPC"),
        (">&-", "EBADF"),
        ("1</dev/null", "EBADF"),
        // No descriptor of the program's own may be taken for one of these.
        ("<&- >&-", "EBADF"),
    ] {
        for args in [
            "--help",
            "--version",
            "count --help",
            "features",
            "features --json",
            "plan --json vfs_read,foo=1",
        ] {
            let line = format!("\"$0\" {args} {redirection}");
            let output = shell(&line);
            let messages = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{line}: {messages}");
            let word = format!("kprobe-attach: standard output: {errno}: output is lost\n");
            assert!(messages.ends_with(&word), "{line}: {messages}");
        }
    }
}

#[test]
fn a_reader_that_went_away_is_told_nothing() {
    // SIGPIPE is ignored, as some services have it, or ends the program.
    for (set, status) in [("trap '' PIPE;", "1"), ("", "141")] {
        let line = format!("{set} {{ sleep 0.2; \"$0\" --help; echo $? >&2; }} | true");
        let output = shell(&line);
        let messages = String::from_utf8(output.stderr).unwrap();
        assert_eq!(messages, format!("{status}\n"), "{line}");
    }
}

#[test]
fn an_output_that_nobody_needs_may_be_closed() {
    let output = shell("\"$0\" plan vfs_read,foo=1 >&-");
    assert_eq!(output.status.code(), Some(2));
    // Without standard error there is nobody to tell.
    let output = shell("\"$0\" plan vfs_read,foo=1 2>&-");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let output = shell("\"$0\" --version <&- 2>&-");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"kprobe-attach "));
}
