//! The cause of a failure is the true one, also where descriptors are short, a filter pretends to
//! be an old kernel, or somebody else removes what was made.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::sync::mpsc;

use kprobe_attach::bpf::{Array, Load, Program, insn};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::Support;
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeLink, KprobeOpts, Target};
use rustix::mount::MountFlags;

use super::machine::supervise::{Failure, Injector, Verdict, listen, supervise};
use super::machine::{
    Counter, FUNCTION, KPROBE_EVENTS, Switch, clean, function, json, kernel_name, program,
    promised, run, unlink, unmount, with_filter, with_own_mounts,
};

fn tracefs_modes() -> Vec<AttachMode> {
    let modes = promised().into_iter();
    modes.filter(|mode| mode.uses_tracefs()).collect()
}

fn in_mode(mode: AttachMode) -> KprobeOpts {
    KprobeOpts::new().attach_mode(mode)
}

fn told(error: &Error) -> (Step, Errno, Cause) {
    (error.step(), error.errno(), error.cause())
}

#[test]
fn a_read_only_tracefs_is_erofs() {
    with_own_mounts(|| {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount("/sys/kernel/tracing", flags, c"").unwrap();
        let counter = Counter::new();
        let expected = (Step::ProbeKernel, Errno::ROFS, Cause::NoKprobeEvents);
        for mode in tracefs_modes() {
            let kernel = Kernel::new();
            let attached = kernel.attach_kprobe(&counter.program, function(), &in_mode(mode));
            assert_eq!(told(&attached.unwrap_err()), expected, "{mode}");
        }
        let lines = json(&run(&["count", "--json", "--mode", "legacy", FUNCTION]).stdout);
        assert_eq!(lines[0]["error"]["errno"], "EROFS");
        assert_eq!(lines[0]["error"]["cause"], "no-kprobe-events");
    });
}

/// Runs the program with at most so many file descriptors.
fn with_descriptors(most: libc::rlim_t, args: &[&str]) -> std::process::Output {
    let mut command = program();
    command.args(args);
    let limit = move || {
        let most = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        #[allow(unsafe_code, reason = "the standard library does not set limits")]
        // SAFETY: reads a struct that outlives the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    #[allow(unsafe_code, reason = "see above")]
    // SAFETY: the closure makes one system call, in the child.
    unsafe {
        command.pre_exec(limit);
    }
    command.output().unwrap()
}

/// With every number of descriptors that is too small, the program says so, and of which probe.
fn runs_out_of_descriptors() {
    for mode in promised() {
        for most in 4.. {
            let count = ["count", "--for", "0.01", "--mode", mode.name(), FUNCTION];
            let output = with_descriptors(most, &count);
            if output.status.success() {
                assert!(most > 4);
                break;
            }
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(
                text.contains(FUNCTION) && text.contains(": EMFILE: "),
                "{mode}, {most}: {text}"
            );
            let count = [&["--json"][..], &count[1..]].concat();
            let output = with_descriptors(most, &[&["count"][..], &count].concat());
            let error = &json(&output.stdout)[0];
            assert_eq!(error["error"]["cause"], "out-of-fds", "{mode}, {most}");
            assert_eq!(error["probe"], FUNCTION, "{mode}, {most}");
        }
    }
}

#[test]
fn a_want_of_descriptors_is_never_a_missing_tracefs() {
    clean(runs_out_of_descriptors);
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        runs_out_of_descriptors();
    });
}

#[test]
fn a_shortage_in_the_search_for_tracefs_is_unknown_at_every_call() {
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        Injector::with(|injector| {
            let ask = || Kernel::new().features().tracefs;
            // Of this search alone, the calls that can be short of something are opens.
            let search = || kprobe_attach::Mount::find_tracefs().map(drop);
            let (found, calls) = injector.run(None, search);
            assert_eq!(found, Err(Errno::NOENT));
            for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
                for (at, call) in calls.iter().enumerate() {
                    let failure = Failure {
                        at,
                        errno,
                        and_all_after: false,
                    };
                    let (found, _) = injector.run(Some(failure), search);
                    if *call == libc::SYS_openat {
                        assert_eq!(found, Err(errno), "call {at}");
                    }
                }
            }
            assert!(matches!(ask(), Support::No(reason) if reason.cause == Cause::NoTracefs));
        });
    });
}

