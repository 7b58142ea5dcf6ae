//! Whether a module is loaded, which the errno of a missing function leaves open.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use crate::error::Cause;
use crate::mount::{FILES, Mount};
use crate::request::Target;
use crate::text::Buf;

/// The cause of a place that is refused, where sysfs tells more than the errno: whether a module is
/// loaded.
pub(crate) fn settled(cause: Cause, target: &Target<'_>) -> Cause {
    match (cause, target.module_bytes()) {
        (Cause::ModuleNotLoaded, Some(module)) if FILES && is_loaded(module) => {
            Cause::NoSuchFunction
        }
        _ => cause,
    }
}

/// Whether a module is surely loaded, or built in, as far as a mounted sysfs tells.
pub(crate) fn is_loaded(module: &[u8]) -> bool {
    // The kernel's own limit is 55 bytes.
    let mut path = Buf::<128>::new();
    let fits = path
        .push_all(b"module/")
        .and_then(|()| path.push_all(module));
    let stat = fits.map_err(|_| Errno::NAMETOOLONG).and_then(|()| {
        let sysfs = Mount::find_sysfs()?;
        statat(sysfs.as_fd(), path.as_c_str()?, AtFlags::empty())
    });
    stat.is_ok()
}
