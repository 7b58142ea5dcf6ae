//! Finding the functions that targets mean: one reading of `/proc/kallsyms` for all of them.

use core::slice;

use linux_raw_sys::general::PROC_SUPER_MAGIC;
use rustix::fs::CWD;
use rustix::io::Errno;

use super::image::Image;
use super::kallsyms::{KALLSYMS, Symbol, failed, not_read};
use super::syscalls::{Entries, EntryName};
use crate::error::{Cause, Error, Step};
use crate::mount::{MASKED, for_each_entry, open_read};
use crate::request::{Invalid, KprobeOpts, Names, Pick, Target, TargetBuf, VMLINUX};
use crate::text::{LINE_LEN, for_lines_while, line_of, split};

/// Holds a target, and the function that [`resolve`] finds for it.
///
/// ```no_run
/// use kprobe_attach::symbols::{Resolution, resolve};
/// use kprobe_attach::{Kernel, KprobeOpts, Target};
///
/// # fn main() -> Result<(), kprobe_attach::Error> {
/// # let program = kprobe_attach::bpf::Program::open_id(1)?;
/// let kernel = Kernel::new();
/// // One reading of /proc/kallsyms for both.
/// let mut found = [
///     Resolution::new(Target::parse("cleanup@2")?),
///     Resolution::new(Target::symbol("do_sys_openat2")?.base()),
/// ];
/// resolve(&mut found, |_, _| {})?;
/// for found in &found {
///     let link = kernel.attach_kprobe(&program, found.target()?, &KprobeOpts::new())?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Resolution<'t> {
    request: Target<'t>,
    /// The next one with the same key, as its index and 1; 0 ends the list.
    next: u32,
    /// How well the name of the functions below fits, see [`Resolution::rank`].
    rank: u8,
    /// The number of functions that were found.
    functions: u32,
    /// The number of symbols for which the kernel takes the name, functions or not.
    symbols: u32,
    /// The addresses of the first functions; 0 if the kernel hides addresses.
    addresses: [u64; Error::ADDRESSES],
    /// The function that was chosen, and its address.
    pub(super) chosen: Option<(TargetBuf, u64)>,
    /// The entry points of a system call. The choice is made when all symbols have been read.
    entries: Entries,
}

impl<'t> Resolution<'t> {
    /// Makes one for a target that has not been looked for yet.
    #[must_use]
    pub const fn new(target: Target<'t>) -> Self {
        Self {
            request: target,
            next: 0,
            rank: u8::MAX,
            functions: 0,
            symbols: 0,
            addresses: [0; Error::ADDRESSES],
            chosen: None,
            entries: Entries::new(),
        }
    }

