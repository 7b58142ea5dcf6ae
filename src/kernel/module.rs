//! Whether a module is loaded, and whether it is still the same one.

use linux_raw_sys::general::SYSFS_MAGIC;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;

use super::Kernel;
use crate::mount::{FILES, open_file};
use crate::request::Target;
use crate::text::Buf;

impl Kernel {
    /// Returns whether sysfs shows the module of a target as loaded or built in.
    pub(crate) fn has_module(&self, target: &Target<'_>) -> bool {
        self.module_dir(target).is_some()
    }

    /// Returns a number for the module of a target, as it is loaded now. Once the module has been
    /// unloaded, and perhaps loaded again, the number is another, or [`None`].
    ///
    /// After that, a probe by the PMU is dead: the kernel does not arm it again. The number is that
    /// of the directory in `/sys/module`. It is [`None`] for a target without a module, and where
    /// sysfs is unavailable.
    #[must_use]
    pub fn module_number(&self, target: &Target<'_>) -> Option<u64> {
        let stat = rustix::fs::fstat(self.module_dir(target)?).ok()?;
        Some(stat.st_ino)
    }

    fn module_dir(&self, target: &Target<'_>) -> Option<OwnedFd> {
        if !FILES {
            return None;
        }
        let module = target.module_bytes()?;
        // The kernel limits a module's name to 55 bytes.
        let mut path = Buf::<128>::new();
        path.push_all(b"module/").ok()?;
        path.push_all(module).ok()?;
        let sysfs = self.sysfs().ok()?.as_fd();
        open_file(sysfs, path.as_c_str().ok()?, OFlags::PATH, SYSFS_MAGIC).ok()
    }
}
