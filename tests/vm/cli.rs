//! The program, as a user and as a script sees it.

use std::process::{Command, Stdio};

use kprobe_attach::AttachMode;

use crate::machine::{
    Counter, FUNCTION, clean, json, normal, pin, program, promised, run, text, unlink, unmount,
    with_own_mounts,
};

#[test]
fn features_prints_the_promised_modes() {
    let output = run(&["features", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let [features] = &json(&output.stdout)[..] else {
        panic!("one line");
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let machine = Command::new("uname").arg("-m").output().unwrap();
    let machine = text(&machine.stdout);
    assert_eq!(features["kernel"], release.trim());
    assert_eq!(features["arch"], machine.trim());
    assert_eq!(features["kprobe_pmu"]["support"], "yes");
    assert_eq!(features["kprobe_pmu"]["retprobe_bit"], 0);
    assert_eq!(features["tracefs"]["path"], "/sys/kernel/tracing");
    assert_eq!(features["default"], promised()[0].name());
    for mode in AttachMode::ALL {
        let support = &features["modes"][mode.name()];
        if promised().contains(&mode) {
            assert_eq!(support["support"], "yes");
        } else {
            assert_eq!(support["support"], "no");
            assert_eq!(support["errno"], "EINVAL");
            assert!(support["why"].as_str().unwrap().contains("Linux 5.15"));
        }
    }
    let output = run(&["features"]);
    assert!(
        text(&output.stdout).contains("mode perf        yes"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_failure_is_a_line_for_each_probe_and_nothing_stays_attached() {
    clean(|| {
        let probes = [
            FUNCTION,
            "no_such_function",
            "vfs_read+0xg",
            "vfs_read\n-:a/b",
        ];
        let output = run(&[&["count", "--json"], &probes[..2]].concat());
        assert_eq!(output.status.code(), Some(1));
        let [line] = &json(&output.stdout)[..] else {
            panic!("{}", text(&output.stdout));
        };
        assert_eq!(line["probe"], "no_such_function");
        assert_eq!(line["error"]["step"], "perf_event_open");
        assert_eq!(line["error"]["errno"], "ENOENT");
        assert_eq!(line["error"]["cause"], "no-such-function");
        assert!(
            line["error"]["message"]
                .as_str()
                .unwrap()
                .contains("no_such_function")
        );

        let output = run(&[&["count", "--json"], &probes[2..]].concat());
        assert_eq!(output.status.code(), Some(2));
        let lines = json(&output.stdout);
        for (line, probe) in lines.iter().zip(&probes[2..]) {
            assert_eq!(line["probe"], *probe);
            assert_eq!(line["error"]["step"], "request");
            assert_eq!(line["error"]["cause"], "invalid-request");
        }
        assert_eq!(lines.len(), 2);

        let output = run(&[
            "count",
            FUNCTION,
            "no_such_function",
            "--",
            "touch",
            "/tmp/ran",
        ]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("no_such_function: perf_event_open: ENOENT: "));
        assert!(!std::fs::exists("/tmp/ran").unwrap());
    });
}

#[test]
fn attach_holds_a_pinned_program_or_pins_its_links() {
    const PIN: &str = "/sys/fs/bpf/program";
    clean(|| {
        let counter = Counter::new();
        pin(&counter.program, PIN);
        let id = format!("id:{}", counter.program.id().unwrap());
        for (hits, what) in (1..).zip([PIN, &id]) {
            let args = ["attach", "--json", "--program", what, FUNCTION];
            let output = run(&[&args[..], &["--", "sh", "-c", "touch /tmp/a; rm /tmp/a"]].concat());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let line = &json(&output.stdout)[0];
            assert_eq!(line["mode"], promised()[0].name());
            assert_eq!(line["link_id"].is_u64(), promised()[0].uses_link());
            assert!(line["pinned"].is_null());
            assert_eq!(counter.hits(), hits);
        }
        unlink(1);
        assert_eq!(counter.hits(), 2);

        let probes = [FUNCTION, "kretprobe/vfs_unlink"];
        let args = [
            "attach",
            "--json",
            "--program",
            PIN,
            "--pin",
            "/sys/fs/bpf/pins",
        ];
        let output = run(&[&args[..], &probes[..]].concat());
        if promised().contains(&AttachMode::Link) {
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let pins: Vec<_> = json(&output.stdout)
                .iter()
                .map(|line| line["pinned"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(
                pins,
                [
                    "/sys/fs/bpf/pins/kprobe_vfs_unlink",
                    "/sys/fs/bpf/pins/kretprobe_vfs_unlink"
                ]
            );
            unlink(1);
            assert_eq!(counter.hits(), 4);
            // The second pin is taken: the first of a new pair goes again.
            std::fs::remove_file(&pins[0]).unwrap();
            let output = run(&[&args[..], &probes[..]].concat());
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(json(&output.stdout)[0]["error"]["step"], "pin");
            assert!(!std::fs::exists(&pins[0]).unwrap());
            std::fs::remove_file(&pins[1]).unwrap();
            std::fs::remove_dir("/sys/fs/bpf/pins").unwrap();
        } else {
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(json(&output.stdout)[0]["error"]["cause"], "no-perf-link");
            assert!(!std::fs::exists("/sys/fs/bpf/pins").unwrap());
        }
        let gone = run(&["attach", "--program", "/sys/fs/bpf/none", FUNCTION]);
        assert_eq!(gone.status.code(), Some(1));
        assert!(text(&gone.stderr).contains("open-program: ENOENT: there is no such pin"));
        std::fs::remove_file(PIN).unwrap();
    });
}

#[test]
fn features_tells_how_each_thing_was_found() {
    let features = || json(&run(&["features", "--json"]).stdout).remove(0);
    let mounted = features();
    let pmu = &mounted["kprobe_pmu"];
    assert_eq!(pmu["found"], "type");
    assert_eq!(pmu["sysfs_type"], pmu["type"]);
    assert_eq!(mounted["sysfs"]["path"], "/sys");
    assert_eq!(mounted["bpffs"]["path"], "/sys/fs/bpf");
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        unmount("/sys/fs/bpf");
        unmount("/sys");
        let detached = features();
        for file_system in ["tracefs", "sysfs", "bpffs"] {
            let found = &detached[file_system];
            assert_eq!(found["support"], "yes", "{file_system}");
            assert!(
                found["path"].is_null() && found["detached"] == true,
                "{found}"
            );
        }
        assert_eq!(detached["kprobe_pmu"], mounted["kprobe_pmu"]);
        let shown = run(&["features"]);
        let shown = text(&shown.stdout);
        assert!(
            shown.contains("verified by its refusals and in sysfs"),
            "{shown}"
        );
        assert!(
            shown.contains("tracefs          yes      not mounted"),
            "{shown}"
        );
        // In a user namespace none of them is to be had, and it says why.
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "-r"]).arg(program().get_program());
        let output = unshare.args(["features", "--json"]).output().unwrap();
        let denied = json(&output.stdout).remove(0);
        for file_system in ["tracefs", "sysfs", "bpffs"] {
            let denied = &denied[file_system];
            assert_eq!(denied["support"], "no", "{file_system}");
            assert_eq!(denied["errno"], "EPERM", "{file_system}");
            assert!(denied["why"].as_str().unwrap().contains("CAP_SYS_ADMIN"));
        }
    });
}

#[test]
fn a_plan_is_what_strace_sees() {
    for mode in promised() {
        let cookie = if mode.uses_link() { ",cookie=7" } else { "" };
        let maxactive = if mode.uses_tracefs() {
            ",maxactive=9"
        } else {
            ""
        };
        let probe = format!("kretprobe/{FUNCTION}{cookie}{maxactive},mode={mode}");
        let plan = run(&["plan", "--json", &probe]);
        let plan = &json(&plan.stdout)[0];
        let planned = |key: &str| -> Vec<String> {
            let steps = plan[key].as_array().unwrap();
            steps
                .iter()
                .map(|step| normal(step.as_str().unwrap()))
                .collect()
        };

        let args = ["-v", "-s", "1000", "-o", "/tmp/strace"];
        let filter = [
            "-e",
            "trace=bpf,close,?fcntl,?fcntl64,ioctl,?newfstatat,?statx,openat,perf_event_open,\
             read,write",
        ];
        let status = Command::new("/bin/strace")
            .args(args)
            .args(filter)
            .arg(program().get_program())
            .args(["count", "--quiet", "--json", "--for", "0.1", &probe])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let trace = std::fs::read_to_string("/tmp/strace").unwrap();
        // By such a call rustix sees, once, whether a statx(2) has failed because there is none.
        let calls = trace
            .lines()
            .filter(|call| !call.contains(", NULL, AT_STATX"));
        let traced: Vec<_> = calls.map(normal).collect();
        for steps in [planned("steps"), planned("detach")] {
            let found = traced.windows(steps.len()).any(|window| window == steps);
            assert!(found, "{mode}: {steps:#?}\nnot in {traced:#?}");
        }
        let limit = if mode.uses_tracefs() { 9 } else { 2 };
        // What keeps one file descriptor a link instead of two.
        let close = usize::from(mode.uses_link());
        assert_eq!(planned("steps").len(), limit + close, "{mode}");
        assert_eq!(
            planned("detach").len(),
            if mode.uses_tracefs() { 3 } else { 1 },
            "{mode}"
        );
    }
}

#[test]
fn a_text_of_a_probe_may_be_long() {
    let padded = format!("{FUNCTION},cookie={}", "0".repeat(70_000));
    let output = run(&["count", "--quiet", "--for", "0", &padded]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_hostile_name_reaches_no_system_call_in_any_mode() {
    // Every address may be the kernel's on s390x.
    let no_address = if cfg!(target_arch = "s390x") {
        "0x"
    } else {
        "0xffff"
    };
    for name in [
        "vfs_read\n-:kprobes/victim",
        "vfs_read @0xffffffff81000000",
        "vfs_read\t%di",
        "vfs_read\u{b}x",
        "vfs_read\u{c}x",
        "vfs_read\r",
        "vfs_read\u{a0}x",
        "vfs_read#",
        "vfs_read-5",
        "vfs_read%return",
        no_address,
        "123",
        "m:n:vfs_read",
        "/bin/sh:vfs_read",
        "vfs_read$$(x)",
    ] {
        for mode in AttachMode::ALL {
            let output = Command::new("/bin/strace")
                .args([
                    "-o",
                    "/tmp/strace",
                    "-e",
                    "trace=bpf,perf_event_open,?open,openat",
                ])
                .arg(program().get_program())
                .args(["count", "--json", "--mode", mode.name(), name])
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{name:?}");
            let line = &json(&output.stdout)[0];
            assert_eq!(line["probe"], name);
            assert_eq!(line["error"]["step"], "request");
            let trace = std::fs::read_to_string("/tmp/strace").unwrap();
            // By its auxiliary vector rustix finds how system calls are made on 32-bit x86.
            let mut calls = trace
                .lines()
                .filter(|call| cfg!(not(target_arch = "x86")) || !call.contains("/proc/self/auxv"));
            assert_eq!(calls.next(), Some("+++ exited with 2 +++"), "{name:?}");
        }
    }
}
