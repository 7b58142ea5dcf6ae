//! Why a probe would not attach: a trial, and what the kernel shows besides.

pub(crate) mod evidence;

use core::fmt;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, SecureComputingMode};

use crate::error::cause::{Cause, remove_cause};
use crate::error::{Error, Failure, Step};
use crate::explain::evidence::{ARMED, Evidence, FTRACE, LOCKDOWN, PARANOID, Question};
use crate::kernel::Kernel;
use crate::mount::open_read;
use crate::plan::Plan;
use crate::request::target::{AttachMode, KprobeOpts, MAX_SYMBOL_LEN, Target};
use crate::symbols::kallsyms::{Place, addresses};
use crate::symbols::survey::{Meant, Symbols, is_blacklisted, is_traceable, number_in, place};
use crate::sys;
use crate::sys::KprobeAt;
use crate::text::{Buf, contains, read_small};
use crate::tracefs::kprobe_events::TraceEvent;

/// A probe that may be tried instead, as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion(Buf<{ MAX_SYMBOL_LEN + 32 }>);

impl Suggestion {
    /// The text of the probe.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Would a probe attach, and if not, why? See [`Kernel::explain`].
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    mode: Option<AttachMode>,
    refusal: Option<Error>,
    evidence: List<Evidence, 12>,
    suggestions: List<Suggestion, 6>,
}

impl Explanation {
    /// The mode of the trial: the one that the kernel and the request leave, or that was asked for. [`None`] where there is none.
    #[must_use]
    pub const fn mode(&self) -> Option<AttachMode> {
        self.mode
    }

    /// How an attach would fail, with the true cause as far as the evidence tells; [`None`] if it would not.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// What was found out, and what stayed open.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter()
    }

    /// Probes that may have been meant, the likeliest first.
    pub fn suggestions(&self) -> impl Iterator<Item = &Suggestion> {
        self.suggestions.iter()
    }

    fn found(&mut self, evidence: Evidence) {
        self.evidence.push(evidence);
    }

    fn stays_open(&mut self, question: Question, errno: Errno) {
        self.found(Evidence::Open(question, errno));
    }

    /// Takes note of an answer, or of the question.
    fn ask<'a, T>(&mut self, question: Question, answer: &'a Result<T, Errno>) -> Option<&'a T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(errno) => {
                self.stays_open(question, *errno);
                None
            }
        }
    }

    fn suggest(&mut self, kind: &str, place: &dyn fmt::Display) {
        // What does not fit is no probe.
        if let Ok(text) = Buf::of(format_args!("{kind}{place}")) {
            self.suggestions.push(Suggestion(text));
        }
    }
}

impl Kernel {
    /// Finds out whether a probe would attach, and if not, why: by opening its event, without a program, and closing it again at
    /// once; and by what the kernel shows of its functions, and of the rights of this process.
    ///
    /// For a moment there is a real probe, which patches the kernel's text as any other; nothing of it lasts. It takes the privileges
    /// of an attach, and as long as one and its end. While `kernel.ftrace_enabled` is 0, nothing is tried at the entry of a function,
    /// since that harms the kernel; without `/proc` that cannot be seen. In the tracefs modes an event that is refused leaves an
    /// entry with this crate's name in `error_log`.
    ///
    /// Whether a certain program fits is not asked: that is [`Cause::WrongProgram`] of the attach itself.
    ///
    /// It reads the whole of `/proc/kallsyms`, up to three times. A file that is not there is a question that stays open, and
    /// nothing is guessed in its place. Linux 4.1, as for the modes.
    #[must_use]
    // Its locals are not to be in the frame of the caller, large as they are.
    #[inline(never)]
    pub fn explain(&self, func: Target, opts: &KprobeOpts) -> Explanation {
        let mut explanation = Explanation {
            mode: opts.attach_mode,
            refusal: None,
            evidence: List::new(),
            suggestions: List::new(),
        };
        let mut refusal = None;
        let mut was_tried = true;
        match Plan::new(self, func, opts) {
            Ok(plan) => {
                explanation.mode = Some(plan.mode());
                was_tried = !is_trial_harmful(&func, opts);
                if was_tried {
                    refusal = try_out(&plan).err();
                }
            }
            Err(failure) => refusal = Some(failure),
        }
        if refusal.is_none_or(|failure| failure.step() != Step::Request) {
            refusal = self.survey(&mut explanation, &func, opts, refusal, was_tried);
        }
        explanation.refusal = refusal.map(|failure| failure.of(&func, opts));
        explanation
    }

