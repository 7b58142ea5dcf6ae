//! A process is killed before and during every system call of an attach and a detach, and after the
//! last: what it leaves can be swept, and in the modes of the PMU there is nothing to sweep.

use std::fs;
use std::sync::atomic::Ordering;

use kprobe_attach::fd::AsRawFd;
use kprobe_attach::tracefs::{EventLine, sweep};
use kprobe_attach::{AttachMode, Kernel, KprobeOpts};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

use crate::machine::process::{Child, shared};
use crate::machine::supervise::{Verdict, When, listen, supervise};
use crate::machine::{
    Counter, KPROBE_EVENTS, KPROBES, asked, clean, function, kernel_name, promised, report, unlink,
};

/// Asks the kernel, attaches and detaches in a child, whose system calls of its own are decided one
/// by one, and which is killed at the end if not before. Answers how many there were.
fn supervised(mode: AttachMode, mut decide: impl FnMut(Pid, usize) -> Verdict) -> usize {
    let listener_of_child = &shared::<1>()[0];
    let child = Child::fork(|| {
        let kernel = Kernel::new();
        let counter = Counter::new();
        let listener = listen();
        let number = u64::from(listener.as_raw_fd().unsigned_abs());
        listener_of_child.store(number, Ordering::Release);
        let opts = KprobeOpts::new().attach_mode(mode);
        let link = kernel.attach_kprobe(&counter.program, function(), &opts);
        link.unwrap().detach().unwrap();
        // Nobody else asks for it: this marks the end.
        let parent = rustix::process::getppid();
        unreachable!("a dead child of {parent:?}");
    });
    let number = loop {
        match listener_of_child.load(Ordering::Acquire) {
            0 => assert!(child.is_running(), "the child has failed"),
            number => break i32::try_from(number).unwrap(),
        }
        std::thread::yield_now();
    };
    let pidfd = rustix::process::pidfd_open(child.pid, PidfdFlags::empty()).unwrap();
    let listener = rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap();
    let mut calls = 0;
    supervise(&listener, Some(&pidfd), |call| {
        if call.number == libc::SYS_getppid {
            return Verdict::Kill(child.pid, When::Before);
        }
        calls += 1;
        decide(child.pid, calls - 1)
    });
    let status = child.wait();
    assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
    calls
}

/// The same, killed at one of its system calls.
fn kill_at(mode: AttachMode, at: usize, when: When) {
    supervised(mode, |child, index| {
        if index == at {
            Verdict::Kill(child, when)
        } else {
            Verdict::Continue
        }
    });
}

#[test]
fn a_sweep_before_any_system_call_of_an_attach_removes_nothing() {
    for mode in promised() {
        clean(|| {
            let mut seen = 0;
            supervised(mode, |_, index| {
                let swept = sweep(|_| ()).unwrap();
                assert_eq!(swept.removed, 0, "{mode}: before system call {index}");
                seen += swept.in_use;
                Verdict::Continue
            });
            // From the definition to the removal: at five system calls or more it is there.
            assert!(
                if mode.uses_tracefs() {
                    seen >= 5
                } else {
                    seen == 0
                },
                "{mode}: {seen}"
            );
        });
    }
}

#[test]
fn a_process_killed_at_any_system_call_leaves_nothing_that_cannot_be_swept() {
    let (mut kills, mut left) = (0, 0);
    for mode in promised() {
        let kernel = asked();
        let counter = Counter::new();
        let calls = supervised(mode, |_, _| Verdict::Continue);
        let before_each = (0..=calls).map(|at| (at, When::Before));
        let mut left_by_mode = 0;
        for (at, when) in before_each.chain((0..calls).map(|at| (at, When::During))) {
            let case = format!("{mode}: killed {when:?} system call {at} of {calls}");
            clean(|| {
                kill_at(mode, at, when);
                let events = fs::read_to_string(KPROBE_EVENTS).unwrap();
                for line in events.lines() {
                    assert!(
                        EventLine::parse(line.as_bytes()).unwrap().is_ours(),
                        "{case}"
                    );
                }
                let swept = sweep(|_| ()).unwrap();
                assert_eq!(
                    (swept.removed, swept.in_use),
                    (events.lines().count(), 0),
                    "{case}"
                );
                assert_eq!(fs::read_to_string(KPROBES).unwrap(), "", "{case}");
                if swept.removed > 0 {
                    let opts = KprobeOpts::new().attach_mode(mode);
                    let link = counter.attach(&kernel, function(), &opts);
                    let hits = counter.hits();
                    unlink(1);
                    assert_eq!(counter.hits(), hits + 1, "{case}");
                    link.detach().unwrap();
                }
                kills += 1;
                left_by_mode += swept.removed;
            });
        }
        assert_eq!(left_by_mode > 0, mode.uses_tracefs(), "{mode}");
        left += left_by_mode;
    }
    report(format_args!(
        "{}: {kills} kills at a system call, {left} events left by them and swept, 0 leaks",
        kernel_name()
    ));
}
