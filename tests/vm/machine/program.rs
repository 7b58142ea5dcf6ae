//! The program, run as a user and as a script run it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub(crate) fn program() -> Command {
    let path = std::env::var("KPROBE_ATTACH_BIN").expect("set by ci/init");
    Command::new(path)
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The output's lines, each an object of JSON.
pub(crate) fn json(output: &[u8]) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text(output).lines().map(parse).collect()
}

/// Runs the program until it says that its probe is attached.
pub(crate) fn attached(args: &[&str]) -> Child {
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
pub(crate) fn interrupt(child: Child, signal: &str) -> Output {
    let kill = format!("kill -{signal} {}", child.id());
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success());
    child.wait_with_output().unwrap()
}

pub(crate) fn busybox(command: &str) {
    let status = Command::new("/bin/busybox")
        .args(command.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
}
