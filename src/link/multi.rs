//! One link to many functions.

use core::slice;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;

use super::info_failed;
use crate::bpf::{load_nop, obj_get, pin, pin_at};
use crate::diagnose::{bpf_cause, bpf_error};
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::mount::{FILES, NO_FILES};
use crate::plan::{MultiPlan, about};
use crate::request::{Functions, Invalid, KprobeMultiOpts, KprobeOpts, Target};
use crate::symbols::{Place, Resolution, Symbols, resolve_dyn};
use crate::sys::uapi::{
    BPF_F_KPROBE_MULTI_RETURN, BPF_LINK_TYPE_KPROBE_MULTI, BPF_TRACE_KPROBE_MULTI,
};
use crate::sys::{self, KprobeAt};

/// Represents a program that is attached to many functions by one link.
///
/// Dropping it detaches the program from all of them, and so does [`detach`](Self::detach). It
/// holds one file descriptor. While it is attached, the modules of its functions cannot be
/// unloaded.
#[doc(alias = "bpf_link")]
#[derive(Debug)]
pub struct KprobeMultiLink {
    fd: OwnedFd,
}

static_assertions::const_assert_eq!(size_of::<KprobeMultiLink>(), 4);
static_assertions::assert_impl_all!(KprobeMultiLink: Send, Sync);

/// Attaches a loaded program to many functions by one link.
///
/// To make several links, use one [`Kernel`] and [`Kernel::attach_kprobe_multi`].
///
/// # Errors
///
/// Returns the errors of [`Kernel::attach_kprobe_multi`].
#[doc(alias = "bpf_program__attach_kprobe_multi_opts")]
pub fn attach_kprobe_multi(
    prog: impl AsFd,
    functions: Functions<'_>,
    opts: &KprobeMultiOpts,
) -> Result<KprobeMultiLink, Error> {
    Kernel::new().attach_kprobe_multi(prog, functions, opts)
}

impl Kernel {
    /// Attaches a loaded program to many functions by one link, as libbpf's
    /// `bpf_program__attach_kprobe_multi_opts` does.
    ///
    /// `prog` is a program that was loaded for such links:
    /// [`AttachType::KprobeMulti`](crate::bpf::AttachType::KprobeMulti), or
    /// [`AttachType::KprobeSession`](crate::bpf::AttachType::KprobeSession) for a
    /// [session](KprobeMultiOpts::session). Its cookie and `bpf_get_func_ip()` are those of the
    /// function that was hit.
    ///
    /// It is one system call, if this `Kernel` has been asked before. It works even if the kernel
    /// is locked down.
    ///
    /// ```no_run
    /// use kprobe_attach::bpf::{AttachType, Load, insn};
    /// use kprobe_attach::request::{Functions, SymbolRef};
    /// use kprobe_attach::{Kernel, KprobeMultiOpts};
    ///
    /// let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
    /// let program = Load::new(&insns, c"GPL").attach_type(AttachType::KprobeMulti).load()?;
    /// let symbols = [c"vfs_read", c"vfs_write"].map(SymbolRef::new);
    /// let functions = Functions::symbols(&symbols).cookies(&[1, 2]);
    /// let kernel = Kernel::new();
    /// let link = kernel.attach_kprobe_multi(&program, functions, &KprobeMultiOpts::new())?;
    /// link.detach();
    /// # Ok::<(), kprobe_attach::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`plan_multi`](Self::plan_multi) and of [`MultiPlan::attach`].
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.18 (commit 0dcac2725406), 64-bit and built with `CONFIG_FPROBE`; 6.10 for a session.
    #[doc(alias = "bpf_program__attach_kprobe_multi_opts")]
    pub fn attach_kprobe_multi(
        &self,
        prog: impl AsFd,
        functions: Functions<'_>,
        opts: &KprobeMultiOpts,
    ) -> Result<KprobeMultiLink, Error> {
        let prog = prog.as_fd();
        MultiPlan::new(self, functions, *opts, Some(prog))?.attach_to(prog)
    }
}

