//! The program, run as a user and as a script run it.

use std::collections::BTreeSet;
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
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(kinds_in_schema);
    let object = object.as_object().unwrap();
    KINDS.iter().any(|kind| {
        object.keys().all(|key| kind.known.contains(key))
            && kind.required.iter().all(|key| object.contains_key(key))
    })
}

/// The fields that an object of a kind may have, and those that it must have.
struct Kind {
    known: BTreeSet<String>,
    required: BTreeSet<String>,
}

fn kinds_in_schema() -> Vec<Kind> {
    let schema = include_str!("../../../src/guide/output.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let referred = |of: &Value| {
        let name = of["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        schema["$defs"].get(name)
    };
    let kinds = schema["oneOf"].as_array().unwrap().iter();
    kinds
        .filter_map(referred)
        .map(|kind| {
            let both = [Some(kind), referred(kind)];
            let both = || both.iter().flatten();
            let fields = both().filter_map(|one| one["properties"].as_object());
            let required = both().filter_map(|one| one["required"].as_array());
            Kind {
                known: fields.flat_map(|fields| fields.keys().cloned()).collect(),
                required: required
                    .flatten()
                    .map(|key| key.as_str().unwrap().to_owned())
                    .collect(),
            }
        })
        .collect()
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
