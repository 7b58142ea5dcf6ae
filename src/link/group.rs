//! A program that is attached to many functions in the best way that the kernel has.

use core::ops::{ControlFlow, Range};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::KprobeLink;
use super::multi::KprobeMultiLink;
use crate::diagnose::remove_cause;
use crate::error::{Cause, Error, Step};
use crate::kernel::Kernel;
use crate::mount::FILES;
use crate::plan::group::{GroupPlan, GroupWay};
use crate::plan::{Plan, about};
use crate::request::{AttachMode, Functions, GroupOpts, Invalid, Policy, check_multi};
use crate::symbols::addresses_of;
use crate::sys::{Part, share_among_children};

/// Holds one link of a group. A [`GroupMemory`] has a slot for each function.
#[derive(Debug, Default)]
pub struct GroupSlot(Option<Held>);

static_assertions::const_assert!(size_of::<GroupSlot>() <= 40);

impl GroupSlot {
    /// Makes an empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// A link, and the functions that it is to: the first, and their number.
#[derive(Debug)]
struct Held {
    first: u32,
    count: u32,
    link: Link,
}

#[derive(Debug)]
enum Link {
    One(KprobeLink),
    Many(KprobeMultiLink),
}

impl Held {
    fn functions(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.count as usize
    }

    /// Detaches, and removes the event if there is one.
    fn detach(self) -> Result<(), Error> {
        match self.link {
            Link::One(link) => link.detach(),
            Link::Many(_) => Ok(()),
        }
    }
}

/// Borrows the memory of a group: 48 bytes for each function at most.
///
/// 1,000 functions take 48,000 bytes. Their symbols and cookies take 16,000 more.
#[derive(Debug)]
pub struct GroupMemory<'m> {
    slots: &'m mut [GroupSlot],
    addresses: &'m mut [u64],
}

impl<'m> GroupMemory<'m> {
    /// Borrows a slot for each function, and room for the address of each.
    ///
    /// The addresses are used for [`GroupWay::EachByAddress`] only. If there is less room, the
    /// group is attached by name.
    #[must_use]
    pub const fn new(slots: &'m mut [GroupSlot], addresses: &'m mut [u64]) -> Self {
        Self { slots, addresses }
    }
}

/// Represents a program that is attached to many functions.
///
/// Dropping it detaches the program from all of them, and so does [`detach`](Self::detach).
///
/// # How long detaching takes
///
/// A link to many functions is detached in the time of one. Links to one function each are detached
/// one after the other, and the kernel waits for two to four RCU grace periods for each of them. On
/// a machine without load that is 10 to 60 milliseconds a link, or half a minute for 1,000. Linux
/// 5.10 waits for none, and takes 7 to 15 milliseconds a link.
///
/// [`detach_by_children`](Self::detach_by_children) lets some of these waits overlap. The links can
/// also be detached in another thread: a group is `Send`, and so is its memory. A process that ends
/// waits for the same time, because the kernel then closes its links one after the other.
#[derive(Debug)]
pub struct KprobeGroup<'m> {
    slots: &'m mut [GroupSlot],
    way: GroupWay,
}

