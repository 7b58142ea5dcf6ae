//! Why a probe would not attach: a trial, and what the kernel shows besides.

mod evidence;
mod explanation;
mod rights;

use rustix::io::Errno;

use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::plan::Plan;
use crate::request::{AttachMode, KprobeOpts, Target, TargetBuf};
use crate::symbols::{Meant, Place, Symbols, addresses, is_blacklisted, is_traceable, place};
use crate::sys::{self, KprobeAt};
use evidence::{ARMED, FTRACE};
use rights::{number_in, tell_rights};

pub use evidence::{Evidence, Question};
pub use explanation::{Explanation, Suggestion};

impl Kernel {
    /// Finds out whether a probe would attach, and if not, why: by opening its event, without a
    /// program, and closing it again at once; and by what the kernel shows of its functions, and of
    /// the rights of this process.
    ///
    /// For a moment there is a real probe, which patches the kernel's text as any other; nothing of
    /// it lasts. It takes the privileges of an attach, and as long as one and its end. While
    /// `kernel.ftrace_enabled` is 0, nothing is tried at the entry of a function, since that harms
    /// the kernel; without `/proc` that cannot be seen. In the tracefs modes an event that is
    /// refused leaves an entry with this crate's name in `error_log`.
    ///
    /// Whether a certain program fits is not asked: that is [`Cause::WrongProgram`] of the attach
    /// itself.
    ///
    /// It reads the whole of `/proc/kallsyms`, up to three times. A file that is not there is a
    /// question that stays open, and nothing is guessed in its place. Linux 4.1, as for the modes.
    #[must_use]
    pub fn explain(&self, func: Target<'_>, opts: &KprobeOpts) -> Explanation {
        let mut explanation = Explanation::new(opts.attach_mode);
        let mut was_tried = true;
        match &Plan::new(self, func, opts, None) {
            Ok(plan) => {
                explanation.mode = Some(plan.mode());
                was_tried = !is_trial_harmful(&func, opts);
                if was_tried {
                    explanation.refusal = try_out(plan).err();
                    if let Some(error) = &mut explanation.refusal {
                        self.settle(error, &func);
                    }
                }
            }
            Err(error) => explanation.refusal = Some(*error),
        }
        let step = explanation.refusal.as_ref().map(Error::step);
        if step != Some(Step::Request) {
            self.survey(&mut explanation, &func, opts, was_tried);
        }
        if let Some(error) = &mut explanation.refusal {
            error.name(&func, opts);
        }
        explanation
    }

    /// Tells what the kernel shows. Gives the refusal of the trial its true cause, or without a
    /// trial foretells one.
    fn survey(
        &self,
        explanation: &mut Explanation,
        func: &Target<'_>,
        opts: &KprobeOpts,
        was_tried: bool,
    ) {
        let mut symbols = func.function().map(|_| Symbols::of(func));
        if let Some(Ok(symbols)) = &mut symbols {
            // What is built in has no module's name in kallsyms.
            symbols.has_module |= self.has_module(func);
        }
        let symbols = match &symbols {
            Some(symbols) => explanation.ask(Question::Symbols, symbols),
            None => None,
        };
        if let Some(symbols) = symbols {
            tell_symbols(explanation, func, symbols);
        }
        let only = symbols.and_then(|symbols| symbols.function.as_ref());
        let mut there = None;
        let (place, function) = match only {
            Some((function, _)) if opts.offset == 0 => (Ok(Place::In(0)), Some(function)),
            _ => {
                let place = place(func, opts, symbols, &mut there);
                (place, there.as_ref())
            }
        };
        let known = Case {
            kernel: self,
            func,
            opts,
            symbols,
            place: explanation.ask(Question::Place, &place).copied(),
            function,
        };
        known.tell_place(explanation);
        if !was_tried {
            explanation.refusal = known.foretell(explanation.mode);
        }
        if let Some(cause) = explanation.refusal.as_ref().map(Error::cause) {
            let cause = known.true_cause(cause);
            let cause = known.tell_why(explanation, cause);
            if let Some(error) = &mut explanation.refusal {
                error.set_cause(cause);
            }
            if !was_tried {
                explanation.found(Evidence::FtraceOff);
            }
        } else {
            known.tell_if_hit(explanation);
        }
        if known.has_functions(0) {
            known.suggest(explanation);
        }
    }

