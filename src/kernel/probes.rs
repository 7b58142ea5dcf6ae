//! The questions to the kernel, but for that of the [PMU](super::pmu). None has a side effect: none
//! creates an event, arms a probe, or leaves anything open.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use super::features::Support;
use crate::bpf::load_nop;
use crate::diagnose::{DUMMY_EVENT, bpf_cause, out_of, perf_event_denied};
use crate::error::Cause;
use crate::sys;

/// May this process open an event on all processes?
pub(super) fn perf_event(cpu: u32) -> Support {
    let (r#type, config) = DUMMY_EVENT;
    match sys::perf_event_open_config(r#type, config, cpu) {
        Ok(_) => Support::Yes,
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => Support::no(errno, perf_event_denied(errno)),
        Err(Errno::NOSYS) => Support::no(Errno::NOSYS, Cause::UnsupportedArch),
        Err(errno) => Support::unknown(errno, out_of(errno).unwrap_or(Cause::Unknown)),
    }
}

/// The answer about perf links that may be due to the caller's program: another may be told more.
pub(super) const REFUSED_PROGRAM: Support = Support::unknown(Errno::INVAL, Cause::Unknown);

/// Perf links: the kernel looks at the attach type, which it may not know (EINVAL), before it looks
/// at the perf event, which is none (EBADF). libbpf's `probe_perf_link`.
pub(super) fn perf_link(prog: Option<BorrowedFd<'_>>) -> Support {
    let answer = |prog| match sys::link_create_perf_event(prog, None, 0) {
        Err(Errno::BADF) => Support::Yes,
        Err(Errno::INVAL) => Support::no(Errno::INVAL, Cause::NoPerfLink),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoPerfLink)),
        // The kernel made a link to nothing.
        Ok(_) => Support::unknown(Errno::INVAL, Cause::NoPerfLink),
    };
    let of_caller = prog.map(answer);
    if let Some(Support::Yes) = of_caller {
        return Support::Yes;
    }
    // EINVAL may be for the caller's program, if it is none for kprobes: ask with one that is.
    match (load_nop(0), of_caller) {
        (Ok(nop), _) => answer(nop.as_fd()),
        (Err(_), Some(Support::No(_))) => REFUSED_PROGRAM,
        (Err(_), Some(support)) => support,
        (Err(error), None) => Support::unknown(error.errno(), error.cause()),
    }
}

/// `kprobe.multi` and `kprobe.session`: a kernel that has them gets as far as reading the symbols,
/// which are nowhere.
pub(super) fn multi(attach_type: u32) -> Support {
    let nop = match load_nop(attach_type) {
        Ok(nop) => nop,
        Err(error) if error.errno() == Errno::INVAL => {
            return Support::no(Errno::INVAL, Cause::NoKprobeMulti);
        }
        Err(error) => return Support::unknown(error.errno(), error.cause()),
    };
    match sys::link_create_multi_bad_address(nop.as_fd(), attach_type).map(drop) {
        Err(Errno::FAULT) => Support::Yes,
        Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP)) => Support::no(errno, Cause::NoKprobeMulti),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoKprobeMulti)),
        Ok(()) => Support::unknown(Errno::INVAL, Cause::NoKprobeMulti),
    }
}

/// A number that no other process is likely to have: of the kernel's random source, or early in
/// boot, where that has nothing to give yet, of what differs between processes: the id, the time,
/// and where the stack is.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK) == Ok(bytes.len()) {
        return u64::from_ne_bytes(bytes);
    }
    let pid = rustix::process::getpid().as_raw_pid().unsigned_abs();
    let uptime = rustix::system::sysinfo().uptime;
    let stack = core::ptr::from_ref(&bytes).addr();
    // The multiplier of splitmix64 spreads each over all the bits.
    [
        u64::from(pid),
        u64::try_from(uptime).unwrap_or_default(),
        stack as u64,
    ]
    .into_iter()
    .fold(0, |mixed: u64, part| {
        (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
