//! The one unsafe room of the library: `bpf(2)`, `perf_event_open(2)` and the one `ioctl` between them, made by hand; of
//! `fcntl(2)` the locks that rustix leaves out; and a child process that mounts.
//!
//! Outward everything is safe: file descriptors are borrowed or owned, strings are `&CStr`, buffers are slices.
//!
//! # Safety
//!
//! These system calls take one struct, which in the first two may hold addresses. They are sound here because
//!
//! * each struct is `#[repr(C)]`, has no padding that is not a field, and its size and the offset of every field are
//!   asserted against the kernel's ([`uapi`]);
//! * an address in a struct is made, in the function that makes the call, from a reference that outlives the call, and the
//!   length beside it is that of the same slice (addresses of the two probes are invalid on purpose, and only read);
//! * the kernel writes only where these functions hold a `&mut`;
//! * a file descriptor in an answer is new, open, and nobody else's, so an [`OwnedFd`] may own it.

#![allow(unsafe_code)]

mod arch;
pub(crate) mod uapi;

use core::ffi::CStr;
use core::mem::{size_of, size_of_val};
use core::ptr;

use linux_raw_sys::general::{
    __NR_bpf, __NR_clone, __NR_exit_group, __NR_perf_event_open, __NR_rt_sigprocmask, __WALL,
    CLONE_FILES, CLONE_NEWNS, F_OFD_GETLK, F_OFD_SETLK, SIG_SETMASK,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno, Result};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, WaitOptions};

use uapi::{
    BPF_BTF_LOAD, BPF_F_PATH_FD, BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_MAP_CREATE,
    BPF_MAP_LOOKUP_ELEM, BPF_MAP_TYPE_ARRAY, BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET,
    BPF_OBJ_GET_INFO_BY_FD, BPF_OBJ_PIN, BPF_PERF_EVENT, BPF_PROG_BIND_MAP, BPF_PROG_GET_FD_BY_ID,
    BPF_PROG_LOAD, BPF_TASK_FD_QUERY, BtfLoad, F_UNLCK, F_WRLCK, Flock, GetFdById,
    LinkCreateKprobeMulti, LinkCreatePerfEvent, LinkInfoPerfKprobe, LinkUpdate, MapCreate, MapElem,
    MapInfo, Obj, ObjAt, ObjGetInfo, PERF_ATTR_DISABLED, PERF_ATTR_EXCLUDE_KERNEL,
    PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC, PerfEventAttr, ProgBindMap, ProgLoad,
    TaskFdQuery,
};

/// The kernel's answer as a `Result`: it keeps -4095..=-1 for errnos (`MAX_ERRNO`, include/linux/err.h), and nothing asked
/// of it here answers below that.
fn result(answer: isize) -> Result<usize> {
    usize::try_from(answer).map_err(|_| {
        let errno = i32::try_from(answer.unsigned_abs()).ok();
        errno
            .filter(|errno| *errno <= 4095)
            .map_or(Errno::OVERFLOW, Errno::from_raw_os_error)
    })
}

