//! The functions that the probes of a command line mean, found with one reading of
//! `/proc/kallsyms`.

use core::ffi::CStr;
use core::fmt::Write;

use kprobe_attach::error::{Cause, ErrnoName, Step};
use kprobe_attach::request::{AttachType, Functions as Many, MAX_SYMBOL_LEN, Probe};
use kprobe_attach::symbols::{self, Functions, Resolution, Symbol, resolve};
use kprobe_attach::{Errno, Error, Kernel, KprobeMultiOpts, KprobeOpts, Target, TargetBuf};

use super::functions::{function_memory, read_functions};
use crate::cli::{Args, Opt, Probes};
use crate::out::{Decimal, Lossy, Output, Shown, notice};
use crate::rt::{Slots, Text, ending_at_once};

/// The largest number of functions that the probes of a command line may mean by `@all` and by
/// patterns.
const MOST: usize = 4096;

/// The number of functions from which on they share a link where they can, or are attached to by
/// address where the kernel looks up names slowly. Looking for their addresses then takes less time
/// than it saves.
const MANY: usize = 20;

/// An address in the kernel. It stands for that of a function which is not known.
pub(super) const ANY_ADDRESS: u64 = usize::MAX as u64 - 8192;

/// A probe whose function is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'f> {
    /// The probe as it was given. A probe of several functions has the number of this one.
    pub(crate) text: &'f CStr,
    pub(crate) probe: Probe<'f>,
    /// The function that was looked for, unless the kernel does that itself.
    pub(crate) choice: Option<Choice<'f>>,
    /// The address of the function, if it was looked for and the kernel does not hide it.
    pub(crate) address: Option<u64>,
    /// Whether a link to many functions was chosen for it, and not asked for.
    pub(crate) is_shared: bool,
    /// The index of its program.
    pub(crate) program: usize,
}

impl<'f> Known<'f> {
    /// Makes a probe for which nothing was looked for.
    pub(crate) const fn new(text: &'f CStr, probe: Probe<'f>) -> Self {
        Self {
            text,
            probe,
            choice: None,
            address: probe.target.as_address(),
            is_shared: false,
            program: 0,
        }
    }

    /// Returns whether a link to many functions would do as well.
    fn can_share(&self) -> bool {
        let Probe {
            opts, attach_type, ..
        } = self.probe;
        let plain = KprobeOpts::new().retprobe(opts.retprobe);
        self.address.is_some() && attach_type == AttachType::Kprobe && opts == plain
    }

    /// Makes the best of what there is for many functions.
    fn improve(&mut self, best: Best) {
        let is_single = self.probe.attach_type == AttachType::Kprobe;
        match (best, self.address) {
            (Best::Multi, _) if self.can_share() => {
                self.probe.attach_type = AttachType::KprobeMulti;
                self.is_shared = true;
            }
            (Best::ByAddress, Some(address)) if is_single => {
                self.probe.target = self.probe.target.with_address(address);
            }
            _ => {}
        }
    }
}

/// The best that there is for many functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Best {
    Each,
    /// A link to each, which finds its function by address.
    ByAddress,
    /// One link to all.
    Multi,
}

/// A function that was chosen among those of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'f> {
    pub(crate) function: Target<'f>,
    /// The address, unless the kernel hides it.
    pub(crate) address: Option<u64>,
    /// The number of functions among which it was chosen.
    pub(crate) of: u32,
    /// Whether the compiler made it as a copy of the function that was asked for.
    pub(crate) is_copy: bool,
    /// Whether it is an entry point of the system call that was asked for.
    is_entry: bool,
}

/// Holds the functions that were looked for. It takes no memory if the kernel looks for all itself.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// One for each probe that was looked for, in the order in which they were given.
    targets: Slots<Resolution<'a>>,
    /// The functions of the probes that mean several.
    functions: Slots<Function>,
    /// The texts of these probes, one for each function, each with a NUL.
    texts: Slots<u8>,
    /// The number of probes, if each is of one function.
    pub(crate) count: usize,
    best: Best,
    /// The reason to look for plain names too, if there is one.
    plain: Best,
}

/// One of several functions that a probe means.
#[derive(Debug)]
struct Function {
    /// The index of the probe's target.
    of: usize,
    target: TargetBuf,
    address: Option<u64>,
    /// The index at which its text begins.
    text: usize,
}