static_assertions::assert_impl_all!(KprobeGroup<'static>: Send, Sync);

/// Is called with the index of a function, and whether it was attached to. It can stop.
type Each<'e> = dyn FnMut(usize, Result<(), &Error>) -> ControlFlow<()> + 'e;

impl Kernel {
    /// Attaches a loaded program to many functions, in the best way that the kernel has.
    ///
    /// If the program was loaded for links to many functions, and the kernel has these, that is one
    /// link. Otherwise it is a link to each function. [`plan_group`](Self::plan_group) decides the
    /// same.
    ///
    /// `each` is called once for each function, in order, as soon as it is known whether the
    /// function is attached. With [`Policy::AllOrNothing`] and one link, that is at the end, if all
    /// of them are. The callback can show the progress, and keep the errors. If it returns
    /// [`ControlFlow::Break`], no further function is attached to, and the result is the group of
    /// those that are.
    ///
    /// ```no_run
    /// use std::ops::ControlFlow;
    ///
    /// use kprobe_attach::request::{Functions, GroupOpts, Policy, SymbolRef};
    /// use kprobe_attach::{GroupMemory, GroupSlot, Kernel};
    ///
    /// # fn main() -> Result<(), kprobe_attach::Error> {
    /// # let program = kprobe_attach::bpf::Program::open_id(1)?;
    /// let symbols = [c"vfs_read", c"vfs_write", c"renamed_in_some_kernel"].map(SymbolRef::new);
    /// let functions = Functions::symbols(&symbols);
    /// let opts = GroupOpts::new().policy(Policy::BestEffort);
    /// let (mut slots, mut addresses) = ([const { GroupSlot::new() }; 3], [0; 3]);
    /// let memory = GroupMemory::new(&mut slots, &mut addresses);
    /// let group = Kernel::new().attach_group(&program, functions, &opts, memory, |at, result| {
    ///     if let Err(error) = result {
    ///         eprintln!("function {at}: {error}");
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// println!("{} of {} are attached", group.len(), functions.len());
    /// group.detach()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing is left attached. The error is one of these:
    ///
    /// * those of [`plan_group`](Self::plan_group);
    /// * [`Invalid::GroupMemory`] if there is not a slot for each function;
    /// * [`Cause::OutOfFds`] if the links take more file descriptors than are left under
    ///   `RLIMIT_NOFILE`. [`Error::capacity`] says how many are asked for, and how many fit.
    ///   Nothing was attached;
    /// * with [`Policy::AllOrNothing`], that of the first function that cannot be attached to;
    /// * with [`Policy::AnyOf`], that of the first function, if none can be attached to;
    /// * with [`Policy::BestEffort`], one that is not about a function: the kernel refuses the
    ///   program, or memory is short.
    pub fn attach_group<'m>(
        &self,
        prog: impl AsFd,
        functions: Functions<'_>,
        opts: &GroupOpts,
        memory: GroupMemory<'m>,
        mut each: impl FnMut(usize, Result<(), &Error>) -> ControlFlow<()>,
    ) -> Result<KprobeGroup<'m>, Error> {
        self.attach_group_dyn(prog.as_fd(), functions, *opts, memory, &mut each)
    }

    fn attach_group_dyn<'m>(
        &self,
        prog: BorrowedFd<'_>,
        functions: Functions<'_>,
        opts: GroupOpts,
        memory: GroupMemory<'m>,
        each: &mut Each<'_>,
    ) -> Result<KprobeGroup<'m>, Error> {
        let multi = Self::takes_multi(opts.session, prog);
        let plan = GroupPlan::new(self, functions, opts, multi, Some(prog))?;
        let GroupMemory { slots, addresses } = memory;
        if slots.len() < functions.len() {
            return Err(Error::invalid(Invalid::GroupMemory));
        }
        let addresses = match plan.way() {
            GroupWay::EachByAddress(_) if FILES => addresses.get_mut(..functions.len()),
            _ => None,
        };
        if let GroupWay::Each(mode) | GroupWay::EachByAddress(mode) = plan.way() {
            check_capacity(&plan, mode, prog)?;
        }
        for slot in &mut *slots {
            *slot = GroupSlot::new();
        }
        let way = plan.way();
        // Dropping the group detaches it.
        let mut attach = Attach {
            group: KprobeGroup { slots, way },
            used: 0,
            plan: &plan,
            prog,
            each,
        };
        match way {
            GroupWay::Multi => attach.multi()?,
            GroupWay::Each(_) | GroupWay::EachByAddress(_) => attach.each_function(addresses)?,
        }
        Ok(attach.group)
    }
}

/// Checks that there are file descriptors left for all links.
fn check_capacity(
    plan: &GroupPlan<'_>,
    mode: AttachMode,
    prog: BorrowedFd<'_>,
) -> Result<(), Error> {
    /// The further file descriptors that are open for a moment while a link is made.
    const PASSING: u64 = 2;
    let asked = plan.functions.len();
    let links = match plan.opts.policy {
        Policy::AnyOf => 1,
        _ => asked,
    };
    let of_link = if mode.uses_tracefs() { 2 } else { 1 };
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The lowest free number is the number of those that are open, if none before it is free.
    let lowest_free = rustix::io::fcntl_dupfd_cloexec(prog, 0);
    let open = match lowest_free {
        Ok(fd) => u64::from(fd.as_raw_fd().unsigned_abs()),
        Err(_) => limit,
    };
    let left = limit.saturating_sub(open).saturating_sub(PASSING);
    let fit = usize::try_from(left / of_link).unwrap_or(usize::MAX);
    if fit < links {
        Err(Error::capacity_of(asked, fit))
    } else {
        Ok(())
    }
}

/// A group that is being attached.
struct Attach<'a, 'm> {
    group: KprobeGroup<'m>,
    /// The number of slots that are in use.
    used: usize,
    plan: &'a GroupPlan<'a>,
    prog: BorrowedFd<'a>,
    each: &'a mut Each<'a>,
}

impl Attach<'_, '_> {
    fn hold(&mut self, functions: Range<usize>, link: Link) {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(slot) = self.group.slots.get_mut(self.used) {
            *slot = GroupSlot(Some(Held {
                first: number(functions.start),
                count: number(functions.len()),
                link,
            }));
            self.used += 1;
        }
    }

