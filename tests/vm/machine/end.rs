//! The end of a process.

use std::process::{Child, Command, Output};
use std::time::Duration;

use super::{clean, program};

/// Sends a signal.
pub(crate) fn send(child: &Child, signal: i32) {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    #[allow(unsafe_code, reason = "rustix sends no real-time signals")]
    // SAFETY: takes numbers.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0);
}

/// Waits for the end. It may take a second, and four more for an emulated machine that has other
/// things to do, whose clock can jump meanwhile.
pub(crate) fn ends_soon(mut child: Child, case: &str) -> Output {
    for _ in 0..1000 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("{case}: it goes on");
}

/// Runs a script of the shell, whose `$0` is the program.
pub(crate) fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program().get_program());
    shell
}

/// Runs cases at the same time, since they wait more than they work. In the tracefs modes they wait
/// for each other, so these are no more than eight.
pub(crate) fn at_once<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    for cases in cases.chunks(8) {
        clean(|| {
            std::thread::scope(|scope| {
                for case in cases {
                    scope.spawn(|| run(case));
                }
            });
        });
    }
}
