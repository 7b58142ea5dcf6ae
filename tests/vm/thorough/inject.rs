//! Every system call of the library fails in turn, with each errno that it may fail with, on a real
//! kernel: once, and once with all that follow. Whatever fails, the error names step and errno, and
//! nothing is left behind.

use std::cell::Cell;
use std::fs;

use kprobe_attach::bpf::{Array, Load, Program, insn};
use kprobe_attach::error::Step;
use kprobe_attach::plan::Syscall;
use kprobe_attach::tracefs::sweep;
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeLink, KprobeOpts, Target};
#[cfg(target_pointer_width = "64")]
use libc::{SYS_fcntl as FCNTL, SYS_newfstatat as STAT};
#[cfg(target_pointer_width = "32")]
use libc::{SYS_fcntl64 as FCNTL, SYS_statx as STAT};
use rustix::process::{Resource, Rlimit, getrlimit};

use crate::machine::supervise::{Failure, Injector};
use crate::machine::{
    Counter, FUNCTION, KPROBES, OTHER_FUNCTION, Trace, asked, define, function, kernel_name,
    link_modes, promised, report, unlink, wait_until,
};

/// The errnos with which a system call may fail in earnest.
fn errnos(number: libc::c_long) -> &'static [Errno] {
    match number {
        libc::SYS_bpf => &[
            Errno::PERM,
            Errno::BADF,
            Errno::AGAIN,
            Errno::NOMEM,
            Errno::ACCESS,
            Errno::BUSY,
            Errno::EXIST,
            Errno::INVAL,
            Errno::MFILE,
            Errno::NOSPC,
            Errno::TOOBIG,
            Errno::NOSYS,
            Errno::OPNOTSUPP,
        ],
        libc::SYS_perf_event_open => &[
            Errno::PERM,
            Errno::NOENT,
            Errno::SRCH,
            Errno::INTR,
            Errno::TOOBIG,
            Errno::NOMEM,
            Errno::ACCESS,
            Errno::BUSY,
            Errno::NODEV,
            Errno::INVAL,
            Errno::MFILE,
            Errno::NOSYS,
            Errno::OPNOTSUPP,
        ],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => errnos(libc::SYS_openat),
        libc::SYS_openat => &[
            Errno::PERM,
            Errno::NOENT,
            Errno::INTR,
            Errno::NOMEM,
            Errno::ACCESS,
            Errno::NFILE,
            Errno::MFILE,
            Errno::ROFS,
        ],
        libc::SYS_read => &[Errno::IO, Errno::NOMEM, Errno::ISDIR],
        libc::SYS_write => &[
            Errno::PERM,
            Errno::INTR,
            Errno::IO,
            Errno::NOMEM,
            Errno::BUSY,
            Errno::EXIST,
            Errno::NODEV,
            Errno::INVAL,
        ],
        libc::SYS_close => &[Errno::INTR, Errno::IO],
        libc::SYS_ioctl => &[
            Errno::PERM,
            Errno::NOENT,
            Errno::BADF,
            Errno::NOMEM,
            Errno::EXIST,
            Errno::INVAL,
            Errno::NOTTY,
            Errno::TOOBIG,
        ],
        FCNTL => &[Errno::AGAIN, Errno::ACCESS, Errno::INVAL, Errno::NOLCK],
        STAT => &[Errno::NOMEM, Errno::ACCESS, Errno::LOOP],
        _ => &[
            Errno::PERM,
            Errno::INTR,
            Errno::NOMEM,
            Errno::INVAL,
            Errno::NOSYS,
        ],
    }
}

/// What must be after every case as it was before.
#[derive(Debug, PartialEq, Eq)]
struct State {
    trace: Trace,
    probes: String,
    memlock: Rlimit,
}

impl State {
    fn now() -> Self {
        Self {
            trace: Trace::now(),
            probes: fs::read_to_string(KPROBES).unwrap(),
            memlock: getrlimit(Resource::Memlock),
        }
    }
}

/// What failed in a case, and which of the section's calls it was.
#[derive(Clone, Copy)]
pub(super) struct Injected {
    pub(super) failure: Failure,
    pub(super) number: libc::c_long,
}

impl Injected {
    /// Whether an error is the one injected.
    pub(super) fn is(&self, error: &Error, step: Step) -> bool {
        (error.step(), error.errno()) == (step, self.failure.errno)
    }

    /// Whether an error is the one injected, or says that no tracefs was found, which where nothing
    /// can be looked at is not.
    fn is_or_hides_tracefs(&self, error: &Error, step: Step) -> bool {
        let not_found = (error.step(), error.errno()) == (step, Errno::NOENT);
        self.is(error, step) || (not_found && self.failure.and_all_after)
    }
}

