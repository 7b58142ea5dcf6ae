//! The lines of `/proc/kallsyms`, and the addresses that a name has.

use core::ffi::CStr;
use core::fmt;
use core::mem::size_of;

use linux_raw_sys::general::PROC_SUPER_MAGIC;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, SeekFrom};
use rustix::io::Errno;

use crate::error::{Cause, Error, Step};
use crate::mount::{MASKED, open_read};
use crate::request::{KprobeOpts, Target, VMLINUX};
use crate::text::{LINE_LEN, contains, for_each_line, hexadecimal, utf8, words};

pub(crate) const KALLSYMS: &CStr = c"/proc/kallsyms";

/// Represents a line of `/proc/kallsyms`. Its `Display` writes that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The address; 0 if the kernel hides addresses from this process (`kernel.kptr_restrict`).
    pub address: u64,
    /// The type as in [`nm(1)`]: `t` or `T` for a function, `w` or `W` for a weak one.
    ///
    /// [`nm(1)`]: https://man7.org/linux/man-pages/man1/nm.1.html
    pub kind: u8,
    /// The name.
    pub name: &'a str,
    /// The module that contains it.
    pub module: Option<&'a str>,
}

impl<'a> Symbol<'a> {
    /// Reads a line: address, type and name. For a symbol of a module, a tab and the module in
    /// brackets follow.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = words(line);
        let address = hexadecimal(words.next()?)?;
        let &[kind] = words.next()? else {
            return None;
        };
        let name = utf8(words.next()?)?;
        let module = match words.next() {
            None => None,
            Some([b'[', module @ .., b']']) => Some(utf8(module)?),
            Some(_) => return None,
        };
        let end = words.next().is_none();
        (end && kind.is_ascii_graphic()).then_some(Self {
            address,
            kind,
            name,
            module,
        })
    }

    /// Returns whether the type is that of a function.
    pub(crate) const fn is_function(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }

    /// Returns the target that names this symbol. [`None`] if no function has such a name.
    #[must_use]
    pub fn target(&self) -> Option<Target<'a>> {
        match self.module {
            Some(module) => Target::in_module(module, self.name).ok(),
            None => Target::symbol(self.name).ok(),
        }
    }

    /// Returns the target that is this function at its address. [`None`] if the address is hidden,
    /// or if no function has such a name.
    #[must_use]
    pub fn found(&self) -> Option<Target<'a>> {
        let target = self.target().filter(|_| self.address != 0)?;
        Some(target.with_address(self.address))
    }

    /// Returns whether it is a BPF program or other code that was generated at run time, which is
    /// anywhere in memory, and no function of the kernel.
    pub(crate) fn is_generated(&self) -> bool {
        self.module
            .is_some_and(|module| module == "bpf" || module.starts_with("__builtin__"))
    }

    /// Returns whether a target means this symbol.
    ///
    /// The symbol must be a function that has the target's name. If the target has a module, the
    /// symbol must be in it. The module `vmlinux` is the kernel itself.
    #[must_use]
    pub fn is(&self, target: &Target<'_>) -> bool {
        let in_module = match target.module_bytes() {
            None => true,
            Some(VMLINUX) => self.module.is_none(),
            module => module == self.module.map(str::as_bytes),
        };
        self.is_function() && target.function() == Some(self.name) && in_module
    }
}

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            kind,
            name,
            module,
        } = self;
        let digits = 2 * size_of::<usize>();
        write!(f, "{address:0digits$x} {} {name}", char::from(*kind))?;
        match module {
            Some(module) => write!(f, "\t[{module}]"),
            None => Ok(()),
        }
    }
}

/// Calls `each` with the address of every function that has the target's name.
///
/// The addresses are those of [`/proc/kallsyms`]. Each can be a [`Target::address`], to which every
/// mode can attach a program if the kernel allows a probe there.
///
/// # Errors
///
/// Returns an error with the step [`Step::ResolveSymbol`]:
///
/// * `ENOENT` if no function has the name, or if the target is an address. In the second case the
///   cause is [`Cause::BadAddress`].
/// * `EPERM` if the kernel hides addresses from this process.
/// * `EXDEV` if another file is mounted over `/proc/kallsyms`, or if it has no symbol.
/// * The errno of the file if it cannot be read.
///
/// [`/proc/kallsyms`]: https://man7.org/linux/man-pages/man5/proc_kallsyms.5.html
/// ```no_run
/// use kprobe_attach::{Kernel, KprobeOpts, Target, symbols};
///
/// # fn attach_all(program: kprobe_attach::bpf::Program) -> Result<(), kprobe_attach::Error> {
/// let kernel = Kernel::new();
/// let mut links = Vec::new();
/// symbols::for_each_address(&Target::symbol("cleanup")?, |address| {
///     links.push(kernel.attach_kprobe(&program, Target::address(address), &KprobeOpts::new()));
/// })?;
/// # Ok(())
/// # }
/// ```
pub fn for_each_address(target: &Target<'_>, mut each: impl FnMut(u64)) -> Result<(), Error> {
    addresses(target, &mut each)
}

/// Does the work of [`for_each_address`], compiled once for all callers.
pub(crate) fn addresses(target: &Target<'_>, each: &mut dyn FnMut(u64)) -> Result<(), Error> {
    find_addresses(target, each).map_err(|error| error.about(target, &KprobeOpts::new()))
}

