//! `perf_event_open(2)`, the ioctl that binds a program to a perf event, and what the kernel
//! reports of an event.

use core::mem::{MaybeUninit, size_of};
use core::ptr;

use linux_raw_sys::general::__NR_perf_event_open;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::arch;
use super::call::{address, address_mut, bpf, fd_u32, len_u32, owned};
use super::uapi::{
    BPF_TASK_FD_QUERY, PERF_ATTR_DISABLED, PERF_ATTR_EXCLUDE_KERNEL, PERF_EVENT_IOC_SET_BPF,
    PERF_FLAG_FD_CLOEXEC, PerfEventAttr, TaskFdQuery,
};

/// Names the place of a kprobe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KprobeAt<'a> {
    /// Becomes `kprobe_func`, as `module:function` if there is a module, and `probe_offset`. The
    /// kernel keeps only 32 bits of the offset, so callers must not pass more.
    Symbol {
        module: Option<&'a [u8]>,
        function: &'a [u8],
        offset: u64,
    },
    /// Becomes `kprobe_addr`.
    Address(u64),
}

/// Opens a disabled event of the kprobe PMU that covers all processes. Returns `ENAMETOOLONG` if
/// the name is longer than any symbol.
///
/// The BPF program runs on every CPU, whatever `cpu` is. But that CPU must be online.
pub(crate) fn perf_event_open_kprobe(
    pmu_type: u32,
    config: u64,
    at: KprobeAt<'_>,
    cpu: u32,
) -> Result<OwnedFd> {
    // The kernel reads only the bytes that are written, so the others are left uninitialised.
    let mut name = [const { MaybeUninit::uninit() }; 512];
    let (config1, config2) = match at {
        KprobeAt::Symbol {
            module,
            function,
            offset,
        } => {
            let mut free = &mut name[..];
            if let Some(module) = module {
                free = put(free, module)?;
                free = put(free, b":")?;
            }
            let [nul, ..] = put(free, function)? else {
                return Err(Errno::NAMETOOLONG);
            };
            nul.write(0);
            (address(&name), offset)
        }
        KprobeAt::Address(address) => (0, address),
    };
    perf_event_open(pmu_type, config, [config1, config2], 0, cpu)
}

/// Puts a text into memory that is free, and returns the rest of that.
#[inline]
fn put<'b>(free: &'b mut [MaybeUninit<u8>], text: &[u8]) -> Result<&'b mut [MaybeUninit<u8>]> {
    let (to, rest) = free
        .split_at_mut_checked(text.len())
        .ok_or(Errno::NAMETOOLONG)?;
    // SAFETY: `to` has room for these bytes, and nothing else refers to it.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), to.as_mut_ptr().cast(), text.len()) };
    Ok(rest)
}