    /// Returns the target as it was requested.
    #[must_use]
    pub const fn request(&self) -> Target<'t> {
        self.request
    }

    /// Returns the target to plan.
    ///
    /// It is the name of the function if the kernel takes that name for this function alone.
    /// Otherwise it is the function at its address, which every mode takes. A target that was
    /// [resolved](Target::is_resolved) from the start is returned as it is.
    ///
    /// # Errors
    ///
    /// Returns an error with the step [`Step::ResolveSymbol`]:
    ///
    /// * `ENOENT` if there is no such function, or if there are fewer than the chosen number.
    /// * `EADDRNOTAVAIL` if there are several. [`Error::functions`] is their number, and
    ///   [`Error::addresses`] has the first addresses.
    /// * `EPERM` if only the address would single out the function, and the kernel hides addresses
    ///   from this process (`kernel.kptr_restrict`).
    /// * `EINVAL` if the target is a pattern. [`Functions`](super::Functions) lists its functions.
    pub fn target(&self) -> Result<Target<'_>, Error> {
        let Some((_, pick)) = self.request.search() else {
            return Ok(self.request);
        };
        if self.request.is_pattern() {
            let error = Error::invalid(Invalid::Pattern).at(Step::ResolveSymbol);
            return Err(error.about(&self.request, &KprobeOpts::new()));
        }
        let (errno, cause) = match (&self.chosen, pick) {
            (Some((_, 0)), Pick::All) if self.functions > 1 => (Errno::PERM, Cause::NoPermission),
            (_, Pick::Unique | Pick::All) if self.functions > 1 => {
                (Errno::ADDRNOTAVAIL, Cause::NotUnique)
            }
            (Some((function, _)), _) if self.symbols == 1 => {
                return Ok(function.as_target().named_as(&self.request));
            }
            (Some((_, 0)), _) => (Errno::PERM, Cause::NoPermission),
            (Some((function, address)), _) => {
                return Ok(function.as_target().with_address(*address));
            }
            (None, _) => match self.request.module_bytes() {
                None | Some(VMLINUX) => (Errno::NOENT, Cause::NoSuchFunction),
                Some(_) => (Errno::NOENT, Cause::ModuleNotLoaded),
            },
        };
        let mut error = failed(errno, cause).found(self.functions, self.addresses);
        if self.request.is_syscall() && self.functions == 0 {
            error = error.of_syscall();
        }
        Err(error.about(&self.request, &KprobeOpts::new()))
    }

    /// Returns the function that was chosen, with its module, if there is one.
    #[must_use]
    pub fn function(&self) -> Option<Target<'_>> {
        let (function, _) = self.chosen.as_ref()?;
        Some(function.as_target())
    }

    /// Returns the address of that function, unless the kernel hides it.
    #[must_use]
    pub fn address(&self) -> Option<u64> {
        let (_, address) = self.chosen.as_ref()?;
        (*address != 0).then_some(*address)
    }

    /// Returns the number of functions that the target may mean.
    #[must_use]
    pub const fn functions(&self) -> u32 {
        self.functions
    }

    /// Returns whether a function that was found is a [copy](Target::base) that the compiler made,
    /// whose arguments may differ.
    #[must_use]
    pub fn is_copy(&self, function: &Target<'_>) -> bool {
        matches!(self.request.search(), Some((Names::Base, _)))
            && function.function_bytes() != self.request.function_bytes()
    }

    /// Takes any symbol into account, as [`resolve`] does with a line.
    pub(super) fn see_any(&mut self, symbol: &Symbol<'_>, is_code: bool) {
        let wanted = self.request.function_bytes().unwrap_or_default();
        let name = symbol.name.as_bytes();
        let names = self.request.search().map(|(names, _)| names);
        let rank = names.and_then(|names| rank(names, wanted, name));
        match (rank, EntryName::of(name)) {
            (Some(_), Some(entry)) if self.request.is_syscall() => {
                self.entries.see(wanted, entry, symbol);
            }
            (Some(rank), _) if !self.request.is_syscall() => {
                self.see(rank, symbol, is_code);
            }
            _ => {}
        }
    }

    /// Takes a symbol into account whose name fits. `is_code` is whether a symbol of the kernel
    /// itself can be code. Returns whether the symbol is a function that the target means.
    fn see(&mut self, rank: u8, symbol: &Symbol<'_>, is_code: bool) -> bool {
        let Some((_, pick)) = self.request.search() else {
            return false;
        };
        let wanted = self.request.module_bytes();
        let in_module = match wanted {
            None => true,
            Some(VMLINUX) => symbol.module.is_none(),
            _ => wanted == symbol.module.map(str::as_bytes),
        };
        // Without a module, the kernel takes a name for any symbol that has it.
        let counts = in_module || wanted == Some(VMLINUX);
        if !counts || symbol.is_generated() || (pick == Pick::Unique && rank > self.rank) {
            return false;
        }
        if pick == Pick::Unique && rank < self.rank {
            // What fits less well does not count.
            self.rank = rank;
            self.functions = 0;
            self.symbols = 0;
            self.addresses = [0; Error::ADDRESSES];
            self.chosen = None;
        }
        self.symbols += 1;
        let is_code = is_code || symbol.module.is_some();
        let counts = in_module && is_code && symbol.is_function();
        if counts {
            self.count(pick, symbol);
        }
        counts
    }

    /// Counts a function that the target means, and chooses it if it is the one.
    fn count(&mut self, pick: Pick, symbol: &Symbol<'_>) {
        if let Some(address) = self.addresses.get_mut(self.functions as usize) {
            *address = symbol.address;
        }
        self.functions += 1;
        let chosen = if let Pick::Nth(nth) = pick { nth } else { 1 };
        if self.functions == chosen {
            let function = symbol.target().map(TargetBuf::from);
            self.chosen = function.map(|function| (function, symbol.address));
        }
    }

    /// Chooses among the entry points of a system call. Calls `each` with every one if all are
    /// meant.
    pub(super) fn choose_entry(&mut self, each: &mut dyn FnMut(&Symbol<'_>)) {
        let (Some(call), Some((Names::Syscall, pick))) =
            (self.request.function_bytes(), self.request.search())
        else {
            return;
        };
        let mut entries = core::mem::replace(&mut self.entries, Entries::new());
        entries.for_each(call, pick == Pick::Unique, &mut |symbol| {
            self.count(pick, symbol);
            if pick == Pick::All {
                each(symbol);
            }
        });
        // No other symbol has the name of an entry point.
        self.symbols = 1;
    }
}