    /// Tells what the kernel shows. Answers the refusal of the trial with its true cause, or without a trial one that is foretold.
    // As `explain`.
    #[inline(never)]
    fn survey(
        &self,
        explanation: &mut Explanation,
        func: &Target,
        opts: &KprobeOpts,
        mut refusal: Option<Failure>,
        was_tried: bool,
    ) -> Option<Failure> {
        let symbols = func.function().map(|_| Symbols::of(func));
        let symbols = match &symbols {
            Some(symbols) => explanation.ask(Question::Symbols, symbols),
            None => None,
        };
        if let Some(symbols) = symbols {
            tell_symbols(explanation, func, symbols);
        }
        let place = match symbols.and_then(|symbols| symbols.function.as_ref()) {
            Some((function, _)) if opts.offset == 0 => Ok(Place::In(*function, 0)),
            _ => place(func, opts, symbols),
        };
        let known = Case {
            kernel: self,
            func,
            opts,
            symbols,
            place: explanation.ask(Question::Place, &place),
        };
        known.tell_place(explanation);
        if !was_tried {
            refusal = known.foretell(explanation.mode);
        }
        if let Some(failure) = &mut refusal {
            let cause = known.true_cause(failure.cause());
            *failure = failure.with_cause(known.tell_why(explanation, cause));
            if !was_tried {
                explanation.found(Evidence::FtraceOff);
            }
        } else {
            known.tell_if_hit(explanation);
        }
        if known.has_functions(0) {
            known.suggest(explanation);
        }
        refusal
    }

    /// Whether the PMU refuses the entry of a function that is on the path of a system call on every kernel.
    fn refuses_every_entry(&self) -> bool {
        let features = self.features();
        let at = KprobeAt::Symbol(c"vfs_read", 0);
        features.kprobe_pmu.is_yes()
            && sys::perf_event_open_kprobe(features.pmu_type, 0, at, features.cpu).map(drop)
                == Err(Errno::INVAL)
    }
}

