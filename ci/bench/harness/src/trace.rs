//! Runs a driver under ptrace, and measures between its marks.
//!
//! A mark is a system call that does not exist: number `MARK` and more. A seccomp filter stops the
//! driver there, and nowhere else, so that what is timed runs undisturbed.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const MARK: u64 = 100_000;

/// Single steps are given up after so many between two marks: they take minutes by then.
const MOST_STEPS: u64 = 1_500_000;

/// Selects what is counted between marks. Each slows the driver down too much for the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    Time,
    Calls,
    Steps,
}

/// What happened between the mark before, and this one.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Which mark it is: see `work.rs`.
    pub mark: u64,
    pub nanoseconds: u64,
    pub calls: u64,
    pub steps: u64,
    pub allocations: u64,
    /// File descriptors that are open at the mark.
    pub fds: u64,
    /// The peak of memory until the mark, in KiB.
    pub peak: u64,
}

/// Runs a driver until it ends, and calls `at_mark` with the number of each mark while the driver
/// stands there. The status must be 0.
pub fn run(
    driver: &str,
    arguments: &[&str],
    watch: Watch,
    mut at_mark: impl FnMut(u64),
) -> Result<Vec<Interval>, Box<dyn Error>> {
    let allocators = allocators(driver)?;
    let mut command = Command::new(format!("./{driver}"));
    command.args(arguments).stdin(Stdio::null());
    command.env_clear().env("GODEBUG", "asyncpreemptoff=1");
    // SAFETY: between fork and exec it makes system calls only.
    unsafe {
        command.pre_exec(|| {
            ptrace::traceme()?;
            stop_at_marks()
        });
    }
    let child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(pid, None)?; // the stop after exec
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL,
    )?;

    let mut marks = Vec::new();
    let mut now = Interval::default();
    let mut signal = None;
    let mut entering = true;
    let mut last = 0;
    let mut gave_up = false;
    let mut start = Instant::now();
    loop {
        match watch {
            Watch::Time => ptrace::cont(pid, signal.take())?,
            Watch::Calls => ptrace::syscall(pid, signal.take())?,
            // Start-up and loading take too many.
            Watch::Steps if gave_up || [0, 2].contains(&marks.len()) => {
                ptrace::cont(pid, signal.take())?;
            }
            Watch::Steps => ptrace::step(pid, signal.take())?,
        }
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) => {
                now.nanoseconds = u64::try_from(start.elapsed().as_nanos())?;
                now.mark = ptrace::getregs(pid)?.orig_rax - MARK;
                now.fds = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
                now.peak = peak(pid)?;
                at_mark(now.mark);
                marks.push(std::mem::take(&mut now));
                start = Instant::now();
            }
            WaitStatus::PtraceSyscall(_) => {
                now.calls += u64::from(entering);
                entering = !entering;
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let at = ptrace::getregs(pid)?.rip;
                // Each round of a repeated instruction is a step.
                now.steps += u64::from(at != last);
                gave_up |= now.steps > MOST_STEPS;
                now.allocations += u64::from(allocators.contains(&at));
                last = at;
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, 0) if gave_up => {
                return Err(format!("{driver}: more than {MOST_STEPS} steps").into());
            }
            WaitStatus::Exited(_, 0) => return Ok(without_marks(marks)),
            ended => return Err(format!("{driver} {}: {ended:?}", arguments[0]).into()),
        }
    }
}

/// Takes away what a mark itself costs: the interval between the first two, where nothing else is.
fn without_marks(mut marks: Vec<Interval>) -> Vec<Interval> {
    if marks.len() < 2 {
        return Vec::new();
    }
    marks.remove(0);
    let mark = marks.remove(0);
    for interval in &mut marks {
        interval.nanoseconds = interval.nanoseconds.saturating_sub(mark.nanoseconds);
        interval.calls = interval.calls.saturating_sub(mark.calls);
        interval.steps = interval.steps.saturating_sub(mark.steps);
    }
    marks
}

/// The addresses of the functions of a driver that allocate. It has none if there is no file.
fn allocators(driver: &str) -> Result<HashSet<u64>, Box<dyn Error>> {
    let Ok(text) = fs::read_to_string(format!("{driver}.allocators")) else {
        return Ok(HashSet::new());
    };
    let addresses = text.lines().map(|line| u64::from_str_radix(line, 16));
    Ok(addresses.collect::<Result<_, _>>()?)
}

fn peak(pid: Pid) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(digits.parse()?)
}

/// Installs a filter that stops at system calls from `MARK` on, and allows all others.
fn stop_at_marks() -> io::Result<()> {
    let code = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number
        code(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            0,
            1,
            MARK as u32,
        ),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_TRACE),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live until the call returns. The machine's root has
    // CAP_SYS_ADMIN, which takes the place of no_new_privs.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
