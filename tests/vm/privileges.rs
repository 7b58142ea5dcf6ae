//! What a process may do with which privileges, and what the errors say of the rest: the table of
//! `src/guide/privileges.md`.

use std::fs;
use std::process::Command;

use kprobe_attach::bpf::{Array, Load, Program, insn};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeOpts};
use rustix::io::FdFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::{process, thread};

use crate::machine::{
    Counter, PARANOID, Switch, asked, clean, fds, function, in_thread, kernel_name, load_as,
    promised, unlink, with_filter,
};

/// That something works, or at which step it fails, with which errno and cause.
type Answer = Result<(), (Step, Errno, Cause)>;

/// The answers of the four modes in their order, and of the choice that is made when none is asked
/// for.
type Answers = [Answer; 5];

/// Runs a test as the privileges of a situation leave it.
type Situation<'s> = &'s dyn Fn(&(dyn Fn() + Sync));

const WORKS: Answers = [Ok(()); 5];

/// What every mode needs is denied.
const fn denied(errno: Errno, cause: Cause) -> Answers {
    [Err((Step::ProbeKernel, errno, cause)); 5]
}

/// The files of tracefs are root's.
const NO_FILE: Answer = Err((Step::ProbeKernel, Errno::ACCESS, Cause::NoKprobeEvents));

const WORKS_WITHOUT_TRACEFS: Answers = [Ok(()), Ok(()), NO_FILE, NO_FILE, Ok(())];

const MAY_NOT_LOAD: Answer = Err((Step::LoadProgram, Errno::PERM, Cause::NoPermission));

/// Where a kernel has no perf links, it says so instead of doing what it would do with them.
fn here(answers: Answers) -> Answers {
    let mut here = answers;
    for (mode, answer) in AttachMode::ALL.into_iter().zip(&mut here) {
        if answer.is_ok() && !promised().contains(&mode) {
            *answer = Err((Step::ProbeKernel, Errno::OPNOTSUPP, Cause::NoPerfLink));
        }
    }
    here
}

fn works(answers: Answers) -> u64 {
    answers.iter().filter(|answer| answer.is_ok()).count() as u64
}

fn answer<T>(result: Result<T, Error>) -> Answer {
    result
        .map(drop)
        .map_err(|error| (error.step(), error.errno(), error.cause()))
}

fn loaded() -> Answer {
    answer(Load::new(&[insn::mov_imm(insn::R0, 0), insn::exit()], c"GPL").load())
}

/// Attaches in every mode, has the program run once in each that works, and detaches.
fn attached(kernel: &Kernel, program: impl AsFd) -> Answers {
    let attach = |mode: Option<AttachMode>| {
        let opts = mode.map_or(KprobeOpts::new(), |mode| {
            KprobeOpts::new().attach_mode(mode)
        });
        let attached = kernel.attach_kprobe(&program, function(), &opts);
        answer(attached.and_then(|link| {
            unlink(1);
            link.detach()
        }))
    };
    let [link, perf, legacy_link, legacy] = AttachMode::ALL.map(|mode| attach(Some(mode)));
    [link, perf, legacy_link, legacy, attach(None)]
}

/// Holds what a situation leaves against the table: loading a program; attaching one that somebody
/// else has loaded; and if it may load, attaching its own, which must be the same.
fn hold(name: &str, situation: Situation<'_>, load: Answer, modes: Answers) {
    let handed = Counter::new();
    let modes = here(modes);
    situation(&|| {
        assert_eq!(loaded(), load, "{name}");
        // A map takes less than a program, and is refused with the same words.
        if let Err((step, errno, cause)) = answer(Array::create(1)) {
            assert_eq!(step, Step::Map, "{name}");
            assert_eq!(load, Err((Step::LoadProgram, errno, cause)), "{name}");
        }
        // A kernel that has been asked everything with the program, and one that is asked as it is
        // needed.
        let told = Kernel::with_program(&handed.program);
        let _ = told.features();
        for kernel in [told, Kernel::new()] {
            assert_eq!(attached(&kernel, &handed.program), modes, "{name}, handed");
        }
        if load.is_ok() {
            let own = Counter::new();
            for kernel in [asked(), Kernel::new()] {
                assert_eq!(attached(&kernel, &own.program), modes, "{name}");
            }
            assert_eq!(own.hits(), 2 * works(modes), "{name}");
        }
    });
    assert_eq!(handed.hits(), 2 * works(modes), "{name}");
}

const ROOT: u32 = 0;

const NOBODY: u32 = 65534;

