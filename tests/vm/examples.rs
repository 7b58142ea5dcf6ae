//! The examples, as their users run them: each is one that `ci/examples.sh` has built.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use kprobe_attach::Errno;
use kprobe_attach::bpf::{Array, Program};
use kprobe_attach::fd::{AsFd, AsRawFd};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::machine::{
    Counter, FUNCTION, KPROBES, clean, counting_by_cookie, link_modes, ours, pin, promised, text,
    unlink, wait_until,
};

const PIN: &str = "/sys/fs/bpf/example";

fn example(name: &str) -> Command {
    Command::new(format!("/examples/{name}"))
}

fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().unwrap()
}

/// Runs a test with a pinned program that counts.
fn with_pin(test: impl FnOnce(&Counter)) {
    clean(|| {
        let counter = Counter::new();
        let _pinned = Pinned::new(&counter.program);
        test(&counter);
    });
}

/// A pin, which is removed whatever comes of the test.
struct Pinned;

impl Pinned {
    fn new(program: &Program) -> Self {
        pin(program, PIN);
        Self
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        fs::remove_file(PIN).unwrap();
    }
}

/// An example that runs.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut command = example(name);
        command.args(args).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Ends its standard input, and returns what else it prints.
    fn end(mut self) -> (String, ExitStatus) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A usage that is wrong, and what the kernel refuses.
fn fails_as_it_should(name: &str, wrong: &[&[&str]], refused: &[&str], reason: &str) {
    for args in wrong {
        let output = run(name, args);
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}");
        let usage = format!("usage: {name} ");
        assert!(text(&output.stderr).starts_with(&usage), "{output:?}");
    }
    let output = run(name, refused);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains(reason), "{output:?}");
}

#[test]
fn an_agent_with_std_attaches_a_file_descriptor_of_another_loader() {
    with_pin(|counter| {
        let mut agent = Running::start("agent", &[PIN, FUNCTION]);
        let attached = agent.line();
        let mode = promised()[0];
        assert_eq!(attached, format!("attached to {FUNCTION} in mode {mode}\n"));
        unlink(3);
        assert_eq!(counter.hits(), 3);
        let (rest, status) = agent.end();
        assert!(status.success());
        let (missed, detached) = rest.split_once('\n').unwrap();
        assert!(
            ["0 hits missed", "hits missed: unknown"].contains(&missed),
            "{rest}"
        );
        assert_eq!(detached, "detached\n");
        unlink(1);
        assert_eq!(counter.hits(), 3);
        fails_as_it_should(
            "agent",
            &[&[], &[PIN]],
            &[PIN, "no_such_function"],
            "no_such_function: perf_event_open: ENOENT",
        );
    });
}

#[test]
fn a_daemon_sweeps_what_the_one_before_it_left() {
    with_pin(|counter| {
        let probe = format!("{FUNCTION},mode=legacy");
        let mut first = Running::start("daemon", &[PIN, &probe, "vfs_mkdir"]);
        assert_eq!(first.line(), "0 removed, 0 in use\n");
        assert_eq!(first.line(), "2 attached\n");
        unlink(3);
        assert_eq!(counter.hits(), 3);
        first.kill();
        unlink(1);
        assert_eq!(counter.hits(), 3);
        let [left] = &ours()[..] else {
            panic!("{:?}", ours());
        };
        let name = left[2..].split(' ').next().unwrap();

        let mut second = Running::start("daemon", &[PIN, &probe]);
        assert_eq!(second.line(), format!("removed {name}\n"));
        assert_eq!(second.line(), "1 removed, 0 in use\n");
        assert_eq!(second.line(), "1 attached\n");
        // The next one leaves the event alone, since its owner lives.
        let mut third = Running::start("daemon", &[PIN, FUNCTION]);
        assert_eq!(third.line(), "0 removed, 1 in use\n");
        assert_eq!(third.line(), "1 attached\n");
        unlink(2);
        assert_eq!(counter.hits(), 7);
        third.kill();
        second.kill();

        fails_as_it_should(
            "daemon",
            &[&[], &[PIN]],
            &["/sys/fs/bpf/none", FUNCTION],
            "open-program: ENOENT",
        );
    });
}

