//! Processes: starting a command, and the end of this one.

use core::ffi::CStr;
use core::ptr;

use kprobe_attach::entry::{Start, exit};
use linux_raw_sys::general::{
    __NR_clone, __NR_execve, __NR_tgkill, __NR_waitid, P_PID, SIGCHLD, WEXITED, WNOHANG, WNOWAIT,
};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::arch;
use super::signals::{SignalSet, restore_signals};

/// Forks a child, and returns a pipe to it. When a byte is written to the pipe, the child becomes a
/// command, which it looks for in `PATH` as a shell does. When the pipe is closed, the child ends.
/// The command's arguments are those of this program from `first` on.
///
/// The child gets the signal mask `mask`. Called before anything else, it gives the command what
/// this program was started with, and nothing of its own. A child that cannot become the command
/// calls `failed`. It ends with 127 if there is no such command, and otherwise with 126.
pub(crate) fn fork_command(
    start: &Start,
    first: usize,
    mask: SignalSet,
    failed: &dyn Fn(&CStr, Errno),
) -> Result<(Pid, OwnedFd), Errno> {
    let (go, say_go) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: clone without a new stack is fork(2): the child has a copy of everything, and
    // shares nothing.
    let pid = unsafe { arch::syscall5(__NR_clone, arch::clone_args(SIGCHLD)) };
    let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
    if pid < 0 {
        return Err(Errno::from_raw_os_error(-pid));
    }
    if let Some(pid) = Pid::from_raw(pid) {
        return Ok((pid, say_go));
    }
    restore_signals(mask);
    drop(say_go);
    if rustix::io::read(&go, &mut [0; 1]) != Ok(1) {
        exit(0);
    }
    let command = start.arg(first).unwrap_or_default();
    let errno = exec(start, command, first);
    failed(command, errno);
    exit(if errno == Errno::NOENT { 127 } else { 126 })
}

/// Returns whether a child has ended. Its status can still be waited for.
pub(super) fn has_ended(child: Pid) -> bool {
    let mut info = [0_u32; 32];
    let pid = child.as_raw_pid().unsigned_abs() as usize;
    let info_at = ptr::from_mut(&mut info).expose_provenance();
    let options = (WEXITED | WNOHANG | WNOWAIT) as usize;
    // SAFETY: a siginfo_t is 128 bytes, and is written to `info`.
    let answer = unsafe { arch::syscall5(__NR_waitid, [P_PID as usize, pid, info_at, options, 0]) };
    let [signal, ..] = info;
    answer != 0 || signal != 0
}

/// Returns whether a process has this PID. The number of another thread than its first is no PID.
pub(crate) fn is_process(pid: Pid) -> bool {
    let pid = pid.as_raw_pid().unsigned_abs() as usize;
    // SAFETY: takes numbers, and sends no signal.
    let answer = unsafe { arch::syscall5(__NR_tgkill, [pid, pid, 0, 0, 0]) };
    // EPERM: there is one, to which this process may send no signal.
    answer == 0 || i32::try_from(-answer) == Ok(Errno::PERM.raw_os_error())
}

fn exec(start: &Start, command: &CStr, first: usize) -> Errno {
    if command.is_empty() {
        return Errno::NOENT;
    }
    let has_slash = command.to_bytes().iter().any(|byte| matches!(byte, b'/'));
    if has_slash {
        return execve(start, command, first);
    }
    let path = start
        .env("PATH")
        .map_or(&b"/usr/sbin:/usr/bin:/sbin:/bin"[..], CStr::to_bytes);
    let mut worst = Errno::NOENT;
    for dir in path.split(|byte| *byte == b':') {
        // An empty part stands for the current directory.
        let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
        let mut file = [0; 4096];
        let bytes = dir.iter().chain(slash).chain(command.to_bytes_with_nul());
        for (to, from) in file.iter_mut().zip(bytes) {
            *to = *from;
        }
        // A path without its NUL was too long.
        let file = CStr::from_bytes_until_nul(&file);
        match file.map_or(Errno::NAMETOOLONG, |file| execve(start, file, first)) {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => {}
            errno => worst = errno,
        }
    }
    worst
}

/// Becomes another program, or returns the reason why not.
fn execve(start: &Start, file: &CStr, first: usize) -> Errno {
    let argv = start.argv().get(first..).unwrap_or_default().as_ptr();
    let (file, argv, envp) = (file.as_ptr(), argv, start.envp());
    // SAFETY: file is a string; argv is the tail of this program's own, which ends with a NULL, and
    // so does envp.
    let errno = unsafe {
        arch::syscall5(
            __NR_execve,
            [
                file.expose_provenance(),
                argv.expose_provenance(),
                envp.expose_provenance(),
                0,
                0,
            ],
        )
    };
    Errno::from_raw_os_error(i32::try_from(-errno).unwrap_or_default())
}
