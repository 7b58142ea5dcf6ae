//! The probes of a command line that are attached.

use core::ffi::CStr;

use kprobe_attach::bpf::Program;
use kprobe_attach::fd::{AsFd, BorrowedFd};
use kprobe_attach::request::Probe;
use kprobe_attach::{AttachMode, Error, Kernel, KprobeLink, detach_by_children};

use super::found::{Found, Known};
use super::probes::for_all;
use super::progress::Progress;
use crate::cli::Args;
use crate::out::Output;
use crate::programs::Counter;
use crate::rt::Slots;

/// A probe that is attached.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) known: Known<'a>,
    /// The link, until it is detached.
    pub(crate) link: Option<KprobeLink>,
    pub(crate) source: Source<'a>,
    /// The counts as they were last read.
    pub(crate) counts: Counts,
    /// The number of the function's module when the probe was attached.
    pub(crate) module: Option<u64>,
}

/// Holds the counts of a probe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// The mode of the link, if there is one.
    pub(crate) mode: Option<AttachMode>,
    pub(crate) hits: u64,
    /// The hits that were not counted, if the kernel reports them.
    pub(crate) missed: Option<u64>,
    /// Whether the module was unloaded, so that the probe is dead.
    pub(crate) is_gone: bool,
}

/// The program that is attached to a probe.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// The caller's program, which is the same for every probe.
    Given(&'a Program),
    /// The built-in program, one for each probe.
    BuiltIn(Counter),
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Given(program) => program.as_fd(),
            Source::BuiltIn(counter) => counter.program.as_fd(),
        }
    }
}

impl Attached<'_> {
    /// Returns the counter of the built-in program.
    pub(crate) const fn counter(&self) -> Option<&Counter> {
        match &self.source {
            Source::Given(_) => None,
            Source::BuiltIn(counter) => Some(counter),
        }
    }
}

/// The number of children that detach many probes. More of them take no less time.
const CHILDREN: usize = 3;

/// The number of probes from which on they are detached by children.
const SHARED_FROM: usize = 4;

/// The number of probes that are detached before the progress is shown again.
const AT_ONCE: usize = 60;

/// Makes the program for a probe.
type Loader<'a, 'l> = dyn FnMut(&CStr, &Probe<'_>) -> Result<Source<'a>, Error> + 'l;

/// Holds the attached probes, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    attached: Slots<Attached<'a>>,
}

impl<'a> Session<'a> {
    /// Attaches to every probe the program that `load` makes for it.
    ///
    /// # Errors
    ///
    /// One or more probes failed, and each has been reported. With `--keep-going`, all of them
    /// failed. Nothing is left attached.
    pub(crate) fn attach<'p: 'a>(
        args: &'a Args<'p>,
        kernel: &Kernel,
        out: &mut Output,
        found: &'a Found<'p>,
        load: &mut Loader<'a, '_>,
    ) -> Result<Self, ()> {
        let memory = Slots::map(found.count);
        let attached = memory.map_err(|errno| {
            args.report.run(out, errno, "no memory for so many probes");
        })?;
        let mut session = Self { attached };
        let mut progress = Progress::new(args, "attaching", found.count);
        let mut done = 0;
        let mut all = for_all(args, out, found, &mut |_, known| {
            progress.show(done);
            done += 1;
            let Known { text, probe, .. } = known;
            let source = load(text, probe)?;
            let link = kernel.attach_kprobe(source.as_fd(), probe.target, &probe.opts)?;
            session.attached.push(Attached {
                known: *known,
                link: Some(link),
                source,
                counts: Counts::default(),
                module: kernel.module_number(&probe.target),
            });
            Ok(())
        });
        drop(progress);
        if session.len() == 0 {
            all = Err(());
        }
        if all.is_err() {
            // What cannot be removed has been reported.
            let _ = session.detach(args, out);
        }
        all.map(|()| session)
    }

    /// Returns the number of probes that were attached.
    pub(crate) const fn len(&self) -> usize {
        self.attached.as_slice().len()
    }

    /// Returns the probes.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Attached<'a>> {
        self.attached.as_slice().iter()
    }

    /// Returns the probes, which can be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Attached<'a>> {
        self.attached.as_mut_slice().iter_mut()
    }

    /// Detaches every probe. From then on the program waits for no reader that stands still.
    ///
    /// # Errors
    ///
    /// One or more probes left something behind, and each has been reported.
    pub(crate) fn detach(&mut self, args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
        out.end();
        let mut all = Ok(());
        let attached = self.attached.as_mut_slice();
        if attached.len() >= SHARED_FROM {
            let mut progress = Progress::new(args, "detaching", attached.len());
            let mut done = 0;
            for some in attached.chunks_mut(AT_ONCE) {
                progress.show(done);
                done += some.len();
                // The events of the tracefs modes are removed below, where a failure has a probe.
                let closed = detach_by_children(CHILDREN, some.len(), |index| {
                    let link = &mut some.get_mut(index)?.link;
                    link.take_if(|link| !link.mode().uses_tracefs())
                });
                if let Err(error) = closed {
                    args.report.error(out, None, &error);
                    all = Err(());
                }
            }
        }
        for attached in self.iter_mut() {
            let detached = attached.link.take().map_or(Ok(()), KprobeLink::detach);
            if let Err(error) = detached {
                args.report.error(out, Some(attached.known.text), &error);
                all = Err(());
            }
        }
        all
    }
}