impl MultiPlan<'_> {
    /// Carries out the plan with a loaded program.
    ///
    /// The program runs from then on, until the link is detached or dropped.
    ///
    /// # Errors
    ///
    /// Returns an error with one of these steps. Nothing is left attached.
    ///
    /// * [`Step::ResolveSymbol`] if a [unique match](KprobeMultiOpts::unique_match) is asked for,
    ///   and the symbol is not unique, or `/proc/kallsyms` cannot be read.
    /// * [`Step::LinkCreate`] with the kernel's errno.
    ///
    /// The kernel does not report which of many functions it refuses. To find the first one, this
    /// function attaches a program that does nothing to some of them, up to 21 times. The error
    /// names the function, with one of these causes:
    ///
    /// * [`Cause::NoSuchFunction`]: no function has the name.
    /// * [`Cause::NotProbeable`]: ftrace cannot trace the function.
    /// * [`Cause::BadAddress`], [`Cause::NotFunctionEntry`]: the address is not that of a function.
    /// * [`Cause::InvalidRequest`]: the function is named twice.
    /// * [`Cause::Unknown`]: this process cannot find out which of these it is.
    ///
    /// If the kernel refuses no function but the program, the cause is [`Cause::WrongProgram`].
    pub fn attach(&self, prog: impl AsFd) -> Result<KprobeMultiLink, Error> {
        self.attach_to(prog.as_fd())
    }

    /// Carries out the plan as [`attach`](Self::attach) does. If the error is about one of the
    /// functions, it puts its index into `refused`.
    ///
    /// The kernel takes the functions before that one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`attach`](Self::attach).
    pub fn attach_or_index(
        &self,
        prog: impl AsFd,
        refused: &mut Option<usize>,
    ) -> Result<KprobeMultiLink, Error> {
        self.attach_indexed(prog.as_fd(), refused)
    }

    pub(crate) fn attach_to(&self, prog: BorrowedFd<'_>) -> Result<KprobeMultiLink, Error> {
        self.attach_indexed(prog, &mut None)
    }

    fn attach_indexed(
        &self,
        prog: BorrowedFd<'_>,
        index: &mut Option<usize>,
    ) -> Result<KprobeMultiLink, Error> {
        if self.opts.unique_match {
            self.check_unique()?;
        }
        self.create(prog).map_err(|errno| {
            let (refused, error) = self.refused(errno);
            *index = refused;
            error
        })
    }

    /// Makes the link.
    pub(super) fn create(&self, prog: BorrowedFd<'_>) -> Result<KprobeMultiLink, Errno> {
        let link = create(prog, self.attach_type(), self.flags(), &self.functions);
        link.map(|fd| KprobeMultiLink { fd })
    }

    /// Checks that one function has the symbol. An address is one function.
    fn check_unique(&self) -> Result<(), Error> {
        let Ok(Some(target)) = self.functions.get(0) else {
            return Ok(());
        };
        if target.as_address().is_some() {
            return Ok(());
        }
        if !FILES {
            let error = Error::new(Step::ResolveSymbol, NO_FILES, Cause::NoTracefs);
            return Err(about(error, &self.functions, Some(0)));
        }
        let mut found = Resolution::new(target.unique());
        resolve_dyn(slice::from_mut(&mut found), &mut |_, _| {})?;
        found.target().map(drop)
    }

    /// Makes the error of a link that the kernel refuses with this errno. Returns it with the index
    /// of the function that the kernel refuses, if it is one.
    #[cold]
    pub(super) fn refused(&self, errno: Errno) -> (Option<usize>, Error) {
        let index = if is_of_function(errno) {
            self.first_refused()
        } else {
            Ok(None)
        };
        let cause = match (errno, index) {
            (_, Ok(Some(index))) => return (Some(index), self.of_function(errno, index)),
            (Errno::OPNOTSUPP, _) => Cause::NoKprobeMulti,
            // The kernel refuses no function, so it refuses the program.
            (Errno::INVAL, Ok(None)) | (Errno::BADF, _) => Cause::WrongProgram,
            (errno, _) => bpf_cause(errno, Cause::Unknown),
        };
        (None, Error::new(Step::LinkCreate, errno, cause))
    }

    /// Finds the first function that the kernel refuses beside those before it. Returns [`None`] if
    /// it refuses none of them with a program that does nothing.
    ///
    /// # Errors
    ///
    /// That program cannot be loaded, or it cannot be attached for another reason.
    fn first_refused(&self) -> Result<Option<usize>, Errno> {
        let nop = load_nop(BPF_TRACE_KPROBE_MULTI).map_err(|error| error.errno())?;
        let refuses = |count| {
            let first = self.functions.slice(0..count);
            match create(nop.as_fd(), BPF_TRACE_KPROBE_MULTI, 0, &first) {
                Ok(_) => Ok(false),
                Err(errno) if is_of_function(errno) => Ok(true),
                Err(errno) => Err(errno),
            }
        };
        let (mut low, mut high) = (0, self.functions.len());
        if !refuses(high)? {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if refuses(middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(Some(low))
    }

    /// Makes the error of one function that the kernel refuses.
    fn of_function(&self, errno: Errno, index: usize) -> Error {
        let cause = match self.functions.get(index) {
            _ if self.functions.is_repeated(index) => {
                let error = Error::invalid(Invalid::FunctionTwice).at(Step::LinkCreate);
                return about(error, &self.functions, Some(index));
            }
            Ok(Some(target)) => self.refused_because(&target),
            _ => Cause::Unknown,
        };
        let error = Error::new(Step::LinkCreate, errno, cause);
        about(error, &self.functions, Some(index))
    }

    /// Finds out why the kernel refuses a function.
    fn refused_because(&self, target: &Target<'_>) -> Cause {
        if target.as_address().is_some() {
            let symbols = if FILES {
                Symbols::of(*target, &KprobeOpts::new())
            } else {
                Err(NO_FILES)
            };
            return match symbols.map(|symbols| symbols.place()) {
                Ok(Place::In(0)) => Cause::NotProbeable,
                Ok(Place::In(_)) => Cause::NotFunctionEntry,
                Ok(Place::Nowhere) => Cause::BadAddress,
                Ok(Place::Untold) | Err(_) => Cause::Unknown,
            };
        }
        let pmu = self.kernel.pmu();
        let (true, Some(bit), Some(function)) = (
            pmu.support.is_yes(),
            pmu.retprobe_bit,
            target.function_bytes(),
        ) else {
            return Cause::Unknown;
        };
        // The kernel looks for the function before it refuses an offset on a return probe.
        let place = KprobeAt::Symbol {
            module: None,
            function,
            offset: 1,
        };
        let cpu = self.kernel.cpu();
        match sys::perf_event_open_kprobe(pmu.r#type, 1 << (bit & 63), place, cpu) {
            Err(Errno::NOENT) => Cause::NoSuchFunction,
            Err(Errno::INVAL | Errno::ADDRNOTAVAIL | Errno::ILSEQ) => Cause::NotProbeable,
            _ => Cause::Unknown,
        }
    }
}

/// Makes a link to functions, with their cookies.
fn create(
    prog: BorrowedFd<'_>,
    attach_type: u32,
    flags: u32,
    functions: &Functions<'_>,
) -> Result<OwnedFd, Errno> {
    let (places, cookies) = (functions.places(), functions.all_cookies());
    sys::link_create_kprobe_multi(prog, attach_type, flags, places, cookies)
}

/// Returns whether an errno can be about one of the functions.
const fn is_of_function(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::SRCH | Errno::NOENT | Errno::INVAL | Errno::TOOBIG
    )
}

