//! The system calls of a thread, decided one by one from outside: seccomp user notifications
//! (`seccomp_unotify(2)`).

use std::sync::{Mutex, mpsc};

use kprobe_attach::Errno;
use kprobe_attach::fd::{AsRawFd, FromRawFd, OwnedFd};
use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

/// What the C library and Rust's make for memory, threads and locks: nobody's to fail.
const RUNTIME: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_madvise,
    #[cfg(not(target_arch = "arm"))]
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    #[cfg(target_pointer_width = "32")]
    libc::SYS_mmap2,
    #[cfg(target_pointer_width = "32")]
    (linux_raw_sys::general::__NR_clock_nanosleep_time64 as libc::c_long),
    #[cfg(target_pointer_width = "32")]
    (linux_raw_sys::general::__NR_futex_time64 as libc::c_long),
];

/// A system call that waits for a verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: libc::c_long,
    pub(crate) first_argument: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// The kernel makes it.
    Continue,
    /// It answers this errno. A close(2) has closed all the same, as ever on Linux; nothing else is
    /// made. Only for what shares the file descriptors of this process.
    Fail(Errno),
    /// The caller's process is killed, before the system call is made, or while it is.
    Kill(Pid, When),
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    During,
}

/// From here on the system calls of this thread, but for [`RUNTIME`], wait for [`supervise`] on
/// what is returned.
pub(crate) fn listen() -> OwnedFd {
    let step = |code, jt, k| sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf: 0,
        k,
    };
    // struct seccomp_data: the number at 0.
    let mut filter = vec![step(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
    for (&number, after) in RUNTIME.iter().zip((1..=RUNTIME.len()).rev()) {
        let to_the_last = u8::try_from(after).unwrap();
        filter.push(step(
            BPF_JMP | BPF_JEQ | BPF_K,
            to_the_last,
            u32::try_from(number).unwrap(),
        ));
    }
    filter.push(step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_USER_NOTIF));
    filter.push(step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    #[allow(unsafe_code, reason = "no library of the ecosystem without C listens")]
    // SAFETY: installs a filter on this thread; the program is read and copied.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = i32::try_from(listener).unwrap();
    assert!(listener >= 0, "{}", std::io::Error::last_os_error());
    #[allow(unsafe_code, reason = "see above")]
    // SAFETY: the system call has just opened it.
    unsafe {
        OwnedFd::from_raw_fd(listener)
    }
}

/// Decides the system calls of every thread that a listener listens to, until there is none left or
/// one is killed. Or until `end` is readable or hangs up: before Linux 6.11 the listener does not
/// hear of the end of a process that nobody has waited for.
pub(crate) fn supervise(
    listener: &OwnedFd,
    end: Option<&OwnedFd>,
    mut decide: impl FnMut(&Call) -> Verdict,
) {
    loop {
        let mut ready = vec![PollFd::new(listener, PollFlags::IN)];
        ready.extend(end.map(|end| PollFd::new(end, PollFlags::IN)));
        rustix::event::poll(&mut ready, None).unwrap();
        if !ready[0].revents().contains(PollFlags::IN) {
            return;
        }
        #[allow(unsafe_code, reason = "see above")]
        // SAFETY: the struct is plain integers, which may be zero, as the kernel wants them.
        let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        #[allow(unsafe_code, reason = "see above")]
        // SAFETY: the ioctl of this fd, which fills the struct.
        let received = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut request,
            )
        };
        if received != 0 {
            // The one who waited has died, or has been interrupted and comes again.
            continue;
        }
        let call = Call {
            number: request.data.nr.into(),
            first_argument: request.data.args[0],
        };
        // A message of the test's own, on its way to standard output or error.
        let is_message = call.number == libc::SYS_write && call.first_argument <= 2;
        let verdict = if is_message {
            Verdict::Continue
        } else {
            decide(&call)
        };
        let (error, flags) = match verdict {
            Verdict::Kill(pid, When::Before) => {
                rustix::process::kill_process(pid, Signal::KILL).unwrap();
                return;
            }
            Verdict::Continue | Verdict::Kill(_, When::During) => {
                (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE)
            }
            Verdict::Fail(errno) => {
                if call.number == libc::SYS_close {
                    #[allow(unsafe_code, reason = "see above")]
                    // SAFETY: in the name of the caller, who shares the file descriptors with this
                    // thread, and gives this one up whatever the answer is.
                    unsafe {
                        libc::close(i32::try_from(call.first_argument).unwrap())
                    };
                }
                (-errno.raw_os_error(), 0)
            }
        };
        let mut response = libc::seccomp_notif_resp {
            id: request.id,
            val: 0,
            error,
            flags: u32::try_from(flags).unwrap(),
        };
        #[allow(unsafe_code, reason = "see above")]
        // SAFETY: the ioctl of this fd, which reads the struct. It fails if the caller has died,
        // and then nobody waits.
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            )
        };
        if let Verdict::Kill(pid, When::During) = verdict {
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
            return;
        }
    }
}

/// Which system call of a section fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// Its index.
    pub(crate) at: usize,
    pub(crate) errno: Errno,
    /// Whether all that follow fail too.
    pub(crate) and_all_after: bool,
}

/// Makes system calls of the thread it belongs to fail.
#[derive(Debug, Default)]
pub(crate) struct Injector {
    /// What a section that runs just now is to meet, and what it has called.
    section: Mutex<Option<Section>>,
}

#[derive(Debug, Default)]
struct Section {
    failure: Option<Failure>,
    calls: Vec<libc::c_long>,
}

impl Injector {
    /// Runs a test in a thread whose sections can be made to fail.
    pub(crate) fn with<T: Send>(test: impl FnOnce(&Self) -> T + Send) -> T {
        let injector = Self::default();
        let (send, receive) = mpsc::channel();
        let (end, running) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        let run = || {
            send.send(listen()).unwrap();
            let result = test(&injector);
            drop(running);
            result
        };
        std::thread::scope(|scope| {
            let worker = scope.spawn(run);
            let listener = receive.recv().unwrap();
            supervise(&listener, Some(&end), |call| injector.decide(call));
            drop(listener); // nobody waits for an answer any more
            worker.join()
        })
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a section, and tells which system calls it made.
    pub(crate) fn run<T>(
        &self,
        failure: Option<Failure>,
        section: impl FnOnce() -> T,
    ) -> (T, Vec<libc::c_long>) {
        *self.section.lock().unwrap() = Some(Section {
            failure,
            calls: Vec::new(),
        });
        let result = section();
        let section = self.section.lock().unwrap().take();
        (result, section.unwrap().calls)
    }

    fn decide(&self, call: &Call) -> Verdict {
        let mut section = self.section.lock().unwrap();
        let Some(Section { failure, calls }) = section.as_mut() else {
            return Verdict::Continue;
        };
        let index = calls.len();
        calls.push(call.number);
        match failure {
            Some(failure)
                if index == failure.at || (failure.and_all_after && index > failure.at) =>
            {
                Verdict::Fail(failure.errno)
            }
            _ => Verdict::Continue,
        }
    }
}
