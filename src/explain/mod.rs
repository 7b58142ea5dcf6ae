//! Why a probe would not attach: a trial, and what else the kernel shows.

mod case;
mod evidence;
mod explanation;
mod rights;
mod switches;

use core::slice;

use crate::kernel::Kernel;
use crate::request::{KprobeOpts, Target};

pub use case::Case;
pub use evidence::{Evidence, Question};
pub use explanation::{Explanation, Suggestion};
#[cfg(fuzzing)]
pub use rights::{is_confidential, number};
pub use switches::switched_off;

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
    /// It also loads a program of two instructions. If this process lacks the capability for that,
    /// it can still attach a program that another process has loaded: see
    /// [`Evidence::MayNotLoad`]. Any other refusal has the step
    /// [`Step::LoadProgram`](crate::error::Step::LoadProgram).
    ///
    /// Whether a given program fits the probe is not checked. If it does not, the attach itself
    /// returns [`Cause::WrongProgram`](crate::error::Cause::WrongProgram).
    ///
    /// A probe that it suggests is tried in the same way, so that only one that would attach is
    /// suggested.
    ///
    /// It reads `/proc/kallsyms` once. For an offset into a function of a module, it reads the
    /// symbols of modules again, because they are in no order. If a file is not there, or another
    /// file is mounted over it (`EXDEV`), its question stays open. Nothing is guessed.
    ///
    /// A target that is not [resolved](Target::is_resolved) is resolved in the same reading. If it
    /// means [all](Target::all) functions of a name, the first is tried.
    ///
    /// For several probes, use [`explain_all`](Self::explain_all).
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1, as for the modes.
    #[must_use]
    pub fn explain(&self, func: Target<'_>, opts: &KprobeOpts) -> Explanation {
        let mut case = Case::new(func, opts);
        let mut all = self.explain_all(slice::from_mut(&mut case));
        all.next().unwrap_or(Explanation::new(None))
    }

    /// Explains several probes as [`explain`](Self::explain) does, each when its explanation is
    /// asked for.
    ///
    /// It reads `/proc/kallsyms`, `kprobes/blacklist` and `available_filter_functions` at most once
    /// for all of them.
    pub fn explain_all<'k>(
        &'k self,
        cases: &'k mut [Case<'_>],
    ) -> impl Iterator<Item = Explanation> {
        case::All::new(self, cases)
    }
}
