//! The functions of a link to many functions, and its options.

use core::ops::Range;

use super::invalid::{Invalid, ParseError};
use super::mode::AttachMode;
use super::rules::is_kernel_address;
use super::target::Target;
use crate::sys::uapi::{BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION};
use crate::sys::{Places, SymbolRef};

/// Selects the links that a program is loaded for: its `expected_attach_type`.
///
/// The kernel attaches a program by these links only.
#[doc(alias = "expected_attach_type")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachType {
    /// Links to one function, as [`Kernel::attach_kprobe`](crate::Kernel::attach_kprobe) makes
    /// them.
    #[default]
    Kprobe,
    /// Links to many functions, as
    /// [`Kernel::attach_kprobe_multi`](crate::Kernel::attach_kprobe_multi) makes them.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.18 (commit 0dcac2725406).
    KprobeMulti,
    /// Links to entry and return of many functions: see
    /// [`KprobeMultiOpts::session`](crate::KprobeMultiOpts::session).
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.10 (commit 535a3692ba72).
    KprobeSession,
}

impl AttachType {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Kprobe => 0,
            Self::KprobeMulti => BPF_TRACE_KPROBE_MULTI,
            Self::KprobeSession => BPF_TRACE_KPROBE_SESSION,
        }
    }
}

/// The largest number of functions that one link takes: `MAX_KPROBE_MULTI_CNT` of
/// `kernel/trace/bpf_trace.c`.
pub const MAX_FUNCTIONS: usize = 1 << 20;

/// Names many functions, by their symbols or by their addresses, with a cookie for each.
///
/// It borrows arrays in the form in which the kernel reads them. 1,000 functions take 8,000 bytes,
/// and their cookies take as many.
///
/// ```
/// use kprobe_attach::request::{Functions, SymbolRef};
///
/// let symbols = [c"vfs_read", c"vfs_write"].map(SymbolRef::new);
/// let functions = Functions::symbols(&symbols).cookies(&[1, 2]);
/// assert_eq!(functions.len(), 2);
/// assert_eq!(functions.get(1)?.unwrap().function(), Some("vfs_write"));
/// assert_eq!(functions.cookie(1), 2);
/// # Ok::<(), kprobe_attach::request::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions<'a> {
    places: Places<'a>,
    cookies: &'a [u64],
}

impl<'a> Functions<'a> {
    /// Names functions by their symbols.
    ///
    /// A `kprobe.multi` link takes each symbol once, and takes no `module:function`. If several
    /// functions have a symbol, it takes the first that can be traced.
    #[must_use]
    pub const fn symbols(symbols: &'a [SymbolRef<'a>]) -> Self {
        Self::of(Places::Symbols(symbols))
    }

    /// Names functions by their addresses in `/proc/kallsyms`.
    ///
    /// A `kprobe.multi` link takes each address once. Sorted addresses are checked in the shortest
    /// time.
    #[must_use]
    pub const fn addresses(addresses: &'a [u64]) -> Self {
        Self::of(Places::Addresses(addresses))
    }

    const fn of(places: Places<'a>) -> Self {
        let cookies = &[];
        Self { places, cookies }
    }

    /// Gives each function the cookie at the same index.
    ///
    /// Their number must be that of the functions. Without cookies, every function has cookie 0.
    ///
    /// # Minimum kernel
    ///
    /// Linux 5.15 for links to one function each, and 5.18 for one link to all of them.
    #[must_use]
    pub const fn cookies(mut self, cookies: &'a [u64]) -> Self {
        self.cookies = cookies;
        self
    }

    /// Returns the number of functions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether there is no function.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the function at an index, or [`None`] behind the last.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Target::symbol`] if the symbol is not a name of a function.
    pub fn get(&self, index: usize) -> Result<Option<Target<'a>>, ParseError> {
        match self.places {
            Places::Symbols(symbols) => {
                let name = symbols.get(index).map(|symbol| symbol.name().to_bytes());
                name.map(Target::from_name).transpose()
            }
            Places::Addresses(addresses) => Ok(addresses.get(index).copied().map(Target::address)),
        }
    }

    /// Returns the cookie of the function at an index; 0 without cookies.
    #[must_use]
    pub fn cookie(&self, index: usize) -> u64 {
        self.cookies.get(index).copied().unwrap_or_default()
    }

    pub(crate) const fn places(&self) -> Places<'a> {
        self.places
    }

    pub(crate) const fn all_cookies(&self) -> &'a [u64] {
        self.cookies
    }

    /// Returns the functions in a range, with their cookies. There is none outside of the array.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let cookies = self.cookies.get(range.clone()).unwrap_or_default();
        let places = match self.places {
            Places::Symbols(symbols) => Places::Symbols(symbols.get(range).unwrap_or_default()),
            Places::Addresses(all) => Places::Addresses(all.get(range).unwrap_or_default()),
        };
        Self { places, cookies }
    }

    /// Returns whether one of the functions before an index has the same symbol or address.
    pub(crate) fn is_repeated(&self, index: usize) -> bool {
        match self.places {
            Places::Symbols(symbols) => is_repeated(symbols, index),
            Places::Addresses(addresses) => is_repeated(addresses, index),
        }
    }
}