/// Runs a test as a user with these capabilities and no others.
fn with_credentials<T: Send>(
    user: u32,
    capabilities: CapabilitySet,
    test: impl FnOnce() -> T + Send,
) -> T {
    in_thread(|| {
        let (uid, gid) = (thread::Uid::from_raw(user), thread::Gid::from_raw(user));
        thread::set_keep_capabilities(true).unwrap();
        thread::set_thread_groups(&[]).unwrap();
        thread::set_thread_res_gid(gid, gid, gid).unwrap();
        thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let sets = CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: CapabilitySet::empty(),
        };
        thread::set_capabilities(None, sets).unwrap();
        test()
    })
}

/// [`hold`] for a user with these capabilities and no others.
fn hold_as(user: u32, capabilities: CapabilitySet, load: Answer, modes: Answers) {
    let name = format!("user {user}, {capabilities:?}");
    let situation: Situation<'_> = &|test| with_credentials(user, capabilities, test);
    clean(|| hold(&name, situation, load, modes));
}

const NONE: CapabilitySet = CapabilitySet::empty();

const BPF: CapabilitySet = CapabilitySet::BPF;

const PERFMON: CapabilitySet = CapabilitySet::PERFMON;

const BPF_AND_PERFMON: CapabilitySet = BPF.union(PERFMON);

const SYS_ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;

#[test]
fn root_may_do_everything_at_every_level_of_paranoia() {
    for level in ["2", "3"] {
        let _paranoid = Switch::paranoid(level);
        clean(|| hold("root", &|test| test(), Ok(()), WORKS));
    }
}

#[test]
fn cap_bpf_loads_cap_perfmon_attaches_and_who_may_write_has_tracefs() {
    let _paranoid = Switch::paranoid("2");
    let denied = denied(Errno::ACCESS, Cause::NoPermission);
    hold_as(ROOT, BPF_AND_PERFMON, Ok(()), WORKS);
    hold_as(NOBODY, BPF_AND_PERFMON, Ok(()), WORKS_WITHOUT_TRACEFS);
    let and_files = BPF_AND_PERFMON | CapabilitySet::DAC_OVERRIDE;
    hold_as(NOBODY, and_files, Ok(()), WORKS);
    hold_as(NOBODY, SYS_ADMIN, Ok(()), WORKS_WITHOUT_TRACEFS);
    hold_as(NOBODY, BPF, MAY_NOT_LOAD, denied);
    hold_as(NOBODY, NONE, MAY_NOT_LOAD, denied);
    hold_as(ROOT, NONE, MAY_NOT_LOAD, denied);
}

#[test]
fn cap_perfmon_alone_attaches_what_it_is_handed() {
    let _paranoid = Switch::paranoid("2");
    let [_, rest @ ..] = WORKS_WITHOUT_TRACEFS;
    let with_link = |link| [link, rest[0], rest[1], rest[2], rest[3]];
    let untold = with_link(Err((Step::ProbeKernel, Errno::PERM, Cause::NoPermission)));
    if kernel_name() == "5.10" {
        // It has no perf links, and without CAP_BPF does not even say so.
        hold_as(NOBODY, PERFMON, MAY_NOT_LOAD, untold);
    } else {
        hold_as(NOBODY, PERFMON, MAY_NOT_LOAD, WORKS_WITHOUT_TRACEFS);
    }
    // Only the program at hand can tell whether there are perf links: without it the question is
    // answered, and stays so.
    clean(|| {
        let handed = Counter::new();
        with_credentials(NOBODY, PERFMON, || {
            assert_eq!(attached(&asked(), &handed.program), untold);
        });
    });
}

#[test]
fn a_program_of_another_type_leaves_the_question_to_the_next_program() {
    const SOCKET_FILTER: u32 = 1;
    let _paranoid = Switch::paranoid("2");
    let other = load_as(SOCKET_FILTER, 0, 0).unwrap();
    let right = Counter::new();
    clean(|| {
        with_credentials(NOBODY, PERFMON, || {
            let kernel = Kernel::new();
            let link = KprobeOpts::new().attach_mode(AttachMode::Link);
            let attach = |program: BorrowedFd<'_>, opts| {
                answer(kernel.attach_kprobe(program, function(), opts))
            };
            let (no_answer, works) = if kernel_name() == "5.10" {
                // Without CAP_BPF it answers nothing.
                let denied = (Step::ProbeKernel, Errno::PERM, Cause::NoPermission);
                (denied, Err(denied))
            } else {
                let unknown = (Step::ProbeKernel, Errno::INVAL, Cause::Unknown);
                (unknown, Ok(()))
            };
            assert_eq!(attach(other.as_fd(), &link), Err(no_answer));
            let refused = Err((Step::SetBpf, Errno::INVAL, Cause::WrongProgram));
            let default = KprobeOpts::new();
            assert_eq!(attach(other.as_fd(), &default), refused);
            assert_eq!(attach(right.program.as_fd(), &link), works);
        });
    });
}