/// A probe that is looked into, and what is known of its place.
struct Case<'a> {
    kernel: &'a Kernel,
    func: &'a Target,
    opts: &'a KprobeOpts,
    /// [`None`] for an address, and where that stayed open, as for the place.
    symbols: Option<&'a Symbols>,
    place: Option<&'a Place>,
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
        match self.place {
            Some(Place::In(function, from_start)) if is_address => {
                explanation.found(Evidence::AddressIn(*function, *from_start));
            }
            Some(Place::In(function, from_start)) if *from_start != offset => {
                explanation.found(Evidence::OffsetIn(*function, *from_start));
            }
            Some(Place::Nowhere) => explanation.found(Evidence::NoFunctionThere),
            // Of a name that is none, or of several functions, there is no one place.
            Some(Place::Untold) if self.symbols.is_none() || self.has_functions(1) => {
                explanation.stays_open(Question::Place, Errno::PERM);
            }
            _ => {}
        }
    }

    /// Why an attach that was not tried would be refused, as far as the kernel shows.
    fn foretell(&self, mode: Option<AttachMode>) -> Option<Failure> {
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
        Some(Failure::new(Step::ResolveSymbol, errno, cause))
    }

    /// The true cause, where the kernel's errno means more than one thing and its symbols tell which.
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
            (Some(Place::In(_, 0)), _) if matches!(cause, Cause::NotFunctionEntry) => {
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

    /// It would not attach; what else is there to say of the cause? Answers the cause, which the rights of the process may correct.
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

    /// What the lists tell of why a function may not be probed: of the one where the probe would really be.
    fn tell_protection(&self, explanation: &mut Explanation) {
        let Self { func, opts, .. } = self;
        let address = func
            .as_address()
            .or_else(|| self.symbols?.address()?.checked_add(opts.offset));
        let function = match self.place {
            Some(Place::In(function, _)) => function,
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
                // Of a module that is loaded the kernel refuses it; of what is built in it waits for a module that never comes.
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
fn try_out(plan: &Plan<'_>) -> Result<(), Failure> {
    let (perf_event, event) = plan.open_event()?;
    drop(perf_event);
    event
        .map_or(Ok(()), TraceEvent::remove)
        .map_err(|errno| Failure::new(Step::RemoveEvent, errno, remove_cause(errno)))
}

/// Whether a trial would do harm. With ftrace off, a probe of an entry that comes and goes makes ftrace lose count: the next one
/// that goes meets a warning of the kernel, and after it ftrace and every probe of an entry are dead until the next boot (seen on
/// Linux 5.10 to 6.12).
fn is_trial_harmful(func: &Target, opts: &KprobeOpts) -> bool {
    may_be_by_ftrace(func, opts) && number_in(FTRACE) == Ok(0)
}

/// Whether the kernel may place a probe by ftrace, as it does at the entry of a function, which is up to some bytes behind its
/// symbol; not on aarch64 and arm (`KPROBES_ON_FTRACE`).
const fn may_be_by_ftrace(func: &Target, opts: &KprobeOpts) -> bool {
    cfg!(not(any(target_arch = "aarch64", target_arch = "arm")))
        && (func.as_address().is_some() || opts.offset <= 16)
}

fn tell_symbols(explanation: &mut Explanation, func: &Target, symbols: &Symbols) {
    match (symbols.functions, &symbols.function) {
        (1, Some((function, address))) => {
            explanation.found(Evidence::Function(*function, *address));
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
        explanation.found(Evidence::Elsewhere(*function));
    }
    if symbols.is_init {
        explanation.found(Evidence::InitCode);
    }
}

/// The rights of this process, as far as they matter. Answers the cause: what the rights belie is the word of something else, such
/// as a Linux security module.
fn tell_rights(explanation: &mut Explanation, cause: Cause) -> Cause {
    let level = number_in(PARANOID);
    let level = explanation.ask(Question::Paranoid, &level).copied();
    if let Some(level) = level {
        explanation.found(Evidence::Paranoid(level));
    }
    let capabilities = rustix::thread::capabilities(None);
    if let Some(sets) = explanation.ask(Question::Capabilities, &capabilities) {
        explanation.found(Evidence::Capabilities {
            bpf: sets.effective.contains(CapabilitySet::BPF),
            perfmon: sets.effective.contains(CapabilitySet::PERFMON),
            sys_admin: sets.effective.contains(CapabilitySet::SYS_ADMIN),
        });
    }
    let mode = rustix::thread::secure_computing_mode();
    let mode = explanation.ask(Question::Seccomp, &mode);
    let filter = mode.map(|mode| *mode != SecureComputingMode::Disabled);
    if let Some(filter) = filter {
        explanation.found(Evidence::Seccomp { filter });
    }
    let mut text = [0; 64];
    let read = open_read(rustix::fs::CWD, LOCKDOWN).and_then(|file| read_small(&file, &mut text));
    let len = explanation.ask(Question::Lockdown, &read);
    let confidentiality =
        len.map(|len| contains(text.get(..*len).unwrap_or_default(), b"[confidentiality]"));
    if let Some(confidentiality) = confidentiality {
        explanation.found(Evidence::Lockdown { confidentiality });
    }
    true_denial(cause, level, filter, confidentiality)
}

/// Who denies, unless what is known of the process and the kernel belies it.
const fn true_denial(
    cause: Cause,
    level: Option<i32>,
    filter: Option<bool>,
    confidentiality: Option<bool>,
) -> Cause {
    match (cause, level, filter, confidentiality) {
        (Cause::Seccomp, _, Some(false), _)
        | (Cause::PerfEventParanoid, Some(i32::MIN..=2), _, _)
        | (Cause::Lockdown, _, _, Some(false)) => Cause::NoPermission,
        _ => cause,
    }
}

const fn kind(opts: &KprobeOpts) -> &'static str {
    if opts.retprobe { "kretprobe/" } else { "" }
}

/// At most `N` of something; what comes after is the less likely, and left out.
#[derive(Clone, Copy, Debug)]
struct List<T, const N: usize>([Option<T>; N]);

impl<T: Copy, const N: usize> List<T, N> {
    const fn new() -> Self {
        Self([None; N])
    }

    fn push(&mut self, item: T) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(item);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(Option::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        (cause, expected): (Cause, Cause),
        func: &str,
        symbols: Option<Symbols>,
        place: Option<Place>,
    ) {
        let known = Case {
            kernel: &Kernel::probe(),
            func: &func.parse().unwrap(),
            opts: &KprobeOpts::new(),
            symbols: symbols.as_ref(),
            place: place.as_ref(),
        };
        let found = known.true_cause(cause);
        assert_eq!(found, expected, "{cause} {func} {symbols:?} {place:?}");
    }

    #[test]
    fn symbols_tell_what_an_errno_meant() {
        let none = Symbols::default();
        let function = Symbols {
            functions: 1,
            ..none
        };
        let data = Symbols {
            data: Some(b'd'),
            ..none
        };
        let in_module = Symbols {
            has_module: true,
            ..none
        };
        // EINVAL of tracefs for a name that there is not.
        let missing = (Cause::NotProbeable, Cause::NoSuchFunction);
        check(missing, "f", Some(none), None);
        let no_module = (Cause::NotProbeable, Cause::ModuleNotLoaded);
        check(no_module, "m:f", Some(none), None);
        check(
            (Cause::NoSuchFunction, Cause::NotProbeable),
            "f",
            Some(data),
            None,
        );
        let not_in_it = (Cause::ModuleNotLoaded, Cause::NoSuchFunction);
        check(not_in_it, "m:f", Some(in_module), None);
        for cause in [Cause::NotProbeable, Cause::NotInstructionBoundary] {
            check((cause, cause), "f", Some(function), None);
        }
        // What is not about the place stays, and so does what stays open.
        for cause in [Cause::NotUnique, Cause::Lockdown, Cause::OutOfFds] {
            check((cause, cause), "f", Some(none), None);
        }
        check(
            (Cause::NoSuchFunction, Cause::NoSuchFunction),
            "f",
            None,
            None,
        );
    }

    #[test]
    fn what_the_rights_belie_is_something_elses_word() {
        let check = |cause, level, filter, confidentiality, expected| {
            assert_eq!(true_denial(cause, level, filter, confidentiality), expected);
        };
        let none = Cause::NoPermission;
        for (cause, level, filter, confidentiality) in [
            (Cause::Seccomp, Some(2), Some(true), Some(false)),
            (Cause::Seccomp, None, None, None),
            (Cause::PerfEventParanoid, Some(3), Some(false), Some(false)),
            (Cause::PerfEventParanoid, None, None, None),
            (Cause::Lockdown, Some(3), Some(false), Some(true)),
            (Cause::Lockdown, None, None, None),
            (Cause::NoTracefs, Some(2), Some(false), Some(false)),
        ] {
            check(cause, level, filter, confidentiality, cause);
        }
        check(Cause::Seccomp, None, Some(false), None, none);
        check(Cause::PerfEventParanoid, Some(2), None, None, none);
        check(Cause::Lockdown, None, None, Some(false), none);
    }

    #[test]
    fn a_place_in_no_function_is_a_bad_address() {
        // Before Linux 5.18 an address is EINVAL, and an offset that leads out of everything is ENOENT.
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
        let function = "f".parse().unwrap();
        let entry = (Cause::NotFunctionEntry, Cause::NotProbeable);
        check(entry, address, None, Some(Place::In(function, 0)));
        let inside = (Cause::NotFunctionEntry, Cause::NotFunctionEntry);
        check(inside, address, None, Some(Place::In(function, 9)));
        let untold = (Cause::NotProbeable, Cause::NotProbeable);
        check(untold, address, None, Some(Place::Untold));
    }
}
