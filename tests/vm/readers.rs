//! Outputs that nobody reads, that somebody reads slowly, and that are lost.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kprobe_attach::fd::IntoRawFd;
use rustix::pipe::PipeFlags;

use super::machine::{
    Counter, FUNCTION, at_once, ends_soon, json, pin, program, promised, send, shell, text,
    unlink_own, wait_until, without_symbols,
};

/// A descriptor as the standard library has it.
fn owned(fd: impl IntoRawFd) -> OwnedFd {
    #[allow(unsafe_code, reason = "rustix's own type, without its feature `std`")]
    // SAFETY: it was owned until now.
    unsafe {
        OwnedFd::from_raw_fd(fd.into_raw_fd())
    }
}

/// A pipe that takes 4096 bytes: its reader, and its writer.
fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::pipe::fcntl_setpipe_size(&writer, 4096), Ok(4096));
    (owned(reader).into(), owned(writer))
}

/// A terminal: the end that others have, and the one that a program has.
fn terminal() -> (File, OwnedFd) {
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
    (master.into(), slave)
}

/// The bytes that [`stalled`] writes to a pipe.
const FILLING: [u8; 4096] = [b'.'; 4096];

/// An output that takes nothing: its reader, and its writer.
fn stalled(kind: &str) -> (File, OwnedFd) {
    match kind {
        "pipe" => {
            let (reader, writer) = small_pipe();
            let mut writer = File::from(writer);
            writer.write_all(&FILLING).unwrap();
            (reader, writer.into())
        }
        "socket" => {
            let (mut writer, reader) = UnixStream::pair().unwrap();
            writer.set_nonblocking(true).unwrap();
            while writer.write(&FILLING).is_ok() {}
            writer.set_nonblocking(false).unwrap();
            (OwnedFd::from(reader).into(), writer.into())
        }
        "terminal" => {
            let (master, slave) = terminal();
            // As Ctrl-S does.
            #[allow(unsafe_code, reason = "no library stops a terminal")]
            // SAFETY: takes numbers.
            let stopped = unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOOFF) };
            assert_eq!(stopped, 0);
            (master, slave)
        }
        _ => unreachable!(),
    }
}

const STALLED: [&str; 3] = ["pipe", "socket", "terminal"];

/// Starts the program. Its output is closed here, so that its end is the end of the output.
fn start(args: &[&str], end: &str, seconds: &str, stdout: OwnedFd, stderr: Stdio) -> Child {
    let mut child = program();
    child.args(args);
    match end {
        "for" => child.args(["--for", seconds]),
        "command" => child.args(["--", "sleep", seconds]),
        _ => &mut child,
    };
    child.stdout(stdout).stderr(stderr).spawn().unwrap()
}

/// Waits until a program waits for the one who reads its standard output.
fn waits_to_write(child: &Child) {
    let path = format!("/proc/{}/syscall", child.id());
    let call = format!("{} 0x1 ", libc::SYS_write);
    wait_until(|| fs::read_to_string(&path).unwrap().starts_with(&call));
}

#[test]
fn an_output_that_nobody_reads_keeps_nothing_from_ending() {
    let counter = Counter::new();
    let id = format!("id:{}", counter.program.id().unwrap());
    for mode in promised() {
        let count = &["count", "--interval", "0.05", "--mode", mode.name()][..];
        let attach = &["attach", "--program", &id, "--mode", mode.name()][..];
        let mut cases = Vec::new();
        for (end, commands) in [
            ("TERM", &[count, attach][..]),
            ("INT", &[count, attach]),
            ("HUP", &[attach]),
            ("for", &[count, attach]),
            // `attach` is kept from starting it, by the line that says so.
            ("command", &[count]),
        ] {
            for kind in STALLED {
                cases.extend(commands.iter().map(|command| (kind, *command, end)));
            }
        }
        at_once(&cases, |(kind, command, end)| {
            let case = format!("{command:?}, {kind}, {end}");
            let (mut reader, output) = stalled(kind);
            let args = [*command, &[FUNCTION]].concat();
            let child = start(&args, end, "0.5", output, Stdio::piped());
            let signal = match *end {
                "TERM" => Some(libc::SIGTERM),
                "INT" => Some(libc::SIGINT),
                "HUP" => Some(libc::SIGHUP),
                _ => None,
            };
            if let Some(signal) = signal {
                waits_to_write(&child);
                send(&child, signal);
            } else {
                std::thread::sleep(Duration::from_millis(500));
            }
            let output = ends_soon(child, &case);
            let messages = text(&output.stderr);
            let is_lost = messages.contains("standard output: EAGAIN: output is lost");
            // A pipe takes it.
            assert_eq!(is_lost, *kind != "pipe", "{case}: {messages}");
            let status = output.status.code();
            assert_eq!(status, Some(is_lost.into()), "{case}: {messages}");
            if *kind == "pipe" {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                let read = text(read.strip_prefix(&FILLING).unwrap());
                let last = read.lines().last().unwrap();
                assert!(last.starts_with(FUNCTION), "{case}: {read}");
                assert!(read.ends_with('\n'), "{case}: {read}");
            }
        });
    }
}

