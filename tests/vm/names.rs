//! Names that others have chosen reach no terminal as escape sequences, and JSON whole.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;

use kprobe_attach::bpf::Array;

use crate::machine::{
    FUNCTION, KPROBES, TRACEFS, clean, define, json, link_modes, mount, program, unmount,
    wait_until, with_own_mounts,
};

/// Red letters, a bell, another line, the window's title, a deletion, and CSI as one character.
const HOSTILE: &str = "x\x1b[31m\x07\n\r\x1b]0;title\x07\x7f\u{9b}2J\u{85}y";

/// What is shown in its place.
const SHOWN: &str =
    "x\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}]0;title\u{fffd}\u{fffd}\u{fffd}2J\u{fffd}y";

/// Checks that nothing but ends of lines is sent that is not printed. Returns what was sent.
#[track_caller]
fn harmless(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let bad = text.chars().find(|char| char.is_control() && *char != '\n');
    assert_eq!(bad, None, "{text:?}");
    text
}

#[track_caller]
fn run(args: &[&OsStr]) -> Output {
    program().args(args).output().unwrap()
}

#[track_caller]
fn run_str(args: &[&str]) -> Output {
    let args: Vec<_> = args.iter().map(OsStr::new).collect();
    run(&args)
}

#[test]
fn the_events_of_a_sweep() {
    // The kernel takes any symbol of a module that may come; a blank would end it.
    let symbol = HOSTILE.replace(['\n', '\r', '\u{85}'], "");
    let shown = SHOWN
        .replace("\u{fffd}\u{fffd}\u{fffd}\u{fffd}]", "\u{fffd}\u{fffd}]")
        .replace("2J\u{fffd}y", "2Jy");
    let group = "kprobe_attach_0123456789abcdef";
    clean(|| {
        define(&format!("p:{group}/probe_01234567_0 nosuch:{symbol}"));
        for args in [&["sweep", "--dry-run"][..], &["sweep"]] {
            let output = run_str(&[args, &["--json"]].concat());
            let text = harmless(&output);
            assert!(!text.contains('\u{fffd}'), "{text}");
            let probe = json(&output.stdout)[0]["probe"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(probe, format!("kprobe/nosuch:{symbol}"));
            if args.len() == 1 {
                define(&format!("p:{group}/probe_01234567_0 nosuch:{symbol}"));
            }
            let text = harmless(&run_str(args));
            let line = format!("{group}/probe_01234567_0 (kprobe/nosuch:{shown})\n");
            assert!(text.contains(&line), "{text}");
        }
    });
}

#[test]
fn a_mount_point() {
    let dir = format!("/tmp/{HOSTILE}");
    with_own_mounts(|| {
        fs::create_dir(&dir).unwrap();
        for path in [TRACEFS, "/sys/kernel/debug"] {
            unmount(path);
        }
        mount("tracefs", &dir);
        let output = run_str(&["features", "--json"]);
        harmless(&output);
        assert_eq!(json(&output.stdout)[0]["tracefs"]["path"], *dir);
        let text = harmless(&run_str(&["features"]));
        assert!(
            text.contains(&format!("mounted at /tmp/{SHOWN}\n")),
            "{text}"
        );
        unmount(&dir);
        fs::remove_dir(&dir).unwrap();
    });
}

#[test]
fn pins_and_their_directory() {
    let dir = format!("/sys/fs/bpf/{HOSTILE}");
    let shown = format!("/sys/fs/bpf/{SHOWN}");
    if link_modes().is_empty() {
        return;
    }
    clean(|| {
        let count = ["count", "--pin", &dir];
        let text = harmless(&run_str(&[&count[..], &[FUNCTION]].concat()));
        assert!(
            text.contains(&format!("pinned at {shown}/kprobe_{FUNCTION}\n")),
            "{text}"
        );
        // The name is taken.
        let text = harmless(&run_str(&[&count[..], &[FUNCTION]].concat()));
        assert!(
            text.contains(&format!("{shown}/kprobe_{FUNCTION}: pin: EEXIST")),
            "{text}"
        );
        let output = run_str(&[&count[..], &["--json", FUNCTION]].concat());
        harmless(&output);
        let message = json(&output.stdout)[0]["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.starts_with(&format!("{dir}/kprobe_{FUNCTION}: ")),
            "{message}"
        );
        // A pin that somebody else made there, and that not everybody may open.
        let name = HOSTILE.replace('.', "");
        let array = Array::create(1).unwrap();
        array.pin(&*format!("{dir}/hits_{name}")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let output = program().args(count).uid(65534).output().unwrap();
        let text = harmless(&output);
        assert!(text.contains(&format!("{shown}/hits_{SHOWN}: ")), "{text}");
        let output = program()
            .args(count)
            .arg("--json")
            .uid(65534)
            .output()
            .unwrap();
        harmless(&output);
        let lines = json(&output.stdout);
        let is_of = |line: &serde_json::Value| {
            let message = line["error"]["message"].as_str().unwrap_or_default();
            message.starts_with(&format!("{dir}/hits_{name}: "))
        };
        assert!(lines.iter().any(is_of), "{lines:?}");
        fs::remove_dir_all(&dir).unwrap();
        wait_until(|| !fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
    });
}

#[test]
fn a_command_that_is_not_there() {
    clean(|| {
        for (name, shown) in [
            (HOSTILE.as_bytes(), SHOWN),
            (b"x\xff\x1by", "x\u{fffd}\u{fffd}y"),
        ] {
            let args = ["count", "--quiet", FUNCTION, "--"].map(OsStr::new);
            let output = run(&[&args[..], &[OsStr::from_bytes(name)]].concat());
            let text = harmless(&output);
            assert!(
                text.contains(&format!("kprobe-attach: {shown}: ENOENT\n")),
                "{text}"
            );
        }
    });
}