    /// Attaches to one function after the other.
    fn each_function(&mut self, addresses: Option<&mut [u64]>) -> Result<(), Error> {
        let plan = self.plan;
        let functions = plan.functions;
        let policy = plan.opts.policy;
        let target = |index| {
            let target = functions.get(index).map_err(|error| error.invalid);
            let invalid = match target {
                Ok(Some(target)) => return Ok(target),
                // The index is that of a function.
                Ok(None) => Invalid::NoFunctions,
                Err(invalid) => invalid,
            };
            Err(about(Error::invalid(invalid), &functions, Some(index)))
        };
        if policy == Policy::AllOrNothing {
            for index in 0..functions.len() {
                let (target, opts) = (target(index)?, plan.of_each(index));
                // Another target is planned when it has been looked for.
                if target.is_resolved() {
                    Plan::new(plan.kernel, target, &opts, Some(self.prog))?;
                }
            }
        }
        let mut addresses = addresses;
        if let Some(found) = &mut addresses {
            // Without an address, the function is attached to by its name.
            let _ = addresses_of(&functions, found);
        }
        let mut first_error = None;
        for index in 0..functions.len() {
            let address = addresses.as_ref().and_then(|all| all.get(index).copied());
            let attached = target(index).and_then(|target| {
                let opts = plan.of_each(index);
                let place = match address {
                    None | Some(0) => target,
                    Some(address) => target.with_address(address),
                };
                plan.kernel.attach_kprobe(self.prog, place, &opts)
            });
            let result = match attached {
                Ok(link) => {
                    self.hold(index..index + 1, Link::One(link));
                    Ok(())
                }
                Err(error) => Err(error),
            };
            let next = (self.each)(index, result.as_ref().copied());
            match (policy, result) {
                (Policy::AllOrNothing, Err(error)) => return Err(error),
                (Policy::AnyOf, Ok(())) => return Ok(()),
                (_, Err(error)) => first_error = first_error.or(Some(error)),
                (_, Ok(())) => {}
            }
            if next.is_break() {
                return Ok(());
            }
        }
        match first_error {
            Some(error) if policy == Policy::AnyOf => Err(error),
            _ => Ok(()),
        }
    }

    /// Attaches by one link, or by one to each run of functions between those that the kernel
    /// refuses.
    fn multi(&mut self) -> Result<(), Error> {
        let policy = self.plan.opts.policy;
        let mut first_error = None;
        let mut start = 0;
        while start < self.plan.functions.len() {
            let end = match policy {
                Policy::AnyOf => start + 1,
                _ => self.plan.functions.len(),
            };
            let (attached, refused) = self.run(start..end)?;
            for index in start..attached {
                if (self.each)(index, Ok(())).is_break() {
                    return Ok(());
                }
            }
            start = attached;
            if let Some(error) = refused {
                let next = (self.each)(start, Err(&error));
                first_error = first_error.or(Some(error));
                if next.is_break() {
                    return Ok(());
                }
                start += 1;
            } else if policy == Policy::AnyOf {
                return Ok(());
            }
        }
        match first_error {
            Some(error) if policy == Policy::AnyOf => Err(error),
            _ => Ok(()),
        }
    }

    /// Attaches one link to functions up to the first that is refused. Returns the end of those
    /// that it is attached to, and the error of the next function.
    ///
    /// With the policy all or nothing, it attaches to none of them if one is refused. That is then
    /// the error.
    fn run(&mut self, range: Range<usize>) -> Result<(usize, Option<Error>), Error> {
        let functions = self.plan.functions;
        let mut end = range.end;
        let mut refused = None;
        // With the policy all or nothing, the plan has checked all of them.
        if self.plan.opts.policy != Policy::AllOrNothing {
            match check_multi(&functions.slice(range.clone()), self.plan.multi_opts()) {
                Ok(()) => {}
                Err((Some(at), invalid)) => {
                    end = range.start + at;
                    refused = Some(about(Error::invalid(invalid), &functions, Some(end)));
                }
                Err((None, invalid)) => return Err(Error::invalid(invalid)),
            }
        }
        while range.start < end {
            let plan = self.plan.multi(functions.slice(range.start..end));
            match plan.create(self.prog) {
                Ok(link) => {
                    self.hold(range.start..end, Link::Many(link));
                    break;
                }
                Err(errno) => match plan.refused(errno) {
                    (Some(_), error) if self.plan.opts.policy == Policy::AllOrNothing => {
                        return Err(error);
                    }
                    (Some(at), error) => {
                        end = range.start + at;
                        refused = Some(error);
                    }
                    (None, error) => return Err(error),
                },
            }
        }
        Ok((end, refused))
    }
}

