//! Links to many functions: the probes that share one.

use core::ffi::CStr;
use core::fmt::Write;
use core::ops::Range;

use kprobe_attach::bpf::Program;
use kprobe_attach::fd::{AsFd, BorrowedFd};
use kprobe_attach::request::{
    AttachType, Functions, KprobeMultiOpts, MAX_SYMBOL_LEN, Probe, SymbolRef,
};
use kprobe_attach::{Errno, Error, Kernel, KprobeMultiLink};

use super::found::{Found, Known};
use crate::cli::Args;
use crate::programs::Counter;
use crate::rt::{Slots, Text};

/// The kind of a link. Probes share one if they have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    attach_type: AttachType,
    retprobe: bool,
    /// Whether the functions have names only, because the kernel hides their addresses.
    by_name: bool,
    /// The index of their program.
    program: usize,
}

impl Kind {
    /// The largest number of links that are shared by the probes of one program.
    pub(super) const COUNT: u8 = 8;

    /// Returns the kind of the link to a probe's function, if it is one to many functions.
    pub(crate) fn of(known: &Known<'_>) -> Option<Self> {
        let probe = &known.probe;
        (probe.attach_type != AttachType::Kprobe).then_some(Self {
            attach_type: probe.attach_type,
            retprobe: probe.opts.retprobe,
            by_name: known.address.is_none(),
            program: known.program,
        })
    }

    /// Calls `each` with the kinds of a command line, each once.
    ///
    /// # Errors
    ///
    /// Returns the first error of `each`, which ends it.
    pub(crate) fn for_each(
        args: &Args<'_>,
        found: &Found<'_>,
        each: &mut dyn FnMut(Self) -> Result<(), ()>,
    ) -> Result<(), ()> {
        (0..args.program_count()).try_for_each(|program| {
            let mut kinds = 0_u8;
            found.try_for_each(args, &mut |_, known| {
                let kind = known.ok().and_then(Self::of);
                if let Some(kind) = kind.filter(|kind| kind.program == program) {
                    kinds |= 1 << kind.number();
                }
                Ok(())
            })?;
            let mut all = Self::all(program).filter(|kind| kinds >> kind.number() & 1 != 0);
            all.try_for_each(&mut *each)
        })
    }

    /// Lists all kinds of the probes of a program.
    pub(crate) fn all(program: usize) -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(move |number| Self::from_number(number, program))
    }

    const fn number(self) -> u8 {
        let is_session = matches!(self.attach_type, AttachType::KprobeSession);
        self.retprobe as u8 | (self.by_name as u8) << 1 | (is_session as u8) << 2
    }

    const fn from_number(number: u8, program: usize) -> Self {
        Self {
            program,
            retprobe: number & 1 != 0,
            by_name: number & 2 != 0,
            attach_type: if number & 4 != 0 {
                AttachType::KprobeSession
            } else {
                AttachType::KprobeMulti
            },
        }
    }

    pub(crate) fn opts(self) -> KprobeMultiOpts {
        KprobeMultiOpts::new()
            .retprobe(self.retprobe)
            .session(self.attach_type == AttachType::KprobeSession)
    }
}

/// The program that is attached to a probe.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// The caller's program, which may serve other probes too.
    Given(&'a Program),
    /// The built-in program, one for each probe.
    BuiltIn(Counter),
    /// One that does nothing.
    Nothing(Program),
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Given(program) => program.as_fd(),
            Source::BuiltIn(counter) => counter.program.as_fd(),
            Source::Nothing(program) => program.as_fd(),
        }
    }
}

impl Source<'_> {
    /// Returns the counter of the built-in program.
    pub(crate) const fn counter(&self) -> Option<&Counter> {
        match self {
            Source::Given(_) | Source::Nothing(_) => None,
            Source::BuiltIn(counter) => Some(counter),
        }
    }
}

