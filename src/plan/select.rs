//! The choice of the mode, made here and nowhere else.

use rustix::fd::BorrowedFd;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::mount::FILES;
use crate::request::{AttachMode, Invalid, KprobeOpts, Target, check_mode, check_request};

/// Chooses the mode. An explicit mode is checked, and never replaced. Otherwise it is the first
/// mode that the request and the kernel allow. If `prog` is given, the probe for perf links uses
/// it.
#[inline]
pub(super) fn select(
    kernel: &Kernel,
    target: &Target<'_>,
    opts: &KprobeOpts,
    prog: Option<BorrowedFd<'_>>,
) -> Result<AttachMode, Error> {
    let checked = if target.is_resolved() {
        check_request(target, opts)
    } else {
        Err(Invalid::Unresolved)
    };
    if let Err(invalid) = checked {
        return Err(Error::invalid(invalid));
    }
    // Nearly always, the kernel is known to have the first mode, or the second without the first.
    let is_known = |mode| {
        opts.maxactive == 0 && check_mode(mode, opts).is_ok() && kernel.has_met(mode, opts.retprobe)
    };
    match opts.attach_mode {
        None if is_known(AttachMode::Link) => Ok(AttachMode::Link),
        // Small programs do without this line.
        None if FILES && kernel.has_no_perf_link() && is_known(AttachMode::Perf) => {
            Ok(AttachMode::Perf)
        }
        Some(mode) if is_known(mode) => Ok(mode),
        _ => search(kernel, opts, prog),
    }
}

/// Asks about one mode after the other.
#[inline(never)]
fn search(
    kernel: &Kernel,
    opts: &KprobeOpts,
    prog: Option<BorrowedFd<'_>>,
) -> Result<AttachMode, Error> {
    let modes = match &opts.attach_mode {
        Some(mode) => core::slice::from_ref(mode),
        None => &AttachMode::ALL[..],
    };
    let mut first_unmet = None;
    for mode in modes {
        if check_mode(*mode, opts).is_err() {
            continue;
        }
        let Some((need, support)) = kernel.unmet(*mode, opts.retprobe, prog) else {
            if FILES && opts.maxactive != 0 {
                kernel.check_maxactive()?;
            }
            return Ok(*mode);
        };
        first_unmet = first_unmet.or(Some((*mode, need, support)));
    }
    Err(match first_unmet {
        Some((mode, need, support)) => support.unmet(mode, need),
        // LegacyLink supports every option, so at least one mode was asked about.
        None => Error::invalid(Invalid::CookieWithoutLink),
    })
}
