//! Pins: what `--pin DIR` makes below DIR, and what is found there again.
//!
//! The link of a probe is `kprobe_FUNCTION`, or `kretprobe_FUNCTION`, and `_0xOFFSET`; its counter is `hits_` and the same. A
//! counter is an array whose first number is the count; the others are the probe's text, eight bytes each.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;

use kprobe_attach::map::Array;
use kprobe_attach::{AttachMode, Errno, ErrnoName, Error, KprobeOpts, Probe};
use linux_raw_sys::general::BPF_FS_MAGIC;
use rustix::fs::{Mode, OFlags, RawDir};

use crate::cli::Args;
use crate::commands::attach::print_all;
use crate::out::{Lossy, Output, message, report_pin};
use crate::session::{Attached, Session};

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
            report_pin(out, Some(self.text), args, pin.as_c_str(), error);
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
        message(format_args!("{path} is left: {errno}"));
    }
}

/// Text with a NUL behind it: the path of a pin, or what a counter says of its probe.
pub(crate) struct Text {
    bytes: [u8; 4096],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self {
            bytes: [0; 4096],
            len: 0,
        }
    }

    /// The path of a file in a directory.
    fn path(dir: &CStr, name: fmt::Arguments<'_>) -> Self {
        let mut path = Self::new();
        path.push_all(dir.to_bytes());
        // It fits: `Args` has seen to the directory, and the rest is at most as long as a symbol and an offset.
        let _ = write!(path, "/{name}");
        path
    }

    fn push_all(&mut self, bytes: &[u8]) {
        // The last byte stays the NUL.
        let free = self.bytes.get_mut(self.len..4095).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
            self.len += 1;
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_all(text.as_bytes());
        Ok(())
    }
}

/// The name of a link: the kind of probe, the function and the offset. A bpf file system keeps names with dots for itself.
struct Name<'a>(&'a Probe);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { target, opts } = self.0;
        f.write_str(if opts.retprobe {
            "kretprobe_"
        } else {
            "kprobe_"
        })?;
        write!(Plain(f), "{target}")?;
        if opts.offset == 0 {
            return Ok(());
        }
        write!(f, "_{:#x}", opts.offset)
    }
}

struct Plain<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| {
            let is_plain = char.is_ascii_alphanumeric();
            self.0.write_char(if is_plain { char } else { '_' })
        })
    }
}

/// What the name of a counter begins with, before that of its link.
const COUNTER: &str = "hits_";

/// The pin of a probe's link.
pub(crate) fn of_link(dir: &CStr, probe: &Probe) -> Text {
    Text::path(dir, format_args!("{}", Name(probe)))
}

/// The pin of a probe's counter.
fn of_counter(dir: &CStr, probe: &Probe) -> Text {
    Text::path(dir, format_args!("{COUNTER}{}", Name(probe)))
}

/// Makes a counter that is to be pinned, and to tell then what it counts.
pub(crate) fn labelled_counter(text: &CStr, probe: &Probe) -> Result<Array, Error> {
    let mut label = Text::new();
    // The text that was given, unless options add to it: that it is a link goes without saying.
    let link = KprobeOpts::new().attach_mode(AttachMode::Link);
    if Probe::with_defaults(text.to_bytes(), &link) == Ok(*probe) {
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

/// What such a counter says that it counts.
pub(crate) fn label(counter: &Array) -> Text {
    let mut label = Text::new();
    for index in 1.. {
        // Behind the last number there is none, and of a counter that cannot be read no probe comes out.
        let Ok(word) = counter.get(index) else { break };
        let word = word.to_ne_bytes();
        let end = word.iter().position(|byte| *byte == 0);
        label.push_all(word.get(..end.unwrap_or(word.len())).unwrap_or_default());
        if end.is_some() || label.len == 4095 {
            break;
        }
    }
    label
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
        reason = "by the architecture it has 32 or 64 bits, and a sign or none; the number has 32 bits"
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

/// The path of a name that was found in a directory.
fn below(dir: &CStr, name: &[u8]) -> Text {
    let mut path = Text::path(dir, format_args!(""));
    path.push_all(name);
    path
}