/// Makes the program for a probe, or for so many of its kind.
pub(crate) type Loader<'a, 'l> = dyn FnMut(&Known<'_>, usize) -> Result<Source<'a>, Error> + 'l;

/// A link to many functions, and its program.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub(super) kind: Kind,
    /// The links, until they are detached, each with the indices of its probes. There is one,
    /// unless the kernel refuses some of the probes, or a function is repeated.
    pub(super) links: Slots<(Range<usize>, KprobeMultiLink)>,
    source: Source<'a>,
    /// The number of probes that have been asked for their link.
    pub(super) asked: usize,
}

impl Shared<'_> {
    /// Returns the counters of the built-in program, one for each probe.
    pub(crate) const fn counter(&self) -> Option<&Counter> {
        self.source.counter()
    }

    /// Returns the link of the probe at an index, if it has one, with its number and the indices of
    /// its probes.
    pub(super) fn find(&self, index: usize) -> Option<(usize, &(Range<usize>, KprobeMultiLink))> {
        let mut links = self.links.as_slice().iter().enumerate();
        links.find(|(_, (probes, _))| probes.contains(&index))
    }

    /// Returns the id of the link of the probe at an index, if the kernel reports it.
    pub(crate) fn link_id(&self, index: usize) -> Option<u32> {
        let (_, (_, link)) = self.find(index)?;
        Some(link.info(&mut [], &mut []).ok()?.link_id)
    }

    /// Returns the number of hits that the link has missed at all its functions.
    pub(crate) fn missed(&self) -> u64 {
        let links = self.links.as_slice().iter();
        let missed = |link: &KprobeMultiLink| link.info(&mut [], &mut []).ok()?.missed;
        links.filter_map(|(_, link)| missed(link)).sum()
    }
}

/// Holds the probes that share a link, and the memory that it takes.
#[derive(Debug)]
pub(crate) struct Members<'f> {
    known: Slots<Known<'f>>,
    arrays: Arrays,
}

impl<'f> Members<'f> {
    /// Gathers the probes of a kind. With `by_index`, the cookie of each is its index.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(crate) fn of<'a: 'f>(
        args: &'f Args<'a>,
        found: &'f Found<'a>,
        kind: Kind,
        by_index: bool,
    ) -> Result<Self, Errno> {
        let mut all = Slots::map(found.count)?;
        // Its callback never fails.
        let _ = found.try_for_each(args, &mut |_, known| {
            if let Some(known) = known.ok().filter(|known| Kind::of(known) == Some(kind)) {
                all.push(*known);
            }
            Ok(())
        });
        Self::new(all, kind, by_index)
    }

    /// Makes the members of one probe.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(super) fn one(known: &Known<'f>, kind: Kind, by_index: bool) -> Result<Self, Errno> {
        let mut all = Slots::map(1)?;
        all.push(*known);
        Self::new(all, kind, by_index)
    }

    /// Makes the members of probes of one kind.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(crate) fn new(known: Slots<Known<'f>>, kind: Kind, by_index: bool) -> Result<Self, Errno> {
        let arrays = Arrays::of(known.as_slice(), kind, by_index)?;
        Ok(Self { known, arrays })
    }

    /// Returns the probes.
    pub(crate) const fn known(&self) -> &[Known<'f>] {
        self.known.as_slice()
    }

    /// Returns the functions from an index on that one link takes, with their cookies.
    pub(crate) fn run(&self, start: usize) -> Functions<'_> {
        self.arrays.functions(start..self.arrays.end_of_run(start))
    }

    /// Makes the program for them, and attaches it to all by one link. There is one to each run of
    /// them between those that the kernel refuses, and before a function that is repeated. Calls
    /// `failed` with those that it refuses.
    pub(crate) fn attach<'a>(
        self,
        kernel: &Kernel,
        kind: Kind,
        load: &mut Loader<'a, '_>,
        failed: &mut dyn FnMut(&Known<'f>, &Error),
    ) -> Option<Shared<'a>> {
        let Self { known, arrays } = self;
        let known = known.as_slice();
        let first = known.first()?;
        // A kernel without such links may refuse a program for them, and not say why.
        let planned = kernel.plan_multi(arrays.functions(0..arrays.end_of_run(0)), &kind.opts());
        let source = planned.and_then(|_| load(first, known.len()));
        let source = source.map_err(|error| known.iter().for_each(|known| failed(known, &error)));
        let source = source.ok()?;
        let links = Slots::map(known.len()).ok()?;
        let mut shared = Shared {
            kind,
            links,
            source,
            asked: 0,
        };
        let (mut start, mut end, mut is_cut) = (0, arrays.end_of_run(0), false);
        while start < known.len() {
            let plan = kernel.plan_multi(arrays.functions(start..end), &kind.opts());
            let mut refused = None;
            let attached =
                plan.and_then(|plan| plan.attach_or_index(shared.source.as_fd(), &mut refused));
            match (attached, refused) {
                (Ok(link), _) => {
                    shared.links.push((start..end, link));
                    start = end + usize::from(is_cut);
                }
                (Err(error), None) => {
                    for known in known {
                        failed(known, &error);
                    }
                    return None;
                }
                (Err(error), Some(index)) => {
                    if let Some(known) = known.get(start + index) {
                        failed(known, &error);
                    }
                    if index > 0 {
                        end = start + index;
                        is_cut = true;
                        continue;
                    }
                    start += 1;
                }
            }
            end = arrays.end_of_run(start);
            is_cut = false;
        }
        Some(shared)
    }
}

