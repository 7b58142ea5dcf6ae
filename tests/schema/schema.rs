//! What the program prints with `--json`, and the guide's examples of it, are as the schema says.
//! This machine need not have kprobes. `ci/run.sh unit` builds the program and runs this.

use std::process::Command;

use jsonschema::Validator;
use serde_json::Value;

fn schema() -> Validator {
    let schema = include_str!("../../src/guide/output.schema.json");
    let schema = serde_json::from_str(schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// The lines that a command prints with `--json`.
fn lines(args: &[&str]) -> Vec<Value> {
    const PROGRAM: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/release/kprobe-attach"
    );
    let output = Command::new(PROGRAM).args(args).arg("--json").output();
    let output = output.expect("cargo build --release makes it");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Each of these is one of the things that the schema describes.
fn check(schema: &Validator, lines: &[Value], origin: &str) {
    assert!(!lines.is_empty(), "{origin}");
    for line in lines {
        let errors = schema.iter_errors(line).map(|error| error.to_string());
        let errors: Vec<_> = errors.collect();
        assert!(errors.is_empty(), "{origin}: {line}: {errors:?}");
    }
}

#[test]
fn every_line_that_is_printed_is_as_the_schema_says() {
    let schema = schema();
    for args in [
        &["features"][..],
        &[
            "plan",
            "vfs_read",
            "kretprobe/vfs_read,mode=legacy",
            "0xffffffff81000000",
        ],
        &["plan", "kprobe.multi/vfs_read", "kprobe.session/vfs_read"],
        &[
            "count",
            "vfs_read,mode=perf",
            "no_such_function",
            "--for",
            "0.1",
        ],
        &["attach", "--program", "/no/such/pin", "vfs_read"],
        &["attach", "--object", "/no/such/object"],
        &["maps", "dump", "/no/such/pin"],
        &[
            "explain",
            "vfs_raed",
            "kretprobe/vfs_read,maxactive=4",
            "seq_show",
        ],
        &["functions", "vfs_*"],
        // What is no probe fails too.
        &["count", "vfs_read,foo=1"],
    ] {
        check(&schema, &lines(args), &args.join(" "));
    }
}

#[test]
fn every_example_of_the_guide_is_as_the_schema_says() {
    let page = include_str!("../../src/guide/json.md");
    let examples = page.split("```json\n").skip(1);
    let examples: Vec<_> = examples
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect();
    check(&schema(), &examples, "json.md");
}

#[test]
fn the_schema_refuses_what_no_command_prints() {
    let schema = schema();
    let mut features = lines(&["features"]).remove(0);
    features["modes"]["link"]["support"] = "perhaps".into();
    assert!(!schema.is_valid(&features));
    let mut failure = lines(&["count", "vfs_read,foo=1"]).remove(0);
    failure["more"] = 1.into();
    assert!(!schema.is_valid(&failure));
}