    /// Whether the PMU refuses the entry of a function that is on the path of a system call on
    /// every kernel.
    fn refuses_every_entry(&self) -> bool {
        let at = KprobeAt::Symbol {
            module: None,
            function: b"vfs_read",
            offset: 0,
        };
        let pmu = self.pmu();
        pmu.support.is_yes()
            && sys::perf_event_open_kprobe(pmu.r#type, 0, at, self.cpu()).map(drop)
                == Err(Errno::INVAL)
    }
}

/// A probe that is looked into, and what is known of its place.
struct Case<'a> {
    kernel: &'a Kernel,
    func: &'a Target<'a>,
    opts: &'a KprobeOpts,
    /// [`None`] for an address, and where that stayed open, as for the place.
    symbols: Option<&'a Symbols>,
    place: Option<Place>,
    /// The function that is there.
    function: Option<&'a TargetBuf>,
}

impl Case<'_> {
    /// Whether the name is known to stand for so many functions.
    fn has_functions(&self, count: usize) -> bool {
        self.symbols
            .is_some_and(|symbols| symbols.functions == count)
    }

    /// The place, where it is not simply the entry of the function.
    fn tell_place(&self, explanation: &mut Explanation) {
        let is_address = self.func.as_address().is_some();
        let offset = self.opts.offset;
        if !is_address && offset == 0 {
            return;
        }
        match (self.place, self.function) {
            (Some(Place::In(from_start)), Some(function)) if is_address => {
                explanation.found_address_in(function, from_start);
            }
            (Some(Place::In(from_start)), Some(function)) if from_start != offset => {
                explanation.found_offset_in(function, from_start);
            }
            (Some(Place::Nowhere), _) => explanation.found(Evidence::NoFunctionThere),
            // Of a name that is none, or of several functions, there is no one place.
            (Some(Place::Untold), _) if self.symbols.is_none() || self.has_functions(1) => {
                explanation.stays_open(Question::Place, Errno::PERM);
            }
            _ => {}
        }
    }

    /// Why an attach that was not tried would be refused, as far as the kernel shows.
    fn foretell(&self, mode: Option<AttachMode>) -> Option<Error> {
        let symbols = self.symbols?;
        let func = self.func;
        let waits = mode.is_some_and(AttachMode::uses_tracefs) && func.module().is_some();
        let (errno, cause) = if symbols.functions == 0 {
            if waits {
                return None;
            }
            (Errno::NOENT, Cause::NoSuchFunction)
        } else if is_blacklisted(func, symbols.address()) == Ok(true)
            || is_traceable(self.kernel.tracefs_dir(), func) == Ok(false)
        {
            (Errno::INVAL, Cause::NotProbeable)
        } else {
            return None;
        };
        Some(Error::new(Step::ResolveSymbol, errno, cause))
    }

    /// The true cause, where the kernel's errno means more than one thing and its symbols tell
    /// which.
    fn true_cause(&self, cause: Cause) -> Cause {
        let of_place = matches!(
            cause,
            Cause::NoSuchFunction
                | Cause::ModuleNotLoaded
                | Cause::NotProbeable
                | Cause::NotFunctionEntry
                | Cause::BadAddress
        );
        if !of_place {
            return cause;
        }
        match (self.place, self.symbols) {
            // EINVAL, at the entry of a function.
            (Some(Place::In(0)), _) if matches!(cause, Cause::NotFunctionEntry) => {
                Cause::NotProbeable
            }
            // Before Linux 5.18 that is EINVAL, and for an offset ENOENT.
            (Some(Place::Nowhere), _) => Cause::BadAddress,
            (_, Some(symbols)) if symbols.functions == 0 && symbols.data.is_some() => {
                Cause::NotProbeable
            }
            (_, Some(symbols)) if symbols.functions == 0 => {
                if self.func.module().is_some() && !symbols.has_module {
                    Cause::ModuleNotLoaded
                } else {
                    Cause::NoSuchFunction
                }
            }
            _ => cause,
        }
    }

    /// It would not attach; what else is there to say of the cause? Answers the cause, which the
    /// rights of the process may correct.
    fn tell_why(&self, explanation: &mut Explanation, cause: Cause) -> Cause {
        match cause {
            Cause::NotProbeable => self.tell_protection(explanation),
            Cause::NotUnique => {
                let mut left = 3;
                let told = addresses(self.func, &mut |address| {
                    if left > 0 {
                        left -= 1;
                        explanation.suggest(kind(self.opts), &Target::address(address));
                    }
                });
                if let Err(failure) = told {
                    explanation.stays_open(Question::Place, failure.errno());
                }
            }
            Cause::NoPermission
            | Cause::PerfEventParanoid
            | Cause::Seccomp
            | Cause::Lockdown
            | Cause::NoTracefs
            | Cause::NoKprobeEvents => return tell_rights(explanation, cause),
            _ => {}
        }
        cause
    }

    /// What the lists tell of why a function may not be probed: of the one where the probe would
    /// really be.
    fn tell_protection(&self, explanation: &mut Explanation) {
        let Self { func, opts, .. } = self;
        let address = func
            .as_address()
            .or_else(|| self.symbols?.address()?.checked_add(opts.offset));
        let function = match (self.place, self.function) {
            (Some(Place::In(_)), Some(function)) => &function.as_target(),
            _ => func,
        };
        let blacklisted = is_blacklisted(function, address);
        let blacklisted = explanation.ask(Question::Blacklist, &blacklisted) == Some(&true);
        if blacklisted {
            explanation.found(Evidence::Blacklisted);
        }
        let is_code = match self.symbols {
            Some(symbols) => symbols.functions > 0 && !symbols.is_init,
            None => function.function().is_some(),
        };
        if !is_code {
            return;
        }
        let traceable = is_traceable(self.kernel.tracefs_dir(), function);
        match explanation.ask(Question::Traceable, &traceable) {
            Some(false) => explanation.found(Evidence::NotTraceable),
            // Where the blacklist tells, nothing is to be tried: with ftrace off it would do harm.
            Some(true) if !blacklisted && opts.offset == 0 && self.kernel.refuses_every_entry() => {
                explanation.found(Evidence::EveryEntryRefused);
                if !opts.retprobe {
                    explanation.suggest("", &format_args!("{func}+8"));
                }
            }
            _ => {}
        }
    }

    /// It would attach; would it be hit?
    fn tell_if_hit(&self, explanation: &mut Explanation) {
        if explanation.mode.is_some_and(AttachMode::uses_tracefs) {
            match self.symbols {
                // Of a module that is loaded the kernel refuses it; of what is built in it waits
                // for a module that never comes.
                Some(symbols) if symbols.functions == 0 && symbols.has_module => {
                    explanation.found(Evidence::NeverHit);
                }
                Some(symbols) if symbols.functions == 0 && self.func.module().is_some() => {
                    explanation.found(Evidence::Waits);
                }
                None if self.func.as_address().is_some()
                    && matches!(self.place, Some(Place::Nowhere)) =>
                {
                    explanation.found(Evidence::NeverHit);
                }
                _ => {}
            }
        }
        if explanation.ask(Question::Armed, &number_in(ARMED)) == Some(&0) {
            explanation.found(Evidence::Disarmed);
        }
        if may_be_by_ftrace(self.func, self.opts)
            && explanation.ask(Question::Ftrace, &number_in(FTRACE)) == Some(&0)
        {
            explanation.found(Evidence::FtraceOff);
        }
    }

    /// Probes that may have been meant by a name that is none.
    fn suggest(&self, explanation: &mut Explanation) {
        let kind = kind(self.opts);
        if let Some(function) = self.symbols.and_then(|symbols| symbols.elsewhere.as_ref()) {
            explanation.suggest(kind, function);
            return;
        }
        let meant = Meant::by(self.func);
        let Some(meant) = explanation.ask(Question::Symbols, &meant) else {
            return;
        };
        if let Some(function) = &meant.syscall {
            explanation.suggest(kind, function);
            let call = self.func.function().unwrap_or_default();
            let call = call.strip_prefix("sys_").unwrap_or(call);
            let kind = if self.opts.retprobe {
                "kretsyscall/"
            } else {
                "ksyscall/"
            };
            explanation.suggest(kind, &call);
        }
        for function in meant.iter() {
            explanation.suggest(kind, function);
        }
    }
}

