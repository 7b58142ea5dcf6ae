//! A probe to explain: its trial, what one reading of the kernel's files shows of it, and what
//! follows from both.

use linux_raw_sys::general::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC};
use rustix::io::Errno;

use super::evidence::{ARMED, Evidence, FTRACE, Question};
use super::explanation::Explanation;
use super::rights::{number_in, tell_rights};
use super::switches::{is_trial_harmful, may_be_by_ftrace};
use crate::bpf::load_nop;
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::plan::Plan;
use crate::request::{AttachMode, KprobeOpts, Need, Target, TargetBuf, check_request};
use crate::symbols::{
    Place, Similar, Symbols, for_each_blacklisted, for_each_traceable, is_entry_point, is_of_place,
    not_read, read_symbols,
};
use crate::sys::{self, KprobeAt};

/// Holds a probe to explain, and what was found of it, for [`Kernel::explain_all`].
///
/// It takes about 5 KiB.
#[derive(Debug)]
#[repr(C)] // The largest is the last: an offset below 128 takes 3 bytes less in each access.
pub struct Case<'a> {
    func: Target<'a>,
    opts: KprobeOpts,
    /// Whether the symbols could be read.
    read: Result<(), Errno>,
    /// Whether the lists have the function, once they have been read.
    blacklisted: Result<bool, Errno>,
    traceable: Result<bool, Errno>,
    trial: Trial,
    symbols: Symbols<'a>,
}

/// Describes what came of a trial.
#[derive(Debug)]
struct Trial {
    mode: Option<AttachMode>,
    /// Whether there was one: it is left out if it would do harm.
    was_made: bool,
    refusal: Option<Error>,
    /// The errno of a program that this process may not load, although it may attach one.
    may_not_load: Option<Errno>,
}

impl Trial {
    const fn new(opts: &KprobeOpts) -> Self {
        Self {
            mode: opts.attach_mode,
            was_made: true,
            refusal: None,
            may_not_load: None,
        }
    }
}

impl<'a> Case<'a> {
    /// Makes a case of which nothing has been found out yet.
    #[must_use]
    pub fn new(func: Target<'a>, opts: &KprobeOpts) -> Self {
        Self {
            func,
            opts: *opts,
            symbols: Symbols::new(func, opts),
            read: Ok(()),
            trial: Trial::new(opts),
            blacklisted: Ok(false),
            traceable: Ok(false),
        }
    }
}

/// Explains cases one after the other, and reads each file at most once.
pub(super) struct All<'k, 'a> {
    kernel: &'k Kernel,
    cases: &'k mut [Case<'a>],
    next: usize,
    has_symbols: bool,
    has_lists: bool,
}

impl<'k, 'a> All<'k, 'a> {
    pub(super) const fn new(kernel: &'k Kernel, cases: &'k mut [Case<'a>]) -> Self {
        Self {
            kernel,
            cases,
            next: 0,
            has_symbols: false,
            has_lists: false,
        }
    }
}

impl Iterator for All<'_, '_> {
    type Item = Explanation;

