//! The probes of a command line that are attached.

use core::fmt;

use kprobe_attach::fd::AsFd;
use kprobe_attach::request::AttachType;
use kprobe_attach::{AttachMode, Error, Kernel, KprobeLink, KprobeMultiLink, detach_by_children};

use super::found::{Found, Known};
use super::probes::for_all;
use super::progress::Progress;
use super::shared::{Kind, Loader, Members, Shared, Source};
use crate::cli::{Args, Opt};
use crate::out::Output;
use crate::rt::Slots;

/// A probe that is attached.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) known: Known<'a>,
    pub(crate) link: Link<'a>,
    /// The counts as they were last read.
    pub(crate) counts: Counts,
    /// The number of the function's module when the probe was attached.
    pub(crate) module: Option<u64>,
}

/// Holds the counts of a probe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// The way in which it is attached, unless its link is gone.
    pub(crate) way: Option<Way>,
    pub(crate) hits: u64,
    /// The hits that were not counted, if the kernel reports them.
    pub(crate) missed: Option<u64>,
    /// Whether the module was unloaded, so that the probe is dead.
    pub(crate) is_gone: bool,
}

/// The way in which a probe is attached: the mode of its own link, or the link that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    One(AttachMode),
    Multi,
    Session,
}

impl Way {
    /// Returns the way of a link to many functions.
    pub(crate) fn of(attach_type: AttachType) -> Self {
        match attach_type {
            AttachType::KprobeSession => Self::Session,
            _ => Self::Multi,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::One(mode) => mode.name(),
            Self::Multi => "multi",
            Self::Session => "session",
        })
    }
}

/// The link of a probe.
#[derive(Debug)]
pub(crate) enum Link<'a> {
    /// One of its own, until it is detached, and its program.
    Own(Option<KprobeLink>, Source<'a>),
    /// One that it shares: the index of the link, and its own index among the probes that share it.
    Shared(usize, usize),
}

/// The number of children that detach many probes. More of them take no less time.
const CHILDREN: usize = 3;

/// The number of probes from which on they are detached by children.
const SHARED_FROM: usize = 4;

/// The number of probes that are detached before the progress is shown again.
const AT_ONCE: usize = 60;

