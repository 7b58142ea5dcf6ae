//! Whether a module is loaded, which the errno of a missing function leaves open.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, statat};

use super::Kernel;
use crate::error::{Cause, Error};
use crate::mount::FILES;
use crate::request::Target;
use crate::text::Buf;

impl Kernel {
    /// Corrects the cause of a failed attach where sysfs reports that the module is loaded.
    pub(crate) fn settle(&self, error: &mut Error, target: &Target<'_>) {
        if error.cause() == Cause::ModuleNotLoaded && self.has_module(target) {
            error.set_cause(Cause::NoSuchFunction);
        }
    }

    /// Returns whether the module of a target is surely loaded, or built in, as far as sysfs
    /// reports.
    pub(crate) fn has_module(&self, target: &Target<'_>) -> bool {
        let (true, Some(module)) = (FILES, target.module_bytes()) else {
            return false;
        };
        let Ok(sysfs) = self.sysfs() else {
            return false;
        };
        // The kernel's own limit of a module's name is 55 bytes.
        let mut path = Buf::<128>::new();
        let pushed = path
            .push_all(b"module/")
            .and_then(|()| path.push_all(module));
        pushed.is_ok()
            && path
                .as_c_str()
                .is_ok_and(|path| statat(sysfs.as_fd(), path, AtFlags::empty()).is_ok())
    }
}
