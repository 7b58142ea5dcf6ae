//! The place of a probe: a kernel function by its name, or an address.

use core::fmt;

use super::invalid::{Invalid, ParseError};
use super::names::{
    Check, MAX_SYMBOL_LEN, check_function, check_glob, check_module, is_function, is_glob,
};
use super::number::number;
use super::pick::{Lookup, Names, Pick};
use crate::numbers::Hex;
use crate::text::{Buf, split, utf8};

/// Names the place of a probe: a kernel function, alone or in a module, or an address in the
/// kernel.
///
/// It borrows the name.
///
/// A `Target` is well formed by construction. The legacy modes write its name into a command line
/// of tracefs. The name may therefore contain only letters, digits, `_`, `.` and `$`, and may not
/// begin with a digit.
///
/// ```
/// use kprobe_attach::Target;
///
/// let function = Target::symbol("vfs_read")?;
/// let in_module = Target::in_module("nf_tables", "nft_do_chain")?;
/// assert_eq!(in_module, Target::parse("nf_tables:nft_do_chain")?);
/// let address = Target::parse("0xffffffff81234560")?;
/// assert_eq!(address, Target::address(0xffff_ffff_8123_4560));
/// assert!(Target::symbol("vfs_read\n-:kprobes/other").is_err());
/// # Ok::<(), kprobe_attach::request::ParseError>(())
/// ```
///
/// # Several functions of one name
///
/// The kernel looks for a function that is named so far. Since Linux 6.7, and updates of 6.1 and
/// 6.5, it refuses a name that several functions have; before, it takes the first. These targets
/// choose among them:
///
/// | target | text | function |
/// |---|---|---|
/// | [`unique`](Self::unique) | `function@unique` | the only one, on every kernel |
/// | [`first`](Self::first) | `function@first` | the first in `/proc/kallsyms` |
/// | [`nth`](Self::nth) | `function@2` | the second there |
/// | [`all`](Self::all) | `function@all` | each of them |
/// | [`in_module`](Self::in_module) | `vmlinux:function` | the kernel's own, and of no module |
/// | [`base`](Self::base) | option `base` | also the copy that the compiler made of it |
/// | [`parse`](Self::parse) | `tcp_*` | each that matches the pattern |
/// | [`syscall`](Self::syscall) | `ksyscall/openat` | the entry point of a system call |
///
/// Such a target must be [resolved](Self::is_resolved) before it is planned: one reading of
/// `/proc/kallsyms` serves any number of targets ([`symbols::resolve`]).
/// [`Kernel::attach_kprobe`] does that by itself.
///
/// ```
/// use kprobe_attach::Target;
///
/// let second = Target::symbol("cleanup")?.nth(2);
/// assert_eq!(second, Target::parse("cleanup@2")?);
/// assert!(!second.is_resolved());
/// # Ok::<(), kprobe_attach::request::ParseError>(())
/// ```
///
/// [`symbols::resolve`]: crate::symbols::resolve()
/// [`Kernel::attach_kprobe`]: crate::Kernel::attach_kprobe
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target<'a>(Place<'a>);

