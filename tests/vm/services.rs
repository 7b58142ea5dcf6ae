//! The recipes of `src/guide/services.md` and `src/guide/containers.md`: with the rights that they
//! give, and no others, the program counts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use kprobe_attach::AttachMode;
use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter};
use rustix::thread::{self, CapabilitySet, CapabilitySets, UnshareFlags};
use serde_json::Value;

use crate::machine::{Switch, clean, in_thread, program, promised, text, unlink};

const SERVICES: &str = include_str!("../../src/guide/services.md");
const CONTAINERS: &str = include_str!("../../src/guide/containers.md");

/// The user of the service.
const USER: u32 = 64000;

/// What systemd allows to each service; of these, what the program makes.
const IMPLICIT: [&str; 3] = ["execve", "exit_group", "rt_sigreturn"];

/// The names and numbers of system calls.
macro_rules! numbers {
    ($($number:ident)*) => {
        [$((stringify!($number), libc::$number)),*]
    };
}

/// Returns the number of a system call.
fn number(name: &str) -> c_long {
    let numbers = numbers![
        SYS_bpf SYS_clock_gettime SYS_close SYS_dup SYS_execve SYS_exit_group SYS_fcntl SYS_fstatfs
        SYS_ioctl SYS_mmap SYS_openat SYS_perf_event_open SYS_prctl SYS_prlimit64 SYS_read
        SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait
        SYS_sched_getaffinity SYS_timer_create SYS_timer_settime SYS_write
    ];
    let found = numbers
        .iter()
        .find(|(known, _)| known.strip_prefix("SYS_") == Some(name));
    found
        .unwrap_or_else(|| panic!("no number for {name}: add it"))
        .1
}

/// Returns the words of a key of the unit.
fn unit(key: &str) -> Vec<&'static str> {
    let (_, unit) = SERVICES.split_once("```ini\n").unwrap();
    let (unit, _) = unit.split_once("```").unwrap();
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let values = lines.filter(|(found, _)| *found == key);
    let words: Vec<_> = values
        .flat_map(|(_, value)| value.split_whitespace())
        .collect();
    assert!(!words.is_empty(), "no {key}");
    words
}

fn capabilities(names: &[&str]) -> CapabilitySet {
    let capability = |name: &&str| match name.trim_start_matches("CAP_") {
        "BPF" => CapabilitySet::BPF,
        "PERFMON" => CapabilitySet::PERFMON,
        _ => panic!("unknown: {name}"),
    };
    names.iter().map(capability).collect()
}

/// Returns a filter that answers EPERM to every other system call.
fn only(calls: &[&str]) -> Vec<sock_filter> {
    let step = |code, jt, k| sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf: 0,
        k,
    };
    // struct seccomp_data: the number at 0.
    let mut filter = vec![step(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
    for (name, left) in calls.iter().zip((1..=calls.len()).rev()) {
        let number = u32::try_from(number(name)).unwrap();
        filter.push(step(
            BPF_JMP | BPF_JEQ | BPF_K,
            u8::try_from(left).unwrap(),
            number,
        ));
    }
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    filter.push(step(BPF_RET | BPF_K, 0, refuse));
    filter.push(step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    filter
}

/// Installs a filter for this process and what it executes.
fn install(filter: &[sock_filter]) -> io::Result<()> {
    thread::set_no_new_privs(true)
        .map_err(|errno| io::Error::from_raw_os_error(errno.raw_os_error()))?;
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    #[allow(unsafe_code, reason = "the filter of a service")]
    // SAFETY: installs a filter on this thread; the program is read and copied.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs a command in a root, as a user with these capabilities, and no way to others.
fn run_as(root: &str, user: u32, capabilities: CapabilitySet, command: &mut Command) -> Output {
    in_thread(|| {
        #[allow(unsafe_code, reason = "the other threads keep their root")]
        // SAFETY: no file descriptor is lost, only the root is no longer shared.
        unsafe { thread::unshare_unsafe(UnshareFlags::FS) }.unwrap();
        rustix::process::chroot(root).unwrap();
        rustix::process::chdir("/").unwrap();
        let (uid, gid) = (thread::Uid::from_raw(user), thread::Gid::from_raw(user));
        for (_, other) in CapabilitySet::all().iter_names() {
            if !capabilities.contains(other)
                && thread::capability_is_in_bounding_set(other).unwrap()
            {
                thread::remove_capability_from_bounding_set(other).unwrap();
            }
        }
        thread::set_keep_capabilities(true).unwrap();
        thread::set_thread_groups(&[]).unwrap();
        thread::set_thread_res_gid(gid, gid, gid).unwrap();
        thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let sets = CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: capabilities,
        };
        thread::set_capabilities(None, sets).unwrap();
        for (_, given) in capabilities.iter_names() {
            thread::configure_capability_in_ambient_set(given, true).unwrap();
        }
        command.output().unwrap()
    })
}

/// Returns the arguments of the unit's program, but that it ends soon.
fn arguments() -> Vec<&'static str> {
    let mut arguments = unit("ExecStart").split_off(1);
    arguments.extend(["--for", "0.5"]);
    arguments
}

/// Runs the unit's program with the unit's rights, but for these.
fn run_unit(without: &str) -> Output {
    let left = |words: Vec<&'static str>| -> Vec<_> {
        words.into_iter().filter(|word| *word != without).collect()
    };
    let given = capabilities(&left(unit("CapabilityBoundingSet")));
    let filter = only(&left([unit("SystemCallFilter"), IMPLICIT.into()].concat()));
    let mut command = program();
    command.args(arguments());
    #[allow(unsafe_code, reason = "a filter that even a child's start would meet")]
    // SAFETY: it makes two system calls, and allocates nothing.
    unsafe {
        command.pre_exec(move || install(&filter));
    }
    run_as("/", USER, given, &mut command)
}