#[test]
fn what_is_no_pin_is_passed_over_and_what_may_not_be_opened_is_no_missing_capability() {
    if !promised().contains(&AttachMode::Link) {
        assert_eq!(kernel_name(), "5.10");
        return;
    }
    let dir = "/sys/fs/bpf/truth";
    let pinned = run(&["count", "--pin", dir, FUNCTION]);
    assert!(pinned.status.success(), "{pinned:?}");
    fs::create_dir(format!("{dir}/hits_x")).unwrap();
    let output = run(&["count", "--json", "--pin", dir]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json(&output.stdout).len(), 1);
    let directory = format!("{dir}/hits_x");
    for error in [
        Array::open_pinned(&*directory).unwrap_err(),
        Program::open_pinned(&*directory).unwrap_err(),
        KprobeLink::open_pinned(&*directory).unwrap_err(),
    ] {
        assert_eq!(error.errno(), Errno::INVAL, "{error}");
        assert!(!error.to_string().contains("CAP_"), "{error}");
    }
    // In a directory of all, a link leads only its owner.
    let _protected = Switch::set("/proc/sys/fs/protected_symlinks", "1").unwrap();
    let lead = |to: &str| {
        let link = "/tmp/truth";
        symlink(to, link).unwrap();
        std::os::unix::fs::lchown(link, Some(1000), None).unwrap();
        link
    };
    let check = |error: Error| {
        let text = error.to_string();
        assert_eq!(error.errno(), Errno::ACCESS, "{text}");
        assert!(text.contains("protected_symlinks"), "{text}");
        assert!(!text.contains("CAP_"), "{text}");
    };
    let link = lead(dir);
    let counter = Counter::new();
    let attached = counter.attach(&Kernel::new(), function(), &KprobeOpts::new());
    check(attached.pin(&*format!("{link}/x")).unwrap_err());
    fs::remove_file(link).unwrap();
    let link = lead(&format!("{dir}/hits_kprobe_{FUNCTION}"));
    check(Array::open_pinned(link).unwrap_err());
    check(KprobeLink::open_pinned(link).unwrap_err());
    check(Program::open_pinned(link).unwrap_err());
    fs::remove_file(link).unwrap();
    fs::remove_dir(directory).unwrap();
    fs::remove_file(format!("{dir}/kprobe_{FUNCTION}")).unwrap();
    fs::remove_file(format!("{dir}/hits_kprobe_{FUNCTION}")).unwrap();
    fs::remove_dir(dir).unwrap();
}

#[test]
fn an_event_that_somebody_clears_meanwhile_has_a_cause_of_its_own() {
    // Before every call of the attach, somebody clears all events.
    for mode in tracefs_modes() {
        let (send, receive) = mpsc::channel();
        let test = move || {
            let counter = Counter::new();
            let kernel = Kernel::new();
            let _ = kernel.plan(function(), &in_mode(mode)).unwrap();
            send.send(listen()).unwrap();
            let mut causes = Vec::new();
            for _ in 0..2 {
                match kernel.attach_kprobe(&counter.program, function(), &in_mode(mode)) {
                    Ok(link) => drop(link),
                    Err(error) => causes.push((error.step(), error.cause())),
                }
            }
            causes
        };
        let causes = std::thread::scope(|scope| {
            let worker = scope.spawn(test);
            let listener = receive.recv().unwrap();
            let mut opens = 0;
            supervise(&listener, None, |call| {
                // The first attach is cleared before its id is opened, and the second after that.
                let before = match opens {
                    0..2 => libc::SYS_openat,
                    _ => libc::SYS_perf_event_open,
                };
                if call.number == libc::SYS_openat {
                    opens += 1;
                }
                if call.number == before && opens >= 2 {
                    fs::write(KPROBE_EVENTS, "").unwrap();
                }
                Verdict::Continue
            });
            worker.join().unwrap()
        });
        assert_eq!(
            causes,
            [
                (Step::ReadEventId, Cause::EventRemoved),
                (Step::PerfEventOpen, Cause::EventRemoved)
            ],
            "{mode}"
        );
    }
}

#[test]
fn a_filter_that_answers_enosys_is_a_filter_and_no_old_kernel() {
    let counter = Counter::new();
    for mode in promised() {
        with_filter(libc::SYS_perf_event_open, None, Errno::NOSYS, || {
            let kernel = Kernel::with_program(&counter.program);
            let attached = kernel.attach_kprobe(&counter.program, function(), &in_mode(mode));
            let expected = (Step::ProbeKernel, Errno::NOSYS, Cause::Seccomp);
            assert_eq!(told(&attached.unwrap_err()), expected, "{mode}");
            let features = kernel.features();
            let reason = features.kprobe_pmu.reason().unwrap();
            assert_eq!((reason.errno, reason.cause), (Errno::NOSYS, Cause::Seccomp));
        });
        with_filter(libc::SYS_bpf, None, Errno::NOSYS, || {
            let attached =
                Kernel::new().attach_kprobe(&counter.program, function(), &in_mode(mode));
            if mode.uses_link() {
                let expected = (Step::ProbeKernel, Errno::NOSYS, Cause::Seccomp);
                assert_eq!(told(&attached.unwrap_err()), expected, "{mode}");
            } else {
                attached.unwrap();
            }
        });
    }
    with_filter(libc::SYS_bpf, None, Errno::NOSYS, || {
        let nothing = [insn::mov_imm(insn::R0, 0), insn::exit()];
        let error = Load::new(&nothing, c"GPL").load().unwrap_err();
        let expected = (Step::LoadProgram, Errno::NOSYS, Cause::Seccomp);
        assert_eq!(told(&error), expected);
        let error = Array::create(1).unwrap_err();
        assert_eq!(told(&error), (Step::Map, Errno::NOSYS, Cause::Seccomp));
        let features = Kernel::new().features();
        for support in [features.perf_link, features.kprobe_multi] {
            assert_eq!(support.reason().unwrap().cause, Cause::Seccomp);
        }
    });
    // A refusal of one system call is not one of another.
    with_filter(libc::SYS_getrandom, None, Errno::NOSYS, || {
        let attached = counter.attach(&Kernel::new(), function(), &KprobeOpts::new());
        assert_eq!(attached.mode(), promised()[0]);
    });
}