impl<'a> Found<'a> {
    /// Looks for the functions of all probes, except those that the kernel looks for itself.
    ///
    /// # Errors
    ///
    /// The list of functions cannot be read, or too many functions are meant, and it has been
    /// reported.
    pub(crate) fn of(
        args: &Args<'a>,
        kernel: &Kernel,
        out: &mut Output,
        may_share: bool,
    ) -> Result<Self, ()> {
        let is_many = args.probe_count >= MANY;
        let may_be_many =
            is_many || searched(args, Best::Each).any(|(_, target)| target == target.all());
        // Without files, no address is looked for.
        let best = if cfg!(feature = "files") && may_be_many {
            let any_mode = args.report.options.attach_mode.is_none();
            best(kernel, may_share && any_mode)
        } else {
            Best::Each
        };
        let plain = if is_many { best } else { Best::Each };
        let found = Self::map(args, best, plain);
        let mut found = found.map_err(|errno| short(args, out, errno))?;
        if !found.targets.as_slice().is_empty() {
            found.look(args, kernel, out)?;
        }
        Ok(found)
    }

    /// Looks for the functions.
    // In a frame of its own: a plain name takes no memory for it.
    #[inline(never)]
    fn look(&mut self, args: &Args<'a>, kernel: &Kernel, out: &mut Output) -> Result<(), ()> {
        let mut meant = 0;
        let functions = &mut self.functions;
        let mut each = |of, symbol: &Symbol<'_>| {
            meant += 1;
            if let Some(target) = symbol.found() {
                functions.push(Function {
                    of,
                    target: target.into(),
                    address: target.known_address(),
                    text: 0,
                });
            }
        };
        let targets = self.targets.as_mut_slice();
        let mut memory = None;
        if targets.iter().any(|target| target.request().is_pattern()) {
            memory = Some(function_memory().map_err(|errno| short(args, out, errno))?);
        }
        let read = ending_at_once(|| match &mut memory {
            Some(memory) => read_functions(args, kernel, targets, memory, &mut each).map(Some),
            None => resolve(targets, each).map(|()| None),
        });
        let all = match read {
            Ok(all) => all,
            Err(error) => {
                let mut searched = searched(args, Best::Each).peekable();
                if searched.peek().is_none() {
                    // The kernel looks for plain names.
                    self.best = Best::Each;
                    self.plain = Best::Each;
                    return Ok(());
                }
                for (text, _) in searched {
                    args.report.error(out, Some(text), &error);
                }
                return Err(());
            }
        };
        if let Some(all) = all {
            meant += self.take_matching(args, out, &all)?;
        }
        if meant > MOST {
            let (meant, most) = (Decimal(meant as u64), Decimal(MOST as u64));
            let kind = (Step::ResolveSymbol, Errno::TOOBIG, Cause::InvalidRequest);
            args.report.other(
                out,
                None,
                kind,
                format_args!("{meant} functions are meant; at most {most} are taken"),
            );
            return Err(());
        }
        self.number(args);
        let best = core::mem::replace(&mut self.best, Best::Each);
        let (mut count, mut many) = (0, 0);
        self.try_for_each(args, &mut |_, known| {
            count += 1;
            if let Ok(known) = known {
                warn(args, known);
                let counts = match best {
                    Best::Multi => known.can_share(),
                    _ => known.address.is_some(),
                };
                many += usize::from(counts);
            }
            Ok(())
        })?;
        self.count = count;
        if many >= MANY {
            self.best = best;
        }
        Ok(())
    }

    /// Maps the memory for what will be found.
    fn map(args: &Args<'a>, best: Best, plain: Best) -> Result<Self, Errno> {
        let mut targets = Slots::map(searched(args, plain).count())?;
        let mut functions = 0;
        for (_, target) in searched(args, plain) {
            if target == target.all() {
                functions = MOST;
            }
            targets.push(Resolution::new(target));
        }
        let longest = args.probes().map(CStr::count_bytes).max();
        // In place of a pattern comes a name with its module and a number, and a NUL follows.
        let text = longest.unwrap_or_default() + MAX_SYMBOL_LEN + 16;
        Ok(Self {
            targets,
            functions: Slots::map(functions)?,
            texts: Slots::map(functions * text)?,
            count: args.probe_count,
            best,
            plain,
        })
    }

    /// Takes the functions that match a pattern and can be probed. Returns their number.
    ///
    /// # Errors
    ///
    /// A pattern matches none that is known to be probeable, and it has been reported.
    #[inline(never)]
    fn take_matching(
        &mut self,
        args: &Args<'a>,
        out: &mut Output,
        all: &Functions<'_>,
    ) -> Result<usize, ()> {
        let mut taken = Ok(0);
        for (of, (text, target)) in searched(args, self.plain).enumerate() {
            if !target.is_pattern() {
                continue;
            }
            let (mut matching, mut count) = (0, 0);
            for function in all.iter().filter(|function| function.is(&target)) {
                matching += 1;
                let is_taken = all.filter().is_ok() && function.refusal().is_none();
                let target = function.target().filter(|_| is_taken);
                let Some(target) = target else { continue };
                count += 1;
                self.functions.push(Function {
                    of,
                    target: target.into(),
                    address: function.address(),
                    text: self.texts.as_slice().len(),
                });
                put_function(&mut self.texts, text.to_bytes(), &function);
            }
            taken = taken.map(|taken| taken + count);
            if count == 0 {
                let (errno, cause) = match (matching, all.filter()) {
                    (0, _) => (Errno::NOENT, Cause::NoSuchFunction),
                    (_, Err(errno)) => (errno, Cause::Unknown),
                    _ => (Errno::INVAL, Cause::NotProbeable),
                };
                let (pattern, matching) = (Lossy(text), Decimal(matching));
                args.report.other(
                    out,
                    Some(text),
                    (Step::ResolveSymbol, errno, cause),
                    format_args!(
                        "{pattern}: {}: {matching} functions match, and none can be probed as far \
                         as is known",
                        ErrnoName(errno)
                    ),
                );
                if !args.has(Opt::KeepGoing) {
                    taken = Err(());
                }
            }
        }
        taken
    }

    /// Gives every function of a probe that means several a text of its own: `function@2`.
    fn number(&mut self, args: &Args<'_>) {
        for (at, (text, target)) in searched(args, self.plain).enumerate() {
            // The functions of a pattern have their texts.
            if target.is_pattern() {
                continue;
            }
            let functions = self.functions.as_mut_slice().iter_mut();
            let of_probe = functions.filter(|function| function.of == at);
            for (number, function) in (1..).zip(of_probe) {
                function.text = self.texts.as_slice().len();
                put_number(&mut self.texts, text.to_bytes_with_nul(), number);
            }
        }
    }

    /// Calls `each` with the text of every probe, and with the probe of one function. A probe whose
    /// function was not found, or may not be known, is an error.
    ///
    /// # Errors
    ///
    /// Returns the first error of `each`, which ends it.
    pub(crate) fn try_for_each<'f>(
        &'f self,
        args: &'f Args<'a>,
        each: &mut Each<'_, 'f>,
    ) -> Result<(), ()> {
        let mut targets = self.targets.as_slice().iter().enumerate();
        for (index, text) in args.probes().enumerate() {
            // All probes have been read before.
            let Ok(probe) = args.read(text) else { continue };
            let program = args.program_of(index);
            let known = Known {
                program,
                ..Known::new(text, probe)
            };
            let given = probe.target;
            let request = wanted(&probe, self.plain);
            if request.is_resolved() {
                each(text, Ok(&known))?;
                continue;
            }
            let Some((at, found)) = targets.next() else {
                continue;
            };
            let mut choose = |text, planned, function: Target<'f>, address| {
                let mut known = Known { text, ..known };
                known.probe.target = planned;
                known.address = address;
                if !given.is_resolved() && !request.is_pattern() {
                    known.choice = Some(Choice {
                        function,
                        address,
                        of: found.functions(),
                        is_copy: found.is_copy(&function),
                        is_entry: request.is_syscall(),
                    });
                }
                known.improve(self.best);
                each(text, Ok(&known))
            };
            match found.target() {
                Ok(planned) => {
                    let function = found.function().unwrap_or(planned);
                    choose(text, planned, function, found.address())?;
                }
                Err(error)
                    if request == request.all()
                        && (request.is_pattern() || error.cause() == Cause::NotUnique) =>
                {
                    let functions = self.functions.as_slice().iter();
                    for function in functions.filter(|function| function.of == at) {
                        let text = self.texts.as_slice().get(function.text..);
                        let text = CStr::from_bytes_until_nul(text.unwrap_or_default());
                        let target = function.target.as_target();
                        choose(text.unwrap_or_default(), target, target, function.address)?;
                    }
                }
                // The address is hidden, and the kernel looks for a plain name itself.
                Err(error)
                    if given.is_resolved()
                        && probe.attach_type == AttachType::Kprobe
                        && error.cause() == Cause::NoPermission =>
                {
                    each(text, Ok(&known))?;
                }
                Err(error) => each(text, Err(error))?,
            }
        }
        Ok(())
    }
}