/// Asks a PMU for an event with a name that is longer than any symbol and any file name. The kprobe
/// PMU returns `E2BIG`, and the uprobe PMU `ENAMETOOLONG`.
///
/// The event has a sample period, with which many other PMUs refuse an event that they would open
/// without one.
pub(crate) fn perf_event_open_long_name(r#type: u32, cpu: u32) -> Result<OwnedFd> {
    let mut letters = [b'z'; 601];
    if let Some(last) = letters.last_mut() {
        *last = 0;
    }
    perf_event_open(r#type, 0, [address(&letters), 0], 1, cpu)
}

/// Opens an event that has only a type and a config: a tracepoint, or a software event.
pub(crate) fn perf_event_open_config(r#type: u32, config: u64, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, config, [0, 0], 0, cpu)
}

/// Asks a PMU for an event whose name is at an invalid address. Both the kprobe and the uprobe PMU
/// return EFAULT.
pub(crate) fn perf_event_open_bad_address(r#type: u32, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, 0, [1, 0], 0, cpu)
}

/// The size of `struct perf_event_attr` that the kernel sees: `PERF_ATTR_SIZE_VER1`.
pub(crate) const PERF_EVENT_ATTR_SIZE: u32 = 72;
static_assertions::const_assert_eq!(size_of::<PerfEventAttr>(), PERF_EVENT_ATTR_SIZE as usize);

fn perf_event_open(
    r#type: u32,
    config: u64,
    [config1, config2]: [u64; 2],
    sample_period: u64,
    cpu: u32,
) -> Result<OwnedFd> {
    let attr = PerfEventAttr {
        r#type,
        size: PERF_EVENT_ATTR_SIZE,
        config,
        sample_period,
        flags: PERF_ATTR_DISABLED,
        config1,
        config2,
        ..PerfEventAttr::default()
    };
    // SAFETY: only the kprobe and uprobe PMUs read memory at config1, as a string, and with the
    // checks of strndup_user(). If config1 is the address of a string, that string and its NUL
    // outlive the call.
    unsafe { perf_event_open_attr(Some(&attr), EVERY_PROCESS, cpu as usize) }
}

/// pid -1
const EVERY_PROCESS: usize = usize::MAX;

/// Calls `perf_event_open(attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)`.
///
/// # Safety
///
/// The addresses in `attr` must be valid for what its PMU does there.
unsafe fn perf_event_open_attr(
    attr: Option<&PerfEventAttr>,
    pid: usize,
    cpu: usize,
) -> Result<OwnedFd> {
    let attr = attr.map_or(ptr::null(), ptr::from_ref);
    let no_group = usize::MAX; // group_fd -1
    // SAFETY: attr is a perf_event_attr of the size in its `size` field, or null, for which the
    // kernel returns EFAULT. The caller guarantees the addresses in it.
    let answer = unsafe {
        arch::syscall5(
            __NR_perf_event_open,
            [
                attr.expose_provenance(),
                pid,
                cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            ],
        )
    };
    // SAFETY: the system call opens a file descriptor.
    unsafe { owned(answer) }
}

/// Asks for an event without an attribute. The kernel returns EFAULT before it checks permissions,
/// so any other errno is from a filter.
pub(crate) fn perf_event_open_nothing() -> Result<OwnedFd> {
    // SAFETY: there is no attribute.
    unsafe { perf_event_open_attr(None, 0, 0) }
}

/// Opens a disabled event for this thread alone, and only in user space. The kernel requires no
/// capability for it. The patched kernels of Debian and others require `CAP_SYS_ADMIN` if
/// `perf_event_paranoid` is 3 or above.
pub(crate) fn perf_event_open_own(r#type: u32, config: u64) -> Result<OwnedFd> {
    let attr = PerfEventAttr {
        r#type,
        size: PERF_EVENT_ATTR_SIZE,
        config,
        flags: PERF_ATTR_DISABLED | PERF_ATTR_EXCLUDE_KERNEL,
        ..PerfEventAttr::default()
    };
    let (this_thread, every_cpu) = (0, usize::MAX);
    // SAFETY: the attribute has no address in it.
    unsafe { perf_event_open_attr(Some(&attr), this_thread, every_cpu) }
}

/// Calls `ioctl(perf_event, PERF_EVENT_IOC_SET_BPF, prog)`.
pub(crate) fn perf_event_set_bpf(perf_event: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is a file descriptor by value. It is never negative, so the cast keeps
    // it.
    let set_bpf = unsafe {
        rustix::ioctl::IntegerSetter::<PERF_EVENT_IOC_SET_BPF>::new_usize(fd_u32(prog) as usize)
    };
    // SAFETY: for a perf event, the ioctl takes the integer and reads no memory. For any other
    // file, the driver sees an unknown request number of the perf range.
    unsafe { rustix::ioctl::ioctl(perf_event, set_bpf) }
}

/// Holds what the kernel reports of the kprobe behind a perf event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskFd {
    pub(crate) prog_id: u32,
    /// `enum bpf_task_fd_type`
    pub(crate) fd_type: u32,
    /// The offset; zero if the probe was given as an address.
    pub(crate) probe_offset: u64,
    /// The address; zero if kallsyms hides addresses from this process.
    pub(crate) probe_addr: u64,
}

/// Asks `BPF_TASK_FD_QUERY` about a perf event of this process. Puts the name of its function into
/// `name`, with a NUL behind it.
pub(crate) fn task_fd_query(perf_event: BorrowedFd<'_>, name: &mut [u8]) -> Result<TaskFd> {
    let mut attr = TaskFdQuery {
        pid: rustix::thread::gettid().as_raw_pid().unsigned_abs(),
        fd: fd_u32(perf_event),
        buf_len: len_u32(name),
        buf: address_mut(name),
        ..TaskFdQuery::default()
    };
    // SAFETY: the attribute of this command. Its one address is that of `name`, which is borrowed
    // mutably, with its length beside it.
    unsafe { bpf(BPF_TASK_FD_QUERY, &mut attr) }?;
    Ok(TaskFd {
        prog_id: attr.prog_id,
        fd_type: attr.fd_type,
        probe_offset: attr.probe_offset,
        probe_addr: attr.probe_addr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_event_open_reaches_the_kernel() {
        // The event type does not exist, so every kernel returns an error.
        let error = perf_event_open_config(u32::MAX, 0, 0).unwrap_err();
        assert!(
            matches!(
                error,
                Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::INVAL
            ),
            "{error:?}"
        );
    }
}
