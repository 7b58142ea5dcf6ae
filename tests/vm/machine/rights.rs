//! Threads that may do less, and system calls that are refused.

use kprobe_attach::Errno;
use rustix::thread::CapabilitySet;

/// Runs a test in a thread of its own, for what that does to the thread.
pub(crate) fn in_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(test).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn drop_capabilities(dropped: CapabilitySet) {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective -= dropped;
    rustix::thread::set_capabilities(None, sets).unwrap();
}

/// Runs a test in a thread where a system call, or those of them with this first argument, is
/// answered by an errno.
pub(crate) fn with_filter<T: Send>(
    syscall: libc::c_long,
    first_argument: Option<u32>,
    errno: Errno,
    test: impl FnOnce() -> T + Send,
) -> T {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
    let step = |code, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs();
    // struct seccomp_data: the number at 0, the first argument at 16, as a u64.
    let low_half = if cfg!(target_endian = "little") {
        16
    } else {
        20
    };
    let mut filter = vec![
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        step(
            BPF_JMP | BPF_JEQ | BPF_K,
            0,
            if first_argument.is_some() { 3 } else { 1 },
            u32::try_from(syscall).unwrap(),
        ),
    ];
    if let Some(argument) = first_argument {
        filter.push(step(BPF_LD | BPF_W | BPF_ABS, 0, 0, low_half));
        filter.push(step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, argument));
    }
    filter.push(step(BPF_RET | BPF_K, 0, 0, refuse));
    filter.push(step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    in_thread(move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        #[allow(
            unsafe_code,
            reason = "a kernel that lacks something is shown by masking it"
        )]
        // SAFETY: installs a filter on this thread; the program is read and copied.
        let answer = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        assert_eq!(answer, 0);
        test()
    })
}