/// The functions of a link and their cookies, in the form in which the kernel takes them.
#[derive(Debug)]
struct Arrays {
    addresses: Slots<u64>,
    symbols: Slots<SymbolRef<'static>>,
    cookies: Slots<u64>,
}

impl Arrays {
    /// Makes the arrays of probes of one kind.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    fn of(known: &[Known<'_>], kind: Kind, by_index: bool) -> Result<Self, Errno> {
        let by_name = if kind.by_name { known.len() } else { 0 };
        let mut names = Slots::map(by_name * (MAX_SYMBOL_LEN + 1))?;
        let mut addresses = Slots::map(known.len() - by_name)?;
        let mut cookies = Slots::map(known.len())?;
        for (index, known) in (0..).zip(known) {
            let Probe { target, opts, .. } = known.probe;
            cookies.push(if by_index { index } else { opts.bpf_cookie });
            match known.address {
                // There is room for every name, with its NUL.
                None => write!(Text(&mut names), "{target}\0").unwrap_or_default(),
                Some(address) => addresses.push(address),
            }
        }
        let mut symbols = Slots::map(by_name)?;
        let mut names: &'static [u8] = names.leak();
        while let Ok(name) = CStr::from_bytes_until_nul(names) {
            symbols.push(SymbolRef::new(name));
            names = names.get(name.count_bytes() + 1..).unwrap_or_default();
        }
        Ok(Self {
            addresses,
            symbols,
            cookies,
        })
    }

    /// Returns the end of the functions from an index on of which none is repeated. The kernel
    /// would give the hits of a repeated one to one of its cookies.
    fn end_of_run(&self, start: usize) -> usize {
        match self.symbols.as_slice() {
            [] => end_of_run(self.addresses.as_slice(), start),
            symbols => end_of_run(symbols, start),
        }
    }

    /// Returns the functions in a range, with their cookies.
    fn functions(&self, range: Range<usize>) -> Functions<'_> {
        let cookies = self.cookies.as_slice().get(range.clone());
        let functions = match self.symbols.as_slice() {
            [] => {
                let addresses = self.addresses.as_slice().get(range);
                Functions::addresses(addresses.unwrap_or_default())
            }
            symbols => Functions::symbols(symbols.get(range).unwrap_or_default()),
        };
        functions.cookies(cookies.unwrap_or_default())
    }
}

fn end_of_run<T: PartialEq>(functions: &[T], start: usize) -> usize {
    let run = functions.get(start..).unwrap_or_default();
    let mut seen = run.iter().enumerate();
    let repeated = seen.find(|(at, function)| run.iter().take(*at).any(|seen| seen == *function));
    start + repeated.map_or(run.len(), |(at, _)| at)
}