/// Runs sections with each of their system calls failing, and counts.
pub(super) struct Matrix<'a> {
    injector: &'a Injector,
    pub(super) cases: Cell<usize>,
    pub(super) refused: Cell<usize>,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(injector: &'a Injector) -> Self {
        Self {
            injector,
            cases: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// Of a section, every system call fails in turn: what `prepare` makes is handed to it, and
    /// what it answers is judged.
    pub(super) fn fail_each<P, R>(
        &self,
        name: &str,
        prepare: impl Fn() -> P,
        section: impl Fn(P) -> R,
        judge: impl Fn(Option<Injected>, R) -> Result<(), Error>,
    ) {
        self.fail_all_but(0, true, name, prepare, section, judge);
    }

    /// The same for system calls of several processes, which come in any order. The last ones may
    /// still be made when the section is over.
    pub(super) fn fail_each_in_any_order<P, R>(
        &self,
        name: &str,
        prepare: impl Fn() -> P,
        section: impl Fn(P) -> R,
        judge: impl Fn(Option<Injected>, R) -> Result<(), Error>,
    ) {
        self.fail_all_but(0, false, name, prepare, section, judge);
    }

    /// The same, but for the last so many, which fail elsewhere.
    fn fail_all_but<P, R>(
        &self,
        last: usize,
        in_order: bool,
        name: &str,
        prepare: impl Fn() -> P,
        section: impl Fn(P) -> R,
        judge: impl Fn(Option<Injected>, R) -> Result<(), Error>,
    ) {
        let run = |failure| {
            let prepared = prepare();
            self.injector.run(failure, || section(prepared))
        };
        let before = State::now();
        let (answer, calls) = run(None);
        judge(None, answer).unwrap();
        assert_eq!(State::now(), before, "{name}");
        assert!(calls.len() > last, "{name}");
        let failing = calls.len() - last;
        // Of a file that is read in many pieces, the first two fail and the last.
        let is_between = |at: usize| {
            let around = at.checked_sub(2).and_then(|from| calls.get(from..at + 2));
            around.is_some_and(|around| around.iter().all(|call| *call == libc::SYS_read))
        };
        for (at, &number) in calls.iter().take(failing).enumerate() {
            if is_between(at) {
                continue;
            }
            let all = errnos(number).iter();
            // No signal comes for ever.
            let lasting = all.clone().filter(|errno| **errno != Errno::INTR).take(2);
            let once = all.map(|errno| (*errno, false));
            for (errno, and_all_after) in once.chain(lasting.map(|errno| (*errno, true))) {
                let failure = Failure {
                    at,
                    errno,
                    and_all_after,
                };
                let (answer, made) = run(Some(failure));
                let case = format!("{name}: {failure:?} of {made:?}");
                if in_order {
                    assert_eq!(made[at], number, "{case}");
                } else {
                    wait_until(|| {
                        if and_all_after {
                            sweep(|_| ()).unwrap();
                        }
                        State::now() == before
                    });
                }
                let number = made[at];
                // For what the judge does not like; else it is not shown.
                println!("{case}");
                let refused = judge(Some(Injected { failure, number }), answer).is_err();
                if and_all_after {
                    // What could not be removed then can be now.
                    sweep(|_| ()).unwrap();
                }
                assert_eq!(State::now(), before, "{case}");
                self.cases.set(self.cases.get() + 1);
                self.refused.set(self.refused.get() + usize::from(refused));
            }
        }
    }
}

/// The step that an attach which fails at this system call names; [`None`] where it does not fail.
fn step_of(call: Syscall<'_>) -> Option<Step> {
    match call {
        Syscall::OpenKprobeEvents
        | Syscall::LockOwnerByte(_)
        | Syscall::LookForEvent(_)
        | Syscall::WriteDefinition(_) => Some(Step::CreateEvent),
        Syscall::OpenId(_) | Syscall::ReadId => Some(Step::ReadEventId),
        Syscall::PerfEventOpenKprobe { .. } | Syscall::PerfEventOpenTracepoint { .. } => {
            Some(Step::PerfEventOpen)
        }
        Syscall::LinkCreate { .. } => Some(Step::LinkCreate),
        Syscall::SetBpf => Some(Step::SetBpf),
        Syscall::CloseId | Syscall::ClosePerfEvent => None,
        other => panic!("{other} is no system call of an attach"),
    }
}

/// The link works: it fires, and detaches.
fn works(counter: &Counter, link: KprobeLink) {
    let before = counter.hits();
    unlink(1);
    assert_eq!(counter.hits(), before + 1);
    link.detach().unwrap();
}

/// An attach in one mode, its use and its end.
fn cycle(matrix: &Matrix<'_>, kernel: &Kernel, counter: &Counter, mode: AttachMode) {
    let opts = KprobeOpts::new().attach_mode(mode);
    let attach = || counter.attach(kernel, function(), &opts);
    let steps: Vec<_> = kernel
        .plan(function(), &opts)
        .unwrap()
        .steps()
        .map(step_of)
        .collect();
    matrix.fail_each(
        &format!("attach {mode}"),
        || kernel.plan(function(), &opts).unwrap(),
        |plan| plan.attach(&counter.program),
        |injected, attached| {
            let failing = injected.and_then(|injected| {
                let Failure {
                    at, and_all_after, ..
                } = injected.failure;
                let reached = &steps[at..=if and_all_after { steps.len() - 1 } else { at }];
                Some((injected, reached.iter().flatten().next()?))
            });
            match (failing, attached) {
                (None, Ok(link)) => {
                    works(counter, link);
                    Ok(())
                }
                (Some((injected, step)), Err(error)) => {
                    assert!(injected.is(&error, *step), "{mode}: {error}, not {step}");
                    assert_eq!(error.subject(), Some(FUNCTION));
                    Err(error)
                }
                (failing, attached) => {
                    panic!("{mode}: {:?}: {attached:?}", failing.map(|(_, step)| step))
                }
            }
        },
    );
    // Of a probe at the entry the kernel's symbols are read, which takes a while: so in one mode.
    let attach_inside = || {
        let inside = (1..=24).rev().find_map(|offset| {
            let opts = opts.offset(offset);
            kernel
                .attach_kprobe(&counter.program, function(), &opts)
                .ok()
        });
        inside.expect("a function of several instructions")
    };
    matrix.fail_each(
        &format!("info {mode}"),
        || {
            if mode == promised()[0] {
                attach()
            } else {
                attach_inside()
            }
        },
        |link| {
            let told = link.missed().and_then(|_| link.info());
            (link, told.map(drop))
        },
        |injected, (link, told)| {
            works(counter, link);
            told.inspect_err(|error| {
                // Only a count that the kernel would tell may come from a file.
                let injected = injected.unwrap();
                assert!(
                    injected.is_or_hides_tracefs(error, Step::LinkInfo),
                    "{error}"
                );
            })
        },
    );
    matrix.fail_each(
        &format!("detach {mode}"),
        attach,
        KprobeLink::detach,
        |injected, detached| {
            match injected {
                // The program is detached whatever fails, and a removal that fails once is tried
                // again.
                Some(injected) if injected.failure.and_all_after && mode.uses_tracefs() => {
                    let write_fails =
                        injected.number != libc::SYS_close || injected.failure.at == 0;
                    match &detached {
                        Ok(()) => assert!(!write_fails),
                        Err(error) => assert!(injected.is(error, Step::RemoveEvent), "{error}"),
                    }
                }
                _ => detached.as_ref().copied().unwrap(),
            }
            let hits = counter.hits();
            unlink(1);
            assert_eq!(counter.hits(), hits);
            detached
        },
    );
}

/// The kernel drops what a pin held a moment after the pin.
fn wait_for_the_end_of_pins() {
    wait_until(|| !fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
}

/// Pins a link, and opens it again.
fn pins(matrix: &Matrix<'_>, kernel: &Kernel, counter: &Counter) {
    const DIR: &str = "/sys/fs/bpf/injected";
    const PIN: &str = "/sys/fs/bpf/injected/link";
    let attach = || counter.attach(kernel, function(), &KprobeOpts::new());
    matrix.fail_each(
        "pin",
        attach,
        |link| {
            let pinned = link.pin(PIN);
            (link, pinned)
        },
        |injected, (link, pinned)| {
            assert_eq!(fs::exists(PIN).unwrap(), pinned.is_ok());
            if pinned.is_ok() {
                fs::remove_file(PIN).unwrap();
            } else if let Some(Injected { failure, .. }) = injected {
                assert!(failure.and_all_after || !fs::exists(DIR).unwrap());
            }
            let _ = fs::remove_dir(DIR);
            works(counter, link);
            wait_for_the_end_of_pins();
            pinned.inspect_err(|error| {
                assert!(injected.unwrap().is(error, Step::Pin), "{error}");
            })
        },
    );
    matrix.fail_each(
        "open a pin",
        || {
            attach().pin(PIN).unwrap();
        },
        |()| KprobeLink::open_pinned(PIN),
        |injected, opened| {
            fs::remove_file(PIN).unwrap();
            fs::remove_dir(DIR).unwrap();
            let opened = opened.map(|link| works(counter, link));
            wait_for_the_end_of_pins();
            opened.inspect_err(|error| {
                // What cannot be told to be a link is none.
                let is_none = (error.step(), error.errno()) == (Step::OpenLink, Errno::INVAL);
                assert!(
                    is_none || injected.unwrap().is(error, Step::OpenLink),
                    "{error}"
                );
            })
        },
    );
}

/// Asks a kernel: all there is to ask, and then what the first attach in each mode, or in none that
/// is asked for, takes before it does what every other one does.
fn asks(matrix: &Matrix<'_>, counter: &Counter) {
    let attach = |kernel: &Kernel, mode: Option<AttachMode>| {
        let mut opts = KprobeOpts::new();
        opts.attach_mode = mode;
        kernel.attach_kprobe(&counter.program, function(), &opts)
    };
    let judge = |injected: Option<Injected>, attached: Result<KprobeLink, Error>| {
        let error = match attached {
            // What one question could not tell, another one, or another mode, does without.
            Ok(link) => {
                works(counter, link);
                return Ok(());
            }
            Err(error) => error,
        };
        let injected = injected.unwrap();
        let lacks = (error.step(), error.errno()) == (Step::ProbeKernel, Errno::OPNOTSUPP);
        // EBADF is how a kernel says that it has links, and E2BIG how the kprobe PMU says that it
        // is it.
        let binds = matches!(error.step(), Step::LinkCreate | Step::SetBpf);
        let misled = match injected.failure.errno {
            Errno::BADF => error.step() == Step::LinkCreate,
            Errno::TOOBIG => binds && injected.number == libc::SYS_perf_event_open,
            _ => false,
        };
        let is = injected.is(&error, error.step());
        assert!(lacks || misled || is, "{error}");
        Err(error)
    };
    matrix.fail_each(
        "ask everything",
        || (),
        |()| asked(),
        |injected, kernel| judge(injected, attach(&kernel, None)),
    );
    let modes = promised().into_iter().map(Some);
    for mode in modes.chain([None]) {
        let name = mode.map_or("the first that fits", AttachMode::name);
        let mut opts = KprobeOpts::new();
        opts.attach_mode = mode;
        let plan = asked().plan(function(), &opts).unwrap().steps().count();
        matrix.fail_all_but(
            plan,
            true,
            &format!("first attach, mode {name}"),
            || (),
            |()| attach(&Kernel::new(), mode),
            judge,
        );
    }
}

#[test]
fn whichever_system_call_fails_the_error_names_it_and_nothing_is_left() {
    let (cases, refused) = Injector::with(|injector| {
        let matrix = Matrix::new(injector);
        let counter = Counter::new();
        // While ftrace has a probe to keep, another one that comes and goes takes half the time.
        let mkdirs = Counter::new();
        let other = Target::symbol(OTHER_FUNCTION).unwrap();
        let _kept = mkdirs.attach(&asked(), other, &KprobeOpts::new());
        let nop = [insn::mov_imm(insn::R0, 0), insn::exit()];
        matrix.fail_each(
            "load",
            || (),
            |()| Array::create(1).and_then(|map| Ok((map, Load::new(&nop, c"GPL").load()?))),
            |injected, loaded| {
                loaded.map(drop).inspect_err(|error| {
                    let injected = injected.unwrap();
                    let is = [Step::Map, Step::LoadProgram].map(|step| injected.is(error, step));
                    assert!(is.contains(&true), "{error}");
                })
            },
        );
        let id = counter.program.id().unwrap();
        matrix.fail_each(
            "open a program",
            || (),
            |()| Program::open_id(id),
            |injected, opened| {
                opened.map(drop).inspect_err(|error| {
                    let injected = injected.unwrap();
                    let is_none =
                        (error.step(), error.errno()) == (Step::OpenProgram, Errno::INVAL);
                    assert!(is_none || injected.is(error, Step::OpenProgram), "{error}");
                })
            },
        );
        asks(&matrix, &counter);
        let kernel = asked();
        for mode in promised() {
            cycle(&matrix, &kernel, &counter, mode);
        }
        if !link_modes().is_empty() {
            pins(&matrix, &kernel, &counter);
        }
        matrix.fail_each(
            "sweep",
            || {
                let target = Target::symbol("vfs_read").unwrap();
                let name = "p:kprobe_attach_0123456789abcdef/probe_01234567_0";
                define(&format!("{name} {target}"));
            },
            |()| sweep(|_| ()),
            |injected, swept| {
                // Where a removal has failed, or EBUSY has said that the event is in use.
                sweep(|_| ()).unwrap();
                swept.map(drop).inspect_err(|error| {
                    let injected = injected.unwrap();
                    let step = Step::RemoveEvent;
                    assert!(injected.is_or_hides_tracefs(error, step), "{error}");
                })
            },
        );
        (matrix.cases.get(), matrix.refused.get())
    });
    report(format_args!(
        "{}: {cases} cases of mode, system call and errno, {refused} of them refused, 0 leaks",
        kernel_name()
    ));
}
