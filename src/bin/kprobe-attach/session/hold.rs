//! Holding probes attached: until the command ends, the time is up, or a signal comes.

use core::ffi::CStr;

use linux_raw_sys::general::SIGCHLD;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use kprobe_attach::Errno;
use kprobe_attach::error::ErrnoName;

use crate::cli::{Args, Opt};
use crate::out::{Lossy, Output, message_of_names, notice};
use crate::rt::{
    Ends, NEVER, Start, fork_command, hold_signals, now, take_signals, wait_for_signal,
};

/// A command that runs while the probes are attached.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// The pipe by which it is told to begin.
    go: Option<OwnedFd>,
    status: Option<u8>,
}

/// Holds the probes attached, until a signal, the time or the command ends it.
#[derive(Debug)]
pub(crate) struct Hold {
    child: Option<Child>,
}

impl Hold {
    /// Holds back the signals that would end the program, so that it detaches first. It also makes
    /// the process of the command, which does not begin yet.
    ///
    /// # Errors
    ///
    /// The kernel has no 64-bit time, or makes no new process, and it has been reported.
    pub(crate) fn new(start: &Start, args: &Args<'_>, out: &mut Output) -> Result<Self, ()> {
        if now() == 0 {
            let why = "this kernel has no 64-bit time (Linux 5.1)";
            args.report.run(out, Errno::NOSYS, why);
            return Err(());
        }
        let mask = hold_signals();
        let mut child = None;
        if let Some(first) = args.run {
            let failed = |command: &CStr, errno| {
                message_of_names(format_args!("{}: {}", Lossy(command), ErrnoName(errno)));
            };
            let (pid, go) = fork_command(start, first, mask, &failed).map_err(|errno| {
                args.report.run(out, errno, "no new process");
            })?;
            child = Some(Child {
                pid,
                go: Some(go),
                status: None,
            });
        }
        take_signals();
        Ok(Self { child })
    }

    /// Returns the process of the command.
    pub(crate) fn command(&self) -> Option<Pid> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Starts the time for which the probes are held.
    pub(crate) fn begin(&self, args: &Args<'_>, out: &mut Output) {
        out.ends = Ends {
            until: args.time(Opt::For).map_or(NEVER, |time| now() + time),
            command: self.command(),
        };
    }

    /// Lets the command begin if there is one, and waits for the end. Every `interval` it calls
    /// `tick`, which can end the wait by returning false.
    pub(crate) fn wait(
        &mut self,
        out: &mut Output,
        interval: Option<u64>,
        tick: &mut dyn FnMut(&mut Output) -> bool,
    ) {
        let go = self.child.as_mut().and_then(|child| child.go.take());
        // If it was killed, its end is seen like any other.
        let _ = go.map(|go| rustix::io::write(go, b"\n"));
        let mut next_tick = interval.map_or(NEVER, |interval| now() + interval);
        loop {
            let now = now();
            let end = out.ends.until;
            if now >= end {
                break;
            }
            if let Some(interval) = interval.filter(|_| now >= next_tick) {
                if !tick(out) {
                    break;
                }
                next_tick = now + interval;
            }
            if self.is_over(end.min(next_tick).saturating_sub(now)) {
                break;
            }
        }
    }

    /// Prints that the probes are detached. Ends the command if it still runs: with SIGTERM, and
    /// after a second signal to this program with SIGKILL. Returns its exit status, which is 128
    /// and the signal's number if a signal ended it. Returns 0 if there is no command.
    pub(crate) fn finish(mut self, args: &Args<'_>) -> u8 {
        if !args.has(Opt::Quiet) {
            notice(format_args!("detached"));
        }
        let mut ask = Signal::TERM;
        while let Some(Child {
            pid, status: None, ..
        }) = self.child
        {
            // If it has just ended, its status comes next.
            let _ = rustix::process::kill_process(pid, ask);
            // A stopped command has to continue to take it.
            let _ = rustix::process::kill_process(pid, Signal::CONT);
            while !self.is_over(NEVER) {}
            ask = Signal::KILL;
        }
        self.child.and_then(|child| child.status).unwrap_or(0)
    }

    /// Waits for a signal. Answers whether it asks to end, or the command has ended, of which it
    /// takes note.
    fn is_over(&mut self, nanoseconds: u64) -> bool {
        match wait_for_signal(nanoseconds) {
            Some(SIGCHLD) => {
                // One signal can stand for several children. An init also has the children of
                // others.
                loop {
                    match rustix::process::wait(WaitOptions::NOHANG) {
                        Ok(Some((pid, status))) => {
                            if let Some(child) =
                                self.child.as_mut().filter(|child| child.pid == pid)
                            {
                                child.status = Some(exit_status(status));
                            }
                        }
                        Ok(None) => break,
                        Err(_) => {
                            // There is no child left: somebody else waited for it.
                            if let Some(child) = &mut self.child {
                                child.status.get_or_insert(u8::MAX);
                            }
                            break;
                        }
                    }
                }
                let child = self.child.as_ref();
                child.is_some_and(|child| child.status.is_some())
            }
            None => false,
            Some(_) => true,
        }
    }
}

fn exit_status(status: WaitStatus) -> u8 {
    let died = || Some(128 + status.terminating_signal()?);
    let status = status.exit_status().or_else(died);
    status
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(u8::MAX)
}
