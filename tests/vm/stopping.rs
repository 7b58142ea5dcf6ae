//! What ends the program, and what it leaves to the command and to the output then.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kprobe_attach::fd::IntoRawFd;

use super::machine::{
    Counter, FUNCTION, KPROBES, attached, clean, json, pin, program, promised, run, unlink,
    wait_until,
};

/// The signals of `signal(7)` that end a process and can be caught: all but `SIGKILL`, those that
/// stop it or let it go on, and those that are ignored. Of the real-time signals the first that the
/// C library leaves to others, and the last.
fn ending_signals() -> impl Iterator<Item = i32> {
    let others = [
        libc::SIGKILL,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    (1..=31)
        .filter(move |signal| !others.contains(signal))
        .chain([libc::SIGRTMIN(), libc::SIGRTMAX()])
}

/// Sends a signal.
fn send(child: &Child, signal: i32) {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    #[allow(unsafe_code, reason = "rustix sends no real-time signals")]
    // SAFETY: takes numbers.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0);
}

/// How long the end may take: a second, and two more for an emulated machine that has other things
/// to do.
const SOON: Duration = Duration::from_secs(3);

/// Waits for the end, which is to come soon.
fn ends_soon(mut child: Child, case: &str) -> Output {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > SOON {
            child.kill().unwrap();
            panic!("{case}: it goes on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Runs a script of the shell, whose `$0` is the program.
fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program().get_program());
    shell
}

#[test]
fn every_signal_that_would_end_a_process_detaches_in_every_mode() {
    for mode in promised() {
        for signal in ending_signals() {
            clean(|| {
                let child = attached(&["count", "--json", "--mode", mode.name(), FUNCTION]);
                unlink(1);
                send(&child, signal);
                let case = format!("{mode}, signal {signal}");
                let output = ends_soon(child, &case);
                assert_eq!(output.status.code(), Some(0), "{case}");
                assert_eq!(json(&output.stdout)[0]["hits"], 1, "{case}");
            });
        }
    }
}

#[test]
fn other_signals_end_nothing() {
    clean(|| {
        let child = attached(&["count", "--json", FUNCTION]);
        for signal in [
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGWINCH,
            libc::SIGTSTP,
            libc::SIGCONT,
        ] {
            send(&child, signal);
        }
        unlink(1);
        send(&child, libc::SIGUSR1);
        let output = ends_soon(child, "signals");
        assert_eq!(json(&output.stdout)[0]["hits"], 1);
    });
}

/// A descriptor as the standard library has it.
fn owned(fd: impl IntoRawFd) -> OwnedFd {
    #[allow(unsafe_code, reason = "rustix's own type, without its feature `std`")]
    // SAFETY: it was owned until now.
    unsafe {
        OwnedFd::from_raw_fd(fd.into_raw_fd())
    }
}

/// A pipe that takes 4096 bytes: its reader, and its writer.
fn small_pipe() -> (kprobe_attach::fd::OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(rustix::pipe::fcntl_setpipe_size(&writer, 4096), Ok(4096));
    (reader, owned(writer))
}

/// An output that nobody reads, and what keeps it so.
fn stalled(kind: &str) -> (OwnedFd, Box<dyn std::any::Any>) {
    match kind {
        "pipe" => {
            let (reader, writer) = small_pipe();
            let mut writer = fs::File::from(writer);
            writer.write_all(&[b'.'; 4096]).unwrap();
            (writer.into(), Box::new(reader))
        }
        "socket" => {
            let (mut writer, reader) = UnixStream::pair().unwrap();
            writer.set_nonblocking(true).unwrap();
            while writer.write(&[b'.'; 4096]).is_ok() {}
            writer.set_nonblocking(false).unwrap();
            (writer.into(), Box::new(reader))
        }
        "terminal" => {
            let mut ends = [-1; 2];
            let [master, slave] = &mut ends;
            let (name, settings) = (std::ptr::null_mut(), std::ptr::null());
            #[allow(unsafe_code, reason = "no library opens both ends of a terminal")]
            // SAFETY: two descriptors are written, and nothing else is asked for.
            let opened = unsafe { libc::openpty(master, slave, name, settings, std::ptr::null()) };
            assert_eq!(opened, 0);
            #[allow(unsafe_code, reason = "see above")]
            // SAFETY: both have just been opened.
            let [master, slave] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            // As Ctrl-S does.
            #[allow(unsafe_code, reason = "see above")]
            // SAFETY: takes numbers.
            let stopped = unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOOFF) };
            assert_eq!(stopped, 0);
            (slave, Box::new(master))
        }
        _ => unreachable!(),
    }
}

