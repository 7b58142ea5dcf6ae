//! What fails says why, and leaves nothing behind.

use std::fs;
use std::os::fd::AsRawFd;

use kprobe_attach::bpf::{Array, Load, insn};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::fd::AsFd;
use kprobe_attach::kernel::Support;
use kprobe_attach::tracefs::{EventLine, sweep};
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeOpts, Target, symbols};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::machine::{
    Counter, FUNCTION, Trace, address_of, asked, clean, define, fds, function, kallsyms,
    kernel_name, promised,
};

/// The failure of an attach in every promised mode.
fn failures(target: Target<'_>, opts: &KprobeOpts) -> Vec<(AttachMode, Error)> {
    let kernel = asked();
    let counter = Counter::new();
    let fail = |mode| {
        let attached =
            clean(|| kernel.attach_kprobe(&counter.program, target, &opts.attach_mode(mode)));
        (mode, attached.expect_err("a failure"))
    };
    promised().into_iter().map(fail).collect()
}

fn creating(mode: AttachMode) -> Step {
    if mode.uses_tracefs() {
        Step::CreateEvent
    } else {
        Step::PerfEventOpen
    }
}

#[test]
fn a_missing_function_is_told_from_everything_else() {
    let target = Target::symbol("no_such_function").unwrap();
    for (mode, error) in failures(target, &KprobeOpts::new()) {
        assert_eq!(error.step(), creating(mode), "{mode}");
        assert_eq!(error.cause(), Cause::NoSuchFunction, "{mode}: {error}");
        assert_eq!(error.subject(), Some("no_such_function"));
        assert!(
            error.to_string().starts_with("no_such_function: "),
            "{error}"
        );
    }
}

#[test]
fn an_error_about_a_long_name_has_as_much_of_it_as_it_holds() {
    let name = format!("no_such_function_{}", "f".repeat(100));
    let target = Target::in_module("m", &name).unwrap();
    let opts = KprobeOpts::new().attach_mode(AttachMode::Perf);
    let error = asked().attach_kprobe(&Counter::new().program, target, &opts);
    let error = error.unwrap_err();
    let subject = format!("m:{}…", &name[..58]);
    assert_eq!((subject.len(), error.subject()), (63, Some(&*subject)));
    assert_eq!(error.cause(), Cause::ModuleNotLoaded);
    assert!(
        error.to_string().starts_with(&format!("{subject}: ")),
        "{error}"
    );
}

#[test]
fn a_name_of_several_functions_is_told() {
    let symbols = kallsyms();
    let text = |kind: &char| matches!(kind, 't' | 'T');
    let mut names: Vec<&str> = symbols
        .iter()
        .filter(|(_, kind, _, module)| text(kind) && module.is_none())
        .map(|(_, _, name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    let mut twice = names
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0]);
    let target = twice
        .find_map(|name| Target::symbol(name).ok())
        .expect("a name that two functions have");
    if kernel_name() == "5.10" {
        // It takes the first one silently, and there is nothing to tell.
        return;
    }
    for (mode, error) in failures(target, &KprobeOpts::new()) {
        assert_eq!(error.cause(), Cause::NotUnique, "{mode}: {error}");
    }
    // Each of them has an address, by which it can be meant.
    let mut addresses = Vec::new();
    symbols::for_each_address(&target, |address| addresses.push(address)).unwrap();
    assert!(addresses.len() > 1, "{target}: {addresses:x?}");
    let missing = Target::symbol("no_such_function").unwrap();
    let error = symbols::for_each_address(&missing, |_| unreachable!()).unwrap_err();
    assert_eq!(
        (error.step(), error.cause()),
        (Step::ResolveSymbol, Cause::NoSuchFunction)
    );
}

#[test]
fn a_function_that_the_kernel_protects_is_told() {
    let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
    let name = blacklist.lines().find_map(|line| {
        let name = line.split_ascii_whitespace().nth(1)?;
        // A name that stands for one function only, and exists.
        let symbols = kallsyms();
        let count = symbols
            .iter()
            .filter(|(_, _, symbol, _)| symbol == name)
            .count();
        (count == 1).then(|| Target::symbol(name).ok()).flatten()
    });
    for (mode, error) in failures(name.expect("a blacklisted function"), &KprobeOpts::new()) {
        assert_eq!(error.cause(), Cause::NotProbeable, "{mode}: {error}");
        assert_eq!(error.errno(), Errno::INVAL, "{mode}: {error}");
    }
}

#[test]
fn an_address_in_the_middle_of_a_function_is_no_place_for_a_return_probe() {
    let address = address_of(FUNCTION) + 9;
    let target = Target::address(address);
    for (mode, error) in failures(target, &KprobeOpts::new().retprobe(true)) {
        let cause = error.cause();
        assert_eq!((error.subject(), error.address()), (None, Some(address)));
        assert!(error.to_string().starts_with(&format!("{target}: ")));
        let told = matches!(
            cause,
            Cause::NotFunctionEntry | Cause::NotInstructionBoundary
        );
        assert!(told, "{mode}: {error}");
    }
}

