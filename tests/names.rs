//! Arguments that others may have chosen reach no terminal as escape sequences, and JSON whole.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

/// Red letters, a bell, another line, the window's title, a deletion, and CSI as one character.
const HOSTILE: &str = "x\x1b[31m\x07\n\r\x1b]0;title\x07\x7f\u{9b}2J\u{85}y";

fn run(args: &[&[u8]]) -> Output {
    let args = args.iter().map(|arg| OsStr::from_bytes(arg));
    let mut program = Command::new(env!("CARGO_BIN_EXE_kprobe-attach"));
    program.args(args).output().unwrap()
}

/// Checks that nothing but ends of lines is sent that is not printed. Returns what was sent.
#[track_caller]
fn harmless(output: &Output) -> String {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    let bad = text.chars().find(|char| char.is_control() && *char != '\n');
    assert_eq!(bad, None, "{text:?}");
    text
}

#[test]
fn no_place_of_a_command_line_sends_an_escape_sequence() {
    let hostile = HOSTILE.as_bytes();
    let option = [b"--", hostile].concat();
    let invalid = &b"x\xff\x1b[31m\xc2y"[..];
    for text in [hostile, invalid] {
        for args in [
            &[text][..],
            &[&option],
            &[b"help", text],
            &[b"features", text],
            &[b"count", &option, b"vfs_read"],
            &[b"count", b"--for", text, b"vfs_read"],
            &[b"count", b"--interval", text, b"vfs_read"],
            &[b"count", b"--mode", text, b"vfs_read"],
            &[b"count", b"--cookie", text, b"vfs_read"],
            &[b"count", b"--pin", text],
            &[b"count", b"--pin", text, b"vfs_read"],
            &[b"count", b"--pin", text, b"--for", b"1"],
            &[b"count", text],
            &[b"plan", text],
            &[b"plan", b"--json", text],
            &[b"explain", text],
            &[b"explain", b"--json", text],
            &[b"attach", b"--program", text, b"vfs_read"],
            &[b"sweep", text],
        ] {
            let output = run(args);
            let text = harmless(&output);
            assert_ne!(output.status.code(), Some(0), "{text}");
            assert!(output.status.code().is_some_and(|code| code < 3), "{text}");
        }
    }
}

#[test]
fn what_is_shown_for_people_has_a_sign_for_each_control_character() {
    let shown =
        "x\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}]0;title\u{fffd}\u{fffd}\u{fffd}2J\u{fffd}y";
    let text = harmless(&run(&[HOSTILE.as_bytes()]));
    assert!(
        text.starts_with(&format!("kprobe-attach: no command '{shown}'\n")),
        "{text}"
    );
    // Other characters stay: letters of any language.
    let text = harmless(&run(&["Ünïcödé-日本".as_bytes()]));
    assert!(text.contains("'Ünïcödé-日本'"), "{text}");
}

#[test]
fn json_has_the_whole_text_and_escapes() {
    let output = run(&[b"plan", b"--json", HOSTILE.as_bytes()]);
    harmless(&output);
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(
        line.contains(r"x\u001b[31m\u0007\u000a\u000d\u001b]0;title\u0007\u007f\u009b2J\u0085y"),
        "{line}"
    );
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["probe"], HOSTILE);
}