#[test]
fn without_information_on_programs_the_misses_of_the_probe_are_still_told() {
    const OBJ_GET_INFO_BY_FD: u32 = 15;
    let counter = Counter::new();
    let kernel = Kernel::new();
    let link = counter.attach(&kernel, function(), &in_mode(AttachMode::Legacy));
    // As a kernel before 4.13 answers, which does not know the command.
    with_filter(
        libc::SYS_bpf,
        Some(OBJ_GET_INFO_BY_FD),
        Errno::INVAL,
        || {
            assert_eq!(counter.program.recursion_misses(), Ok(None));
            assert_eq!(link.missed(), Ok(Some(0)));
            let output = run(&[
                "count", "--json", "--mode", "legacy", FUNCTION, "--", "true",
            ]);
            assert_eq!(json(&output.stdout)[0]["missed"], 0);
        },
    );
}

#[test]
fn a_null_says_why_and_so_does_a_count_that_nothing_hits() {
    let mode = |mode| ["count", "--json", "--mode", mode, FUNCTION, "--", "true"];
    let lines = json(&run(&mode("perf")).stdout);
    assert!(lines[0]["missed"].is_null(), "{lines:?}");
    assert_eq!(lines[0]["why"], "not in mode perf");
    let lines = json(&run(&mode("legacy")).stdout);
    assert_eq!(lines[0]["missed"], 0);
    assert!(lines[0]["why"].is_null());
    for mode in promised() {
        let count = || {
            let output = run(&["count", "--mode", mode.name(), FUNCTION, "--", "true"]);
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(!count().contains("no kprobe of the system is hit"));
        let _disarmed = Switch::set("/sys/kernel/debug/kprobes/enabled", "0").unwrap();
        let text = count();
        assert!(text.contains("no kprobe of the system is hit"), "{text}");
    }
}

#[test]
fn a_program_that_overrides_a_return_value_is_told_where_it_may() {
    const OVERRIDE_RETURN: i32 = 58;
    let overrides = [
        insn::mov_imm(insn::R2, -1),
        insn::call(OVERRIDE_RETURN),
        insn::mov_imm(insn::R0, 0),
        insn::exit(),
    ];
    let overrides = Load::new(&overrides, c"GPL").load();
    let Ok(listed) = fs::read_to_string("/sys/kernel/debug/error_injection/list") else {
        // Debian builds without CONFIG_BPF_KPROBE_OVERRIDE, so the verifier refuses the helper.
        let expected = (Step::LoadProgram, Errno::INVAL, Cause::WrongProgram);
        assert_eq!(told(&overrides.unwrap_err()), expected);
        return refused_by_the_verifier();
    };
    let overrides = overrides.unwrap();
    assert!(!listed.lines().any(|line| line.starts_with(FUNCTION)));
    for mode in promised() {
        let attached = Kernel::new().attach_kprobe(&overrides, function(), &in_mode(mode));
        let error = attached.unwrap_err();
        let expected = (Errno::INVAL, Cause::WrongProgram);
        assert_eq!((error.errno(), error.cause()), expected);
    }
    refused_by_the_verifier();
}

/// A program that the verifier refuses is not said to be of another type.
fn refused_by_the_verifier() {
    let error = Load::new(&[insn::exit()], c"GPL").load().unwrap_err();
    assert_eq!(
        (error.step(), error.cause()),
        (Step::LoadProgram, Cause::WrongProgram)
    );
    let text = error.to_string();
    assert!(text.contains("log") && !text.contains("type"), "{text}");
}

#[test]
fn hidden_addresses_are_the_setting_and_no_missing_capability() {
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let target = Target::symbol(FUNCTION).unwrap();
    let error = kprobe_attach::symbols::for_each_address(&target, |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("kernel.kptr_restrict") && !text.contains("CAP_"),
        "{text}"
    );
    unlink(1);
}