#[test]
fn what_is_no_kprobe_program_is_refused_and_undone() {
    let kernel = asked();
    for mode in promised() {
        let binding = if mode.uses_link() {
            Step::LinkCreate
        } else {
            Step::SetBpf
        };
        clean(|| {
            let map = Array::create(1).unwrap();
            let file = rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDWR,
                rustix::fs::Mode::empty(),
            )
            .unwrap();
            for other in [map.as_fd(), file.as_fd()] {
                let opts = KprobeOpts::new().attach_mode(mode);
                let error = kernel.attach_kprobe(other, function(), &opts).unwrap_err();
                assert_eq!(error.step(), binding, "{mode}");
                assert_eq!(error.cause(), Cause::WrongProgram, "{mode}: {error}");
            }
        });
    }
}

/// A process with no gap between its file descriptors, so that a limit counts new ones alone.
struct FewFds {
    _fill: Vec<fs::File>,
    highest: u32,
}

impl FewFds {
    fn new() -> Self {
        let highest = fds().into_keys().max().unwrap();
        let open = std::iter::repeat_with(|| fs::File::open("/").unwrap());
        let is_below = |file: &fs::File| file.as_raw_fd().unsigned_abs() < highest;
        let fill = open.take_while(is_below).collect();
        Self {
            _fill: fill,
            highest,
        }
    }

    /// Runs something with so many file descriptors left.
    fn with<T>(&self, free: u64, run: impl FnOnce() -> T) -> T {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let current = Some(u64::from(self.highest) + 1 + free);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let result = run();
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        result
    }
}

#[test]
fn what_could_not_be_asked_for_want_of_file_descriptors_is_unknown_and_says_so() {
    let counter = Counter::new();
    let out_of_fds = |support: Support| match support {
        Support::Unknown(reason) => {
            assert_eq!(
                (reason.errno, reason.cause),
                (Errno::MFILE, Cause::OutOfFds)
            );
            true
        }
        Support::Yes => false,
        Support::No(reason) => panic!("{reason:?}"),
    };
    clean(|| {
        let few = FewFds::new();
        // Each in its turn: sysfs is held as tracefs is.
        for (free, [no_event, no_tracefs]) in [(0, [true; 2]), (1, [false, true]), (2, [false; 2])]
        {
            let features = few.with(free, || Kernel::new().features());
            assert_eq!(out_of_fds(features.perf_event), no_event, "{features:?}");
            assert_eq!(out_of_fds(features.kprobe_pmu), no_event, "{features:?}");
            assert_eq!(out_of_fds(features.tracefs), no_tracefs, "{features:?}");
            assert!(out_of_fds(features.kprobe_events), "{features:?}");
        }
        assert!(!out_of_fds(
            few.with(3, || Kernel::new().features()).kprobe_events
        ));
        for mode in AttachMode::ALL {
            let opts = KprobeOpts::new().attach_mode(mode);
            let attach = || Kernel::new().attach_kprobe(&counter.program, function(), &opts);
            let error = few.with(0, attach).unwrap_err();
            assert_eq!(
                (error.step(), error.errno(), error.cause()),
                (Step::ProbeKernel, Errno::MFILE, Cause::OutOfFds),
                "{mode}"
            );
        }
        // A sweep has nobody to hold tracefs for it.
        let error = few.with(0, || sweep(|_| ())).unwrap_err();
        assert_eq!(
            (error.step(), error.errno(), error.cause()),
            (Step::RemoveEvent, Errno::MFILE, Cause::OutOfFds)
        );
        drop(few);
    });
}

#[test]
fn an_attach_that_runs_out_of_file_descriptors_as_it_asks_leaves_nothing() {
    let counter = Counter::new();
    for mode in promised() {
        let opts = KprobeOpts::new().attach_mode(mode);
        let before = Trace::now();
        let few = FewFds::new();
        for free in 0.. {
            // Whoever has one file descriptor too few has asked at least.
            let attach = || Kernel::new().attach_kprobe(&counter.program, function(), &opts);
            match few.with(free, attach) {
                Ok(link) => {
                    assert!(free > 0, "{mode}");
                    link.detach().unwrap();
                    break;
                }
                Err(error) => assert_eq!(
                    (error.errno(), error.cause()),
                    (Errno::MFILE, Cause::OutOfFds),
                    "{mode}: {error}"
                ),
            }
        }
        drop(few);
        assert_eq!(Trace::now(), before, "{mode}");
    }
}

