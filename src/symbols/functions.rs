//! The functions of the kernel, and which of them can be probed.

use core::fmt;

use linux_raw_sys::general::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC, TRACEFS_MAGIC};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::CWD;
use rustix::io::{Errno, Result};

use super::glob::glob_matches;
use super::image::Image;
use super::kallsyms::{KALLSYMS, Symbol, is_no_function, not_read};
use super::lists::{BLACKLIST, FILTER, blacklist_line, filter_line};
use super::records::{BLACKLISTED, INIT, Records, SHARED, TRACEABLE};
use super::resolve::{Resolution, Search};
use crate::error::Error;
use crate::mount::for_each_entry;
use crate::numbers::Decimal;
use crate::request::{Target, VMLINUX};
use crate::text::{texts, utf8};

/// Lists the functions of the running kernel and of its modules, and says which of them can be
/// probed.
///
/// It joins three lists, and reads each of them once:
///
/// * `/proc/kallsyms`: the functions, where they are, and which share a name;
/// * `available_filter_functions` of tracefs: the functions that ftrace can trace. A kernel refuses
///   a probe of any other function, unless it was built with `CONFIG_KPROBE_EVENTS_ON_NOTRACE`. A
///   kernel without ftrace does not have this list, and does not refuse them;
/// * `kprobes/blacklist` of debugfs: the functions that the kernel protects from probes.
///
/// Symbols that only look like functions are left out: the padding before a function (`__pfx_foo`,
/// `__cfi_foo`), the rarely run part of one (`foo.cold`), and code that was generated at run time.
///
/// The lists need memory. The caller provides it: some 4 MiB for the kernel of a distribution, and
/// as much as `/proc/kallsyms` is long for any kernel.
///
/// ```no_run
/// use kprobe_attach::symbols::Functions;
/// use kprobe_attach::{Kernel, Target};
///
/// # fn main() -> Result<(), kprobe_attach::Error> {
/// let kernel = Kernel::new();
/// let mut memory = vec![0; 16 << 20];
/// let functions = Functions::read(kernel.tracefs(), &mut memory)?;
/// let wanted = Target::parse("tcp_*")?;
/// for function in functions.iter().filter(|function| function.is(&wanted)) {
///     match function.refusal() {
///         None => println!("{function}"),
///         Some(refusal) => println!("{function}: {refusal}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Functions<'m> {
    records: Records<'m>,
    filter: Filter,
    blacklist: Result<()>,
}

/// Describes what is known of `available_filter_functions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Read,
    /// The kernel does not have it.
    Absent,
    Unread(Errno),
}

impl<'m> Functions<'m> {
    /// Reads the lists.
    ///
    /// `tracefs` is that of a [`Kernel`](crate::Kernel::tracefs). If it is an error, it is unknown
    /// what ftrace can trace.
    ///
    /// # Errors
    ///
    /// Returns an error with the step
    /// [`Step::ResolveSymbol`](crate::error::Step::ResolveSymbol) if `/proc/kallsyms` cannot be
    /// read:
    ///
    /// * `ENOMEM` if the memory is too small.
    /// * `EXDEV` if another file is mounted over `/proc/kallsyms`, or if it has no symbol.
    /// * The errno of the file.
    ///
    /// Another list that cannot be read is no error: see [`filter`](Self::filter) and
    /// [`blacklist`](Self::blacklist).
    pub fn read(
        tracefs: Result<&impl AsFd>,
        memory: &'m mut [u8],
    ) -> core::result::Result<Self, Error> {
        Self::read_for(&mut [], tracefs, memory, |_, _| {})
    }

