//! Finds out why an event was refused, on kernels whose errno can have several meanings.

use rustix::io::Errno;

use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::mount::FILES;
use crate::plan::Plan;
use crate::request::{AttachMode, Target};
use crate::symbols::{Place, Symbols, is_of_place};
use crate::sys::{self, KprobeAt};

impl Plan<'_> {
    /// Finds out the true cause of a refused event. Returns whether the plan now does without the
    /// name of the function, because the kernel refuses only that.
    ///
    /// It asks the kernel for other events, which are always refused. If these do not tell, it
    /// looks at the symbols, and reads them if they are not given.
    // In a frame of its own: it has a second plan.
    #[inline(never)]
    pub(crate) fn settle(
        &mut self,
        error: &mut Error,
        given: Option<Result<&Symbols<'_>, Errno>>,
    ) -> bool {
        if !FILES || !is_of_place(error.cause()) {
            return false;
        }
        let has_module = self.kernel.has_module(&self.target);
        match error.cause() {
            Cause::ModuleNotLoaded if has_module => {
                // The errno of a missing function does not show whether the module is loaded.
                error.set_cause(Cause::NoSuchFunction);
                if self.mode().uses_tracefs() {
                    return false;
                }
            }
            Cause::NotProbeable | Cause::NotFunctionEntry
                if error.errno() == Errno::INVAL && !self.kernel.finds(&self.target) => {}
            _ => return false,
        }
        if let Some(given) = given {
            return self.settle_by(error, given);
        }
        let mut read = Symbols::of(self.target, &self.opts);
        if let Ok(symbols) = &mut read {
            symbols.has_module |= has_module;
        }
        self.settle_by(error, read.as_ref().map_err(|errno| *errno))
    }

    /// Does the same by what the symbols show.
    fn settle_by(&mut self, error: &mut Error, symbols: Result<&Symbols<'_>, Errno>) -> bool {
        let Ok(symbols) = symbols else {
            if error.errno() == Errno::INVAL && self.target.function_bytes().is_some() {
                error.set_cause(Cause::Unknown);
            }
            return false;
        };
        let mut cause = symbols.true_cause(error.cause());
        let refuses_name = is_of_place(cause) && self.is_name_refused(error, symbols);
        if refuses_name {
            cause = match error.errno() {
                Errno::NOENT => Cause::NameRefused,
                // It may be the function too.
                _ => Cause::Unknown,
            };
        } else if cause == Cause::NotProbeable
            && error.errno() == Errno::INVAL
            && symbols.place() != Place::In(0)
            && symbols.data.is_none()
            && !self.kernel.names_boundaries()
        {
            cause = Cause::Unknown;
        }
        error.set_cause(cause);
        refuses_name && self.leave_out_name(symbols)
    }

    /// Returns whether the PMU may refuse the name of a function that exists.
    ///
    /// Before Linux 5.2 it takes only the names of C, and returns EINVAL for others. In some
    /// updates of 5.15 (commit b022f0c7e404) it looks for `module:function` among the names of
    /// functions, and returns ENOENT.
    fn is_name_refused(&self, error: &Error, symbols: &Symbols<'_>) -> bool {
        let is_of_module = self.target.module_bytes().is_some();
        let is_no_c_name =
            || matches!(self.target.function_bytes(), Some(name) if name.contains(&b'.'));
        error.step() == Step::PerfEventOpen
            && !self.mode().uses_tracefs()
            && symbols.functions > 0
            && self.target.known_address().is_none()
            && match error.errno() {
                Errno::NOENT => is_of_module,
                Errno::INVAL => is_of_module || is_no_c_name(),
                _ => false,
            }
    }

    /// Changes the plan to the address of the function. If that is hidden, and the request leaves
    /// the choice of the mode, changes it to tracefs, which takes every name.
    fn leave_out_name(&mut self, symbols: &Symbols<'_>) -> bool {
        if let (1, Some(start)) = (symbols.functions, symbols.start()) {
            self.target = self.target.with_address(start);
            return true;
        }
        let mode = match (self.opts.attach_mode, self.mode()) {
            (Some(_), _) => return false,
            (None, AttachMode::Link) => AttachMode::LegacyLink,
            (None, _) => AttachMode::Legacy,
        };
        let by_tracefs = Plan::new(self.kernel, self.target, &self.opts.attach_mode(mode), None);
        by_tracefs.map(|plan| *self = plan).is_ok()
    }
}