/// Asks the kernel what is best for many functions. `may_share` is whether one link to them will
/// do.
#[inline(never)]
fn best(kernel: &Kernel, may_share: bool) -> Best {
    let any = [ANY_ADDRESS];
    let multi = || kernel.plan_multi(Many::addresses(&any), &KprobeMultiOpts::new());
    if may_share && multi().is_ok() {
        Best::Multi
    } else if kernel.looks_up_slowly() {
        Best::ByAddress
    } else {
        Best::Each
    }
}

/// Returns the target of a probe as it is looked for. A link to many functions takes addresses. Of
/// several functions with a plain name, a kernel that looks them up slowly takes the first.
fn wanted<'a>(probe: &Probe<'a>, plain: Best) -> Target<'a> {
    let target = probe.target;
    match plain {
        _ if !target.is_resolved() => target,
        _ if cfg!(feature = "files") && probe.attach_type != AttachType::Kprobe => target.unique(),
        Best::Each => target,
        Best::ByAddress => target.first(),
        Best::Multi => target.unique(),
    }
}

/// Takes the text of a probe, and the probe with its function.
type Each<'e, 'f> = dyn FnMut(&'f CStr, Result<&Known<'f>, Error>) -> Result<(), ()> + 'e;

/// Returns the probes that the kernel does not look for itself, and their targets. If there
/// is a reason to look for plain names, these are all.
fn searched<'a>(args: &Args<'a>, plain: Best) -> impl Iterator<Item = (&'a CStr, Target<'a>)> {
    let mut probes = args.probes();
    core::iter::from_fn(move || next_searched(args, plain, &mut probes))
}

