//! The choice of the mode, made here and nowhere else.

use crate::error::Error;
use crate::kernel::Support;
use crate::request::{AttachMode, Invalid, KprobeOpts, Need, Target, check_mode, check_request};

/// Chooses the mode. An explicit mode is checked, and never replaced. Otherwise it is the first
/// mode that the request and the kernel allow. `unmet` returns the first need of a mode that is not
/// certainly met.
#[inline]
pub(super) fn select(
    target: &Target<'_>,
    opts: &KprobeOpts,
    unmet: impl Fn(AttachMode) -> Option<(Need, Support)>,
) -> Result<AttachMode, Error> {
    let checked = if target.is_resolved() {
        check_request(target, opts)
    } else {
        Err(Invalid::Unresolved)
    };
    if let Err(invalid) = checked {
        return Err(Error::invalid(invalid));
    }
    let modes = match &opts.attach_mode {
        Some(mode) => core::slice::from_ref(mode),
        None => &AttachMode::ALL[..],
    };
    let mut first_unmet = None;
    for mode in modes {
        if check_mode(*mode, opts).is_err() {
            continue;
        }
        let Some((need, support)) = unmet(*mode) else {
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
