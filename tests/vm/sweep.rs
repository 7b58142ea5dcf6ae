//! What killed processes left is swept, and nothing else.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::tracefs::{Swept, sweep, sweep_dry_run};
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeOpts};
use rustix::process::{Pid, Signal};
use rustix::thread::CapabilitySet;

use crate::machine::process::{Child, shared};
use crate::machine::{
    Counter, FUNCTION, beside_others, clean, define, drop_capabilities, function, json,
    kernel_name, ours, program, promised, report, run, unlink_own, unmount, wait_until,
    wait_until_attached, with_own_mounts,
};

fn tracefs_modes() -> Vec<AttachMode> {
    let mut modes = promised();
    modes.retain(|mode| mode.uses_tracefs());
    modes
}

/// A program that has attached one probe, and is killed when it is dropped, with the one that
/// started it.
struct Holding(std::process::Child);

impl Holding {
    fn start(mut command: Command, mode: AttachMode) -> Self {
        let child = command
            .args(["count", "--mode", mode.name(), FUNCTION])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        wait_until_attached(&mut child);
        Self(child)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process_group(group, Signal::KILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_a_killed_program_left_is_swept_and_nothing_of_a_live_one_or_of_others() {
    beside_others(|| {
        for mode in tracefs_modes() {
            let alive = Holding::start(program(), mode);
            let of_alive = ours();
            drop(Holding::start(program(), mode));
            let left = ours();
            assert_eq!(left.len(), 2, "{left:?}");

            let output = run(&["sweep", "--dry-run", "--json"]);
            assert_eq!(output.status.code(), Some(0));
            let [in_use, line] = &json(&output.stdout)[..] else {
                panic!("two events");
            };
            assert_eq!(in_use["in_use"], true);
            assert_eq!(line["probe"], format!("kprobe/{FUNCTION}"));
            assert_eq!(
                (&line["removed"], &line["in_use"]),
                (&false.into(), &false.into())
            );
            assert_eq!(ours(), left);

            let output = run(&["sweep", "--json"]);
            assert_eq!(output.status.code(), Some(0));
            let [swept, alive_still] = &json(&output.stdout)[..] else {
                panic!("two events");
            };
            assert_eq!(alive_still, in_use);
            assert_eq!(swept["event"], line["event"]);
            assert_eq!(swept["removed"], true);
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(message, "kprobe-attach: 1 removed, 1 in use\n");
            assert_eq!(ours(), of_alive);

            // The same options again meet nothing of what was there.
            let args = [
                "count",
                "--json",
                "--for",
                "0",
                "--mode",
                mode.name(),
                FUNCTION,
            ];
            let output = run(&args);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            drop(alive);
            let output = run(&["sweep", "--quiet"]);
            assert_eq!(output.status.code(), Some(0));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.starts_with("removed kprobe_attach_"), "{text}");
            assert!(text.ends_with(&format!(" (kprobe/{FUNCTION})\n")), "{text}");
            assert!(output.stderr.is_empty());
        }
    });
}

#[test]
fn an_owner_is_seen_across_pid_namespaces_and_mount_namespaces() {
    let elsewhere = || {
        let mut command = Command::new("/bin/busybox");
        command.args(["unshare", "--pid", "--fork", "--mount", "--"]);
        command.arg(program().get_program());
        command
    };
    let removed = |mut command: Command| {
        let output = command.args(["sweep", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines = json(&output.stdout);
        lines.iter().filter(|line| line["removed"] == true).count()
    };
    clean(|| {
        for mode in tracefs_modes() {
            // Both are process 1 or 2 of their own namespace.
            let here = Holding::start(program(), mode);
            let there = Holding::start(elsewhere(), mode);
            assert_eq!(ours().len(), 2);
            assert_eq!((removed(program()), removed(elsewhere())), (0, 0));
            drop(here);
            assert_eq!(removed(elsewhere()), 1);
            drop(there);
            // Its first process has been waited for, and the second ends in a moment.
            wait_until(|| removed(program()) == 1);
        }
    });
}

#[test]
fn an_event_that_something_uses_is_not_swept() {
    let name = "kprobe_attach_0123456789abcdef/probe_01234567_0";
    let enable = format!("/sys/kernel/tracing/events/{name}/enable");
    clean(|| {
        define(&format!("p:{name} vfs_read"));
        fs::write(&enable, "1").unwrap();
        let counts = |swept: Swept| (swept.removed, swept.in_use);
        let kernel = Kernel::new();
        assert_eq!(sweep(|_| ()).map(counts), Ok((0, 1)));
        assert_eq!(kernel.sweep(|_| ()).map(counts), Ok((0, 1)));
        fs::write(&enable, "0").unwrap();
        assert_eq!(sweep_dry_run(|_| ()).map(counts), Ok((1, 0)));
        assert_eq!(kernel.sweep_dry_run(|_| ()).map(counts), Ok((1, 0)));
        let swept = sweep(|event| assert_eq!(event.place, "vfs_read"));
        assert_eq!(swept.map(counts), Ok((1, 0)));
        assert_eq!(sweep(|_| ()), Ok(Swept::default()));
        define(&format!("p:{name} vfs_read"));
        let swept = kernel.sweep(|event| assert_eq!(event.place, "vfs_read"));
        assert_eq!(swept.map(counts), Ok((1, 0)));
    });
}

#[test]
fn more_events_than_a_read_returns_are_swept_each_once() {
    beside_others(|| {
        // Names that this crate gives, one that it gave before, and one that it does not.
        for number in 0..198 {
            define(&format!(
                "p:kprobe_attach_0123456789abcdef/probe_01234567_{number} vfs_read"
            ));
        }
        define("p:kprobe_attach_0123456789abcdef/vfs_read_01234567_198 vfs_read");
        define("r:kprobe_attach_0123456789abcdef/by_hand vfs_read");
        let mut names = Vec::new();
        let swept = sweep(|event| names.push(event.event.to_owned())).unwrap();
        let removed = (swept.removed, swept.in_use, names.len());
        assert_eq!(removed, (200, 0, 200));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 200);
    });
}

#[test]
fn sweeping_beside_eight_attaching_processes_removes_no_live_event() {
    const PROCESSES: usize = 8;
    const CYCLES: usize = 10;
    let modes = tracefs_modes();
    let attached = &shared::<1>()[0];
    beside_others(|| {
        let attach = || {
            let kernel = Kernel::new();
            let counter = Counter::new();
            for cycle in 0..CYCLES {
                let opts = KprobeOpts::new().attach_mode(modes[cycle % modes.len()]);
                let link = counter.attach(&kernel, function(), &opts);
                let hits = counter.hits_or_misses();
                unlink_own(1);
                assert!(counter.hits_or_misses() > hits);
                link.detach().unwrap();
                attached.fetch_add(1, Ordering::Relaxed);
            }
        };
        let children: Vec<_> = (0..PROCESSES).map(|_| Child::fork(attach)).collect();
        let total = u64::try_from(PROCESSES * CYCLES).unwrap();
        let (mut sweeps, mut seen_alive) = (0, 0);
        while children.iter().any(Child::is_running) {
            let swept = sweep(|event| panic!("{event} was alive")).unwrap();
            sweeps += 1;
            seen_alive += swept.in_use;
        }
        for child in children {
            assert_eq!(child.wait().exit_status(), Some(0));
        }
        assert_eq!(attached.load(Ordering::Relaxed), total);
        assert!(seen_alive > 0);
        report(format_args!(
            "{}: {sweeps} sweeps beside {total} attaches of {PROCESSES} processes met \
             {seen_alive} live events, none removed",
            kernel_name()
        ));
    });
}

#[test]
fn without_tracefs_a_sweep_says_so() {
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        let refused = |swept: Result<Swept, Error>, errno| {
            let error = swept.unwrap_err();
            assert_eq!(
                (error.step(), error.errno(), error.cause()),
                (Step::RemoveEvent, errno, Cause::NoTracefs)
            );
        };
        refused(sweep(|_| ()), Errno::NOENT);
        refused(sweep_dry_run(|_| ()), Errno::NOENT);
        refused(Kernel::new().sweep(|_| ()), Errno::NOENT);
        refused(Kernel::new().sweep_dry_run(|_| ()), Errno::NOENT);
        // Where that is allowed and permitted, a detached one is made.
        let kernel = Kernel::with_detached_mounts();
        assert_eq!(kernel.sweep(|_| ()), Ok(Swept::default()));
        assert_eq!(kernel.sweep_dry_run(|_| ()), Ok(Swept::default()));
        drop_capabilities(CapabilitySet::SYS_ADMIN);
        let kernel = Kernel::with_detached_mounts();
        refused(kernel.sweep(|_| ()), Errno::PERM);
        refused(kernel.sweep_dry_run(|_| ()), Errno::PERM);
    });
}