static_assertions::const_assert!(size_of::<Target<'_>>() <= 48);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place<'a> {
    /// The names have been checked, so they are ASCII.
    Function {
        module: Option<&'a [u8]>,
        function: &'a [u8],
        lookup: Lookup,
    },
    Address(u64),
}

/// The name that stands for the kernel itself, where the name of a module is expected.
pub(crate) const VMLINUX: &[u8] = b"vmlinux";

impl<'a> Target<'a> {
    /// Names a function, as `function` or, as in libbpf, as `module:function`.
    ///
    /// # Errors
    ///
    /// Returns the first byte that no symbol has. Returns an error if the name is empty, or longer
    /// than [`MAX_SYMBOL_LEN`].
    pub fn symbol(name: &'a str) -> Result<Self, ParseError> {
        Self::from_name(name.as_bytes())
    }

    /// Names a function of one module, where several functions may have that name.
    ///
    /// The module `vmlinux` stands for the kernel itself. Such a target must be
    /// [resolved](Self::is_resolved). Without the feature `files` it is a module as any other.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`symbol`](Self::symbol). The byte is that of `module:function`.
    pub fn in_module(module: &'a str, function: &'a str) -> Result<Self, ParseError> {
        Self::join(Some(module.as_bytes()), function.as_bytes(), check_function)
    }

    /// Names an address in the kernel, as `/proc/kallsyms` shows it.
    #[must_use]
    pub const fn address(address: u64) -> Self {
        Self(Place::Address(address))
    }

    /// Names a system call, such as `openat`, by its entry point in the running kernel.
    ///
    /// It must be [resolved](Self::is_resolved).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`symbol`](Self::symbol).
    pub fn syscall(name: &'a str) -> Result<Self, ParseError> {
        Self::syscall_from_bytes(name.as_bytes())
    }

    /// Reads the name of a system call, and `@` with a choice if there is one.
    pub(super) fn syscall_from_bytes(text: &'a [u8]) -> Result<Self, ParseError> {
        Self::with_pick(text, |name| {
            let target = Self::join(None, name, check_function)?;
            Ok(target.searched(|_, pick| (Names::Syscall, pick)))
        })
    }

    /// Reads `[module:]function`, or an address in hexadecimal digits after `0x`.
    ///
    /// After the function there may be one of `@unique`, `@first`, `@all`, and `@` with a number
    /// from 1.
    ///
    /// Instead of a function there may be a pattern, as a shell has it: `*` stands for any letters,
    /// `?` for one, `[a-cx]` for one of these, and `[!a-cx]` for one that is none of these. It
    /// means every function whose whole name it matches. [`symbols::Functions`] lists them, and
    /// says which of them can be probed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`symbol`](Self::symbol), or the byte that is not a digit.
    ///
    /// [`symbols::Functions`]: crate::symbols::Functions
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Reads the same from bytes, which need not be UTF-8.
    pub(crate) fn from_bytes(text: &'a [u8]) -> Result<Self, ParseError> {
        match text {
            // A module's name may begin with a digit.
            [b'0', b'x' | b'X', ..] if split(text, b':').is_none() => {
                number(text).map(Self::address)
            }
            _ if is_glob(text) => Self::from_glob(text),
            _ => Self::with_pick(text, Self::from_name),
        }
    }

    /// Reads a name, and `@` with a choice if there is one.
    #[inline(never)]
    fn with_pick(
        text: &'a [u8],
        read: fn(&'a [u8]) -> Result<Self, ParseError>,
    ) -> Result<Self, ParseError> {
        match split(text, b'@') {
            Some((name @ [_, ..], pick)) => {
                let target = read(name)?;
                let pick = Pick::parse(pick).map_err(|error| error.from(name.len() + 1))?;
                Ok(target.picked(pick))
            }
            _ => read(text),
        }
    }

    /// Reads `[module:]pattern`.
    fn from_glob(text: &'a [u8]) -> Result<Self, ParseError> {
        let target = Self::split(text, check_glob)?;
        Ok(target.searched(|_, _| (Names::Glob, Pick::All)))
    }

    #[inline(never)]
    pub(super) fn from_name(name: &'a [u8]) -> Result<Self, ParseError> {
        if is_function(name) {
            return Ok(Self(Place::Function {
                module: None,
                function: name,
                lookup: Lookup::Kernel,
            }));
        }
        Self::split(name, check_function)
    }

    #[inline(never)]
    fn split(text: &'a [u8], check: Check) -> Result<Self, ParseError> {
        match split(text, b':') {
            None => Self::join(None, text, check),
            Some((module, function)) => Self::join(Some(module), function, check),
        }
    }

    fn join(
        module: Option<&'a [u8]>,
        function: &'a [u8],
        check: Check,
    ) -> Result<Self, ParseError> {
        let start = match module {
            None => 0,
            Some(module) => {
                check_module(module)?;
                module.len() + 1
            }
        };
        check(function).map_err(|error| error.from(start))?;
        if start + function.len() > MAX_SYMBOL_LEN {
            return Err(ParseError::new(MAX_SYMBOL_LEN, Invalid::NameTooLong));
        }
        let lookup = if cfg!(feature = "files") && module == Some(VMLINUX) {
            Lookup::Search(Names::Exact, Pick::Unique)
        } else {
            Lookup::Kernel
        };
        Ok(Self(Place::Function {
            module,
            function,
            lookup,
        }))
    }

    /// Refuses a name that several functions have, on every kernel.
    ///
    /// Without it, a kernel that takes such a name attaches to the first of them.
    #[must_use]
    pub fn unique(self) -> Self {
        self.picked(Pick::Unique)
    }

    /// Chooses the first function of this name, as `/proc/kallsyms` lists them.
    ///
    /// An address and a pattern stay as they are.
    #[must_use]
    pub fn first(self) -> Self {
        self.picked(Pick::Nth(1))
    }

    /// Chooses one of the functions of this name, counted from 1 as `/proc/kallsyms` lists them.
    ///
    /// An address and a pattern stay as they are.
    #[must_use]
    pub fn nth(self, nth: u32) -> Self {
        self.picked(Pick::Nth(nth))
    }

    /// Chooses all the functions of this name.
    ///
    /// An address and a pattern stay as they are.
    #[must_use]
    pub fn all(self) -> Self {
        self.picked(Pick::All)
    }

    /// Accepts the copy of the function that the compiler made in its place.
    ///
    /// If no function has the very name, the target means the only function with that name and a
    /// suffix: `.isra.N`, `.constprop.N`, `.part.N`, `.llvm.HASH`, `.lto_priv.N`, or several of
    /// them. A name with `.cold` is never taken. The copy may take other arguments than the
    /// function.
    ///
    /// Together with [`first`](Self::first), [`nth`](Self::nth) or [`all`](Self::all), the choice
    /// is among the functions of the very name and all the copies.
    ///
    /// An address, a system call and a pattern stay as they are.
    #[must_use]
    pub fn base(self) -> Self {
        self.searched(|names, pick| match names {
            Names::Syscall | Names::Glob => (names, pick),
            _ => (Names::Base, pick),
        })
    }

    /// Returns whether the target can be planned as it is.
    ///
    /// A plain name and an address can. Any other target is looked for in `/proc/kallsyms` first.
    #[must_use]
    pub const fn is_resolved(&self) -> bool {
        self.search().is_none()
    }

    /// Returns whether the target is a pattern of names.
    #[must_use]
    pub const fn is_pattern(&self) -> bool {
        matches!(self.search(), Some((Names::Glob, _)))
    }

    fn picked(self, pick: Pick) -> Self {
        self.searched(|names, old| match names {
            Names::Glob => (names, old),
            _ => (names, pick),
        })
    }

    /// Makes a target that is looked for in `/proc/kallsyms`.
    fn searched(mut self, change: impl FnOnce(Names, Pick) -> (Names, Pick)) -> Self {
        if let Place::Function { lookup, .. } = &mut self.0 {
            let (names, pick) = match *lookup {
                Lookup::Search(names, pick) => (names, pick),
                _ => (Names::Exact, Pick::Unique),
            };
            let (names, pick) = change(names, pick);
            *lookup = Lookup::Search(names, pick);
        }
        self
    }

    /// Adds the address of the function, where the caller knows it.
    ///
    /// The kernel then looks for no name, which takes long before Linux 6.2. Messages still have
    /// the name. Without the feature `files`, the name is looked for all the same.
    #[must_use]
    pub fn with_address(self, address: u64) -> Self {
        let mut found = self;
        if let Place::Function { lookup, .. } = &mut found.0 {
            *lookup = Lookup::At(address);
        }
        found
    }

    /// Returns the same function without its module, if another target names it without one.
    pub(crate) fn named_as(self, other: &Target<'_>) -> Self {
        let mut named = self;
        if let (Place::Function { module, .. }, None) = (&mut named.0, other.module_bytes()) {
            *module = None;
        }
        named
    }

    /// Returns whether the target is a [system call](Self::syscall). What has been resolved is a
    /// function.
    #[must_use]
    pub const fn is_syscall(&self) -> bool {
        matches!(self.search(), Some((Names::Syscall, _)))
    }

    /// Returns how the function is searched for in `/proc/kallsyms`, if it is.
    pub(crate) const fn search(&self) -> Option<(Names, Pick)> {
        match self.0 {
            Place::Function {
                lookup: Lookup::Search(names, pick),
                ..
            } => Some((names, pick)),
            _ => None,
        }
    }

    /// Returns the module and the function that the kernel looks for, or the address that is known.
    pub(crate) const fn place(&self) -> Result<(Option<&'a [u8]>, &'a [u8]), u64> {
        match (self.known_address(), self.0) {
            (
                None,
                Place::Function {
                    module, function, ..
                },
            ) => Ok((module, function)),
            (Some(address), _) | (None, Place::Address(address)) => Err(address),
        }
    }

    /// Returns the address of the function if it was resolved to one, or the address that the
    /// target is.
    #[must_use]
    pub const fn known_address(&self) -> Option<u64> {
        match self.0 {
            // Without files no function is found.
            Place::Function {
                lookup: Lookup::At(address),
                ..
            } if cfg!(feature = "files") => Some(address),
            Place::Address(address) => Some(address),
            Place::Function { .. } => None,
        }
    }

    /// Returns the name of the function, without its module.
    #[must_use]
    pub fn function(&self) -> Option<&'a str> {
        utf8(self.function_bytes()?)
    }

    /// Returns the name of the module.
    #[must_use]
    pub fn module(&self) -> Option<&'a str> {
        utf8(self.module_bytes()?)
    }

    /// Returns the module and the function. Each is empty if there is none.
    pub(crate) fn names(&self) -> (&'a [u8], &'a [u8]) {
        match self.0 {
            Place::Function {
                module, function, ..
            } => (module.unwrap_or_default(), function),
            Place::Address(_) => (b"", b""),
        }
    }

    pub(crate) const fn function_bytes(&self) -> Option<&'a [u8]> {
        match self.0 {
            Place::Function { function, .. } => Some(function),
            Place::Address(_) => None,
        }
    }

    pub(crate) const fn module_bytes(&self) -> Option<&'a [u8]> {
        match self.0 {
            Place::Function { module, .. } => module,
            Place::Address(_) => None,
        }
    }

    /// Returns the address, if the target is one.
    #[must_use]
    pub const fn as_address(&self) -> Option<u64> {
        match self.0 {
            Place::Function { .. } => None,
            Place::Address(address) => Some(address),
        }
    }
}

