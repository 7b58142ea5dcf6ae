//! Pins of links to many functions: they hold the links when the program has ended, they go with
//! the others where one cannot be pinned, and removing one detaches all its functions.

use std::fs;

use kprobe_attach::KprobeMultiLink;
use serde_json::Value;

use crate::machine::{
    FUNCTION, KPROBES, clean, has_multi, json, names_in, run, text, unlink, unmount, wait_until,
    with_own_mounts,
};

const OBJECT: &[u8] = include_bytes!("../objects/many.o");

const BPFFS: &str = "/tmp/bpf";
const DIR: &str = "/tmp/bpf/dir";
const OTHER_DIR: &str = "/tmp/bpf/other";

/// Runs a test with a bpf file system, and the path of the object.
fn with_object(test: impl FnOnce(&str) + Send) {
    let path = "/tmp/many.o";
    fs::write(path, OBJECT).unwrap();
    clean(|| {
        with_own_mounts(|| {
            fs::create_dir_all(BPFFS).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", BPFFS, "bpf", flags, None).unwrap();
            test(path);
            unmount(BPFFS);
        });
        wait_until(|| !fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
    });
}

/// Returns the pinned counts: of the link to many functions, of that to one, and of returns.
fn hits() -> Vec<u64> {
    let output = run(&["maps", "dump", &format!("{DIR}/hits"), "--json"]);
    assert!(output.status.success(), "{output:?}");
    let lines = json(&output.stdout);
    let number = |line: &Value| u64::from_str_radix(line["value"].as_str().unwrap(), 16).unwrap();
    lines
        .iter()
        .map(|line| u64::from_be(number(line)))
        .collect()
}

/// Returns the pins of the lines about a program.
fn pins<'l>(lines: &'l [Value], program: &str) -> Vec<&'l str> {
    let of_it = lines.iter().filter(|line| line["program"] == program);
    of_it.map(|line| line["pinned"].as_str().unwrap()).collect()
}

#[test]
fn a_pin_holds_a_link_to_many_functions() {
    with_object(|path| {
        let attach = ["attach", "--object", path, "--pin", DIR, "--json"];
        let output = run(&attach);
        if !has_multi() {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(!fs::exists(DIR).unwrap());
            return;
        }
        assert!(output.status.success(), "{output:?}");
        let lines = json(&output.stdout);
        let entries = pins(&lines, "entries");
        assert!(entries.len() > 2, "{lines:?}");
        assert!(entries.iter().all(|pin| *pin == format!("{DIR}/entries")));
        assert_eq!(pins(&lines, "returns"), [format!("{DIR}/returns")]);
        assert_eq!(names_in(DIR), ["entries", "entry", "hits", "returns"]);
        unlink(3);
        assert_eq!(hits(), [3, 3, 3]);
        // The same names once more: what was pinned before the refusal is unpinned.
        fs::remove_file(format!("{DIR}/entries")).unwrap();
        let again = run(&attach);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert_eq!(json(&again.stdout)[0]["error"]["errno"], "EEXIST");
        assert_eq!(names_in(DIR), ["entry", "hits", "returns"]);
        // The link whose pin is gone no longer counts, and the others do.
        wait_until(|| {
            let before = hits();
            unlink(1);
            hits() == [before[0], before[1] + 1, before[2] + 1]
        });
    });
}

#[test]
fn the_pin_of_probes_that_share_a_link_has_the_name_of_the_first() {
    if !has_multi() {
        return;
    }
    with_object(|path| {
        let object = ["attach", "--object", path, "--json"];
        let probes = ["kprobe.multi/vfs_rmdir", "kprobe.multi/vfs_unlink"];
        let pin = ["--program=entries", "--pin", OTHER_DIR];
        let output = run(&[&object[..], &pin, &probes].concat());
        assert!(output.status.success(), "{output:?}");
        let pinned = format!("{OTHER_DIR}/kprobe_multi_vfs_rmdir");
        let lines = json(&output.stdout);
        let of_probes: Vec<_> = lines
            .iter()
            .filter(|line| line["probe"].is_string())
            .collect();
        assert_eq!(of_probes.len(), 2, "{lines:?}");
        assert!(
            of_probes.iter().all(|line| line["pinned"] == pinned),
            "{lines:?}"
        );
        assert_eq!(names_in(OTHER_DIR), ["hits", "kprobe_multi_vfs_rmdir"]);
        let link = KprobeMultiLink::open_pinned(pinned.as_str()).unwrap();
        drop(link);
        // One map has the counts of all its functions, so `count` does not pin them.
        let refused = run(&["count", "--pin", DIR, "kprobe.multi/vfs_unlink"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let why = "a link to many functions is not pinned by count, only by attach";
        assert!(text(&refused.stderr).contains(why), "{refused:?}");
        // A link to many functions has none of the modes.
        let mode = run(&[&object[..], &pin, &["--mode=link"], &probes].concat());
        assert_ne!(mode.status.code(), Some(0), "{mode:?}");
        assert_eq!(names_in(OTHER_DIR), ["hits", "kprobe_multi_vfs_rmdir"]);
    });
}
