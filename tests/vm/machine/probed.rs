//! The functions that are probed, and the calls that make them run.

use std::fs;

use kprobe_attach::Target;

/// A function on the path of a system call that nobody else calls in the machine: it runs once for
/// each [`unlink`].
pub(crate) const FUNCTION: &str = "vfs_unlink";

/// Another such: it runs once for each [`mkdir`].
pub(crate) const OTHER_FUNCTION: &str = "vfs_mkdir";

pub(crate) fn function() -> Target<'static> {
    Target::symbol(FUNCTION).unwrap()
}

/// Makes [`FUNCTION`] run `times` times.
pub(crate) fn unlink(times: usize) {
    for _ in 0..times {
        fs::write("/tmp/probed", "").unwrap();
        fs::remove_file("/tmp/probed").unwrap();
    }
}

/// Makes [`OTHER_FUNCTION`] run `times` times.
pub(crate) fn mkdir(times: usize) {
    for _ in 0..times {
        fs::create_dir("/tmp/probed.d").unwrap();
        fs::remove_dir("/tmp/probed.d").unwrap();
    }
}

/// Makes the probed function run, in a place that no other thread of the test uses.
pub(crate) fn unlink_own(times: usize) {
    let path = format!("/tmp/probed.{}", rustix::thread::gettid());
    for _ in 0..times {
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
}