#[test]
fn a_program_without_libc_has_its_arguments_and_counts() {
    clean(|| {
        let child = example("arguments")
            .args([FUNCTION, "2"])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        wait_until(|| fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
        let mut done = 0;
        while child.try_wait().unwrap().is_none() {
            unlink(1);
            done += 1;
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let counted = text(&output.stdout).strip_prefix("vfs_unlink: ").unwrap();
        let counted = counted.strip_suffix(" calls\n").unwrap();
        let counted: u64 = counted.parse().unwrap();
        assert!((1..=done).contains(&counted), "{counted} of {done}");

        let wrong: [&[&str]; 4] = [
            &[],
            &["vfs_read", "x"],
            &["vfs_read", "1", "2"],
            &["\u{1}", ""],
        ];
        fails_as_it_should(
            "arguments",
            &wrong,
            &["no_such_function"],
            "no_such_function: perf_event_open: ENOENT",
        );
        // With a closed standard output, the map does not get its number.
        let closed = Command::new("/bin/sh")
            .args(["-c", "/examples/arguments vfs_read >&-"])
            .status();
        assert_eq!(closed.unwrap().code(), Some(1));
    });
}

#[test]
fn a_program_of_c_attaches_with_libc_of_gnu_and_with_musl() {
    for name in ["attach-gnu", "attach-musl"] {
        with_pin(|counter| {
            let mut program = Running::start(name, &[PIN, FUNCTION]);
            let attached = program.line();
            let start = format!("attached to {FUNCTION} by file descriptor ");
            assert!(attached.starts_with(&start), "{attached}");
            unlink(3);
            assert_eq!(counter.hits(), 3);
            let (rest, status) = program.end();
            assert_eq!(rest, "detached\n");
            assert!(status.success());
            unlink(1);
            assert_eq!(counter.hits(), 3);
            let output = run(name, &[PIN, "no_such_function"]);
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(
                text(&output.stderr),
                "no_such_function: No such file or directory\n"
            );
        });
    }
}

#[test]
fn a_program_of_c_hands_over_its_cookie() {
    clean(|| {
        if link_modes().is_empty() {
            let counter = Counter::new();
            let _pinned = Pinned::new(&counter.program);
            let output = run("attach-musl", &[PIN, FUNCTION, "3"]);
            assert_eq!(output.status.code(), Some(1));
            let message = text(&output.stderr);
            assert!(
                message.starts_with("vfs_unlink: Not supported"),
                "{message}"
            );
        } else {
            let counters = Array::create(8).unwrap();
            let program = counting_by_cookie(&counters);
            let _pinned = Pinned::new(&program);
            let mut running = Running::start("attach-gnu", &[PIN, FUNCTION, "3"]);
            assert!(running.line().starts_with("attached"));
            unlink(2);
            assert!(running.end().1.success());
            let hits: Vec<_> = (0..8).map(|index| counters.get(index).unwrap()).collect();
            assert_eq!(hits, [0, 0, 0, 2, 0, 0, 0, 0]);
        }
    });
}

#[test]
fn a_program_of_c_needs_no_libc() {
    clean(|| {
        let counter = Counter::new();
        fcntl_setfd(&counter.program, FdFlags::empty()).unwrap(); // not closed on exec
        let fd = counter.program.as_fd().as_raw_fd();
        let status = |function: &str| {
            let script = format!("exec /examples/nostdlib {function} <&{fd}");
            let status = Command::new("/bin/sh").args(["-c", &script]).status();
            status.unwrap().code()
        };
        assert_eq!(status(FUNCTION), Some(0));
        assert_eq!(
            status("no_such_function"),
            Some(Errno::NOENT.raw_os_error())
        );
    });
}

/// The checks are those of `tests/c/opts.c`.
#[test]
fn the_options_of_c_are_valid_by_libbpfs_rules() {
    with_pin(|_| {
        let output = run("opts", &[PIN, FUNCTION]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), "ok\n");
    });
}
