//! What ends the program, and what it leaves to the command then.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::machine::{
    FUNCTION, KPROBES, at_once, attached, clean, ends_soon, json, program, promised, run, send,
    shell, unlink, wait_until, without_symbols,
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

#[test]
fn every_signal_that_would_end_a_process_detaches_in_every_mode() {
    for mode in promised() {
        clean(|| {
            let start = |signal| {
                let args = ["count", "--json", "--mode", mode.name(), FUNCTION];
                (signal, attached(&args))
            };
            let children: Vec<_> = ending_signals().map(start).collect();
            unlink(1);
            for (signal, child) in &children {
                send(child, *signal);
            }
            for (signal, child) in children {
                let case = format!("{mode}, signal {signal}");
                let output = ends_soon(child, &case);
                assert_eq!(output.status.code(), Some(0), "{case}");
                assert_eq!(json(&output.stdout)[0]["hits"], 1, "{case}");
            }
        });
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

#[test]
fn a_command_gets_what_the_caller_gave_and_nothing_else() {
    // Prints the open descriptors, the limit of them, and how signals are taken. The shell becomes
    // the process that prints the last, because it may hold signals back while it starts another.
    let look = "for n in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || l=\"$l $n\"; done; \
         exec >/tmp/seen.$1; echo $l; ulimit -n; exec grep Sig[BIC] /proc/self/status";
    let modes = promised();
    // More probes than the limit that is set allows.
    let many = format!("--mode {} {}", modes[0], [FUNCTION; 12].join(" "));
    let mut cases = vec![("ulimit -Sn 20;", "0<&- 1>&- 2>&-", many)];
    for mode in [modes[0], modes[modes.len() - 1]] {
        for given in ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "7</dev/null"] {
            cases.push(("", given, format!("--mode {mode} {FUNCTION}")));
        }
        let set = "trap '' CHLD URG USR1;";
        cases.push((set, "0<&- 1>&- 2>&-", format!("--mode {mode} {FUNCTION}")));
    }
    let cases: Vec<_> = cases.into_iter().enumerate().collect();
    at_once(&cases, |(number, (set, given, probes))| {
        let [plain, counted] =
            [String::new(), format!("\"$0\" count --quiet {probes} --")].map(|begin| {
                let script = format!("{set} exec {begin} sh -c '{look}' sh {number} {given}");
                let _ = shell(&script).output().unwrap();
                let path = format!("/tmp/seen.{number}");
                let seen = fs::read_to_string(&path);
                let seen = seen.unwrap_or_else(|error| panic!("{script}: {error}"));
                fs::remove_file(path).unwrap();
                seen
            });
        assert!(plain.contains("SigBlk"), "{plain}");
        assert_eq!(counted, plain, "{set} {given}: {probes}");
    });
}

#[test]
fn a_command_that_is_stopped_is_ended_too() {
    at_once(&promised(), |mode| {
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
            // A signal that the caller ignores is still ignored.
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
    for (mode, json_lines) in promised()
        .into_iter()
        .flat_map(|mode| [(mode, false), (mode, true)])
    {
        clean(|| {
            let mut child = program();
            child.args(["count", "--mode", mode.name()]);
            child.args(json_lines.then_some("--json"));
            child.args(vec![FUNCTION; 1000]);
            child.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = child.spawn().unwrap();
            wait_until(|| fs::read_to_string(KPROBES).unwrap().contains(FUNCTION));
            send(&child, libc::SIGTERM);
            let output = child.wait_with_output().unwrap();
            let messages = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(128 + 15), "{mode}: {messages}");
            if json_lines {
                is_failure_of_the_run(&output.stdout, "EINTR", "unknown");
            } else {
                assert!(messages.contains("interrupted"), "{mode}: {messages}");
                assert!(output.stdout.is_empty(), "{mode}");
            }
        });
    }
}

#[test]
fn a_signal_while_functions_are_looked_for_ends_it_at_once() {
    let probe = format!("{FUNCTION}@first");
    for (name, signal) in [("INT", 2), ("TERM", 15), ("XCPU", 24)] {
        clean(|| {
            let log = "/tmp/looking.log";
            // The signal comes with the second reading of the list, which has hundreds.
            let output = Command::new("/bin/strace")
                .args(["-o", log, "-P", "/proc/kallsyms", "-e", "trace=read", "-e"])
                .arg(format!("inject=read:signal={name}:when=2"))
                .arg(program().get_program())
                .args(["count", &probe, "--", "touch", "/tmp/ran"])
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(128 + signal), "{output:?}");
            let log = fs::read_to_string(log).unwrap();
            assert_eq!(log.matches("read(").count(), 2, "{log}");
            assert!(!fs::exists("/tmp/ran").unwrap());
        });
    }
}

/// Checks that the output is one line, about all probes at once.
#[track_caller]
fn is_failure_of_the_run(output: &[u8], errno: &str, cause: &str) {
    let lines = json(output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0]["probe"].is_null(), "{lines:?}");
    let error = &lines[0]["error"];
    let kind = ["step", "errno", "cause"].map(|key| error[key].as_str().unwrap());
    assert_eq!(kind, ["request", errno, cause]);
    assert!(error["message"].as_str().unwrap().starts_with(errno));
}

#[test]
fn a_command_that_cannot_be_forked_is_a_failure_in_json_too() {
    clean(|| {
        // There is no descriptor for the pipe to it.
        let script = format!("ulimit -n 3; exec \"$0\" count --json {FUNCTION} -- true");
        let output = shell(&script).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        is_failure_of_the_run(&output.stdout, "EMFILE", "out-of-fds");
    });
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
    let modes = promised().into_iter().filter(|mode| mode.uses_tracefs());
    without_symbols(|| {
        for mode in modes {
            clean(|| {
                // The first write defines the event of the trial.
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
    });
}