/// Writes the text that [`Target::parse`] reads. It lacks the option `base`, and the kind of probe
/// that makes the name that of a system call.
impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = self.module() {
            f.write_str(module)?;
            f.write_str(":")?;
        }
        match self.function() {
            Some(function) => f.write_str(function),
            None => Hex(self.as_address().unwrap_or_default()).fmt(f),
        }?;
        match self.search() {
            Some((_, Pick::Unique)) if self.module_bytes() == Some(VMLINUX) => Ok(()),
            // The rest of the text says that it is one of these.
            Some((Names::Base | Names::Syscall, Pick::Unique) | (Names::Glob, _)) | None => Ok(()),
            Some((_, pick)) => {
                f.write_str("@")?;
                pick.fmt(f)
            }
        }
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Owns the name of a [`Target`], and so outlives the text that it was read from.
#[derive(Clone, PartialEq, Eq)]
#[repr(C)]
pub struct TargetBuf {
    /// How the function is found. Without a name, it is the address that the target is.
    lookup: Lookup,
    name: Buf<MAX_SYMBOL_LEN>,
}

impl TargetBuf {
    /// Returns the target, which borrows the name.
    #[must_use]
    pub fn as_target(&self) -> Target<'_> {
        let (name, lookup) = (self.name.as_bytes(), self.lookup);
        if let (b"", Lookup::At(address)) = (name, lookup) {
            return Target::address(address);
        }
        let (module, function) = match split(name, b':') {
            None => (None, name),
            Some((module, function)) => (Some(module), function),
        };
        // The name was checked when the original target was made.
        Target(Place::Function {
            module,
            function,
            lookup,
        })
    }

    /// Returns whether the compiler moved the rest of a function into this one, so that it could
    /// inline the head: `f.part.0` of `f`.
    pub(crate) fn is_part_of(&self, whole: &Self) -> bool {
        let suffix = self.name.as_bytes().strip_prefix(whole.name.as_bytes());
        suffix.is_some_and(|suffix| suffix.starts_with(b".part."))
    }
}