/// Opens the event of a plan, and closes and removes it again.
fn try_out(plan: &Plan<'_>) -> Result<(), Error> {
    plan.open_event()?.detach()
}

/// Whether a trial would do harm. With ftrace off, a probe of an entry that comes and goes makes
/// ftrace lose count: the next one that goes meets a warning of the kernel, and after it ftrace and
/// every probe of an entry are dead until the next boot (seen on Linux 5.10 to 6.12).
fn is_trial_harmful(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    may_be_by_ftrace(func, opts) && number_in(FTRACE) == Ok(0)
}

/// Whether the kernel may place a probe by ftrace, as it does at the entry of a function, which is
/// up to some bytes behind its symbol; not on aarch64 and arm (`KPROBES_ON_FTRACE`).
const fn may_be_by_ftrace(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    cfg!(not(any(target_arch = "aarch64", target_arch = "arm")))
        && (func.as_address().is_some() || opts.offset <= 16)
}

fn tell_symbols(explanation: &mut Explanation, func: &Target<'_>, symbols: &Symbols) {
    match (symbols.functions, &symbols.function) {
        (1, Some((function, address))) => {
            explanation.found_function(function, *address);
        }
        (0, _) => explanation.found(Evidence::NoFunction),
        (functions, _) => explanation.found(Evidence::Functions(functions)),
    }
    if let Some(kind) = symbols.data {
        explanation.found(Evidence::Data(kind));
    }
    if symbols.functions == 0 && func.module().is_some() {
        explanation.found(Evidence::Module {
            loaded: symbols.has_module,
        });
    }
    if let (0, Some(function)) = (symbols.functions, &symbols.elsewhere) {
        explanation.found_elsewhere(function);
    }
    if symbols.is_init {
        explanation.found(Evidence::InitCode);
    }
}