/// Returns how well a symbol's name fits the name of a target; 0 is best.
fn rank(names: Names, wanted: &[u8], name: &[u8]) -> Option<u8> {
    match names {
        Names::Exact => (name == wanted).then_some(0),
        Names::Base => match name.strip_prefix(wanted)? {
            b"" => Some(0),
            suffix => is_copy(suffix).then_some(1),
        },
        // What the name says is seen with all the others.
        Names::Syscall => Some(0),
        Names::Glob => None,
    }
}

/// Returns whether a suffix is one that a compiler gives to the copy that it makes of a function.
fn is_copy(mut suffix: &[u8]) -> bool {
    const KINDS: &str = "isra\nconstprop\npart\nllvm\nlto_priv";
    while let Some((b"", rest)) = split(suffix, b'.') {
        let Some((kind, rest)) = split(rest, b'.') else {
            return false;
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || line_of(KINDS, kind).is_none() {
            return false;
        }
        suffix = rest.get(digits..).unwrap_or_default();
    }
    suffix.is_empty()
}

/// Finds the functions of all targets, with one reading of `/proc/kallsyms`.
///
/// It makes no other system calls than opening, reading and closing that file, and none if every
/// target is [resolved](Target::is_resolved).
///
/// For a target that means [all](Target::all) functions of a name, it calls `each` with every one
/// of them: with the index of the target, and the symbol. If there is one only,
/// [`Resolution::target`] is the target to plan; if there are several, [`Symbol::found`] is.
///
/// # Errors
///
/// Returns an error with the step [`Step::ResolveSymbol`] if the file cannot be read. A function
/// that is missing is an error of [`Resolution::target`].
pub fn resolve(
    targets: &mut [Resolution<'_>],
    mut each: impl FnMut(usize, &Symbol<'_>),
) -> Result<(), Error> {
    resolve_dyn(targets, &mut each)
}

/// Does the work of [`resolve`], compiled once for all callers.
// In a frame of its own: it has a buffer for lines and the table below.
#[inline(never)]
pub(crate) fn resolve_dyn(
    targets: &mut [Resolution<'_>],
    each: &mut dyn FnMut(usize, &Symbol<'_>),
) -> Result<(), Error> {
    if targets.iter().all(|target| target.request.is_resolved()) {
        return Ok(());
    }
    let mut search = Search::new(targets);
    let mut is_list = false;
    let read = for_each_entry(CWD, KALLSYMS, PROC_SUPER_MAGIC, &mut |line| {
        is_list = is_list || Symbol::parse(line).is_some();
        search.see(line, each);
        is_list
    });
    search.finish(each);
    read.map_err(not_read)
}

/// Looks for the functions of targets, line by line.
pub(crate) struct Search<'s, 't> {
    targets: &'s mut [Resolution<'t>],
    index: Index,
    image: Image,
}

impl<'s, 't> Search<'s, 't> {
    pub(crate) fn new(targets: &'s mut [Resolution<'t>]) -> Self {
        Self {
            index: Index::of(targets),
            targets,
            image: Image::default(),
        }
    }

    /// Returns the part of the kernel's image that the last line is of.
    pub(super) const fn image(&self) -> &Image {
        &self.image
    }

    /// Takes a line into account. Calls `each` as [`resolve`] does.
    pub(crate) fn see(&mut self, line: &[u8], each: &mut dyn FnMut(usize, &Symbol<'_>)) {
        if !self.index.may_have(line) {
            return;
        }
        let name = name_of(line);
        self.image.see(name);
        let is_code = self.image.is_code();
        let entry = EntryName::of(name).filter(|_| self.index.syscalls > 0);
        let syscalls = if entry.is_some() {
            self.index.syscalls
        } else {
            0
        };
        for mut next in [self.index.first_of(name), syscalls] {
            while let Some((at, target)) = target_at(self.targets, &mut next) {
                let (Some((names, pick)), Some(wanted)) =
                    (target.request.search(), target.request.function_bytes())
                else {
                    continue;
                };
                let Some(rank) = rank(names, wanted, name) else {
                    continue;
                };
                let Some(symbol) = Symbol::parse(line) else {
                    return;
                };
                if let (Names::Syscall, Some(entry)) = (names, entry) {
                    target.entries.see(wanted, entry, &symbol);
                } else if target.see(rank, &symbol, is_code) && pick == Pick::All {
                    each(at, &symbol);
                }
            }
        }
    }

    /// Chooses the entry points of system calls, when all lines have been read.
    pub(crate) fn finish(self, each: &mut dyn FnMut(usize, &Symbol<'_>)) {
        let mut next = self.index.syscalls;
        while let Some((at, target)) = target_at(self.targets, &mut next) {
            target.choose_entry(&mut |symbol| each(at, symbol));
        }
    }
}

/// Returns a target of a list and its index, and moves on to the next.
fn target_at<'s, 't>(
    targets: &'s mut [Resolution<'t>],
    next: &mut u32,
) -> Option<(usize, &'s mut Resolution<'t>)> {
    let at = next.checked_sub(1)? as usize;
    let target = targets.get_mut(at)?;
    *next = target.next;
    Some((at, target))
}

/// Lists the targets by a key of their names, so that a line is shown to few of them.
struct Index {
    /// The first target of each key, as its index and 1; 0 is none.
    keyed: [u32; KEYS],
    /// The first target that is a system call.
    syscalls: u32,
    /// A bit for each beginning of a name that matters: see [`beginning`]. It is empty if any name
    /// may matter.
    beginnings: Option<[u32; 8]>,
}

/// The number of keys.
const KEYS: usize = 256;

impl Index {
    fn of(targets: &mut [Resolution<'_>]) -> Self {
        let mut index = Self {
            keyed: [0; KEYS],
            syscalls: 0,
            beginnings: Some([0; 8]),
        };
        for name in Image::NAMES {
            index.add_beginning(name);
        }
        for (at, target) in (1..).zip(targets) {
            let Some((names, _)) = target.request.search() else {
                continue;
            };
            let name = target.request.function_bytes().unwrap_or_default();
            let first = match names {
                Names::Exact | Names::Base => {
                    index.add_beginning(name);
                    index.keyed.get_mut(hash(name) % KEYS)
                }
                Names::Syscall => {
                    index.beginnings = None;
                    Some(&mut index.syscalls)
                }
                Names::Glob => None,
            };
            if let Some(first) = first {
                target.next = core::mem::replace(first, at);
            }
        }
        index
    }

    /// Takes note of the beginning of a name.
    fn add_beginning(&mut self, name: &[u8]) {
        match (name.first_chunk(), &mut self.beginnings) {
            (Some(bytes), Some(bits)) => {
                let (word, bit) = beginning(*bytes);
                if let Some(word) = bits.get_mut(word) {
                    *word |= bit;
                }
            }
            _ => self.beginnings = None,
        }
    }

    /// Returns whether a line may be about one of the names.
    fn may_have(&self, line: &[u8]) -> bool {
        let bytes = line
            .get(start_of_name(line)..)
            .and_then(|name| name.first_chunk());
        match (bytes, &self.beginnings) {
            (Some(bytes), Some(bits)) => {
                let (word, bit) = beginning(*bytes);
                bits.get(word).is_none_or(|word| word & bit != 0)
            }
            _ => true,
        }
    }

    fn first_of(&self, name: &[u8]) -> u32 {
        self.keyed
            .get(hash(name) % KEYS)
            .copied()
            .unwrap_or_default()
    }
}

/// Returns a number made of a name, which its copies share: of the bytes before the first `.`.
pub(super) fn hash(name: &[u8]) -> usize {
    let mut hash = 0_usize;
    for byte in name {
        if *byte == b'.' {
            break;
        }
        hash = hash.wrapping_mul(31) ^ usize::from(*byte);
    }
    hash
}

/// Returns the place of a bit for the first four bytes of a name.
const fn beginning(bytes: [u8; 4]) -> (usize, u32) {
    let hash = u32::from_ne_bytes(bytes).wrapping_mul(0x9e37_79b1) >> 24;
    (hash as usize / 32, 1 << (hash % 32))
}

/// Returns where the name of a line begins. An address has 16 digits, or 8 on a 32-bit kernel.
fn start_of_name(line: &[u8]) -> usize {
    if line.get(16) == Some(&b' ') { 19 } else { 11 }
}

/// Returns the name of a line, without parsing the rest: `ADDRESS TYPE NAME`, and for a symbol of a
/// module a tab and more.
fn name_of(line: &[u8]) -> &[u8] {
    let name = line.get(start_of_name(line)..).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == b'\t');
    name.get(..end.unwrap_or(name.len())).unwrap_or_default()
}

/// Calls `each` with every function that a target may mean, in the order of `/proc/kallsyms`.
///
/// For a target that chooses among functions, these are all that it chooses from: the second one is
/// `function@2`. The address of a symbol is 0 if the kernel hides it.
///
/// # Errors
///
/// Returns the errors of [`resolve`].
pub fn for_each_function(
    target: &Target<'_>,
    mut each: impl FnMut(&Symbol<'_>),
) -> Result<(), Error> {
    let mut target = Resolution::new(target.all());
    resolve_dyn(slice::from_mut(&mut target), &mut |_, symbol| each(symbol))
}

/// Adds to an error how many functions have the name, and their addresses.
#[cold]
#[inline(never)]
pub(crate) fn count_functions(error: &mut Error, target: &Target<'_>) {
    let mut target = Resolution::new(target.unique());
    // If the list cannot be read, the error says what it said before.
    let _ = resolve_dyn(slice::from_mut(&mut target), &mut |_, _| {});
    *error = error.found(target.functions, target.addresses);
}

/// Returns whether the entry points of system calls take their arguments in a `struct pt_regs`.
/// Their names then have a prefix for the architecture, such as `__x64_sys_`.
///
/// It is the value of `LINUX_HAS_SYSCALL_WRAPPER` in a program that libbpf loads.
///
/// # Errors
///
/// Returns the errors of [`resolve`], and those of [`Resolution::target`] for the system call
/// [`bpf(2)`].
///
/// [`bpf(2)`]: https://man7.org/linux/man-pages/man2/bpf.2.html
#[inline(never)]
pub fn has_syscall_wrapper() -> Result<bool, Error> {
    let mut found = [Resolution::new(Target::syscall("bpf")?)];
    resolve_dyn(&mut found, &mut |_, _| {})?;
    let [found] = &found;
    let target = found.target()?;
    let function = found.function().unwrap_or(target);
    let name = function.function().unwrap_or_default();
    Ok(EntryName::of(name.as_bytes()).is_some_and(|name| name.has_prefix()))
}

/// Returns the address of the symbol for which the kernel reports a probe at an address: the same,
/// or that of the nearest function at most `most` bytes before. [`None`] if there is none.
#[inline(never)]
pub(crate) fn symbol_before(address: u64, most: u64) -> Result<Option<u64>, Errno> {
    let range = address.saturating_sub(most)..=address;
    let (mut nearest, mut is_list) = (None, false);
    let file = open_read(CWD, KALLSYMS, PROC_SUPER_MAGIC)?;
    for_lines_while::<LINE_LEN>(&file, &mut |line| {
        let Some(symbol) = Symbol::parse(line) else {
            return true;
        };
        is_list = true;
        let is_function = symbol.is_function() && !symbol.is_generated();
        let is_near = is_function && range.contains(&symbol.address);
        if is_near {
            nearest = nearest.max(Some(symbol.address));
        }
        // The symbols of the kernel itself are in the order of their addresses.
        is_near || nearest.is_none() || symbol.module.is_some()
    })?;
    is_list.then_some(nearest).ok_or(MASKED)
}

#[cfg(test)]
mod tests;