impl Kernel {
    /// Returns whether the PMU certainly finds a function by its name.
    ///
    /// It asks for a return probe behind the entry, which no kernel allows: the errno is EINVAL, or
    /// ENOENT if there is no such function. Before Linux 5.5 (about), both are EINVAL.
    fn finds(&self, target: &Target<'_>) -> bool {
        let pmu = self.pmu();
        let (true, Some(bit), Some(function)) = (
            pmu.support.is_yes(),
            pmu.retprobe_bit,
            target.function_bytes(),
        ) else {
            return false;
        };
        let ask = |module, function| {
            let at = KprobeAt::Symbol {
                module,
                function,
                offset: 1,
            };
            sys::perf_event_open_kprobe(pmu.r#type, 1 << (bit & 63), at, self.cpu()).err()
        };
        ask(target.module_bytes(), function) == Some(Errno::INVAL)
            && ask(None, b"no_such_function") == Some(Errno::NOENT)
    }

    /// Returns whether the kernel has an errno of its own for an offset inside an instruction, if
    /// this architecture has such offsets at all. Before Linux 5.2 it is EINVAL.
    fn names_boundaries(&self) -> bool {
        if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            return true;
        }
        // At the entry of a function is what ftrace calls, or jumps over, in several bytes.
        let at = KprobeAt::Symbol {
            module: None,
            function: b"vfs_read",
            offset: 1,
        };
        let pmu = self.pmu();
        pmu.support.is_yes()
            && sys::perf_event_open_kprobe(pmu.r#type, 0, at, self.cpu()).err()
                == Some(Errno::ILSEQ)
    }
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;
    use crate::kernel::{Features, Reason, Support};
    use crate::request::KprobeOpts;
    use crate::symbols::symbols;

    const SHOWN: [&str; 5] = [
        "100 T f",
        "140 t f.isra.0",
        "1a0 T _etext",
        "800 T f\t[m]",
        "900 t g\t[m]",
    ];

    const HIDDEN: [&str; 3] = ["0 T f", "0 T _etext", "0 T f\t[m]"];

    /// Returns the cause of a refusal by the PMU, and the place and mode of the plan that does
    /// without the name.
    fn settled(
        text: &str,
        opts: &KprobeOpts,
        (errno, cause): (Errno, Cause),
        lines: &[&str],
    ) -> (Cause, Option<(Option<u64>, AttachMode)>) {
        let mut features = Features::everything();
        features.perf_link = Support::No(Reason {
            errno: Errno::INVAL,
            cause: Cause::NoPerfLink,
        });
        let kernel = Kernel::with_features(features);
        let mut plan = kernel.plan(Target::parse(text).unwrap(), opts).unwrap();
        let mut error = Error::new(Step::PerfEventOpen, errno, cause);
        let symbols = symbols(text, opts.offset, lines);
        let changed = plan.settle_by(&mut error, Ok(&symbols));
        let other = changed.then(|| (plan.target.known_address(), plan.mode()));
        (error.cause(), other)
    }

    #[test]
    fn a_name_that_the_pmu_alone_refuses_is_not_needed() {
        const ENTRY: KprobeOpts = KprobeOpts::new();
        let perf = ENTRY.attach_mode(AttachMode::Perf);
        let at = |address: Option<u64>, mode| Some((address, mode));
        let missing = (Errno::NOENT, Cause::NoSuchFunction);
        let refused = (Errno::INVAL, Cause::NotProbeable);
        // An update of Linux 5.15 does not take `module:function`.
        for opts in [ENTRY, perf, ENTRY.retprobe(true)] {
            let found = settled("m:f", &opts, missing, &SHOWN);
            assert_eq!(
                found,
                (Cause::NameRefused, at(Some(0x800), AttachMode::Perf))
            );
        }
        let found = settled("m:f", &ENTRY.offset(8), missing, &SHOWN);
        assert_eq!(found.1, at(Some(0x800), AttachMode::Perf));
        // Linux 4.17 to 5.1 take only the names of C.
        for (text, address) in [("m:f", 0x800), ("f.isra.0", 0x140)] {
            let found = settled(text, &ENTRY, refused, &SHOWN);
            assert_eq!(found, (Cause::Unknown, at(Some(address), AttachMode::Perf)));
        }
        // The function is not there, or is refused itself.
        let found = settled("m:h", &ENTRY, missing, &SHOWN);
        assert_eq!(found, (Cause::NoSuchFunction, None));
        let found = settled("n:f", &ENTRY, refused, &SHOWN);
        assert_eq!(found, (Cause::ModuleNotLoaded, None));
        for cause in [Cause::NotProbeable, Cause::NotFunctionEntry] {
            let found = settled("f", &ENTRY, (Errno::INVAL, cause), &SHOWN);
            assert_eq!(found, (Cause::NotProbeable, None));
        }
        // Where the address is hidden, only tracefs takes the name.
        let found = settled("m:f", &ENTRY, missing, &HIDDEN);
        assert_eq!(found, (Cause::NameRefused, at(None, AttachMode::Legacy)));
        let found = settled("m:f", &perf, missing, &HIDDEN);
        assert_eq!(found, (Cause::NameRefused, None));
    }
}
