//! Pins: `--pin DIR` makes them in DIR, and `count --pin DIR` finds them there again.
//!
//! A counter is an array. Its first number is the count, and the others hold the probe's text,
//! eight bytes each.

use core::ffi::CStr;
use core::fmt::Write;
use core::mem::MaybeUninit;

use kprobe_attach::bpf::Array;
use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::fd::OwnedFd;
use kprobe_attach::request::Probe;
use kprobe_attach::{AttachMode, Errno, Error, KprobeOpts};
use linux_raw_sys::general::BPF_FS_MAGIC;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};

use super::attached::{Attached, Link, Session};
use super::pin_names::{COUNTER, Text, of_counter, of_link};
use super::print::print_all;
use crate::cli::Args;
use crate::out::{Lossy, Output};
use crate::programs::Counter;

/// Pins every probe in `dir` and prints a line for it, or pins none. Then it calls `pin_others`,
/// which may pin more, or fail and pin nothing. If the output is lost, the pins stay: an init may
/// have no console.
pub(crate) fn pin_all(
    args: &Args<'_>,
    out: &mut Output,
    dir: &CStr,
    session: &Session<'_>,
    pin_others: &mut dyn FnMut(&mut Output) -> Result<(), ()>,
) -> Result<(), ()> {
    // `dir` can be relative to it.
    let start = rustix::fs::open(c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let made = rustix::fs::mkdir(dir, Mode::RWXU).is_ok();
    let mut pinned = 0;
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let entered = enter(dir, flags).and_then(|dir| check_owner(&dir));
    let mut all = entered.map_err(|errno| report_dir(args, out, Step::Pin, dir, errno));
    for attached in session.iter() {
        if all.is_err() {
            break;
        }
        all = attached.pin(args, out, dir, session);
        pinned += usize::from(all.is_ok());
    }
    all = all.and_then(|()| pin_others(out));
    if all.is_ok() {
        // The end of the program reports what is lost.
        let _ = print_all(args, out, session);
    } else {
        for attached in session.iter().take(pinned) {
            attached.unpin(args, out, dir, session);
        }
        if let (true, Ok(start)) = (made, start) {
            let _ = rustix::fs::unlinkat(start, dir, AtFlags::REMOVEDIR);
        }
    }
    all
}

/// Opens a directory of a bpf file system, and makes it the working directory. Its pins then have
/// names, which stay in it even if its path leads elsewhere by then. (`BPF_F_PATH_FD`, which does
/// the same, takes Linux 6.5.)
///
/// # Errors
///
/// `EINVAL` if it is in no bpf file system, and those of [`open(2)`].
///
/// [`open(2)`]: https://man7.org/linux/man-pages/man2/open.2.html
fn enter(dir: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the type depends on the architecture; the number has 32 bits"
    )]
    let magic = rustix::fs::fstatfs(&dir)?.f_type as u32;
    if magic != BPF_FS_MAGIC {
        return Err(Errno::INVAL);
    }
    rustix::process::fchdir(&dir)?;
    Ok(dir)
}

