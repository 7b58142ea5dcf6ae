//! The plan of one link to many functions.

use core::fmt;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::error::{Error, Step};
use crate::kernel::{Kernel, Reason, Support};
use crate::numbers::Decimal;
use crate::request::{Functions, KprobeMultiOpts, KprobeOpts, check_multi};
use crate::sys::Places;
use crate::sys::uapi::{
    BPF_F_KPROBE_MULTI_RETURN, BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION,
};

/// Holds the decision how to attach one link to many functions. Its `Display` is the system call.
///
/// ```
/// # use kprobe_attach::request::{Functions, SymbolRef};
/// # use kprobe_attach::{Kernel, KprobeMultiOpts, kernel::Features};
/// let kernel = Kernel::with_features(Features::everything());
/// let symbols = [c"vfs_read", c"vfs_write"].map(SymbolRef::new);
/// let functions = Functions::symbols(&symbols).cookies(&[1, 2]);
/// let plan = kernel.plan_multi(functions, &KprobeMultiOpts::new().retprobe(true))?;
/// assert_eq!(plan.to_string(), concat!(
///     "bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=0, ",
///     "attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, kprobe_multi={flags=1, cnt=2, ",
///     r#"syms=["vfs_read", "vfs_write"], addrs=NULL, cookies=[1, 2]}}}, 48) = link_fd"#,
/// ));
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MultiPlan<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) functions: Functions<'a>,
    pub(crate) opts: KprobeMultiOpts,
}

impl Kernel {
    /// Decides how to attach one link to many functions. It does not attach anything.
    ///
    /// It asks the kernel once whether it has such links.
    ///
    /// # Errors
    ///
    /// Returns an error with one of these steps:
    ///
    /// * [`Step::Request`] if functions or options break a rule. The error names the function.
    /// * [`Step::ProbeKernel`] if the kernel does not have such links, or the probe had no answer.
    ///   In the first case the cause is
    ///   [`Cause::NoKprobeMulti`](crate::error::Cause::NoKprobeMulti).
    pub fn plan_multi<'a>(
        &'a self,
        functions: Functions<'a>,
        opts: &KprobeMultiOpts,
    ) -> Result<MultiPlan<'a>, Error> {
        MultiPlan::new(self, functions, *opts, None)
    }
}

impl<'a> MultiPlan<'a> {
    /// Makes the plan. If `prog` is given, the probe for such links uses it.
    pub(crate) fn new(
        kernel: &'a Kernel,
        functions: Functions<'a>,
        opts: KprobeMultiOpts,
        prog: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        if let Err((index, invalid)) = check_multi(&functions, opts) {
            return Err(about(Error::invalid(invalid), &functions, index));
        }
        check_support(kernel, opts, prog)?;
        Ok(Self {
            kernel,
            functions,
            opts,
        })
    }

    pub(crate) const fn attach_type(&self) -> u32 {
        if self.opts.session {
            BPF_TRACE_KPROBE_SESSION
        } else {
            BPF_TRACE_KPROBE_MULTI
        }
    }

    pub(crate) const fn flags(&self) -> u32 {
        if self.opts.retprobe {
            BPF_F_KPROBE_MULTI_RETURN
        } else {
            0
        }
    }
}

impl fmt::Display for MultiPlan<'_> {
    /// Writes the system call that attaches. Closing the link detaches.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.opts.session {
            "SESSION"
        } else {
            "MULTI"
        };
        let functions = &self.functions;
        let (flags, count) = (self.flags().into(), functions.len() as u64);
        let (flags, count) = (Decimal(flags), Decimal(count));
        write!(
            f,
            "bpf(BPF_LINK_CREATE, {{link_create={{prog_fd=prog_fd, target_fd=0, \
             attach_type=BPF_TRACE_KPROBE_{kind}, flags=0, kprobe_multi={{flags={flags}, \
             cnt={count}, "
        )?;
        let place = |f: &mut fmt::Formatter<'_>, index| match functions.get(index) {
            Ok(Some(target)) if target.as_address().is_none() => write!(f, r#""{target}""#),
            Ok(Some(target)) => write!(f, "{target}"),
            // The names were checked when the plan was made.
            _ => Ok(()),
        };
        let by_name = matches!(functions.places(), Places::Symbols(_));
        f.write_str(if by_name {
            "syms="
        } else {
            "syms=NULL, addrs="
        })?;
        array(f, functions.len(), &place)?;
        f.write_str(if by_name { ", addrs=NULL" } else { "" })?;
        f.write_str(", cookies=")?;
        let cookie =
            |f: &mut fmt::Formatter<'_>, index| write!(f, "{}", Decimal(functions.cookie(index)));
        match functions.all_cookies().len() {
            0 => f.write_str("NULL")?,
            count => array(f, count, &cookie)?,
        }
        f.write_str("}}}, 48) = link_fd")
    }
}

/// Checks that the kernel has links to many functions.
pub(super) fn check_support(
    kernel: &Kernel,
    opts: KprobeMultiOpts,
    prog: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    let (errno, cause) = match kernel.multi(opts.session, prog) {
        Support::Yes => return Ok(()),
        // libbpf reports links that the kernel does not have as EOPNOTSUPP or EINVAL.
        Support::No(Reason { cause, .. }) => (Errno::OPNOTSUPP, cause),
        Support::Unknown(Reason { errno, cause }) => (errno, cause),
    };
    Err(Error::new(Step::ProbeKernel, errno, cause))
}

/// Prints the elements of an array.
fn array(
    f: &mut fmt::Formatter<'_>,
    count: usize,
    element: &dyn Fn(&mut fmt::Formatter<'_>, usize) -> fmt::Result,
) -> fmt::Result {
    for index in 0..count {
        f.write_str(if index == 0 { "[" } else { ", " })?;
        element(f, index)?;
    }
    f.write_str("]")
}

/// Adds a function to an error. A name that is not that of a function appears as it is.
pub(crate) fn about(error: Error, functions: &Functions<'_>, index: Option<usize>) -> Error {
    let Some(index) = index else {
        return error;
    };
    match (functions.get(index), functions.places()) {
        (Ok(Some(target)), _) => error.about(&target, &KprobeOpts::new()),
        (_, Places::Symbols(symbols)) => {
            let name = symbols.get(index).map(|symbol| symbol.name().to_bytes());
            error.about_event(name.unwrap_or_default())
        }
        (_, Places::Addresses(_)) => error,
    }
}
