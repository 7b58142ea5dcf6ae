//! The program, run as a user and as a script run it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

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

/// The output's lines, each an object of JSON that the schema knows.
pub(crate) fn json(output: &[u8]) -> Vec<Value> {
    let parse = |line| {
        let object = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(is_in_schema(&object), "{line}");
        object
    };
    text(output).lines().map(parse).collect()
}

/// Whether an object has the fields of one of those that the schema describes. A validator would
/// take fifty packages to build, for each architecture; `tests/schema` has one.
fn is_in_schema(object: &Value) -> bool {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../../../src/guide/output.schema.json")).unwrap()
    });
    let referred = |of: &Value| {
        let name = of["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        SCHEMA["$defs"].get(name)
    };
    let fields = |of: &Value| of["properties"].as_object().cloned().unwrap_or_default();
    let required = |of: &Value| of["required"].as_array().cloned().unwrap_or_default();
    let object = object.as_object().unwrap();
    let kinds = SCHEMA["oneOf"].as_array().unwrap().iter();
    kinds.filter_map(referred).any(|kind| {
        let base = referred(kind).unwrap_or(&Value::Null);
        let known = [fields(kind), fields(base)];
        let mut required = required(kind).into_iter().chain(required(base));
        object
            .keys()
            .all(|key| known.iter().any(|fields| fields.contains_key(key)))
            && required.all(|key| object.contains_key(key.as_str().unwrap()))
    })
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