/// Holds what the kernel reports of a link to many functions.
///
/// A field is [`None`] if this kernel does not report it.
///
/// # Minimum kernel
///
/// Linux 6.6 (commit 7ac8d0d26191) reports more than the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KprobeMultiInfo<'a> {
    /// The id of the link.
    pub link_id: u32,
    /// The id of the program.
    pub prog_id: u32,
    /// The number of functions.
    pub count: Option<u32>,
    /// The flags, of which [`retprobe`](Self::retprobe) is one.
    pub flags: Option<u32>,
    /// The number of hits that the link missed.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.7 (commit e2b2cd592a8a).
    pub missed: Option<u64>,
    /// The addresses of the functions, sorted, as many as there was room for.
    ///
    /// They are zero if the kernel hides addresses (`kernel.kptr_restrict`).
    pub addresses: &'a [u64],
    /// The cookies of these functions. It is empty if the kernel does not report them.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.9 (commit 9fd112b1f82b).
    pub cookies: &'a [u64],
}

impl KprobeMultiInfo<'_> {
    /// Returns whether the program runs when a function returns.
    ///
    /// It is also false for a [session](KprobeMultiOpts::session).
    #[must_use]
    pub fn retprobe(&self) -> Option<bool> {
        self.flags
            .map(|flags| flags & BPF_F_KPROBE_MULTI_RETURN != 0)
    }
}

