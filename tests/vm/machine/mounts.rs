//! Mounts of a thread's own.

use std::ffi::CStr;
use std::fs;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::in_thread;

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";

/// Runs a test in a thread with mounts of its own.
pub(crate) fn with_own_mounts<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        #[allow(
            deprecated,
            reason = "this thread shares no memory with another that is changed by it"
        )]
        rustix::thread::unshare(UnshareFlags::FS | UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        test()
    })
}

pub(crate) fn mount(fs_type: &str, path: &str) {
    let flags = MountFlags::empty();
    rustix::mount::mount("none", path, fs_type, flags, None::<&CStr>).unwrap();
}

/// Mounts something empty over a path.
pub(crate) fn hide(path: &str) {
    mount("tmpfs", path);
}

/// Returns the names in a directory, sorted.
pub(crate) fn names_in(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

pub(crate) fn unmount(path: &str) {
    rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap();
}

/// Runs a test where `/proc/kallsyms` is hidden: reading it takes seconds in an emulated machine.
pub(crate) fn without_symbols<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    with_own_mounts(|| {
        rustix::mount::mount_bind("/dev/null", "/proc/kallsyms").unwrap();
        test()
    })
}

/// Unmounts sysfs, and all that is below it.
pub(crate) fn unmount_sys() {
    for path in [TRACEFS, "/sys/kernel/debug", "/sys/fs/bpf", "/sys"] {
        unmount(path);
    }
}

/// Unmounts all of the kernel's own file systems.
pub(crate) fn unmount_all() {
    unmount_sys();
    unmount("/proc");
}
