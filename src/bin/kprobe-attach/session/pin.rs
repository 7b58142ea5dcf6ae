//! Pins: what `--pin DIR` makes below DIR, and what is found there again.
//!
//! A counter is an array whose first number is the count; the others are the probe's text, eight
//! bytes each.

use core::ffi::CStr;
use core::fmt::Write;
use core::mem::MaybeUninit;

use kprobe_attach::bpf::Array;
use kprobe_attach::error::ErrnoName;
use kprobe_attach::request::Probe;
use kprobe_attach::{AttachMode, Errno, Error, KprobeOpts};
use linux_raw_sys::general::BPF_FS_MAGIC;
use rustix::fs::{Mode, OFlags, RawDir};

use super::attached::{Attached, Session};
use super::pin_names::{COUNTER, Text, below, of_counter, of_link};
use super::print::print_all;
use crate::cli::Args;
use crate::out::{Lossy, Output, message_of_names};

/// Pins every probe below `dir` and says so, or pins none.
pub(crate) fn pin_all(
    args: &Args<'_>,
    out: &mut Output,
    dir: &CStr,
    session: &Session<'_>,
) -> Result<(), ()> {
    let made = matches!(rustix::fs::statfs(dir), Err(Errno::NOENT));
    let mut pinned = 0;
    let mut all = Ok(());
    for attached in session.iter() {
        all = attached.pin(args, out, dir);
        if all.is_err() {
            break;
        }
        pinned += 1;
    }
    let all = all.and_then(|()| print_all(args, out, session));
    if all.is_err() {
        for attached in session.iter().take(pinned) {
            attached.unpin(dir);
        }
        if made {
            // The first pin made it, or nothing did.
            let _ = rustix::fs::rmdir(dir);
        }
    }
    all
}

impl Attached<'_> {
    /// Pins the link, and the counter if there is one, or neither.
    fn pin(&self, args: &Args<'_>, out: &mut Output, dir: &CStr) -> Result<(), ()> {
        let mut failed = |pin: &Text, error: &Error| {
            args.report.pin(out, Some(self.text), pin.as_c_str(), error);
        };
        let pin = of_link(dir, &self.probe);
        self.link
            .pin(pin.as_c_str())
            .map_err(|error| failed(&pin, &error))?;
        let Some(counter) = self.counter() else {
            return Ok(());
        };
        let pin = of_counter(dir, &self.probe);
        counter.hits.pin(pin.as_c_str()).map_err(|error| {
            failed(&pin, &error);
            unlink(&of_link(dir, &self.probe));
        })
    }

    fn unpin(&self, dir: &CStr) {
        if self.counter().is_some() {
            unlink(&of_counter(dir, &self.probe));
        }
        unlink(&of_link(dir, &self.probe));
    }
}

fn unlink(pin: &Text) {
    if let Err(errno) = rustix::fs::unlink(pin.as_c_str()) {
        let (path, errno) = (Lossy(pin.as_c_str()), ErrnoName(errno));
        message_of_names(format_args!("{path} is left: {errno}"));
    }
}

/// Makes a counter that is to be pinned, and to tell then what it counts.
pub(crate) fn labelled_counter(text: &CStr, probe: &Probe<'_>) -> Result<Array, Error> {
    let mut label = Text::new();
    // The text that was given, unless options add to it: that it is a link goes without saying.
    let link = KprobeOpts::new().attach_mode(AttachMode::Link);
    let given = Probe::with_defaults(text.to_bytes(), &link);
    if given.is_ok_and(|given| given.opts == probe.opts) {
        label.push_all(text.to_bytes());
    } else {
        let _ = write!(label, "{probe}");
    }
    let words = || label.bytes.chunks_exact(8).take(label.len.div_ceil(8));
    let count = u32::try_from(words().count()).unwrap_or_default();
    let counter = Array::create(1 + count)?;
    for (index, word) in (1..).zip(words()) {
        counter.set(index, word.try_into().map_or(0, u64::from_ne_bytes))?;
    }
    Ok(counter)
}

/// Calls `each` with the pin of every counter in a directory, and with that of its link.
///
/// # Errors
///
/// The directory cannot be read, or is in no bpf file system: `EINVAL`.
pub(crate) fn for_each_counter(
    dir: &CStr,
    each: &mut dyn FnMut(&CStr, &CStr),
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the type depends on the architecture; the number has 32 bits"
    )]
    let magic = rustix::fs::fstatfs(&fd)?.f_type as u32;
    if magic != BPF_FS_MAGIC {
        return Err(Errno::INVAL);
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if let Some(link) = name.strip_prefix(COUNTER.as_bytes()) {
            each(below(dir, name).as_c_str(), below(dir, link).as_c_str());
        }
    }
    Ok(())
}