const fn kind(opts: &KprobeOpts) -> &'static str {
    if opts.retprobe { "kretprobe/" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        (cause, expected): (Cause, Cause),
        func: &str,
        symbols: Option<&Symbols>,
        place: Option<Place>,
    ) {
        let known = Case {
            kernel: &Kernel::new(),
            func: &Target::parse(func).unwrap(),
            opts: &KprobeOpts::new(),
            symbols,
            place,
            function: None,
        };
        let found = known.true_cause(cause);
        assert_eq!(found, expected, "{cause} {func} {symbols:?} {place:?}");
    }

    #[test]
    fn symbols_tell_what_an_errno_meant() {
        let none = Symbols::default;
        let function = Symbols {
            functions: 1,
            ..none()
        };
        let data = Symbols {
            data: Some(b'd'),
            ..none()
        };
        let in_module = Symbols {
            has_module: true,
            ..none()
        };
        // EINVAL of tracefs for a name that there is not.
        let missing = (Cause::NotProbeable, Cause::NoSuchFunction);
        check(missing, "f", Some(&none()), None);
        let no_module = (Cause::NotProbeable, Cause::ModuleNotLoaded);
        check(no_module, "m:f", Some(&none()), None);
        check(
            (Cause::NoSuchFunction, Cause::NotProbeable),
            "f",
            Some(&data),
            None,
        );
        let not_in_it = (Cause::ModuleNotLoaded, Cause::NoSuchFunction);
        check(not_in_it, "m:f", Some(&in_module), None);
        for cause in [Cause::NotProbeable, Cause::NotInstructionBoundary] {
            check((cause, cause), "f", Some(&function), None);
        }
        // What is not about the place stays, and so does what stays open.
        for cause in [Cause::NotUnique, Cause::Lockdown, Cause::OutOfFds] {
            check((cause, cause), "f", Some(&none()), None);
        }
        check(
            (Cause::NoSuchFunction, Cause::NoSuchFunction),
            "f",
            None,
            None,
        );
    }

    #[test]
    fn a_place_in_no_function_is_a_bad_address() {
        // Before Linux 5.18 an address is EINVAL, and an offset that leads out of everything is
        // ENOENT.
        let address = "0xffffffff81000000";
        let nowhere = Some(Place::Nowhere);
        let bad = (Cause::NotProbeable, Cause::BadAddress);
        check(bad, address, None, nowhere);
        check(
            (Cause::NoSuchFunction, Cause::BadAddress),
            "f",
            None,
            nowhere,
        );
        // An entry is one, whatever else is wrong with it.
        let entry = (Cause::NotFunctionEntry, Cause::NotProbeable);
        check(entry, address, None, Some(Place::In(0)));
        let inside = (Cause::NotFunctionEntry, Cause::NotFunctionEntry);
        check(inside, address, None, Some(Place::In(9)));
        let untold = (Cause::NotProbeable, Cause::NotProbeable);
        check(untold, address, None, Some(Place::Untold));
    }
}