const STALLED: [&str; 3] = ["pipe", "socket", "terminal"];

/// Waits until a function is probed, or is not.
fn probed(expected: bool) {
    wait_until(|| fs::read_to_string(KPROBES).unwrap().contains(FUNCTION) == expected);
}

#[test]
fn an_output_that_nobody_reads_keeps_nothing_from_ending() {
    let counter = Counter::new();
    let id = format!("id:{}", counter.program.id().unwrap());
    for mode in promised() {
        let count = &["count", "--interval", "0.05", "--mode", mode.name()][..];
        let attach = &["attach", "--program", &id, "--mode", mode.name()][..];
        for kind in STALLED {
            for command in [count, attach] {
                for end in ["TERM", "INT", "for", "command"] {
                    clean(|| {
                        let case = format!("{command:?}, {kind}, {end}");
                        let (output, _reader) = stalled(kind);
                        let mut child = program();
                        child.args(command).arg(FUNCTION).stdout(output);
                        match end {
                            "for" => child.args(["--for", "0.8"]),
                            // `attach` is kept from starting it, by the line that says so.
                            "command" if command == count => child.args(["--", "sleep", "0.8"]),
                            _ => &mut child,
                        };
                        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
                        probed(true);
                        // It has stood still for a while.
                        std::thread::sleep(Duration::from_millis(500));
                        match end {
                            "TERM" => send(&child, libc::SIGTERM),
                            "INT" => send(&child, libc::SIGINT),
                            "command" if command == attach => send(&child, libc::SIGHUP),
                            _ => {}
                        }
                        let mut messages = String::new();
                        let stderr = child.stderr.take();
                        let output = ends_soon(child, &case);
                        stderr.unwrap().read_to_string(&mut messages).unwrap();
                        assert_eq!(output.status.code(), Some(1), "{case}: {messages}");
                        assert!(
                            messages.contains("standard output: EAGAIN: output is lost"),
                            "{case}: {messages}"
                        );
                    });
                }
            }
        }
    }
}

#[test]
fn messages_that_nobody_reads_keep_nothing_from_running_and_ending() {
    for kind in STALLED {
        for end in ["TERM", "for", "command"] {
            clean(|| {
                let (messages, _reader) = stalled(kind);
                let mut child = program();
                child.args(["count", "--json", FUNCTION]);
                match end {
                    "for" => child.args(["--for", "0.8"]),
                    "command" => child.args(["--", "sleep", "0.8"]),
                    _ => &mut child,
                };
                let child = child.stderr(messages).stdout(Stdio::piped());
                let child = child.spawn().unwrap();
                probed(true);
                // The program is bound a moment after.
                for _ in 0..10 {
                    unlink(1);
                    std::thread::sleep(Duration::from_millis(50));
                }
                if end == "TERM" {
                    send(&child, libc::SIGTERM);
                }
                let output = ends_soon(child, &format!("{kind}, {end}"));
                assert_eq!(output.status.code(), Some(0), "{kind}, {end}");
                let hits = json(&output.stdout)[0]["hits"].as_u64();
                assert!(hits > Some(0), "{kind}, {end}");
            });
        }
    }
}