    // This has its own frame: in the caller's, beside its buffers, each offset takes 3 bytes more.
    #[inline(never)]
    fn next(&mut self) -> Option<Explanation> {
        let kernel = self.kernel;
        let at = self.next;
        self.next += 1;
        let case = self.cases.get_mut(at)?;
        if let Err(invalid) = check_request(&case.func, &case.opts) {
            let mut found = Explanation::new(case.opts.attach_mode);
            found.refusal = Some(Error::invalid(invalid).about(&case.func, &case.opts));
            return Some(found);
        }
        if !self.has_symbols {
            self.has_symbols = true;
            read_cases(self.cases);
        }
        let case = self.cases.get_mut(at)?;
        // `/proc/kallsyms` shows no module name for a built-in module.
        case.symbols.has_module |= kernel.has_module(&case.func);
        case.trial = case.try_out(kernel);
        if case.needs_lists() && !self.has_lists {
            self.has_lists = true;
            read_lists(kernel, self.cases);
        }
        Some(self.cases.get(at)?.explanation(kernel))
    }
}

/// Looks for the symbols of each case.
// In a frame of its own: it has a new case.
#[inline(never)]
fn read_cases(cases: &mut [Case<'_>]) {
    for case in &mut *cases {
        *case = Case::new(case.func, &case.opts);
    }
    let read = read_symbols(&mut |see| {
        for case in &mut *cases {
            see(&mut case.symbols);
        }
    });
    for case in cases {
        case.read = read;
    }
}

/// Looks for the function of each case in the lists of what cannot and what can be probed.
fn read_lists(kernel: &Kernel, cases: &mut [Case<'_>]) {
    let read = for_each_blacklisted(&mut |range, name| {
        for case in &mut *cases {
            let is_listed = match case.address() {
                Some(address) => range.contains(&address),
                None => case.there().function_bytes() == Some(name),
            };
            case.blacklisted = Ok(is_listed || case.blacklisted == Ok(true));
        }
    });
    let traceable = for_each_traceable(kernel.tracefs_dir(), &mut |function, module| {
        for case in &mut *cases {
            let there = case.there();
            let is_listed =
                there.function_bytes() == Some(function) && there.module_bytes() == module;
            case.traceable = Ok(is_listed || case.traceable == Ok(true));
        }
    });
    for case in cases {
        case.blacklisted = read.and(case.blacklisted);
        case.traceable = traceable.and(case.traceable);
    }
}

impl Case<'_> {
    /// Returns the symbols that have the name, unless the target is an address, or the question is
    /// open.
    fn named(&self) -> Option<&Symbols<'_>> {
        (self.func.function().is_some() && self.read.is_ok()).then_some(&self.symbols)
    }

    /// Returns where the probe would be. Only the name of exactly one function has a single place.
    fn place(&self) -> Result<Place, Errno> {
        self.read?;
        if self.func.as_address().is_some() || self.symbols.functions == 1 {
            Ok(self.symbols.place())
        } else {
            Ok(Place::Untold)
        }
    }

    /// Returns the function at the place of the probe, unless it is in none.
    fn function_there(&self) -> Option<&TargetBuf> {
        match self.place() {
            Ok(Place::In(_)) => self.symbols.function_there(),
            _ => None,
        }
    }

    /// Returns the function at the place of the probe, or else what was asked for.
    fn there(&self) -> Target<'_> {
        self.function_there()
            .map_or(self.func, TargetBuf::as_target)
    }

    /// Returns the address of the probe, if it is known.
    fn address(&self) -> Option<u64> {
        let of_name = || self.named()?.start()?.checked_add(self.opts.offset);
        self.func.as_address().or_else(of_name)
    }