/// Holds the attached probes, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    attached: Slots<Attached<'a>>,
    shared: Slots<Shared<'a>>,
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
        let memory = Slots::map(found.count).and_then(|attached| {
            let shared = Slots::map(usize::from(Kind::COUNT) * args.program_count())?;
            Ok(Self { attached, shared })
        });
        let mut session = memory.map_err(|errno| {
            args.report.run(out, errno, "no memory for so many probes");
        })?;
        let mut all = Ok(());
        if !args.has(Opt::AnyOf) {
            all = Kind::for_each(args, found, &mut |kind| {
                session.attach_shared(args, kernel, out, found, kind, load)
            });
        }
        let mut progress = Progress::new(args, "attaching", found.count);
        let mut done = 0;
        let each = for_all(args, out, found, &mut |_, known| {
            progress.show(done);
            done += 1;
            match Kind::of(known) {
                None => session.attach_own(kernel, known, load),
                Some(kind) if args.has(Opt::AnyOf) => {
                    session.attach_any(args, kernel, known, kind, load)
                }
                Some(kind) => session.take_shared(kernel, known, kind, load),
            }
        });
        drop(progress);
        all = all.and(each);
        if session.len() == 0 {
            all = Err(());
        }
        if all.is_err() {
            // What cannot be removed has been reported.
            let _ = session.detach(args, out);
        }
        all.map(|()| session)
    }

    /// Attaches to one probe by a link of its own.
    fn attach_own(
        &mut self,
        kernel: &Kernel,
        known: &Known<'a>,
        load: &mut Loader<'a, '_>,
    ) -> Result<(), Error> {
        let probe = &known.probe;
        let source = load(known, 1)?;
        let link = kernel.attach_kprobe(source.as_fd(), probe.target, &probe.opts)?;
        self.attached.push(Attached {
            known: *known,
            link: Link::Own(Some(link), source),
            counts: Counts::default(),
            module: kernel.module_number(&probe.target),
        });
        Ok(())
    }

    /// Attaches to all probes of a kind by one link. A probe that takes no such link is reported,
    /// unless it may have one of its own.
    #[inline(never)]
    fn attach_shared<'p: 'a>(
        &mut self,
        args: &'a Args<'p>,
        kernel: &Kernel,
        out: &mut Output,
        found: &'a Found<'p>,
        kind: Kind,
        load: &mut Loader<'a, '_>,
    ) -> Result<(), ()> {
        let members = Members::of(args, found, kind, args.counts());
        let members = members.map_err(|errno| {
            args.report.run(out, errno, "no memory for so many probes");
        })?;
        let mut all = Ok(());
        let mut failed = |known: &Known<'_>, error: &Error| {
            if !known.is_shared {
                args.report.error(out, Some(known.text), error);
                if !args.has(Opt::KeepGoing) {
                    all = Err(());
                }
            }
        };
        if let Some(shared) = members.attach(kernel, kind, load, &mut failed) {
            self.shared.push(shared);
        }
        all
    }

    /// Takes a probe from the link of its kind, or attaches to it by a link of its own. What cannot
    /// have one has been reported.
    fn take_shared(
        &mut self,
        kernel: &Kernel,
        known: &Known<'a>,
        kind: Kind,
        load: &mut Loader<'a, '_>,
    ) -> Result<(), Error> {
        let mut shared = (0..).zip(self.shared.as_mut_slice());
        if let Some((link, shared)) = shared.find(|(_, shared)| shared.kind == kind) {
            let index = shared.asked;
            shared.asked += 1;
            if shared.find(index).is_some() {
                self.push_shared(known, link, index);
                return Ok(());
            }
        }
        if known.is_shared {
            let mut known = *known;
            known.probe.attach_type = AttachType::Kprobe;
            return self.attach_own(kernel, &known, load);
        }
        Ok(())
    }

    /// Attaches to one probe by a link that could be one to many.
    #[inline(never)]
    fn attach_any(
        &mut self,
        args: &Args<'_>,
        kernel: &Kernel,
        known: &Known<'a>,
        kind: Kind,
        load: &mut Loader<'a, '_>,
    ) -> Result<(), Error> {
        // There is memory for one if there was for all.
        let Ok(members) = Members::one(known, kind, args.counts()) else {
            return Ok(());
        };
        let mut refused = Ok(());
        let mut failed = |_: &Known<'_>, error: &Error| refused = Err(*error);
        let shared = members.attach(kernel, kind, load, &mut failed);
        refused?;
        if let Some(shared) = shared {
            self.shared.push(shared);
            self.push_shared(known, 0, 0);
        }
        Ok(())
    }

    fn push_shared(&mut self, known: &Known<'a>, link: usize, index: usize) {
        self.attached.push(Attached {
            known: *known,
            link: Link::Shared(link, index),
            counts: Counts::default(),
            // The link keeps the module.
            module: None,
        });
    }

    /// Returns the number of probes that were attached.
    pub(crate) const fn len(&self) -> usize {
        self.attached.as_slice().len()
    }

    /// Returns the probes.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Attached<'a>> {
        self.attached.as_slice().iter()
    }

    /// Returns the links that probes share.
    pub(crate) const fn shared(&self) -> &[Shared<'a>] {
        self.shared.as_slice()
    }

    /// Returns the link that a probe shares, if the probe is the first of those that do.
    pub(super) fn link_of_first(&self, shared: usize, index: usize) -> Option<&KprobeMultiLink> {
        let (_, (probes, link)) = self.shared().get(shared)?.find(index)?;
        (probes.start == index).then_some(link)
    }

    /// Returns the probe after which the link of a probe is named: the first of those that share
    /// it. Also returns the number of that link among those of its program, from 0 on.
    pub(super) fn named_after<'s>(&'s self, attached: &'s Attached<'a>) -> (&'s Known<'a>, usize) {
        let own = (&attached.known, 0);
        let Link::Shared(of, index) = attached.link else {
            return own;
        };
        let shared = self.shared().get(of);
        let Some((number, (probes, _))) = shared.and_then(|shared| shared.find(index)) else {
            return own;
        };
        let first = self.iter().find(|attached| match attached.link {
            Link::Shared(shared, index) => (shared, index) == (of, probes.start),
            Link::Own(..) => false,
        });
        first.map_or(own, |first| (&first.known, number))
    }

    /// Returns the probes, which can be changed, and the links that they share.
    pub(crate) const fn parts_mut(&mut self) -> (&mut [Attached<'a>], &[Shared<'a>]) {
        (self.attached.as_mut_slice(), self.shared.as_slice())
    }

    /// Detaches every probe. From then on the program waits for no reader that stands still.
    ///
    /// # Errors
    ///
    /// One or more probes left something behind, and each has been reported.
    pub(crate) fn detach(&mut self, args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
        out.end();
        let mut all = Ok(());
        for shared in self.shared.as_mut_slice() {
            while let Some((_, link)) = shared.links.pop() {
                link.detach();
            }
        }
        let attached = self.attached.as_mut_slice();
        if attached.len() >= SHARED_FROM {
            let mut progress = Progress::new(args, "detaching", attached.len());
            let mut done = 0;
            for some in attached.chunks_mut(AT_ONCE) {
                progress.show(done);
                done += some.len();
                // The events of the tracefs modes are removed below, where a failure has a probe.
                let closed = detach_by_children(CHILDREN, some.len(), |index| {
                    match &mut some.get_mut(index)?.link {
                        Link::Own(link, _) => link.take_if(|link| !link.mode().uses_tracefs()),
                        Link::Shared(..) => None,
                    }
                });
                if let Err(error) = closed {
                    args.report.error(out, None, &error);
                    all = Err(());
                }
            }
        }
        for attached in attached {
            let Link::Own(link, _) = &mut attached.link else {
                continue;
            };
            let detached = link.take().map_or(Ok(()), KprobeLink::detach);
            if let Err(error) = detached {
                args.report.error(out, Some(attached.known.text), &error);
                all = Err(());
            }
        }
        all
    }
}