#[test]
fn a_slow_reader_gets_everything() {
    clean(|| {
        let (reader, writer) = small_pipe();
        let probe = format!("{FUNCTION},offset={}", "0".repeat(500));
        let mut child = {
            let mut child = program();
            child.args(["count", "--json"]).args(vec![&probe; 20]);
            let child = child.args(["--for", "0"]).stdout(writer);
            child.stderr(Stdio::null()).spawn().unwrap()
        };
        let mut output = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            // So slowly that writes wait for ticks.
            std::thread::sleep(Duration::from_millis(15));
            match rustix::io::read(&reader, &mut buffer).unwrap() {
                0 => break,
                len => output.extend_from_slice(&buffer[..len]),
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(json(&output).len(), 20);
    });
}

#[test]
fn output_that_is_lost_is_a_failure_with_a_word() {
    const PIN: &str = "/sys/fs/bpf/stopping";
    let counter = Counter::new();
    pin(&counter.program, PIN);
    let attach = format!("attach --for 0 --program {PIN} {FUNCTION}");
    for (redirection, errno) in [
        (">/dev/full", "ENOSPC"),
        (">&-", "EBADF"),
        ("1</dev/null", "EBADF"),
    ] {
        for args in [
            "--help",
            "--version",
            "features",
            "features --json",
            &format!("plan {FUNCTION}"),
            &format!("explain {FUNCTION}"),
            &format!("count --for 0 {FUNCTION}"),
            &format!("count --for 0 --json {FUNCTION}"),
            &format!("count --interval 0.1 {FUNCTION}"),
            &format!("count {FUNCTION} -- true"),
            &attach,
        ] {
            clean(|| {
                let script = format!("exec \"$0\" {args} {redirection}");
                let output = shell(&script).output().unwrap();
                let messages = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(1), "{script}: {messages}");
                let word = format!("standard output: {errno}: output is lost");
                assert!(messages.contains(&word), "{script}: {messages}");
            });
        }
        // There was nothing to write.
        let output = shell(&format!("exec \"$0\" sweep {redirection}")).output();
        assert_eq!(output.unwrap().status.code(), Some(0), "{redirection}");
    }
    fs::remove_file(PIN).unwrap();
}

#[test]
fn a_command_gets_what_the_caller_gave_and_nothing_else() {
    const SEEN: &str = "/tmp/seen";
    // What a process has: its open descriptors, its limit of them, and how it takes signals.
    // By the shell alone: while it starts something it may keep signals back.
    let look = format!(
        "for n in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || l=\"$l $n\"; done; \
         {{ echo $l; ulimit -n; \
         while read -r line; do case $line in Sig[BIC]*) echo $line; esac; done; \
         }} </proc/$$/status >{SEEN}"
    );
    let modes = promised();
    for mode in [modes[0], modes[modes.len() - 1]] {
        for given in ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "7</dev/null"] {
            let sets = ["", "trap '' CHLD URG USR1;", "ulimit -Sn 20;"];
            for set in &sets[..if given.starts_with("0<&- 1") { 3 } else { 1 }] {
                clean(|| {
                    let mut seen = ["exec", "exec \"$0\" count --quiet"].map(|begin| {
                        let probes = match begin {
                            "exec" => String::new(),
                            // More than the limit that is set there allows.
                            _ if set.starts_with("ulimit") => {
                                let many = [FUNCTION; 12].join(" ");
                                format!("--mode {mode} {many} --")
                            }
                            _ => format!("--mode {mode} {FUNCTION} --"),
                        };
                        let script = format!("{set} {begin} {probes} sh -c '{look}' {given}");
                        let _ = shell(&script).output().unwrap();
                        let seen = fs::read_to_string(SEEN);
                        let seen = seen.unwrap_or_else(|error| panic!("{script}: {error}"));
                        fs::remove_file(SEEN).unwrap();
                        seen
                    });
                    let [plain, counted] = &mut seen;
                    assert_eq!(counted, plain, "{mode}: {set} {given}");
                });
            }
        }
    }
}