#[test]
fn at_level_3_of_paranoia_cap_sys_admin_alone_attaches() {
    let _paranoid = Switch::paranoid("3");
    let denied = denied(Errno::ACCESS, Cause::PerfEventParanoid);
    hold_as(NOBODY, SYS_ADMIN, Ok(()), WORKS_WITHOUT_TRACEFS);
    hold_as(NOBODY, BPF_AND_PERFMON, Ok(()), denied);
    hold_as(ROOT, BPF_AND_PERFMON, Ok(()), denied);
    hold_as(NOBODY, NONE, MAY_NOT_LOAD, denied);
    hold_as(ROOT, NONE, MAY_NOT_LOAD, denied);
}

#[test]
fn the_capabilities_of_a_user_namespace_do_not_count() {
    const NAME: &str = "privileges::the_capabilities_of_a_user_namespace_do_not_count";
    const HANDED: &str = "KPROBE_ATTACH_TEST_HANDED";
    // A process with threads cannot enter one. So this is run once more in another that has, with
    // the program handed over.
    if let Ok(handed) = std::env::var(HANDED) {
        let this = process::pidfd_open(process::getpid(), PidfdFlags::empty()).unwrap();
        let handed = handed.parse().unwrap();
        let handed = process::pidfd_getfd(this, handed, PidfdGetfdFlags::empty()).unwrap();
        return in_a_user_namespace(&handed);
    }
    for level in ["2", "3"] {
        let _paranoid = Switch::paranoid(level);
        clean(|| {
            let handed = Counter::new();
            let handed = handed.program.as_fd();
            rustix::io::fcntl_setfd(handed, FdFlags::empty()).unwrap(); // not closed on exec
            let output = Command::new("unshare")
                .args(["--user", "-r"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", NAME])
                .env(HANDED, handed.as_raw_fd().to_string())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains(" 1 passed;"),
                "{text}"
            );
        });
    }
}

fn in_a_user_namespace(handed: &OwnedFd) {
    let capabilities = thread::capabilities(None).unwrap().effective;
    assert!(capabilities.contains(BPF_AND_PERFMON | SYS_ADMIN));
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    assert_eq!(
        map.split_ascii_whitespace().collect::<Vec<_>>(),
        ["0", "0", "1"]
    );
    let cause = match fs::read_to_string(PARANOID).unwrap().trim() {
        "2" => Cause::NoPermission,
        _ => Cause::PerfEventParanoid,
    };
    assert_eq!(loaded(), MAY_NOT_LOAD);
    for kernel in [Kernel::new(), asked(), Kernel::with_program(handed)] {
        assert_eq!(attached(&kernel, handed), denied(Errno::ACCESS, cause));
    }
}

/// Runs a test with system calls answered by EPERM, as container runtimes do.
fn with_filters(syscalls: &[libc::c_long], test: &(dyn Fn() + Sync)) {
    match syscalls {
        [] => test(),
        [first, rest @ ..] => {
            with_filter(*first, None, Errno::PERM, || with_filters(rest, test));
        }
    }
}

const SECCOMP: Answer = Err((Step::ProbeKernel, Errno::PERM, Cause::Seccomp));

const MAY_NOT_LOAD_FOR_SECCOMP: Answer = Err((Step::LoadProgram, Errno::PERM, Cause::Seccomp));

#[test]
fn a_filter_of_bpf_leaves_the_ioctl_modes_to_a_program_that_is_handed_over() {
    for level in ["2", "3"] {
        let _paranoid = Switch::paranoid(level);
        let situation: Situation<'_> = &|test| with_filters(&[libc::SYS_bpf], test);
        let modes = [SECCOMP, Ok(()), SECCOMP, Ok(()), Ok(())];
        clean(|| hold("bpf", situation, MAY_NOT_LOAD_FOR_SECCOMP, modes));
    }
    with_filters(&[libc::SYS_bpf], &|| {
        let error = Program::open_id(1).unwrap_err();
        assert_eq!(error.cause(), Cause::Seccomp);
        assert!(error.to_string().contains("seccomp"), "{error}");
    });
}

#[test]
fn a_filter_of_perf_event_open_leaves_no_mode() {
    let perf_event_open: Situation<'_> = &|test| with_filters(&[libc::SYS_perf_event_open], test);
    let both = [libc::SYS_bpf, libc::SYS_perf_event_open];
    // A container has not the capabilities either, and would be refused without the filter.
    let container: Situation<'_> = &|test| {
        with_filters(&both, &|| {
            with_credentials(ROOT, CapabilitySet::CHOWN, test);
        });
    };
    let both: Situation<'_> = &|test| with_filters(&both, test);
    for level in ["2", "3"] {
        let _paranoid = Switch::paranoid(level);
        for (name, situation, load) in [
            ("perf_event_open", perf_event_open, Ok(())),
            ("both", both, MAY_NOT_LOAD_FOR_SECCOMP),
            ("container", container, MAY_NOT_LOAD),
        ] {
            clean(|| hold(name, situation, load, [SECCOMP; 5]));
        }
    }
}