    /// Returns the target that can be planned, or the error that explains why there is none.
    fn target(&self) -> Result<Target<'_>, Error> {
        if self.func.is_resolved() {
            return Ok(self.func);
        }
        self.read.map_err(not_read)?;
        self.symbols.target()
    }

    /// Tries the probe, and corrects the cause of its refusal.
    fn try_out(&self, kernel: &Kernel) -> Trial {
        let mut trial = Trial::new(&self.opts);
        let tried = match self.plan(kernel, &mut trial) {
            Ok(_) if is_trial_harmful(&self.func, &self.opts) => {
                trial.was_made = false;
                Ok(())
            }
            Ok(plan) => self.try_plan(plan, &mut trial),
            Err(error) => Err(error),
        };
        if let Err(mut error) = tried {
            error.name(&self.func, &self.opts);
            if error.step() != Step::Request && self.read.is_ok() {
                error.set_cause(self.symbols.true_cause(error.cause()));
            }
            trial.refusal = Some(error);
        }
        trial
    }

    /// Makes the plan of the trial.
    fn plan<'k>(&'k self, kernel: &'k Kernel, trial: &mut Trial) -> Result<Plan<'k>, Error> {
        let target = self.target()?;
        // The symbols that were read show the function that the offset is in.
        let mut opts = self.opts.within_function(false);
        let mut unknown = None;
        loop {
            let plan = Plan::new(kernel, target, &opts, None);
            match &plan {
                // Whether there are links is unknown to a process that may not load a program. So
                // a mode without a link is tried.
                Err(error) if is_untold_without_program(error) => {
                    unknown = error.mode();
                    let mode = match unknown {
                        Some(AttachMode::LegacyLink) => AttachMode::Legacy,
                        _ => AttachMode::Perf,
                    };
                    opts = opts.attach_mode(mode).bpf_cookie(0);
                    continue;
                }
                Err(_) => {}
                Ok(plan) => trial.mode = unknown.or(Some(plan.mode())),
            }
            return plan;
        }
    }

    /// Opens and closes the event, and loads a program.
    fn try_plan(&self, mut plan: Plan<'_>, trial: &mut Trial) -> Result<(), Error> {
        self.check_offset()?;
        let mut tried = plan.try_event();
        if let Err(error) = &mut tried {
            if plan.settle(error, Some(self.read.map(|()| &self.symbols))) {
                trial.mode = Some(plan.mode());
                tried = plan.try_event();
            }
        }
        tried?;
        match load_nop(0) {
            Err(error) if error.cause() == Cause::NoPermission => {
                trial.may_not_load = Some(error.errno());
                Ok(())
            }
            loaded => loaded.map(drop),
        }
    }

    /// Returns whether the lists may show why the probe is refused.
    fn needs_lists(&self) -> bool {
        match &self.trial.refusal {
            Some(error) => error.cause() == Cause::NotProbeable,
            None => !self.trial.was_made,
        }
    }

    /// Refuses an offset beyond the function, if the request does.
    fn check_offset(&self) -> Result<(), Error> {
        if !self.opts.within_function || self.opts.offset == 0 {
            return Ok(());
        }
        match self.read {
            Ok(()) => self.symbols.check_offset(),
            Err(errno) => Err(not_read(errno)),
        }
    }

    /// Returns what was found out, with what the state of the kernel and of this process adds.
    #[inline(never)]
    fn explanation(&self, kernel: &Kernel) -> Explanation {
        let mut found = Explanation::new(self.trial.mode);
        found.refusal = self.trial.refusal;
        if found.refusal.as_ref().map(Error::step) == Some(Step::Request) {
            return found;
        }
        if self.func.function().is_some() && found.ask(Question::Symbols, &self.read).is_some() {
            self.tell_symbols(&mut found);
        }
        self.tell_place(&mut found);
        if !self.trial.was_made && found.refusal.is_none() {
            found.refusal = self.foretell();
        }
        match &found.refusal {
            Some(error) => {
                let cause = error.cause();
                let cause = self.tell_why(kernel, &mut found, cause);
                if let Some(error) = &mut found.refusal {
                    error.set_cause(cause);
                }
                if !self.trial.was_made {
                    found.found(Evidence::FtraceOff);
                }
            }
            None => self.tell_if_hit(&mut found),
        }
        self.suggest(kernel, &mut found);
        found
    }

    fn tell_symbols(&self, found: &mut Explanation) {
        let symbols = &self.symbols;
        match &symbols.function {
            Some((function, address)) => {
                if symbols.functions > 1 {
                    found.found(Evidence::Functions(symbols.functions));
                }
                found.found_function(function, *address);
            }
            // There are fewer than the chosen number.
            None if symbols.functions > 0 => found.found(Evidence::Functions(symbols.functions)),
            None => found.found(Evidence::NoFunction),
        }
        if let Some(kind) = symbols.data {
            found.found(Evidence::Data(kind));
        }
        if symbols.functions == 0 && self.func.module().is_some() {
            found.found(Evidence::Module {
                loaded: symbols.has_module,
            });
        }
        if let (0, None, Some(function)) = (symbols.functions, symbols.data, symbols.named()) {
            found.found_elsewhere(function);
        }
        if symbols.is_init {
            found.found(Evidence::InitCode);
        }
    }

    /// Adds the place, unless it is the entry of the function.
    #[inline(never)]
    fn tell_place(&self, found: &mut Explanation) {
        let is_address = self.func.as_address().is_some();
        let offset = self.opts.offset;
        if !is_address && (offset == 0 || self.read.is_err()) {
            return;
        }
        let place = self.place();
        match (found.ask(Question::Place, &place), self.function_there()) {
            (Some(Place::In(from_start)), Some(function)) if is_address => {
                found.found_address_in(function, *from_start);
            }
            (Some(Place::In(from_start)), Some(function)) if *from_start != offset => {
                found.found_offset_in(function, *from_start);
            }
            (Some(Place::Nowhere), _) => found.found(Evidence::NoFunctionThere),
            (Some(Place::Untold), _) if is_address || self.symbols.functions == 1 => {
                found.stays_open(Question::Place, Errno::PERM);
            }
            _ => {}
        }
    }

    /// Predicts why an attach that was not tried would be refused, as far as the kernel shows.
    fn foretell(&self) -> Option<Error> {
        let symbols = self.named()?;
        let waits =
            self.trial.mode.is_some_and(AttachMode::uses_tracefs) && self.func.module().is_some();
        let (errno, cause) = match (symbols.functions, self.blacklisted, self.traceable) {
            (0, ..) if waits => return None,
            (0, ..) => (Errno::NOENT, Cause::NoSuchFunction),
            (_, Ok(true), _) | (_, _, Ok(false)) => (Errno::INVAL, Cause::NotProbeable),
            _ => return None,
        };
        let cause = symbols.true_cause(cause);
        Some(Error::new(Step::ResolveSymbol, errno, cause).about(&self.func, &self.opts))
    }

    /// Adds the evidence for a cause. Returns the cause, which the rights of the process can
    /// correct.
    fn tell_why(&self, kernel: &Kernel, found: &mut Explanation, cause: Cause) -> Cause {
        match cause {
            Cause::NotProbeable => self.tell_protection(kernel, found),
            Cause::NotUnique if self.read.is_ok() && self.symbols.start().is_none() => {
                found.stays_open(Question::Place, Errno::PERM);
            }
            Cause::NoPermission
            | Cause::PerfEventParanoid
            | Cause::Seccomp
            | Cause::Lockdown
            | Cause::NoTracefs
            | Cause::NoKprobeEvents => return tell_rights(found, cause),
            _ => {}
        }
        cause
    }

    /// Adds why the lists exclude a function: the one in which the probe would be.
    fn tell_protection(&self, kernel: &Kernel, found: &mut Explanation) {
        let blacklisted = found.ask(Question::Blacklist, &self.blacklisted) == Some(&true);
        if blacklisted {
            found.found(Evidence::Blacklisted);
        }
        let is_code = match self.named() {
            Some(symbols) => symbols.functions > 0 && !symbols.is_init,
            None => self.there().function().is_some(),
        };
        if !is_code {
            return;
        }
        match found.ask(Question::Traceable, &self.traceable) {
            Some(false) => found.found(Evidence::NotTraceable),
            // If the blacklist answers, nothing may be tried: with ftrace off, a trial would do
            // harm.
            Some(true) if !blacklisted && self.opts.offset == 0 && refuses_every_entry(kernel) => {
                found.found(Evidence::EveryEntryRefused);
                if !self.opts.retprobe {
                    found.suggest("", &format_args!("{}+8", self.there()));
                }
            }
            _ => {}
        }
    }

    /// Adds why a probe that would attach would not be hit.
    fn tell_if_hit(&self, found: &mut Explanation) {
        if let Some(errno) = self.trial.may_not_load {
            found.found(Evidence::MayNotLoad(errno));
        }
        if self.trial.mode.is_some_and(AttachMode::uses_tracefs) {
            match self.named() {
                // If the module is loaded, the kernel refuses the event. If it is built in, the
                // event waits for a module that is never loaded.
                Some(symbols) if symbols.functions == 0 && symbols.has_module => {
                    found.found(Evidence::NeverHit);
                }
                Some(symbols) if symbols.functions == 0 && self.func.module().is_some() => {
                    found.found(Evidence::Waits);
                }
                None if self.func.as_address().is_some()
                    && matches!(self.place(), Ok(Place::Nowhere)) =>
                {
                    found.found(Evidence::NeverHit);
                }
                _ => {}
            }
        }
        if found.ask(Question::Armed, &number_in(ARMED, DEBUGFS_MAGIC)) == Some(&0) {
            found.found(Evidence::Disarmed);
        }
        if may_be_by_ftrace(&self.func, &self.opts)
            && found.ask(Question::Ftrace, &number_in(FTRACE, PROC_SUPER_MAGIC)) == Some(&0)
        {
            found.found(Evidence::FtraceOff);
        }
    }

    /// Adds probes that may have been meant by a name that no function has, or several have. Adds
    /// the part of a function that would attach.
    #[inline(never)]
    fn suggest(&self, kernel: &Kernel, found: &mut Explanation) {
        let Some(symbols) = self.named() else {
            return;
        };
        let cause = found.refusal.as_ref().map(Error::cause);
        let has_name = symbols.named().is_some();
        for similar in symbols.meant.iter() {
            let call = symbols.meant.call(similar, &self.func);
            let is_meant = match (&symbols.function, cause) {
                (Some((whole, _)), None) => {
                    similar.function.is_part_of(whole)
                        || call.is_some() && !is_entry_point(&whole.as_target())
                }
                (Some(_), Some(Cause::NotUnique)) | (None, _) => similar.has_name() == has_name,
                _ => false,
            };
            if !is_meant {
                continue;
            }
            if cause.is_none() && symbols.functions > 0 && call.is_none() {
                found.found_part(&similar.function);
            }
            let func = similar
                .target()
                .filter(|func| !self.refuses(kernel, similar, func));
            match (func, &call) {
                (Some(_), Some(call)) => found.suggest(syscall_kind(&self.opts), call),
                (Some(func), None) => found.suggest(kind(&self.opts), &func),
                (None, _) => {}
            }
        }
        if cause == Some(Cause::ModuleNotLoaded) {
            self.suggest_waiting(kernel, found);
        }
    }

    /// Returns whether the kernel refuses a probe at the entry of a function that is suggested.
    fn refuses(&self, kernel: &Kernel, similar: &Similar, func: &Target<'_>) -> bool {
        let opts = self.opts.offset(0);
        let refusal = |func: &Target<'_>| match Plan::new(kernel, *func, &opts, None) {
            Ok(plan) if !is_trial_harmful(func, &opts) => {
                plan.try_event().err().map(|error| error.cause())
            }
            _ => None,
        };
        match refusal(func) {
            // It may refuse only the name.
            Some(cause) if is_of_place(cause) => {
                let by_address = similar.found().map(|func| refusal(&func));
                by_address.is_none_or(|cause| cause.is_some_and(is_of_place))
            }
            refused => refused == Some(Cause::NotUnique),
        }
    }

    /// Suggests a tracefs mode, if there is one. Its event waits for the module.
    fn suggest_waiting(&self, kernel: &Kernel, found: &mut Explanation) {
        let Self { func, opts, .. } = self;
        let mode = if opts.bpf_cookie == 0 {
            AttachMode::Legacy
        } else {
            AttachMode::LegacyLink
        };
        let opts = opts.attach_mode(mode);
        if Plan::new(kernel, *func, &opts, None).is_ok() {
            found.suggest(kind(&opts), &format_args!("{func},mode={mode}"));
        }
    }
}

/// Returns whether a link is refused only because this process may not load a program to ask with.
/// A program that it is given asks all the same.
fn is_untold_without_program(error: &Error) -> bool {
    error.unmet_need() == Some(Need::PerfLink)
        && error.cause() == Cause::NoPermission
        && sys::link_create_nothing().err() != Some(Errno::PERM)
}

/// Returns whether the PMU refuses the entry of a function that every kernel has on the path of a
/// system call.
fn refuses_every_entry(kernel: &Kernel) -> bool {
    let at = KprobeAt::Symbol {
        module: None,
        function: b"vfs_read",
        offset: 0,
    };
    let pmu = kernel.pmu();
    pmu.support.is_yes()
        && sys::perf_event_open_kprobe(pmu.r#type, 0, at, kernel.cpu()).map(drop)
            == Err(Errno::INVAL)
}

/// Returns the prefix of a probe of this kind.
const fn kind(opts: &KprobeOpts) -> &'static str {
    if opts.retprobe { "kretprobe/" } else { "" }
}

/// Returns the prefix of a system call of this kind.
const fn syscall_kind(opts: &KprobeOpts) -> &'static str {
    if opts.retprobe {
        "kretsyscall/"
    } else {
        "ksyscall/"
    }
}