fn is_repeated<T: PartialEq>(functions: &[T], index: usize) -> bool {
    let before = functions.get(..index).unwrap_or_default();
    functions
        .get(index)
        .is_some_and(|function| before.contains(function))
}

/// Holds the options of a link to many functions: those of libbpf's
/// `struct bpf_kprobe_multi_opts` that are not its functions and cookies.
///
/// libbpf's pattern is not one of them. A caller that has a pattern passes the functions that
/// match.
///
/// ```
/// use kprobe_attach::KprobeMultiOpts;
///
/// let opts = KprobeMultiOpts::new().retprobe(true);
/// assert!(!opts.session);
/// ```
#[doc(alias = "bpf_kprobe_multi_opts")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KprobeMultiOpts {
    /// Whether the program runs when a function returns, rather than when it is entered.
    pub retprobe: bool,
    /// Whether the program runs both when a function is entered and when it returns.
    ///
    /// If it returns 1 at the entry, it does not run at that call's return. It takes a program that
    /// was loaded for it: [`AttachType::KprobeSession`](crate::bpf::AttachType::KprobeSession).
    ///
    /// # Minimum kernel
    ///
    /// Linux 6.10 (commit 535a3692ba72).
    pub session: bool,
    /// Whether there must be one function, whose symbol no other function has.
    ///
    /// The kernel takes the first of several functions with one symbol that it can trace. With this
    /// option, several are an error with the cause
    /// [`Cause::NotUnique`](crate::error::Cause::NotUnique). The check reads the whole of
    /// `/proc/kallsyms`.
    pub unique_match: bool,
}

impl KprobeMultiOpts {
    /// Makes the options of a link that runs its program at the entry of each function.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            retprobe: false,
            session: false,
            unique_match: false,
        }
    }

    /// Makes the program run at the [return](Self#structfield.retprobe), or at the entry.
    #[must_use]
    pub const fn retprobe(mut self, retprobe: bool) -> Self {
        self.retprobe = retprobe;
        self
    }

    /// Makes the program run at [entry and return](Self#structfield.session).
    #[must_use]
    pub const fn session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// Sets whether the match must be [unique](Self#structfield.unique_match).
    #[must_use]
    pub const fn unique_match(mut self, unique_match: bool) -> Self {
        self.unique_match = unique_match;
        self
    }
}

/// Selects what happens if a function of a group cannot be attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Detaches from all functions, and returns the error.
    #[default]
    AllOrNothing,
    /// Attaches to the others.
    BestEffort,
    /// Attaches to the first function that it can, and to no other: for a function that has another
    /// name in another kernel.
    AnyOf,
}

/// Holds the options of a group of functions.
///
/// ```
/// use kprobe_attach::request::{GroupOpts, Policy};
///
/// let opts = GroupOpts::new().retprobe(true).policy(Policy::BestEffort);
/// assert!(opts.retprobe);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOpts {
    /// What happens if a function cannot be attached to.
    pub policy: Policy,
    /// Whether the program runs when a function returns, rather than when it is entered.
    pub retprobe: bool,
    /// Whether the program runs both when a function is entered and when it returns: see
    /// [`KprobeMultiOpts::session`].
    pub session: bool,
    /// The mode of links to one function each. [`None`] chooses it, as
    /// [`KprobeOpts::attach_mode`](crate::KprobeOpts::attach_mode) does.
    ///
    /// It does not matter for a program that was loaded for links to many functions.
    pub attach_mode: Option<AttachMode>,
}

impl GroupOpts {
    /// Makes the options of a group that is attached to the entries of all functions, or to none.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            policy: Policy::AllOrNothing,
            retprobe: false,
            session: false,
            attach_mode: None,
        }
    }

    /// Sets the [policy](Self#structfield.policy).
    #[must_use]
    pub const fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Makes the program run at the [return](Self#structfield.retprobe), or at the entry.
    #[must_use]
    pub const fn retprobe(mut self, retprobe: bool) -> Self {
        self.retprobe = retprobe;
        self
    }

    /// Makes the program run at [entry and return](Self#structfield.session).
    #[must_use]
    pub const fn session(mut self, session: bool) -> Self {
        self.session = session;
        self
    }

    /// Sets the [mode](Self#structfield.attach_mode) of links to one function each.
    #[must_use]
    pub const fn attach_mode(mut self, attach_mode: AttachMode) -> Self {
        self.attach_mode = Some(attach_mode);
        self
    }
}

/// The rule that functions or options break, and the index of the function that breaks it.
pub(crate) type Broken = (Option<usize>, Invalid);

