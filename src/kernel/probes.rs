//! The questions to the kernel, except those about the [PMU](super::pmu). They do not have side
//! effects: none defines an event, arms a probe, or leaves a file descriptor open.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::rand::GetRandomFlags;

use super::features::Support;
use crate::bpf::load_nop;
use crate::diagnose::{DUMMY_EVENT, bpf_cause, perf_event_denied};
use crate::error::Cause;
use crate::sys;

/// Asks whether this process may open an event that covers all processes.
pub(super) fn perf_event(cpu: u32) -> Support {
    let (r#type, config) = DUMMY_EVENT;
    match sys::perf_event_open_config(r#type, config, cpu) {
        Ok(_) => Support::Yes,
        Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::NOSYS)) => {
            Support::no(errno, perf_event_denied(errno))
        }
        Err(errno) => Support::unknown(errno, Cause::out_of(errno).unwrap_or(Cause::Unknown)),
    }
}

/// The answer about perf links that may be due to the caller's program. Another program may get
/// another answer.
pub(super) const REFUSED_PROGRAM: Support = Support::unknown(Errno::INVAL, Cause::Unknown);

/// Asks for perf links, like libbpf's `probe_perf_link`. The kernel checks the attach type first,
/// and returns EINVAL if it does not know it. It then checks the perf event, which is invalid, and
/// returns EBADF.
pub(super) fn perf_link(prog: Option<BorrowedFd<'_>>) -> Support {
    let answer = |prog| match sys::link_create_perf_event(prog, None, 0) {
        Err(Errno::BADF) => Support::Yes,
        Err(Errno::INVAL) => Support::no(Errno::INVAL, Cause::NoPerfLink),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoPerfLink)),
        // The kernel made a link without an event.
        Ok(_) => Support::unknown(Errno::INVAL, Cause::NoPerfLink),
    };
    let of_caller = prog.map(answer);
    if let Some(Support::Yes) = of_caller {
        return Support::Yes;
    }
    // EINVAL can be due to the caller's program, if that is not a kprobe program. Therefore a
    // program that is one asks again.
    match (load_nop(0), of_caller) {
        (Ok(nop), _) => answer(nop.as_fd()),
        (Err(_), Some(Support::No(_))) => REFUSED_PROGRAM,
        (Err(_), Some(support)) => support,
        (Err(error), None) => Support::unknown(error.errno(), error.cause()),
    }
}

/// Asks for `kprobe.multi` or `kprobe.session` links. A kernel that has them, and a program that
/// was loaded for them, goes on to read the symbols, whose address is invalid.
pub(super) fn multi(attach_type: u32, prog: Option<BorrowedFd<'_>>) -> Support {
    let answer = |prog| match sys::link_create_multi_bad_address(prog, attach_type).map(drop) {
        Err(Errno::FAULT) => Support::Yes,
        Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP)) => Support::no(errno, Cause::NoKprobeMulti),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoKprobeMulti)),
        Ok(()) => Support::unknown(Errno::INVAL, Cause::NoKprobeMulti),
    };
    if let Some(Support::Yes) = prog.map(answer) {
        return Support::Yes;
    }
    // The caller's program may not be loaded for such links, so one that is asks again.
    match load_nop(attach_type) {
        Ok(nop) => answer(nop.as_fd()),
        Err(error) if error.errno() == Errno::INVAL => {
            Support::no(Errno::INVAL, Cause::NoKprobeMulti)
        }
        Err(error) => Support::unknown(error.errno(), error.cause()),
    }
}

/// Asks whether the kernel compares a name with each of its symbols to find it, as it did until
/// Linux 6.2 (commit 60443c88f3a8).
///
/// The answer is that to a related question: until Linux 6.1 (commit b8a94bfb3395), no name was
/// longer than 127 bytes. The kernel refuses a longer one before it looks for it. Linux 6.1 has
/// long names, and got the fast search by an update.
pub(super) fn slow_lookup(pmu_type: u32, cpu: u32) -> bool {
    let long = sys::KprobeAt::Symbol {
        module: None,
        function: &[b'z'; 200],
        offset: 0,
    };
    sys::perf_event_open_kprobe(pmu_type, 0, long, cpu).err() == Some(Errno::TOOBIG)
}

/// Returns a number that no other `Kernel` has. It is from the kernel's random source.
///
/// If that is not ready yet, early in boot, it is made from the inode number of a new pipe, which
/// the kernel counts up, and from the process id.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK) == Ok(bytes.len()) {
        return u64::from_ne_bytes(bytes);
    }
    let inode = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .and_then(|(pipe, _)| rustix::fs::fstat(&pipe))
        .map_or(0, |stat| stat.st_ino);
    let pid = rustix::process::getpid().as_raw_pid().unsigned_abs();
    inode << 32 | u64::from(pid)
}
