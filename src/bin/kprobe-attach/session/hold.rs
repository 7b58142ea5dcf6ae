//! Holding probes attached: until the command ends, the time is up, or a signal comes.

use core::ffi::CStr;
use core::time::Duration;

use linux_raw_sys::general::{SIGCHLD, SIGPIPE};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::time::Timespec;

use kprobe_attach::error::ErrnoName;

use crate::cli::{Args, Opt};
use crate::out::{Lossy, message, message_of_names};
use crate::rt::{Signals, Start, spawn};

/// A command that runs while the probes are attached.
#[derive(Debug)]
struct Child {
    pid: Pid,
    status: Option<u8>,
}

/// Holds the probes attached, until a signal, the time or the command ends it.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    start: &'a Start,
    signals: Signals,
    child: Option<Child>,
}

impl<'a> Hold<'a> {
    /// Holds back the signals that would end the program, so that it detaches first.
    ///
    /// # Errors
    ///
    /// The kernel has no 64-bit time, and it has been reported.
    pub(crate) fn new(start: &'a Start) -> Result<Self, ()> {
        if crate::rt::monotonic_clock().is_none() {
            message(format_args!("this kernel has no 64-bit time (Linux 5.1)"));
            return Err(());
        }
        Ok(Self {
            start,
            signals: Signals::block(),
            child: None,
        })
    }

    /// Starts the command if there is one, and waits for the end. Every `interval` it calls `tick`,
    /// which can end the wait by returning false.
    ///
    /// # Errors
    ///
    /// The command was not started.
    pub(crate) fn wait(
        &mut self,
        args: &Args<'_>,
        interval: Option<Duration>,
        mut tick: impl FnMut() -> bool,
    ) -> Result<(), ()> {
        if let Some(first) = args.run {
            let failed = |command: &CStr, errno| {
                message_of_names(format_args!("{}: {}", Lossy(command), ErrnoName(errno)));
            };
            match spawn(self.start, first, &self.signals, &failed) {
                Ok(pid) => self.child = Some(Child { pid, status: None }),
                Err(errno) => {
                    message(format_args!("no new process: {}", ErrnoName(errno)));
                    return Err(());
                }
            }
        }
        let begin = now();
        let end = args.time(Opt::For).map(|time| begin + time);
        let mut next_tick = interval.map(|interval| begin + interval);
        loop {
            let now = now();
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            if let (Some(next), Some(interval)) = (&mut next_tick, interval) {
                if now >= *next {
                    if !tick() {
                        return Ok(());
                    }
                    *next = now + interval;
                }
            }
            let until = match (end, next_tick) {
                (Some(end), Some(tick)) => Some(end.min(tick)),
                (end, tick) => end.or(tick),
            };
            if self.is_over(until.map(|until| until.saturating_sub(now))) {
                return Ok(());
            }
        }
    }

    /// Ends the command if it still runs: with SIGTERM, and after a second signal to this program
    /// with SIGKILL. Returns its exit status, which is 128 and the signal's number if a signal
    /// ended it. Returns 0 if there is no command.
    pub(crate) fn finish(mut self) -> u8 {
        let mut ask = Signal::TERM;
        while let Some(Child { pid, status: None }) = self.child {
            // If it has just ended, its status comes next.
            let _ = rustix::process::kill_process(pid, ask);
            while !self.is_over(None) {}
            ask = Signal::KILL;
        }
        self.child.and_then(|child| child.status).unwrap_or(0)
    }

    /// Waits for a signal. Returns whether the signal asks to end, or the command has ended. Keeps
    /// the status of the command.
    fn is_over(&mut self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match self.signals.wait(timeout) {
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
            // The write to the pipe has failed too, and reports it.
            None | Some(SIGPIPE) => false,
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

/// Returns the time since boot.
fn now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = crate::rt::monotonic_clock().unwrap_or_default();
    Duration::new(
        u64::try_from(tv_sec).unwrap_or_default(),
        u32::try_from(tv_nsec).unwrap_or_default(),
    )
}