/// Takes possession of the new file descriptor in an answer.
///
/// # Safety
///
/// The answer must be that of a system call which has just opened a file descriptor for the caller.
unsafe fn owned(answer: usize) -> Result<OwnedFd> {
    let fd = RawFd::try_from(answer).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: it is open, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file descriptor as the u32 of an attribute. An open one is never negative.
fn fd_u32(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// The address of a value as the u64 of an attribute.
fn address<T: ?Sized>(value: &T) -> u64 {
    ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}

/// The address of a buffer for the kernel to fill, as the u64 of an attribute; it must stay borrowed during the call.
fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

/// The length of a buffer as the u32 of an attribute; what is longer than 4 GiB is used up to there.
fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// `bpf(cmd, &attr, size_of(attr))`.
///
/// # Safety
///
/// `attr` must be the attribute of `cmd`, with every address in it valid for what the command does there.
unsafe fn bpf<T>(cmd: u32, attr: &mut T) -> Result<usize> {
    let attr_address = ptr::from_mut(attr).expose_provenance();
    // SAFETY: attr points to size_of::<T>() bytes of attribute, writable for the commands that answer in place; the caller
    // answers for the addresses in it.
    result(unsafe { arch::syscall5(__NR_bpf, [cmd as usize, attr_address, size_of::<T>(), 0, 0]) })
}

/// [`bpf`] of a command that answers with a new file descriptor.
///
/// # Safety
///
/// As for [`bpf`], and `cmd` must be such a command.
unsafe fn bpf_fd<T>(cmd: u32, attr: &mut T) -> Result<OwnedFd> {
    // SAFETY: the caller answers for the attribute.
    let fd = unsafe { bpf(cmd, attr) }?;
    // SAFETY: the command has just opened it.
    unsafe { owned(fd) }
}

/// Where a kprobe goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KprobeAt<'a> {
    /// `kprobe_func` and `probe_offset`; the kernel keeps 32 bits of the offset.
    Symbol(&'a CStr, u32),
    /// `kprobe_addr`
    Address(u64),
}

/// Opens an event of the kprobe PMU, disabled, on all processes.
///
/// The BPF program will run on every CPU whatever `cpu` is; it only must be online.
pub(crate) fn perf_event_open_kprobe(
    pmu_type: u32,
    config: u64,
    at: KprobeAt<'_>,
    cpu: u32,
) -> Result<OwnedFd> {
    let (config1, config2) = match at {
        KprobeAt::Symbol(name, offset) => (address(name), u64::from(offset)),
        KprobeAt::Address(address) => (0, address),
    };
    perf_event_open(pmu_type, config, config1, config2, cpu)
}

/// Opens an event that is named by its type and config alone: a tracepoint, or a software event.
pub(crate) fn perf_event_open_config(r#type: u32, config: u64, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, config, 0, 0, cpu)
}

/// Asks a PMU for an event whose name lies at an invalid address. Both probe PMUs say EFAULT.
pub(crate) fn perf_event_open_bad_address(r#type: u32, cpu: u32) -> Result<OwnedFd> {
    perf_event_open(r#type, 0, 1, 0, cpu)
}

/// The size of `struct perf_event_attr` that the kernel is shown: `PERF_ATTR_SIZE_VER1`.
pub(crate) const PERF_EVENT_ATTR_SIZE: u32 = 72;
static_assertions::const_assert_eq!(size_of::<PerfEventAttr>(), PERF_EVENT_ATTR_SIZE as usize);

fn perf_event_open(
    r#type: u32,
    config: u64,
    config1: u64,
    config2: u64,
    cpu: u32,
) -> Result<OwnedFd> {
    let attr = PerfEventAttr {
        r#type,
        size: PERF_EVENT_ATTR_SIZE,
        config,
        flags: PERF_ATTR_DISABLED,
        config1,
        config2,
        ..PerfEventAttr::default()
    };
    let every_process = usize::MAX; // pid -1
    // SAFETY: config1 is read by the probe PMUs alone, as the address of a string, and by them only with the checks of
    // strndup_user().
    unsafe { perf_event_open_attr(Some(&attr), every_process, cpu as usize) }
}

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
    // SAFETY: attr is a perf_event_attr of the size it names, or at no address, which is EFAULT; the caller answers for the
    // addresses in it.
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

/// Opens no event: EFAULT, which the kernel says before it looks at permissions. Any other answer is not the kernel's.
pub(crate) fn perf_event_open_nothing() -> Result<OwnedFd> {
    // SAFETY: there is no attribute.
    unsafe { perf_event_open_attr(None, 0, 0) }
}

/// Opens an event, disabled, on this thread alone and only while it is in user space: the kernel asks for no capability, and
/// the patched kernels of Debian and others for `CAP_SYS_ADMIN` if `perf_event_paranoid` is 3 or above.
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
    // SAFETY: the argument is a file descriptor by value; an fd is never negative, so the cast keeps it.
    let set_bpf = unsafe {
        rustix::ioctl::IntegerSetter::<PERF_EVENT_IOC_SET_BPF>::new_usize(fd_u32(prog) as usize)
    };
    // SAFETY: of a perf event the ioctl reads the integer and no memory; on any other file the driver sees an unknown
    // request number of the perf range.
    unsafe { rustix::ioctl::ioctl(perf_event, set_bpf) }
}

/// `fcntl(2)` about a lock on one byte of a file, which belongs to the open file description. Linux 3.15.
///
/// The byte need not be there, for a lock is on a number; it must be below 2^63.
///
/// # Safety
///
/// `command` must be `F_OFD_SETLK` or `F_OFD_GETLK`.
unsafe fn fcntl_lock(file: BorrowedFd<'_>, command: u32, l_type: i16, byte: u64) -> Result<Flock> {
    let mut lock = Flock {
        l_type,
        l_start: i64::try_from(byte).map_err(|_| Errno::OVERFLOW)?, // from the beginning: SEEK_SET is 0
        l_len: 1,
        ..Flock::default()
    };
    let address = ptr::from_mut(&mut lock).expose_provenance();
    let args = [fd_u32(file) as usize, command as usize, address, 0, 0];
    // SAFETY: for both commands the argument is a struct flock, which is read, and by the asking one written to.
    result(unsafe { arch::syscall5(uapi::NR_FCNTL, args) })?;
    Ok(lock)
}

/// Locks a byte of a file that is open for writing, until the file is closed in the last process that holds it, and be it by a
/// SIGKILL. `EAGAIN`: another open file description has the lock.
pub(crate) fn lock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the commands.
    unsafe { fcntl_lock(file, F_OFD_SETLK, F_WRLCK, byte) }.map(drop)
}

/// Gives up the lock on a byte.
pub(crate) fn unlock_byte(file: BorrowedFd<'_>, byte: u64) -> Result<()> {
    // SAFETY: it is one of the commands.
    unsafe { fcntl_lock(file, F_OFD_SETLK, F_UNLCK, byte) }.map(drop)
}

/// Whether another open file description has locked a byte of a file.
pub(crate) fn is_byte_locked(file: BorrowedFd<'_>, byte: u64) -> Result<bool> {
    // SAFETY: it is one of the commands.
    let lock = unsafe { fcntl_lock(file, F_OFD_GETLK, F_WRLCK, byte) }?;
    Ok(lock.l_type != F_UNLCK)
}

/// Mounts a file system in a mount namespace that is a child's own and ends with it, and makes `dir` its root directory, which
/// stays usable. A child that dies of a signal may not have come to that, and one that dies between two certain system calls leaves a
/// file descriptor open.
///
/// The child is a fork(2) that shares the file descriptors (`CLONE_FILES`), so `dir` is replaced for this process too, and it
/// has every signal kept back, so that no handler runs in it. That it ends is told to nobody: no SIGCHLD, and no `wait(2)`
/// without `__WALL`, so that a process that waits for children of its own does not meet it.
pub(crate) fn mount_privately(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    let every_signal = u64::MAX;
    let mut old_mask = 0;
    set_signal_mask(every_signal, Some(&mut old_mask))?;
    let args = arch::clone_args(CLONE_FILES | CLONE_NEWNS);
    // SAFETY: clone with no new stack and no CLONE_VM is fork(2): the child has a copy of all memory. It makes system calls and
    // nothing else, whatever other threads held when it was forked (rustix is not built on libc, or this crate does not compile), and
    // leaves this function by exit_group(2) alone. The file descriptors are shared; what it opens it closes.
    let pid = match result(unsafe { arch::syscall5(__NR_clone, args) }) {
        Ok(0) => {
            let errno = mount_over_root(fs_type, dir).err();
            exit_group(errno.map_or(0, Errno::raw_os_error));
        }
        pid => pid,
    };
    let status = pid.map(|pid| wait_for_clone(i32::try_from(pid).unwrap_or_default()));
    // It was this mask a moment ago, so setting it cannot fail.
    let _ = set_signal_mask(old_mask, None);
    match status? {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Mounts a file system over the root of a namespace that nobody else is in, and makes `dir` its root directory.
fn mount_over_root(fs_type: &CStr, dir: &mut OwnedFd) -> Result<()> {
    // A root that is not of this namespace, as after chroot(2) to that of another process, is refused (EINVAL); the next call would
    // change it instead (before commit 12f147ddd6de).
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(c"/", read_only, c"")?;
    // Or the mount would appear wherever the root's mount is shared to.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    rustix::mount::mount(fs_type, c"/", fs_type, MountFlags::empty(), None)?;
    // The root of a process is below what is mounted over it, but going up from it is not.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = rustix::fs::open(c"/..", flags, Mode::empty())?;
    rustix::io::dup3(&mounted, dir, DupFlags::CLOEXEC)
}

/// Waits for a child of clone(2), and answers its exit status. A signal's victim has none: 0.
fn wait_for_clone(pid: i32) -> i32 {
    let options = WaitOptions::from_bits_retain(__WALL);
    loop {
        match rustix::process::waitpid(Pid::from_raw(pid), options) {
            Ok(ended) => {
                return ended
                    .and_then(|(_, status)| status.exit_status())
                    .unwrap_or(0);
            }
            Err(Errno::INTR) => {}
            // Another thread waits for children of every kind. What the child did shows.
            Err(_) => return 0,
        }
    }
}

/// `rt_sigprocmask(2)`: which signals this thread keeps back.
fn set_signal_mask(mask: u64, old: Option<&mut u64>) -> Result<()> {
    let old = old.map_or(0, |old| ptr::from_mut(old).expose_provenance());
    let new = ptr::from_ref(&mask).expose_provenance();
    let args = [SIG_SETMASK as usize, new, old, size_of::<u64>(), 0];
    // SAFETY: a sigset of the kernel is 64 bits on the architectures served; the new one is read, and the old one written to
    // where a `&mut u64` is, or nowhere.
    result(unsafe { arch::syscall5(__NR_rt_sigprocmask, args) }).map(drop)
}

/// Ends the process.
fn exit_group(status: i32) -> ! {
    loop {
        let status = usize::try_from(status).unwrap_or_default();
        // SAFETY: takes a number and does not come back.
        unsafe { arch::syscall5(__NR_exit_group, [status, 0, 0, 0, 0]) };
    }
}

/// `BPF_LINK_CREATE` of a perf event. Without one, target -1 asks whether the kernel has perf links: EBADF is yes.
pub(crate) fn link_create_perf_event(
    prog: BorrowedFd<'_>,
    perf_event: Option<BorrowedFd<'_>>,
    bpf_cookie: u64,
) -> Result<OwnedFd> {
    let mut attr = LinkCreatePerfEvent {
        prog_fd: fd_u32(prog),
        target_fd: perf_event.map_or(u32::MAX, fd_u32),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        bpf_cookie,
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// `BPF_LINK_CREATE` of no program: EBADF to everyone; EPERM from an older kernel (5.10, no longer 6.1) without `CAP_BPF`, where
/// `unprivileged_bpf_disabled` is set, as Debian has it; any other answer is not the kernel's.
pub(crate) fn link_create_nothing() -> Result<OwnedFd> {
    let mut attr = LinkCreatePerfEvent {
        prog_fd: u32::MAX,
        target_fd: u32::MAX,
        attach_type: BPF_PERF_EVENT,
        ..LinkCreatePerfEvent::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// `BPF_LINK_CREATE` of a `kprobe.multi` or `kprobe.session` link to one symbol at an invalid address: EFAULT where the
/// kernel has them.
pub(crate) fn link_create_multi_bad_address(
    prog: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<OwnedFd> {
    let mut attr = LinkCreateKprobeMulti {
        prog_fd: fd_u32(prog),
        attach_type,
        cnt: 1,
        syms: 1,
        ..LinkCreateKprobeMulti::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor; its one address is only read, by
    // copy_from_user(), which refuses it.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// What `BPF_PROG_LOAD` is given.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    pub(crate) insns: &'a [u64],
    pub(crate) license: &'a CStr,
    pub(crate) name: [u8; 16],
    pub(crate) expected_attach_type: u32,
    pub(crate) kern_version: u32,
    /// `log_level` 1 if there is room for a log at all.
    pub(crate) log: &'a mut [u8],
}

/// How often a load is tried again that a signal interrupted; libbpf's `PROG_LOAD_ATTEMPTS`.
const PROG_LOAD_ATTEMPTS: u32 = 5;

/// `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_KPROBE` program.
pub(crate) fn prog_load(load: &mut Load<'_>) -> Result<OwnedFd> {
    let Load {
        insns,
        license,
        name,
        expected_attach_type,
        kern_version,
        log,
    } = load;
    let mut attr = ProgLoad {
        prog_type: uapi::BPF_PROG_TYPE_KPROBE,
        insn_cnt: u32::try_from(insns.len()).map_err(|_| Errno::TOOBIG)?,
        insns: address(*insns),
        license: address(*license),
        kern_version: *kern_version,
        prog_name: *name,
        expected_attach_type: *expected_attach_type,
        ..ProgLoad::default()
    };
    if !log.is_empty() {
        attr.log_level = 1;
        attr.log_size = len_u32(log);
        attr.log_buf = address_mut(*log);
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        // SAFETY: the attribute of this command, which opens a file descriptor: insns and license are read within their
        // lengths (the license ends with a NUL), and the log, borrowed mutably, is written within log_size.
        match unsafe { bpf_fd(BPF_PROG_LOAD, &mut attr) } {
            // The verifier met a pending signal (Linux 5.0, commit c3494801cd17).
            Err(Errno::AGAIN) if attempts < PROG_LOAD_ATTEMPTS => {}
            loaded => return loaded,
        }
    }
}

/// `BPF_MAP_CREATE` of an array of `entries` u64.
pub(crate) fn map_create_array(entries: u32) -> Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: entries,
        map_flags: 0,
    };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_MAP_CREATE, &mut attr) }
}

/// Whether a file descriptor is such a map as [`map_create_array`] makes, unless it is no map at all.
pub(crate) fn is_array(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut info = MapInfo::default();
    let len = size_of_val(&info);
    // SAFETY: the struct is all zeros, so the kernel has no address to write to, whatever kind of object it is.
    unsafe { obj_get_info(fd, &mut info, len) }?;
    let MapInfo {
        r#type,
        id: _,
        key_size,
        value_size,
    } = info;
    Ok((r#type, key_size, value_size) == (BPF_MAP_TYPE_ARRAY, 4, 8))
}

/// `BPF_MAP_UPDATE_ELEM` in a map made by [`map_create_array`].
pub(crate) fn map_update(map: &crate::bpf::array::Array, key: u32, value: u64) -> Result<()> {
    let mut attr = MapElem {
        map_fd: fd_u32(map.as_fd()),
        key: address(&key),
        value: address(&value),
        ..MapElem::default()
    };
    // SAFETY: the attribute of this command. The keys of an `Array` are the u32, and its values the u64, that are read.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// `BPF_MAP_LOOKUP_ELEM` in a map made by [`map_create_array`].
pub(crate) fn map_lookup(map: &crate::bpf::array::Array, key: u32) -> Result<u64> {
    let mut value = 0_u64;
    let mut attr = MapElem {
        map_fd: fd_u32(map.as_fd()),
        key: address(&key),
        value: address_mut(&mut value),
        ..MapElem::default()
    };
    // SAFETY: the attribute of this command. An `Array` is only made from `map_create_array`, or of what `is_array`, so its keys
    // are the u32 that is read and its values the u64 that is written; and the command refuses what is no map.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
}

/// `BPF_BTF_LOAD` of no type information: EPERM without `CAP_BPF`, which is looked at first, and EINVAL with it.
pub(crate) fn btf_load_nothing() -> Result<usize> {
    let mut attr = BtfLoad::default();
    // SAFETY: the attribute of this command, with a length of 0 beside its address.
    unsafe { bpf(BPF_BTF_LOAD, &mut attr) }
}

/// `BPF_OBJ_PIN`
pub(crate) fn obj_pin(path: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Obj {
        pathname: address(path),
        bpf_fd: fd_u32(fd),
        file_flags: 0,
    };
    // SAFETY: the attribute of this command; the path is read up to its NUL.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// `BPF_OBJ_PIN` below a directory. `EINVAL`: the kernel does not know `BPF_F_PATH_FD`.
pub(crate) fn obj_pin_at(dir: BorrowedFd<'_>, path: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = ObjAt {
        pathname: address(path),
        bpf_fd: fd_u32(fd),
        file_flags: BPF_F_PATH_FD,
        path_fd: fd_u32(dir),
        pad: 0,
    };
    // SAFETY: the attribute of this command; the path is read up to its NUL.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// `BPF_OBJ_GET`
pub(crate) fn obj_get(path: &CStr) -> Result<OwnedFd> {
    let mut attr = Obj {
        pathname: address(path),
        ..Obj::default()
    };
    // SAFETY: the attribute of this command, which opens a file descriptor; the path is read up to its NUL.
    unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) }
}

/// `BPF_PROG_GET_FD_BY_ID`
pub(crate) fn prog_get_fd_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFdById { id };
    // SAFETY: the attribute of this command, which opens a file descriptor, with no address in it.
    unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr) }
}

/// `BPF_OBJ_GET_INFO_BY_FD` into `info`, of which the kernel is shown `len` bytes; answers how many it knows.
///
/// # Safety
///
/// Every address in `info` must be valid for the kernel to write to, within the length beside it.
unsafe fn obj_get_info<T>(fd: BorrowedFd<'_>, info: &mut T, len: usize) -> Result<usize> {
    let mut attr = ObjGetInfo {
        bpf_fd: fd_u32(fd),
        info_len: u32::try_from(len.min(size_of::<T>())).map_err(|_| Errno::INVAL)?,
        info: address_mut(info),
    };
    // SAFETY: the attribute of this command; info is writable for info_len bytes, and the caller answers for the addresses
    // in it.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len as usize)
}

/// What the kernel tells of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgInfo {
    /// `enum bpf_prog_type`
    pub(crate) prog_type: u32,
    pub(crate) id: u32,
    /// Linux 5.12 (commit 9ed9e9ba2337)
    pub(crate) recursion_misses: Option<u64>,
}

/// `BPF_OBJ_GET_INFO_BY_FD` of a program.
pub(crate) fn prog_info(prog: BorrowedFd<'_>) -> Result<ProgInfo> {
    let mut raw = uapi::ProgInfo::default();
    let len = size_of_val(&raw);
    // SAFETY: whatever kind of object it is, every address in its info is zero, and so is the length beside it: the kernel
    // writes nowhere else.
    let known = unsafe { obj_get_info(prog, &mut raw, len) }?;
    Ok(ProgInfo {
        prog_type: raw.r#type,
        id: raw.id,
        recursion_misses: (known >= len).then_some(raw.recursion_misses),
    })
}

/// Whether a file descriptor is a program, as far as this kernel can tell: it is asked to bind map -1 to it, which it looks
/// at last. Linux 5.10 (commit ef15314aa5de).
pub(crate) fn is_prog(fd: BorrowedFd<'_>) -> bool {
    let answer = |prog_fd| {
        let mut attr = ProgBindMap {
            prog_fd,
            map_fd: u32::MAX,
            flags: 0,
        };
        // SAFETY: the attribute of this command, with no address in it.
        unsafe { bpf(BPF_PROG_BIND_MAP, &mut attr) }
    };
    // A kernel that does not know the command does not look at a program that is none either.
    answer(fd_u32(fd)) != Err(Errno::INVAL) || answer(u32::MAX) == Err(Errno::INVAL)
}

/// Whether a file descriptor is a link: it is asked to take program -1, which is looked at last. Linux 5.7.
pub(crate) fn is_link(fd: BorrowedFd<'_>) -> bool {
    let mut attr = LinkUpdate {
        link_fd: fd_u32(fd),
        new_prog_fd: u32::MAX,
        flags: 0,
    };
    // SAFETY: the attribute of this command, with no address in it.
    let answer = unsafe { bpf(BPF_LINK_UPDATE, &mut attr) };
    answer == Err(Errno::BADF)
}

/// What the kernel tells of a link; zero where it does not know the field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    /// `enum bpf_perf_event_type`; zero before Linux 6.6, and then so is all that follows.
    pub(crate) perf_event_type: u32,
    pub(crate) offset: u32,
    /// Zero where kallsyms hides addresses from this process.
    pub(crate) address: u64,
    /// Linux 6.7 (commit 3acf8ace6823), and 6.6-stable
    pub(crate) missed: Option<u64>,
    /// Linux 6.9 (commit d5c16492c66f), and 6.6-stable
    pub(crate) cookie: Option<u64>,
}

/// A cookie that nobody uses, to see whether the kernel wrote one over it.
const NO_COOKIE: u64 = u64::MAX;

/// `BPF_OBJ_GET_INFO_BY_FD` of a link: first the fields that every kernel has, then, where the first answer says that the
/// kernel has them, those of a kprobe, with the name of its function in `name`, NUL-terminated.
pub(crate) fn link_info(link: BorrowedFd<'_>, name: &mut [u8]) -> Result<LinkInfo> {
    let mut raw = LinkInfoPerfKprobe::default();
    let len = size_of_val(&raw);
    // SAFETY: the struct is all zeros, so the kernel has no address to write to.
    let known = unsafe { obj_get_info(link, &mut raw, len) }?;
    let mut info = LinkInfo {
        link_type: raw.r#type,
        id: raw.id,
        prog_id: raw.prog_id,
        perf_event_type: raw.perf_event_type,
        ..LinkInfo::default()
    };
    if raw.r#type != uapi::BPF_LINK_TYPE_PERF_EVENT
        || !matches!(
            raw.perf_event_type,
            uapi::BPF_PERF_EVENT_KPROBE | uapi::BPF_PERF_EVENT_KRETPROBE
        )
    {
        return Ok(info);
    }
    let mut asked = LinkInfoPerfKprobe {
        func_name: address_mut(name),
        name_len: len_u32(name),
        ..LinkInfoPerfKprobe::default()
    };
    // A struct of the full length is no proof of the last field: uprobe_multi made it as long in Linux 6.8.
    if known >= len {
        asked.cookie = NO_COOKIE;
    }
    // SAFETY: the one address in the struct is that of `name`, borrowed mutably, with its length beside it.
    unsafe { obj_get_info(link, &mut asked, known) }?;
    info.offset = asked.offset;
    info.address = asked.addr;
    let end_of_missed = core::mem::offset_of!(LinkInfoPerfKprobe, cookie);
    info.missed = (known >= end_of_missed).then_some(asked.missed);
    info.cookie = (known >= len && asked.cookie != NO_COOKIE).then_some(asked.cookie);
    Ok(info)
}

/// What the kernel tells of the kprobe behind a perf event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskFd {
    pub(crate) prog_id: u32,
    /// Zero where kallsyms hides addresses from this process.
    pub(crate) probe_addr: u64,
}

/// `BPF_TASK_FD_QUERY` of an own perf event, with the name of its function in `name`, NUL-terminated.
pub(crate) fn task_fd_query(perf_event: BorrowedFd<'_>, name: &mut [u8]) -> Result<TaskFd> {
    let mut attr = TaskFdQuery {
        pid: rustix::thread::gettid().as_raw_pid().unsigned_abs(),
        fd: fd_u32(perf_event),
        buf_len: len_u32(name),
        buf: address_mut(name),
        ..TaskFdQuery::default()
    };
    // SAFETY: the attribute of this command; its one address is that of `name`, borrowed mutably, with its length beside it.
    unsafe { bpf(BPF_TASK_FD_QUERY, &mut attr) }?;
    Ok(TaskFd {
        prog_id: attr.prog_id,
        probe_addr: attr.probe_addr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_errno_range_is_an_error() {
        assert_eq!(result(-1), Err(Errno::PERM));
        assert_eq!(result(-4095).unwrap_err().raw_os_error(), 4095);
        assert_eq!(result(-4096), Err(Errno::OVERFLOW));
        assert_eq!(result(0), Ok(0));
        assert_eq!(result(isize::MAX), Ok(usize::MAX / 2));
    }

    #[test]
    fn bpf_and_perf_event_open_reach_the_kernel() {
        // An fd that is not a program and an event type that does not exist: whatever this kernel allows, it answers.
        let not_a_program = rustix::fs::open(
            c"/dev/null",
            rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let error = prog_info(not_a_program.as_fd()).unwrap_err();
        assert!(matches!(error, Errno::INVAL | Errno::PERM), "{error:?}");
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