/// Returns what is reported, line by line.
fn lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_unit_counts_with_its_capabilities_and_system_calls() {
    assert_eq!(unit("CapabilityBoundingSet"), unit("AmbientCapabilities"));
    let _paranoid = Switch::paranoid("2");
    clean(|| {
        let output = std::thread::scope(|scope| {
            let counting = scope.spawn(|| run_unit("nothing"));
            while !counting.is_finished() {
                unlink(1);
            }
            counting.join().unwrap()
        });
        assert!(output.status.success(), "{output:?}");
        let lines = lines(&output);
        assert_eq!(lines.len(), 2, "{output:?}");
        assert!(
            lines.iter().all(|line| line["hits"].as_u64() > Some(0)),
            "{output:?}"
        );
        for capability in unit("CapabilityBoundingSet") {
            let output = run_unit(capability);
            assert_eq!(output.status.code(), Some(1), "{capability}: {output:?}");
            assert!(
                text(&output.stdout).contains(r#""cause":"no-permission""#),
                "{capability}: {output:?}"
            );
        }
    });
}

#[test]
fn the_unit_reports_that_the_level_is_too_high() {
    let _paranoid = Switch::paranoid("3");
    let output = run_unit("nothing");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stdout).contains(r#""cause":"perf-event-paranoid""#),
        "{output:?}"
    );
}

/// Returns the system calls of the unit's program, of this level.
fn calls_made(level: &str) -> BTreeSet<String> {
    const TRACE: &str = "/tmp/services";
    let _paranoid = Switch::paranoid(level);
    fs::write(TRACE, "").unwrap();
    chown(TRACE, Some(USER), None).unwrap();
    let mut command = Command::new("/bin/strace");
    command.args(["-o", TRACE]).arg(program().get_program());
    command.args(arguments());
    let given = capabilities(&unit("CapabilityBoundingSet"));
    let output = run_as("/", USER, given, &mut command);
    let succeeds = level == "2";
    assert_eq!(output.status.success(), succeeds, "{output:?}");
    let trace = fs::read_to_string(TRACE).unwrap();
    fs::remove_file(TRACE).unwrap();
    let calls = trace.lines().filter_map(|line| line.split_once('('));
    calls.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_unit_allows_no_system_call_that_is_not_made() {
    let made: BTreeSet<_> = calls_made("2").into_iter().chain(calls_made("3")).collect();
    let allowed = [unit("SystemCallFilter"), IMPLICIT.into()].concat();
    let allowed: BTreeSet<_> = allowed.into_iter().map(str::to_owned).collect();
    if promised().contains(&AttachMode::Link) {
        assert_eq!(made, allowed);
    } else {
        assert!(made.is_subset(&allowed), "{made:?}");
    }
}

#[test]
fn a_container_counts_with_the_capabilities_of_the_recipes() {
    const ROOT: &str = "/tmp/container";
    let added: Vec<_> = CONTAINERS
        .lines()
        .filter_map(|line| line.strip_prefix("docker run "))
        .flat_map(|line| line.split("--cap-add ").skip(1))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    assert_eq!(added, ["BPF", "PERFMON"]);
    assert!(CONTAINERS.contains("podman run --rm --cap-drop ALL --cap-add BPF --cap-add PERFMON "));
    assert!(CONTAINERS.contains("add: [BPF, PERFMON]"));
    let _paranoid = Switch::paranoid("2");
    fs::create_dir(ROOT).unwrap();
    fs::copy(program().get_program(), format!("{ROOT}/kprobe-attach")).unwrap();
    let mut command = Command::new("/kprobe-attach");
    command.args(["count", "--json", "--for", "0.5"]);
    command.args(["vfs_write", "kretprobe/vfs_write"]);
    // Nothing is there but the program, not even /dev/null.
    command.stdin(Stdio::inherit());
    let output = run_as(ROOT, 0, capabilities(&added), &mut command);
    fs::remove_dir_all(ROOT).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(&output).len(), 2, "{output:?}");
}