#[test]
fn a_filter_of_something_else_is_not_to_blame() {
    let _paranoid = Switch::paranoid("2");
    let situation: Situation<'_> = &|test| {
        with_filters(&[libc::SYS_reboot], &|| {
            with_credentials(NOBODY, NONE, test);
        });
    };
    let denied = denied(Errno::ACCESS, Cause::NoPermission);
    clean(|| hold("a filter", situation, MAY_NOT_LOAD, denied));
}

#[test]
fn what_was_allowed_when_the_kernel_was_asked_is_refused_where_it_is_tried() {
    use Step::{CreateEvent, LinkCreate, PerfEventOpen};
    let _paranoid = Switch::paranoid("2");
    let not_open = Err((PerfEventOpen, Errno::ACCESS, Cause::NoPermission));
    let no_file = Err((CreateEvent, Errno::ACCESS, Cause::NoKprobeEvents));
    let filtered = |step| Err((step, Errno::PERM, Cause::Seccomp));
    let (no_link, no_event) = (filtered(LinkCreate), filtered(PerfEventOpen));
    let situations: [(Situation<'_>, [Answer; 4]); 4] = [
        (&|test| with_credentials(ROOT, NONE, test), [not_open; 4]),
        (
            &|test| with_credentials(NOBODY, NONE, test),
            [not_open, not_open, no_file, no_file],
        ),
        (
            &|test| with_filters(&[libc::SYS_bpf], test),
            [no_link, Ok(()), no_link, Ok(())],
        ),
        (
            &|test| with_filters(&[libc::SYS_perf_event_open], test),
            [no_event; 4],
        ),
    ];
    for (situation, modes) in situations {
        clean(|| {
            let counter = Counter::new();
            let kernel = asked();
            situation(&|| {
                let answers = attached(&kernel, &counter.program);
                for (mode, (got, expected)) in AttachMode::ALL.iter().zip(answers.iter().zip(modes))
                {
                    if promised().contains(mode) {
                        assert_eq!(*got, expected, "{mode}");
                    }
                }
            });
        });
    }
}

/// The level that the kernel is locked down to.
fn lockdown() -> String {
    let no_flags = rustix::mount::MountFlags::empty();
    let no_options = None::<&std::ffi::CStr>;
    let dir = "/sys/kernel/security";
    rustix::mount::mount("none", dir, "securityfs", no_flags, no_options).unwrap();
    let levels = fs::read_to_string(format!("{dir}/lockdown")).unwrap();
    let (_, level) = levels.split_once('[').unwrap();
    level.split_once(']').unwrap().0.to_owned()
}

/// What runs on a machine of its own, that was booted with `lockdown=integrity`: `ci/init` knows it
/// by the module's name.
mod lockdown_integrity {
    use super::{WORKS, clean, hold, lockdown};

    #[test]
    fn every_mode_works() {
        assert_eq!(lockdown(), "integrity");
        clean(|| hold("integrity", &|test| test(), Ok(()), WORKS));
    }
}

/// The same with `lockdown=confidentiality`.
mod lockdown_confidentiality {
    use std::fs;

    use kprobe_attach::error::{Cause, Step};
    use kprobe_attach::kernel::Support;
    use kprobe_attach::{Errno, Kernel};

    use super::fds;
    use super::{hold, lockdown};

    #[test]
    fn no_mode_works_and_lockdown_is_named() {
        assert_eq!(lockdown(), "confidentiality");
        let tracefs = fs::read_dir("/sys/kernel/tracing").unwrap();
        assert_eq!(tracefs.count(), 0, "tracefs is empty");
        let Support::No(reason) = Kernel::new().features().kprobe_events else {
            panic!("kprobe_events");
        };
        assert_eq!(
            (reason.errno, reason.cause),
            (Errno::NOENT, Cause::Lockdown)
        );
        let pmu = Err((Step::ProbeKernel, Errno::PERM, Cause::Lockdown));
        let tracefs = Err((Step::ProbeKernel, Errno::OPNOTSUPP, Cause::Lockdown));
        let before = fds();
        hold(
            "confidentiality",
            &|test| test(),
            Ok(()),
            [pmu, pmu, tracefs, tracefs, pmu],
        );
        assert_eq!(fds(), before);
    }
}
