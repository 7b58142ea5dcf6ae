//! The program's output on a terminal: it breaks the lines for people at blanks.

#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Stdio};

/// Runs the program on a terminal with so many columns; returns what the terminal was sent.
fn on_terminal(columns: u16, args: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_kprobe-attach");
    let line = format!("stty cols {columns} && '{program}' '{}'", args.join("' '"));
    let mut script = Command::new("script");
    let output = script
        .args(["--quiet", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let sent = String::from_utf8(output.stdout).unwrap();
    sent.replace("\r\n", "\n")
}

/// The same through a pipe, which has no columns.
fn through_a_pipe(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kprobe-attach"));
    let output = command.args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

#[test]
fn lines_are_broken_at_blanks_where_the_terminal_ends() {
    let no_function = "f".repeat(20);
    for args in [
        &["features"][..],
        &["count", "--interval", "x", "vfs_read"],
        &["plan", "vfs_read,foo=1"],
        &["plan", &no_function],
    ] {
        let plain = through_a_pipe(args);
        for columns in [50, 80] {
            let shown = on_terminal(columns, args);
            assert_eq!(words(&shown), words(&plain), "{args:?}");
            for line in shown.lines() {
                let fits = line.chars().count() <= columns.into();
                assert!(fits || words(line).len() == 1, "{columns}: {shown}");
            }
            let broken = plain.lines().any(|line| line.len() > columns.into());
            assert_eq!(shown != plain, broken, "{shown}\n{plain}");
        }
    }
}

#[test]
fn help_fits_the_terminal_and_is_the_same_text() {
    for args in [&["--help"][..], &["count", "--help"], &["help", "attach"]] {
        let plain = through_a_pipe(args);
        assert_eq!(on_terminal(80, args), plain);
        for columns in [50, 80] {
            let shown = on_terminal(columns, args);
            assert_eq!(words(&shown), words(&plain));
            let fits = |line: &str| line.len() <= columns.into() || words(line).len() == 1;
            assert!(shown.lines().all(fits), "{columns}: {shown}");
        }
    }
}

#[test]
fn an_object_of_json_stays_on_its_line() {
    let args = ["features", "--json"];
    assert_eq!(on_terminal(50, &args), through_a_pipe(&args));
}