impl KprobeMultiLink {
    /// Detaches the program from all functions.
    ///
    /// It waits for RCU grace periods in the kernel, about as long for 1,000 functions as for one.
    /// The program stays attached as long as something else holds the link, such as a pin.
    pub fn detach(self) {
        drop(self);
    }

    /// Returns what the kernel reports of the link. It puts addresses and cookies into the slices.
    ///
    /// Empty slices ask for none of them. If the slices are shorter than the number of functions,
    /// it puts in as many as fit. Cookies are reported together with addresses only.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::LinkInfo`] if the kernel refuses to report on the
    /// link.
    pub fn info<'a>(
        &self,
        addresses: &'a mut [u64],
        cookies: &'a mut [u64],
    ) -> Result<KprobeMultiInfo<'a>, Error> {
        let told = sys::multi_link_info(self.fd.as_fd(), addresses, cookies);
        let told = told.map_err(info_failed)?;
        let reports = told.count > 0;
        let with_cookies = if told.has_cookies { told.written } else { 0 };
        Ok(KprobeMultiInfo {
            link_id: told.id,
            prog_id: told.prog_id,
            count: reports.then_some(told.count),
            flags: reports.then_some(told.flags),
            missed: told.missed,
            addresses: addresses.get(..told.written).unwrap_or_default(),
            cookies: cookies.get(..with_cookies).unwrap_or_default(),
        })
    }

    /// Pins the link into a bpf file system, as [`KprobeLink::pin`](crate::KprobeLink::pin) does.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::Pin`]:
    ///
    /// * `EINVAL` if the path is not in a bpf file system that is mounted.
    /// * `EEXIST` if the path is taken.
    /// * Any other errno of the kernel.
    #[doc(alias = "bpf_link__pin")]
    pub fn pin(&self, path: impl Arg) -> Result<(), Error> {
        pin(self.fd.as_fd(), path)
    }

    /// Pins the link at a path relative to a directory of a bpf file system, as
    /// [`KprobeLink::pin_at`](crate::KprobeLink::pin_at) does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`pin`](Self::pin), and `EINVAL` if the kernel pins by path only.
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.5 (commit cb8edce28073).
    pub fn pin_at(&self, dir: impl AsFd, path: impl Arg) -> Result<(), Error> {
        pin_at(self.fd.as_fd(), dir.as_fd(), path)
    }

    /// Opens a pinned link, whichever program pinned it.
    ///
    /// Dropping the result does not detach the program. Unlinking the pin does, once no process
    /// holds the link.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::OpenLink`]:
    ///
    /// * `ENOENT` if the pin does not exist.
    /// * `EINVAL` if the pin is not a link to many functions, or the path is not in a bpf file
    ///   system.
    /// * Any other errno of the kernel.
    #[doc(alias = "bpf_link__open")]
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        let opened = path.into_with_c_str(|path| opened(obj_get(path)?));
        opened.map_err(|errno| {
            let cause = match errno {
                Errno::INVAL => Cause::WrongProgram,
                _ => Cause::Unknown,
            };
            bpf_error(Step::OpenLink, errno, cause)
        })
    }
}

/// Makes a link of a file descriptor that is one. Returns `EINVAL` for any other object.
fn opened(fd: OwnedFd) -> Result<KprobeMultiLink, Errno> {
    let info = sys::multi_link_info(fd.as_fd(), &mut [], &mut [])?;
    if info.link_type != BPF_LINK_TYPE_KPROBE_MULTI || !sys::is_link(fd.as_fd()) {
        return Err(Errno::INVAL);
    }
    Ok(KprobeMultiLink { fd })
}

impl AsFd for KprobeMultiLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
