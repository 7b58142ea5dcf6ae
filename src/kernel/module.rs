//! Whether a module is loaded, which the errno of a missing function does not show.

use linux_raw_sys::general::SYSFS_MAGIC;
use rustix::fd::AsFd;
use rustix::fs::OFlags;

use super::Kernel;
use crate::mount::{FILES, open_file};
use crate::request::Target;
use crate::text::Buf;

impl Kernel {
    /// Returns whether sysfs shows the module of a target as loaded or built in.
    pub(crate) fn has_module(&self, target: &Target<'_>) -> bool {
        let (true, Some(module)) = (FILES, target.module_bytes()) else {
            return false;
        };
        let Ok(sysfs) = self.sysfs() else {
            return false;
        };
        // The kernel limits a module's name to 55 bytes.
        let mut path = Buf::<128>::new();
        let pushed = path
            .push_all(b"module/")
            .and_then(|()| path.push_all(module));
        pushed.is_ok()
            && path
                .as_c_str()
                .is_ok_and(|path| open_file(sysfs.as_fd(), path, OFlags::PATH, SYSFS_MAGIC).is_ok())
    }
}