    /// Reads the lists, and finds the functions of targets in the same reading of
    /// `/proc/kallsyms`, as [`resolve`](super::resolve()) does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read).
    pub fn read_for(
        targets: &mut [Resolution<'_>],
        tracefs: Result<&impl AsFd>,
        memory: &'m mut [u8],
        mut each: impl FnMut(usize, &Symbol<'_>),
    ) -> core::result::Result<Self, Error> {
        let tracefs = tracefs.map(AsFd::as_fd);
        Self::join(targets, tracefs, memory, &mut each).map_err(not_read)
    }

    // In a frame of its own: it has buffers for lines.
    #[inline(never)]
    fn join(
        targets: &mut [Resolution<'_>],
        tracefs: Result<BorrowedFd<'_>>,
        memory: &'m mut [u8],
        each: &mut dyn FnMut(usize, &Symbol<'_>),
    ) -> Result<Self> {
        let mut functions = Self::new(memory)?;
        let mut search = Search::new(targets);
        let mut fits = Ok(());
        for_each_entry(CWD, KALLSYMS, PROC_SUPER_MAGIC, &mut |line| {
            search.see(line, each);
            let symbol = Symbol::parse(line);
            if let Some(symbol) = &symbol {
                fits = fits.and_then(|()| functions.see(search.image(), symbol));
            }
            symbol.is_some()
        })?;
        search.finish(each);
        fits?;
        let mut last = 0;
        let read = tracefs.and_then(|tracefs| {
            for_each_entry(tracefs, FILTER, TRACEFS_MAGIC, &mut |line| {
                let entry = filter_line(line);
                if let Some((name, module)) = entry {
                    functions.trace(name, module, &mut last);
                }
                entry.is_some()
            })
        });
        functions.filter = match read {
            Ok(()) => Filter::Read,
            Err(Errno::NOENT) if tracefs.is_ok() => Filter::Absent,
            Err(errno) => Filter::Unread(errno),
        };
        functions.blacklist = for_each_entry(CWD, BLACKLIST, DEBUGFS_MAGIC, &mut |line| {
            let entry = blacklist_line(line);
            if let Some((range, name)) = &entry {
                functions.protect(name, &mut |address| range.contains(&address));
            }
            entry.is_some()
        });
        Ok(functions)
    }

    /// Makes an empty list.
    fn new(memory: &'m mut [u8]) -> Result<Self> {
        Ok(Self {
            records: Records::new(memory)?,
            filter: Filter::Absent,
            blacklist: Ok(()),
        })
    }

    /// Takes a symbol into account, in the order of `/proc/kallsyms`.
    fn see(&mut self, image: &Image, symbol: &Symbol<'_>) -> Result<()> {
        let name = symbol.name.as_bytes();
        let is_init = image.is_init() && symbol.module.is_none();
        let is_code = image.is_code() || is_init || symbol.module.is_some();
        if symbol.is_generated() || is_no_function(name) {
            return Ok(());
        }
        let module = symbol.module.unwrap_or_default().as_bytes();
        let mut tags = if is_init { INIT } else { 0 };
        let mut next = self.records.first_of(name);
        while let Some((index, mut record)) = self.records.next_of(name, &mut next) {
            let its_module = self.records.module(&record);
            if its_module == module {
                tags |= SHARED;
            }
            // Without a module, the kernel takes a name for any symbol that has it.
            if its_module.is_empty() || its_module == module {
                record.tags |= SHARED;
                self.records.put(index, &record);
            }
        }
        if is_code && symbol.is_function() {
            self.records.add(symbol.address, name, module, tags)
        } else {
            Ok(())
        }
    }

    /// Takes a line of `available_filter_functions` into account.
    ///
    /// If several functions have the name, and not all of them can be traced, the order of the
    /// lines tells which one is meant: the functions of the kernel itself are in the order of their
    /// addresses, there and in `/proc/kallsyms`. `last` is the last function whose line is certain.
    fn trace(&mut self, name: &[u8], module: Option<&[u8]>, last: &mut usize) {
        let module = module.unwrap_or_default();
        let (mut count, mut first, mut following) = (0, None, None);
        let mut next = self.records.first_of(name);
        while let Some((index, record)) = self.records.next_of(name, &mut next) {
            if self.records.module(&record) != module || record.has(INIT) {
                continue;
            }
            count += 1;
            if count == 1 || !record.has(TRACEABLE) {
                first = Some(index);
                if index >= *last {
                    following = first;
                }
            }
        }
        let Some(index) = following.or(first) else {
            return;
        };
        if count == 1 {
            *last = index;
        }
        self.records.tag_all_at(index, TRACEABLE);
    }

    /// Takes a line of `kprobes/blacklist` into account. `is_there` is whether an address is in its
    /// range.
    ///
    /// The kernel also protects the copies and parts of such a function, as `f.part.0` of `f`.
    fn protect(&mut self, name: &[u8], is_there: &mut dyn FnMut(u64) -> bool) {
        let mut next = self.records.first_of(name);
        while let Some((index, record)) = self.records.next(&mut next) {
            let is_protected = match self.records.name(&record).strip_prefix(name) {
                Some([]) => record.address == 0 || is_there(record.address),
                Some([b'.', ..]) => true,
                _ => false,
            };
            if is_protected {
                self.records.tag_all_at(index, BLACKLISTED);
            }
        }
    }

    /// Returns whether it is known what ftrace can trace: an error is the errno of
    /// `available_filter_functions`, or of tracefs.
    ///
    /// # Errors
    ///
    /// Returns the errno. Then no function has the refusal [`Refusal::NotTraceable`].
    pub const fn filter(&self) -> Result<()> {
        match self.filter {
            Filter::Unread(errno) => Err(errno),
            Filter::Read | Filter::Absent => Ok(()),
        }
    }

    /// Returns whether it is known what the kernel protects: an error is the errno of
    /// `kprobes/blacklist`.
    ///
    /// # Errors
    ///
    /// Returns the errno. Then no function has the refusal [`Refusal::Blacklisted`].
    pub const fn blacklist(&self) -> Result<()> {
        self.blacklist
    }

    /// Lists the functions, in the order of `/proc/kallsyms`.
    pub fn iter(&self) -> impl Iterator<Item = Function<'_>> {
        (0..self.records.len()).filter_map(|index| self.function(index))
    }

    fn function(&self, index: usize) -> Option<Function<'_>> {
        let record = self.records.record(index)?;
        let (name, module) = (self.records.name(&record), self.records.module(&record));
        let refusal = if record.has(INIT) {
            Some(Refusal::InitCode)
        } else if record.has(BLACKLISTED) {
            Some(Refusal::Blacklisted)
        } else if !record.has(TRACEABLE) && self.filter == Filter::Read {
            Some(Refusal::NotTraceable)
        } else if record.has(SHARED) && record.address == 0 {
            Some(Refusal::AddressHidden)
        } else {
            None
        };
        let is_shared = record.has(SHARED) && !record.has(INIT);
        Some(Function {
            name: utf8(name)?,
            module: (!module.is_empty()).then_some(utf8(module)?),
            address: record.address,
            is_shared,
            nth: if is_shared {
                self.nth(index, name, module)
            } else {
                0
            },
            refusal,
        })
    }

    /// Returns which of several functions this one is, counted from 1. Returns 0 if it is the only
    /// one of its name in its module.
    fn nth(&self, index: usize, name: &[u8], module: &[u8]) -> u32 {
        let (mut count, mut nth) = (0, 0);
        let mut next = self.records.first_of(name);
        while let Some((other, record)) = self.records.next_of(name, &mut next) {
            if self.records.module(&record) == module && !record.has(INIT) {
                count += 1;
                nth += u32::from(other <= index);
            }
        }
        if count == 1 { 0 } else { nth }
    }
}

/// Represents a function of the kernel or of a module.
///
/// Its `Display` writes the text of a probe that means this function and no other, as
/// [`Target::parse`] reads it: `vfs_read`, `nf_tables:nft_do_chain`, or `cleanup@2` for the second
/// of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'f> {
    name: &'f str,
    module: Option<&'f str>,
    /// 0 if the kernel hides it.
    address: u64,
    /// Whether the kernel does not take the name for this function alone.
    is_shared: bool,
    /// Which of several functions it is; 0 if there is one.
    nth: u32,
    refusal: Option<Refusal>,
}

impl<'f> Function<'f> {
    /// Returns the name, without the module.
    #[must_use]
    pub const fn name(&self) -> &'f str {
        self.name
    }

