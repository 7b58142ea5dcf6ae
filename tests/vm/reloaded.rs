//! A module that is unloaded and loaded again under its probes.

use std::fs::{self, File};
use std::process::Stdio;

use serde_json::Value;

use super::machine::{
    KPROBES, busybox, interrupt, json, kernel_name, program, promised, version, wait_until,
};

/// Counts a function of a module while something is done to the module. Answers the last line, and
/// what was said to people.
fn counted(mode: &str, meanwhile: impl FnOnce()) -> (Value, String) {
    const MESSAGES: &str = "/tmp/reloaded";
    let child = program()
        .args(["count", "--json", "--mode", mode, "dummy:dummy_setup"])
        .stdout(Stdio::piped())
        .stderr(File::create(MESSAGES).unwrap())
        .spawn()
        .unwrap();
    wait_until(|| {
        fs::read_to_string(MESSAGES)
            .unwrap()
            .contains("1 probe attached")
    });
    meanwhile();
    let output = interrupt(child, "INT");
    let line = json(&output.stdout).pop().unwrap();
    (line, fs::read_to_string(MESSAGES).unwrap())
}

#[test]
fn a_probe_whose_module_was_unloaded_is_told_to_be_gone() {
    if std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty() {
        assert!(![(5, 10), (6, 1), (6, 12)].contains(&version()));
        println!("not run here: there are no modules of {}", kernel_name());
        return;
    }
    let insmod = || busybox("insmod /lib/modules/dummy.ko");
    let rmmod = || busybox("rmmod dummy");
    for mode in promised() {
        insmod();
        let (line, messages) = counted(mode.name(), || {});
        assert_eq!(line["gone"], Value::Null, "{line}");
        assert!(!messages.contains("unloaded"), "{messages}");
        // Its setup is run when it is loaded.
        let (line, messages) = counted(mode.name(), || {
            rmmod();
            insmod();
        });
        let hits = line["hits"].as_u64().unwrap();
        if mode.uses_tracefs() {
            assert!(hits > 0, "{line}");
            assert_eq!(line["gone"], Value::Null, "{line}");
            assert!(!messages.contains("unloaded"), "{messages}");
        } else {
            assert_eq!(hits, 0, "{line}");
            assert_eq!(line["gone"], true, "{line}");
            assert!(messages.contains("dummy:dummy_setup: gone: its module was unloaded"));
        }
        let (line, _) = counted(mode.name(), rmmod);
        assert_eq!(line["gone"] == true, !mode.uses_tracefs(), "{line}");
        let left = fs::read_to_string(KPROBES).unwrap();
        assert!(!left.contains("dummy_setup"), "{left}");
    }
}