#[test]
fn a_command_that_is_stopped_is_ended_too() {
    for mode in promised() {
        clean(|| {
            let args = ["count", "--mode", mode.name(), "--for", "0.3", FUNCTION];
            let child = program()
                .args(args)
                .args(["--", "sh", "-c", "kill -STOP $$"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let output = ends_soon(child, "a stopped command");
            assert_eq!(output.status.code(), Some(128 + 15));
        });
    }
}

#[test]
fn a_script_is_told_what_ends_it() {
    clean(|| {
        for (ignored, key) in [("INT", "SIGTERM"), ("USR1", "Ctrl-C")] {
            let script = format!("trap '' {ignored}; exec \"$0\" count --json {FUNCTION}");
            let mut child = shell(&script);
            child.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = child.spawn().unwrap();
            let mut first = [0; 64];
            let len = child.stderr.as_mut().unwrap().read(&mut first).unwrap();
            let said = std::str::from_utf8(&first[..len]).unwrap();
            assert!(said.contains(&format!("; {key} detaches")), "{said}");
            // What was to be ignored stays so.
            for signal in [libc::SIGINT, libc::SIGUSR1, libc::SIGTERM] {
                if (signal == libc::SIGINT) == (ignored == "INT") {
                    send(&child, signal);
                }
            }
            if ignored == "INT" {
                std::thread::sleep(Duration::from_millis(200));
                assert!(child.try_wait().unwrap().is_none());
                send(&child, libc::SIGTERM);
            }
            let output = ends_soon(child, key);
            assert_eq!(output.status.code(), Some(0));
        }
    });
}

#[test]
fn a_signal_interrupts_the_attaching_of_many() {
    for mode in promised() {
        clean(|| {
            let mut child = program();
            child.args(["count", "--mode", mode.name()]);
            child.args(vec![FUNCTION; 1000]);
            child.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = child.spawn().unwrap();
            probed(true);
            send(&child, libc::SIGTERM);
            let output = child.wait_with_output().unwrap();
            let messages = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{mode}: {messages}");
            assert!(messages.contains("interrupted"), "{mode}: {messages}");
            assert!(output.stdout.is_empty(), "{mode}");
        });
    }
}

#[test]
fn each_round_of_an_interval_has_an_end() {
    let args = ["count", "--quiet", "--interval", "0.2", "--for", "1"];
    let probes = [FUNCTION, "vfs_mkdir"];
    let output = run(&[&args[..], &["--json"], &probes].concat());
    let lines = json(&output.stdout);
    assert!(lines.len() >= 4 && lines.len() % 2 == 0, "{lines:?}");
    for round in lines.chunks(2) {
        assert_eq!(round[0]["probe"], probes[0]);
        assert_eq!(round[0]["last"], false);
        assert_eq!(round[1]["probe"], probes[1]);
        assert_eq!(round[1]["last"], true);
    }
    let output = run(&[&args[..], &probes].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let rounds: Vec<_> = text.split("\n\n").collect();
    assert!(rounds.len() >= 2, "{text}");
    for round in rounds {
        assert!(round.starts_with("PROBE"), "{text}");
        assert_eq!(round.lines().count(), 3, "{text}");
    }
}

#[test]
fn a_signal_amid_the_trial_of_explain_leaves_nothing() {
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        clean(|| {
            // What it writes first is the definition of the trial's event.
            let output = Command::new("/bin/strace")
                .args(["-o", "/dev/null", "-e", "trace=write"])
                .args(["-e", "inject=write:signal=USR1:when=1"])
                .arg(program().get_program())
                .args(["explain", "--mode", mode.name(), FUNCTION])
                .output()
                .unwrap();
            assert!(!output.status.success(), "{mode}: {output:?}");
        });
    }
}