    /// Returns the module that contains it.
    #[must_use]
    pub const fn module(&self) -> Option<&'f str> {
        self.module
    }

    /// Returns the address, unless the kernel hides it from this process
    /// (`kernel.kptr_restrict`).
    #[must_use]
    pub fn address(&self) -> Option<u64> {
        (self.address != 0).then_some(self.address)
    }

    /// Returns why the kernel refuses a probe of this function, or [`None`] if nothing that is
    /// known speaks against it.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Returns whether a target means this function: by its name, by a pattern of names, or by its
    /// address. It does not look at a choice among functions of one name.
    #[must_use]
    pub fn is(&self, target: &Target<'_>) -> bool {
        if let Some(address) = target.known_address() {
            return self.address() == Some(address);
        }
        let in_module = match target.module_bytes() {
            None => true,
            Some(VMLINUX) => self.module.is_none(),
            module => module == self.module.map(str::as_bytes),
        };
        let glob = target.function_bytes();
        in_module && glob.is_some_and(|glob| glob_matches(glob, self.name.as_bytes()))
    }

    /// Returns the target to plan.
    ///
    /// It is the name if the kernel takes that name for this function alone. Otherwise it is the
    /// function at its address. [`None`] if that address is hidden, or if the name is none that a
    /// probe can have.
    #[must_use]
    pub fn target(&self) -> Option<Target<'f>> {
        let target = match self.module {
            Some(module) => Target::in_module(module, self.name),
            None => Target::symbol(self.name),
        };
        let target = target.ok()?;
        match (self.is_shared, self.address) {
            (false, _) => Some(target),
            (true, 0) => None,
            (true, address) => Some(target.with_address(address)),
        }
    }
}

impl fmt::Display for Function<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = match self.module {
            None if self.is_shared && self.nth == 0 => utf8(VMLINUX),
            module => module,
        };
        if let Some(module) = module {
            f.write_str(module)?;
            f.write_str(":")?;
        }
        f.write_str(self.name)?;
        if self.nth != 0 {
            f.write_str("@")?;
            Decimal(self.nth.into()).fmt(f)?;
        }
        Ok(())
    }
}

/// Says why the kernel refuses a probe of a function. Its `Display` explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The function was code of the boot, which the kernel has freed.
    InitCode,
    /// The kernel protects the function from probes, or the function that it is a part of.
    Blacklisted,
    /// ftrace cannot trace the function.
    NotTraceable,
    /// Other symbols have the same name, and the kernel hides the address that would single it out.
    AddressHidden,
}

impl Refusal {
    texts! {
        /// Returns the name, as the program's JSON has it.
        #[must_use]
        pub fn name(Refusal) {
            InitCode => "init-code",
            Blacklisted => "blacklisted",
            NotTraceable => "not-traceable",
            AddressHidden => "address-hidden",
        }
    }

    texts! {
        /// Explains the refusal.
        #[must_use]
        pub fn meaning(Refusal) {
            InitCode => "freed after the boot",
            Blacklisted => "protected by the kernel (kprobes/blacklist)",
            NotTraceable => "ftrace cannot trace it (available_filter_functions)",
            AddressHidden => "not unique, and kernel.kptr_restrict hides its address",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning())
    }
}

#[cfg(test)]
mod tests;