#[test]
fn messages_that_nobody_reads_keep_nothing_from_running_and_ending() {
    let mut cases = Vec::new();
    for kind in STALLED {
        cases.extend(["TERM", "for", "command"].map(|end| (kind, end)));
    }
    at_once(&cases, |(kind, end)| {
        let (_reader, messages) = stalled(kind);
        let mut child = program();
        child.args(["count", "--json", "--interval", "0.1", FUNCTION]);
        match *end {
            "for" => child.args(["--for", "2"]),
            "command" => child.args(["--", "sleep", "2"]),
            _ => &mut child,
        };
        let child = child.stderr(messages).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It counts when it prints.
        let mut output = child.stdout.take().unwrap();
        let mut read = vec![0];
        output.read_exact(&mut read).unwrap();
        unlink_own(1);
        if *end == "TERM" {
            send(&child, libc::SIGTERM);
        } else {
            std::thread::sleep(Duration::from_secs(2));
        }
        let status = ends_soon(child, &format!("{kind}, {end}")).status;
        assert_eq!(status.code(), Some(0), "{kind}, {end}");
        output.read_to_end(&mut read).unwrap();
        let hits = json(&read).last().unwrap()["hits"].as_u64();
        assert!(hits > Some(0), "{kind}, {end}");
    });
}

const ROUNDS: [&str; 4] = ["count", "--json", "--interval", "0.01"];

/// A probe whose line is long.
fn long_probe() -> String {
    format!("{FUNCTION},offset={}", "0".repeat(500))
}

/// Reads what comes, with a pause after so many bytes.
fn read_slowly(mut reader: impl Read, bytes: usize, pause: Duration) -> Vec<u8> {
    let mut output = Vec::new();
    let mut buffer = vec![0; bytes];
    // A terminal that its program has left answers EIO.
    while let Ok(len @ 1..) = reader.read(&mut buffer) {
        output.extend_from_slice(&buffer[..len]);
        std::thread::sleep(pause);
    }
    output
}

#[test]
fn a_slow_reader_gets_everything() {
    at_once(&["pipe", "terminal"], |kind| {
        let (reader, writer) = if *kind == "pipe" {
            small_pipe()
        } else {
            terminal()
        };
        let probe = long_probe();
        let args = [&["count", "--json"][..], &[&*probe; 10]].concat();
        let mut child = start(&args, "for", "0", writer, Stdio::null());
        // So slowly that writes wait for ticks.
        let output = read_slowly(reader, 1000, Duration::from_millis(60));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{kind}");
        assert_eq!(json(&output).len(), 10, "{kind}");
    });
}

#[test]
fn a_reader_that_comes_late_gets_everything() {
    at_once(&["for", "command", "TERM"], |end| {
        let (reader, writer) = small_pipe();
        let probe = long_probe();
        let args = [&ROUNDS[..], &[&*probe; 8]].concat();
        let child = start(&args, end, "1", writer, Stdio::null());
        if *end == "TERM" {
            waits_to_write(&child);
            send(&child, libc::SIGTERM);
        } else {
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(ends_soon(child, end).status.code(), Some(0), "{end}");
        let lines = json(&read_slowly(reader, 4096, Duration::ZERO));
        assert!(lines.len() >= 16 && lines.len() % 8 == 0, "{end}");
        for (line, number) in lines.iter().zip(1..) {
            assert_eq!(line["last"], number % 8 == 0, "{end}");
        }
    });
}

#[test]
fn a_reader_that_is_slow_delays_no_detaching() {
    at_once(&["TERM", "for", "command"], |end| {
        // A round takes this reader more than ten seconds, and no terminal becomes larger.
        let (mut reader, writer) = terminal();
        let probe = long_probe();
        let args = [&ROUNDS[..], &[&*probe; 12]].concat();
        let child = start(&args, end, "1", writer, Stdio::piped());
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // If the test fails, the program is killed, and the terminal answers EIO.
                while !has_ended.load(Ordering::Relaxed)
                    && reader.read(&mut [0; 40]).is_ok_and(|len| len > 0)
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            if *end == "TERM" {
                waits_to_write(&child);
                send(&child, libc::SIGTERM);
            } else {
                std::thread::sleep(Duration::from_secs(1));
            }
            let output = ends_soon(child, end);
            has_ended.store(true, Ordering::Relaxed);
            let messages = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{end}: {messages}");
            assert!(messages.contains("output is lost"), "{end}: {messages}");
        });
    });
}

#[test]
fn output_that_is_lost_is_a_failure_with_a_word() {
    const PIN: &str = "/sys/fs/bpf/stopping";
    let counter = Counter::new();
    pin(&counter.program, PIN);
    let attach = format!("attach --for 0 --program {PIN} {FUNCTION}");
    let commands = [
        "features",
        &format!("plan {FUNCTION}"),
        &format!("explain {FUNCTION}"),
        &format!("count --for 0 {FUNCTION}"),
        &format!("count --for 0 --json {FUNCTION}"),
        &format!("count --interval 0.1 {FUNCTION}"),
        &format!("count {FUNCTION} -- true"),
        &attach,
        // It has nothing to write.
        "sweep",
    ];
    let mut cases = Vec::new();
    for (redirection, errno) in [
        (">/dev/full", "ENOSPC"),
        (">&-", "EBADF"),
        ("1</dev/null", "EBADF"),
    ] {
        cases.extend(commands.map(|args| (args, redirection, errno)));
    }
    without_symbols(|| {
        at_once(&cases, |(args, redirection, errno)| {
            let script = format!("exec \"$0\" {args} {redirection}");
            let output = shell(&script).output().unwrap();
            let messages = text(&output.stderr);
            let is_lost = *args != "sweep";
            let status = output.status.code();
            assert_eq!(status, Some(is_lost.into()), "{script}: {messages}");
            let word = format!("standard output: {errno}: output is lost");
            assert_eq!(messages.contains(&word), is_lost, "{script}: {messages}");
        });
    });
    fs::remove_file(PIN).unwrap();
}
