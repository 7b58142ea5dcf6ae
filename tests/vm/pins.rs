//! A directory of pins that is not safe is refused, and no pin of somebody else is unlinked.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Output, Stdio};

use kprobe_attach::{Kernel, KprobeOpts};
use rustix::process::{Pid, Signal};

use crate::machine::{
    Counter, FUNCTION, KPROBES, OTHER_FUNCTION, clean, function, json, link_modes, names_in,
    program, run, shell, text, unlink, unmount, wait_until, with_own_mounts,
};

const BPFFS: &str = "/tmp/bpf";
const DIR: &str = "/tmp/bpf/dir";
const NOBODY: u32 = 65534;

/// Runs a test with a bpf file system in which everybody may make files.
fn with_bpffs(test: impl FnOnce() + Send) {
    if link_modes().is_empty() {
        // Nothing can be pinned.
        return;
    }
    clean(|| {
        with_own_mounts(|| {
            fs::create_dir_all(BPFFS).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            let options: &CStr = c"mode=1777";
            rustix::mount::mount("none", BPFFS, "bpf", flags, options).unwrap();
            test();
            unmount(BPFFS);
        });
        wait_until(|| !fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
    });
}

fn make(mode: u32) {
    fs::create_dir(DIR).unwrap();
    fs::set_permissions(DIR, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn refused(output: &Output, errno: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = &json(&output.stdout)[0];
    assert_eq!(line["probe"], FUNCTION);
    assert_eq!(
        (&line["error"]["step"], &line["error"]["errno"]),
        (&"pin".into(), &errno.into()),
        "{line}"
    );
}

#[test]
fn a_directory_that_others_own_or_may_change_is_refused() {
    with_bpffs(|| {
        let count = || run(&["count", "--json", "--pin", DIR, FUNCTION]);
        for (mode, owner) in [(0o700, NOBODY), (0o1777, NOBODY), (0o777, 0), (0o757, 0)] {
            make(mode);
            chown(DIR, Some(owner), Some(owner)).unwrap();
            refused(&count(), "EPERM");
            assert_eq!(names_in(DIR), [""; 0], "{mode:o} {owner}");
            let text = run(&["count", "--pin", DIR, FUNCTION]).stderr;
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(
                text.contains("/tmp/bpf/dir: EPERM: others own this directory, or may change it"),
                "{text}"
            );
            fs::remove_dir(DIR).unwrap();
        }
        for mode in [0o700, 0o755, 0o770, 0o1777] {
            make(mode);
            let output = count();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert_eq!(
                names_in(DIR),
                ["hits_kprobe_vfs_unlink", "kprobe_vfs_unlink"]
            );
            fs::remove_dir_all(DIR).unwrap();
        }
        // Everybody may make a name there, and nobody may change that of another.
        let output = run(&["count", "--json", "--pin", BPFFS, FUNCTION]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    });
}

#[test]
fn a_symbolic_link_is_no_directory_of_pins() {
    with_bpffs(|| {
        let other = "/tmp/bpf/other";
        fs::create_dir(other).unwrap();
        symlink(other, DIR).unwrap();
        refused(
            &run(&["count", "--json", "--pin", DIR, FUNCTION]),
            "ENOTDIR",
        );
        assert_eq!(names_in(other), [""; 0]);
    });
}

#[test]
fn a_directory_that_was_made_goes_again_and_none_is_made_elsewhere() {
    with_bpffs(|| {
        let count = |dir: &str| run(&["count", "--json", "--pin", dir, FUNCTION, FUNCTION]);
        let output = count(DIR);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(json(&output.stdout)[0]["error"]["cause"], "name-taken");
        assert_eq!(names_in(BPFFS), [""; 0]);
        let relative = ["count", "--pin", "dir", FUNCTION, FUNCTION];
        let output = program()
            .current_dir(BPFFS)
            .args(relative)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(names_in(BPFFS), [""; 0]);
        for (dir, errno) in [
            ("/tmp/pins", "EINVAL"),
            ("/tmp/bpf/none/dir", "ENOENT"),
            ("/sys/pins", "ENOENT"),
        ] {
            refused(&count(dir), errno);
            assert!(!fs::exists(dir).unwrap(), "{dir}");
        }
    });
}

/// An init may have no console.
#[test]
fn pins_stay_where_the_output_is_lost() {
    let counter = Counter::new();
    let id = format!("id:{}", counter.program.id().unwrap());
    with_bpffs(|| {
        for (redirection, errno) in [(">/dev/full", "ENOSPC"), (">&-", "EBADF")] {
            for (args, pins) in [
                ("count".to_owned(), 2),
                ("count --json".to_owned(), 2),
                (format!("attach --program {id}"), 1),
                (format!("attach --json --program {id}"), 1),
            ] {
                let script = format!("exec \"$0\" {args} --pin {DIR} {FUNCTION} {redirection}");
                let output = shell(&script).output().unwrap();
                let messages = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{script}: {messages}");
                let word = format!("kprobe-attach: standard output: {errno}: output is lost\n");
                assert_eq!(messages, word, "{script}");
                assert_eq!(names_in(DIR).len(), pins, "{script}");
                if pins == 2 {
                    unlink(3);
                    let output = run(&["count", "--json", "--pin", DIR]);
                    assert_eq!(json(&output.stdout)[0]["hits"], 3, "{script}");
                }
                fs::remove_dir_all(DIR).unwrap();
            }
        }
    });
}

/// While the program is between opening the directory and pinning, somebody puts another one in its
/// place, with a pin of the same name.
#[test]
fn a_directory_that_is_replaced_meanwhile_loses_no_pin() {
    const TRACE: &str = "/tmp/strace";
    with_bpffs(|| {
        let opts = KprobeOpts::new();
        let (first, second) = (Counter::new(), Counter::new());
        let kernel = Kernel::new();
        make(0o700);
        // The second pin is taken, so that the first goes again.
        let taken = first.attach(&kernel, function(), &opts);
        taken
            .pin(&*format!("{DIR}/kprobe_{OTHER_FUNCTION}"))
            .unwrap();
        // When it has entered the directory, it stops until it is let go on.
        let child = Command::new("/bin/strace")
            .args(["-f", "-o", TRACE, "-e", "trace=fchdir"])
            .args(["-e", "inject=fchdir:signal=STOP"])
            .arg(program().get_program())
            .args(["count", "--json", "--pin", DIR, FUNCTION, OTHER_FUNCTION])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stopped = None;
        wait_until(|| {
            let trace = fs::read_to_string(TRACE).unwrap_or_default();
            let line = trace
                .lines()
                .find(|line| line.contains("stopped by SIGSTOP"));
            stopped = line.map(|line| line.split(' ').next().unwrap().parse().unwrap());
            stopped.is_some()
        });
        let moved = "/tmp/bpf/moved";
        fs::rename(DIR, moved).unwrap();
        make(0o700);
        let victim = second.attach(&kernel, function(), &opts);
        victim.pin(&*format!("{DIR}/kprobe_{FUNCTION}")).unwrap();
        let stopped = Pid::from_raw(stopped.unwrap()).unwrap();
        rustix::process::kill_process(stopped, Signal::CONT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(json(&output.stdout)[0]["error"]["cause"], "name-taken");
        assert_eq!(names_in(DIR), [format!("kprobe_{FUNCTION}")]);
        assert_eq!(names_in(moved), [format!("kprobe_{OTHER_FUNCTION}")]);
        fs::remove_file(TRACE).unwrap();
    });
}