/// Checks all the rules of a link to many functions that do not depend on the kernel, in libbpf's
/// order.
pub(crate) fn check_multi(functions: &Functions<'_>, opts: KprobeMultiOpts) -> Result<(), Broken> {
    check_functions(functions).map_err(|invalid| (None, invalid))?;
    let invalid = if opts.unique_match && functions.len() != 1 {
        Some(Invalid::UniqueOfMany)
    } else if opts.session && opts.retprobe {
        Some(Invalid::SessionRetprobe)
    } else {
        None
    };
    if let Some(invalid) = invalid {
        return Err((None, invalid));
    }
    let mut largest = 0;
    for index in 0..functions.len() {
        let invalid = match functions.get(index) {
            Err(error) => error.invalid,
            Ok(Some(target)) if target.module_bytes().is_some() => Invalid::ModuleInMulti,
            Ok(Some(target)) => match target.as_address() {
                Some(address) if !is_kernel_address(address) => Invalid::NotKernelAddress,
                Some(address) if address > largest => {
                    largest = address;
                    continue;
                }
                // The kernel would give the hits of both to one of the two cookies.
                Some(_) if functions.is_repeated(index) => Invalid::FunctionTwice,
                // The kernel refuses a name that is repeated.
                _ => continue,
            },
            Ok(None) => continue,
        };
        return Err((Some(index), invalid));
    }
    Ok(())
}

/// Checks the number of functions, and that of cookies.
pub(crate) const fn check_functions(functions: &Functions<'_>) -> Result<(), Invalid> {
    if functions.is_empty() {
        Err(Invalid::NoFunctions)
    } else if functions.len() > MAX_FUNCTIONS {
        Err(Invalid::TooManyFunctions)
    } else if !functions.cookies.is_empty() && functions.cookies.len() != functions.len() {
        Err(Invalid::CookieCount)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(functions: Functions<'_>, opts: KprobeMultiOpts) -> Option<Broken> {
        check_multi(&functions, opts).err()
    }

    #[test]
    fn each_rule_is_checked_and_names_the_function() {
        const ENTRY: KprobeMultiOpts = KprobeMultiOpts::new();
        let symbols = |names: &[&'static std::ffi::CStr]| -> std::vec::Vec<SymbolRef<'static>> {
            names.iter().map(|name| SymbolRef::new(name)).collect()
        };
        let two = symbols(&[c"a", c"b.isra.0"]);
        let two = Functions::symbols(&two);
        assert_eq!(broken(two, ENTRY), None);
        assert_eq!(broken(two.cookies(&[1, 2]), ENTRY), None);
        let none = Some((None, Invalid::NoFunctions));
        assert_eq!(broken(Functions::symbols(&[]), ENTRY), none);
        assert_eq!(broken(Functions::addresses(&[]), ENTRY), none);
        let count = Some((None, Invalid::CookieCount));
        assert_eq!(broken(two.cookies(&[1]), ENTRY), count);
        let many = std::vec![u64::MAX - 4096; MAX_FUNCTIONS + 1];
        let too_many = Some((None, Invalid::TooManyFunctions));
        assert_eq!(broken(Functions::addresses(&many), ENTRY), too_many);
        let session = ENTRY.session(true);
        assert_eq!(broken(two, session), None);
        let both = Some((None, Invalid::SessionRetprobe));
        assert_eq!(broken(two, session.retprobe(true)), both);
        let unique = ENTRY.unique_match(true);
        assert_eq!(broken(two, unique), Some((None, Invalid::UniqueOfMany)));
        for (bad, invalid) in [
            (c"", Invalid::EmptyFunction),
            (c"1f", Invalid::LeadingDigit),
            (c"a b", Invalid::FunctionByte),
            (c"a*", Invalid::FunctionByte),
            (c"m:a", Invalid::ModuleInMulti),
        ] {
            let symbols = symbols(&[c"a", bad]);
            let found = broken(Functions::symbols(&symbols), ENTRY);
            assert_eq!(found, Some((Some(1), invalid)), "{bad:?}");
        }
        let top = u64::MAX - 4096;
        for (addresses, twice) in [
            ([top - 2, top - 1, top], None),
            ([top, top - 2, top - 1], None),
            ([top - 2, top - 1, top - 1], Some(2)),
            ([top - 1, top, top - 1], Some(2)),
            ([top, top, top - 1], Some(1)),
        ] {
            let expected = twice.map(|index| (Some(index), Invalid::FunctionTwice));
            let found = broken(Functions::addresses(&addresses), ENTRY);
            assert_eq!(found, expected, "{addresses:x?}");
        }
        let user = Some((Some(0), Invalid::NotKernelAddress));
        assert_eq!(broken(Functions::addresses(&[0x1000]), ENTRY), user);
    }

    #[test]
    fn a_function_that_was_named_before_is_repeated() {
        let symbols = [c"a", c"b", c"a"].map(SymbolRef::new);
        let functions = Functions::symbols(&symbols);
        let repeated = [0, 1, 2].map(|index| functions.is_repeated(index));
        assert_eq!(repeated, [false, false, true]);
        assert_eq!(functions.slice(0..2).len(), 2);
        assert_eq!(functions.get(3), Ok(None));
    }
}