fn find_addresses(target: &Target<'_>, each: &mut dyn FnMut(u64)) -> Result<(), Error> {
    if target.as_address().is_some() {
        return Err(failed(Errno::NOENT, Cause::BadAddress));
    }
    let mut found = false;
    let mut hidden = false;
    let mut see = |symbol: &Symbol<'_>| {
        if symbol.is(target) {
            found = true;
            if symbol.address == 0 {
                hidden = true;
            } else {
                each(symbol.address);
            }
        }
    };
    Kallsyms::open()
        .and_then(|mut kallsyms| kallsyms.for_each(&mut see))
        .map_err(not_read)?;
    match (found, hidden, target.module()) {
        (_, true, _) => Err(failed(Errno::PERM, Cause::NoPermission)),
        (true, false, _) => Ok(()),
        (false, false, None) => Err(failed(Errno::NOENT, Cause::NoSuchFunction)),
        (false, false, Some(_)) => Err(failed(Errno::NOENT, Cause::ModuleNotLoaded)),
    }
}

/// Returns whether a symbol of code is no function: padding before one, or a part of one.
pub(super) fn is_no_function(name: &[u8]) -> bool {
    name.starts_with(b"__pfx_") || name.starts_with(b"__cfi_") || contains(name, b".cold")
}

/// Holds `/proc/kallsyms`, open for one reading.
pub(super) struct Kallsyms {
    file: OwnedFd,
    /// The position of the first symbol of a module, once that has been read.
    modules: u64,
}

impl Kallsyms {
    pub(super) fn open() -> Result<Self, Errno> {
        let file = open_read(CWD, KALLSYMS, PROC_SUPER_MAGIC)?;
        Ok(Self { file, modules: 0 })
    }

    /// Calls `each` with every symbol. Returns `EXDEV` if there is none: the list of the kernel is
    /// never empty.
    pub(super) fn for_each(&mut self, each: &mut dyn FnMut(&Symbol<'_>)) -> Result<(), Errno> {
        let (mut is_list, mut at) = (false, 0);
        for_each_line::<LINE_LEN>(&self.file, &mut |line| {
            if let Some(symbol) = Symbol::parse(line) {
                is_list = true;
                if self.modules == 0 && symbol.module.is_some() {
                    self.modules = at;
                }
                each(&symbol);
            }
            at += line.len() as u64 + 1;
        })?;
        is_list.then_some(()).ok_or(MASKED)
    }

    /// Calls `each` with the symbols of modules once more. The kernel lists them last.
    pub(super) fn for_each_of_modules(
        &self,
        each: &mut dyn FnMut(&Symbol<'_>),
    ) -> Result<(), Errno> {
        rustix::fs::seek(&self.file, SeekFrom::Start(self.modules))?;
        for_each_line::<LINE_LEN>(&self.file, &mut |line| {
            if let Some(symbol) = Symbol::parse(line) {
                each(&symbol);
            }
        })
    }
}

/// Makes the error of symbols that cannot be read.
#[inline(never)]
pub(crate) fn not_read(errno: Errno) -> Error {
    failed(errno, Cause::out_of(errno).unwrap_or(Cause::Unknown))
}

pub(super) fn failed(errno: Errno, cause: Cause) -> Error {
    Error::new(Step::ResolveSymbol, errno, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_line_is_address_type_name_and_module() {
        for (line, address, kind, name, module) in [
            (
                "ffffffff81000000 T _stext",
                0xffff_ffff_8100_0000,
                b'T',
                "_stext",
                None,
            ),
            ("0000000000000000 t foo.isra.0", 0, b't', "foo.isra.0", None),
            (
                "ffffffffc0000000 t nft_do_chain\t[nf_tables]",
                0xffff_ffff_c000_0000,
                b't',
                "nft_do_chain",
                Some("nf_tables"),
            ),
        ] {
            let symbol = Symbol {
                address,
                kind,
                name,
                module,
            };
            assert_eq!(Symbol::parse(line.as_bytes()), Some(symbol));
            assert_eq!(symbol.to_string(), line);
        }
        for line in [
            "",
            "ffffffff81000000",
            "ffffffff81000000 T",
            "ffffffff81000000 TT foo",
            "+fffffff81000000 T foo",
            "fffffffff81000000 T foo",
            "0x1 T foo",
            "1 T foo [m] x",
            "1 T foo m",
            "1 T foo [m",
        ] {
            assert_eq!(Symbol::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_target_means_functions_of_its_name_and_module() {
        let is = |line: &str, target: &str| {
            Symbol::parse(line.as_bytes())
                .unwrap()
                .is(&Target::parse(target).unwrap())
        };
        assert!(is("1 t foo", "foo"));
        assert!(is("1 W foo", "foo"));
        assert!(is("1 t foo\t[m]", "foo"));
        assert!(is("1 t foo\t[m]", "m:foo"));
        assert!(!is("1 t foo", "m:foo"));
        assert!(!is("1 t foo\t[n]", "m:foo"));
        assert!(!is("1 d foo", "foo"));
        assert!(!is("1 t foo.isra.0", "foo"));
    }
}
