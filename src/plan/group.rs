//! The plan of a group: the way in which a program is attached to many functions.

use core::fmt;

use rustix::fd::BorrowedFd;

use super::Plan;
use super::multi::{MultiPlan, about, check_support};
use crate::bpf::AttachType;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::mount::FILES;
use crate::numbers::Decimal;
use crate::request::{
    AttachMode, Functions, GroupOpts, KprobeMultiOpts, KprobeOpts, Policy, Target, check_functions,
    check_multi,
};
use crate::sys::Places;

/// Names the way in which a program is attached to many functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupWay {
    /// One `kprobe.multi` or `kprobe.session` link to all functions.
    Multi,
    /// A link to each function in this mode.
    Each(AttachMode),
    /// A link to each function in this mode, at its address.
    ///
    /// The addresses are found with one reading of `/proc/kallsyms`. That is faster than names on a
    /// kernel that compares each name with all of its symbols, as Linux before 6.1 does.
    EachByAddress(AttachMode),
}

/// The number of functions from which on a reading of `/proc/kallsyms` takes less time than the
/// kernel's own search for their names, where that is slow. On Linux 5.10 the reading takes as long
/// as the search for 13 to 17 names.
const BY_ADDRESS_FROM: usize = 20;

/// Holds the decision how to attach a program to many functions. Its `Display` is one line.
///
/// ```
/// # use kprobe_attach::bpf::AttachType;
/// # use kprobe_attach::request::{Functions, GroupOpts, SymbolRef};
/// # use kprobe_attach::{AttachMode, GroupWay, Kernel, kernel::Features};
/// let kernel = Kernel::with_features(Features::everything());
/// let symbols = [c"vfs_read", c"vfs_write"].map(SymbolRef::new);
/// let functions = Functions::symbols(&symbols);
/// let plan = kernel.plan_group(functions, &GroupOpts::new(), AttachType::KprobeMulti)?;
/// assert_eq!(plan.way(), GroupWay::Multi);
/// assert_eq!(plan.to_string(), "one link to 2 functions");
/// let plan = kernel.plan_group(functions, &GroupOpts::new(), AttachType::Kprobe)?;
/// assert_eq!(plan.way(), GroupWay::Each(AttachMode::Link));
/// assert_eq!(plan.to_string(), "2 links, mode link, by name");
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) functions: Functions<'a>,
    pub(crate) opts: GroupOpts,
    way: GroupWay,
}

impl Kernel {
    /// Decides how to attach a program to many functions. It does not attach anything.
    ///
    /// `loaded_for` says which links the program is loaded for. [`AttachType::KprobeMulti`] is the
    /// best choice where [`Features::kprobe_multi`](crate::kernel::Features::kprobe_multi) is yes.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`plan_multi`](Self::plan_multi), or of [`plan`](Self::plan) for the
    /// first function.
    pub fn plan_group<'a>(
        &'a self,
        functions: Functions<'a>,
        opts: &GroupOpts,
        loaded_for: AttachType,
    ) -> Result<GroupPlan<'a>, Error> {
        let multi = loaded_for != AttachType::Kprobe;
        GroupPlan::new(self, functions, *opts, multi, None)
    }
}

impl<'a> GroupPlan<'a> {
    /// Makes the plan. `multi` is whether the program is loaded for links to many functions. If
    /// `prog` is given, the probes use it.
    pub(crate) fn new(
        kernel: &'a Kernel,
        functions: Functions<'a>,
        opts: GroupOpts,
        multi: bool,
        prog: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        check_functions(&functions).map_err(Error::invalid)?;
        let mut plan = Self {
            kernel,
            functions,
            opts,
            way: GroupWay::Multi,
        };
        if multi || opts.session {
            match check_multi(&functions, plan.multi_opts()) {
                Err((index, invalid)) if index.is_none() || opts.policy == Policy::AllOrNothing => {
                    return Err(about(Error::invalid(invalid), &functions, index));
                }
                // Under another policy, a function that breaks a rule does not concern the others.
                _ => check_support(kernel, plan.multi_opts(), prog)?,
            }
            return Ok(plan);
        }
        let mode = plan.first_mode(prog)?;
        let by_address = FILES
            && matches!(functions.places(), Places::Symbols(_))
            && functions.len() >= BY_ADDRESS_FROM
            && opts.policy != Policy::AnyOf
            // There a name is a place behind the address in kallsyms.
            && !cfg!(target_arch = "powerpc64")
            && kernel.looks_up_slowly();
        plan.way = if by_address {
            GroupWay::EachByAddress(mode)
        } else {
            GroupWay::Each(mode)
        };
        Ok(plan)
    }

    /// Returns the mode of a link to one function.
    fn first_mode(&self, prog: Option<BorrowedFd<'_>>) -> Result<AttachMode, Error> {
        // Any function has the same mode, and any cookie takes a link.
        let any = Target::symbol("any")?;
        let mut opts = self.of_each(0);
        let cookies = self.functions.all_cookies().iter();
        opts.bpf_cookie = cookies.fold(0, |all, cookie| all | cookie);
        Ok(Plan::new(self.kernel, any, &opts, prog)?.mode())
    }

    /// Returns the options of the link to the function at an index.
    pub(crate) fn of_each(&self, index: usize) -> KprobeOpts {
        let mut opts = KprobeOpts::new()
            .retprobe(self.opts.retprobe)
            .bpf_cookie(self.functions.cookie(index));
        opts.attach_mode = self.opts.attach_mode;
        opts
    }

    /// Plans one link to some of the functions, which must have been checked.
    pub(crate) fn multi<'f>(&'f self, functions: Functions<'f>) -> MultiPlan<'f> {
        MultiPlan {
            kernel: self.kernel,
            functions,
            opts: self.multi_opts(),
        }
    }

    pub(crate) fn multi_opts(&self) -> KprobeMultiOpts {
        KprobeMultiOpts::new()
            .retprobe(self.opts.retprobe)
            .session(self.opts.session)
    }

    /// Returns the way that was chosen.
    #[must_use]
    pub const fn way(&self) -> GroupWay {
        self.way
    }
}

impl fmt::Display for GroupPlan<'_> {
    /// Writes the way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = Decimal(self.functions.len() as u64);
        let (mode, by_name) = match self.way {
            GroupWay::Multi => return write!(f, "one link to {count} functions"),
            GroupWay::Each(mode) => (mode, matches!(self.functions.places(), Places::Symbols(_))),
            GroupWay::EachByAddress(mode) => (mode, false),
        };
        let by = if by_name { "name" } else { "address" };
        write!(f, "{count} links, mode {mode}, by {by}")
    }
}
