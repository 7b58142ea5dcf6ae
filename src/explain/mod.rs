//! Why a probe would not attach: a trial, and what else the kernel shows.

mod evidence;
mod explanation;
mod rights;

use linux_raw_sys::general::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC};
use rustix::io::Errno;

use crate::bpf::load_nop;
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::plan::Plan;
use crate::request::{AttachMode, KprobeOpts, Target, TargetBuf};
use crate::symbols::{Place, Symbols, is_blacklisted, is_traceable, place};
use crate::sys::{self, KprobeAt};
use evidence::{ARMED, FTRACE};
use rights::{number_in, tell_rights};

pub use evidence::{Evidence, Question};
pub use explanation::{Explanation, Suggestion};
#[cfg(fuzzing)]
pub use rights::{is_confidential, number};

impl Kernel {
    /// Finds out whether a probe would attach, and if not, why.
    ///
    /// It opens the probe's event without a program, and closes it at once. It also reads what the
    /// kernel shows of its functions, and of the rights of this process.
    ///
    /// For a moment there is a real probe, which patches the kernel's code like any other. Nothing
    /// of it remains. The trial takes the privileges of an attach, and the time of an attach and a
    /// detach. In the tracefs modes, a refused event leaves an entry with this crate's name in
    /// `error_log`.
    ///
    /// While `kernel.ftrace_enabled` is 0, no probe is tried at the entry of a function, because
    /// that harms the kernel. Without `/proc`, this cannot be checked.
    ///
    /// It also loads a program of two instructions. If this process may not load that, the refusal
    /// has the step [`Step::LoadProgram`]. A program of another process can be attached all the
    /// same.
    ///
    /// Whether a given program fits the probe is not checked. If it does not, the attach itself
    /// returns [`Cause::WrongProgram`].
    ///
    /// A probe that it suggests is tried in the same way, so that only one that would attach is
    /// suggested.
    ///
    /// It reads the whole of `/proc/kallsyms`, up to three times. If a file is not there, or
    /// another file is mounted over it (`EXDEV`), its question stays open. Nothing is guessed.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1, as for the modes.
    #[must_use]
    pub fn explain(&self, func: Target<'_>, opts: &KprobeOpts) -> Explanation {
        let mut explanation = Explanation::new(opts.attach_mode);
        let mut was_tried = true;
        match &Plan::new(self, func, opts, None) {
            Ok(plan) => {
                explanation.mode = Some(plan.mode());
                was_tried = !is_trial_harmful(&func, opts);
                if was_tried {
                    explanation.refusal = match try_out(plan) {
                        Ok(()) => load_nop(0).err(),
                        Err(mut error) => {
                            self.settle(&mut error, &func);
                            Some(error)
                        }
                    };
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

    /// Adds what the kernel shows. It corrects the cause of a refused trial. Without a trial, it
    /// predicts the refusal.
    // This has its own frame: in the caller's, beside its buffers, each offset takes 3 bytes more.
    #[inline(never)]
    fn survey(
        &self,
        explanation: &mut Explanation,
        func: &Target<'_>,
        opts: &KprobeOpts,
        was_tried: bool,
    ) {
        let mut symbols = func.function().map(|_| Symbols::of(func));
        if let Some(Ok(symbols)) = &mut symbols {
            // `/proc/kallsyms` shows no module name for a built-in module.
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
        if let Some(symbols) = symbols {
            known.suggest(explanation, symbols);
        }
    }

    /// Returns whether the PMU refuses the entry of a function that every kernel has on the path of
    /// a system call.
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

/// Holds the probe in question, and what is known of its place.
struct Case<'a> {
    kernel: &'a Kernel,
    func: &'a Target<'a>,
    opts: &'a KprobeOpts,
    /// The symbols. They are [`None`] for an address. They are also [`None`] if the question is
    /// open, as is the place.
    symbols: Option<&'a Symbols>,
    place: Option<Place>,
    /// The function at this place.
    function: Option<&'a TargetBuf>,
}

impl Case<'_> {
    /// Returns whether exactly `count` functions are known to have the name.
    fn has_functions(&self, count: usize) -> bool {
        self.symbols
            .is_some_and(|symbols| symbols.functions == count)
    }

    /// Adds the place, unless it is the entry of the function.
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
            // Only the name of exactly one function has a single place.
            (Some(Place::Untold), _) if self.symbols.is_none() || self.has_functions(1) => {
                explanation.stays_open(Question::Place, Errno::PERM);
            }
            _ => {}
        }
    }

    /// Predicts why an attach that was not tried would be refused, as far as the kernel shows.
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

    /// Returns the true cause. The kernel's errno can have several meanings, and its symbols can
    /// tell them apart.
    fn true_cause(&self, cause: Cause) -> Cause {
        if !is_of_place(cause) {
            return cause;
        }
        match (self.place, self.symbols) {
            // EINVAL at the entry of a function.
            (Some(Place::In(0)), _) if matches!(cause, Cause::NotFunctionEntry) => {
                Cause::NotProbeable
            }
            // Before Linux 5.18, an address in no function is EINVAL, and such an offset is ENOENT.
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

    /// Adds the evidence for a cause. Returns the cause, which the rights of the process can
    /// correct.
    fn tell_why(&self, explanation: &mut Explanation, cause: Cause) -> Cause {
        match cause {
            Cause::NotProbeable => self.tell_protection(explanation),
            Cause::NotUnique
                if self
                    .symbols
                    .is_some_and(|symbols| symbols.address().is_none()) =>
            {
                explanation.stays_open(Question::Place, Errno::PERM);
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

    /// Adds why the lists exclude a function: the one in which the probe would be.
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
            // If the blacklist answers, nothing may be tried: with ftrace off, a trial would do
            // harm.
            Some(true) if !blacklisted && opts.offset == 0 && self.kernel.refuses_every_entry() => {
                explanation.found(Evidence::EveryEntryRefused);
                if !opts.retprobe {
                    explanation.suggest("", &format_args!("{func}+8"));
                }
            }
            _ => {}
        }
    }

    /// Adds why a probe that would attach would not be hit.
    fn tell_if_hit(&self, explanation: &mut Explanation) {
        if explanation.mode.is_some_and(AttachMode::uses_tracefs) {
            match self.symbols {
                // If the module is loaded, the kernel refuses the event. If it is built in, the
                // event waits for a module that is never loaded.
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
        if explanation.ask(Question::Armed, &number_in(ARMED, DEBUGFS_MAGIC)) == Some(&0) {
            explanation.found(Evidence::Disarmed);
        }
        if may_be_by_ftrace(self.func, self.opts)
            && explanation.ask(Question::Ftrace, &number_in(FTRACE, PROC_SUPER_MAGIC)) == Some(&0)
        {
            explanation.found(Evidence::FtraceOff);
        }
    }

    /// Adds probes that may have been meant by a name that no function has, or several have. Adds
    /// the part of a function that would attach.
    fn suggest(&self, explanation: &mut Explanation, symbols: &Symbols) {
        let cause = explanation.refusal.as_ref().map(Error::cause);
        let has_name = symbols.named().is_some();
        for similar in symbols.meant.iter() {
            let is_meant = match (&symbols.function, cause) {
                (Some((whole, _)), None) => similar.function.is_part_of(whole),
                (Some(_), Some(Cause::NotUnique)) | (None, _) => similar.has_name() == has_name,
                _ => false,
            };
            if !is_meant {
                continue;
            }
            if cause.is_none() && symbols.functions > 0 {
                explanation.found_part(&similar.function);
            }
            let func = similar.target().filter(|func| !self.refuses(func));
            if let Some(func) = func {
                explanation.suggest(kind(self.opts), &func);
            }
        }
        if cause == Some(Cause::ModuleNotLoaded) {
            self.suggest_waiting(explanation);
        }
    }

    /// Returns whether the kernel refuses a probe at the entry of a function that is suggested.
    fn refuses(&self, func: &Target<'_>) -> bool {
        let opts = self.opts.offset(0);
        let refusal = match Plan::new(self.kernel, *func, &opts, None) {
            Ok(plan) if !is_trial_harmful(func, &opts) => try_out(&plan).err(),
            _ => None,
        };
        refusal.is_some_and(|error| {
            is_of_place(error.cause()) || matches!(error.cause(), Cause::NotUnique)
        })
    }

    /// Suggests a tracefs mode, if there is one. Its event waits for the module.
    fn suggest_waiting(&self, explanation: &mut Explanation) {
        let Self { func, opts, .. } = self;
        let mode = if opts.bpf_cookie == 0 {
            AttachMode::Legacy
        } else {
            AttachMode::LegacyLink
        };
        let opts = opts.attach_mode(mode);
        if Plan::new(self.kernel, **func, &opts, None).is_ok() {
            explanation.suggest(kind(&opts), &format_args!("{func},mode={mode}"));
        }
    }
}

/// Returns the switch of the kernel that keeps probes from being hit, if one is off:
/// [`Evidence::Disarmed`] or [`Evidence::FtraceOff`].
///
/// A probe attaches all the same. A file that cannot be read counts as a switch that is on.
#[must_use]
pub fn switched_off() -> Option<Evidence<'static>> {
    if number_in(ARMED, DEBUGFS_MAGIC) == Ok(0) {
        Some(Evidence::Disarmed)
    } else if PROBES_BY_FTRACE && number_in(FTRACE, PROC_SUPER_MAGIC) == Ok(0) {
        Some(Evidence::FtraceOff)
    } else {
        None
    }
}

/// Opens the event of a plan, then closes and removes it.
fn try_out(plan: &Plan<'_>) -> Result<(), Error> {
    plan.open_event()?.detach()
}

/// Returns whether a cause is about the place of a probe, and not about the rights of the process.
const fn is_of_place(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoSuchFunction
            | Cause::ModuleNotLoaded
            | Cause::NotProbeable
            | Cause::NotFunctionEntry
            | Cause::BadAddress
    )
}

/// Returns whether a trial would do harm.
///
/// With ftrace off, ftrace loses count when a probe of an entry is attached and detached. The next
/// detach causes a warning of the kernel. After that, ftrace and every probe of an entry are dead
/// until the next boot (seen on Linux 5.10 to 6.12).
fn is_trial_harmful(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    may_be_by_ftrace(func, opts) && number_in(FTRACE, PROC_SUPER_MAGIC) == Ok(0)
}

/// Whether the kernel may place a probe by ftrace (`KPROBES_ON_FTRACE`).
const PROBES_BY_FTRACE: bool = cfg!(not(any(target_arch = "aarch64", target_arch = "arm")));

/// Returns whether the kernel may place this probe by ftrace. It does that at the entry of a
/// function, which can be some bytes after its symbol.
const fn may_be_by_ftrace(func: &Target<'_>, opts: &KprobeOpts) -> bool {
    PROBES_BY_FTRACE && (func.as_address().is_some() || opts.offset <= 16)
}

fn tell_symbols(explanation: &mut Explanation, func: &Target<'_>, symbols: &Symbols) {
    match &symbols.function {
        Some((function, address)) => {
            if symbols.functions > 1 {
                explanation.found(Evidence::Functions(symbols.functions));
            }
            explanation.found_function(function, *address);
        }
        None => explanation.found(Evidence::NoFunction),
    }
    if let Some(kind) = symbols.data {
        explanation.found(Evidence::Data(kind));
    }
    if symbols.functions == 0 && func.module().is_some() {
        explanation.found(Evidence::Module {
            loaded: symbols.has_module,
        });
    }
    if let (0, None, Some(function)) = (symbols.functions, symbols.data, symbols.named()) {
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
        // tracefs returns EINVAL for a name that does not exist.
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
        // A cause that is not about the place stays, and so does one whose question is open.
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
        // Before Linux 5.18, an address outside all functions is EINVAL, and an offset that leads
        // there is ENOENT.
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
        // The entry of a function is an entry, so something else is wrong with it.
        let entry = (Cause::NotFunctionEntry, Cause::NotProbeable);
        check(entry, address, None, Some(Place::In(0)));
        let inside = (Cause::NotFunctionEntry, Cause::NotFunctionEntry);
        check(inside, address, None, Some(Place::In(9)));
        let untold = (Cause::NotProbeable, Cause::NotProbeable);
        check(untold, address, None, Some(Place::Untold));
    }
}