#[test]
fn running_out_of_file_descriptors_at_any_step_leaves_nothing() {
    let kernel = asked();
    let counter = Counter::new();
    for mode in promised() {
        let opts = KprobeOpts::new().attach_mode(mode);
        let before = Trace::now();
        let few = FewFds::new();
        let mut steps = Vec::new();
        for free in 0.. {
            let attach = || kernel.attach_kprobe(&counter.program, function(), &opts);
            match few.with(free, attach) {
                Ok(_) => break,
                Err(error) => {
                    assert_eq!(
                        (error.errno(), error.cause()),
                        (Errno::MFILE, Cause::OutOfFds)
                    );
                    steps.push(error.step());
                    let events = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap();
                    assert_eq!(events, before.events, "{mode}: {error}");
                }
            }
        }
        drop(few);
        assert_eq!(Trace::now(), before, "{mode}");
        // Every step that takes a file descriptor failed once.
        let expected: &[Step] = match mode {
            AttachMode::Link => &[Step::PerfEventOpen, Step::LinkCreate],
            AttachMode::Perf => &[Step::PerfEventOpen],
            // The id is closed again before the perf event takes its place.
            AttachMode::LegacyLink => &[Step::CreateEvent, Step::ReadEventId, Step::LinkCreate],
            AttachMode::Legacy => &[Step::CreateEvent, Step::ReadEventId],
            other => panic!("{other} is none of the four"),
        };
        assert_eq!(steps, expected, "{mode}");
    }
}

#[test]
fn an_event_that_another_uses_is_reported_by_detach() {
    let kernel = asked();
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        clean(|| {
            let counter = Counter::new();
            let link = counter.attach(&kernel, function(), &KprobeOpts::new().attach_mode(mode));
            let events = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap();
            let listed = EventLine::parse(events.trim_end().as_bytes()).unwrap();
            let name = format!("{}/{}", listed.group, listed.event);
            let enable = format!("/sys/kernel/tracing/events/{name}/enable");
            fs::write(&enable, "1").unwrap();
            let error = link.detach().unwrap_err();
            assert_eq!(
                (error.step(), error.errno()),
                (Step::RemoveEvent, Errno::BUSY)
            );
            assert_eq!(error.cause(), Cause::EventBusy);
            // It is about the event, which is what is left.
            assert_eq!(error.subject(), Some(name.as_str()));
            assert!(
                error.to_string().starts_with(&format!("{name}: ")),
                "{error}"
            );
            fs::write(&enable, "0").unwrap();
            define(&format!("-:{name}"));
        });
    }
}

#[test]
fn a_memlock_limit_is_raised_for_the_load_and_put_back() {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    clean(|| {
        rustix::process::setrlimit(Resource::Memlock, none).unwrap();
        let made = Array::create(1)
            .and_then(|_| Load::new(&[insn::mov_imm(insn::R0, 0), insn::exit()], c"GPL").load());
        let after = rustix::process::getrlimit(Resource::Memlock);
        rustix::process::setrlimit(Resource::Memlock, limit).unwrap();
        assert!(made.is_ok(), "{made:?}");
        assert_eq!(after, none);
    });
}

#[test]
fn without_the_right_to_raise_it_a_memlock_limit_is_used_up_to_its_maximum() {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let limited = |maximum| {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(maximum),
        };
        rustix::process::setrlimit(Resource::Memlock, none).unwrap();
        let load = || {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective -= CapabilitySet::SYS_RESOURCE;
            rustix::thread::set_capabilities(None, sets).unwrap();
            Array::create(1).map(drop)
        };
        let created = std::thread::scope(|scope| scope.spawn(load).join().unwrap());
        assert_eq!(rustix::process::getrlimit(Resource::Memlock), none);
        rustix::process::setrlimit(Resource::Memlock, limit).unwrap();
        created
    };
    clean(|| {
        assert_eq!(limited(1 << 30), Ok(()));
        let created = limited(0);
        if kernel_name() == "5.10" {
            assert_eq!(created.unwrap_err().cause(), Cause::MemlockLimit);
        } else {
            assert_eq!(created, Ok(()));
        }
    });
}

#[test]
fn the_verifier_says_in_the_log_what_it_refuses() {
    clean(|| {
        let mut log = [0; 4096];
        let error = Load::new(&[insn::exit()], c"GPL")
            .log(&mut log)
            .load()
            .unwrap_err();
        assert_eq!(
            (error.step(), error.cause()),
            (Step::LoadProgram, Cause::WrongProgram)
        );
        let log = String::from_utf8_lossy(&log);
        assert!(log.contains("R0 !read_ok"), "{log}");
        let mut short = [0; 8];
        let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
        let load = Load::new(&insns, c"GPL").log(&mut short);
        assert_eq!(load.load().unwrap_err().step(), Step::LoadProgram);
        // A license that is not the GPL's does not get helpers that are: bpf_trace_printk.
        let insns = [insn::call(6), insn::exit()];
        let error = Load::new(&insns, c"proprietary").load().unwrap_err();
        assert_eq!(error.cause(), Cause::WrongProgram);
    });
}
