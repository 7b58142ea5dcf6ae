//! The child that mounts a file system in a mount namespace of its own hands over its errno.

use kprobe_attach::{Errno, Mount};

use crate::machine::{TRACEFS, clean, unmount, with_filter, with_own_mounts};
use crate::mounts::without_fsopen;

#[test]
fn no_errno_of_the_child_that_mounts_becomes_another_one() {
    clean(|| {
        with_own_mounts(|| {
            unmount(TRACEFS);
            unmount("/sys/kernel/debug");
            // 255 is what an exit status has room for; it names no errno.
            for (errno, reported) in [
                (1, 1),
                (133, 133),
                (255, 255),
                (256, 255),
                (257, 255),
                (524, 255),
                (4095, 255),
            ] {
                let errno = Errno::from_raw_os_error(errno);
                let refused = without_fsopen(|| {
                    with_filter(libc::SYS_mount, None, errno, || Mount::tracefs().err())
                });
                assert_eq!(
                    refused.map(Errno::raw_os_error),
                    Some(reported),
                    "{errno:?}"
                );
            }
        });
    });
}
