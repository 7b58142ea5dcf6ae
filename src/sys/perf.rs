//! `perf_event_open(2)`, the one ioctl that binds a program to a perf event, and what the kernel
//! reports of an event.

use core::mem::{MaybeUninit, size_of};
use core::ptr;

use linux_raw_sys::general::__NR_perf_event_open;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};

use super::arch;
use super::call::{address, address_mut, bpf, fd_u32, len_u32, owned, result};
use super::uapi::{
    BPF_TASK_FD_QUERY, PERF_ATTR_DISABLED, PERF_ATTR_EXCLUDE_KERNEL, PERF_EVENT_IOC_SET_BPF,
    PERF_FLAG_FD_CLOEXEC, PerfEventAttr, TaskFdQuery,
};

/// Where a kprobe goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KprobeAt<'a> {
    /// `kprobe_func`, which is `module:function` where there is a module, and `probe_offset`, of
    /// which the kernel keeps 32 bits: callers see to it that there are no more.
    Symbol {
        module: Option<&'a [u8]>,
        function: &'a [u8],
        offset: u64,
    },
    /// `kprobe_addr`
    Address(u64),
}

/// Opens an event of the kprobe PMU, disabled, on all processes. `ENAMETOOLONG`: the name is longer
/// than any symbol.
///
/// The BPF program will run on every CPU whatever `cpu` is; it only must be online.
pub(crate) fn perf_event_open_kprobe(
    pmu_type: u32,
    config: u64,
    at: KprobeAt<'_>,
    cpu: u32,
) -> Result<OwnedFd> {
    let mut name = Name::new();
    let (config1, config2) = match at {
        KprobeAt::Symbol {
            module,
            function,
            offset,
        } => {
            if let Some(module) = module {
                name.push(module)?;
                name.push(b":")?;
            }
            name.push(function)?;
            (name.address_with_nul()?, offset)
        }
        KprobeAt::Address(address) => (0, address),
    };
    perf_event_open(pmu_type, config, [config1, config2], 0, cpu)
}

/// A name on its way to the kernel. Only the bytes that are written are read, so none is cleared
/// before.
struct Name {
    bytes: [MaybeUninit<u8>; 512],
    len: usize,
}

impl Name {
    #[inline]
    const fn new() -> Self {
        Self {
            bytes: [const { MaybeUninit::uninit() }; 512],
            len: 0,
        }
    }

    #[inline]
    fn push(&mut self, text: &[u8]) -> Result<()> {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        let free = free.get_mut(..text.len()).ok_or(Errno::NAMETOOLONG)?;
        let to = free.as_mut_ptr().cast::<u8>();
        // SAFETY: there is room for so many bytes, which nothing else refers to.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), to, text.len()) };
        self.len += text.len();
        Ok(())
    }

    /// Puts a NUL behind the name, and returns its address.
    #[inline]
    fn address_with_nul(&mut self) -> Result<u64> {
        self.push(&[0])?;
        Ok(address(&self.bytes))
    }
}

/// Asks a PMU for an event with a name that is longer than any symbol, and than any file name. The
/// kprobe PMU says `E2BIG`, and the uprobe PMU `ENAMETOOLONG`.
///
/// The event is to be sampled, which many a PMU refuses that would open it otherwise.
pub(crate) fn perf_event_open_long_name(r#type: u32, cpu: u32) -> Result<OwnedFd> {
    let mut letters = [b'z'; 601];
    if let Some(last) = letters.last_mut() {
        *last = 0;
    }
    perf_event_open(r#type, 0, [address(&letters), 0], 1, cpu)
}

/// Opens an event that is named by its type and config alone: a tracepoint, or a software event.
pub(crate) fn perf_event_open_config(r#type: u32, config: u64, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, config, [0, 0], 0, cpu)
}

/// Asks a PMU for an event whose name lies at an invalid address. Both probe PMUs say EFAULT.
pub(crate) fn perf_event_open_bad_address(r#type: u32, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, 0, [1, 0], 0, cpu)
}

/// The size of `struct perf_event_attr` that the kernel is shown: `PERF_ATTR_SIZE_VER1`.
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
    // SAFETY: config1 is read by the probe PMUs alone, as the address of a string, and by them only
    // with the checks of strndup_user(); a string that it is the address of outlives the call, up
    // to its NUL.
    unsafe { perf_event_open_attr(Some(&attr), EVERY_PROCESS, cpu as usize) }
}

/// pid -1
const EVERY_PROCESS: usize = usize::MAX;

/// `perf_event_open(attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)`
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
    // SAFETY: attr is a perf_event_attr of the size it names, or at no address, which is EFAULT;
    // the caller answers for the addresses in it.
    let fd = result(unsafe {
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
    })?;
    // SAFETY: the answer is a new file descriptor.
    unsafe { owned(fd) }
}

/// Opens no event: EFAULT, which the kernel says before it looks at permissions. Any other answer
/// is not the kernel's.
pub(crate) fn perf_event_open_nothing() -> Result<OwnedFd> {
    // SAFETY: there is no attribute.
    unsafe { perf_event_open_attr(None, 0, 0) }
}

/// Opens an event, disabled, on this thread alone and only while it is in user space: the kernel
/// asks for no capability, and the patched kernels of Debian and others for `CAP_SYS_ADMIN` if
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
    // SAFETY: there is no address in the attribute.
    unsafe { perf_event_open_attr(Some(&attr), this_thread, every_cpu) }
}

/// `ioctl(perf_event, PERF_EVENT_IOC_SET_BPF, prog)`
pub(crate) fn perf_event_set_bpf(perf_event: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the argument is a file descriptor by value; an fd is never negative, so the cast
    // keeps it.
    let set_bpf = unsafe {
        rustix::ioctl::IntegerSetter::<PERF_EVENT_IOC_SET_BPF>::new_usize(fd_u32(prog) as usize)
    };
    // SAFETY: of a perf event the ioctl reads the integer and no memory; on any other file the
    // driver sees an unknown request number of the perf range.
    unsafe { rustix::ioctl::ioctl(perf_event, set_bpf) }
}

/// What the kernel tells of the kprobe behind a perf event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskFd {
    pub(crate) prog_id: u32,
    /// `enum bpf_task_fd_type`
    pub(crate) fd_type: u32,
    /// Zero beside an address.
    pub(crate) probe_offset: u64,
    /// Zero where kallsyms hides addresses from this process.
    pub(crate) probe_addr: u64,
}

/// `BPF_TASK_FD_QUERY` of an own perf event, with the name of its function in `name`,
/// NUL-terminated.
pub(crate) fn task_fd_query(perf_event: BorrowedFd<'_>, name: &mut [u8]) -> Result<TaskFd> {
    let mut attr = TaskFdQuery {
        pid: rustix::thread::gettid().as_raw_pid().unsigned_abs(),
        fd: fd_u32(perf_event),
        buf_len: len_u32(name),
        buf: address_mut(name),
        ..TaskFdQuery::default()
    };
    // SAFETY: the attribute of this command; its one address is that of `name`, borrowed mutably,
    // with its length beside it.
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
        // An event type that does not exist: whatever this kernel allows, it answers.
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