// Its callers share this code.
#[inline(never)]
fn next_searched<'a>(
    args: &Args<'a>,
    plain: Best,
    probes: &mut Probes<'a>,
) -> Option<(&'a CStr, Target<'a>)> {
    probes.find_map(|text| {
        let target = wanted(&args.read(text).ok()?, plain);
        (!target.is_resolved()).then_some((text, target))
    })
}

/// Writes a text with a function in place of its pattern, and a NUL.
fn put_function(texts: &mut Slots<u8>, text: &[u8], function: &symbols::Function<'_>) {
    let before = text.iter().position(|byte| *byte == b'/');
    let (kind, rest) = text.split_at(before.map_or(0, |at| at + 1));
    let options = rest.iter().position(|byte| matches!(byte, b'+' | b','));
    let options = options.and_then(|at| rest.get(at..)).unwrap_or_default();
    put(texts, kind);
    // If there is no room for it, too many functions are meant, which is an error.
    let _ = write!(Text(texts), "{function}");
    put(texts, options);
    texts.push(0);
}

fn put(texts: &mut Slots<u8>, bytes: &[u8]) {
    for byte in bytes {
        texts.push(*byte);
    }
}

/// Writes a text with a number in place of its `@all`.
fn put_number(texts: &mut Slots<u8>, text: &[u8], number: u64) {
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        texts.push(*byte);
        rest = after;
        if let (b'@', Some(after)) = (*byte, after.strip_prefix(b"all")) {
            // If the text has no room for it, it is not written.
            let _ = write!(Text(texts), "{}", Decimal(number));
            rest = after;
        }
    }
}

/// Reports that there is not enough memory.
fn short(args: &Args<'_>, out: &mut Output, errno: Errno) {
    args.report.run(out, errno, "no memory for so many probes");
}

/// Says which function it is, if its name is not in the text. It is then a copy, or the entry point
/// of a system call.
fn warn(args: &Args<'_>, known: &Known<'_>) {
    let Some(choice) = known.choice.filter(|_| !args.has(Opt::Quiet)) else {
        return;
    };
    let why = match (choice.is_copy, choice.is_entry && !args.report.json) {
        (true, _) => ", a copy that the compiler made: its arguments may differ",
        (false, true) => "",
        (false, false) => return,
    };
    let (text, function) = (Shown(Lossy(known.text)), choice.function);
    notice(format_args!("{text}: the function is {function}{why}"));
}
