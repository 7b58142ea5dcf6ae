//! Causes that lie with the kernel, its file systems, and the program to attach.

use std::fs;
use std::sync::mpsc;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::explain::Evidence;
use kprobe_attach::fd::OwnedFd;
use kprobe_attach::{AttachMode, Errno, Error, Kernel};
use rustix::thread::CapabilitySet;

use super::{ENTRY, PROBES_BY_FTRACE, has, in_modes, suggestions, symbol};
use crate::machine::supervise::{Verdict, listen, supervise};
use crate::machine::{
    Counter, FUNCTION, KPROBE_EVENTS, Switch, asked, clean, drop_capabilities, function, json,
    load_as, promised, run, unlink, unmount, version, with_filter, with_own_mounts,
};

/// Explains in every mode, where somebody denies, and checks the cause.
fn denied(kernel: &Kernel, cause: Cause, proof: &[Evidence<'_>]) {
    for (mode, explanation) in in_modes(kernel, function(), ENTRY) {
        let error = explanation.refusal().unwrap();
        assert_eq!(
            (error.step(), error.cause()),
            (Step::ProbeKernel, cause),
            "{mode}: {error}"
        );
        for evidence in proof {
            assert!(
                has(&explanation, |found| found == evidence),
                "{evidence:?} {explanation:?}"
            );
        }
    }
}

#[test]
fn who_denies_is_named_and_proved() {
    let counter = Counter::new();
    let none = CapabilitySet::SYS_ADMIN | CapabilitySet::PERFMON | CapabilitySet::BPF;
    for (level, dropped, cause) in [
        ("2", none, Cause::NoPermission),
        ("3", CapabilitySet::SYS_ADMIN, Cause::PerfEventParanoid),
    ] {
        let _level = Switch::paranoid(level);
        with_own_mounts(|| {
            drop_capabilities(dropped);
            let kernel = Kernel::with_program(&counter.program);
            let has = !dropped.contains(CapabilitySet::PERFMON);
            let capabilities = Evidence::Capabilities {
                bpf: has,
                perfmon: has,
                sys_admin: false,
            };
            let level = Evidence::Paranoid(level.parse().unwrap());
            denied(
                &kernel,
                cause,
                &[capabilities, level, Evidence::Seccomp { filter: false }],
            );
        });
    }
    with_filter(libc::SYS_perf_event_open, None, Errno::PERM, || {
        let kernel = Kernel::with_program(&counter.program);
        denied(
            &kernel,
            Cause::Seccomp,
            &[Evidence::Seccomp { filter: true }],
        );
    });
}

#[test]
fn without_a_kprobe_pmu_the_tracefs_modes_are_left() {
    // As a kernel before 4.17 answers: there is no PMU of that type.
    let pmu = Kernel::new().features().pmu_type;
    let (send, receive) = mpsc::channel();
    let test = move || {
        send.send(listen()).unwrap();
        let kernel = Kernel::new();
        let counter = Counter::new();
        for mode in promised() {
            let opts = ENTRY.attach_mode(mode);
            let attached = kernel.attach_kprobe(&counter.program, function(), &opts);
            let explanation = kernel.explain(function(), &opts);
            if mode.uses_tracefs() {
                unlink(1);
                assert!(attached.is_ok() && explanation.refusal().is_none());
            } else {
                let error = attached.unwrap_err();
                assert_eq!(
                    (error.step(), error.errno(), error.cause()),
                    (Step::ProbeKernel, Errno::OPNOTSUPP, Cause::NoKprobePmu)
                );
                assert_eq!(explanation.refusal().unwrap().cause(), Cause::NoKprobePmu);
            }
        }
        let link = counter.attach(&kernel, function(), &ENTRY);
        (link.mode(), counter.hits())
    };
    let (mode, hits) = std::thread::scope(|scope| {
        let worker = scope.spawn(test);
        let listener = receive.recv().unwrap();
        supervise(&listener, None, |call| {
            #[allow(unsafe_code, reason = "an independent witness of perf_event_open(2)")]
            // SAFETY: the address of an attribute, of a thread of this process that waits; or 0,
            // which is not read.
            let is_kprobe = call.number == libc::SYS_perf_event_open
                && call.first_argument != 0
                && unsafe {
                    *std::ptr::with_exposed_provenance::<u32>(call.first_argument as usize)
                } == pmu;
            if is_kprobe {
                Verdict::Fail(Errno::NOENT)
            } else {
                Verdict::Continue
            }
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let left: Vec<_> = promised()
        .into_iter()
        .filter(|mode| mode.uses_tracefs())
        .collect();
    assert_eq!((mode, hits), (left[0], left.len() as u64));
}

#[test]
fn without_tracefs_its_modes_say_so() {
    let _level = Switch::paranoid("2");
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        drop_capabilities(CapabilitySet::SYS_ADMIN);
        let kernel = Kernel::new();
        for mode in promised() {
            let explanation = kernel.explain(function(), &ENTRY.attach_mode(mode));
            let cause = explanation.refusal().map(Error::cause);
            assert_eq!(
                cause,
                mode.uses_tracefs().then_some(Cause::NoTracefs),
                "{mode}"
            );
        }
    });
}

/// Attaches a program in every mode, each of which refuses it as a program or takes it.
fn programs(program: &OwnedFd, is_taken: impl Fn(AttachMode) -> bool) {
    let kernel = asked();
    for mode in promised() {
        let opts = ENTRY.attach_mode(mode);
        let attached = clean(|| kernel.attach_kprobe(program, function(), &opts).map(drop));
        let step = if mode.uses_link() {
            Step::LinkCreate
        } else {
            Step::SetBpf
        };
        match attached {
            Ok(()) => assert!(is_taken(mode), "{mode}"),
            Err(error) => {
                assert!(!is_taken(mode), "{mode}: {error}");
                assert_eq!(
                    (error.step(), error.cause()),
                    (step, Cause::WrongProgram),
                    "{mode}"
                );
            }
        }
    }
}

#[test]
fn a_program_that_does_not_fit_is_the_wrong_program() {
    const KPROBE: u32 = 2;
    const SOCKET_FILTER: u32 = 1;
    const SLEEPABLE: u32 = 1 << 4;
    const MULTI: u32 = 42;
    programs(&load_as(SOCKET_FILTER, 0, 0).unwrap(), |_| false);
    // The ioctl does not look at what a program was loaded for.
    programs(&load_as(KPROBE, 0, MULTI).unwrap(), |mode| {
        !mode.uses_link()
    });
    match load_as(KPROBE, SLEEPABLE, 0) {
        Ok(program) => programs(&program, |_| false),
        // Linux 6.0 is the first to load one.
        Err(error) => assert_eq!(
            (version(), error.raw_os_error()),
            ((5, 10), Some(libc::EINVAL))
        ),
    }
}

#[test]
fn the_program_explains_in_words_and_in_json() {
    clean(|| {
        let output = run(&["explain", "--json", FUNCTION, "vfs_unlnik"]);
        assert_eq!(output.status.code(), Some(1));
        let lines = json(&output.stdout);
        assert_eq!(lines[0]["would_attach"], true);
        assert_eq!(lines[0]["mode"], promised()[0].name());
        assert!(lines[0]["cause"].is_null());
        assert_eq!(lines[1]["would_attach"], false);
        assert_eq!(lines[1]["cause"], "no-such-function");
        assert_eq!(lines[1]["suggestions"][0], FUNCTION);
        assert!(lines[1]["evidence"].as_array().unwrap().len() >= 2);
        let output = run(&["explain", "--json", FUNCTION, "kretprobe/vfs_read+4"]);
        assert_eq!(output.status.code(), Some(2));
        let [line] = &json(&output.stdout)[..] else {
            panic!("one line");
        };
        assert_eq!(line["error"]["cause"], "invalid-request");
        let output = run(&["explain", "--mode", "legacy", FUNCTION]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.starts_with("vfs_unlink: would attach, mode legacy\n"),
            "{text}"
        );
        // A command that fails says where there is more.
        let output = run(&["count", "--mode", "legacy", "vfs_unlnik"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.ends_with("try: kprobe-attach explain --mode legacy vfs_unlnik\n"),
            "{text}"
        );
    });
}

#[test]
fn what_cannot_be_read_stays_open() {
    with_own_mounts(|| {
        for path in ["/sys/kernel/debug", "/proc"] {
            unmount(path);
        }
        let kernel = Kernel::new();
        let explanation = kernel.explain(symbol("vfs_unlnik"), &ENTRY);
        assert_eq!(
            explanation.refusal().unwrap().cause(),
            Cause::NoSuchFunction
        );
        let open = |evidence: &Evidence<'_>| matches!(evidence, Evidence::Open(_, Errno::NOENT));
        assert!(explanation.evidence().all(|evidence| open(&evidence)) && has(&explanation, open));
        assert_eq!(suggestions(&explanation).len(), 0);
        let explanation = kernel.explain(function(), &ENTRY);
        assert!(explanation.refusal().is_none());
        // Where probes are not by ftrace, its switch is not asked for.
        let expected = if PROBES_BY_FTRACE { 3 } else { 2 };
        assert_eq!(explanation.evidence().filter(open).count(), expected);
    });
}

#[test]
fn a_refused_event_is_logged_under_our_name_alone() {
    let log = "/sys/kernel/tracing/error_log";
    fs::write(log, "").unwrap();
    in_modes(&Kernel::new(), symbol("vfs_unlnik"), ENTRY);
    let entries = fs::read_to_string(log).unwrap();
    let commands: Vec<_> = entries
        .lines()
        .filter(|line| line.contains("Command: "))
        .collect();
    let ours = |line: &&str| line.contains("p:kprobe_attach_");
    assert!(
        !commands.is_empty() && commands.iter().all(ours),
        "{entries}"
    );
    assert_eq!(fs::read_to_string(KPROBE_EVENTS).unwrap(), "");
}
