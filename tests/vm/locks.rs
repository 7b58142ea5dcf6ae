//! Who owns an event, whoever else locks `kprobe_events` or defines events.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use kprobe_attach::tracefs::{sweep, sweep_dry_run};
use kprobe_attach::{Kernel, KprobeOpts};

use crate::machine::process::{Child, shared};
use crate::machine::{
    Counter, FUNCTION, KPROBE_EVENTS, asked, clean, define, function, json, ours, program,
    promised, report, unlink, wait_until,
};

/// Holds a lock on the whole of `kprobe_events`, as a process that may only read it can.
struct SharedLock {
    _file: fs::File,
}

impl SharedLock {
    fn hold() -> Self {
        let file = fs::File::open(KPROBE_EVENTS).unwrap();
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        #[allow(unsafe_code, reason = "no library locks a part of a file")]
        // SAFETY: the lock is read; the file is open.
        let answer = unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        Self { _file: file }
    }
}

#[test]
fn a_readers_lock_denies_no_mode_and_owns_no_event() {
    clean(|| {
        let lock = SharedLock::hold();
        let kernel = Kernel::new();
        assert!(kernel.features().kprobe_events.is_yes());
        for mode in promised() {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let link = counter.attach(&kernel, function(), &opts);
            // The event is in use, although nobody could lock it.
            let swept = sweep(|event| panic!("{event} was alive")).unwrap();
            assert_eq!(swept.in_use, usize::from(mode.uses_tracefs()), "{mode}");
            unlink(2);
            assert_eq!(counter.hits(), 2, "{mode}");
            link.detach().unwrap();
        }
        define("p:kprobe_attach_0123456789abcdef/probe_01234567_0 vfs_read");
        let swept = sweep_dry_run(|_| ()).unwrap();
        assert_eq!((swept.removed, swept.in_use), (1, 0));
        let swept = sweep(|_| ()).unwrap();
        assert_eq!((swept.removed, swept.in_use), (1, 0));
        drop(lock);
    });
}

#[test]
fn a_sweep_ends_beside_others_who_never_stop_defining() {
    static STOP: AtomicBool = AtomicBool::new(false);
    clean(|| {
        for number in 0..20 {
            define(&format!(
                "p:kprobe_attach_0123456789abcdef/probe_01234567_{number} vfs_read"
            ));
        }
        let stop = &shared::<1>()[0];
        let others: Vec<_> = (0..2)
            .map(|process| {
                Child::fork(move || {
                    let mut number = 0;
                    while stop.load(Ordering::Relaxed) == 0 {
                        let event = format!("probe_0000000{process}_{number}");
                        define(&format!(
                            "p:kprobe_attach_fedcba9876543210/{event} vfs_read"
                        ));
                        number += 1;
                    }
                })
            })
            .collect();
        wait_until(|| ours().len() > 40);
        let start = std::time::Instant::now();
        let swept = sweep(|_| ()).unwrap();
        let took = start.elapsed();
        assert!(swept.removed >= 20, "{swept:?}");
        assert!(others.iter().all(Child::is_running));
        stop.store(1, Ordering::Relaxed);
        for other in others {
            assert_eq!(other.wait().exit_status(), Some(0));
        }
        report(format_args!(
            "a sweep beside others removed {} events in {took:?}",
            swept.removed
        ));
        // Now nobody defines any more.
        let left = ours().len();
        assert_eq!(sweep(|_| ()).unwrap().removed, left);
        assert_eq!(ours(), Vec::<String>::new());
    });
    let _ = STOP.load(Ordering::Relaxed);
}

#[test]
fn what_is_in_use_is_listed() {
    let kernel = asked();
    let name = "kprobe_attach_0123456789abcdef/probe_01234567_0";
    let left = "kprobe_attach_0123456789abcdef/probe_01234567_1";
    let enable = format!("/sys/kernel/tracing/events/{name}/enable");
    for dry_run in [true, false] {
        clean(|| {
            define(&format!("p:{name} vfs_read"));
            define(&format!("p:{left} vfs_read"));
            let mode = *promised().iter().find(|mode| mode.uses_tracefs()).unwrap();
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode).retprobe(true);
            let link = counter.attach(&kernel, function(), &opts);
            fs::write(&enable, "1").unwrap();
            let mut command: Command = program();
            command.args(["sweep", "--json"]);
            if dry_run {
                command.arg("--dry-run");
            }
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(0));
            let lines = json(&output.stdout);
            let of = |probe: &str, in_use: bool| {
                let same = lines
                    .iter()
                    .filter(|line| line["probe"] == probe && line["in_use"] == in_use);
                same.map(|line| line["removed"].as_bool().unwrap())
                    .collect::<Vec<_>>()
            };
            assert_eq!(lines.len(), 3, "{lines:?}");
            assert_eq!(of(&format!("kretprobe/{FUNCTION}"), true), [false]);
            if dry_run {
                // Only a removal shows what something other than an owner uses.
                assert_eq!(of("kprobe/vfs_read", false), [false, false]);
            } else {
                assert_eq!(of("kprobe/vfs_read", true), [false]);
                assert_eq!(of("kprobe/vfs_read", false), [true]);
            }
            let output = program().arg("sweep").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                text.contains(&format!("in use {name} (kprobe/vfs_read)\n")),
                "{text}"
            );
            assert!(
                text.contains(&format!("(kretprobe/{FUNCTION})\n")),
                "{text}"
            );
            fs::write(&enable, "0").unwrap();
            link.detach().unwrap();
            sweep(|_| ()).unwrap();
        });
    }
}