/// Checks that a directory belongs to this user or to root, and that not everybody may replace what
/// is in it: `EPERM`.
fn check_owner(dir: &OwnedFd) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(dir)?;
    let is_own = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    let mode = Mode::from_raw_mode(stat.st_mode) & (Mode::WOTH | Mode::SVTX);
    if is_own && mode != Mode::WOTH {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Reports why a directory cannot be used for pins.
pub(crate) fn report_dir(args: &Args<'_>, out: &mut Output, step: Step, dir: &CStr, errno: Errno) {
    let why = match errno {
        Errno::INVAL => "this is in no bpf file system",
        Errno::PERM => "others own this directory, or may change it",
        _ => "no directory in a mounted bpf file system",
    };
    let cause = match errno {
        Errno::ACCESS => Cause::NoPermission,
        _ => Cause::Unknown,
    };
    let (dir, name) = (Lossy(dir), ErrnoName(errno));
    let (probe, kind) = (args.probes().next(), (step, errno, cause));
    args.report
        .other(out, probe, kind, format_args!("{dir}: {name}: {why}"));
}

impl Attached<'_> {
    /// Pins the link, and the counter if there is one, or neither. A link that it shares is pinned
    /// for the first of those that do.
    fn pin(
        &self,
        args: &Args<'_>,
        out: &mut Output,
        dir: &CStr,
        session: &Session<'_>,
    ) -> Result<(), ()> {
        let failed = |out: &mut Output, pin: &Text, error: &Error| {
            let pin = (dir, pin.as_c_str());
            args.report.pin(out, Some(self.known.text), pin, error);
        };
        let link = of_link(args, session, self);
        let pinned = match &self.link {
            Link::Own(Some(own), _) => own.pin(link.as_c_str()),
            Link::Own(None, _) => Ok(()),
            Link::Shared(shared, index) => session
                .link_of_first(*shared, *index)
                .map_or(Ok(()), |shared| shared.pin(link.as_c_str())),
        };
        pinned.map_err(|error| failed(out, &link, &error))?;
        let Some(counter) = self.counter() else {
            return Ok(());
        };
        let pin = of_counter(&self.known.probe);
        counter.hits.pin(pin.as_c_str()).map_err(|error| {
            failed(out, &pin, &error);
            unlink(args, out, dir, &link);
        })
    }

    fn unpin(&self, args: &Args<'_>, out: &mut Output, dir: &CStr, session: &Session<'_>) {
        if self.counter().is_some() {
            unlink(args, out, dir, &of_counter(&self.known.probe));
        }
        let is_pinned = match self.link {
            Link::Own(..) => true,
            Link::Shared(shared, index) => session.link_of_first(shared, index).is_some(),
        };
        if is_pinned {
            unlink(args, out, dir, &of_link(args, session, self));
        }
    }

    /// Returns the counter that is pinned beside the link.
    const fn counter(&self) -> Option<&Counter> {
        match &self.link {
            Link::Own(_, source) => source.counter(),
            Link::Shared(..) => None,
        }
    }
}

pub(super) fn unlink(args: &Args<'_>, out: &mut Output, dir: &CStr, pin: &Text) {
    if let Err(errno) = rustix::fs::unlink(pin.as_c_str()) {
        let (dir, pin, name) = (Lossy(dir), Lossy(pin.as_c_str()), ErrnoName(errno));
        let kind = (Step::Pin, errno, Cause::Unknown);
        args.report
            .other(out, None, kind, format_args!("{dir}/{pin} is left: {name}"));
    }
}

/// Makes a counter to pin. It also holds the text of its probe.
pub(crate) fn labelled_counter(text: &CStr, probe: &Probe<'_>) -> Result<Array, Error> {
    let mut label = Text::new();
    // The text that was given, unless options add to it: that it is a link goes without saying.
    let link = KprobeOpts::new().attach_mode(AttachMode::Link);
    match Probe::with_defaults(text.to_bytes(), &link) {
        Ok(given) if given.opts != probe.opts => {
            let opts = probe.opts;
            let _ = write!(label, "{}", Probe { opts, ..given });
        }
        _ => label.push_all(text.to_bytes()),
    }
    let words = || label.bytes.chunks_exact(8).take(label.len.div_ceil(8));
    let count = u32::try_from(words().count()).unwrap_or_default();
    let counter = Array::create(1 + count)?;
    for (index, word) in (1..).zip(words()) {
        counter.set(index, word.try_into().map_or(0, u64::from_ne_bytes))?;
    }
    Ok(counter)
}

/// Calls `each` with the name of the pin of every counter in a directory, and with that of its
/// link. Makes the directory the working directory, where these names are.
///
/// # Errors
///
/// The directory cannot be read, or is in no bpf file system: `EINVAL`.
pub(crate) fn for_each_counter(
    dir: &CStr,
    each: &mut dyn FnMut(&CStr, &CStr),
) -> Result<(), Errno> {
    let fd = enter(dir, OFlags::RDONLY)?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        let link = name.to_bytes_with_nul().strip_prefix(COUNTER.as_bytes());
        if let Some(Ok(link)) = link.map(CStr::from_bytes_until_nul) {
            each(name, link);
        }
    }
    Ok(())
}