impl KprobeGroup<'_> {
    /// Returns the way in which the group is attached.
    #[must_use]
    pub const fn way(&self) -> GroupWay {
        self.way
    }

    /// Returns the number of functions that the program is attached to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held().map(|held| held.count as usize).sum()
    }

    /// Returns whether the program is attached to no function.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the program is attached to the function at an index.
    #[must_use]
    pub fn is_attached(&self, index: usize) -> bool {
        self.held().any(|held| held.functions().contains(&index))
    }

    /// Lists the links to one function each, with the index of the function.
    pub fn links(&self) -> impl Iterator<Item = (usize, &KprobeLink)> {
        self.held().filter_map(|held| match &held.link {
            Link::One(link) => Some((held.first as usize, link)),
            Link::Many(_) => None,
        })
    }

    /// Lists the links to many functions, with the indices of the functions.
    ///
    /// There is one, unless the [policy](GroupOpts::policy) is to leave out functions: then there
    /// is one to each run of functions between these.
    pub fn multi_links(&self) -> impl Iterator<Item = (Range<usize>, &KprobeMultiLink)> {
        self.held().filter_map(|held| match &held.link {
            Link::One(_) => None,
            Link::Many(link) => Some((held.functions(), link)),
        })
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().filter_map(|slot| slot.0.as_ref())
    }

    /// Detaches the program from all functions.
    ///
    /// # Errors
    ///
    /// Returns the first error of [`KprobeLink::detach`]. The others are detached all the same.
    pub fn detach(self) -> Result<(), Error> {
        let mut first = Ok(());
        for slot in &mut *self.slots {
            if let Some(held) = slot.0.take() {
                let detached = held.detach();
                first = first.and(detached);
            }
        }
        first
    }

    /// Detaches the program from all functions, with links closed in child processes.
    ///
    /// The kernel waits for grace periods in several steps, of which each serves one link at a
    /// time. With several processes these steps overlap. On Linux 6.1, 3 children take half the
    /// time of one process, and more than 3 take no less. At most 16 are started.
    ///
    /// A child is a [`fork(2)`] that shares the file descriptors, so its cost grows with the memory
    /// of this process. Its end causes no `SIGCHLD`. If a child cannot be started, this process
    /// closes its share.
    ///
    /// [`fork(2)`]: https://man7.org/linux/man-pages/man2/fork.2.html
    ///
    /// # Errors
    ///
    /// All links are detached all the same, unless a child was killed.
    ///
    /// * [`Step::RemoveEvent`]: an event in tracefs could not be removed.
    /// * [`Step::CloseLink`] with `ECHILD`: a child was killed. The rest of its links stay attached
    ///   until this process ends.
    pub fn detach_by_children(self, children: usize) -> Result<(), Error> {
        let slots = &mut *self.slots;
        by_children(children, slots.len(), &mut |index, part| {
            let held = slots.get_mut(index).and_then(|slot| slot.0.take());
            match (held, part) {
                (None, _) => Ok(()),
                (Some(held), Part::Close) => held.detach(),
                (Some(held), Part::Forget) => {
                    core::mem::forget(held);
                    Ok(())
                }
            }
        })
    }
}

/// Detaches links in child processes, as [`KprobeGroup::detach_by_children`] does.
///
/// `take` gives away the link at each index below `count`, if there is one. It is called in this
/// process and in its children, and may only make system calls.
///
/// # Errors
///
/// Returns the errors of [`KprobeGroup::detach_by_children`].
pub fn detach_by_children(
    children: usize,
    count: usize,
    mut take: impl FnMut(usize) -> Option<KprobeLink>,
) -> Result<(), Error> {
    by_children(
        children,
        count,
        &mut |index, part| match (take(index), part) {
            (None, _) => Ok(()),
            (Some(link), Part::Close) => link.detach(),
            (Some(link), Part::Forget) => {
                core::mem::forget(link);
                Ok(())
            }
        },
    )
}

/// Shares the indices below `count` among children.
fn by_children(
    children: usize,
    count: usize,
    each: &mut dyn FnMut(usize, Part) -> Result<(), Error>,
) -> Result<(), Error> {
    share_among_children(children, count, &mut |index, part| {
        each(index, part).map_err(|error| error.errno())
    })
    .map_err(|errno| match errno {
        Errno::CHILD => Error::new(Step::CloseLink, errno, Cause::Unknown),
        errno => Error::new(Step::RemoveEvent, errno, remove_cause(errno)),
    })
}

impl Drop for KprobeGroup<'_> {
    fn drop(&mut self) {
        for slot in &mut *self.slots {
            slot.0 = None;
        }
    }
}