impl From<Target<'_>> for TargetBuf {
    fn from(target: Target<'_>) -> Self {
        let mut name = Buf::new();
        let lookup = match target.0 {
            Place::Function {
                module,
                function,
                lookup,
            } => {
                let parts = [module.unwrap_or_default(), b":", function];
                let parts = parts.get(if module.is_some() { 0 } else { 2 }..);
                let mut parts = parts.unwrap_or_default().iter();
                // A name that was checked fits.
                let fits = parts.try_for_each(|part| name.push_all(part));
                debug_assert!(fits.is_ok());
                lookup
            }
            Place::Address(address) => Lookup::At(address),
        };
        Self { lookup, name }
    }
}

impl PartialEq<Target<'_>> for TargetBuf {
    fn eq(&self, target: &Target<'_>) -> bool {
        self.as_target() == *target
    }
}

impl fmt::Display for TargetBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_target().fmt(f)
    }
}

impl fmt::Debug for TargetBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_target().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owned_target_is_the_one_it_was_made_of() {
        for text in [
            "vfs_read",
            "nf_tables:nft_do_chain.isra.0",
            "0xffffffff81000000",
            "cleanup@2",
            "m:cleanup@all",
            "vmlinux:cleanup",
            "vmlinux:cleanup@1",
            "cleanup@unique",
            "tcp_*",
            "nf_tables:nft_[!a-c]?",
        ] {
            let target = Target::parse(text).unwrap();
            let owned = TargetBuf::from(target);
            assert_eq!(owned.as_target(), target);
            assert_eq!(std::format!("{owned}"), text);
        }
        let longest = "f".repeat(MAX_SYMBOL_LEN);
        let target = Target::parse(&longest).unwrap();
        assert_eq!(TargetBuf::from(target), target);
    }
}
